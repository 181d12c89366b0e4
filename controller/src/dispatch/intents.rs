//! Which intents an agent is still to be given, with their proofs.

use dotmac_domain::{State, desired::decode_leaves};
use dotmac_protocol::{
    frame::Delivery,
    ids::{AgentId, Sequence, UnitId},
    record::Hop,
    wave::{SignedIntent, merkle_paths},
};

use crate::{dispatch::SignatureBook, peers::Subject};

/// An intent that an agent has not acknowledged, ready to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Which unit.
    pub unit: UnitId,
    /// Its number for that unit.
    pub sequence: Sequence,
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
    let threshold = state
        .trust
        .as_ref()
        .map_or(usize::MAX, |trust| usize::from(trust.controller.threshold));
    let mut ready = Vec::new();
    for ((_, unit_id), unit) in state.units.iter().filter(|((owner, _), _)| owner == agent) {
        let Some(number) = unit.wave else { continue };
        if is_sent(unit_id, unit.sequence) {
            continue;
        }
        let Some(wave) = state.waves.get(&number) else {
            continue;
        };
        let signatures = book.signatures(Subject::Wave(number));
        if signatures.len() < threshold {
            continue;
        }
        let position = decode_leaves(wave).iter().position(|leaf| {
            leaf.agent == *agent && leaf.unit == *unit_id && leaf.sequence == unit.sequence
        });
        let Some(position) = position else { continue };
        let Ok(index) = u32::try_from(position) else {
            continue;
        };
        let mut hops = Vec::new();
        if let Some(signed_at) = signatures.iter().map(|(_, at)| *at).max() {
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
            leaf: wave.leaves[position].clone(),
            index,
            path: merkle_paths(&wave.leaves).swap_remove(position),
            payload: unit.payload.clone(),
        };
        ready.push(Outgoing {
            unit: unit_id.clone(),
            sequence: unit.sequence,
            delivery: Delivery { intent, hops },
        });
    }
    ready
}
