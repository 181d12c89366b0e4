//! How many copies of an instance there may be.

use crate::{command::UpdateDeployment, reply::Rejection, tenancy::Deployment};

/// Copies that may be asked for at once at most, whatever the tier.
pub const REPLICAS_MAX: u16 = 20;
/// Bounds of the copies at most, whatever the tier.
pub const REPLICAS_BOUND_MAX: u16 = 50;

/// The bounds of the copies; how many there are follows them.
pub(super) fn update_bounds(
    update: &UpdateDeployment,
    after: &mut Deployment,
) -> Result<(), Rejection> {
    if let Some(least) = update.min_replicas {
        check_replicas("min_replicas", least, REPLICAS_MAX, after)?;
        after.min_replicas = least;
    }
    if let Some(most) = update.max_replicas {
        check_replicas("max_replicas", most, REPLICAS_BOUND_MAX, after)?;
        after.max_replicas = most;
    }
    let (least, most) = (after.min_replicas, after.max_replicas);
    if least > most {
        let (field, value, allowed) = if update.min_replicas.is_some() {
            let allowed = format!("1 to max_replicas, which is {most}");
            ("min_replicas", least, allowed)
        } else {
            let allowed = format!(
                "min_replicas, which is {least}, to {}",
                after.tier_max_replicas
            );
            ("max_replicas", most, allowed)
        };
        return Err(Rejection::field(field, value, allowed));
    }
    after.replicas = after.replicas.clamp(least, most);
    Ok(())
}

/// The tier's maximum bounds every number of copies.
pub(super) fn check_replicas(
    field: &str,
    value: u16,
    most: u16,
    deployment: &Deployment,
) -> Result<(), Rejection> {
    let tier_max = deployment.tier_max_replicas;
    let allowed = if value == 0 || value > most {
        format!("1 to {most}")
    } else if value > tier_max {
        let tier = &deployment.resource_tier;
        format!("at most {tier_max}, the maximum of tier {tier}")
    } else {
        return Ok(());
    };
    Err(Rejection::field(field, value, allowed))
}
