//! What an operator does with a licence: changes what it grants and how long, suspends or revokes it, makes it count
//! again. Time never stops an instance; such an order does, and only the next one starts it again.

use dotmac_protocol::{
    ids::DeploymentId,
    license::{GRACE_MAX_MS, LicenseStanding, Tier},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{check_reason, require_status};
use crate::{
    command::{Command, UpdateLicense},
    envelope::Envelope,
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
    tenancy::{Deployment, Status, validate},
    tier,
};

/// The latest end of a licence that has one: the beginning of the year 9999.
pub const EXPIRY_MAX: Timestamp = Timestamp(253_370_764_800_000);
/// A licence may be changed until its deployment is deleted.
const LIVING: [Status; 8] = [
    Status::Pending,
    Status::Provisioning,
    Status::Active,
    Status::Degraded,
    Status::Upgrading,
    Status::RollingBack,
    Status::Suspended,
    Status::Failed,
];

/// An operator's order against a licence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseOrder {
    /// Why.
    pub reason: String,
    /// When it was given.
    pub since: Timestamp,
    /// Whether it stopped the instance, which did not stand still by another order then.
    pub stopped: bool,
}

impl State {
    pub(crate) fn update_license(
        &mut self,
        envelope: &Envelope,
        update: &UpdateLicense,
        now: Timestamp,
    ) -> Reply {
        let id = &update.deployment;
        let before = self.changeable(envelope, id)?;
        require_status(id, before, &LIVING, "licensed otherwise")?;
        let mut after = before.clone();
        change_license(update, &mut after)?;
        if after == *before {
            return Ok(Accepted::Deployment {
                tenant: after.tenant,
                deployment: id.clone(),
            });
        }
        self.adopt(envelope, id, after, now)
    }

    /// Suspends a licence or revokes it, and stops the instance.
    pub(crate) fn withdraw_license(
        &mut self,
        envelope: &Envelope,
        id: &DeploymentId,
        reason: &str,
        now: Timestamp,
    ) -> Reply {
        let standing = match envelope.command {
            Command::RevokeLicense { .. } => LicenseStanding::Revoked,
            _ => LicenseStanding::Suspended,
        };
        let deployment = self.changeable(envelope, id)?;
        check_reason(reason)?;
        let verb = word(standing);
        require_status(id, deployment, &LIVING, verb)?;
        let present = deployment.license.standing;
        if present == standing || present == LicenseStanding::Revoked {
            let detail = format!("the license of {id} is {} already", word(present));
            return Err(Rejection::new(Code::WrongState, detail));
        }
        let known = deployment.license_order.as_ref();
        let stopped = known.map_or(deployment.status != Status::Suspended, |one| one.stopped);
        let mut after = deployment.clone();
        after.license.standing = standing;
        after.license_order = Some(LicenseOrder {
            reason: reason.to_owned(),
            since: now,
            stopped,
        });
        if stopped {
            after.status = Status::Suspended;
            after.suspended_by_operator = true;
            after.suspended_reason = Some(format!("license {verb}: {reason}"));
        }
        self.adopt(envelope, id, after, now)
    }

    /// Makes a licence count again. What its withdrawal stopped starts; what stood still before stays so.
    pub(crate) fn reinstate_license(
        &mut self,
        envelope: &Envelope,
        id: &DeploymentId,
        now: Timestamp,
    ) -> Reply {
        let deployment = self.changeable(envelope, id)?;
        require_status(id, deployment, &LIVING, "reinstated")?;
        let Some(order) = &deployment.license_order else {
            let detail = format!("the license of {id} is neither suspended nor revoked");
            return Err(Rejection::new(Code::WrongState, detail));
        };
        let starts = order.stopped;
        let mut after = deployment.clone();
        after.license.standing = LicenseStanding::Valid;
        after.license_order = None;
        if starts {
            after.status = match after.agent {
                Some(_) => Status::Provisioning,
                None => Status::Pending,
            };
            after.suspended_by_operator = false;
            after.suspended_reason = None;
        }
        let accepted = self.adopt(envelope, id, after, now)?;
        // An agent may have joined its region meanwhile.
        self.settle(id, None, now);
        Ok(accepted)
    }
}

impl State {
    /// Notes the deployments whose licence came into another phase by the passing of time alone.
    pub(crate) fn note_phases(&mut self, before: Timestamp, now: Timestamp) {
        let moved = self.deployments.iter().filter(|(_, one)| {
            let license = &one.license;
            license.expires_at.is_some() && license.phase(before) != license.phase(now)
        });
        let moved: Vec<DeploymentId> = moved.map(|(id, _)| id.clone()).collect();
        for id in &moved {
            self.deployments.note(id);
        }
    }
}

/// Nothing starts while its licence is withdrawn.
pub(super) fn require_valid(id: &DeploymentId, deployment: &Deployment) -> Result<(), Rejection> {
    let Some(order) = &deployment.license_order else {
        return Ok(());
    };
    let detail = format!(
        "the license of {id} is {} ({}): reinstate it first",
        word(deployment.license.standing),
        order.reason
    );
    Err(Rejection::new(Code::WrongState, detail))
}

fn change_license(update: &UpdateLicense, after: &mut Deployment) -> Result<(), Rejection> {
    if let Some(name) = &update.license_tier {
        let tier = Tier::from_name(name)
            .ok_or_else(|| Rejection::field("license_tier", name, tier::LICENSE_TIERS))?;
        after.set_license_tier(name, tier);
    }
    let license = &mut after.license;
    license.max_subscribers = update.max_subscribers.unwrap_or(license.max_subscribers);
    license.max_services = update.max_services.unwrap_or(license.max_services);
    license.api_rate_limit = update.api_rate_limit.unwrap_or(license.api_rate_limit);
    license.expires_at = update.expires_at.unwrap_or(license.expires_at);
    license.grace_ms = update.grace_ms.unwrap_or(license.grace_ms);
    validate::check_license("max_subscribers", license)?;
    if license.expires_at.is_some_and(|end| end > EXPIRY_MAX) {
        let allowed = "a time before the year 9999";
        return Err(Rejection::field("expires_at", "later", allowed));
    }
    if license.grace_ms > GRACE_MAX_MS {
        let allowed = format!("at most {GRACE_MAX_MS} ms (90 days)");
        return Err(Rejection::field("grace_ms", license.grace_ms, allowed));
    }
    Ok(())
}

/// Whether only the licence is another one: then nothing of the instance is replaced.
pub(super) fn is_licensed_alone(before: &Deployment, after: &Deployment) -> bool {
    let unlicensed = Deployment {
        license_tier: before.license_tier.clone(),
        license: before.license.clone(),
        ..after.clone()
    };
    unlicensed == *before && after != before
}

fn word(standing: LicenseStanding) -> &'static str {
    match standing {
        LicenseStanding::Valid => "valid",
        LicenseStanding::Suspended => "suspended",
        LicenseStanding::Revoked => "revoked",
    }
}
