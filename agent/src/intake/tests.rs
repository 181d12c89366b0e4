//! The intake's claims: journal, chain and trust root wired as in an agent.

use std::{collections::BTreeSet, sync::Arc};

use dotmac_protocol::{
    acceptance::CLOCK_STALE_MS,
    codec,
    digest::Digest,
    frame::Delivery,
    record::{Event, Hop, Outcome, Record},
    time::Timestamp,
    unit::Payload,
    wave::{SignedIntent, Verb},
};
use dotmac_runtime::{clock::Clock, disk::SystemDisk};

use super::{ClockVerdict, Intake, Verdict};
use crate::{
    chain::{Chain, ChainLimits, Opened, Owner},
    fixture::{
        NOW, agent, apply, clock, instance, key, leaf, sign_clock, sign_intent, sign_trust,
        trust_root, unit,
    },
    journal::Journal,
    license_time::LicenseTime,
    signed_clock::ClockStore,
    stations::Stations,
    trust::TrustStore,
};

struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = sign_trust(&trust_root(1), &[10]);
        TrustStore::pin(&directory.path().join("trust"), root.digest(), &[root]).unwrap();
        Self { directory }
    }

    /// An intake a second after [`NOW`], in a session that brought the clock of [`NOW`].
    fn open(&self) -> (Intake, Arc<Chain>, BTreeSet<Digest>) {
        let (clock, _) = Clock::manual(NOW.plus_millis(1_000));
        self.open_with(clock)
    }

    fn open_with(&self, now: Clock) -> (Intake, Arc<Chain>, BTreeSet<Digest>) {
        let path = |name| self.directory.path().join(name);
        let trust = TrustStore::open(&path("trust")).unwrap().unwrap();
        let owner = Owner {
            agent: agent(),
            incarnation: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            key: key(42),
        };
        let (disk, limits) = (SystemDisk::shared(), ChainLimits::default());
        let opened = Chain::open(&path("chain"), owner, disk, now.clone(), limits);
        let Opened {
            chain, accepted, ..
        } = opened.unwrap();
        let chain = Arc::new(chain);
        let journal = Journal::open(&path("journal"), agent(), BTreeSet::new(), &trust);
        let journal = journal.unwrap().0;
        let stations = Stations::default();
        let (clocks, _) = ClockStore::open(&path("trust"), agent(), &trust);
        let (time, _) = LicenseTime::open(path("license_time"), clocks.at(), now.clone());
        let kept = Arc::clone(&chain);
        let intake = Intake::new(journal, trust, clocks, kept, stations, time, now);
        assert_eq!(intake.hear(&clock(1, NOW)), ClockVerdict::Newest);
        (intake, chain, accepted)
    }
}

fn delivery(intent: SignedIntent) -> Delivery {
    let hops = vec![Hop {
        station: "wave.signed".into(),
        at: Timestamp(1),
    }];
    Delivery { intent, hops }
}

fn records<const N: usize>(chain: &Chain) -> [Event; N] {
    let batch = chain.batch().unwrap();
    let event = |body: &[u8]| codec::decode::<Record>(body).unwrap().event;
    let events: Vec<_> = batch
        .records
        .iter()
        .map(|record| event(&record.body))
        .collect();
    events.try_into().unwrap()
}

#[test]
fn an_accepted_order_is_confirmed_with_its_way_and_published_once() {
    let site = Site::new();
    let (intake, chain, _) = site.open();
    let desired = intake.desired();
    let order = delivery(apply("demo", 1, 1));
    let received = NOW.plus_millis(500);
    assert_eq!(intake.take(&order, received), Verdict::Accepted);
    assert_eq!(intake.take(&order, received), Verdict::Held);
    assert!(desired.borrow().contains_key(&unit("demo")));
    let [Event::Receipt(receipt)] = records(&chain) else {
        panic!("one receipt and nothing else");
    };
    assert_eq!(receipt.outcome, Outcome::Accepted);
    let way: Vec<_> = receipt
        .hops
        .iter()
        .map(|hop| hop.station.as_str())
        .collect();
    assert_eq!(way, ["wave.signed", "agent.received", "agent.journalled"]);
}

#[test]
fn refusals_and_forgeries_are_recorded_once_each() {
    let site = Site::new();
    let (intake, chain, _) = site.open();
    assert_eq!(
        intake.take(&delivery(apply("demo", 2, 2)), NOW),
        Verdict::Refused
    );
    let payload = Payload::Instance(Box::new(instance("demo")));
    let forged = sign_intent(leaf("demo", Verb::Apply, 1, 1), &payload, &[3]);
    for _ in 0..3 {
        assert_eq!(
            intake.take(&delivery(forged.clone()), NOW),
            Verdict::Unbelieved
        );
        assert_eq!(
            intake.take(&delivery(apply("demo", 2, 2)), NOW),
            Verdict::Refused
        );
    }
    let [Event::Receipt(refusal), Event::Audit { action, detail }] = records(&chain) else {
        panic!("a refusal and a forgery");
    };
    assert!(matches!(refusal.outcome, Outcome::Refused { reason } if reason.contains("builds on")));
    assert_eq!(action, "intent.unbelieved");
    assert!(detail.contains("1 of the 2 signatures needed"), "{detail}");
    assert!(intake.desired().borrow().is_empty());
}

#[test]
fn a_receipt_that_a_crash_swallowed_is_recorded_at_the_next_start() {
    let site = Site::new();
    let (intake, _, _) = site.open();
    assert_eq!(
        intake.take(&delivery(apply("demo", 1, 1)), NOW),
        Verdict::Accepted
    );
    drop(intake);
    let (intake, chain, accepted) = site.open();
    intake
        .repair_receipt(|leaf| accepted.contains(leaf))
        .unwrap();
    assert!(matches!(records::<1>(&chain), [Event::Receipt(_)]));
    drop((intake, chain));
    std::fs::remove_dir_all(site.directory.path().join("chain")).unwrap();
    let (intake, chain, accepted) = site.open();
    intake
        .repair_receipt(|leaf| accepted.contains(leaf))
        .unwrap();
    assert!(matches!(records::<1>(&chain), [Event::Receipt(_)]));
}

#[test]
fn an_order_under_a_newer_trust_root_waits_for_it() {
    let site = Site::new();
    let (intake, _, _) = site.open();
    let mut newer = leaf("demo", Verb::Apply, 1, 1);
    newer.trust_version = dotmac_protocol::ids::TrustVersion(2);
    let payload = Payload::Instance(Box::new(instance("demo")));
    let order = delivery(sign_intent(newer, &payload, &[1, 2]));
    assert_eq!(intake.take(&order, NOW), Verdict::TrustBehind);
    intake.follow(&[sign_trust(&trust_root(2), &[10])]).unwrap();
    assert_eq!(intake.take(&order, NOW), Verdict::Accepted);
}

/// An order that may be taken for two hours.
fn patient(name: &str) -> Delivery {
    let mut order = leaf(name, Verb::Apply, 1, 1);
    order.window.not_after = NOW.plus_millis(7_200_000);
    let payload = Payload::Instance(Box::new(instance(name)));
    delivery(sign_intent(order, &payload, &[1, 2]))
}

fn reason(event: &Event) -> &str {
    match event {
        Event::Receipt(receipt) => match &receipt.outcome {
            Outcome::Refused { reason } => reason,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn law_3_a_stale_clock_takes_no_new_work_and_keeps_what_runs() {
    let site = Site::new();
    let (now, hand) = Clock::manual(NOW);
    let (intake, chain, _) = site.open_with(now.clone());
    assert_eq!(intake.take(&patient("demo"), NOW), Verdict::Accepted);
    let mut desired = intake.desired();
    let before = Arc::clone(&desired.borrow_and_update());
    hand.advance_millis(CLOCK_STALE_MS + 1);
    for _ in 0..2 {
        assert_eq!(intake.take(&patient("other"), NOW), Verdict::NoClock);
    }
    let removal = delivery(crate::fixture::remove("demo", 2, 2));
    assert_eq!(intake.take(&removal, NOW), Verdict::NoClock);
    // Nobody who follows what is to be kept was even woken.
    assert!(!desired.has_changed().unwrap() && **desired.borrow() == *before);
    assert_eq!(intake.hear(&clock(2, now.now())), ClockVerdict::Newest);
    assert_eq!(intake.take(&patient("other"), NOW), Verdict::Accepted);
    let [_, stale, removal, Event::Receipt(taken)] = records(&chain) else {
        panic!("one receipt for each verdict");
    };
    assert!(reason(&stale).starts_with("the newest signed clock is 600 s old"));
    assert!(reason(&removal).starts_with("outside its window"));
    assert_eq!(taken.outcome, Outcome::Accepted);
}

#[test]
fn law_3_a_session_without_a_clock_of_its_own_takes_no_new_work() {
    let site = Site::new();
    let (intake, _, _) = site.open();
    intake.begin_session();
    assert_eq!(intake.take(&patient("demo"), NOW), Verdict::NoClock);
    let lone = sign_clock(2, NOW, Digest::ZERO, &[1]);
    assert_eq!(intake.hear(&lone), ClockVerdict::Unbelieved);
    assert_eq!(intake.hear(&clock(0, NOW)), ClockVerdict::Older);
    assert_eq!(intake.take(&patient("demo"), NOW), Verdict::NoClock);
    assert_eq!(intake.hear(&clock(1, NOW)), ClockVerdict::Newest);
    assert_eq!(intake.take(&patient("demo"), NOW), Verdict::Accepted);
}

#[test]
fn law_3_the_signed_clock_closes_a_window_that_the_agents_own_would_open() {
    let site = Site::new();
    let (intake, chain, _) = site.open();
    let late = clock(2, NOW.plus_millis(3_600_000));
    assert_eq!(intake.hear(&late), ClockVerdict::Newest);
    let order = delivery(apply("demo", 1, 1));
    assert_eq!(intake.take(&order, NOW), Verdict::Refused);
    let [Event::Audit { action, .. }, refused] = records(&chain) else {
        panic!("a clock that is off, and what follows from it");
    };
    assert_eq!(action, "clock.off");
    let reason = reason(&refused);
    assert!(reason.starts_with("outside its window"), "{reason}");
    let off = "; this agent's clock is 3599 s behind the signed one";
    assert!(reason.ends_with(off), "{reason}");
}

#[test]
fn what_is_kept_is_compared_with_what_is_signed() {
    let site = Site::new();
    let (intake, chain, _) = site.open();
    assert_eq!(intake.take(&patient("demo"), NOW), Verdict::Accepted);
    let payload = Digest::of(&patient("demo").intent.payload);
    let kept = dotmac_protocol::clock::desired_digest([(
        &unit("demo"),
        dotmac_protocol::ids::Generation(1),
        payload,
    )]);
    assert_eq!(
        intake.hear(&sign_clock(2, NOW, kept, &[1, 2])),
        ClockVerdict::Newest
    );
    assert_eq!(intake.hear(&clock(3, NOW)), ClockVerdict::Newest);
    assert_eq!(intake.hear(&clock(3, NOW)), ClockVerdict::Newest);
    assert_eq!(records::<1>(&chain).len(), 1);
    assert_eq!(intake.hear(&clock(4, NOW)), ClockVerdict::Newest);
    let [_, Event::Audit { action, detail }] = records(&chain) else {
        panic!("a set that differs");
    };
    assert_eq!(action, "desired.differs");
    assert!(detail.contains(&kept.to_string()), "{detail}");
}
