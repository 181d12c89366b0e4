//! Controllers that come back without their storage: nobody takes them back, and they keep nobody from his work.

use std::time::Duration;

use dotmac_protocol::ids::NodeId;
use tokio::time::timeout;

use super::{
    NEVER, PATIENCE, assert_agree,
    fleet::{Fleet, note},
};
use crate::{
    log::{Log, LogError},
    peers::PeerCall,
    raft::{End, welcome::Unwelcome},
};

#[test]
fn a_controller_that_refuses_the_others_calls_for_no_election() {
    const QUIET: Duration = Duration::from_secs(3);
    let mut fleet = Fleet::start(NEVER);
    fleet.propose(1, note(1)).unwrap().unwrap();
    assert_agree(&fleet, &[1, 2, 3]);
    for wiped in [1, 2] {
        fleet.kill(wiped);
        let directory = &fleet.members[usize::try_from(wiped).unwrap() - 1].directory;
        std::fs::remove_dir_all(directory).unwrap();
    }
    for wiped in [1, 2] {
        fleet.revive(wiped);
    }
    let log = fleet.log(3);
    let is_quiet = fleet.on(3, async move {
        let mut metrics = log.raft().metrics();
        let same = async {
            loop {
                let term = metrics.borrow_and_update().current_term;
                let other = metrics.wait_for(|metrics| metrics.current_term != term);
                if timeout(QUIET, other).await.is_err() {
                    break;
                }
            }
        };
        timeout(PATIENCE, same).await
    });
    assert!(is_quiet.is_ok(), "term after term");
}

#[test]
fn a_controller_without_its_storage_is_not_taken_back() {
    let mut fleet = Fleet::start(NEVER);
    fleet.propose(1, note(1)).unwrap().unwrap();
    assert_agree(&fleet, &[1, 2, 3]);
    let leader = fleet.leader(1, |_| true);
    let wiped = 1 + leader % 3;
    fleet.kill(wiped);
    std::fs::remove_dir_all(&fleet.members[usize::try_from(wiped).unwrap() - 1].directory).unwrap();
    fleet.revive(wiped);
    let log = fleet.log(wiped);
    fleet.on(wiped, async move {
        loop {
            let call = log.call(NodeId(leader), PeerCall::Status, Duration::from_secs(1));
            match call.await {
                Err(LogError::Unavailable(detail)) if detail.contains("its disk was wiped") => {
                    break;
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    for number in 2..10 {
        fleet.propose(leader, note(number)).unwrap().unwrap();
    }
    assert_eq!(*fleet.log(wiped).applied().borrow(), 0);
    let (log, others) = (fleet.log(wiped), (1..=3).filter(|node| *node != wiped));
    let end = fleet.on(wiped, async move { timeout(PATIENCE, log.ended()).await });
    let reborn = others.map(|node| (NodeId(node), Unwelcome::Reborn));
    assert_eq!(end, Ok(End::Refused(reborn.collect())));
}
