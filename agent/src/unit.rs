//! The words that the parts of an agent share: what a unit should be, where events go, what the platform gives an
//! instance. It holds no state and does no IO.

use std::{collections::BTreeMap, sync::Arc};

use dotmac_protocol::{
    digest::Digest,
    ids::{Generation, PartName, RequestId, Sequence, TenantId, UnitId},
    record::Event,
    time::Timestamp,
    trace::TraceContext,
    unit::Instance,
};
use thiserror::Error;

/// What one unit should be, as the journal holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose unit it is.
    pub tenant: TenantId,
    /// Which unit.
    pub unit: UnitId,
    /// The request that authorised it.
    pub request: RequestId,
    /// The trace of that request.
    pub trace: Option<TraceContext>,
    /// How often what the unit should be has changed.
    pub generation: Generation,
    /// Number of the accepted order.
    pub sequence: Sequence,
    /// Digest of the signed leaf; receipts name it.
    pub leaf: Digest,
    /// The agent's clock when it was accepted.
    pub at: Timestamp,
    /// What is ordered.
    pub order: Order,
}

impl Wanted {
    /// What a process that is started for it may go on with: the trace of the request, caused by carrying the order out.
    #[must_use]
    pub fn start_context(&self) -> Option<TraceContext> {
        let context = self.trace.filter(|context| context.is_sampled)?;
        Some(context.under(context.accepted(&self.unit, self.sequence)))
    }
}

/// What is ordered of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Keep it what this says.
    Keep(Arc<Instance>),
    /// Remove it: a signed tombstone, the only thing that removes a unit (law 2).
    Remove,
}

/// All units of the journal, tombstones included. A unit that is absent here is left alone (law 2).
pub type Desired = BTreeMap<UnitId, Wanted>;

/// What an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Whose unit.
    pub tenant: Option<TenantId>,
    /// Which unit.
    pub unit: Option<UnitId>,
    /// The request that set it off.
    pub request: Option<RequestId>,
}

impl About {
    /// About a unit and the order that is in force for it.
    #[must_use]
    pub fn wanted(wanted: &Wanted) -> Self {
        Self {
            tenant: Some(wanted.tenant.clone()),
            unit: Some(wanted.unit.clone()),
            request: Some(wanted.request.clone()),
        }
    }
}

/// Where events go: into the agent's signed chain. On disk when [`Recorder::record`] returns; it waits for the disk,
/// so call it where blocking is allowed (or in `tokio::task::block_in_place`).
pub trait Recorder: Send + Sync + 'static {
    /// Appends one event.
    fn record(&self, about: &About, event: Event);
}

/// What the platform gives an instance; made once per unit and kept on the agent's disk.
pub trait Platform: Send + Sync + 'static {
    /// The environment of a unit that should be kept. Makes what does not exist yet.
    ///
    /// # Errors
    /// When the agent's disk fails, a sealed credential cannot be opened, or the unit is to be removed.
    fn environment(&self, wanted: &Wanted) -> Result<PlatformEnvironment, PlatformError>;
}

/// What an instance gets from its platform. It has no `Debug`: nearly all of it is secret.
#[derive(Clone)]
#[allow(
    missing_debug_implementations,
    reason = "it holds secrets, which must not be printable"
)]
pub struct PlatformEnvironment {
    /// Base of the instance API, such as `http://127.0.0.1:9310`.
    pub platform_url: String,
    /// `ISP_LICENSE_KEY`.
    pub license_key: String,
    /// `PLATFORM_SERVICE_TOKEN`: the HS256 secret of this unit.
    pub service_token: String,
    /// `database.url`, `redis.url` and `config.KEY`, opened from the sealed ones.
    pub credentials: BTreeMap<String, String>,
    /// What named secrets are derived from; 32 random bytes of this unit alone.
    pub(crate) seed: [u8; 32],
}

impl PlatformEnvironment {
    /// What a platform gives; `seed` must be random and the unit's own.
    #[must_use]
    pub fn new(
        platform_url: String,
        license_key: String,
        service_token: String,
        credentials: BTreeMap<String, String>,
        seed: [u8; 32],
    ) -> Self {
        Self {
            platform_url,
            license_key,
            service_token,
            credentials,
            seed,
        }
    }

    /// The secret of this unit under a name: 64 hexadecimal digits, always the same for the same unit and name.
    #[must_use]
    pub fn secret(&self, name: &PartName) -> String {
        Digest::tagged(&format!("dotmac/instance-secret/v1/{name}"), &self.seed).hex()
    }
}

/// Why there is no environment for a unit.
#[derive(Debug, Error)]
pub enum PlatformError {
    /// The unit's order is its removal.
    #[error("unit {unit} is to be removed and gets no environment")]
    Removed { unit: UnitId },
    /// The unit's secrets cannot be read or written.
    #[error("the secrets of unit {unit} cannot be kept on disk")]
    Disk {
        unit: UnitId,
        #[source]
        source: std::io::Error,
    },
    /// The file of the unit's secrets is damaged.
    #[error("the secrets of unit {unit} on disk are damaged: {detail}")]
    Damaged { unit: UnitId, detail: String },
    /// A sealed credential does not open with this agent's key.
    #[error("credential {name} of unit {unit} cannot be opened: {detail}")]
    Credential {
        unit: UnitId,
        name: String,
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::PlatformEnvironment;

    #[test]
    fn named_secrets_are_stable_and_differ_by_name_and_unit() {
        let environment = |seed| PlatformEnvironment {
            platform_url: String::new(),
            license_key: String::new(),
            service_token: String::new(),
            credentials: BTreeMap::new(),
            seed: [seed; 32],
        };
        let secret = |seed, name: &str| environment(seed).secret(&name.parse().unwrap());
        assert_eq!(secret(1, "session"), secret(1, "session"));
        assert_ne!(secret(1, "session"), secret(1, "jwt"));
        assert_ne!(secret(1, "session"), secret(2, "session"));
        assert_eq!(secret(1, "session").len(), 64);
    }
}
