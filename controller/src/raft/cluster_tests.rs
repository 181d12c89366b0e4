//! Three controllers over real QUIC on the loopback: elections, loss, return, snapshots, and who may not return.

pub(super) mod fleet;
mod membership;
mod wiped;

use std::{sync::Arc, time::Duration};

use dotmac_domain::audit::{Fact, Stream};
use dotmac_protocol::ids::NodeId;
use dotmac_runtime::quic;
use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;

use super::rpc::{PeerReply, PeerRequest, Refusal, SnapshotPart};
use crate::{
    log::{Log, LogError},
    peers::{PeerAnswer, PeerCall, PeerHandler, Subject},
    storage::{engine::EngineConfig, ledger::Ledger, snapshots::FileMark},
};
use fleet::{Fleet, PATIENCE, note};

/// Snapshots so rare that a test never sees one.
const NEVER: u64 = 1_000_000;

fn platform(ledger: &Ledger) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    loop {
        let after = facts.last().map_or(0, |fact| fact.sequence);
        let more = ledger.read(&Stream::Platform, after, 1_000).unwrap();
        if more.is_empty() {
            return facts;
        }
        facts.extend(more);
    }
}

/// Asserts that all given controllers hold the same State and the same facts.
fn assert_agree(fleet: &Fleet, nodes: &[u64]) {
    let newest = *nodes
        .iter()
        .max_by_key(|node| *fleet.log(**node).applied().borrow())
        .unwrap();
    let expected = fleet.log(newest).state().digest();
    let facts = platform(fleet.log(newest).ledger());
    for node in nodes {
        fleet.catch_up(*node, newest);
        assert_eq!(
            fleet.log(*node).state().digest(),
            expected,
            "state of controller {node}"
        );
        let found = platform(fleet.log(*node).ledger());
        assert!(found == facts, "facts of controller {node}");
    }
}

#[test]
fn three_controllers_survive_the_loss_and_the_return_of_their_leader() {
    let mut fleet = Fleet::start(NEVER);
    for node in 1..=3 {
        for number in 0..5 {
            fleet
                .propose(node, note(10 * node + number))
                .unwrap()
                .unwrap();
        }
    }
    assert_agree(&fleet, &[1, 2, 3]);
    let leader = fleet.leader(1, |_| true);
    let others: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
    let killed = Instant::now();
    fleet.kill(leader);
    fleet.propose(others[0], note(100)).unwrap().unwrap();
    let accepted = killed.elapsed();
    assert!(
        accepted < Duration::from_secs(3),
        "writes were refused for {accepted:?}"
    );
    fleet.propose(others[1], note(101)).unwrap().unwrap();
    fleet.catch_up(others[0], others[1]);
    assert_eq!(platform(fleet.log(others[0]).ledger()).len(), 1 + 15 + 2);
    fleet.revive(leader);
    fleet.catch_up(leader, others[0]);
    assert_agree(&fleet, &[1, 2, 3]);
    // A request that is repeated, here through another controller, is answered and not done again.
    fleet.propose(leader, note(100)).unwrap().unwrap();
    assert_agree(&fleet, &[1, 2, 3]);
    assert_eq!(platform(fleet.log(leader).ledger()).len(), 1 + 15 + 2);
}

/// It reaches the others at once; were the leader still waiting before it tried again, it would stand for election first.
#[test]
fn a_follower_that_comes_back_takes_no_leader_down() {
    let mut fleet = Fleet::start(NEVER);
    let leader = fleet.agreed_leader();
    let term = |fleet: &Fleet| fleet.log(leader).leadership().borrow().term;
    let before = term(&fleet);
    for node in (1..=3).filter(|node| *node != leader) {
        for number in 0..3 {
            fleet.kill(node);
            fleet
                .propose(leader, note(10 * node + number))
                .unwrap()
                .unwrap();
            fleet.revive(node);
            fleet.catch_up(node, leader);
        }
    }
    assert_eq!(term(&fleet), before);
    assert_agree(&fleet, &[1, 2, 3]);
}

/// When it goes on, its time is over before it has read what the leader said meanwhile.
#[test]
fn a_follower_that_was_stopped_takes_no_leader_down() {
    let fleet = Fleet::start(NEVER);
    let leader = fleet.agreed_leader();
    let term = || fleet.log(leader).leadership().borrow().term;
    let before = term();
    for node in (1..=3).filter(|node| *node != leader) {
        for (number, seconds) in (0..).zip([2, 3]) {
            fleet.stop_for(node, Duration::from_secs(seconds));
            let note = note(10 * node + number);
            fleet.propose(leader, note).unwrap().unwrap();
            fleet.catch_up(node, leader);
        }
    }
    assert_eq!(term(), before);
}

#[test]
fn a_barrier_shows_every_controller_what_was_accepted_before() {
    let fleet = Fleet::start(NEVER);
    for round in 0..10 {
        fleet.propose(1 + round % 3, note(round)).unwrap().unwrap();
        let reader = 1 + (round + 1) % 3;
        let log = fleet.log(reader);
        fleet
            .on(reader, async move { log.barrier(PATIENCE).await })
            .unwrap();
        let seen = fleet.log(reader).state().streams[&Stream::Platform].sequence;
        assert_eq!(seen, round + 2, "round {round}");
    }
}

/// Answers with who asked.
struct Echo;

impl PeerHandler for Echo {
    fn handle(&self, from: NodeId, call: PeerCall) -> BoxFuture<'_, PeerAnswer> {
        Box::pin(async move {
            match call {
                PeerCall::Signatures { .. } => PeerAnswer::Refused(format!("not for {from}")),
                _ => PeerAnswer::Signatures(vec![]),
            }
        })
    }
}

#[test]
fn calls_reach_the_handler_under_the_name_in_the_certificate() {
    let fleet = Fleet::start(NEVER);
    let log = fleet.log(1);
    let patience = Duration::from_secs(5);
    let early = fleet.on(1, log.call(NodeId(2), PeerCall::Status, patience));
    assert!(matches!(early, Err(LogError::Refused { .. })), "{early:?}");
    fleet.log(2).set_handler(Arc::new(Echo));
    let answer = fleet.on(1, log.call(NodeId(2), PeerCall::Status, patience));
    assert_eq!(answer, Ok(PeerAnswer::Signatures(vec![])));
    let subject = Subject::Wave(1);
    let asked = PeerCall::Signatures { subject };
    let refused = fleet.on(1, log.call(NodeId(2), asked, patience));
    let expected = LogError::Refused {
        node: NodeId(2),
        reason: "not for 1".into(),
    };
    assert_eq!(refused, Err(expected));
    let unknown = fleet.on(1, log.call(NodeId(9), PeerCall::Status, patience));
    assert!(
        matches!(unknown, Err(LogError::Unavailable(_))),
        "{unknown:?}"
    );
}

#[test]
fn waiting_proposals_share_an_entry() {
    let fleet = Fleet::start(NEVER);
    let follower = 1 + fleet.leader(1, |_| true) % 3;
    let log = fleet.log(follower);
    let before = *log.applied().borrow();
    fleet.on(follower, async {
        let notes = (0..600).map(|number| log.propose(note(number), PATIENCE));
        for answer in join_all(notes).await {
            answer.unwrap().unwrap();
        }
        log.barrier(PATIENCE).await.unwrap();
    });
    let entries = *log.applied().borrow() - before;
    assert!(
        (2..100).contains(&entries),
        "{entries} entries for 600 proposals"
    );
    assert_agree(&fleet, &[1, 2, 3]);
    assert_eq!(platform(log.ledger()).len(), 601);
}

#[test]
fn a_controller_that_was_away_too_long_gets_a_snapshot_with_its_facts() {
    let mut fleet = Fleet::start(100);
    let leader = fleet.leader(1, |_| true);
    let away = 1 + leader % 3;
    fleet.kill(away);
    for number in 0..1_200 {
        fleet.propose(leader, note(number)).unwrap().unwrap();
    }
    let purged = fleet.on(leader, {
        let log = fleet.log(leader);
        let mut metrics = log.raft().metrics();
        async move {
            let purged = metrics.wait_for(|metrics| metrics.purged.is_some());
            purged.await.unwrap().purged.unwrap().index
        }
    });
    assert!(purged > 20, "the log still starts at {purged}");
    fleet.revive(away);
    fleet.catch_up(away, leader);
    assert_agree(&fleet, &[1, 2, 3]);
    let snapshot = fleet.log(away).raft().metrics().borrow().snapshot;
    assert!(snapshot.is_some_and(|log_id| log_id.index > purged));
    // It comes back from its own disk, too.
    fleet.kill(away);
    fleet.revive(away);
    fleet.catch_up(away, leader);
    assert_agree(&fleet, &[1, 2, 3]);
}

#[test]
fn a_snapshot_that_was_broken_off_is_sent_from_where_it_broke() {
    const FIRST_BYTES: usize = 100;
    let fleet = Fleet::start(20);
    let leader = fleet.leader(1, |_| true);
    let target = 1 + leader % 3;
    for number in 0..60 {
        fleet.propose(leader, note(number)).unwrap().unwrap();
    }
    let log = fleet.log(leader);
    fleet.on(leader, async {
        let snapshot = log.raft().get_snapshot().await.unwrap().unwrap();
        let file = snapshot.snapshot.file.unwrap();
        let whole = file.pieces().unwrap().read(0).unwrap();
        assert!(whole.len() as u64 == file.bytes() && whole.len() > FIRST_BYTES);
        let vote = log
            .raft()
            .with_raft_state(|state| *state.vote_ref())
            .await
            .unwrap();
        let resume = |mark| {
            let meta = Box::new(snapshot.meta.clone());
            log.links.asked(
                PeerRequest::ResumeSnapshot {
                    vote,
                    meta,
                    file: mark,
                },
                PATIENCE,
            )
        };
        // Where the receiver wants to go on; it may still be busy with the stream before.
        let wanted = async |mark| loop {
            let (mut out, mut back) = log.links.open(target).await.unwrap();
            quic::write_frame(&mut out, &resume(mark)).await.unwrap();
            match log.links.answer(target, &mut back).await.unwrap() {
                PeerReply::SnapshotWantedFrom { offset, .. } => break (out, back, offset),
                PeerReply::Refused(Refusal::Overloaded) => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        };
        let piece = |offset: usize, bytes: &[u8]| SnapshotPart::Piece {
            offset: offset as u64,
            bytes: bytes.to_vec(),
        };
        let mark = file.mark().unwrap();
        let (mut out, _, offset) = wanted(mark).await;
        assert_eq!(offset, 0);
        let first = piece(0, &whole[..FIRST_BYTES]);
        quic::write_frame(&mut out, &first).await.unwrap();
        out.finish().unwrap();
        let (mut out, mut back, offset) = wanted(mark).await;
        assert_eq!(offset, FIRST_BYTES as u64);
        let rest = piece(FIRST_BYTES, &whole[FIRST_BYTES..]);
        quic::write_frame(&mut out, &rest).await.unwrap();
        quic::write_frame(&mut out, &SnapshotPart::End)
            .await
            .unwrap();
        let done = log.links.answer(target, &mut back).await.unwrap();
        assert!(matches!(done, PeerReply::SnapshotDone { .. }), "{done:?}");

        // The beginning of one file is not that of another.
        let (mut out, _, _) = wanted(mark).await;
        quic::write_frame(&mut out, &first).await.unwrap();
        out.finish().unwrap();
        let other = FileMark {
            digest: [7; 32],
            ..mark
        };
        assert_eq!(wanted(other).await.2, 0);
    });
    assert_agree(&fleet, &[1, 2, 3]);
}

#[test]
fn a_full_disk_keeps_nothing_confirms_nothing_and_takes_no_leader_down() {
    let mut fleet = Fleet::start(NEVER);
    let leader = fleet.leader(1, |_| true);
    let full = 1 + leader % 3;
    fleet.kill(full);
    let engine = EngineConfig {
        reserve_bytes: u64::MAX,
        ..EngineConfig::default()
    };
    fleet.revive_with(full, engine);
    fleet.leader(full, |known| known == leader);
    let term = || fleet.log(leader).leadership().borrow().term;
    // The leader finds out first what is there: the log from its beginning is taken once.
    for number in 0..100 {
        fleet.propose(leader, note(number)).unwrap().unwrap();
    }
    let before = (term(), *fleet.log(full).applied().borrow());
    // Longer than a follower waits that hears nothing of its leader.
    let end = Instant::now() + Duration::from_secs(4);
    let mut number = 100;
    while Instant::now() < end {
        fleet.propose(leader, note(number)).unwrap().unwrap();
        number += 1;
    }
    assert_eq!((term(), *fleet.log(full).applied().borrow()), before);
    let other = 6 - leader - full;
    assert_agree(&fleet, &[leader, other]);
    fleet.kill(full);
    fleet.revive(full);
    fleet.catch_up(full, leader);
    assert_agree(&fleet, &[1, 2, 3]);
}

#[test]
fn without_a_majority_nothing_is_accepted_and_no_read_is_called_current() {
    let mut fleet = Fleet::start(NEVER);
    let leader = fleet.leader(1, |_| true);
    let confirmed = |fleet: &Fleet| -> Vec<u64> {
        let leads = |node: &u64| fleet.log(*node).figures().is_confirmed;
        (1..=3).filter(leads).collect()
    };
    assert_eq!(confirmed(&fleet), [leader]);
    for node in (1..=3).filter(|node| *node != leader) {
        fleet.kill(node);
    }
    let log = fleet.log(leader);
    let before = log.state().digest();
    let (proposed, read) = fleet.on(leader, async {
        let patience = Duration::from_millis(1_500);
        tokio::join!(log.propose(note(1), patience), log.barrier(patience))
    });
    assert!(
        matches!(proposed, Err(LogError::TimedOut(_))),
        "{proposed:?}"
    );
    assert!(matches!(read, Err(LogError::Unavailable(_))), "{read:?}");
    assert_eq!(log.state().digest(), before);
    // Whether it takes itself for the leader still or not: nobody confirms it, and it knows no other.
    let known = log.leadership().borrow().leader;
    assert!(
        known.is_none_or(|known| known == NodeId(leader)),
        "{known:?}"
    );
    assert!(!log.figures().is_confirmed);
    for node in (1..=3).filter(|node| *node != leader) {
        fleet.revive(node);
    }
    fleet.propose(leader, note(2)).unwrap().unwrap();
    assert_agree(&fleet, &[1, 2, 3]);
}
