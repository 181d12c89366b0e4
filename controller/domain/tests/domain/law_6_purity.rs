//! Law 6: apply is pure. The same log gives the same bytes on every node, wherever a snapshot is taken.

use std::sync::{Arc, Barrier};

use dotmac_domain::{Applied, Envelope, State};
use dotmac_protocol::codec::{decode, encode};
use proptest::prelude::*;

use crate::{
    fixture::World,
    random::{History, steps},
};

fn replay(log: &[Envelope], from: State) -> (State, Vec<Applied>) {
    let mut state = from;
    let applied = log.iter().map(|envelope| state.apply(envelope)).collect();
    (state, applied)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn law_6_apply_is_pure_same_log_same_bytes(steps in steps(120), cut in any::<prop::sample::Index>()) {
        let mut history = History::new();
        steps.iter().for_each(|step| history.take(step));
        let World { state, log, applied, .. } = history.world;
        let digest = state.digest();
        // Two nodes at once, each with envelopes that came over the wire.
        let bytes: Vec<Vec<u8>> = log.iter().map(|one| encode(one).unwrap()).collect();
        let (bytes, start) = (Arc::new(bytes), Arc::new(Barrier::new(2)));
        let nodes: Vec<_> = (0..2)
            .map(|_| {
                let (bytes, start) = (Arc::clone(&bytes), Arc::clone(&start));
                std::thread::spawn(move || {
                    let log: Vec<Envelope> = bytes.iter().map(|one| decode(one).unwrap()).collect();
                    start.wait();
                    replay(&log, State::default())
                })
            })
            .collect();
        for node in nodes {
            let (replayed, answers) = node.join().unwrap();
            prop_assert_eq!(replayed.digest(), digest);
            prop_assert_eq!(&replayed, &state);
            prop_assert_eq!(&answers, &applied);
        }
        // A third one, which got a snapshot on its way.
        let cut = cut.index(log.len());
        let (middle, before) = replay(&log[..cut], State::default());
        let restored = State::from_bytes(&middle.to_bytes().unwrap()).unwrap();
        prop_assert_eq!(&restored, &middle);
        let (continued, after) = replay(&log[cut..], restored);
        prop_assert_eq!(continued.digest(), digest);
        prop_assert_eq!([before, after].concat(), applied);
    }

    #[test]
    fn law_6_the_states_clock_never_goes_back(steps in steps(60)) {
        let mut history = History::new();
        for step in &steps {
            let before = history.world.state.now;
            history.take(step);
            prop_assert!(history.world.state.now >= before);
        }
    }
}

#[test]
fn law_6_a_clock_that_jumps_back_moves_nothing_back() {
    let (mut world, _, id) = World::with_active();
    let deployment = id.clone();
    world.now += 5_000;
    world
        .ask(dotmac_domain::Command::DeleteDeployment { deployment })
        .unwrap();
    let due = world.state.deployments.get(&id).unwrap().delete_after;
    // A new leader whose clock is 5 s behind carries on.
    world.now -= 5_000;
    let again = world.create("Second ISP");
    let second = world.state.deployments.get(&again).unwrap();
    let first = world.state.deployments.get(&id).unwrap();
    assert_eq!(second.created_at, first.updated_at);
    assert_eq!(first.delete_after, due);
}

#[test]
fn law_6_what_is_read_while_others_write_does_not_change() {
    let (mut world, _, _) = World::with_active();
    let copy = world.state.clone();
    let digest = copy.digest();
    world.create("Second ISP");
    world.carry_on();
    assert_eq!(copy.digest(), digest);
    assert_ne!(world.state.digest(), digest);
}
