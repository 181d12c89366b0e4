//! Everything that can be asked of the State. Version 1: variants are only ever added, at the end.

use std::collections::BTreeMap;

use dotmac_protocol::{
    codec::Format,
    digest::Digest,
    frame::InventoryItem,
    ids::{
        AgentId, DeploymentId, Generation, IncarnationId, NodeId, RegionId, ReleaseName,
        ReleaseVersion, Sequence, TenantId, TokenId, UnitId,
    },
    record::SignedRecord,
    time::Timestamp,
    trust::SignedTrustRoot,
    unit::{Resources, SealedCredential},
};
use serde::{Deserialize, Serialize};

use crate::{
    access::Role, audit::Stream, backups::BackupNews, envelope::Envelope, fleet::Presence,
};

mod cluster;
mod genesis;
mod join;
mod license;
mod platform;

pub use cluster::NoteMembers;
pub use genesis::{Genesis, NodeCard};
pub use join::{CreateJoinToken, EnrolAgent};
pub use license::UpdateLicense;
pub use platform::{UpdateRegion, UpdateTenant};

/// One change of the State, in the imperative.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes the cluster what its genesis file says. Only the first entry may be one.
    Found(Box<Genesis>),
    /// Adds an access token; its secret stays with whoever made it.
    CreateToken(CreateToken),
    /// Adds an immutable release; the bytes are its manifest.
    AddRelease {
        /// JSON of the manifest.
        manifest: Vec<u8>,
    },
    /// Takes a release out of the choice for new deployments.
    RetireRelease {
        /// Its name.
        name: ReleaseName,
        /// Its version.
        version: ReleaseVersion,
    },
    /// Makes a deployment, and its tenant unless it names one.
    CreateDeployment(Box<CreateDeployment>),
    /// Starts the grace time after which a deployment is removed.
    DeleteDeployment {
        /// Which one.
        deployment: DeploymentId,
    },
    /// Takes a deletion back within its grace time.
    UndeleteDeployment {
        /// Which one.
        deployment: DeploymentId,
    },
    /// The grace time is over: order the tombstone. Asked by a planner, checked against the State's clock.
    RemoveDeployment {
        /// Which one.
        deployment: DeploymentId,
    },
    /// Forgets a deployment 30 days after it was destroyed. Asked by a planner.
    ForgetDeployment {
        /// Which one.
        deployment: DeploymentId,
    },
    /// Seals the newest orders of these units into one wave. Asked by a planner.
    SealWave {
        /// Agent and unit of each order.
        orders: Vec<(AgentId, UnitId)>,
    },
    /// Makes a single-use token with which an agent joins.
    CreateJoinToken(CreateJoinToken),
    /// Admits an agent that showed a join token.
    EnrolAgent(EnrolAgent),
    /// Notes the key of an agent's new certificate.
    RenewCertificate {
        /// Digest of the new certificate's public key.
        key: Digest,
        /// When the certificate ends.
        not_after: Timestamp,
    },
    /// Notes which agents came and went. Asked by the leader, from what gateways hear.
    NotePresence {
        /// The transitions.
        changes: Vec<(AgentId, Presence)>,
    },
    /// Takes over an agent's records.
    AcceptReport {
        /// Of which life of the agent.
        incarnation: IncarnationId,
        /// In order and without gaps; those known already are skipped.
        records: Vec<SignedRecord>,
    },
    /// Notes that somebody looked at something that is not kept in the State, such as an instance's output.
    NoteAccess {
        /// Dotted name in the past tense.
        action: String,
        /// Whose it is.
        tenant: Option<TenantId>,
        /// For people.
        detail: String,
    },
    /// Seals the time, and what every agent has to keep. Asked by a planner, every minute.
    SealClock,
    /// Notes that an agent holds less than it acknowledged once, so that the orders are sent again.
    NoteInventory {
        /// What it holds of the units concerned.
        behind: Vec<Behind>,
    },
    /// Changes what a deployment should be.
    UpdateDeployment(Box<UpdateDeployment>),
    /// Changes how many copies of an instance run.
    ScaleDeployment {
        /// Which one.
        deployment: DeploymentId,
        /// Copies that should run.
        replicas: u16,
        /// Why, for the audit; at most 500 characters.
        reason: String,
    },
    /// Replaces an instance's processes, one copy at a time.
    RestartDeployment {
        /// Which one.
        deployment: DeploymentId,
    },
    /// Stops an instance and keeps it stopped.
    SuspendDeployment {
        /// Which one.
        deployment: DeploymentId,
        /// Why, for the audit; at most 500 characters.
        reason: String,
    },
    /// Starts a suspended instance again.
    ResumeDeployment {
        /// Which one.
        deployment: DeploymentId,
    },
    /// Brings the last confirmed version back.
    RollbackDeployment {
        /// Which one.
        deployment: DeploymentId,
    },
    /// Ends an access token.
    RevokeToken {
        /// Which one.
        token: TokenId,
    },
    /// Notes when tokens were used last. Asked by the controllers that saw them, at most once a minute.
    NoteTokenUse {
        /// Which, and when.
        uses: Vec<(TokenId, Timestamp)>,
    },
    /// Makes a tenant without a deployment.
    CreateTenant {
        /// Its name; 1 to 255 characters.
        name: String,
        /// The partner who brought it.
        reseller: Option<String>,
    },
    /// Changes what a tenant is called and who brought it; what is absent stays.
    UpdateTenant(UpdateTenant),
    /// Deletes a tenant that has no deployment any more, and ends the tokens bound to it.
    DeleteTenant {
        /// Which one.
        tenant: TenantId,
    },
    /// Adds a place where workloads may run.
    CreateRegion {
        /// Its name.
        region: RegionId,
        /// For people; at most 200 characters.
        description: String,
    },
    /// Changes a region; what is absent stays.
    UpdateRegion(UpdateRegion),
    /// Shuts an agent out for good. Only one that keeps nothing any more.
    RevokeAgent {
        /// Which one.
        agent: AgentId,
    },
    /// Takes back a join token that nobody has used.
    RevokeJoinToken {
        /// Which one.
        token: TokenId,
    },
    /// Changes what a deployment's licence grants and how long.
    UpdateLicense(Box<UpdateLicense>),
    /// Suspends a deployment's licence: its instance is stopped until it is reinstated.
    SuspendLicense {
        /// Whose.
        deployment: DeploymentId,
        /// Why, for the audit and for whoever asks; at most 500 characters.
        reason: String,
    },
    /// Ends a deployment's licence: its instance is stopped.
    RevokeLicense {
        /// Whose.
        deployment: DeploymentId,
        /// Why, for the audit and for whoever asks; at most 500 characters.
        reason: String,
    },
    /// Makes a suspended or revoked licence count again, and starts the instance if that had stopped it.
    ReinstateLicense {
        /// Whose.
        deployment: DeploymentId,
    },
    /// Puts newer rules into force, for good: from then on the program of before cannot read what is written.
    RaiseRules {
        /// Which version.
        to: u16,
    },
    /// Takes a new trust root in force. The root key's signature is the authority.
    FollowTrustRoot {
        /// The next version, as it was signed.
        signed: SignedTrustRoot,
    },
    /// Lets a further controller learn what is replicated.
    AdmitController(Box<NodeCard>),
    /// Lets a learning controller vote, once it has everything.
    PromoteController {
        /// Which one.
        node: NodeId,
    },
    /// Takes a controller out that does not sign any more. Its number is never used again.
    RetireController {
        /// Which one.
        node: NodeId,
    },
    /// Notes who takes part in the replicated log. Asked by its leader.
    NoteMembers(NoteMembers),
    /// Drops the oldest links of chains: of each all up to this sequence. Asked by the leader, checked against the State's
    /// clock.
    DropFacts {
        /// At most [`crate::retention::DROPS_MAX`].
        drops: Vec<(Stream, u64)>,
    },
    /// Asks for a backup now.
    RequestBackup,
    /// Tells how far a backup is, or how it ended. Asked by the leader, which makes it.
    NoteBackup {
        /// Its name at the target.
        name: String,
        /// What is new.
        news: BackupNews,
    },
    /// Takes over what an agent holds after a restore, before anything is ordered of it.
    AdoptInventory {
        /// Everything that it holds.
        inventory: Vec<InventoryItem>,
        /// The last record of its chain that it still has to send.
        last_record: u64,
    },
}

/// What is to be different about a deployment; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateDeployment {
    /// Which one.
    pub deployment: DeploymentId,
    /// Another resource tier.
    pub resource_tier: Option<String>,
    /// The numbers of tier `custom`.
    pub resources: Option<CustomResources>,
    /// Another license tier.
    pub license_tier: Option<String>,
    /// Another release: `VERSION` or `NAME:VERSION`.
    pub image_tag: Option<String>,
    /// Copies at least, 1 to 20.
    pub min_replicas: Option<u16>,
    /// Copies at most, 1 to 50.
    pub max_replicas: Option<u16>,
    /// Another host name.
    pub domain_name: Option<String>,
    /// Switches handed to the instance: those named are set, or removed with `None`; the others stay.
    pub features: Option<BTreeMap<String, Option<bool>>>,
}

/// What an agent really holds of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Which unit.
    pub unit: UnitId,
    /// The sequence that it holds; 0 for none.
    pub sequence: Sequence,
    /// The generation that it holds; 0 for none.
    pub generation: Generation,
}

impl Format for Command {
    const KIND: &'static str = "command";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = Envelope::BYTES_MAX;
}

/// An access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateToken {
    /// Its public name.
    pub id: TokenId,
    /// Digest of the whole secret text.
    pub secret_digest: Digest,
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The only tenant it may touch, if any.
    pub tenant: Option<TenantId>,
    /// First moment at which it no longer counts; never, if absent.
    pub expires_at: Option<Timestamp>,
}

/// What is asked for with a new deployment; see the contract for the fields' meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateDeployment {
    /// The tenant's name; 1 to 255 characters.
    pub tenant_name: String,
    /// An existing tenant, for a further environment.
    pub tenant: Option<TenantId>,
    /// `development`, `staging` or `production`.
    pub environment: String,
    /// Where; the default when absent.
    pub region: Option<RegionId>,
    /// Host name.
    pub domain_name: Option<String>,
    /// `micro` to `xlarge`, or `custom`.
    pub resource_tier: String,
    /// The numbers of tier `custom`.
    pub resources: Option<CustomResources>,
    /// `free` to `enterprise`, `professional` for `premium`.
    pub license_tier: String,
    /// `VERSION` or `NAME:VERSION`; the channel's default when absent.
    pub image_tag: Option<String>,
    /// A label for people.
    pub cluster_name: Option<String>,
    /// Subscribers at most.
    pub max_customers: u32,
    /// Services at most.
    pub max_services: u32,
    /// API calls a minute at most.
    pub api_rate_limit: u32,
    /// Switches handed to the instance.
    pub features: BTreeMap<String, bool>,
    /// Further configuration as JSON, without secrets.
    pub custom_config: String,
    /// Credentials sealed to the agent `sealed_for`.
    pub credentials: Vec<SealedCredential>,
    /// The agent that the credentials are sealed to.
    pub sealed_for: Option<AgentId>,
    /// The partner who sold it.
    pub reseller: Option<String>,
}

/// The numbers of tier `custom`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomResources {
    /// Requests, limits and storage.
    pub resources: Resources,
    /// Replicas at most, 1 to 50.
    pub max_replicas: u16,
}
