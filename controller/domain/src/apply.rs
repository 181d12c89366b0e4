//! The only door through which the State changes.

use std::collections::BTreeSet;

use dotmac_protocol::{ids::TenantId, time::Timestamp};

use crate::{
    access::Permission,
    audit::{Fact, Facts},
    changed::Changed,
    command::{Command, Genesis},
    envelope::{Actor, Envelope},
    reply::{Accepted, Code, Rejection, Reply},
    rules::{RULES_OLDEST, RULES_VERSION},
    state::State,
};

mod story;

/// What applying one envelope led to, besides the new State.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The answer to whoever proposed it.
    pub reply: Reply,
    /// Records for the ledger, in order.
    pub facts: Vec<Fact>,
    /// The entities that may look different now; a hint for whoever shows them.
    pub changed: BTreeSet<Changed>,
}

impl State {
    /// Applies one committed envelope. Total: it neither fails nor panics, and a rejection leaves no trace but
    /// its audit entry.
    pub fn apply(&mut self, envelope: &Envelope) -> Applied {
        let now = self.now.max(envelope.at);
        self.now = now;
        let mut facts = Facts::default();
        if let Some(reply) = self.answered(envelope) {
            return Applied {
                reply,
                facts: facts.done(),
                changed: BTreeSet::new(),
            };
        }
        let before = self.clone();
        let mark = before.cluster_mark();
        let reply = envelope
            .evidence
            .check_size()
            .and_then(|()| self.require_proof(envelope, now))
            .and_then(|()| self.require_asked(envelope, now))
            .and_then(|()| self.dispatch(envelope, now, &mut facts));
        if reply.is_err() {
            *self = before;
            facts = Facts::default();
        }
        self.note(envelope, &reply, now, &mut facts);
        if is_retriable(envelope) && self.genesis.is_some() {
            self.remember(envelope, &reply);
        }
        Applied {
            reply,
            facts: facts.done(),
            changed: self.take_changed(mark),
        }
    }

    /// What a retry gets: the first answer, or a refusal if the request's name was used for something else.
    fn answered(&self, envelope: &Envelope) -> Option<Reply> {
        if let Some(answer) = self.answers.get(&envelope.request)
            && is_retriable(envelope)
        {
            let is_same = answer.asked == envelope.asked && answer.actor == envelope.actor;
            let detail = "the idempotency key was used for another request";
            let mixed_up = || Err(Rejection::new(Code::IdempotencyKeyReused, detail));
            return Some(if is_same {
                answer.reply.clone()
            } else {
                mixed_up()
            });
        }
        None
    }

    /// What a person's command would lead to now: the State as it would be, and the reply. Needs no proof, and leaves
    /// no trace.
    ///
    /// # Errors
    /// With the rejection that the command would get.
    pub fn preview(&self, envelope: &Envelope) -> Result<(Self, Accepted), Rejection> {
        let mut after = self.clone();
        after.now = self.now.max(envelope.at);
        let now = after.now;
        let accepted = after.dispatch(envelope, now, &mut Facts::default())?;
        if let Accepted::Deployment { deployment, .. } = &accepted {
            // Nothing is ordered, so nothing is waited for.
            after.change_deployment(deployment, now, |deployment| deployment.waiting = None);
        }
        Ok((after, accepted))
    }

    /// One match, one line a command.
    #[expect(clippy::too_many_lines, reason = "a line a command")]
    fn dispatch(&mut self, envelope: &Envelope, now: Timestamp, facts: &mut Facts) -> Reply {
        if let Command::Found(genesis) = &envelope.command {
            return self.found(envelope, genesis);
        }
        if self.genesis.is_none() {
            return Err(Rejection::new(
                Code::NotFounded,
                "the cluster is not founded yet",
            ));
        }
        self.require_live(&envelope.actor)?;
        self.require_rules(&envelope.command, &envelope.evidence)?;
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
                self.require_visible(&envelope.actor, tenant.as_ref())?;
                Ok(Accepted::Done)
            }
            Command::SealClock => self.seal_clock(envelope, now),
            Command::NoteInventory { behind } => self.note_inventory(envelope, behind, now),
            Command::UpdateDeployment(update) => self.update_deployment(envelope, update, now),
            Command::ScaleDeployment {
                deployment,
                replicas,
                reason,
            } => self.scale_deployment(envelope, deployment, (*replicas, reason), now),
            Command::RestartDeployment { deployment } => {
                self.restart_deployment(envelope, deployment, now)
            }
            Command::SuspendDeployment { deployment, reason } => {
                self.suspend_deployment(envelope, deployment, reason, now)
            }
            Command::ResumeDeployment { deployment } => {
                self.resume_deployment(envelope, deployment, now)
            }
            Command::RollbackDeployment { deployment } => {
                self.rollback_deployment(envelope, deployment, now)
            }
            Command::RevokeToken { token } => self.revoke_token(envelope, token, now),
            Command::NoteTokenUse { uses } => self.note_token_use(envelope, uses, now),
            Command::CreateTenant { name, reseller } => {
                self.create_tenant(envelope, (name, reseller.as_deref()), now)
            }
            Command::UpdateTenant(update) => self.update_tenant(envelope, update, now),
            Command::DeleteTenant { tenant } => self.delete_tenant(envelope, tenant, now),
            Command::CreateRegion {
                region,
                description,
            } => self.create_region(envelope, region, description, now),
            Command::UpdateRegion(update) => self.update_region(envelope, update, now),
            Command::RevokeAgent { agent } => self.revoke_agent(envelope, agent, now),
            Command::RevokeJoinToken { token } => self.revoke_join_token(envelope, token, now),
            Command::UpdateLicense(update) => self.update_license(envelope, update, now),
            Command::SuspendLicense { deployment, reason }
            | Command::RevokeLicense { deployment, reason } => {
                self.withdraw_license(envelope, deployment, reason, now)
            }
            Command::ReinstateLicense { deployment } => {
                self.reinstate_license(envelope, deployment, now)
            }
            Command::RaiseRules { to } => self.raise_rules(envelope, *to, now),
            other => self.dispatch_of_cluster(envelope, other, now),
        }
    }

    /// What concerns the cluster itself: its controllers, its backups, and the time after a restore.
    fn dispatch_of_cluster(
        &mut self,
        envelope: &Envelope,
        command: &Command,
        now: Timestamp,
    ) -> Reply {
        match command {
            Command::FollowTrustRoot { signed } => self.follow_trust_root(envelope, signed, now),
            Command::AdmitController(card) => self.admit_controller(envelope, card, now),
            Command::PromoteController { node } => self.promote_controller(envelope, *node, now),
            Command::RetireController { node } => self.retire_controller(envelope, *node, now),
            Command::NoteMembers(members) => {
                let (voters, learners) = (&members.voters, &members.learners);
                self.note_members(envelope, voters, learners, now)
            }
            Command::DropFacts { drops } => self.drop_facts(envelope, drops, now),
            Command::RequestBackup => self.request_backup(envelope, now),
            Command::NoteBackup { name, news } => self.note_backup(envelope, name, news, now),
            Command::AdoptInventory {
                inventory,
                last_record,
            } => self.adopt_inventory(envelope, inventory, *last_record, now),
            _ => unreachable_found(),
        }
    }

    /// The first entry of every log. Its envelope says which rules the cluster begins with: those of the program that made it.
    fn found(&mut self, envelope: &Envelope, genesis: &Genesis) -> Reply {
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
        self.insert_token(&genesis.admin, genesis.created_at, None)?;
        self.seed_regions(genesis);
        self.seed_controllers(genesis, trust);
        self.genesis = Some(genesis.clone());
        let rules = envelope.rules.clamp(RULES_OLDEST, RULES_VERSION);
        self.enter_rules(rules, &envelope.actor, genesis.created_at);
        Ok(Accepted::Done)
    }

    /// A stranger's tenant is the same as none (law 7).
    pub(crate) fn require_visible(
        &self,
        actor: &Actor,
        tenant: Option<&TenantId>,
    ) -> Result<(), Rejection> {
        let Some(id) = tenant else { return Ok(()) };
        let may_see = match actor {
            Actor::Person(_) => self.may(actor, Permission::DeploymentRead, tenant),
            Actor::Agent(_) | Actor::Planner | Actor::Founder => true,
        };
        if may_see && self.tenants.contains_key(id) {
            return Ok(());
        }
        Err(Rejection::not_found("tenant", id))
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
