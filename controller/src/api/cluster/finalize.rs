//! Which rules are in force, who could follow newer ones, and the step that cannot be taken back: `finalize`. It is
//! refused here, before anything is in the log, until every voter runs a program that can follow it.

use std::collections::BTreeMap;

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use dotmac_domain::{
    Command, State,
    access::Permission,
    rules::{RULES_OLDEST, RULES_VERSION},
};
use dotmac_protocol::ids::NodeId;
use serde_json::{Value, json};

use super::health::Found;
use crate::{
    api::{
        answer::time_or_null,
        change::{Change, Entity},
        operation::{Operation, Scope},
        problem::{Problem, UNAVAILABLE, WRONG_STATE},
        schema,
    },
    peers::Description,
};

/// What a voter of the cluster can follow, as far as it told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voter<'d> {
    /// It does not answer.
    Away,
    /// It answers, and its program is older than the question.
    Older,
    /// It told.
    Told(&'d Description),
}

/// What can be asked.
pub(super) fn operation() -> Operation {
    let about = "Puts the newest rules that every controller follows into force, for good: from then on an older program \
                 refuses to start on this data. Refused until every controller runs a program that can follow them.";
    Operation::change(
        Method::POST,
        "cluster.finalize",
        "/api/v1/cluster/finalize",
        finalize,
    )
    .says("End the time in which an upgrade can be taken back", about)
    .needs(&[Permission::ClusterWrite], Scope::Platform)
    .problems(&[&WRONG_STATE])
    .answers(
        StatusCode::OK,
        "The rules in force",
        schema::of("ClusterRules"),
    )
}

pub(super) fn rules_schema() -> Value {
    schema::object(
        &[
            ("rules", schema::count()),
            ("since", schema::or_null(schema::time())),
        ],
        &[],
    )
}

async fn finalize(change: Change) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::ClusterWrite, None)?;
    change.expect_no_fields()?;
    let found = super::find(&change.node).await;
    let to = agreed(&change.state, &found)?;
    let command = Command::RaiseRules { to };
    let view = |state: &State, _: Option<&_>| {
        Some(Entity {
            body: in_force(state),
            revision: None,
            location: None,
        })
    };
    change.carry_out(command, StatusCode::OK, view).await
}

/// The rules in force, and since when.
pub(super) fn in_force(state: &State) -> Value {
    let since = state.raised.get(&state.rules).map(|raised| raised.at);
    json!({"rules": state.rules, "since": time_or_null(since)})
}

/// The newest rules that everybody can follow; those in force when nobody's program knows newer ones.
fn agreed(state: &State, found: &Found) -> Result<u16, Problem> {
    if state.rules >= RULES_VERSION {
        return Ok(state.rules);
    }
    let voters = voters(found);
    let away: Vec<&NodeId> = voters
        .iter()
        .filter_map(|(id, voter)| (*voter == Voter::Away).then_some(id))
        .collect();
    if !away.is_empty() {
        let names = list(away.into_iter());
        let detail =
            format!("{names} cannot be asked which rules it follows: `dotmac cluster status`");
        return Err(Problem::new(&UNAVAILABLE, detail));
    }
    let behind: Vec<String> = voters
        .iter()
        .filter(|(_, voter)| newest(**voter) < RULES_VERSION)
        .map(|(id, voter)| behind(*id, *voter))
        .collect();
    if behind.is_empty() {
        return Ok(RULES_VERSION);
    }
    let detail = format!(
        "version {RULES_VERSION} of the rules waits for {}: upgrade it first",
        behind.join(" and ")
    );
    Err(Problem::new(&WRONG_STATE, detail))
}

/// What is between the cluster and its newest rules, for people; nothing when they are in force.
pub(super) fn next(state: &State, found: &Found) -> Option<String> {
    let voters = voters(found);
    let newest_known = voters.values().map(|voter| newest(*voter)).max()?;
    if newest_known <= state.rules {
        return None;
    }
    let lacking: Vec<String> = voters
        .iter()
        .filter(|(_, voter)| newest(**voter) < newest_known)
        .map(|(id, voter)| behind(*id, *voter))
        .collect();
    Some(if lacking.is_empty() {
        format!(
            "every controller follows version {newest_known}: `dotmac cluster finalize` puts it into force, for good"
        )
    } else {
        format!("version {newest_known} waits for {}", lacking.join(" and "))
    })
}

fn voters(found: &Found) -> BTreeMap<NodeId, Voter<'_>> {
    let told = |id: &NodeId| match (found.statuses.get(id), found.descriptions.get(id)) {
        (_, Some(description)) => Voter::Told(description),
        (Some(_), None) => Voter::Older,
        (None, None) => Voter::Away,
    };
    found.controllers.iter().map(|id| (*id, told(id))).collect()
}

/// The newest rules that it follows. Programs that cannot say it follow the first.
fn newest(voter: Voter<'_>) -> u16 {
    match voter {
        Voter::Away | Voter::Older => RULES_OLDEST,
        Voter::Told(description) => description.rules_newest,
    }
}

fn behind(id: NodeId, voter: Voter<'_>) -> String {
    match voter {
        Voter::Away => format!("controller {id}, which cannot be reached"),
        Voter::Older => {
            format!("controller {id}, whose program follows version {RULES_OLDEST} only")
        }
        Voter::Told(told) => format!(
            "controller {id}, whose program {} follows version {} only",
            told.software, told.rules_newest
        ),
    }
}

fn list<'i>(ids: impl Iterator<Item = &'i NodeId>) -> String {
    let names: Vec<String> = ids.map(|id| format!("controller {id}")).collect();
    names.join(" and ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dotmac_domain::{State, rules::RULES_VERSION};
    use dotmac_protocol::{ids::NodeId, time::Timestamp};

    use super::{agreed, next};
    use crate::{
        api::cluster::health::Found,
        peers::{Description, NodeStatus},
    };

    fn described(node: u64, rules_newest: u16) -> Description {
        Description {
            node: NodeId(node),
            software: "0.9.0".into(),
            rules_oldest: 1,
            rules_newest,
            slow_disk: None,
        }
    }

    /// Controllers 1 to 3: those that answer, and what those of them that can say it follow.
    fn found(answering: &[u64], told: &[(u64, u16)]) -> Found {
        let status = |node: &u64| NodeStatus {
            node: NodeId(*node),
            pid: 1,
            applied: 1,
            term: 1,
            leader: None,
            now: Timestamp(1),
            agents: 0,
            refusals: vec![],
            storage: None,
        };
        let statuses = answering.iter().map(status).map(|one| (one.node, one));
        let descriptions = told.iter().map(|(node, newest)| described(*node, *newest));
        Found {
            controllers: (1..=3).map(NodeId).collect(),
            signers: (1..=3).map(NodeId).collect(),
            statuses: statuses.collect(),
            descriptions: descriptions
                .map(|one| (one.node, one))
                .collect::<BTreeMap<_, _>>(),
            threshold: 2,
            now: Timestamp(1),
        }
    }

    #[test]
    fn rules_are_raised_only_when_every_voter_follows_them_and_who_does_not_is_named() {
        let state = State {
            rules: 1,
            ..State::default()
        };
        let all = found(&[1, 2, 3], &[(1, 2), (2, 2), (3, 2)]);
        assert_eq!(agreed(&state, &all).ok(), Some(RULES_VERSION));
        let said = next(&state, &all).unwrap();
        assert!(said.contains("`dotmac cluster finalize`"), "{said}");

        let older = found(&[1, 2, 3], &[(1, 2), (3, 2)]);
        let refused = agreed(&state, &older).unwrap_err();
        let told = "version 2 of the rules waits for controller 2, whose program follows version 1 only: upgrade it first";
        assert!(format!("{refused:?}").contains(told), "{refused:?}");
        let away = found(&[1, 3], &[(1, 2), (3, 2)]);
        assert!(agreed(&state, &away).is_err());
        let said = next(&state, &away).unwrap();
        assert_eq!(
            said,
            "version 2 waits for controller 2, which cannot be reached"
        );

        let raised = State {
            rules: RULES_VERSION,
            ..State::default()
        };
        assert_eq!(agreed(&raised, &away).ok(), Some(RULES_VERSION));
        assert_eq!(next(&raised, &all), None);
    }
}
