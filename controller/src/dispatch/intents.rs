//! Which intents an agent is still to be given, with their proofs.

use std::collections::BTreeMap;

use dotmac_domain::{
    State,
    desired::{Wave, decode_header, decode_leaves},
};
use dotmac_protocol::{
    digest::Digest,
    frame::Delivery,
    ids::{AgentId, RequestId, Sequence, UnitId},
    record::Hop,
    time::Timestamp,
    trace::TraceContext,
    wave::{SignedIntent, merkle_paths},
};

use crate::{dispatch::SignatureBook, peers::Subject};

/// What proves each order of one wave: worked out once for all agents, for with a thousand orders every agent that
/// reads and hashes the whole wave for itself costs more than everything else.
#[derive(Debug)]
pub(super) struct WaveProofs {
    header: Vec<u8>,
    proofs: BTreeMap<(AgentId, UnitId), Proof>,
}

/// What proves one order.
#[derive(Debug)]
pub(super) struct Proof {
    sequence: Sequence,
    /// The encoded leaf.
    pub(super) leaf: Vec<u8>,
    pub(super) index: u32,
    pub(super) path: Vec<Digest>,
}

impl WaveProofs {
    pub(super) fn new(wave: &Wave) -> Self {
        let encoded = wave.leaves.iter().cloned();
        let proofs = (0..)
            .zip(decode_leaves(wave))
            .zip(encoded)
            .zip(merkle_paths(&wave.leaves));
        let proofs = proofs.map(|(((index, read), leaf), path)| {
            let proof = Proof {
                sequence: read.sequence,
                leaf,
                index,
                path,
            };
            ((read.agent, read.unit), proof)
        });
        Self {
            header: wave.header.clone(),
            proofs: proofs.collect(),
        }
    }

    /// Whether they are this wave's.
    pub(super) fn is_of(&self, wave: &Wave) -> bool {
        self.header == wave.header
    }

    /// What proves the order of this number for a unit.
    pub(super) fn of(&self, agent: &AgentId, unit: &UnitId, sequence: Sequence) -> Option<&Proof> {
        let proof = self.proofs.get(&(agent.clone(), unit.clone()));
        proof.filter(|proof| proof.sequence == sequence)
    }
}

/// An intent that an agent has not acknowledged, ready to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Which unit.
    pub unit: UnitId,
    /// Its number for that unit.
    pub sequence: Sequence,
    /// The request that authorised it.
    pub request: RequestId,
    /// The trace of that request.
    pub trace: Option<TraceContext>,
    /// When the last signature that is known here was made.
    pub signed_at: Option<Timestamp>,
    /// What to send.
    pub delivery: Delivery,
}

/// The signed and unacknowledged intents of an agent, except those that `is_sent` already.
#[must_use]
pub fn outgoing(
    state: &State,
    book: &SignatureBook,
    agent: &AgentId,
    is_sent: impl Fn(&UnitId, Sequence) -> bool,
) -> Vec<Outgoing> {
    let Some(trust) = &state.trust else {
        return Vec::new();
    };
    let threshold = usize::from(trust.controller.threshold);
    let mut ready = Vec::new();
    for (unit_id, unit) in state.units_of(agent) {
        let Some(number) = unit.wave else { continue };
        if is_sent(unit_id, unit.sequence) {
            continue;
        }
        let Some(wave) = state.waves.get(&number) else {
            continue;
        };
        // Under another trust root no agent takes it, and it is sealed again.
        if decode_header(wave).is_none_or(|header| header.trust_version != trust.version) {
            continue;
        }
        let signatures = book.signatures(Subject::Wave(number));
        if signatures.len() < threshold {
            continue;
        }
        let proofs = book.proofs(number, wave);
        let Some(proof) = proofs.of(agent, unit_id, unit.sequence) else {
            continue;
        };
        let mut hops = Vec::new();
        let signed_at = signatures.iter().map(|(_, at)| *at).max();
        if let Some(signed_at) = signed_at {
            hops.push(Hop {
                station: "controllers.signed".into(),
                at: signed_at,
            });
        }
        let intent = SignedIntent {
            header: wave.header.clone(),
            signatures: signatures
                .into_iter()
                .map(|(signature, _)| signature)
                .collect(),
            leaf: proof.leaf.clone(),
            index: proof.index,
            path: proof.path.clone(),
            payload: unit.payload.clone(),
        };
        ready.push(Outgoing {
            unit: unit_id.clone(),
            sequence: unit.sequence,
            request: unit.request.clone(),
            trace: unit.trace,
            signed_at,
            delivery: Delivery { intent, hops },
        });
    }
    ready
}
