//! How a deployment is changed while it lives: updated, scaled, restarted, suspended, resumed, rolled back, licensed. Every
//! change is a new generation of its unit; none is taken that is not proven, because a later order would carry it
//! along (docs/decisions/0004).

use dotmac_protocol::{ids::DeploymentId, license::Tier, time::Timestamp};

use super::{Deployment, Status, grant::TierGrant, validate};
use crate::{
    access::Permission,
    command::{Command, UpdateDeployment},
    envelope::{Actor, Envelope, Warrant},
    reply::{Accepted, Code, FieldError, Rejection, Reply},
    signer,
    state::State,
    tier,
};

mod bounds;
mod license;

pub use bounds::{REPLICAS_BOUND_MAX, REPLICAS_MAX};
use bounds::{check_replicas, update_bounds};
use license::is_licensed_alone;
pub use license::{EXPIRY_MAX, LicenseOrder};

/// Characters of the reason of a change at most.
pub const REASON_CHARS_MAX: usize = 500;

impl Command {
    /// The deployment whose content this changes, and the permission that it takes.
    #[must_use]
    pub fn changes_content_of(&self) -> Option<(&DeploymentId, Permission)> {
        match self {
            Self::UpdateDeployment(update) => {
                Some((&update.deployment, Permission::DeploymentUpdate))
            }
            Self::ScaleDeployment { deployment, .. } => {
                Some((deployment, Permission::DeploymentScale))
            }
            Self::RestartDeployment { deployment } => {
                Some((deployment, Permission::DeploymentRestart))
            }
            Self::UpdateLicense(update) => Some((&update.deployment, Permission::LicenseUpdate)),
            Self::SuspendLicense { deployment, .. }
            | Self::RevokeLicense { deployment, .. }
            | Self::ReinstateLicense { deployment } => {
                Some((deployment, Permission::LicenseUpdate))
            }
            Self::SuspendDeployment { deployment, .. }
            | Self::ResumeDeployment { deployment }
            | Self::RollbackDeployment { deployment } => {
                Some((deployment, Permission::DeploymentUpdate))
            }
            _ => None,
        }
    }
}

impl State {
    /// A change of a deployment's content counts only when it is proven, and what it changes is, too. Whoever may not
    /// ask for it at all is answered by the command itself.
    pub(crate) fn require_proof(
        &self,
        envelope: &Envelope,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let Some((id, permission)) = envelope.command.changes_content_of() else {
            return Ok(());
        };
        let Some(deployment) = self.deployments.get(id) else {
            return Ok(());
        };
        if !self.may(&envelope.actor, permission, Some(&deployment.tenant)) {
            return Ok(());
        }
        let warrant = Warrant::of(envelope, now);
        signer::check_change(self, deployment, &warrant, permission).map_err(|refusal| {
            Rejection::new(Code::Forbidden, format!("it is not proven: {refusal}"))
        })
    }

    pub(crate) fn update_deployment(
        &mut self,
        envelope: &Envelope,
        update: &UpdateDeployment,
        now: Timestamp,
    ) -> Reply {
        let id = &update.deployment;
        let before = self.changeable(envelope, id)?.clone();
        let plan = [&update.resource_tier, &update.license_tier];
        if update.resources.is_some() || plan.into_iter().any(Option::is_some) {
            self.require(
                &envelope.actor,
                Permission::DeploymentPlan,
                Some(&before.tenant),
            )?;
        }
        require_status(id, &before, &[Status::Active, Status::Degraded], "updated")?;
        let mut after = before.clone();
        self.check_update(envelope, update, &mut after)?;
        self.require_plan_for(envelope, &before, &after)?;
        if !is_licensed_alone(&before, &after) {
            after.tenant_name = self.name_of_tenant(&before);
        }
        if after == before {
            return Ok(Accepted::Deployment {
                tenant: before.tenant,
                deployment: id.clone(),
            });
        }
        let is_new_version = after.release != before.release
            || after.resources != before.resources
            || after.tenant_name != before.tenant_name;
        if is_new_version {
            after.status = Status::Upgrading;
        }
        self.move_domain(id, &before, &after);
        self.adopt(envelope, id, after, now)
    }

    pub(crate) fn scale_deployment(
        &mut self,
        envelope: &Envelope,
        id: &DeploymentId,
        (replicas, reason): (u16, &str),
        now: Timestamp,
    ) -> Reply {
        let deployment = self.changeable(envelope, id)?;
        check_reason(reason)?;
        check_replicas("replicas", replicas, REPLICAS_MAX, deployment)?;
        let (least, most) = (deployment.min_replicas, deployment.max_replicas);
        if !(least..=most).contains(&replicas) {
            let allowed =
                format!("min_replicas ({least}) to max_replicas ({most}) of this deployment");
            return Err(Rejection::field("replicas", replicas, allowed));
        }
        require_status(
            id,
            deployment,
            &[Status::Active, Status::Degraded],
            "scaled",
        )?;
        let after = Deployment {
            replicas,
            ..deployment.clone()
        };
        self.adopt(envelope, id, after, now)
    }

    pub(crate) fn restart_deployment(
        &mut self,
        envelope: &Envelope,
        id: &DeploymentId,
        now: Timestamp,
    ) -> Reply {
        let deployment = self.changeable(envelope, id)?;
        let from = [Status::Active, Status::Degraded, Status::Failed];
        require_status(id, deployment, &from, "restarted")?;
        let after = Deployment {
            restarts: deployment.restarts.saturating_add(1),
            tenant_name: self.name_of_tenant(deployment),
            ..deployment.clone()
        };
        self.adopt(envelope, id, after, now)
    }

    pub(crate) fn suspend_deployment(
        &mut self,
        envelope: &Envelope,
        id: &DeploymentId,
        reason: &str,
        now: Timestamp,
    ) -> Reply {
        let deployment = self.changeable(envelope, id)?;
        check_reason(reason)?;
        let from = [
            Status::Provisioning,
            Status::Active,
            Status::Degraded,
            Status::Upgrading,
            Status::RollingBack,
            Status::Failed,
        ];
        require_status(id, deployment, &from, "suspended")?;
        let after = Deployment {
            status: Status::Suspended,
            suspended_reason: Some(reason.to_owned()),
            suspended_by_operator: !self.is_bound(&envelope.actor),
            health_reason: String::new(),
            ..deployment.clone()
        };
        self.adopt(envelope, id, after, now)
    }

    pub(crate) fn resume_deployment(
        &mut self,
        envelope: &Envelope,
        id: &DeploymentId,
        now: Timestamp,
    ) -> Reply {
        let deployment = self.changeable(envelope, id)?;
        require_status(id, deployment, &[Status::Suspended], "resumed")?;
        license::require_valid(id, deployment)?;
        if deployment.suspended_by_operator && self.is_bound(&envelope.actor) {
            let detail = format!("the operator suspended {id}: only he resumes it");
            return Err(Rejection::new(Code::Forbidden, detail));
        }
        let after = Deployment {
            status: Status::Provisioning,
            suspended_reason: None,
            suspended_by_operator: false,
            ..deployment.clone()
        };
        self.adopt(envelope, id, after, now)
    }

    pub(crate) fn rollback_deployment(
        &mut self,
        envelope: &Envelope,
        id: &DeploymentId,
        now: Timestamp,
    ) -> Reply {
        let deployment = self.changeable(envelope, id)?;
        let from = [
            Status::Active,
            Status::Degraded,
            Status::Upgrading,
            Status::Failed,
        ];
        require_status(id, deployment, &from, "rolled back")?;
        let Some(version) = deployment.rollback_target() else {
            let detail = format!("{id} has no other confirmed version to go back to");
            return Err(Rejection::new(Code::WrongState, detail));
        };
        let mut after = deployment.clone();
        after.become_version(version);
        self.require_plan_for(envelope, deployment, &after)?;
        after.status = Status::RollingBack;
        self.adopt(envelope, id, after, now)
    }

    /// A deployment whose content the actor may change with this command.
    fn changeable(&self, envelope: &Envelope, id: &DeploymentId) -> Result<&Deployment, Rejection> {
        let (_, permission) = envelope
            .command
            .changes_content_of()
            .expect("only commands that change content come here");
        self.owned(envelope, id, permission)
    }

    /// Takes over what a deployment should be from now on, and orders it.
    fn adopt(
        &mut self,
        envelope: &Envelope,
        id: &DeploymentId,
        after: Deployment,
        now: Timestamp,
    ) -> Reply {
        let accepted = Accepted::Deployment {
            tenant: after.tenant.clone(),
            deployment: id.clone(),
        };
        let (_, permission) = envelope
            .command
            .changes_content_of()
            .expect("only commands that change content come here");
        let warrant = Warrant::of(envelope, now);
        self.change_deployment(id, now, |deployment| {
            *deployment = Deployment {
                generation: deployment.generation.next(),
                revision: deployment.revision.saturating_add(1),
                permission,
                warrant,
                health_reason: String::new(),
                ..after
            };
        });
        self.order_instance(id, now);
        self.refresh_waiting_of(id, now);
        Ok(accepted)
    }

    /// Checks an update and puts it into `after`.
    fn check_update(
        &self,
        envelope: &Envelope,
        update: &UpdateDeployment,
        after: &mut Deployment,
    ) -> Result<(), Rejection> {
        if let Some(name) = &update.resource_tier {
            let grant = TierGrant::of(name, update.resources.as_ref())?;
            after.resource_tier.clone_from(name);
            after.resources = grant.resources;
            after.set_tier_max(grant.max_replicas);
        } else if update.resources.is_some() {
            let allowed = "given together with resource_tier custom";
            return Err(Rejection::field("resources", "given", allowed));
        }
        if let Some(name) = &update.license_tier {
            let tier = Tier::from_name(name)
                .ok_or_else(|| Rejection::field("license_tier", name, tier::LICENSE_TIERS))?;
            after.set_license_tier(name, tier);
        }
        if let Some(tag) = &update.image_tag {
            after.release = self.choose_release(Some(tag))?;
        }
        if let Some(domain) = &update.domain_name {
            self.check_domain(envelope, Some(domain), Some(&update.deployment))?;
            after.domain_name = Some(domain.to_ascii_lowercase());
        }
        if let Some(features) = &update.features {
            for (name, value) in features {
                match value {
                    Some(value) => after.features.insert(name.clone(), *value),
                    None => after.features.remove(name),
                };
            }
            validate::check_features(&after.features)?;
        }
        update_bounds(update, after)
    }

    /// Whether an actor is one tenant's own.
    fn is_bound(&self, actor: &Actor) -> bool {
        let Actor::Person(id) = actor else {
            return false;
        };
        self.tokens
            .get(id)
            .is_some_and(|token| token.tenant.is_some())
    }

    /// The tenant's name as it is now. Copies are told another one when they are replaced anyway.
    fn name_of_tenant(&self, deployment: &Deployment) -> String {
        let tenant = self.tenants.get(&deployment.tenant);
        tenant.map_or_else(
            || deployment.tenant_name.clone(),
            |tenant| tenant.name.clone(),
        )
    }

    /// A domain that was given up is free again, and a new one taken.
    fn move_domain(&mut self, id: &DeploymentId, before: &Deployment, after: &Deployment) {
        if before.domain_name == after.domain_name {
            return;
        }
        if let Some(domain) = &before.domain_name {
            self.domains.remove_mut(domain);
        }
        if let Some(domain) = &after.domain_name {
            self.domains.insert_mut(domain.clone(), id.clone());
        }
    }
}

fn check_reason(reason: &str) -> Result<(), Rejection> {
    if reason.chars().count() <= REASON_CHARS_MAX && !reason.chars().any(char::is_control) {
        return Ok(());
    }
    let allowed = format!("at most {REASON_CHARS_MAX} characters, no control characters");
    let error = Rejection::field("reason", reason, allowed);
    Err(error)
}

/// Only guarded transitions exist.
fn require_status(
    id: &DeploymentId,
    deployment: &Deployment,
    from: &[Status],
    verb: &str,
) -> Result<(), Rejection> {
    if from.contains(&deployment.status) {
        return Ok(());
    }
    let names: Vec<&str> = from.iter().map(|status| status.as_str()).collect();
    let detail = format!(
        "{id} is {}: it can be {verb} when it is {}",
        deployment.status.as_str(),
        names.join(", ")
    );
    let errors = vec![FieldError {
        field: "status".to_owned(),
        value: deployment.status.as_str().to_owned(),
        allowed: names.join(", "),
    }];
    Err(Rejection {
        errors,
        ..Rejection::new(Code::WrongState, detail)
    })
}
