//! Inclusion in a wave: each leaf's path proves it, and nothing else does.

use dotmac_protocol::{
    codec::encode,
    digest::Digest,
    ids::Sequence,
    keys::Signature,
    wave::{IntentError, Leaf, SignedIntent, WAVE_DOMAIN, merkle_paths, merkle_root},
};
use proptest::prelude::*;

use crate::samples::{agent, header, key, leaf, payload, trust_root};

/// All intents of a wave of `count` different orders.
fn wave(count: u64) -> Vec<SignedIntent> {
    let orders = (0..count).map(|number| Leaf {
        sequence: Sequence(number + 1),
        ..leaf()
    });
    let leaves: Vec<Vec<u8>> = orders.map(|leaf| leaf.bytes()).collect();
    let header = encode(&header(&leaves)).unwrap();
    let signatures: Vec<_> = [1, 3]
        .iter()
        .map(|seed| Signature::make(&key(*seed), WAVE_DOMAIN, &header))
        .collect();
    let payload = encode(&payload()).unwrap();
    let intents = leaves.iter().zip(merkle_paths(&leaves)).enumerate();
    intents
        .map(|(index, (leaf, path))| SignedIntent {
            header: header.clone(),
            signatures: signatures.clone(),
            leaf: leaf.clone(),
            index: u32::try_from(index).unwrap(),
            path,
            payload: payload.clone(),
        })
        .collect()
}

fn verify(intent: &SignedIntent) -> Result<Leaf, IntentError> {
    intent
        .verify(&trust_root(), &agent())
        .map(|verified| verified.leaf().clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_path_of_each_leaf_proves_it_and_no_other(count in 1..40_u64, other in any::<prop::sample::Index>()) {
        let wave = wave(count);
        for (index, intent) in wave.iter().enumerate() {
            let found = verify(intent);
            prop_assert_eq!(found.map(|leaf| leaf.sequence), Ok(Sequence(index as u64 + 1)));
            let other = &wave[other.index(wave.len())];
            if other.index == intent.index {
                continue;
            }
            let mut elsewhere = intent.clone();
            elsewhere.index = other.index;
            prop_assert_eq!(verify(&elsewhere), Err(IntentError::Path));
            let mut exchanged = intent.clone();
            exchanged.leaf = other.leaf.clone();
            prop_assert_eq!(verify(&exchanged), Err(IntentError::Path));
            let mut borrowed = intent.clone();
            borrowed.path = other.path.clone();
            prop_assert_eq!(verify(&borrowed), Err(IntentError::Path));
        }
    }

    #[test]
    fn a_changed_leaf_index_or_path_proves_nothing(
        count in 1..40_u64,
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
        index in any::<u32>(),
    ) {
        let intent = wave(count).swap_remove(which.index(usize::try_from(count).unwrap()));
        let mut changed = intent.clone();
        let place = at.index(changed.leaf.len());
        changed.leaf[place] ^= 1 << bit;
        prop_assert_eq!(verify(&changed), Err(IntentError::Path));
        if index != intent.index {
            let changed = SignedIntent { index, ..intent.clone() };
            prop_assert_eq!(verify(&changed), Err(IntentError::Path));
        }
        let mut longer = intent.clone();
        longer.path.push(Digest::of(b"more"));
        prop_assert_eq!(verify(&longer), Err(IntentError::Path));
        let mut endless = intent.clone();
        endless.path = vec![Digest::ZERO; 1_000];
        prop_assert_eq!(verify(&endless), Err(IntentError::Path));
        if !intent.path.is_empty() {
            let mut shorter = intent.clone();
            shorter.path.pop();
            prop_assert_eq!(verify(&shorter), Err(IntentError::Path));
            let mut flipped = intent.clone();
            let place = at.index(flipped.path.len());
            flipped.path[place] = Digest::of(flipped.path[place].as_bytes());
            prop_assert_eq!(verify(&flipped), Err(IntentError::Path));
        }
    }

    #[test]
    fn equal_roots_mean_equal_leaves_in_equal_order(
        leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 1..20),
        one in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
    ) {
        let root = merkle_root(&leaves);
        let mut swapped = leaves.clone();
        swapped.swap(one.index(leaves.len()), other.index(leaves.len()));
        prop_assert_eq!(merkle_root(&swapped) == root, swapped == leaves);
        let shorter = &leaves[1..];
        prop_assert_ne!(merkle_root(shorter), root);
    }
}

#[test]
fn an_inner_node_does_not_pass_for_a_leaf() {
    let leaves: Vec<Vec<u8>> = (0..4_u8).map(|number| vec![number]).collect();
    let halves = [merkle_root(&leaves[..2]), merkle_root(&leaves[2..])];
    let nodes: Vec<Vec<u8>> = halves.iter().map(|one| one.as_bytes().to_vec()).collect();
    assert_ne!(merkle_root(&nodes), merkle_root(&leaves));
    let joined = [nodes.concat()];
    assert_ne!(merkle_root(&joined), merkle_root(&leaves));
}
