//! Whether the whole is well, and if not: what is the matter, since when, and who can change it. Asks every controller,
//! and answers without a leader, too. It decides nothing: what follows from a reason is for people.

use std::collections::{BTreeMap, BTreeSet};

use dotmac_domain::{
    State,
    fleet::{Agent, Presence},
};
use dotmac_protocol::{
    ids::{AgentId, NodeId, RegionId},
    time::Timestamp,
};
use serde_json::{Value, json};

use crate::{
    api::answer::time,
    peers::{Description, NodeStatus},
};

mod backups;
mod deployments;
mod noticed;

pub(crate) use noticed::Noticed;

use deployments::{deployments, of_deployments, oldest_waiting};

/// Milliseconds that a controller's clock may be off the median of all.
const SKEW_MAX_MS: u64 = 2_000;
/// Milliseconds that something may wait before it is a reason.
const WAIT_MAX_MS: u64 = 5 * 60_000;
/// Names that a reason lists at most.
const NAMES_MAX: usize = 5;

/// What is known of the controllers at one moment.
pub(super) struct Found {
    /// All that vote.
    pub(super) controllers: Vec<NodeId>,
    /// Those whose keys count.
    pub(super) signers: BTreeSet<NodeId>,
    /// Those that answered.
    pub(super) statuses: BTreeMap<NodeId, NodeStatus>,
    /// What those say of their programs and disks that can say it.
    pub(super) descriptions: BTreeMap<NodeId, Description>,
    /// Signatures that an order needs.
    pub(super) threshold: u16,
    /// The clock of whoever asked them.
    pub(super) now: Timestamp,
}

/// How bad a reason is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    /// Everything is taken and done, not everything is as it should be.
    Degraded,
    /// Something is not taken or not done any more.
    Unhealthy,
}

/// Why it is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    grade: Grade,
    /// What it is about; stable.
    about: &'static str,
    reason: String,
    /// Since when, where the State knows it.
    since: Option<Timestamp>,
    who: String,
}

impl Found {
    fn needed(&self) -> usize {
        self.controllers.len() / 2 + 1
    }

    /// The leader by the word of whoever is in the highest term.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let knows = self.statuses.values().filter(|one| one.leader.is_some());
        knows.max_by_key(|one| one.term)?.leader
    }

    /// The leader when its disk takes no writes: then none succeeds on any controller.
    fn full_leader(&self) -> Option<NodeId> {
        let leader = self.leader()?;
        let is_full = self.statuses.get(&leader)?.storage.is_some();
        is_full.then_some(leader)
    }

    /// The highest term that anybody is in.
    pub(super) fn term(&self) -> Option<u64> {
        self.statuses.values().map(|one| one.term).max()
    }

    /// How far the one that applied most has come.
    pub(super) fn newest(&self) -> Option<u64> {
        self.statuses.values().map(|one| one.applied).max()
    }

    /// Those that sign what they are asked to.
    fn signing(&self) -> usize {
        let signers = self.statuses.values();
        let signers = signers.filter(|one| self.signers.contains(&one.node));
        signers.filter(|one| one.refusals.is_empty()).count()
    }

    /// How many of those that vote answered.
    fn voting(&self) -> usize {
        let answered = self.controllers.iter();
        answered
            .filter(|node| self.statuses.contains_key(node))
            .count()
    }

    /// How far each clock is off the median.
    fn skews(&self) -> BTreeMap<NodeId, u64> {
        let mut clocks: Vec<u64> = self.statuses.values().map(|one| one.now.0).collect();
        clocks.sort_unstable();
        let median = clocks.get(clocks.len() / 2).copied().unwrap_or_default();
        let off = |one: &NodeStatus| one.now.0.abs_diff(median);
        self.statuses
            .iter()
            .map(|(id, one)| (*id, off(one)))
            .collect()
    }
}

/// Everything that is not as it should be, the worst first.
pub(super) fn reasons(state: &State, found: &Found) -> Vec<Reason> {
    let mut reasons = Vec::new();
    of_controllers(found, &mut reasons);
    of_signing(found, &mut reasons);
    of_disks_and_clocks(found, &mut reasons);
    of_agents(state, &mut reasons);
    of_deployments(state, found.now, &mut reasons);
    backups::of_backups(state, &mut reasons);
    backups::of_recovery(state, &mut reasons);
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.grade));
    reasons
}

/// The answer.
pub(super) fn shown(state: &State, found: &Found, noticed: &Noticed, answered_by: NodeId) -> Value {
    let reasons = reasons(state, found);
    let status = match reasons.iter().map(|reason| reason.grade).max() {
        None => "healthy",
        Some(grade) => grade.as_str(),
    };
    let since = noticed.since(
        reasons.iter().map(|reason| reason.reason.as_str()),
        found.now,
    );
    let reasons: Vec<Value> = reasons
        .iter()
        .map(|one| {
            let since = one.since.or_else(|| since.get(&one.reason).copied());
            json!({
                "severity": one.grade.as_str(), "about": one.about, "reason": one.reason,
                "since": time(since.unwrap_or(found.now)), "who": one.who,
            })
        })
        .collect();
    let (skews, full_leader) = (found.skews(), found.full_leader());
    let takes_writes = |one: &NodeStatus| full_leader.is_none() && one.storage.is_none();
    let newest = found.newest();
    let controllers: Vec<Value> = found
        .controllers
        .iter()
        .map(|id| {
            let status = found.statuses.get(id);
            json!({
                "id": id, "reachable": status.is_some(),
                "signing": found.signers.contains(id) && status.is_some_and(|one| one.refusals.is_empty()),
                "takes_writes": status.is_some_and(takes_writes),
                "behind": status.and_then(|one| Some(newest?.saturating_sub(one.applied))),
                "clock_skew_ms": skews.get(id),
            })
        })
        .collect();
    json!({
        "status": status, "reasons": reasons, "answered_by": answered_by, "checked_at": time(found.now),
        "leader": found.leader(), "term": found.term(),
        "quorum": {
            "controllers": found.controllers.len(), "reachable": found.voting(), "needed": found.needed(),
        },
        "signing": {"able": found.signing(), "needed": found.threshold},
        "controllers": controllers,
        "agents": agents(state),
        "deployments": deployments(state),
        "oldest_waiting": oldest_waiting(state).map(|(id, _, waiting)| json!({
            "deployment": id, "reason": waiting.reason, "since": time(waiting.since), "who": waiting.who,
        })),
    })
}

impl Grade {
    fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }

    fn unhealthy_if(is_unhealthy: bool) -> Self {
        if is_unhealthy {
            Self::Unhealthy
        } else {
            Self::Degraded
        }
    }
}

fn of_controllers(found: &Found, reasons: &mut Vec<Reason>) {
    let away = found
        .controllers
        .iter()
        .filter(|id| !found.statuses.contains_key(id));
    let is_lost = found.voting() < found.needed();
    for id in away {
        reasons.push(Reason {
            grade: Grade::unhealthy_if(is_lost),
            about: "quorum",
            reason: format!("controller {id} cannot be reached"),
            since: None,
            who: format!("whoever runs controller {id}: `dotmac cluster status`"),
        });
    }
    if found.leader().is_none() {
        reasons.push(Reason {
            grade: Grade::Unhealthy,
            about: "leader",
            reason: "no controller leads".to_owned(),
            since: None,
            who: format!(
                "the controllers, as soon as {} of {} reach each other",
                found.needed(),
                found.controllers.len()
            ),
        });
    }
}

fn of_signing(found: &Found, reasons: &mut Vec<Reason>) {
    let is_too_few = found.signing() < usize::from(found.threshold);
    for (id, status) in &found.statuses {
        let Some(refusal) = status.refusals.first() else {
            continue;
        };
        reasons.push(Reason {
            grade: Grade::unhealthy_if(is_too_few),
            about: "signing",
            reason: format!("controller {id} refuses to sign: {refusal}"),
            since: None,
            who: "an operator: see `dotmac audit`".to_owned(),
        });
    }
    if is_too_few {
        let (able, needed) = (found.signing(), found.threshold);
        reasons.push(Reason {
            grade: Grade::Unhealthy,
            about: "signing",
            reason: format!("{able} of the {needed} controllers that an order needs can sign"),
            since: None,
            who: "whoever runs the controllers: `dotmac cluster status`".to_owned(),
        });
    }
}

fn of_disks_and_clocks(found: &Found, reasons: &mut Vec<Reason>) {
    let refusing = |one: &&NodeStatus| one.storage.is_some();
    let taking = found.statuses.len() - found.statuses.values().filter(refusing).count();
    for (id, status) in &found.statuses {
        let Some(refusal) = &status.storage else {
            continue;
        };
        let leads = found.full_leader() == Some(*id);
        let (so, or) = match leads {
            true => (
                "; it leads, so no write succeeds anywhere",
                ", or stop it so that another one leads",
            ),
            false => ("", ""),
        };
        reasons.push(Reason {
            grade: Grade::unhealthy_if(leads || taking < found.needed()),
            about: "storage",
            reason: format!("controller {id} takes no writes: {refusal}{so}"),
            since: None,
            who: format!("whoever runs controller {id}: free its disk{or}"),
        });
    }
    let slow = |one: &Description| Some((one.node, one.slow_disk.clone()?));
    for (id, why) in found.descriptions.values().filter_map(slow) {
        reasons.push(Reason {
            grade: Grade::Degraded,
            about: "storage",
            reason: format!("controller {id} is slow: {why}"),
            since: None,
            who: format!("whoever runs controller {id}: give it a faster disk"),
        });
    }
    for (id, skew_ms) in found.skews() {
        if skew_ms > SKEW_MAX_MS {
            // Without the digits that change from one look to the next.
            let skew_s = skew_ms / 1_000;
            reasons.push(Reason {
                grade: Grade::Degraded,
                about: "clock",
                reason: format!("the clock of controller {id} is {skew_s} s off the others'"),
                since: None,
                who: format!("whoever runs controller {id}: set its clock"),
            });
        }
    }
}

/// Agents by region: how many are connected, how many there are, and which are not.
type Regions<'s> = BTreeMap<&'s RegionId, (usize, Vec<(&'s AgentId, &'s Agent)>)>;

fn regions(state: &State) -> Regions<'_> {
    let mut regions = Regions::new();
    for (id, agent) in &state.agents {
        let (connected, away) = regions.entry(&agent.region).or_default();
        match agent.presence {
            Presence::Connected { .. } => *connected += 1,
            Presence::Unknown | Presence::Disconnected { .. } => away.push((id, agent)),
        }
    }
    regions
}

fn of_agents(state: &State, reasons: &mut Vec<Reason>) {
    for (region, (connected, away)) in regions(state) {
        if away.is_empty() {
            continue;
        }
        let since = away.iter().map(|(_, agent)| match agent.presence {
            Presence::Disconnected { since } => since,
            Presence::Unknown | Presence::Connected { .. } => agent.enrolled_at,
        });
        let total = connected + away.len();
        reasons.push(Reason {
            grade: Grade::Degraded,
            about: "agents",
            reason: format!("{connected} of the {total} agents of region {region} are connected"),
            since: since.min(),
            who: format!("whoever runs {}", names(away.iter().map(|(id, _)| *id))),
        });
    }
}

fn agents(state: &State) -> Value {
    let regions = regions(state);
    let total: usize = regions.values().map(|(here, away)| here + away.len()).sum();
    let connected: usize = regions.values().map(|(here, _)| here).sum();
    let items: Vec<Value> = regions
        .iter()
        .map(|(region, (here, away))| {
            json!({"region": region, "connected": here, "total": here + away.len()})
        })
        .collect();
    json!({"connected": connected, "total": total, "regions": items})
}

fn names<T: ToString>(all: impl Iterator<Item = T>) -> String {
    let mut names: Vec<String> = all.take(NAMES_MAX + 1).map(|one| one.to_string()).collect();
    if names.len() > NAMES_MAX {
        names.truncate(NAMES_MAX);
        names.push("others".to_owned());
    }
    names.join(", ")
}

#[cfg(test)]
mod tests;
