//! The newest clock that enough controllers signed, with the proof for each agent. The tree is built once a clock and
//! not once a session. It keeps the last signed clock until a newer one is signed, too.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use dotmac_domain::{State, clock::SealedClock};
use dotmac_protocol::{
    clock::SignedClock, digest::Digest, ids::AgentId, keys::Signature, wave::merkle_paths,
};

use super::SignatureBook;
use crate::peers::Subject;

/// The newest signed clock of one controller.
#[derive(Debug, Default)]
pub struct ClockBoard {
    newest: Mutex<Option<Arc<ClockProofs>>>,
}

/// One signed clock, for all agents.
#[derive(Debug)]
pub struct ClockProofs {
    number: u64,
    body: Vec<u8>,
    signatures: Vec<Signature>,
    proofs: BTreeMap<AgentId, Proof>,
}

#[derive(Debug)]
struct Proof {
    leaf: Vec<u8>,
    index: u32,
    path: Vec<Digest>,
}

impl ClockBoard {
    /// The newest clock with enough signatures, as far as the State and the book say.
    pub fn newest(&self, state: &State, book: &SignatureBook) -> Option<Arc<ClockProofs>> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = newest.as_ref().map_or(0, |clock| clock.number);
        if let (Some(sealed), Some(trust)) = (&state.clock, &state.trust)
            && sealed.number != known
        {
            let signatures = book.signatures(Subject::Clock(sealed.number));
            if signatures.len() >= usize::from(trust.timestamp.threshold) {
                let signatures = signatures.into_iter().map(|(one, _)| one).collect();
                *newest = Some(Arc::new(ClockProofs::new(sealed, signatures)));
            }
        }
        newest.clone()
    }
}

impl ClockProofs {
    fn new(sealed: &SealedClock, signatures: Vec<Signature>) -> Self {
        let leaves = sealed.leaves();
        let paths = merkle_paths(&leaves);
        let agents = sealed.desired.keys().cloned();
        let proofs = (0..).zip(leaves).zip(paths);
        let proofs = proofs.map(|((index, leaf), path)| Proof { leaf, index, path });
        Self {
            number: sealed.number,
            body: sealed.body.clone(),
            signatures,
            proofs: agents.zip(proofs).collect(),
        }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What one agent is told; `None` for an agent that joined after it was sealed.
    #[must_use]
    pub fn for_agent(&self, agent: &AgentId) -> Option<SignedClock> {
        self.proofs.get(agent).map(|proof| SignedClock {
            body: self.body.clone(),
            signatures: self.signatures.clone(),
            leaf: proof.leaf.clone(),
            index: proof.index,
            path: proof.path.clone(),
        })
    }
}
