//! What the audit says of an envelope: every change, and every refusal of a person's request, in words.

use dotmac_protocol::{
    ids::{DeploymentId, TenantId},
    release::Manifest,
    time::Timestamp,
};

use crate::{
    access::Words,
    audit::{Entry, Facts, Stream},
    backups::BackupNews,
    calendar,
    command::{Command, UpdateDeployment, UpdateLicense},
    desired,
    envelope::{Actor, Envelope, Warrant},
    reply::{Accepted, Code, Reply},
    state::State,
};

impl State {
    /// Writes the audit entry of the envelope itself: every change, and every refusal of a person's request.
    pub(super) fn note(
        &mut self,
        envelope: &Envelope,
        reply: &Reply,
        now: Timestamp,
        facts: &mut Facts,
    ) {
        let is_person = matches!(envelope.actor, Actor::Person(_));
        let worth = match (&envelope.command, reply) {
            (
                Command::AcceptReport { .. }
                | Command::NotePresence { .. }
                | Command::NoteTokenUse { .. }
                | Command::SealClock,
                _,
            ) => false,
            (Command::NoteBackup { news, .. }, Ok(_)) => {
                !matches!(news, BackupNews::Wrote { bytes } if *bytes > 0)
            }
            (Command::SealWave { .. }, _) => return self.note_wave(envelope, reply, now, facts),
            // Every controller that starts asks for the founding again.
            (Command::Found(_), Ok(_)) => self.streams.is_empty(),
            (_, Err(_)) => is_person,
            (_, Ok(_)) => true,
        };
        if !worth {
            return;
        }
        let (action, tenant, detail) = self.story_of(envelope, reply);
        let is_provable = is_person && envelope.evidence.check_size().is_ok();
        let entry = Entry {
            actor: envelope.actor.clone(),
            action,
            tenant,
            unit: None,
            request: envelope.request.clone(),
            detail,
            warrant: is_provable.then(|| Warrant::of(envelope, now)),
        };
        self.append_entry(entry, now, facts);
    }

    /// A sealed wave belongs into the story of every tenant whose order is in it.
    fn note_wave(&mut self, envelope: &Envelope, reply: &Reply, now: Timestamp, facts: &mut Facts) {
        let Ok(Accepted::Wave(number)) = reply else {
            return;
        };
        let Some(wave) = self.waves.get(number).cloned() else {
            return;
        };
        for leaf in desired::decode_leaves(&wave) {
            let entry = Entry {
                actor: envelope.actor.clone(),
                action: "wave.sealed".into(),
                tenant: Some(leaf.tenant.clone()),
                unit: Some(leaf.unit.clone()),
                request: leaf.request.clone(),
                detail: format!(
                    "wave {number}: {:?} generation {} sequence {} for agent {}",
                    leaf.verb, leaf.generation, leaf.sequence, leaf.agent
                ),
                warrant: None,
            };
            self.append_entry(entry, now, facts);
        }
    }

    fn story_of(&self, envelope: &Envelope, reply: &Reply) -> (String, Option<TenantId>, String) {
        let (action, tenant, detail) = self.words_of(&envelope.command, reply);
        match reply {
            Ok(_) => (action, tenant, cut(&detail)),
            Err(rejection) => {
                // A tenant that does not exist, or is somebody else's, gets no entry of its own.
                let tenant =
                    tenant.filter(|id| self.require_visible(&envelope.actor, Some(id)).is_ok());
                // The story has other readers than the asker, who may see less than he does (law 7).
                let why = match rejection.code {
                    Code::DomainInUse => "the domain is in use",
                    _ => &rejection.detail,
                };
                let text = format!("{detail}: {why} ({})", rejection.code.as_str());
                (format!("{action}.refused"), tenant, cut(&text))
            }
        }
    }

    /// Action, tenant and detail of a command, as if it had been accepted.
    fn words_of(&self, command: &Command, reply: &Reply) -> (String, Option<TenantId>, String) {
        let tenant_of = |id: &DeploymentId| self.deployments.get(id).map(|one| one.tenant.clone());
        let (action, tenant, detail) = match command {
            Command::Found(genesis) => ("cluster.founded", None, genesis.cluster.to_string()),
            Command::AddRelease { manifest } => {
                let key = Manifest::parse(manifest);
                let key = key.map(|one| format!("{}:{}", one.name, one.version));
                ("release.added", None, key.unwrap_or_default())
            }
            Command::RetireRelease { name, version } => {
                ("release.retired", None, format!("{name}:{version}"))
            }
            Command::CreateDeployment(create) => match reply {
                Ok(Accepted::Deployment { tenant, deployment }) => (
                    "deployment.created",
                    Some(tenant.clone()),
                    deployment.to_string(),
                ),
                _ => (
                    "deployment.created",
                    create.tenant.clone(),
                    create.tenant_name.clone(),
                ),
            },
            Command::DeleteDeployment { deployment } => (
                "deployment.deleted",
                tenant_of(deployment),
                deployment.to_string(),
            ),
            Command::UndeleteDeployment { deployment } => (
                "deployment.undeleted",
                tenant_of(deployment),
                deployment.to_string(),
            ),
            Command::RemoveDeployment { deployment } => {
                let delayed = self
                    .deployments
                    .get(deployment)
                    .is_some_and(|one| one.delete_after.is_some());
                let action = if delayed {
                    "deployment.removal-delayed"
                } else {
                    "deployment.removal-ordered"
                };
                (action, tenant_of(deployment), deployment.to_string())
            }
            Command::ForgetDeployment { deployment } => (
                "deployment.forgotten",
                tenant_of(deployment),
                deployment.to_string(),
            ),
            Command::CreateJoinToken(token) => (
                "join-token.created",
                None,
                format!("{} for region {}", token.id, token.region),
            ),
            Command::EnrolAgent(enrol) => match reply {
                Ok(Accepted::Agent(agent)) => ("agent.enrolled", None, agent.to_string()),
                _ => ("agent.enrolled", None, enrol.region.to_string()),
            },
            Command::RenewCertificate { key, .. } => {
                ("agent.certificate-renewed", None, format!("key {key}"))
            }
            Command::NoteAccess {
                action,
                tenant,
                detail,
            } => {
                let action = cut(action).chars().take(64).collect();
                return (action, tenant.clone(), detail.clone());
            }
            Command::NoteInventory { behind } => {
                let units: Vec<&str> = behind
                    .iter()
                    .take(20)
                    .map(|one| one.unit.as_str())
                    .collect();
                ("agent.orders-lost", None, units.join(", "))
            }
            Command::DropFacts { drops } => ("audit.dropped", None, words_of_drops(drops)),
            Command::AdoptInventory { inventory, .. } => {
                let count = inventory.len();
                ("agent.inventory-adopted", None, format!("{count} units"))
            }
            other => self
                .words_of_change(other)
                .or_else(|| self.words_of_platform(other, reply))
                .unwrap_or(("platform.noted", None, String::new())),
        };
        (action.into(), tenant, detail)
    }

    /// Action, tenant and detail of a change of a deployment's content.
    fn words_of_change(&self, command: &Command) -> Option<Words> {
        let (action, detail) = match command {
            Command::UpdateDeployment(update) => ("deployment.updated", words_of_update(update)),
            Command::ScaleDeployment {
                deployment,
                replicas,
                reason,
            } => (
                "deployment.scaled",
                format!("{deployment} to {replicas}: {reason}"),
            ),
            Command::RestartDeployment { deployment } => {
                ("deployment.restarted", deployment.to_string())
            }
            Command::SuspendDeployment { deployment, reason } => {
                ("deployment.suspended", format!("{deployment}: {reason}"))
            }
            Command::ResumeDeployment { deployment } => {
                ("deployment.resumed", deployment.to_string())
            }
            Command::RollbackDeployment { deployment } => {
                ("deployment.rolled-back", deployment.to_string())
            }
            Command::UpdateLicense(update) => ("license.updated", words_of_license(update)),
            Command::SuspendLicense { deployment, reason } => {
                ("license.suspended", format!("{deployment}: {reason}"))
            }
            Command::RevokeLicense { deployment, reason } => {
                ("license.revoked", format!("{deployment}: {reason}"))
            }
            Command::ReinstateLicense { deployment } => {
                ("license.reinstated", deployment.to_string())
            }
            _ => return None,
        };
        let (id, _) = command.changes_content_of()?;
        let tenant = self.deployments.get(id).map(|one| one.tenant.clone());
        Some((action, tenant, detail))
    }
}

/// Of which chains links are dropped, the first eight, and up to which.
fn words_of_drops(drops: &[(Stream, u64)]) -> String {
    let drops = drops.iter().take(8);
    let drops = drops.map(|(stream, through)| format!("{stream} to {through}"));
    drops.collect::<Vec<_>>().join(", ")
}

/// What an update asks for, field by field.
fn words_of_update(update: &UpdateDeployment) -> String {
    let mut words = update.deployment.to_string();
    let number = |number: Option<u16>| number.map(|number| number.to_string());
    let fields = [
        ("resource_tier", update.resource_tier.clone()),
        ("license_tier", update.license_tier.clone()),
        ("image_tag", update.image_tag.clone()),
        ("min_replicas", number(update.min_replicas)),
        ("max_replicas", number(update.max_replicas)),
        ("domain_name", update.domain_name.clone()),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            words.push_str(&format!(" {name}={value}"));
        }
    }
    for (name, value) in update.features.iter().flatten() {
        let value = value.map_or("removed", |value| if value { "on" } else { "off" });
        words.push_str(&format!(" features.{name}={value}"));
    }
    words
}

/// What a change of a licence asks for, field by field.
fn words_of_license(update: &UpdateLicense) -> String {
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let end = |end: Option<Timestamp>| end.map_or("never".to_owned(), calendar::moment);
    let fields = [
        ("license_tier", update.license_tier.clone()),
        ("max_subscribers", number(update.max_subscribers)),
        ("max_services", number(update.max_services)),
        ("api_rate_limit", number(update.api_rate_limit)),
        ("expires_at", update.expires_at.map(end)),
        ("grace_ms", update.grace_ms.map(|grace| grace.to_string())),
    ];
    let mut words = update.deployment.to_string();
    for (name, value) in fields {
        if let Some(value) = value {
            words.push_str(&format!(" {name}={value}"));
        }
    }
    words
}

fn cut(text: &str) -> String {
    text.chars()
        .filter(|one| !one.is_control())
        .take(500)
        .collect()
}
