//! The chain's claims, on a real directory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use dotmac_protocol::{
    keys::PublicKey,
    record::{
        ChainHead, Event, Health, HealthStatus,
        reports::{ProbeMinute, Report},
    },
    time::Timestamp,
};
use dotmac_runtime::{
    clock::Clock,
    disk::{SystemDisk, cut::CutDisk},
};

use super::{Ahead, AppendError, BadRecord, Chain, ChainLimits, OpenError, Opened, Owner, verify};
use crate::{
    fixture::{NOW, agent, key},
    unit::About,
};

const SEED: u8 = 42;

fn limits() -> ChainLimits {
    ChainLimits {
        segment_bytes: 2_000,
        audit_bytes_max: 4_000,
        outbox_bytes_max: 50_000,
    }
}

fn owner() -> Owner {
    Owner {
        agent: agent(),
        incarnation: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        key: key(SEED),
    }
}

fn open(directory: &Path) -> Result<Opened, OpenError> {
    let (clock, _) = Clock::manual(NOW);
    Chain::open(directory, owner(), SystemDisk::shared(), clock, limits())
}

pub(super) fn chain(directory: &Path) -> Chain {
    open(directory).unwrap().chain
}

fn public() -> PublicKey {
    PublicKey::of(&key(SEED))
}

fn audit(detail: &str) -> Event {
    Event::Audit {
        action: "instance.restarted".into(),
        detail: detail.into(),
    }
}

pub(super) fn append(chain: &Chain, count: u64) {
    for number in 0..count {
        chain
            .append(&About::default(), audit(&format!("number {number}")))
            .unwrap();
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    super::walk::segments(directory)
        .unwrap()
        .into_iter()
        .map(|(_, file)| file)
        .collect()
}

#[test]
fn a_restart_continues_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    append(&chain(directory.path()), 10);
    let before = verify(directory.path(), &public()).unwrap();
    append(&chain(directory.path()), 5);
    let after = verify(directory.path(), &public()).unwrap();
    assert_eq!((before.first, before.last), (1, 10));
    assert_eq!((after.first, after.last), (1, 15));
    assert!(
        files(directory.path()).len() > 2,
        "it went over several segments"
    );
    assert_eq!(chain(directory.path()).outbox(), (1, 15));
}

#[test]
fn a_batch_is_the_same_bytes_until_it_is_acknowledged_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let first = chain(directory.path());
    append(&first, 6);
    let sent = first.batch().unwrap().records;
    drop(first);
    let second = chain(directory.path());
    assert_eq!(second.batch().unwrap().records, sent);
    let mut head = ChainHead::START;
    for signed in &sent {
        (_, head) = signed.verify(&public(), head).unwrap();
    }
    second.acknowledge(4).unwrap();
    assert_eq!(second.batch().unwrap().records, sent[4..]);
    assert_eq!(chain(directory.path()).batch().unwrap().records, sent[4..]);
    second.acknowledge(6).unwrap();
    assert_eq!(
        (second.batch().unwrap().records, second.outbox()),
        (vec![], (0, 0))
    );
    let ahead = Ahead {
        acknowledged: 7,
        last: 6,
    };
    assert_eq!(second.acknowledge(7), Err(ahead));
}

#[test]
fn a_torn_last_line_is_cut_and_the_chain_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    append(&chain(directory.path()), 3);
    let last = files(directory.path()).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    bytes.extend_from_slice(br#"{"sequence":4,"at_ms":17"#);
    fs::write(&last, &bytes).unwrap();
    append(&chain(directory.path()), 1);
    assert_eq!(verify(directory.path(), &public()).unwrap().last, 4);
}

#[test]
fn what_was_appended_survives_a_power_cut() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chain");
    drop(chain(&path));
    let disk = Arc::new(CutDisk::new(&path).unwrap());
    let (clock, _) = Clock::manual(NOW);
    let opened = Chain::open(&path, owner(), disk.clone(), clock, limits()).unwrap();
    append(&opened.chain, 9);
    drop(opened);
    disk.cut_power().unwrap();
    assert_eq!(verify(&path, &public()).unwrap().last, 9);
}

#[test]
fn every_flipped_byte_is_found_and_its_record_named() {
    let directory = tempfile::tempdir().unwrap();
    append(&chain(directory.path()), 5);
    for file in files(directory.path()) {
        let sound = fs::read(&file).unwrap();
        let first: u64 = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        for position in (0..sound.len()).step_by(23) {
            let mut changed = sound.clone();
            changed[position] ^= 0x01;
            fs::write(&file, &changed).unwrap();
            let lines_before = sound[..position]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            let expected = first + u64::try_from(lines_before).unwrap();
            let bad = verify(directory.path(), &public()).unwrap_err();
            assert_eq!(bad.sequence, expected, "{position}: {bad}");
            assert!(matches!(open(directory.path()), Err(OpenError::Bad(found)) if found == bad));
        }
        fs::write(&file, &sound).unwrap();
    }
    assert!(verify(directory.path(), &public()).is_ok());
}

#[test]
fn damage_in_the_acknowledged_part_is_reported_and_the_chain_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let first = chain(directory.path());
    append(&first, 5);
    first.acknowledge(4).unwrap();
    drop(first);
    let file = files(directory.path()).swap_remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[30] ^= 0x01;
    fs::write(&file, bytes).unwrap();
    let Opened { chain, bad, .. } = open(directory.path()).unwrap();
    assert_eq!(
        bad.iter().map(|bad| bad.sequence).collect::<Vec<_>>(),
        vec![1]
    );
    append(&chain, 1);
    assert_eq!(chain.batch().unwrap().records.len(), 2);
    assert_eq!(verify(directory.path(), &public()).unwrap_err().sequence, 1);
}

#[test]
fn missing_records_are_named_in_the_middle_and_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let first = chain(directory.path());
    append(&first, 12);
    first.acknowledge(12).unwrap();
    drop(first);
    let segments = files(directory.path());
    let begins = |file: &PathBuf| {
        file.file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let (second, last) = (&segments[1], segments.last().unwrap());
    for (file, expected) in [(second, begins(second)), (last, begins(last))] {
        let kept = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        let BadRecord {
            sequence, reason, ..
        } = verify(directory.path(), &public()).unwrap_err();
        assert_eq!(sequence, expected);
        assert!(reason.contains("missing"), "{reason}");
        fs::write(file, kept).unwrap();
    }
}

#[test]
fn acknowledged_segments_are_kept_up_to_their_bound_and_others_always() {
    let directory = tempfile::tempdir().unwrap();
    let chain = chain(directory.path());
    append(&chain, 40);
    let all = files(directory.path()).len();
    chain.acknowledge(1).unwrap();
    assert_eq!(files(directory.path()).len(), all);
    chain.acknowledge(40).unwrap();
    let kept = files(directory.path());
    let bytes: u64 = kept
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    assert!(kept.len() < all && bytes <= limits().audit_bytes_max + limits().segment_bytes * 2);
    let verified = verify(directory.path(), &public()).unwrap();
    assert!(verified.first > 1);
    assert_eq!(verified.last, 40);
}

#[test]
fn a_full_outbox_takes_no_new_work_then_no_health_and_at_last_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let chain = chain(directory.path());
    let health = || {
        Event::Health(Health {
            generation: dotmac_protocol::ids::Generation(1),
            status: HealthStatus::Healthy,
            reason: String::new(),
            components: vec![],
            hops: vec![],
        })
    };
    while chain.has_room() {
        chain.append(&About::default(), health()).unwrap();
    }
    let refused = chain.append(&About::default(), health());
    assert!(matches!(refused, Err(AppendError::Full { .. })));
    let mut more = 0;
    while chain.append(&About::default(), audit("kept")).is_ok() {
        more += 1;
    }
    assert!(more > 10);
    while let Some(last) = chain.outbox().1.checked_sub(0).filter(|last| *last > 0) {
        chain.acknowledge(last).unwrap();
    }
    assert!(chain.has_room() && chain.append(&About::default(), health()).is_ok());
}

#[test]
fn a_unit_that_floods_leaves_room_to_the_others_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let report = |unit: &str, number: u64| {
        let minute = ProbeMinute {
            minute: Timestamp(number * 60_000),
            component: "web".parse().unwrap(),
            probes: 60,
            failed: 0,
            latency_sum_ms: 60,
            latency_max_ms: 1,
        };
        let about = About {
            unit: Some(crate::fixture::unit(unit)),
            ..About::default()
        };
        (about, Event::Reports(vec![Report::Minute(minute); 20]))
    };
    let flood = |chain: &Chain, unit: &str| {
        let taken = (0..).take_while(|number| {
            let (about, event) = report(unit, *number);
            chain.append(&about, event).is_ok()
        });
        taken.count()
    };
    let first = chain(directory.path());
    let (loud, louder) = (flood(&first, "loud"), flood(&first, "louder"));
    assert!(
        loud > 10 && louder > 2 && louder < loud,
        "{loud} and {louder}"
    );
    drop(first);
    let again = chain(directory.path());
    assert_eq!(flood(&again, "loud"), 0, "its reports still wait");
    let (about, event) = report("quiet", 0);
    assert!(again.append(&about, event).is_ok());
    let last = again.outbox().1;
    again.acknowledge(last).unwrap();
    assert!(flood(&again, "loud") > 10);
}

#[test]
fn writers_at_the_same_time_share_one_chain() {
    let directory = tempfile::tempdir().unwrap();
    let chain = chain(directory.path());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| append(&chain, 20));
        }
    });
    assert_eq!(*chain.watch().borrow(), 160);
    assert_eq!(verify(directory.path(), &public()).unwrap().last, 160);
}
