//! The only door through which the State changes.

use dotmac_protocol::{
    ids::{DeploymentId, TenantId},
    time::Timestamp,
};

use crate::{
    audit::{Entry, Fact, Facts},
    command::{Command, Genesis},
    desired,
    envelope::{Actor, Envelope, Warrant},
    reply::{Accepted, Code, Rejection, Reply},
    state::{RULES_VERSION, State},
};

/// What applying one envelope led to, besides the new State.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The answer to whoever proposed it.
    pub reply: Reply,
    /// Records for the ledger, in order.
    pub facts: Vec<Fact>,
}

impl State {
    /// Applies one committed envelope. Total: it neither fails nor panics, and a rejection leaves no trace but
    /// its audit entry.
    pub fn apply(&mut self, envelope: &Envelope) -> Applied {
        let now = self.now.max(envelope.at);
        self.now = now;
        let mut facts = Facts::default();
        if let Some(answer) = self.answers.get(&envelope.request)
            && is_retriable(envelope)
        {
            let reply = if answer.asked == envelope.asked {
                answer.reply.clone()
            } else {
                let detail = "the idempotency key was used for another request";
                Err(Rejection::new(Code::IdempotencyKeyReused, detail))
            };
            return Applied {
                reply,
                facts: facts.done(),
            };
        }
        let before = self.clone();
        let reply = self.dispatch(envelope, now, &mut facts);
        if reply.is_err() {
            *self = before;
            facts = Facts::default();
        }
        self.note(envelope, &reply, now, &mut facts);
        if is_retriable(envelope) && self.genesis.is_some() {
            self.remember(&envelope.request, envelope.asked, &reply);
        }
        Applied {
            reply,
            facts: facts.done(),
        }
    }

    /// One match, one line a command.
    fn dispatch(&mut self, envelope: &Envelope, now: Timestamp, facts: &mut Facts) -> Reply {
        if let Command::Found(genesis) = &envelope.command {
            return self.found(genesis);
        }
        if self.genesis.is_none() {
            return Err(Rejection::new(
                Code::NotFounded,
                "the cluster is not founded yet",
            ));
        }
        match &envelope.command {
            Command::Found(_) => unreachable_found(),
            Command::CreateToken(token) => self.create_token(envelope, token, now),
            Command::AddRelease { manifest } => self.add_release(envelope, manifest, now),
            Command::RetireRelease { name, version } => {
                self.retire_release(envelope, name, version)
            }
            Command::CreateDeployment(create) => self.create_deployment(envelope, create, now),
            Command::DeleteDeployment { deployment } => {
                self.delete_deployment(envelope, deployment, now)
            }
            Command::UndeleteDeployment { deployment } => {
                self.undelete_deployment(envelope, deployment, now)
            }
            Command::RemoveDeployment { deployment } => {
                self.remove_deployment(envelope, deployment, now)
            }
            Command::ForgetDeployment { deployment } => {
                self.forget_deployment(envelope, deployment, now)
            }
            Command::SealWave { orders } => self.seal_wave(envelope, orders, now),
            Command::CreateJoinToken(token) => self.create_join_token(envelope, token, now),
            Command::EnrolAgent(enrol) => self.enrol_agent(envelope, enrol, now),
            Command::RenewCertificate { key, not_after } => {
                self.renew_certificate(envelope, *key, *not_after, now)
            }
            Command::NotePresence { changes } => self.note_presence(envelope, changes, now),
            Command::AcceptReport {
                incarnation,
                records,
            } => self.accept_report(envelope, incarnation, records, now, facts),
            Command::NoteAccess { tenant, .. } => {
                self.require_known(tenant.as_ref())?;
                Ok(Accepted::Done)
            }
        }
    }

    /// The first entry of every log.
    fn found(&mut self, genesis: &Genesis) -> Reply {
        if let Some(known) = &self.genesis {
            let same = known == genesis;
            return if same {
                Ok(Accepted::Done)
            } else {
                Err(Rejection::new(
                    Code::NotFounded,
                    "the cluster was founded otherwise",
                ))
            };
        }
        let trust = genesis
            .trust_root
            .self_signed()
            .map_err(|error| Rejection::new(Code::Invalid, error.to_string()))?;
        self.rules = RULES_VERSION;
        self.insert_token(&genesis.admin, genesis.created_at, None)?;
        self.trust = Some(trust);
        self.genesis = Some(genesis.clone());
        Ok(Accepted::Done)
    }

    fn require_known(&self, tenant: Option<&TenantId>) -> Result<(), Rejection> {
        match tenant {
            Some(tenant) if !self.tenants.contains_key(tenant) => {
                Err(Rejection::not_found("tenant", tenant))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Writes the audit entry of the envelope itself: every change, and every refusal of a person's request.
    fn note(&mut self, envelope: &Envelope, reply: &Reply, now: Timestamp, facts: &mut Facts) {
        let is_person = matches!(envelope.actor, Actor::Person(_));
        let worth = match (&envelope.command, reply) {
            (Command::AcceptReport { .. } | Command::NotePresence { .. }, _) => false,
            (Command::SealWave { .. }, _) => return self.note_wave(envelope, reply, now, facts),
            (_, Err(_)) => is_person,
            (_, Ok(_)) => true,
        };
        if !worth {
            return;
        }
        let (action, tenant, detail) = self.story_of(&envelope.command, reply);
        let entry = Entry {
            actor: envelope.actor.clone(),
            action,
            tenant,
            unit: None,
            request: envelope.request.clone(),
            detail,
            warrant: is_person.then(|| Warrant::of(envelope, now)),
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

    fn story_of(&self, command: &Command, reply: &Reply) -> (String, Option<TenantId>, String) {
        let tenant_of = |id: &DeploymentId| self.deployments.get(id).map(|one| one.tenant.clone());
        let (action, tenant, detail) = match command {
            Command::Found(genesis) => ("cluster.founded", None, genesis.cluster.to_string()),
            Command::CreateToken(token) => (
                "token.created",
                token.tenant.clone(),
                format!("{} ({})", token.id, token.name),
            ),
            Command::AddRelease { .. } => ("release.added", None, String::new()),
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
            Command::RemoveDeployment { deployment } => (
                "deployment.removal-ordered",
                tenant_of(deployment),
                deployment.to_string(),
            ),
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
                let action = action.chars().take(64).collect::<String>();
                return (action, tenant.clone(), cut(detail));
            }
            Command::SealWave { .. }
            | Command::NotePresence { .. }
            | Command::AcceptReport { .. } => ("platform.noted", None, String::new()),
        };
        match reply {
            Ok(_) => (action.into(), tenant, cut(&detail)),
            Err(rejection) => {
                // A tenant that does not exist, or is somebody else's, gets no entry of its own.
                let tenant = tenant.filter(|id| self.tenants.contains_key(id));
                let text = format!(
                    "{detail}: {} ({})",
                    rejection.detail,
                    rejection.code.as_str()
                );
                (format!("{action}.refused"), tenant, cut(&text))
            }
        }
    }
}

/// `dispatch` handles the founding before its match.
fn unreachable_found() -> Reply {
    Err(Rejection::new(
        Code::NotFounded,
        "the cluster is founded already",
    ))
}

/// Planners and agents have dedup rules of their own.
fn is_retriable(envelope: &Envelope) -> bool {
    matches!(envelope.actor, Actor::Person(_))
}

fn cut(text: &str) -> String {
    text.chars()
        .filter(|one| !one.is_control())
        .take(500)
        .collect()
}
