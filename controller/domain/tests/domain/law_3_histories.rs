//! Law 3 over random histories: nothing that was not proven is ever signed, and what is proven always can be.

use std::collections::BTreeSet;

use dotmac_domain::{
    Envelope, State,
    desired::decode_leaves,
    envelope::{Actor, Evidence},
    signer::check,
};
use dotmac_protocol::ids::RequestId;
use proptest::prelude::*;

use crate::random::{History, steps};

/// Requests of people that two different controllers vouched for; told from how they were made, not from how they
/// are checked.
fn proven(log: &[Envelope]) -> BTreeSet<RequestId> {
    let counts = |envelope: &&Envelope| match &envelope.evidence {
        Evidence::Attested { signatures, .. } => {
            signatures.len() == 2 && matches!(envelope.actor, Actor::Person(_))
        }
        Evidence::None | Evidence::RequestSigned { .. } | Evidence::AttestedInBatch(_) => false,
    };
    let envelopes = log.iter().filter(counts);
    envelopes.map(|envelope| envelope.request.clone()).collect()
}

/// What the counts of open orders say must be what the units say.
fn books_balance(state: &State) -> bool {
    let open = |number: &u64| {
        let units = state.units.values();
        units.filter(|unit| unit.wave == Some(*number)).count()
    };
    let counts_fit = state
        .open_orders
        .iter()
        .all(|(number, count)| open(number) == usize::try_from(*count).unwrap() && *count > 0);
    let mut sealed = state.units.values().filter_map(|unit| unit.wave);
    counts_fit
        && state.open_orders.size() == state.waves.size()
        && sealed.all(|number| state.waves.contains_key(&number))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn law_3_no_history_makes_an_honest_controller_sign_what_nobody_asked_for(steps in steps(120)) {
        let mut history = History::new();
        for step in &steps {
            history.take(step);
            let state = &history.world.state;
            prop_assert!(books_balance(state), "after {:?}", step);
            let proven = proven(&history.world.log);
            for (number, wave) in &state.waves {
                if check(state, *number, state.now).is_err() {
                    continue;
                }
                for leaf in decode_leaves(wave) {
                    prop_assert!(proven.contains(&leaf.request), "{:?} after {:?}", leaf, step);
                }
            }
        }
    }

    #[test]
    fn law_3_what_the_planners_seal_can_always_be_signed(steps in steps(120)) {
        let mut history = History::new();
        for step in &steps {
            // What is sealed against the planners' advice, all at once or by a seal that comes late, may be anything.
            if history.seals_unasked(step) {
                continue;
            }
            history.take(step);
            let state = &history.world.state;
            for (number, wave) in &state.waves {
                if wave.window.contains(state.now) {
                    let found = check(state, *number, state.now).map(|_| ());
                    prop_assert_eq!(found, Ok(()), "wave {} after {:?}", number, step);
                }
            }
        }
    }
}
