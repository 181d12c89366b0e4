//! The intake's claims: journal, chain and trust root wired as in an agent.

use std::{collections::BTreeSet, sync::Arc};

use dotmac_protocol::{
    codec,
    frame::Delivery,
    record::{Event, Hop, Outcome, Record},
    time::Timestamp,
    unit::Payload,
    wave::{SignedIntent, Verb},
};
use dotmac_runtime::{clock::Clock, disk::SystemDisk};

use super::{Intake, Verdict};
use crate::{
    chain::{Chain, ChainLimits, Opened, Owner},
    fixture::{NOW, agent, apply, instance, key, leaf, sign_intent, sign_trust, trust_root, unit},
    journal::Journal,
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

    fn open(
        &self,
    ) -> (
        Intake,
        Arc<Chain>,
        BTreeSet<dotmac_protocol::digest::Digest>,
    ) {
        let path = |name| self.directory.path().join(name);
        let trust = TrustStore::open(&path("trust")).unwrap().unwrap();
        let (clock, _) = Clock::manual(NOW.plus_millis(1_000));
        let owner = Owner {
            agent: agent(),
            incarnation: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            key: key(42),
        };
        let (disk, limits) = (SystemDisk::shared(), ChainLimits::default());
        let opened = Chain::open(&path("chain"), owner, disk, clock.clone(), limits);
        let Opened {
            chain, accepted, ..
        } = opened.unwrap();
        let chain = Arc::new(chain);
        let journal = Journal::open(&path("journal"), agent(), BTreeSet::new(), &trust);
        let journal = journal.unwrap().0;
        let stations = Stations::default();
        let (clocks, _) = ClockStore::open(&path("trust"), agent(), &trust);
        let intake = Intake::new(journal, trust, clocks, Arc::clone(&chain), stations, clock);
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
