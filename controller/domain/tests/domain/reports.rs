//! What instances report and what is measured of them: once each, of one's own units alone, and never more than is kept.
//! Longer than 400 lines: the claims about reports, which share their makers.

use dotmac_domain::{
    Changed, Command, State,
    audit::{Fact, Link, ReportRecord, Stream},
    reported::{MINUTES_MAX, MONTHS_MAX, MinuteSum, Reported, TRANSITIONS_MAX},
    tenancy::{DESTROYED_KEPT_MS, Status},
};
use dotmac_protocol::{
    codec::decode,
    ids::{DeploymentId, UnitId},
    license::GRACE_MAX_MS,
    record::{
        HealthStatus, Outcome, Record,
        reports::{
            Claim, InstanceEvent, PAYLOAD_BYTES_MAX, PluginUsage, ProbeMinute, Report, Usage,
            WORD_BYTES_MAX,
        },
    },
    time::Timestamp,
};

use crate::{
    fixture::{START, TestAgent, World},
    licenses::longer,
};

/// One minute in milliseconds.
const MINUTE_MS: u64 = 60_000;
/// 32 days in milliseconds: always another month.
const MONTH_MS: u64 = 32 * 24 * 3_600_000;

pub(crate) fn usage(at: u64, active_subscribers: u64) -> Report {
    Report::Usage(Box::new(Usage {
        reported_at: Timestamp(at),
        active_subscribers,
        total_subscribers: active_subscribers + 9,
        new_subscribers_today: 3,
        churned_subscribers_today: 1,
        active_sessions: 70,
        sessions_today: 400,
        data_usage_kb: 1_234_567,
        active_nas_devices: 2,
        active_olts: 1,
        active_onts: 60,
        revenue_today: Some("120.50".into()),
        outstanding_invoices: None,
    }))
}

fn event(id: &str, payload: &str) -> Report {
    Report::Event(InstanceEvent {
        event_id: id.into(),
        event_type: "subscriber.created".into(),
        occurred_at: Timestamp(START),
        payload: payload.into(),
    })
}

fn claim(status: &str) -> Report {
    Report::Claim(Box::new(Claim {
        reported_at: Timestamp(START),
        status: status.into(),
        api_status: "healthy".into(),
        radius_status: "healthy".into(),
        database_status: "healthy".into(),
        redis_status: "healthy".into(),
        cpu_usage_basis_points: 1_250,
        memory_usage_basis_points: 4_000,
        disk_usage_basis_points: 100,
        app_version: "1.0.0".into(),
        config_version: "sha256:00".into(),
    }))
}

fn minute(number: u64, component: &str, probes: u32, failed: u32) -> Report {
    Report::Minute(ProbeMinute {
        minute: Timestamp(number * MINUTE_MS),
        component: component.parse().unwrap(),
        probes,
        failed,
        latency_sum_ms: u64::from(probes) * 4,
        latency_max_ms: 9,
    })
}

/// A batch with every kind of report.
pub(crate) fn one_of_each(number: u64) -> Vec<Report> {
    vec![
        usage(START + number * MINUTE_MS, 80 + number % 7),
        event(&format!("event-{number}"), "{}"),
        claim("healthy"),
        minute(START / MINUTE_MS - number % 50, "web", 6, 1),
        Report::Plugin(PluginUsage {
            plugin_id: "crm".into(),
            metric_name: "api_calls".into(),
            usage_count: 5,
            timestamp: Timestamp(START),
        }),
    ]
}

fn report(world: &mut World, agent: &mut TestAgent, id: &DeploymentId, reports: Vec<Report>) {
    let record = agent.reports(id, reports);
    world.report(agent, vec![record]).unwrap();
}

fn reported<'w>(world: &'w World, id: &DeploymentId) -> &'w Reported {
    &world.state.reported[id]
}

fn length(world: &World, stream: Stream) -> u64 {
    world
        .state
        .streams
        .get(&stream)
        .map_or(0, |head| head.sequence)
}

fn series(facts: &[Fact]) -> Vec<(String, ReportRecord)> {
    let links = facts.iter().filter_map(|fact| match &fact.link {
        Link::Report(bytes) => Some((fact.stream.to_string(), decode(bytes).unwrap())),
        Link::Entry(_) | Link::Record(_) => None,
    });
    links.collect()
}

#[test]
fn a_batch_is_kept_in_short_and_in_whole_and_is_in_nobodys_story() {
    let (mut world, mut agent, id) = World::with_active();
    let tenant = world.state.deployments[&id].tenant.clone();
    let story = length(&world, Stream::Tenant(tenant.clone()));
    report(&mut world, &mut agent, &id, one_of_each(0));
    let applied = world.applied.last().unwrap().clone();
    let told: Vec<(String, Report)> = series(&applied.facts)
        .into_iter()
        .map(|(stream, link)| {
            assert_eq!(
                (&link.agent, link.record),
                (&agent.id, agent.head().sequence)
            );
            (stream, link.report)
        })
        .collect();
    let [use_, happened, _, minute, plugin] = one_of_each(0).try_into().unwrap();
    let of = |name: &str| format!("{name}/{id}");
    assert_eq!(
        told,
        [
            (of("usage"), use_.clone()),
            (of("events"), happened),
            (of("minutes"), minute),
            (of("usage"), plugin),
        ]
    );
    let short = reported(&world, &id);
    let last = short.usage.as_ref().unwrap();
    assert_eq!(
        (last.at, Report::Usage(Box::new(last.report.clone()))),
        (Timestamp(START), use_)
    );
    let peaks: Vec<_> = short
        .peaks
        .iter()
        .map(|(month, peak)| (month.to_string(), *peak))
        .collect();
    assert_eq!(peaks, [("2023-11".to_owned(), 80)]);
    assert_eq!(
        short.claim.as_ref().unwrap().report.cpu_usage_basis_points,
        1_250
    );
    assert_eq!(
        (short.events.count, short.plugins.count, short.usages.count),
        (1, 1, 1)
    );
    let sum = MinuteSum {
        minute: Timestamp(START / MINUTE_MS * MINUTE_MS),
        probes: 6,
        failed: 1,
        latency_sum_ms: 24,
        latency_max_ms: 9,
    };
    assert_eq!(short.minutes, [sum]);
    // The tenant's story has no word of it, and whoever watches is told of the deployment alone.
    assert_eq!(length(&world, Stream::Tenant(tenant)), story);
    assert_eq!(applied.changed, [Changed::Deployment(id)].into());
}

#[test]
fn what_only_repeats_what_is_shown_wakes_nobody() {
    let (mut world, mut agent, id) = World::with_active();
    report(&mut world, &mut agent, &id, one_of_each(0));
    let same = vec![
        usage(START + 1, 80),
        event("other", "{}"),
        minute(1, "web", 6, 0),
    ];
    report(&mut world, &mut agent, &id, same);
    assert!(world.applied.last().unwrap().changed.is_empty());
    report(&mut world, &mut agent, &id, vec![claim("unhealthy")]);
    let changed = &world.applied.last().unwrap().changed;
    assert_eq!(changed, &[Changed::Deployment(id.clone())].into());
    // What an instance claims changes no status.
    assert_eq!(world.state.deployments[&id].status, Status::Active);
    assert_eq!(world.state.deployments[&id].health, HealthStatus::Healthy);
}

#[test]
fn law_8_a_batch_counts_once_and_so_does_a_usage_of_one_time() {
    let (mut world, mut agent, id) = World::with_active();
    let record = agent.reports(&id, one_of_each(0));
    world.report(&agent, vec![record.clone()]).unwrap();
    let (known, facts) = (reported(&world, &id).clone(), world.facts());
    for _ in 0..3 {
        world.report(&agent, vec![record.clone()]).unwrap();
    }
    assert_eq!(reported(&world, &id), &known);
    assert_eq!(world.facts(), facts);
    report(&mut world, &mut agent, &id, vec![usage(START, 999)]);
    assert_eq!(reported(&world, &id), &known);
    assert_eq!(length(&world, Stream::Usage(id)), 2);
}

#[test]
fn law_4_reports_of_another_agents_unit_and_of_none_do_not_count() {
    let (mut world, mut agent, id) = World::with_active();
    let mut stranger = world.join(41);
    assert_ne!(agent.id, stranger.id);
    let before = reported(&world, &id).clone();
    report(&mut world, &mut stranger, &id, one_of_each(0));
    let nobody = "nobody-00000000".parse().unwrap();
    report(&mut world, &mut agent, &nobody, one_of_each(0));
    let record = agent.record(
        None,
        dotmac_protocol::record::Event::Reports(one_of_each(0)),
    );
    world.report(&agent, vec![record]).unwrap();
    assert_eq!(reported(&world, &id), &before);
    assert_eq!(world.state.reported.size(), 1);
    assert_eq!(series(&world.facts()), []);
}

#[test]
fn law_4_reports_count_for_whose_unit_it_is_and_not_for_whom_the_record_names() {
    let (mut world, mut agent, id) = World::with_active();
    let other = world.create("Other ISP");
    let head = agent.head();
    let signed = agent.reports(&id, one_of_each(0));
    let mut record: Record = decode(&signed.body).unwrap();
    record.tenant = Some(world.state.deployments[&other].tenant.clone());
    agent.rewind(head);
    let signed = agent.sign(&record);
    world.report(&agent, vec![signed]).unwrap();
    assert_eq!(world.state.reported.keys().collect::<Vec<_>>(), [&id]);
}

#[test]
fn law_11_minutes_and_months_are_bounded_and_the_oldest_go_first() {
    let (mut world, mut agent, id) = World::with_active();
    for month in 0..20 {
        world.now = START + month * MONTH_MS;
        let now = world.now;
        report(
            &mut world,
            &mut agent,
            &id,
            vec![usage(now, 100 - month), usage(now + 1, 7)],
        );
    }
    let first = START / MINUTE_MS;
    world.now = (first + 99) * MINUTE_MS;
    world.state.now = Timestamp(world.now);
    let minutes = (0..100).flat_map(|number| {
        [
            minute(first + number, "web", 6, 0),
            minute(first + number, "db", 2, 2),
        ]
    });
    report(&mut world, &mut agent, &id, minutes.collect());
    let short = reported(&world, &id);
    assert_eq!(short.peaks.len(), MONTHS_MAX);
    assert_eq!(
        short.peaks.values().copied().collect::<Vec<_>>(),
        (81..=93).rev().collect::<Vec<_>>()
    );
    assert_eq!(short.minutes.len(), MINUTES_MAX);
    assert_eq!(short.minutes[0].minute, Timestamp((first + 40) * MINUTE_MS));
    let found = short.availability(Timestamp(world.now)).unwrap();
    assert_eq!((found.minutes, found.probes, found.failed), (60, 480, 120));
    assert_eq!((found.basis_points, found.latency_mean_ms), (7_500, 4));
    // Half an hour later half of them count; a day later nothing is known.
    let later = short.availability(Timestamp(world.now + 30 * MINUTE_MS));
    assert_eq!(later.unwrap().minutes, 31);
    assert_eq!(
        short.availability(Timestamp(world.now + 24 * 60 * MINUTE_MS)),
        None
    );
    assert_eq!(length(&world, Stream::Minutes(id)), 200);
}

#[test]
fn a_clock_that_runs_ahead_opens_neither_a_month_nor_a_minute() {
    let (mut world, mut agent, id) = World::with_active();
    let ahead = START + 24 * MONTH_MS;
    let reports = vec![usage(ahead, 5), minute(ahead / MINUTE_MS, "web", 6, 6)];
    report(&mut world, &mut agent, &id, reports);
    let short = reported(&world, &id);
    let months: Vec<String> = short.peaks.keys().map(ToString::to_string).collect();
    assert_eq!(months, ["2023-11"]);
    assert_eq!(short.minutes, []);
    assert_eq!(
        length(&world, Stream::Minutes(id)),
        1,
        "it is kept all the same"
    );
}

#[test]
fn changes_of_health_are_kept_in_order_once_each_and_bounded() {
    let (mut world, mut agent, id) = World::with_active();
    let unit = UnitId::instance(&id);
    let unit = world.state.units[&(agent.id.clone(), unit)].clone();
    let leaf = world.leaf_like(&id, &unit);
    let first = reported(&world, &id).transitions.len();
    for number in 0..TRANSITIONS_MAX + 5 {
        let status = [HealthStatus::Failed, HealthStatus::Healthy][number % 2];
        world.now += 1_000;
        let reason = "x".repeat(1_000);
        for _ in 0..2 {
            let record = agent.health(&leaf, status, &reason);
            world.report(&agent, vec![record]).unwrap();
        }
        let kept = &reported(&world, &id).transitions;
        assert_eq!(kept.len(), (first + number + 1).min(TRANSITIONS_MAX));
        let last = kept.last().unwrap();
        assert_eq!((last.at, last.status), (Timestamp(world.now), status));
        assert_eq!(last.reason.len(), 200);
    }
    assert!(
        reported(&world, &id)
            .transitions
            .is_sorted_by_key(|one| one.at)
    );
}

#[test]
fn restricted_no_more_subscribers_are_served_than_there_were_while_they_might_grow() {
    let (mut world, mut agent, id) = World::with_active();
    let served = |world: &World| {
        world
            .state
            .subscribers_of(&id, &world.state.deployments[&id])
    };
    assert_eq!(served(&world), 100);
    report(&mut world, &mut agent, &id, vec![usage(START, 60)]);
    let end = longer(&id);
    let restricted = end.expires_at.flatten().unwrap().0 + GRACE_MAX_MS;
    world.ask(Command::UpdateLicense(Box::new(end))).unwrap();
    assert_eq!(served(&world), 100);
    world.now = restricted;
    report(&mut world, &mut agent, &id, vec![usage(restricted, 90)]);
    assert_eq!(served(&world), 60);
}

#[test]
fn law_11_a_report_beyond_its_bounds_does_not_count_and_is_counted() {
    let (mut world, mut agent, id) = World::with_active();
    let long = "x".repeat(WORD_BYTES_MAX + 1);
    let reports = vec![
        event(&long, "{}"),
        event("large", &"x".repeat(PAYLOAD_BYTES_MAX + 1)),
        claim(&long),
        minute(1, "web", 1, 2),
        event("good", &"x".repeat(PAYLOAD_BYTES_MAX)),
    ];
    report(&mut world, &mut agent, &id, reports);
    let short = reported(&world, &id);
    assert_eq!((short.ignored, short.events.count), (4, 1));
    assert_eq!((short.claim.as_ref(), short.minutes.len()), (None, 0));
    assert_eq!(series(&world.facts()).len(), 1);
}

#[test]
fn what_was_reported_is_in_a_snapshot() {
    let (mut world, mut agent, id) = World::with_active();
    report(&mut world, &mut agent, &id, one_of_each(0));
    let restored = State::from_bytes(&world.state.to_bytes().unwrap()).unwrap();
    assert_eq!(restored, world.state);
    let mut other = world.clone();
    other.state = restored;
    let record = agent.reports(&id, one_of_each(1));
    for world in [&mut world, &mut other] {
        world.report(&agent, vec![record.clone()]).unwrap();
    }
    assert_eq!(other.applied.last(), world.applied.last());
    assert_eq!(other.state.digest(), world.state.digest());
}

#[test]
fn what_was_reported_is_forgotten_with_its_deployment_and_its_series_goes_on() {
    let (mut world, mut agent, id) = World::with_active();
    report(&mut world, &mut agent, &id, one_of_each(0));
    world.destroy(&mut agent, &id);
    assert!(world.state.reported.contains_key(&id));
    world.now += DESTROYED_KEPT_MS;
    let deployment = id.clone();
    world
        .plan(Command::ForgetDeployment { deployment })
        .unwrap();
    assert!(world.state.reported.is_empty());
    report(&mut world, &mut agent, &id, one_of_each(1));
    assert!(
        world.state.reported.is_empty(),
        "nobody's deployment has nothing"
    );
    assert_eq!(length(&world, Stream::Usage(id)), 2);
}

#[test]
fn a_batch_is_no_receipt() {
    let (mut world, mut agent) = World::with_agent();
    let id = world.create("Demo ISP");
    world.carry_on();
    report(&mut world, &mut agent, &id, one_of_each(0));
    let waiting = world.state.units.values().next().unwrap();
    assert!(waiting.acknowledged_generation < waiting.generation);
    let leaf = world.leaf(&id);
    let record = agent.receipt(&leaf, Outcome::Accepted);
    world.report(&agent, vec![record]).unwrap();
    let taken = world.state.units.values().next().unwrap();
    assert_eq!(taken.acknowledged_generation, taken.generation);
}

#[test]
fn a_count_that_comes_late_is_history_and_does_not_replace_a_newer_one() {
    let (mut world, mut agent, id) = World::with_active();
    let shown = |world: &World| {
        let usage = reported(world, &id).usage.as_ref().unwrap();
        usage.report.active_subscribers
    };
    for (at, active, expected) in [
        (START - 20, 5, 5),
        (START - 30, 9, 5),
        (START + 10 * MONTH_MS, 7, 7),
        (START - 10, 6, 6),
    ] {
        report(&mut world, &mut agent, &id, vec![usage(at, active)]);
        assert_eq!(shown(&world), expected, "{at}");
    }
    assert_eq!(reported(&world, &id).usages.count, 4);
}
