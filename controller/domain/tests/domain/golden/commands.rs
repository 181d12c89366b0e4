//! Every command once, in the order of the enumeration.

use dotmac_domain::{
    Command,
    access::Role,
    audit::Stream,
    backups::BackupNews,
    command::{Behind, CustomResources, NoteMembers, UpdateDeployment, UpdateLicense},
    fleet::Presence,
};
use dotmac_protocol::{
    digest::Digest,
    frame::InventoryItem,
    ids::{DeploymentId, Generation, NodeId, Sequence, UnitId},
    record::HealthStatus,
    time::Timestamp,
    unit::{Resources, Sealed, SealedCredential},
};

use super::platform;
use crate::{
    cluster,
    fixture::{MANIFEST, START, TestAgent, deployment, genesis, join_token, token},
    random::audit_event,
};

/// Every command once, in the order of the enumeration.
pub(super) fn commands() -> Vec<(&'static str, Command)> {
    let mut commands = commands_of_people();
    commands.extend(further_commands());
    commands.extend(changes_of_deployments());
    commands.extend(platform::commands());
    commands.extend(licenses());
    commands.push(("raise-rules", Command::RaiseRules { to: 2 }));
    commands.extend(of_cluster());
    let drops = vec![(Stream::Platform, 7)];
    commands.push(("drop-facts", Command::DropFacts { drops }));
    commands.extend(of_backups());
    commands
}

pub(super) fn of_backups() -> Vec<(&'static str, Command)> {
    vec![
        ("request-backup", Command::RequestBackup),
        (
            "note-backup",
            Command::NoteBackup {
                name: "20261123T165400Z-00a1f9".into(),
                news: BackupNews::Made { index: 7, bytes: 8 },
            },
        ),
        (
            "adopt-inventory",
            Command::AdoptInventory {
                inventory: vec![InventoryItem {
                    unit: "instance/demo-isp-0190a1b2".parse().unwrap(),
                    generation: Generation(2),
                    sequence: Sequence(3),
                    removed: false,
                    health: HealthStatus::Healthy,
                }],
                last_record: 9,
            },
        ),
    ]
}

fn of_cluster() -> Vec<(&'static str, Command)> {
    let node = NodeId(4);
    let members = NoteMembers {
        voters: vec![NodeId(1), NodeId(2)],
        learners: vec![node],
    };
    let signed = cluster::sign(&cluster::root(2, &[1, 2, 3, 4]), 10);
    vec![
        ("follow-trust-root", Command::FollowTrustRoot { signed }),
        (
            "admit-controller",
            Command::AdmitController(Box::new(cluster::card(4))),
        ),
        ("promote-controller", Command::PromoteController { node }),
        ("retire-controller", Command::RetireController { node }),
        ("note-members", Command::NoteMembers(members)),
    ]
}

fn licenses() -> Vec<(&'static str, Command)> {
    let id = || "demo-isp-0190a1b2".parse().unwrap();
    let update = UpdateLicense {
        deployment: id(),
        license_tier: Some("enterprise".into()),
        max_subscribers: Some(5_000),
        max_services: Some(900),
        api_rate_limit: Some(2_000),
        expires_at: Some(Some(Timestamp(START))),
        grace_ms: Some(604_800_000),
    };
    let reason = || "unpaid".to_owned();
    vec![
        ("update-license", Command::UpdateLicense(Box::new(update))),
        (
            "suspend-license",
            Command::SuspendLicense {
                deployment: id(),
                reason: reason(),
            },
        ),
        (
            "revoke-license",
            Command::RevokeLicense {
                deployment: id(),
                reason: reason(),
            },
        ),
        (
            "reinstate-license",
            Command::ReinstateLicense { deployment: id() },
        ),
    ]
}

fn changes_of_deployments() -> Vec<(&'static str, Command)> {
    let deployment: DeploymentId = "demo-isp-0190a1b2".parse().unwrap();
    let id = || deployment.clone();
    let features = [("crm".to_owned(), Some(true)), ("old".to_owned(), None)];
    let update = UpdateDeployment {
        deployment: id(),
        resource_tier: Some("medium".into()),
        resources: None,
        license_tier: Some("enterprise".into()),
        image_tag: Some("1.1.0".into()),
        min_replicas: Some(2),
        max_replicas: Some(4),
        domain_name: Some("isp.example".into()),
        features: Some(features.into()),
    };
    let reason = || "unpaid".to_owned();
    vec![
        (
            "update-deployment",
            Command::UpdateDeployment(Box::new(update)),
        ),
        (
            "scale-deployment",
            Command::ScaleDeployment {
                deployment: id(),
                replicas: 3,
                reason: reason(),
            },
        ),
        (
            "restart-deployment",
            Command::RestartDeployment { deployment: id() },
        ),
        (
            "suspend-deployment",
            Command::SuspendDeployment {
                deployment: id(),
                reason: reason(),
            },
        ),
        (
            "resume-deployment",
            Command::ResumeDeployment { deployment: id() },
        ),
        (
            "rollback-deployment",
            Command::RollbackDeployment { deployment: id() },
        ),
    ]
}

fn commands_of_people() -> Vec<(&'static str, Command)> {
    let agent = TestAgent::new(40);
    let id = || "demo-isp-0190a1b2".parse().unwrap();
    let tenant = "demo-isp-0190a1b2".parse().unwrap();
    vec![
        ("found", Command::Found(Box::new(genesis()))),
        (
            "create-token",
            Command::CreateToken(token(2, Role::TenantAdmin, Some(&tenant))),
        ),
        (
            "add-release",
            Command::AddRelease {
                manifest: MANIFEST.into(),
            },
        ),
        (
            "retire-release",
            Command::RetireRelease {
                name: "demo-isp".parse().unwrap(),
                version: "1.0.0".parse().unwrap(),
            },
        ),
        ("create-deployment", full_request(&agent)),
        (
            "delete-deployment",
            Command::DeleteDeployment { deployment: id() },
        ),
        (
            "undelete-deployment",
            Command::UndeleteDeployment { deployment: id() },
        ),
        (
            "remove-deployment",
            Command::RemoveDeployment { deployment: id() },
        ),
        (
            "forget-deployment",
            Command::ForgetDeployment { deployment: id() },
        ),
    ]
}

fn further_commands() -> Vec<(&'static str, Command)> {
    let mut agent = TestAgent::new(40);
    let unit: UnitId = "instance/demo-isp-0190a1b2".parse().unwrap();
    let tenant = "demo-isp-0190a1b2".parse().unwrap();
    let since = Timestamp(START);
    let changes = vec![
        (agent.id.clone(), Presence::Unknown),
        (
            agent.id.clone(),
            Presence::Connected {
                node: NodeId(2),
                software: "0.1.0".into(),
                since,
            },
        ),
        (agent.id.clone(), Presence::Disconnected { since }),
    ];
    let records = vec![
        agent.record(None, audit_event("agent.started")),
        agent.record(Some(&unit), audit_event("instance.restarted")),
    ];
    vec![
        (
            "seal-wave",
            Command::SealWave {
                orders: vec![(agent.id.clone(), unit)],
            },
        ),
        ("create-join-token", Command::CreateJoinToken(join_token(5))),
        ("enrol-agent", Command::EnrolAgent(agent.enrol(5))),
        (
            "renew-certificate",
            Command::RenewCertificate {
                key: Digest::of(b"key"),
                not_after: since,
            },
        ),
        ("note-presence", Command::NotePresence { changes }),
        ("accept-report", agent.report(records)),
        (
            "note-access",
            Command::NoteAccess {
                action: "logs.read".into(),
                tenant: Some(tenant),
                detail: "20 lines".into(),
            },
        ),
        ("seal-clock", Command::SealClock),
        (
            "note-inventory",
            Command::NoteInventory {
                behind: vec![Behind {
                    unit: "instance/demo-isp-0190a1b2".parse().unwrap(),
                    sequence: Sequence(1),
                    generation: Generation(1),
                }],
            },
        ),
    ]
}

/// A request that sets every field.
fn full_request(agent: &TestAgent) -> Command {
    let mut full = deployment("Ünïcödé Nétwörks");
    full.tenant = Some("demo-isp-0190a1b2".parse().unwrap());
    full.environment = "staging".into();
    full.region = Some("lab-2".parse().unwrap());
    full.domain_name = Some("isp.example".into());
    full.resource_tier = "custom".into();
    let resources = Resources {
        cpu_request_millis: 250,
        memory_request_bytes: 1 << 29,
        cpu_limit_millis: 1_000,
        memory_limit_bytes: 1 << 31,
        storage_bytes: 10 << 30,
    };
    full.resources = Some(CustomResources {
        resources,
        max_replicas: 3,
    });
    full.image_tag = Some("demo-isp:1.0.0".into());
    full.cluster_name = Some("lab".into());
    full.reseller = Some("partner-1".into());
    full.sealed_for = Some(agent.id.clone());
    let sealed = Sealed {
        to: Digest::of(b"to"),
        encapsulated: [3; 32],
        ciphertext: vec![1, 2, 3],
    };
    full.credentials = vec![SealedCredential {
        name: "database.url".into(),
        sealed,
    }];
    Command::CreateDeployment(Box::new(full))
}
