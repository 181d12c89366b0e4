//! Whether this controller may put its name under a wave: every check on its own replica, with its own clock (law 3).

use dotmac_protocol::{
    codec,
    digest::Digest,
    ids::{AgentId, RequestId, UnitId},
    time::Timestamp,
    trust::{TrustError, TrustRoot},
    wave::{Leaf, Verb, WaveHeader, merkle_root},
};
use thiserror::Error;

use crate::{
    access::Permission,
    desired::Wave,
    envelope::{ATTESTATION_DOMAIN, Actor, Attestation, Evidence, Warrant},
    state::State,
    tenancy::Status,
};

/// Milliseconds by which a wave's sealing time may differ from the signer's clock.
pub const CLOCK_TOLERANCE_MS: u64 = 30_000;

/// Why a controller does not sign a wave.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SignRefusal {
    /// The wave is not in this controller's State.
    #[error("wave {0} is not in this controller's state")]
    Unknown(u64),
    /// It does not parse, or its root is not that of its leaves.
    #[error("wave {0} contradicts itself")]
    Contradiction(u64),
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
    /// It was applied after the attestations ended.
    #[error("its attestations ended at {expires_at}, it was applied at {at}")]
    Expired {
        expires_at: Timestamp,
        at: Timestamp,
    },
    /// The actor may not do it.
    #[error("the actor may not do this")]
    Forbidden,
}

/// Checks a wave of this State. The bytes that may be signed come back: those of this controller's own replica.
pub fn check(
    state: &State,
    number: u64,
    now: Timestamp,
) -> Result<&[u8], SignRefusal> {
    let wave = state
        .waves
        .get(&number)
        .ok_or(SignRefusal::Unknown(number))?;
    let trust = state.trust.as_ref().ok_or(SignRefusal::Unknown(number))?;
    let header = check_shape(wave, number)?;
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
        check_leaf(state, trust, number, &leaf)?;
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

/// An order must be what this State says, and all it rests on must be proven. Orders that were replaced since do not
/// stop the rest of their wave: their agents hold newer ones, or will.
fn check_leaf(
    state: &State,
    trust: &TrustRoot,
    number: u64,
    leaf: &Leaf,
) -> Result<(), SignRefusal> {
    let wrong = || SignRefusal::Leaf {
        agent: leaf.agent.clone(),
        unit: leaf.unit.clone(),
    };
    let unit = state
        .units
        .get(&(leaf.agent.clone(), leaf.unit.clone()))
        .ok_or_else(wrong)?;
    let is_replaced = unit.wave != Some(number) || unit.generation != leaf.generation;
    if is_replaced && leaf.verb == Verb::Apply {
        return Ok(());
    }
    let fits = unit.tenant == leaf.tenant
        && unit.verb == leaf.verb
        && unit.generation == leaf.generation
        && unit.sequence == leaf.sequence
        && Digest::of(&unit.payload) == leaf.payload
        && unit.request == leaf.request;
    let deployment = state.deployments.get(&unit.deployment).ok_or_else(wrong)?;
    let in_removal = deployment.status == Status::Destroying && deployment.delete_after.is_none();
    if !fits || (leaf.verb == Verb::Remove) != in_removal {
        return Err(wrong());
    }
    let release = state.releases.get(&deployment.release).ok_or_else(wrong)?;
    let agent = state.agents.get(&leaf.agent).ok_or_else(wrong)?;
    let action = match leaf.verb {
        Verb::Apply => Permission::DeploymentCreate,
        Verb::Remove => Permission::DeploymentDelete,
    };
    let tenant = Some(&unit.tenant);
    check_warrant(
        state,
        trust,
        "deployment",
        &deployment.warrant,
        action,
        tenant,
    )?;
    check_warrant(
        state,
        trust,
        "release",
        &release.warrant,
        Permission::ReleaseWrite,
        None,
    )?;
    check_warrant(
        state,
        trust,
        "agent",
        &agent.warrant,
        Permission::AgentWrite,
        None,
    )
}

fn check_warrant(
    state: &State,
    trust: &TrustRoot,
    what: &'static str,
    warrant: &Warrant,
    permission: Permission,
    tenant: Option<&dotmac_protocol::ids::TenantId>,
) -> Result<(), SignRefusal> {
    check_evidence(trust, warrant)
        .and_then(|()| check_token(state, trust, &warrant.actor, permission, tenant))
        .map_err(|source| SignRefusal::Evidence {
            what,
            request: warrant.request.clone(),
            source,
        })
}

/// The actor's own token must be one whose making was proven, too; the founder's is in everybody's genesis file.
fn check_token(
    state: &State,
    trust: &TrustRoot,
    actor: &Actor,
    permission: Permission,
    tenant: Option<&dotmac_protocol::ids::TenantId>,
) -> Result<(), EvidenceError> {
    let Actor::Person(id) = actor else {
        return Err(EvidenceError::Actor);
    };
    if !state.may(actor, permission, tenant) {
        return Err(EvidenceError::Forbidden);
    }
    let token = state.tokens.get(id).ok_or(EvidenceError::Forbidden)?;
    match &token.warrant {
        Some(warrant) => check_evidence(trust, warrant),
        None => Ok(()),
    }
}

/// Whether enough controllers vouch that this person asked for exactly this command.
pub fn check_evidence(trust: &TrustRoot, warrant: &Warrant) -> Result<(), EvidenceError> {
    if !matches!(warrant.actor, Actor::Person(_)) {
        return Err(EvidenceError::Actor);
    }
    let Evidence::Attested {
        expires_at,
        signatures,
    } = &warrant.evidence
    else {
        return Err(EvidenceError::Missing);
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
    trust.controller.check(
        "controller",
        ATTESTATION_DOMAIN,
        &attestation.bytes(),
        signatures,
    )?;
    Ok(())
}
