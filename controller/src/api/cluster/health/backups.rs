//! What is not well about backups, and what a restore from one has left to look after.

use std::collections::BTreeSet;

use dotmac_domain::State;
use dotmac_protocol::ids::AgentId;

use super::{Grade, Reason, names};

pub(super) fn of_recovery(state: &State, reasons: &mut Vec<Reason>) {
    let Some(recovery) = &state.recovery else {
        return;
    };
    let mut degraded = |reason: String, who: String| {
        reasons.push(Reason {
            grade: Grade::Degraded,
            about: "recovery",
            reason,
            since: Some(recovery.restored_at),
            who,
        });
    };
    let awaited = recovery.awaited.size();
    if awaited > 0 {
        degraded(
            format!("{awaited} agents have not told all that they did after the restored backup"),
            format!("whoever runs {}", names(recovery.awaited.keys())),
        );
    }
    let quarantined = recovery.quarantined.size();
    if quarantined > 0 {
        let agents: BTreeSet<&AgentId> = recovery
            .quarantined
            .keys()
            .map(|(agent, _)| agent)
            .collect();
        degraded(
            format!("{quarantined} units run that the restored backup knows otherwise or not"),
            format!(
                "an operator: `dotmac agents show` of {}",
                names(agents.into_iter())
            ),
        );
    }
}

pub(super) fn of_backups(state: &State, reasons: &mut Vec<Reason>) {
    let Some(failed) = &state.backups.failed else {
        return;
    };
    reasons.push(Reason {
        grade: Grade::Degraded,
        about: "backup",
        reason: format!(
            "{} backups in a row failed: {}",
            failed.in_a_row, failed.reason
        ),
        since: state
            .backups
            .good
            .as_ref()
            .map(|good| good.at)
            .or(Some(failed.at)),
        who: "an operator: `dotmac backup status`, then the backup target".to_owned(),
    });
}
