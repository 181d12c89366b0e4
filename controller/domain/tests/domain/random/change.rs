//! The changes of a deployment's content that a random history asks for.

use dotmac_domain::{
    Command,
    command::{UpdateDeployment, UpdateLicense},
};
use dotmac_protocol::{ids::DeploymentId, time::Timestamp};

use crate::fixture::START;

/// One of the changes of a deployment's content.
pub(super) fn change(deployment: DeploymentId, kind: u8) -> Command {
    let reason = String::new();
    match kind % 12 {
        0 | 1 => {
            let tiers = ["micro", "medium", "small"];
            Command::UpdateDeployment(Box::new(UpdateDeployment {
                deployment,
                resource_tier: (!kind.is_multiple_of(3))
                    .then(|| tiers[usize::from(kind / 8 % 3)].into()),
                resources: None,
                license_tier: (kind.is_multiple_of(5)).then(|| "premium".into()),
                image_tag: (kind.is_multiple_of(7)).then(|| "1.0.1".into()),
                min_replicas: (kind.is_multiple_of(4)).then_some(1 + u16::from(kind / 64)),
                max_replicas: None,
                domain_name: (kind.is_multiple_of(6)).then(|| format!("d{}.example", kind % 5)),
                features: None,
            }))
        }
        2 | 3 => Command::ScaleDeployment {
            deployment,
            replicas: u16::from(kind / 8 % 5),
            reason,
        },
        4 => Command::RestartDeployment { deployment },
        5 => Command::SuspendDeployment { deployment, reason },
        6 => Command::ResumeDeployment { deployment },
        7 => Command::RollbackDeployment { deployment },
        8 => Command::UpdateLicense(Box::new(UpdateLicense {
            deployment,
            license_tier: (kind.is_multiple_of(5)).then(|| "premium".into()),
            max_subscribers: (kind.is_multiple_of(2)).then_some(u32::from(kind)),
            max_services: None,
            api_rate_limit: None,
            expires_at: (!kind.is_multiple_of(3))
                .then(|| (kind > 99).then_some(Timestamp(START + u64::from(kind) * 10_000))),
            grace_ms: (kind.is_multiple_of(7)).then_some(60_000),
        })),
        9 => Command::SuspendLicense { deployment, reason },
        10 => Command::RevokeLicense { deployment, reason },
        _ => Command::ReinstateLicense { deployment },
    }
}
