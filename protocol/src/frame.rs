//! Frames between agents and controllers. On every stream a frame is four bytes of length (big endian) and an
//! encoded value; the length limit is checked before anything is read.
//!
//! | stream | opened by | carries |
//! |---|---|---|
//! | control, bidirectional, first of a session | agent | [`AgentFrame`] out, [`ControllerFrame`] in |
//! | one unidirectional per intent | controller | [`Delivery`] |
//! | one unidirectional per batch | agent | [`Report`] |
//! | one bidirectional per question | controller | [`Question`] out, [`Answer`] frames in |
//! | enrolment, bidirectional | agent | [`EnrolRequest`] out, [`EnrolGreeting`] then [`EnrolReply`] in |

use serde::{Deserialize, Serialize};

use crate::{
    clock::SignedClock,
    codec::Format,
    digest::Digest,
    ids::{
        AgentId, Generation, IncarnationId, NodeId, RegionId, Sequence, TokenId, TrustVersion,
        UnitId,
    },
    keys::{PublicKey, Signature},
    record::{HealthStatus, Hop, SignedRecord},
    time::Timestamp,
    trust::SignedTrustRoot,
    wave::SignedIntent,
};

mod question;

pub use question::{Answer, CopyEnvironment, Question};

/// TLS application protocol of agents' sessions.
pub const ALPN_AGENT: &[u8] = b"dotmac-agent/1";
/// TLS application protocol of enrolment: the client shows no certificate.
pub const ALPN_ENROL: &[u8] = b"dotmac-enrol/1";
/// TLS application protocol between controllers.
pub const ALPN_PEER: &[u8] = b"dotmac-peer/1";

/// Units in a hello at most.
pub const INVENTORY_MAX: usize = 4096;
/// Records in a report at most.
pub const REPORT_RECORDS_MAX: usize = 256;

/// From an agent, on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentFrame {
    /// The first frame of a session.
    Hello(Hello),
    /// A new certificate for a new key is wanted: a DER certificate signing request.
    Renew {
        /// PKCS #10, DER.
        request: Vec<u8>,
    },
    /// Alive; sent every few seconds.
    Beat {
        /// The agent's clock.
        now: Timestamp,
    },
}

impl Format for AgentFrame {
    const KIND: &'static str = "agent frame";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 1024 * 1024;
}

/// How an agent introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Who; must be whom the certificate names.
    pub agent: AgentId,
    /// Which life of the agent.
    pub incarnation: IncarnationId,
    /// Version of its program.
    pub software: String,
    /// The trust root it holds.
    pub trust_version: TrustVersion,
    /// Its clock.
    pub now: Timestamp,
    /// What it holds, at most [`INVENTORY_MAX`].
    pub inventory: Vec<InventoryItem>,
    /// Records it keeps: the first and the last sequence of its outbox (0 and 0 when empty).
    pub outbox: (u64, u64),
}

/// One unit that an agent holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryItem {
    /// Which unit.
    pub unit: UnitId,
    /// Generation held.
    pub generation: Generation,
    /// Sequence held.
    pub sequence: Sequence,
    /// Whether it was removed.
    pub removed: bool,
    /// How it is.
    pub health: HealthStatus,
}

/// From a controller, on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControllerFrame {
    /// Answer to the hello.
    Welcome(Welcome),
    /// Records up to this sequence are committed on a majority: the agent may forget them.
    Acknowledged {
        /// Of which incarnation.
        incarnation: IncarnationId,
        /// The last sequence that counts.
        through: u64,
    },
    /// The new certificate and the issuer's, DER.
    Renewed {
        /// The agent's certificate, then its issuer's.
        chain: Vec<Vec<u8>>,
    },
    /// Answer to every beat: alive, and what time it is here.
    Beat {
        /// The controller's clock.
        now: Timestamp,
    },
    /// Something is refused for good, such as a renewal; for the log.
    Refused {
        /// What, and why.
        reason: String,
    },
    /// The session ends: the agent was revoked, or the controller stops. The agent reconnects elsewhere.
    Goodbye {
        /// Why.
        reason: String,
    },
    /// The newest signed clock: right after the welcome when there is one, and whenever a newer one is signed.
    Clock(SignedClock),
    /// There is a newer trust root, or there are other controllers.
    Controllers(ControllerNews),
}

impl Format for ControllerFrame {
    const KIND: &'static str = "controller frame";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 1024 * 1024;
}

/// What an agent needs to know at the start of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Which controller this is.
    pub node: NodeId,
    /// Its clock.
    pub now: Timestamp,
    /// Trust roots after the one the agent holds, in order.
    pub trust_roots: Vec<SignedTrustRoot>,
    /// Addresses (`host:port`, UDP) of all controllers.
    pub controllers: Vec<String>,
    /// The last record of the agent's incarnation that counts already.
    pub acknowledged: u64,
}

/// What became different about the controllers during a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerNews {
    /// Trust roots after the one that the agent was told of last, in order.
    pub trust_roots: Vec<SignedTrustRoot>,
    /// Addresses (`host:port`, UDP) of all controllers.
    pub controllers: Vec<String>,
}

/// An intent on its way to one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The intent; nothing but the signatures in it is to be trusted.
    pub intent: SignedIntent,
    /// The stations it passed before, for the story only.
    pub hops: Vec<Hop>,
}

impl Format for Delivery {
    const KIND: &'static str = "delivery";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = SignedIntent::BYTES_MAX + 16 * 1024;
}

/// A batch of records, in order and without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Of which incarnation.
    pub incarnation: IncarnationId,
    /// At most [`REPORT_RECORDS_MAX`].
    pub records: Vec<SignedRecord>,
}

impl Format for Report {
    const KIND: &'static str = "report";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 1024 * 1024;
}

/// First frame of a controller on an enrolment stream: what the agent pins before it shows its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolGreeting {
    /// The newest trust root that the join token may name, and all after it.
    pub trust_roots: Vec<SignedTrustRoot>,
}

impl Format for EnrolGreeting {
    const KIND: &'static str = "enrolment greeting";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 1024 * 1024;
}

/// What an agent without a valid certificate asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolRequest {
    /// To join with a single-use token.
    Join {
        /// The token's public name.
        token: TokenId,
        /// The token's secret half.
        secret: [u8; 32],
        /// The region the agent is configured for; must be the token's.
        region: RegionId,
        /// PKCS #10, DER, for its own key.
        request: Vec<u8>,
        /// Signs records and recovery requests; never leaves the agent.
        identity: PublicKey,
        /// X25519 key that credentials are sealed to.
        seal_key: [u8; 32],
        /// This life of the agent.
        incarnation: IncarnationId,
    },
    /// A certificate ran out while the agent was cut off: it proves itself by its identity key.
    Recover {
        /// Who.
        agent: AgentId,
        /// PKCS #10, DER, for a new key.
        request: Vec<u8>,
        /// The agent's clock; must be within 5 minutes of the controller's.
        now: Timestamp,
        /// Signature by the identity key under [`RECOVER_DOMAIN`] over `now` (8 bytes, big endian) and `request`.
        signature: Signature,
    },
}

/// The domain under which recovery requests are signed.
pub const RECOVER_DOMAIN: &str = "dotmac/recover/v1";

impl Format for EnrolRequest {
    const KIND: &'static str = "enrolment request";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 16 * 1024;
}

/// The answer to an enrolment request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolReply {
    /// The agent is admitted.
    Admitted {
        /// Its name from now on.
        agent: AgentId,
        /// Its certificate, then the issuer's, DER.
        chain: Vec<Vec<u8>>,
        /// Addresses (`host:port`, UDP) of all controllers.
        controllers: Vec<String>,
    },
    /// It is not.
    Refused {
        /// Stable code, such as `token-used`.
        code: String,
        /// For people.
        reason: String,
        /// Whether trying again later may help.
        retry: bool,
    },
}

impl Format for EnrolReply {
    const KIND: &'static str = "enrolment reply";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 64 * 1024;
}

/// What `dotmac agents token` prints and an agent enrols with: `dotmac-join-1.` and base64url of this.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Its public name.
    pub id: TokenId,
    /// The secret half; controllers hold its digest only.
    pub secret: [u8; 32],
    /// The region it is bound to.
    pub region: RegionId,
    /// Digest of the trust root to pin.
    pub trust_root: Digest,
    /// Addresses (`host:port`, UDP) of the controllers.
    pub controllers: Vec<String>,
}

impl Format for JoinToken {
    const KIND: &'static str = "join token";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 4 * 1024;
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "JoinToken({} for {})", self.id, self.region)
    }
}

/// What a join token starts with, so that secret scanners know it.
pub const JOIN_TOKEN_PREFIX: &str = "dotmac-join-1.";

impl JoinToken {
    /// The token as one word.
    #[must_use]
    pub fn to_text(&self) -> String {
        use base64ct::{Base64UrlUnpadded, Encoding as _};
        let bytes = crate::codec::encode(self).expect("a join token of few addresses is small");
        format!(
            "{JOIN_TOKEN_PREFIX}{}",
            Base64UrlUnpadded::encode_string(&bytes)
        )
    }

    /// The digest under which controllers know the secret half.
    #[must_use]
    pub fn secret_digest(secret: &[u8; 32]) -> Digest {
        Self::digest_of_proof(&Self::proof(secret))
    }

    /// What an enrolment carries instead of the secret: nobody can make it from the digest that is in the log, not even
    /// a controller.
    #[must_use]
    pub fn proof(secret: &[u8; 32]) -> Digest {
        Digest::tagged("dotmac/join-token", secret)
    }

    /// The digest that a proof must have.
    #[must_use]
    pub fn digest_of_proof(proof: &Digest) -> Digest {
        Digest::tagged("dotmac/join-proof", proof.as_bytes())
    }

    /// Reads a token back; `None` when it is none.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        use base64ct::{Base64UrlUnpadded, Encoding as _};
        let bytes = Base64UrlUnpadded::decode_vec(text.trim().strip_prefix(JOIN_TOKEN_PREFIX)?);
        crate::codec::decode(&bytes.ok()?).ok()
    }
}
