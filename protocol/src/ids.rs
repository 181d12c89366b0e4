//! One type for each kind of name. Parsing is the only way in, so that a name that exists is well formed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A name does not have the form of its kind.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{kind} {found:?} is not {allowed}")]
pub struct IdError {
    /// Which kind of name.
    pub kind: &'static str,
    /// What was given.
    pub found: String,
    /// What the kind allows.
    pub allowed: &'static str,
}

/// Lower-case letters, digits and inner hyphens, the characters of a DNS label (RFC 1123).
fn is_label(text: &str, length_max: usize) -> bool {
    !text.is_empty()
        && text.len() <= length_max
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn is_version(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && !text.starts_with(['.', '-'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $allowed:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    let found = text.chars().take(80).collect();
                    Err(IdError { kind: $kind, found, allowed: $allowed })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// An ISP that is a customer: the slug of its name and 8 hexadecimal digits, such as `demo-isp-0190a1b2`.
    TenantId, "tenant id", "a slug of at most 28 characters, a hyphen and 8 hexadecimal digits",
    |text| is_label(text, 37)
        && text.rsplit_once('-').is_some_and(|(slug, suffix)| {
            slug.len() <= 28 && suffix.len() == 8 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
);
text_id!(
    /// One instance of the ISP Framework: the tenant's id, for a further environment plus `-` and its name.
    DeploymentId, "deployment id", "a tenant id, or one followed by a hyphen and an environment",
    |text| is_label(text, 49)
);
text_id!(
    /// A place where workloads run, such as `aws-eu-west-1`.
    RegionId, "region", "1 to 40 lower-case letters, digits or inner hyphens", |text| is_label(text, 40)
);
text_id!(
    /// One agent, named after its region and its key: it never changes hands.
    AgentId, "agent id", "1 to 63 lower-case letters, digits or inner hyphens", |text| is_label(text, 63)
);
text_id!(
    /// One start of an agent's life on one disk: a wiped agent comes back with another one.
    IncarnationId, "incarnation", "32 hexadecimal digits",
    |text| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
);
text_id!(
    /// One thing that one agent keeps true, such as `instance/demo-isp-0190a1b2`.
    UnitId, "unit id", "a kind, a slash and a name",
    |text| text.split_once('/').is_some_and(|(kind, name)| is_label(kind, 20) && is_label(name, 63))
);
text_id!(
    /// A component of a release or a port, probe or volume of one, such as `web`.
    PartName, "name", "1 to 30 lower-case letters, digits or inner hyphens", |text| is_label(text, 30)
);
text_id!(
    /// A line of releases, such as `demo-isp`.
    ReleaseName, "release name", "1 to 40 lower-case letters, digits or inner hyphens", |text| is_label(text, 40)
);
text_id!(
    /// The version of a release, which a deployment's `image_tag` names.
    ReleaseVersion, "release version", "1 to 64 letters, digits, '.', '_', '-' or '+', starting with a letter or digit",
    is_version
);
text_id!(
    /// What one request is called on its way through all processes; also the key that makes a retry harmless.
    RequestId, "request id", "32 hexadecimal digits",
    |text| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
);
text_id!(
    /// The cluster of controllers, made once when it is created.
    ClusterId, "cluster id", "1 to 40 lower-case letters, digits or inner hyphens", |text| is_label(text, 40)
);
text_id!(
    /// An access token's public name; the secret half is never stored.
    TokenId, "token id", "16 hexadecimal digits",
    |text| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
);

impl UnitId {
    /// The unit that is a deployment's instance.
    #[must_use]
    pub fn instance(deployment: &DeploymentId) -> Self {
        Self(format!("instance/{deployment}"))
    }

    /// The part behind the slash.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl DeploymentId {
    /// The id of a tenant's first deployment.
    #[must_use]
    pub fn first_of(tenant: &TenantId) -> Self {
        Self(tenant.0.clone())
    }

    /// The id of a tenant's deployment for a further environment.
    ///
    /// # Errors
    /// When `environment` is not a label.
    pub fn further_of(tenant: &TenantId, environment: &str) -> Result<Self, IdError> {
        format!("{tenant}-{environment}").parse()
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The next one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }
    };
}

counter!(
    /// How often what a unit should be has changed; an agent refuses anything older than it holds.
    Generation
);
counter!(
    /// Number of an intent for one unit of one agent; a repeated delivery keeps the generation and gets a new one.
    Sequence
);
counter!(
    /// Raised by the root role after a restore, to fence off what was signed before.
    Epoch
);
counter!(
    /// Version of the trust root.
    TrustVersion
);
counter!(
    /// A controller's number in the cluster, as Raft knows it. Never used twice.
    NodeId
);

#[cfg(test)]
mod tests {
    use super::{AgentId, DeploymentId, ReleaseVersion, TenantId, UnitId};

    #[test]
    fn tenant_ids_have_the_form_of_the_contract() {
        assert!("demo-isp-0190a1b2".parse::<TenantId>().is_ok());
        for wrong in [
            "",
            "demo-isp",
            "Demo-isp-0190a1b2",
            "-x-0190a1b2",
            "demo-isp-0190a1bz",
            "a/b-0190a1b2",
        ] {
            assert!(wrong.parse::<TenantId>().is_err(), "{wrong}");
        }
        let long = format!("{}-0190a1b2", "a".repeat(29));
        assert!(long.parse::<TenantId>().is_err());
    }

    #[test]
    fn a_namespace_of_the_longest_tenant_stays_within_a_dns_label() {
        let longest = format!("{}-0190a1b2", "a".repeat(28));
        assert!(format!("dotmac-tenant-{longest}").len() <= 63);
    }

    #[test]
    fn no_id_leaves_its_folder() {
        for wrong in ["..", "../x", "a/../b", "a/b/c", ".", "a\0b"] {
            assert!(wrong.parse::<AgentId>().is_err(), "{wrong:?}");
            assert!(wrong.parse::<ReleaseVersion>().is_err() || !wrong.contains(['/', '\0']));
            assert!(wrong.parse::<UnitId>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn units_are_named_after_their_deployment() {
        let tenant: TenantId = "demo-isp-0190a1b2".parse().unwrap();
        let unit = UnitId::instance(&DeploymentId::first_of(&tenant));
        assert_eq!(unit.as_str(), "instance/demo-isp-0190a1b2");
        assert_eq!(unit.name(), "demo-isp-0190a1b2");
    }
}
