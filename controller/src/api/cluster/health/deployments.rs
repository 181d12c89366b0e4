//! How the deployments are, in numbers, and which of them wait too long or are not as they should be.

use std::collections::BTreeMap;

use dotmac_domain::{
    State,
    tenancy::{Deployment, Status, Waiting},
};
use dotmac_protocol::{ids::DeploymentId, time::Timestamp};
use serde_json::{Value, json};

use super::{Grade, Reason, WAIT_MAX_MS, names};

pub(super) fn of_deployments(state: &State, now: Timestamp, reasons: &mut Vec<Reason>) {
    for status in [Status::Failed, Status::Degraded] {
        let such = || {
            state
                .deployments
                .iter()
                .filter(move |(_, one)| one.status == status)
        };
        let count = such().count();
        if count == 0 {
            continue;
        }
        let since = such().map(|(_, one)| one.waiting.as_ref().map_or(one.updated_at, |w| w.since));
        reasons.push(Reason {
            grade: Grade::Degraded,
            about: "deployments",
            reason: format!("{count} deployments are {}", status.as_str()),
            since: since.min(),
            who: format!(
                "see `dotmac deployments show`: {}",
                names(such().map(|(id, _)| id))
            ),
        });
    }
    if let Some((id, _, waiting)) = oldest_waiting(state)
        && now.millis_since(waiting.since) > WAIT_MAX_MS
    {
        reasons.push(Reason {
            grade: Grade::Degraded,
            about: "waiting",
            reason: format!("{id} waits: {}", waiting.reason),
            since: Some(waiting.since),
            who: waiting.who.clone(),
        });
    }
}

pub(super) fn deployments(state: &State) -> Value {
    let mut by_status: BTreeMap<&str, usize> = BTreeMap::new();
    for one in state.deployments.values() {
        *by_status.entry(one.status.as_str()).or_default() += 1;
    }
    json!({"total": state.deployments.size(), "by_status": by_status})
}

/// What waits longest, grace times apart: those are meant to be waited for.
pub(super) fn oldest_waiting(state: &State) -> Option<(&DeploymentId, &Deployment, &Waiting)> {
    let waiting = state
        .deployments
        .iter()
        .filter(|(_, one)| one.delete_after.is_none() && one.status != Status::Destroyed)
        .filter_map(|(id, one)| Some((id, one, one.waiting.as_ref()?)));
    waiting.min_by_key(|(_, _, waiting)| waiting.since)
}
