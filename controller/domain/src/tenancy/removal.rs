//! How a deployment goes: deleted with a grace time, taken back, removed by a tombstone within the budgets of law 2,
//! shown for a while, forgotten. Nothing here follows from absence.

use dotmac_protocol::{
    ids::{DeploymentId, TenantId},
    record::HealthStatus,
    time::Timestamp,
};

use super::{Status, Waiting};
use crate::{
    access::Permission,
    envelope::{Envelope, Warrant},
    reply::{Accepted, Code, Rejection, Reply},
    signer,
    state::State,
};

/// Milliseconds for which a destroyed deployment is still shown: 30 days.
pub const DESTROYED_KEPT_MS: u64 = 30 * 24 * 3_600_000;
/// How the reason of a removal that waits for its budget begins.
pub(crate) const BUDGET_REASON: &str = "the removal budget";
/// One hour in milliseconds.
const HOUR_MS: u64 = 3_600_000;

impl State {
    pub(crate) fn delete_deployment(
        &mut self,
        envelope: &Envelope,
        id: &DeploymentId,
        now: Timestamp,
    ) -> Reply {
        let deployment = self.owned(envelope, id, Permission::DeploymentDelete)?;
        let tenant = deployment.tenant.clone();
        let accepted = Accepted::Deployment {
            tenant,
            deployment: id.clone(),
        };
        match deployment.status {
            Status::Destroying => {
                self.renew_removal(id, Warrant::of(envelope, now), now);
                return Ok(accepted);
            }
            Status::Destroyed => {
                return Err(Rejection::new(
                    Code::WrongState,
                    format!("{id} is destroyed already"),
                ));
            }
            _ => {}
        }
        let grace_ms = self.genesis.as_ref().map_or(0, |genesis| genesis.grace_ms);
        let warrant = Warrant::of(envelope, now);
        self.change_deployment(id, now, |deployment| {
            deployment.revision = deployment.revision.saturating_add(1);
            deployment.status_before = Some(deployment.status);
            deployment.status = Status::Destroying;
            deployment.delete_after = Some(now.plus_millis(grace_ms));
            deployment.removal = Some(warrant);
            deployment.waiting = Some(Waiting {
                reason: format!("its grace time of {grace_ms} ms is not over"),
                since: now,
                who: format!("anybody who may delete it: `dotmac deployments undelete {id}`"),
            });
        });
        Ok(accepted)
    }

    /// A deletion that is not proven would never be signed: asked again, the new request vouches for it.
    fn renew_removal(&mut self, id: &DeploymentId, warrant: Warrant, now: Timestamp) {
        let is_proven = |warrant: &Warrant| signer::check_evidence(self, warrant).is_ok();
        let known = self
            .deployments
            .get(id)
            .and_then(|one| one.removal.as_ref());
        if known.is_some_and(|known| is_proven(known) || !is_proven(&warrant)) {
            return;
        }
        self.change_deployment(id, now, |deployment| deployment.removal = Some(warrant));
        let ordered = self.deployments.get(id);
        let ordered = ordered.filter(|one| one.delete_after.is_none());
        if let Some(agent) = ordered.and_then(|one| one.agent.clone()) {
            self.order_removal(&agent, id, now);
        }
        self.refresh_waiting_of(id, now);
    }

    pub(crate) fn undelete_deployment(
        &mut self,
        envelope: &Envelope,
        id: &DeploymentId,
        now: Timestamp,
    ) -> Reply {
        let deployment = self.owned(envelope, id, Permission::DeploymentDelete)?;
        let tenant = deployment.tenant.clone();
        let in_grace = deployment.status == Status::Destroying && deployment.delete_after.is_some();
        if !in_grace {
            let detail = match deployment.status {
                Status::Destroying => {
                    format!("the removal of {id} has begun: its grace time is over")
                }
                status => format!("{id} is {}, not destroying", status.as_str()),
            };
            return Err(Rejection::new(Code::WrongState, detail));
        }
        self.change_deployment(id, now, |deployment| {
            let before = deployment.status_before.take();
            deployment.revision = deployment.revision.saturating_add(1);
            deployment.status = before.unwrap_or(Status::Provisioning);
            deployment.delete_after = None;
            deployment.removal = None;
            deployment.waiting = None;
        });
        self.settle(id, None, now);
        Ok(Accepted::Deployment {
            tenant,
            deployment: id.clone(),
        })
    }

    pub(crate) fn remove_deployment(
        &mut self,
        envelope: &Envelope,
        id: &DeploymentId,
        now: Timestamp,
    ) -> Reply {
        self.require_planner(envelope)?;
        let Some(deployment) = self.deployments.get(id).cloned() else {
            return Err(Rejection::not_found("deployment", id));
        };
        let is_due = deployment.delete_after.is_some_and(|due| due <= now);
        if deployment.status != Status::Destroying || !is_due {
            return Err(Rejection::new(
                Code::WrongState,
                format!("{id} is not due for removal"),
            ));
        }
        let accepted = Accepted::Deployment {
            tenant: deployment.tenant.clone(),
            deployment: id.clone(),
        };
        if let Some((budget, name)) = self.exhausted_budget(&deployment.tenant, now) {
            self.change_deployment(id, now, |deployment| {
                deployment.waiting = Some(Waiting {
                    reason: format!("{BUDGET_REASON} of {budget} an hour for {name} is used up"),
                    since: now,
                    who: format!(
                        "nobody: it goes on as soon as the budget allows; `dotmac deployments undelete {id}` still takes it back"
                    ),
                });
            });
            return Ok(accepted);
        }
        self.spend_removal(&deployment.tenant, id, now);
        match &deployment.agent {
            Some(agent) => {
                self.change_deployment(id, now, |deployment| {
                    deployment.delete_after = None;
                    deployment.generation = deployment.generation.next();
                    deployment.health_reason.clear();
                });
                self.order_removal(agent, id, now);
            }
            None => self.finish_removal(id, now),
        }
        Ok(accepted)
    }

    /// Takes one tombstone from the budgets (law 2).
    fn spend_removal(&mut self, tenant: &TenantId, id: &DeploymentId, now: Timestamp) {
        let old: Vec<_> = self
            .removals
            .keys()
            .take_while(|(at, _)| now.millis_since(*at) >= HOUR_MS)
            .cloned()
            .collect();
        for key in old {
            self.removals.remove_mut(&key);
        }
        self.removals.insert_mut((now, id.clone()), tenant.clone());
    }

    /// The budget that allows no further tombstone at `now`, if one.
    pub(crate) fn exhausted_budget(
        &self,
        tenant: &TenantId,
        now: Timestamp,
    ) -> Option<(u32, &'static str)> {
        let mut budgets = self.budgets(tenant).into_iter();
        budgets
            .find(|(_, _, free_at)| *free_at > now)
            .map(|(budget, name, _)| (budget, name))
    }

    /// The first moment at which the budgets allow a tombstone for this tenant.
    pub(crate) fn budget_free_at(&self, tenant: &TenantId) -> Timestamp {
        let budgets = self.budgets(tenant).into_iter();
        budgets
            .map(|(_, _, free_at)| free_at)
            .max()
            .unwrap_or_default()
    }

    /// The budgets that a tombstone for this tenant is taken from: how many an hour, for whom, and when one is free.
    fn budgets(&self, tenant: &TenantId) -> Vec<(u32, &'static str, Timestamp)> {
        let Some(genesis) = self.genesis.as_ref() else {
            return Vec::new();
        };
        let free_at = |budget: u32, times: Vec<Timestamp>| {
            let Ok(budget) = usize::try_from(budget) else {
                return Timestamp::default();
            };
            if budget == 0 {
                return Timestamp(u64::MAX);
            }
            let oldest_that_counts = times.len().checked_sub(budget);
            oldest_that_counts.map_or(Timestamp::default(), |at| times[at].plus_millis(HOUR_MS))
        };
        let all = self.removals.keys().map(|(at, _)| *at).collect();
        let own = self.removals.iter().filter(|(_, one)| *one == tenant);
        let own = own.map(|((at, _), _)| *at).collect();
        let (cluster, each) = (genesis.removals_per_hour, genesis.removals_per_tenant_hour);
        vec![
            (cluster, "the cluster", free_at(cluster, all)),
            (each, "this tenant", free_at(each, own)),
        ]
    }

    /// The agent confirmed that it is gone (or no agent ever had it).
    pub(crate) fn finish_removal(&mut self, id: &DeploymentId, now: Timestamp) {
        let Some(deployment) = self.deployments.get(id).cloned() else {
            return;
        };
        self.keep_terms(&deployment);
        if let Some(domain) = deployment.domain_name.clone() {
            self.domains.remove_mut(&domain);
        }
        self.change_deployment(id, now, |deployment| {
            deployment.status = Status::Destroyed;
            deployment.delete_after = None;
            deployment.health = HealthStatus::Stopped;
            deployment.components.clear();
            deployment.credentials.clear();
            deployment.waiting = None;
        });
    }

    pub(crate) fn forget_deployment(
        &mut self,
        envelope: &Envelope,
        id: &DeploymentId,
        now: Timestamp,
    ) -> Reply {
        self.require_planner(envelope)?;
        let Some(deployment) = self.deployments.get(id) else {
            return Err(Rejection::not_found("deployment", id));
        };
        let is_old = now.millis_since(deployment.updated_at) >= DESTROYED_KEPT_MS;
        if deployment.status != Status::Destroyed || !is_old {
            return Err(Rejection::new(
                Code::WrongState,
                format!("{id} is still to be shown"),
            ));
        }
        // Its unit stays as a tombstone: should the id be used again, its numbers go on where the agent's journal ends.
        self.deployments.remove_mut(id);
        self.reported.remove_mut(id);
        Ok(Accepted::Done)
    }
}
