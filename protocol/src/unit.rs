//! What a unit should be: the payload of an intent. Neutral towards drivers; secrets appear as references or sealed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    codec::Format,
    digest::Digest,
    ids::{DeploymentId, RegionId, TenantId},
    license::License,
};

/// Version 1 of a unit's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// An instance of the ISP Framework (or of any program that a manifest describes).
    Instance(Box<Instance>),
    /// Nothing: the payload of a tombstone.
    Nothing,
}

impl Format for Payload {
    const KIND: &'static str = "unit payload";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 512 * 1024;
}

/// One tenant's running software.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Whose it is.
    pub tenant: TenantId,
    /// The tenant's name as people write it.
    pub tenant_name: String,
    /// Which deployment of the tenant.
    pub deployment: DeploymentId,
    /// `development`, `staging` or `production`.
    pub environment: String,
    /// Where it runs.
    pub region: RegionId,
    /// Host name under which subscribers reach it.
    pub domain_name: Option<String>,
    /// Canonical JSON of the release manifest.
    pub manifest: Vec<u8>,
    /// Its content digest; the agent checks it again.
    pub release: Digest,
    /// What the tier grants.
    pub resources: Resources,
    /// How many copies should run.
    pub replicas: u16,
    /// Counts ordered restarts: a higher number replaces every process, one copy at a time.
    pub restarts: u32,
    /// Whether it should run at all.
    pub run: RunState,
    /// What it may do; served by the agent's platform API.
    pub license: License,
    /// Configuration that is no secret; served by the agent's platform API.
    pub features: BTreeMap<String, bool>,
    /// Custom configuration as JSON text, without its secret-looking members.
    pub custom_config: String,
    /// Credentials of the request, sealed to the target agent's key.
    pub credentials: Vec<SealedCredential>,
}

/// Whether an instance should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// It should.
    Running,
    /// It is kept, stopped.
    Suspended,
}

/// What a tier grants, in the units of Kubernetes: thousandths of a cpu and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Guaranteed thousandths of a cpu.
    pub cpu_request_millis: u32,
    /// Guaranteed memory in bytes.
    pub memory_request_bytes: u64,
    /// Thousandths of a cpu at most.
    pub cpu_limit_millis: u32,
    /// Memory in bytes at most.
    pub memory_limit_bytes: u64,
    /// Storage in bytes.
    pub storage_bytes: u64,
}

/// A credential that only the target agent can open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedCredential {
    /// `database.url`, `redis.url` or `config.KEY`.
    pub name: String,
    /// The ciphertext.
    pub sealed: Sealed,
}

/// HPKE (RFC 9180) base mode: X25519, HKDF-SHA256, ChaCha20-Poly1305, one message.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Digest of the public key it is sealed to.
    pub to: Digest,
    /// The encapsulated key.
    pub encapsulated: [u8; 32],
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "Sealed({} bytes to {})",
            self.ciphertext.len(),
            self.to
        )
    }
}
