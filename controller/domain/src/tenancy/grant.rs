//! What is paid for: what a resource tier grants, and which requests choose nothing above the defaults.

use dotmac_protocol::unit::Resources;

use crate::{
    command::{CreateDeployment, CustomResources},
    reply::Rejection,
    tier,
};

/// What a resource tier grants.
#[derive(Debug, Clone, Copy)]
pub(super) struct TierGrant {
    pub(super) resources: Resources,
    pub(super) max_replicas: u16,
    /// Replicas at the start in production; elsewhere one.
    pub(super) production_replicas: u16,
}

impl TierGrant {
    /// The tier of a request: one of the price list, or `custom` with every number.
    pub(super) fn of(name: &str, custom: Option<&CustomResources>) -> Result<Self, Rejection> {
        match (tier::resource_tier(name), custom) {
            (Some(tier), None) => Ok(Self {
                resources: tier.resources,
                max_replicas: tier.max_replicas,
                production_replicas: tier.production_replicas,
            }),
            (Some(_), Some(_)) => {
                let allowed = "no resources with this tier, only with custom";
                Err(Rejection::field("resources", "given", allowed))
            }
            (None, Some(custom)) if name == "custom" => {
                check_custom(custom)?;
                Ok(Self {
                    resources: custom.resources,
                    max_replicas: custom.max_replicas,
                    production_replicas: 1,
                })
            }
            (None, None) if name == "custom" => {
                let allowed = "every number, with tier custom";
                Err(Rejection::field("resources", "none", allowed))
            }
            (None, _) => Err(Rejection::field(
                "resource_tier",
                name,
                tier::RESOURCE_TIERS,
            )),
        }
    }
}

/// Whether a request chooses nothing above the defaults of what is paid for.
pub(super) fn is_plain(create: &CreateDeployment) -> bool {
    matches!(create.resource_tier.as_str(), "micro" | "small")
        && matches!(create.license_tier.as_str(), "free" | "basic")
        && create.max_customers <= 1000
        && create.max_services <= 500
        && create.api_rate_limit <= 1000
        && create.reseller.is_none()
}

fn check_custom(custom: &CustomResources) -> Result<(), Rejection> {
    let r = custom.resources;
    let cpu = |millis: u32| format!("{millis}m");
    let wrong = |field: &str, value: String, allowed: String| {
        Err(Rejection::field(
            &format!("resources.{field}"),
            value,
            allowed,
        ))
    };
    if r.cpu_request_millis == 0 || r.cpu_request_millis > r.cpu_limit_millis {
        let allowed = format!("1m to cpu_limit, which is {}", cpu(r.cpu_limit_millis));
        return wrong("cpu_request", cpu(r.cpu_request_millis), allowed);
    }
    if r.memory_request_bytes == 0 || r.memory_request_bytes > r.memory_limit_bytes {
        let allowed = format!("1 to memory_limit, which is {} bytes", r.memory_limit_bytes);
        return wrong(
            "memory_request",
            format!("{} bytes", r.memory_request_bytes),
            allowed,
        );
    }
    if r.storage_bytes == 0 {
        return wrong("storage", "0".to_owned(), "at least 1 byte".to_owned());
    }
    if !(1..=50).contains(&custom.max_replicas) {
        return wrong(
            "max_replicas",
            custom.max_replicas.to_string(),
            "1 to 50".to_owned(),
        );
    }
    Ok(())
}
