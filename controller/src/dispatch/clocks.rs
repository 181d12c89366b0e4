//! The newest clock that enough controllers signed, with the proof for each agent. The tree is built once a clock and
//! not once a session. It keeps the last signed clock until a newer one is signed, too.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use dotmac_domain::{State, clock::SealedClock};
use dotmac_protocol::{
    clock::SignedClock,
    digest::Digest,
    ids::{AgentId, TrustVersion},
    keys::Signature,
    wave::merkle_paths,
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
    trust_version: Option<TrustVersion>,
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
    /// The newest clock with enough signatures, as far as the State and the book say; none that was signed for another trust
    /// root than the one in force.
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
        let version = state.trust.as_ref().map(|trust| trust.version);
        newest
            .clone()
            .filter(|clock| clock.trust_version == version)
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
            trust_version: sealed.statement().map(|statement| statement.trust_version),
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

#[cfg(test)]
mod tests {
    use dotmac_domain::{State, clock::SealedClock};
    use dotmac_protocol::{
        clock::{CLOCK_DOMAIN, ClockStatement, DesiredLeaf},
        codec::encode,
        digest::Digest,
        ids::{AgentId, Epoch, TrustVersion},
        keys::{PublicKey, Signature},
        time::Timestamp,
        trust::{Role, TrustRoot},
        wave::{WAVE_DOMAIN, merkle_root},
    };
    use ed25519_dalek::SigningKey;

    use super::{ClockBoard, SignatureBook};
    use crate::peers::Subject;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn role(threshold: u16, seeds: &[u8]) -> Role {
        let keys = seeds.iter().map(|seed| PublicKey::of(&key(*seed)));
        Role {
            threshold,
            keys: keys.collect(),
        }
    }

    fn trust() -> TrustRoot {
        TrustRoot {
            cluster: "test".parse().unwrap(),
            version: TrustVersion(1),
            epoch: Epoch(1),
            root: role(1, &[10]),
            approver: role(1, &[20]),
            controller: role(2, &[1, 2, 3]),
            timestamp: role(2, &[1, 2, 3]),
            controllers: vec![],
        }
    }

    fn agents() -> Vec<AgentId> {
        let names = ["aws-1", "do-1", "gcp-1"];
        names.map(|name| name.parse().unwrap()).to_vec()
    }

    fn state(number: u64) -> State {
        let leaf = |agent: &AgentId| DesiredLeaf {
            agent: agent.clone(),
            desired: Digest::of(agent.as_str().as_bytes()),
        };
        let leaves: Vec<_> = agents().iter().map(leaf).collect();
        let bytes: Vec<_> = leaves.iter().map(DesiredLeaf::bytes).collect();
        let statement = ClockStatement {
            number,
            at: NOW,
            root: merkle_root(&bytes),
            leaves: 3,
            epoch: Epoch(1),
            trust_version: TrustVersion(1),
        };
        let pairs = leaves.into_iter().map(|leaf| (leaf.agent, leaf.desired));
        State {
            trust: Some(trust()),
            clock: Some(SealedClock {
                number,
                at: NOW,
                body: encode(&statement).unwrap(),
                desired: pairs.collect(),
            }),
            ..State::default()
        }
    }

    fn sign(state: &State, book: &SignatureBook, seed: u8, domain: &str) -> bool {
        let sealed = state.clock.as_ref().unwrap();
        let signature = Signature::make(&key(seed), domain, &sealed.body);
        book.accept(state, Subject::Clock(sealed.number), signature, NOW)
    }

    #[test]
    fn law_3_a_clock_goes_out_with_enough_signatures_and_each_agents_own_proof() {
        let (state, book, board) = (state(1), SignatureBook::default(), ClockBoard::default());
        assert!(sign(&state, &book, 1, CLOCK_DOMAIN));
        for (seed, domain) in [(9, CLOCK_DOMAIN), (2, WAVE_DOMAIN)] {
            assert!(!sign(&state, &book, seed, domain), "{seed} {domain}");
        }
        assert_eq!(book.lacking(&state), [Subject::Clock(1)]);
        assert!(board.newest(&state, &book).is_none());
        assert!(sign(&state, &book, 3, CLOCK_DOMAIN));
        assert_eq!(book.lacking(&state), []);
        let newest = board.newest(&state, &book).unwrap();
        for agent in agents() {
            let told = newest.for_agent(&agent).unwrap();
            let verified = told.verify(&trust(), &agent).unwrap();
            assert_eq!(verified.desired(), Digest::of(agent.as_str().as_bytes()));
        }
        assert_eq!(newest.for_agent(&"stranger".parse().unwrap()), None);
    }

    #[test]
    fn the_last_signed_clock_is_told_until_the_next_one_is_signed_too() {
        let (first, second) = (state(1), state(2));
        let (book, board) = (SignatureBook::default(), ClockBoard::default());
        let number = |state: &State| board.newest(state, &book).map(|clock| clock.number());
        for seed in [1, 2] {
            assert!(sign(&first, &book, seed, CLOCK_DOMAIN));
        }
        assert_eq!(number(&first), Some(1));
        book.keep_only(&second);
        assert!(sign(&second, &book, 2, CLOCK_DOMAIN));
        assert_eq!(number(&second), Some(1));
        assert!(sign(&second, &book, 3, CLOCK_DOMAIN));
        assert_eq!(number(&second), Some(2));
        assert!(book.signatures(Subject::Clock(1)).is_empty());
    }
}
