//! Whether this controller may put its name under a wave: every check on its own replica, with its own clock (law 3).

use dotmac_protocol::{
    codec,
    digest::Digest,
    ids::{AgentId, RequestId, TenantId, TrustVersion, UnitId},
    time::Timestamp,
    trust::{Role, TrustError},
    wave::{Leaf, Verb, WaveHeader, is_included, merkle_root},
};
use thiserror::Error;

use crate::{
    access::Permission,
    desired::{Unit, Wave},
    envelope::{
        ATTESTATION_BATCH_DOMAIN, ATTESTATION_DOMAIN, Actor, Attestation, AttestationBatch,
        Evidence, InBatch, Warrant,
    },
    state::State,
    tenancy::{Deployment, Status},
};

/// Milliseconds by which a wave's sealing time may differ from the signer's clock.
pub const CLOCK_TOLERANCE_MS: u64 = 30_000;
/// Tokens from an actor's back to the founder's at most; no further one can be made.
pub const TOKEN_CHAIN_MAX: usize = 64;

/// Why a controller does not sign a wave.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SignRefusal {
    /// The wave is not in this controller's State.
    #[error("wave {0} is not in this controller's state")]
    Unknown(u64),
    /// It does not parse, or its root is not that of its leaves.
    #[error("wave {0} contradicts itself")]
    Contradiction(u64),
    /// It was sealed for another trust root or epoch than those in force; it is sealed again.
    #[error("the wave was sealed for trust root {0}, another one is in force")]
    Trust(TrustVersion),
    /// The sealing time is off.
    #[error("the wave was sealed at {sealed_at}, this controller's clock says {now}")]
    Clock {
        sealed_at: Timestamp,
        now: Timestamp,
    },
    /// An order is not what this controller's State says.
    #[error("the order for {unit} of agent {agent} is not what this controller's state says")]
    Leaf { agent: AgentId, unit: UnitId },
    /// A warrant lacks proof.
    #[error("request {request} ({what}) is not proven")]
    Evidence {
        /// Which thing it vouches for.
        what: &'static str,
        /// The request.
        request: RequestId,
        /// What is missing.
        #[source]
        source: EvidenceError,
    },
}

/// Why evidence does not count.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum EvidenceError {
    /// Only a person's request authorises an order.
    #[error("no person asked for it")]
    Actor,
    /// There is none of a kind that counts.
    #[error("it carries no attestations")]
    Missing,
    /// Too few controllers attested it.
    #[error("too few controllers attested it")]
    Attestations(#[from] TrustError),
    /// It is not among the requests that were attested together.
    #[error("it is not in the batch that was attested")]
    NotInBatch,
    /// It was applied after the attestations ended.
    #[error("its attestations ended at {expires_at}, it was applied at {at}")]
    Expired {
        expires_at: Timestamp,
        at: Timestamp,
    },
    /// The actor may not do it.
    #[error("the actor may not do this")]
    Forbidden,
    /// The token had ended by then.
    #[error("its token no longer counted when it was applied")]
    Ended,
    /// Too many tokens made one another.
    #[error("its token is more than {TOKEN_CHAIN_MAX} tokens away from the founder's")]
    Chain,
}

/// Checks a wave of this State. The bytes that may be signed come back: those of this controller's own replica.
pub fn check(state: &State, number: u64, now: Timestamp) -> Result<&[u8], SignRefusal> {
    let wave = state
        .waves
        .get(&number)
        .ok_or(SignRefusal::Unknown(number))?;
    let header = check_shape(wave, number)?;
    let trust = state
        .trust
        .as_ref()
        .map(|trust| (trust.version, trust.epoch));
    if trust != Some((header.trust_version, header.epoch)) {
        return Err(SignRefusal::Trust(header.trust_version));
    }
    if header.sealed_at.distance_millis(now) > CLOCK_TOLERANCE_MS {
        // A wave that waited for its signers is sealed again when its window ends; an old one may still be signed
        // as long as its window is open by this controller's clock.
        let is_late = header.sealed_at < now && header.window.contains(now);
        if !is_late {
            return Err(SignRefusal::Clock {
                sealed_at: header.sealed_at,
                now,
            });
        }
    }
    for bytes in &wave.leaves {
        let leaf: Leaf = codec::decode(bytes).map_err(|_| SignRefusal::Contradiction(number))?;
        check_leaf(state, number, &leaf)?;
    }
    Ok(&wave.header)
}

fn check_shape(wave: &Wave, number: u64) -> Result<WaveHeader, SignRefusal> {
    let wrong = || SignRefusal::Contradiction(number);
    let header: WaveHeader = codec::decode(&wave.header).map_err(|_| wrong())?;
    let fits = header.number == number
        && usize::try_from(header.leaves).is_ok_and(|count| count == wave.leaves.len())
        && header.root == merkle_root(&wave.leaves);
    if fits { Ok(header) } else { Err(wrong()) }
}

/// An order must be what this State says, and all it rests on must be proven.
fn check_leaf(state: &State, number: u64, leaf: &Leaf) -> Result<(), SignRefusal> {
    let wrong = || SignRefusal::Leaf {
        agent: leaf.agent.clone(),
        unit: leaf.unit.clone(),
    };
    let key = (leaf.agent.clone(), leaf.unit.clone());
    let unit = state.units.get(&key).ok_or_else(wrong)?;
    let fits = unit.sealed_in == number
        && unit.tenant == leaf.tenant
        && unit.verb == leaf.verb
        && unit.generation == leaf.generation
        && unit.sequence == leaf.sequence
        && Digest::of(&unit.payload) == leaf.payload
        && unit.request == leaf.request
        && unit.trace == leaf.trace;
    if !fits {
        return Err(wrong());
    }
    prove(state, &leaf.agent, unit)
}

/// Whether everything that an order rests on is proven: the request for it, its release, and its agent. What was
/// asked last authorises the content, and only a proven deletion authorises a tombstone.
pub fn prove(state: &State, agent_id: &AgentId, unit: &Unit) -> Result<(), SignRefusal> {
    let wrong = || SignRefusal::Leaf {
        agent: agent_id.clone(),
        unit: UnitId::instance(&unit.deployment),
    };
    let deployment = state.deployments.get(&unit.deployment).ok_or_else(wrong)?;
    let release = state.releases.get(&deployment.release).ok_or_else(wrong)?;
    let agent = state.agents.get(agent_id).ok_or_else(wrong)?;
    let grace_is_over = deployment.delete_after.is_none();
    let in_removal = matches!(deployment.status, Status::Destroying | Status::Destroyed);
    let (what, warrant, action) = match unit.verb {
        Verb::Apply => ("deployment", &deployment.warrant, deployment.permission),
        Verb::Remove if in_removal && grace_is_over => {
            let removal = deployment.removal.as_ref().ok_or_else(wrong)?;
            ("removal", removal, Permission::DeploymentDelete)
        }
        Verb::Remove => return Err(wrong()),
    };
    if unit.request != warrant.request {
        return Err(wrong());
    }
    let tenant = Some(&unit.tenant);
    check_warrant(state, what, warrant, (action, tenant))?;
    let action = (Permission::ReleaseWrite, None);
    check_warrant(state, "release", &release.warrant, action)?;
    let action = (Permission::AgentWrite, None);
    check_warrant(state, "agent", &agent.warrant, action)
}

/// Whether a change of a deployment's content is proven, and so is what it changes: a proven change of a forged
/// deployment would carry the forged part along.
pub fn check_change(
    state: &State,
    deployment: &Deployment,
    warrant: &Warrant,
    permission: Permission,
) -> Result<(), SignRefusal> {
    let tenant = Some(&deployment.tenant);
    let known = (deployment.permission, tenant);
    check_warrant(state, "deployment", &deployment.warrant, known)?;
    check_warrant(state, "change", warrant, (permission, tenant))
}

fn check_warrant(
    state: &State,
    what: &'static str,
    warrant: &Warrant,
    action: (Permission, Option<&TenantId>),
) -> Result<(), SignRefusal> {
    check_evidence(state, warrant)
        .and_then(|()| check_token(state, warrant, Some(action)))
        .map_err(|source| SignRefusal::Evidence {
            what,
            request: warrant.request.clone(),
            source,
        })
}

/// Whether a request is proven: enough controllers vouch for it, and its token counted and includes the permission
/// (`None`: any token does).
///
/// # Errors
/// With what is missing.
pub fn check_request(
    state: &State,
    warrant: &Warrant,
    action: Option<(Permission, Option<&TenantId>)>,
) -> Result<(), EvidenceError> {
    check_evidence(state, warrant)?;
    check_token(state, warrant, action)
}

/// The actor's own token must be one whose making was proven, too, and its maker's, up to the founder's, which is in
/// everybody's genesis file. Each is judged by the time at which it was used: a token that ends takes nothing back.
fn check_token(
    state: &State,
    warrant: &Warrant,
    action: Option<(Permission, Option<&TenantId>)>,
) -> Result<(), EvidenceError> {
    let (mut warrant, mut action) = (warrant, action);
    for _ in 0..TOKEN_CHAIN_MAX {
        let Actor::Person(id) = &warrant.actor else {
            return Err(EvidenceError::Actor);
        };
        let token = state.tokens.get(id).ok_or(EvidenceError::Forbidden)?;
        if action.is_some_and(|(permission, tenant)| !state.may(&warrant.actor, permission, tenant))
        {
            return Err(EvidenceError::Forbidden);
        }
        if !token.counted_at(warrant.at) {
            return Err(EvidenceError::Ended);
        }
        let Some(maker) = &token.warrant else {
            return Ok(());
        };
        check_evidence(state, maker)?;
        (warrant, action) = (maker, Some((Permission::TokenWrite, None)));
    }
    Err(EvidenceError::Chain)
}

/// Whether enough controllers vouch that this person asked for exactly this command: enough by a trust root that was in
/// force when it was applied, for a later one takes nothing back.
pub fn check_evidence(state: &State, warrant: &Warrant) -> Result<(), EvidenceError> {
    if !matches!(warrant.actor, Actor::Person(_)) {
        return Err(EvidenceError::Actor);
    }
    let expires_at = match &warrant.evidence {
        Evidence::Attested { expires_at, .. } => expires_at,
        Evidence::AttestedInBatch(place) => &place.expires_at,
        Evidence::None | Evidence::RequestSigned { .. } => return Err(EvidenceError::Missing),
    };
    if warrant.at >= *expires_at {
        return Err(EvidenceError::Expired {
            expires_at: *expires_at,
            at: warrant.at,
        });
    }
    let attestation = Attestation {
        request: warrant.request.clone(),
        command: warrant.command,
        actor: warrant.actor.clone(),
        expires_at: *expires_at,
    };
    let leaf = attestation.bytes();
    let mut newest = None;
    for trust in state.trust_roots_at(warrant.at) {
        match check_attested(state, &trust.controller, warrant, &leaf) {
            Ok(()) => return Ok(()),
            Err(error) => newest = newest.or(Some(error)),
        }
    }
    Err(newest.unwrap_or(EvidenceError::Missing))
}

/// Whether enough of these keys are under what says that the person asked, alone or together with others.
fn check_attested(
    state: &State,
    role: &Role,
    warrant: &Warrant,
    leaf: &[u8],
) -> Result<(), EvidenceError> {
    match &warrant.evidence {
        Evidence::Attested { signatures, .. } => {
            let check = || role.check("controller", ATTESTATION_DOMAIN, leaf, signatures);
            Ok(warrant.checked.once(role, leaf, signatures, check)?)
        }
        Evidence::AttestedInBatch(place) => check_place(state, role, leaf, place),
        Evidence::None | Evidence::RequestSigned { .. } => Err(EvidenceError::Missing),
    }
}

/// Whether a request is one of those that enough controllers attested together. Its own path is followed every time; the
/// signatures, which it shares with the others, are checked once.
fn check_place(
    state: &State,
    role: &Role,
    leaf: &[u8],
    place: &InBatch,
) -> Result<(), EvidenceError> {
    let AttestationBatch { root, leaves } = place.batch;
    if !is_included(leaf, place.index, leaves, &place.path, root) {
        return Err(EvidenceError::NotInBatch);
    }
    let (message, signatures) = (place.batch.bytes(), &place.signatures);
    let check = || role.check("controller", ATTESTATION_BATCH_DOMAIN, &message, signatures);
    Ok(state.batches.once(role, &message, signatures, check)?)
}
