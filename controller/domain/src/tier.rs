//! Resource and license tiers with the contract's exact numbers.

use dotmac_protocol::unit::Resources;

/// One mebibyte in bytes.
const MIB: u64 = 1024 * 1024;
/// One gibibyte in bytes.
const GIB: u64 = 1024 * MIB;

/// A resource tier of the price list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceTier {
    /// Its name.
    pub name: &'static str,
    /// What it grants.
    pub resources: Resources,
    /// Replicas at most.
    pub max_replicas: u16,
    /// Replicas at the start in production.
    pub production_replicas: u16,
    /// List price a month in US dollars.
    pub price_usd: u32,
}

/// Names that a request may use.
pub const RESOURCE_TIERS: &str = "micro, small, medium, large, xlarge or custom";
/// Names that a request may use; `professional` is premium's older name.
pub const LICENSE_TIERS: &str = "free, basic, premium, professional or enterprise";
/// Environments of a tenant.
pub const ENVIRONMENTS: &str = "development, staging or production";

const fn tier(
    name: &'static str,
    cpu: (u32, u32),
    memory: (u64, u64),
    storage_gib: u64,
    replicas: (u16, u16),
    price_usd: u32,
) -> ResourceTier {
    let resources = Resources {
        cpu_request_millis: cpu.0,
        cpu_limit_millis: cpu.1,
        memory_request_bytes: memory.0,
        memory_limit_bytes: memory.1,
        storage_bytes: storage_gib * GIB,
    };
    let (production_replicas, max_replicas) = replicas;
    ResourceTier {
        name,
        resources,
        max_replicas,
        production_replicas,
        price_usd,
    }
}

/// The price list, smallest first. Replicas: at the start in production, and at most.
pub const PRICE_LIST: [ResourceTier; 5] = [
    tier("micro", (100, 500), (256 * MIB, GIB), 5, (1, 2), 29),
    tier("small", (250, 1000), (512 * MIB, 2 * GIB), 10, (1, 3), 79),
    tier("medium", (500, 2000), (GIB, 4 * GIB), 20, (2, 5), 199),
    tier("large", (1000, 4000), (2 * GIB, 8 * GIB), 50, (2, 8), 499),
    tier(
        "xlarge",
        (2000, 8000),
        (4 * GIB, 16 * GIB),
        100,
        (2, 12),
        999,
    ),
];

/// The tier of this name; `None` for `custom` and unknown ones.
#[must_use]
pub fn resource_tier(name: &str) -> Option<&'static ResourceTier> {
    PRICE_LIST.iter().find(|tier| tier.name == name)
}

/// The license tier that a name stands for.
#[must_use]
pub fn license_tier(name: &str) -> Option<&'static str> {
    match name {
        "free" => Some("free"),
        "basic" => Some("basic"),
        "premium" | "professional" => Some("premium"),
        "enterprise" => Some("enterprise"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{PRICE_LIST, license_tier};

    #[test]
    fn tiers_have_the_numbers_of_the_contract() {
        let rows: Vec<_> = PRICE_LIST
            .iter()
            .map(|tier| {
                let r = tier.resources;
                let mib = 1024 * 1024;
                (
                    tier.name,
                    r.cpu_request_millis,
                    r.memory_request_bytes / mib,
                    r.cpu_limit_millis,
                    r.memory_limit_bytes / mib,
                    r.storage_bytes / mib / 1024,
                    tier.max_replicas,
                    tier.price_usd,
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                ("micro", 100, 256, 500, 1024, 5, 2, 29),
                ("small", 250, 512, 1000, 2048, 10, 3, 79),
                ("medium", 500, 1024, 2000, 4096, 20, 5, 199),
                ("large", 1000, 2048, 4000, 8192, 50, 8, 499),
                ("xlarge", 2000, 4096, 8000, 16384, 100, 12, 999),
            ]
        );
    }

    #[test]
    fn professional_is_premium() {
        assert_eq!(license_tier("professional"), Some("premium"));
        assert_eq!(license_tier("gold"), None);
    }
}
