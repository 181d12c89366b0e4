//! What is known anyway and only asked for when the metrics are rendered: the log's figures, the disk, the State.

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path};

use dotmac_domain::{State, fleet::Presence, tenancy::Status};
use dotmac_protocol::{license::Phase, time::Timestamp};
use dotmac_runtime::metrics::{Samples, Value};

use super::catalogue as all;
use crate::{node::Node, readiness, storage::pace};

/// The words for an agent's presence.
const PRESENCES: [&str; 3] = ["connected", "disconnected", "unknown"];
/// How deep the store's folders are looked into.
const DEPTH_MAX: usize = 4;

pub(super) fn sample(samples: &mut Samples<'_>, node: &Node, directory: &Path) {
    let state = node.state();
    let checks = readiness::checks(node);
    samples.put_readiness(checks.map(|check| (check.name, check.is_ok)));
    of_raft(samples, node);
    of_storage(samples, node, &state, directory);
    of_fleet(samples, node, &state);
    of_deployments(samples, &state, node.clock.now().max(state.now));
    of_backups(samples, node, &state);
    let applied = *node.log.applied().borrow();
    samples.put(&all::EVENT_WATCHERS, node.feed.watchers());
    samples.put(
        &all::FEED_LAG_ENTRIES,
        applied.saturating_sub(node.feed.index()),
    );
    samples.put(&all::ANSWERS_KEPT, state.answers.size());
    samples.put_spans(node.traces.spans().counts());
}

fn of_raft(samples: &mut Samples<'_>, node: &Node) {
    let (figures, leadership) = (node.log.figures(), *node.log.leadership().borrow());
    samples.put(&all::RAFT_LEADER, readiness::leads(node));
    samples.put(&all::RAFT_LEADER_KNOWN, readiness::knows_leader(node));
    samples.put(&all::RAFT_TERM, leadership.term);
    samples.put(&all::RAFT_LAST_LOG_INDEX, figures.last_log);
    samples.put(&all::RAFT_COMMITTED_INDEX, figures.committed);
    samples.put(&all::RAFT_APPLIED_INDEX, figures.applied);
    samples.put(&all::RAFT_SNAPSHOT_INDEX, figures.snapshot);
    let connected = node.log.connected().borrow().len();
    samples.put(&all::RAFT_PEERS_CONNECTED, connected);
    samples.put(&all::RAFT_MEMBERS, node.controllers().len());
}

fn of_storage(samples: &mut Samples<'_>, node: &Node, state: &State, directory: &Path) {
    let figures = node.log.figures();
    samples.put(&all::STORAGE_WRITABLE, node.log.storage().is_ok());
    samples.put(&all::STORAGE_SLOW, pace::slow(figures.sync).is_some());
    samples.put(&all::STORAGE_FREE_BYTES, figures.free_bytes);
    samples.put(&all::STORAGE_RESERVE_BYTES, figures.reserve_bytes);
    samples.put(&all::STORAGE_USED_BYTES, bytes_of(directory, DEPTH_MAX));
    samples.put(&all::LEDGER_STREAMS, state.streams.size());
}

fn of_fleet(samples: &mut Samples<'_>, node: &Node, state: &State) {
    let mut agents: BTreeMap<(&str, &'static str), u64> = BTreeMap::new();
    for region in state.regions.keys() {
        for presence in PRESENCES {
            agents.insert((region.as_str(), presence), 0);
        }
    }
    for agent in state.agents.values() {
        let presence = match agent.presence {
            Presence::Connected { .. } => PRESENCES[0],
            Presence::Disconnected { .. } => PRESENCES[1],
            Presence::Unknown => PRESENCES[2],
        };
        *agents.entry((agent.region.as_str(), presence)).or_default() += 1;
    }
    let agents = agents.into_iter().map(|((region, presence), count)| {
        let labels = [Cow::Owned(region.to_owned()), presence.into()];
        (labels, Value::Whole(count))
    });
    samples.put_all(&all::AGENTS, agents);
    samples.put(&all::AGENT_SESSIONS, node.registry.len());
    samples.put(&all::WAVES_SEALED, state.wave_number);
    let open: u64 = state
        .open_orders
        .values()
        .map(|open| u64::from(*open))
        .sum();
    samples.put(&all::ORDERS_OPEN, open);
    if let Some(clock) = &state.clock {
        let age_ms = node.clock.now().millis_since(clock.at);
        samples.put(&all::SIGNED_CLOCK_AGE_SECONDS, seconds(age_ms));
    }
}

fn of_deployments(samples: &mut Samples<'_>, state: &State, now: Timestamp) {
    let mut statuses: BTreeMap<&'static str, u64> = Status::ALL
        .iter()
        .map(|status| (status.as_str(), 0))
        .collect();
    let mut phases: BTreeMap<&'static str, u64> =
        Phase::ALL.iter().map(|phase| (phase.as_str(), 0)).collect();
    for deployment in state.deployments.values() {
        *statuses.entry(deployment.status.as_str()).or_default() += 1;
        if deployment.status != Status::Destroyed {
            *phases
                .entry(deployment.license.phase(now).as_str())
                .or_default() += 1;
        }
    }
    samples.put(&all::TENANTS, state.tenants.size());
    samples.put_all(&all::DEPLOYMENTS, by_word(statuses));
    samples.put_all(&all::LICENSES, by_word(phases));
}

fn of_backups(samples: &mut Samples<'_>, node: &Node, state: &State) {
    let schedule = node.backup.as_ref().and_then(|one| one.schedule.as_ref());
    samples.put(&all::BACKUP_SCHEDULED, schedule.is_some());
    let (good, failed) = (state.backups.good.as_ref(), state.backups.failed.as_ref());
    samples.put(
        &all::BACKUP_FAILURES,
        failed.map_or(0, |one| u64::from(one.in_a_row)),
    );
    samples.put(&all::BACKUP_BYTES, good.map_or(0, |one| one.bytes));
    samples.put(
        &all::BACKUP_SECONDS,
        seconds(good.map_or(0, |one| one.took_ms)),
    );
    let began = state.genesis.as_ref().map(|genesis| genesis.created_at);
    if let Some(since) = good.map(|one| one.at).or(began) {
        let age_ms = node.clock.now().millis_since(since);
        samples.put(&all::BACKUP_AGE_SECONDS, seconds(age_ms));
    }
}

fn by_word(
    counts: BTreeMap<&'static str, u64>,
) -> impl Iterator<Item = ([Cow<'static, str>; 1], Value)> {
    counts
        .into_iter()
        .map(|(word, count)| ([word.into()], Value::Whole(count)))
}

/// Bytes of the files below a folder; a file that goes away meanwhile counts nothing.
fn bytes_of(folder: &Path, depth: usize) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() && depth > 0 => bytes_of(&entry.path(), depth - 1),
        Ok(found) if found.is_file() => found.len(),
        _ => 0,
    });
    sizes.sum()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ages in milliseconds are exact for 285,000 years"
)]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
