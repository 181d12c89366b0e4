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

/// A license tier, by one of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LicenseTier {
    /// The name.
    pub name: &'static str,
    /// The tier that it stands for, if it is an older name.
    pub alias_of: Option<&'static str>,
    /// What is promised.
    pub service_level: Option<ServiceLevel>,
}

/// What is promised to a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceLevel {
    /// Availability at least, in hundredths of a percent.
    pub availability_basis_points: u16,
    /// Response time at most, in milliseconds.
    pub response_ms: u16,
    /// Requests that fail at most, in hundredths of a percent.
    pub error_basis_points: u16,
}

const fn license(
    name: &'static str,
    alias_of: Option<&'static str>,
    promised: Option<(u16, u16, u16)>,
) -> LicenseTier {
    let service_level = match promised {
        Some((availability_basis_points, response_ms, error_basis_points)) => Some(ServiceLevel {
            availability_basis_points,
            response_ms,
            error_basis_points,
        }),
        None => None,
    };
    LicenseTier {
        name,
        alias_of,
        service_level,
    }
}

/// All names of license tiers, lowest first.
pub const LICENSE_LIST: [LicenseTier; 5] = [
    license("free", None, None),
    license("basic", None, Some((9_900, 2_000, 200))),
    license("premium", None, Some((9_950, 750, 150))),
    license("professional", Some("premium"), Some((9_950, 750, 150))),
    license("enterprise", None, Some((9_990, 500, 50))),
];

#[cfg(test)]
mod tests {
    use dotmac_protocol::license::Tier;

    use super::{LICENSE_LIST, LICENSE_TIERS, PRICE_LIST};

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
    fn every_name_of_a_license_tier_is_known_and_told() {
        for tier in LICENSE_LIST {
            let stands_for = Tier::from_name(tier.name).map(Tier::as_str);
            assert_eq!(stands_for, Some(tier.alias_of.unwrap_or(tier.name)));
            assert!(LICENSE_TIERS.contains(tier.name), "{}", tier.name);
        }
    }
}
