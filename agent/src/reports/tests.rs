//! The claims about reports, on a real chain and a real directory.

use std::{num::NonZeroU32, path::Path, sync::Arc};

use dotmac_protocol::{
    codec,
    record::{
        Event, Record,
        reports::{Claim, InstanceEvent, Report, Usage},
    },
    time::Timestamp,
};
use dotmac_runtime::{
    clock::{Clock, ManualClock},
    disk::SystemDisk,
};

use super::{Counter, Of, Refusal, ReportFiles, Reports};
use crate::{
    chain::{Chain, ChainLimits, Owner},
    fixture::{NOW, agent, key, tenant, unit},
    license_time::LicenseTime,
};

/// What an instance may report a second.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(50).unwrap();

pub(crate) fn event(id: &str) -> Report {
    Report::Event(InstanceEvent {
        event_id: id.into(),
        event_type: "nas.online".into(),
        occurred_at: NOW,
        payload: "{}".into(),
    })
}

pub(crate) fn usage(reported_at: u64, active: u64) -> Report {
    Report::Usage(Box::new(Usage {
        reported_at: Timestamp(reported_at),
        active_subscribers: active,
        total_subscribers: active,
        new_subscribers_today: 0,
        churned_subscribers_today: 0,
        active_sessions: 0,
        sessions_today: 0,
        data_usage_kb: 0,
        active_nas_devices: 0,
        active_olts: 0,
        active_onts: 0,
        revenue_today: None,
        outstanding_invoices: None,
    }))
}

fn claim(reported_at: u64, status: &str) -> Claim {
    Claim {
        reported_at: Timestamp(reported_at),
        status: status.into(),
        api_status: String::new(),
        radius_status: String::new(),
        database_status: String::new(),
        redis_status: String::new(),
        cpu_usage_basis_points: u32::try_from(reported_at % 100).unwrap(),
        memory_usage_basis_points: 0,
        disk_usage_basis_points: 0,
        app_version: String::new(),
        config_version: String::new(),
    }
}

/// Reports on a chain in a directory, as an agent opens them.
pub(crate) fn open(
    directory: &Path,
    clock: &Clock,
    limits: ChainLimits,
) -> (Arc<Reports>, Arc<Chain>, LicenseTime) {
    let owner = Owner {
        agent: agent(),
        incarnation: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        key: key(42),
    };
    let mut files = ReportFiles::open(&directory.join("reports"), &owner.incarnation).unwrap();
    let (path, disk) = (directory.join("chain"), SystemDisk::shared());
    let repair = |record: &Record| files.repair(record);
    let opened = Chain::open_with(&path, owner, disk, clock.clone(), limits, repair).unwrap();
    let chain = Arc::new(opened.chain);
    let (time, _) = LicenseTime::open(directory.join("license_time"), None, clock.clone());
    let reports = Reports::new(
        files,
        Arc::clone(&chain),
        time.clone(),
        clock.clone(),
        PER_SECOND,
    );
    (Arc::new(reports), chain, time)
}

/// What the records that wait for acknowledgement report.
pub(crate) fn recorded(chain: &Chain) -> Vec<Report> {
    let mut reports = Vec::new();
    for record in chain.batch().unwrap().records {
        let record: Record = codec::decode(&record.body).unwrap();
        if let Event::Reports(more) = record.event {
            reports.extend(more);
        }
    }
    reports
}

fn of_web(reports: &Reports, name: &str) -> Counter {
    let component = "web".parse().unwrap();
    reports.tally().of(&unit(name)).counter(&component)
}

fn of() -> Of {
    Of {
        tenant: tenant("demo"),
        unit: unit("demo"),
    }
}

struct Site {
    directory: tempfile::TempDir,
    clock: Clock,
    hand: ManualClock,
}

impl Site {
    fn new() -> Self {
        let (clock, hand) = Clock::manual(NOW);
        let directory = tempfile::tempdir().unwrap();
        Self {
            directory,
            clock,
            hand,
        }
    }

    fn open(&self) -> (Arc<Reports>, Arc<Chain>) {
        let limits = ChainLimits::default();
        let (reports, chain, _) = open(self.directory.path(), &self.clock, limits);
        (reports, chain)
    }

    fn file(&self) -> std::path::PathBuf {
        super::file_of(&self.directory.path().join("reports"), &unit("demo"))
    }
}

#[tokio::test]
async fn law_8_a_report_counts_once_however_often_it_comes_and_the_agent_restarts() {
    let site = Site::new();
    for _ in 0..3 {
        let (reports, chain) = site.open();
        for _ in 0..2 {
            let twice = vec![event("e-1"), usage(1, 5), event("e-1"), event("e-2")];
            reports.submit(&of(), false, twice).await.unwrap();
        }
        assert_eq!(recorded(&chain), [event("e-1"), usage(1, 5), event("e-2")]);
        assert_eq!(reports.active(&unit("demo")), Some(5));
    }
}

#[tokio::test]
async fn law_8_what_a_crash_took_from_the_file_is_read_from_the_chain_again() {
    let site = Site::new();
    let (reports, chain) = site.open();
    for number in 0..5 {
        let one = vec![event(&format!("e-{number}")), usage(number, number)];
        reports.submit(&of(), false, one).await.unwrap();
    }
    let whole = std::fs::read(site.file()).unwrap();
    drop((reports, chain));
    for cut in [0, whole.len() / 2, whole.len() - 1] {
        std::fs::write(site.file(), &whole[..cut]).unwrap();
        let (reports, chain) = site.open();
        let again = (0..5).map(|number| event(&format!("e-{number}"))).collect();
        reports.submit(&of(), false, again).await.unwrap();
        assert_eq!(recorded(&chain).len(), 10, "cut at {cut}");
        assert_eq!(reports.highest_active(&unit("demo")), Some(4));
    }
    std::fs::remove_file(site.file()).unwrap();
    let (reports, chain) = site.open();
    reports
        .submit(&of(), false, vec![event("e-0"), event("e-9")])
        .await
        .unwrap();
    assert_eq!(recorded(&chain).len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_come_together_share_records_and_none_is_lost() {
    let site = Site::new();
    let (reports, chain) = site.open();
    let submits = (0..200).map(|number| {
        let reports = Arc::clone(&reports);
        async move {
            let twice = vec![event(&format!("e-{}", number / 2))];
            reports.submit(&of(), false, twice).await
        }
    });
    for result in futures::future::join_all(submits).await {
        assert_eq!(result, Ok(()));
    }
    assert_eq!(recorded(&chain).len(), 100);
    assert!(chain.outbox().1 < 100, "{:?}", chain.outbox());
}

#[tokio::test]
async fn a_large_batch_becomes_several_records() {
    let site = Site::new();
    let (reports, chain) = site.open();
    let large = |number: u64| {
        Report::Event(InstanceEvent {
            event_id: format!("e-{number}"),
            event_type: "olt.alarm".into(),
            occurred_at: NOW,
            payload: "x".repeat(4096),
        })
    };
    let many: Vec<Report> = (0..10).map(large).collect();
    reports.submit(&of(), false, many.clone()).await.unwrap();
    assert_eq!(recorded(&chain), many);
    assert_eq!(chain.outbox(), (1, 5));
}

#[tokio::test]
async fn a_full_outbox_leaves_minutes_out_first_and_refuses_the_rest_without_losing_what_it_took() {
    let site = Site::new();
    let limits = ChainLimits {
        outbox_bytes_max: 20_000,
        ..ChainLimits::default()
    };
    let (reports, chain, _) = open(site.directory.path(), &site.clock, limits);
    let counter = of_web(&reports, "demo");
    let is_minute = |report: &Report| matches!(report, Report::Minute(_));
    let (mut taken, mut minutes_with_room) = (0, 0);
    let refusal = loop {
        counter.count(site.clock.now(), 1, true);
        site.hand.advance_millis(60_000);
        let had_room = chain.has_room_for_minutes(&unit("demo"));
        let report = vec![event(&format!("e-{taken}"))];
        match reports.submit(&of(), false, report).await {
            Ok(()) => taken += 1,
            Err(refusal) => break refusal,
        }
        minutes_with_room += usize::from(had_room);
    };
    assert_eq!(refusal, Refusal::Full);
    let kept = {
        let mut kept = Vec::new();
        while let [_, ..] = &chain.batch().unwrap().records[..] {
            kept.extend(recorded(&chain));
            let batch = chain.batch().unwrap();
            let count = u64::try_from(batch.records.len()).unwrap();
            chain.acknowledge(batch.first + count - 1).unwrap();
        }
        kept
    };
    let minutes = kept.iter().filter(|report| is_minute(report)).count();
    assert_eq!(kept.len() - minutes, taken);
    assert_eq!(minutes, minutes_with_room);
    assert!(minutes < taken, "{minutes} of {taken}");
    let after = vec![event(&format!("e-{taken}"))];
    assert_eq!(
        reports.submit(&of(), false, after).await,
        Ok(()),
        "there is room again"
    );
}

#[tokio::test]
async fn one_that_floods_is_told_when_to_come_again_and_leaves_the_others_alone() {
    let site = Site::new();
    let (reports, chain) = site.open();
    let events = |range: std::ops::Range<u64>| range.map(|number| event(&format!("e-{number}")));
    let mut taken = 0;
    let refusal = loop {
        let batch = events(taken..taken + 500).collect();
        match reports.submit(&of(), false, batch).await {
            Ok(()) => taken += 500,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((taken, refusal), (10_000, Refusal::Often { wait_s: 10 }));
    let again = events(0..500).collect();
    assert_eq!(reports.submit(&of(), false, again).await, Ok(()));
    let other = Of {
        unit: unit("other"),
        ..of()
    };
    let one = vec![event("e-1")];
    assert_eq!(reports.submit(&other, false, one).await, Ok(()));
    site.hand.advance_millis(10_000);
    let next = events(taken..taken + 500).collect();
    assert_eq!(reports.submit(&of(), false, next).await, Ok(()));
    drop(chain);
}

#[tokio::test]
async fn a_claim_is_recorded_when_it_changes_and_every_ten_minutes() {
    let site = Site::new();
    let (reports, chain) = site.open();
    for (number, status) in ["healthy", "healthy", "sick", "sick", "healthy"]
        .iter()
        .enumerate()
    {
        let at = u64::try_from(number).unwrap();
        reports.claim(&of(), claim(at, status)).await.unwrap();
    }
    assert_eq!(recorded(&chain).len(), 3);
    site.hand.advance_millis(super::CLAIM_EVERY_MS);
    reports.claim(&of(), claim(9, "healthy")).await.unwrap();
    assert_eq!(recorded(&chain).len(), 4);
}

#[tokio::test]
async fn minutes_ride_with_a_report_or_are_flushed_and_a_removed_unit_is_forgotten() {
    let site = Site::new();
    let (reports, chain) = site.open();
    let counter = |name: &str| of_web(&reports, name);
    counter("demo").count(NOW, 3, true);
    counter("gone").count(NOW, 3, true);
    site.hand.advance_millis(60_000);
    reports
        .submit(&of(), false, vec![event("e-1")])
        .await
        .unwrap();
    assert_eq!(recorded(&chain).len(), 2);
    counter("demo").count(site.clock.now(), 4, false);
    site.hand.advance_millis(100_000);
    let instance = crate::fixture::instance("demo");
    let wanted = crate::instance_api::tests::wanted(instance);
    let desired = std::collections::BTreeMap::from([(unit("demo"), wanted)]);
    let (_sender, desired) = tokio::sync::watch::channel(Arc::new(desired));
    reports.flush(&desired).await;
    let Some(Report::Minute(minute)) = recorded(&chain).pop() else {
        panic!("a minute came last")
    };
    assert_eq!(
        (minute.probes, minute.failed, minute.latency_max_ms),
        (1, 1, 4)
    );
    assert!(reports.tally().waiting(site.clock.now(), 0).is_empty());
    assert!(site.file().exists());
    reports.forget(&unit("demo"));
    assert!(!site.file().exists());
    assert_eq!(reports.active(&unit("demo")), None);
}
