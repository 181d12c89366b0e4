//! Three controllers become five and three again, while others write: nothing that was acknowledged is lost, and a removed
//! leader is followed by another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dotmac_domain::{cluster::Members, command::NodeCard};
use dotmac_protocol::ids::NodeId;
use tokio::time::{Instant, timeout};

use super::{
    NEVER, PATIENCE, assert_agree,
    fleet::{Fleet, note},
    platform,
};
use crate::{
    log::{Log, LogError},
    raft::{
        End, RaftLog,
        membership::{Progress, SeatError},
        welcome::Unwelcome,
    },
};

/// Pause before a step that is not possible yet is tried again.
const PAUSE: Duration = Duration::from_millis(20);

fn members(voters: &[u64], learners: &[u64]) -> Members {
    let nodes = |list: &[u64]| {
        let nodes = list.iter().map(|node| NodeId(*node));
        nodes.collect::<BTreeSet<_>>()
    };
    Members {
        voters: nodes(voters),
        learners: nodes(learners),
    }
}

/// Steps through whichever of these controllers leads until the members are as wanted.
fn seat(fleet: &Fleet, among: &[u64], wanted: &Members) {
    let cards = fleet.members.iter().map(|member| member.card.clone());
    let cards: BTreeMap<NodeId, NodeCard> = cards.map(|card| (card.node, card)).collect();
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let leads = |node: &&u64| {
            let known = fleet.log(**node).leadership().borrow().leader;
            known == Some(NodeId(**node))
        };
        let Some(leader) = among.iter().find(leads) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        let (log, cards) = (fleet.log(*leader), &cards);
        let stepped = fleet.on(*leader, async move { log.seat(wanted, cards).await });
        match stepped {
            Ok(Progress::Done) => return,
            Ok(Progress::Stepped) => {}
            Ok(Progress::Waits(_)) | Err(_) => std::thread::sleep(PAUSE),
        }
    }
    panic!("still not {wanted:?}");
}

/// Writes until it is told to stop, and counts the notes that were acknowledged.
async fn write(log: Arc<RaftLog>, first: u64, writes: Arc<Writes>) {
    for number in first.. {
        if writes.is_over.load(Ordering::Relaxed) {
            break;
        }
        match log.propose(note(number), Duration::from_secs(3)).await {
            Ok(reply) => {
                reply.unwrap();
                writes.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(LogError::TimedOut(_) | LogError::Unavailable(_) | LogError::Overloaded) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// What the writers did.
#[derive(Default)]
struct Writes {
    is_over: AtomicBool,
    acknowledged: AtomicUsize,
}

impl Writes {
    /// Waits until further notes are acknowledged.
    fn go_on(&self) {
        let (before, began) = (self.acknowledged.load(Ordering::Relaxed), Instant::now());
        while self.acknowledged.load(Ordering::Relaxed) < before + 20 {
            assert!(began.elapsed() < PATIENCE, "nothing is written any more");
            std::thread::sleep(PAUSE);
        }
    }
}

#[test]
fn three_controllers_become_five_and_three_again_while_others_write() {
    let mut fleet = Fleet::start(NEVER);
    let writes = Arc::new(Writes::default());
    let writers = [1, 2, 3].map(|node| {
        let writing = write(fleet.log(node), node * 1_000_000, Arc::clone(&writes));
        (node, fleet.spawn(node, writing))
    });
    for node in [4, 5] {
        let before: Vec<u64> = (1..node).collect();
        let after: Vec<u64> = (1..=node).collect();
        let card = fleet.join();
        assert_eq!(card.node, NodeId(node));
        fleet.introduce(&after);
        seat(&fleet, &before, &members(&before, &[node]));
        seat(&fleet, &before, &members(&after, &[]));
        writes.go_on();
    }
    let leader = fleet.leader(4, |_| true);
    // One of the first three stays, and its writer with it.
    let other = if leader == 1 { 2 } else { 1 };
    let mut left: BTreeSet<u64> = (1..=5).collect();
    for gone in [leader, other] {
        let among: Vec<u64> = left.iter().copied().collect();
        left.remove(&gone);
        let stay: Vec<u64> = left.iter().copied().collect();
        seat(&fleet, &among, &members(&stay, &[]));
        fleet.introduce(&stay);
        writes.go_on();
    }
    let stay: Vec<u64> = left.into_iter().collect();
    fleet.leader(stay[0], |leader| stay.contains(&leader));
    writes.is_over.store(true, Ordering::Relaxed);
    for (node, writer) in writers {
        fleet.on(node, writer).unwrap();
    }
    let acknowledged = writes.acknowledged.load(Ordering::Relaxed);
    fleet.propose(stay[0], note(1)).unwrap().unwrap();
    assert_agree(&fleet, &stay);
    let facts = platform(fleet.log(stay[0]).ledger()).len();
    assert!(
        facts > acknowledged,
        "{acknowledged} acknowledged, {facts} facts"
    );
    // Two that are left are a majority of three, and none of five.
    fleet.kill(stay[2]);
    fleet.propose(stay[0], note(2)).unwrap().unwrap();
    assert_agree(&fleet, &stay[..2]);
}

#[test]
fn a_leader_that_took_itself_out_changes_nothing_more_and_goes_on() {
    let fleet = Fleet::start(NEVER);
    let leader = fleet.agreed_leader();
    let (next, last) = (1 + leader % 3, 1 + (leader + 1) % 3);
    let cards = fleet.members.iter().map(|member| member.card.clone());
    let cards: BTreeMap<NodeId, NodeCard> = cards.map(|card| (card.node, card)).collect();
    let log = fleet.log(leader);
    let (without, other) = (members(&[next, last], &[]), members(&[next], &[]));
    let (first, again) = fleet.on(leader, async move {
        let first = log.seat(&without, &cards).await;
        (first, log.seat(&other, &cards).await)
    });
    // The next leader may be there before the last step is answered.
    let stepped = matches!(first, Ok(Progress::Stepped) | Err(SeatError::Refused(_)));
    assert!(stepped, "{first:?}");
    assert!(matches!(again, Err(SeatError::Refused(_))), "{again:?}");
    fleet.leader(next, |found| found != leader);
    fleet.propose(next, note(1)).unwrap().unwrap();
    assert_agree(&fleet, &[next, last]);
    let log = fleet.log(leader);
    let alive = fleet.on(
        leader,
        async move { log.raft.with_raft_state(|_| ()).await },
    );
    assert!(alive.is_ok(), "{alive:?}");
}

#[test]
fn a_controller_that_is_not_known_any_more_is_not_spoken_to() {
    let fleet = Fleet::start(NEVER);
    let leader = fleet.leader(1, |_| true);
    let (gone, stays) = (1 + leader % 3, 1 + (leader + 1) % 3);
    seat(&fleet, &[1, 2, 3], &members(&[leader, stays], &[]));
    fleet.introduce(&[leader, stays]);
    let log = fleet.log(gone);
    let patience = Duration::from_secs(2);
    let refused = fleet.on(gone, async move { log.propose(note(1), patience).await });
    assert!(refused.is_err(), "{refused:?}");
    fleet.propose(stays, note(2)).unwrap().unwrap();
    assert_agree(&fleet, &[leader, stays]);
    // It stands for no election that it cannot win, and ends once it is clear that it was not forgotten for a moment only.
    let log = fleet.log(gone);
    let before = log.leadership().borrow().term;
    let end = fleet.on(gone, async move {
        let end = timeout(PATIENCE, log.ended()).await;
        (end, log.raft.metrics().borrow().current_term)
    });
    let unknown = [leader, stays].map(|node| (NodeId(node), Unwelcome::Unknown));
    assert_eq!(end.0, Ok(End::Refused(unknown.into())));
    assert!(end.1 <= before + 2, "{before} to {}", end.1);
}
