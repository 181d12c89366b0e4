//! The cluster as it sees itself: leader, majority, who signs, and the agents.

use serde_json::Value;

use super::check::Check;
use crate::cli::{
    output::duration,
    view::{items, millis, text},
};

/// Milliseconds before a certificate ends in which its renewal should have happened.
const CERTIFICATE_ENDS_MS: u64 = 3_600_000;
/// Names in one line at most.
const NAMES_MAX: usize = 10;

/// Leader, majority and signers, from `cluster/status`.
pub(super) fn quorum(status: &Value) -> Vec<Check> {
    let nodes = items(status, "nodes");
    let mut checks = Vec::new();
    checks.push(match text(status, "leader") {
        none if none.is_empty() => Check::fail(
            "leader",
            "there is none",
            "a majority of the controllers must run and reach each other; an election takes a second or two",
        ),
        leader => Check::ok("leader", format!("controller {leader}, term {}", text(status, "term"))),
    });
    let named = |is: &dyn Fn(&Value) -> bool| {
        nodes
            .iter()
            .filter(|node| is(node))
            .map(|node| text(node, "id"))
            .collect::<Vec<_>>()
    };
    let away = named(&|node| text(node, "state") == "unreachable");
    let (all, here) = (nodes.len(), nodes.len() - away.len());
    let majority = all / 2 + 1;
    let away_named = format!(
        "{here} of {all} controllers are reachable; away: {}",
        away.join(", ")
    );
    checks.push(match here {
        0 => Check::fail(
            "majority",
            "no controller is known to be reachable",
            "start them",
        ),
        here if here == all => {
            Check::ok("majority", format!("all {all} controllers are reachable"))
        }
        here if here > majority => Check::warn("majority", away_named, "start them"),
        here if here == majority => Check::warn(
            "majority",
            format!("{away_named}; one more, and nothing can change"),
            "start them",
        ),
        _ => Check::fail("majority", away_named, "start them"),
    });
    let signs = |node: &Value| text(node, "state") != "unreachable" && node["signs"] != false;
    let silent = named(&|node| signs(node) && node["signing"] == false);
    let reasons: Vec<String> = nodes
        .iter()
        .flat_map(|node| items(node, "refusals").iter().map(move |why| (node, why)))
        .take(NAMES_MAX)
        .map(|(node, why)| {
            format!(
                "{}: {}",
                text(node, "id"),
                why.as_str().map_or_else(|| why.to_string(), str::to_owned)
            )
        })
        .collect();
    checks.push(if here < majority {
        let detail = format!("only {here} of {all} can be asked to sign, {majority} are needed");
        Check::fail("signers", detail, "see majority")
    } else if silent.is_empty() && reasons.is_empty() {
        Check::ok("signers", "every reachable controller signs")
    } else {
        let detail = format!(
            "controllers {} refuse to sign: {}",
            silent.join(", "),
            reasons.join("; ")
        );
        Check::fail(
            "signers",
            detail,
            "find out who is right before anything else: dotmac audit verify",
        )
    });
    checks
}

/// The agents, from their list.
pub(super) fn agents(agents: &[Value], now_ms: u64) -> Vec<Check> {
    if agents.is_empty() {
        let mend = "start one: dotmac agents --help";
        return vec![Check::warn(
            "agents",
            "there are none, so nothing can run",
            mend,
        )];
    }
    let named = |is: &dyn Fn(&Value) -> bool| {
        let names = agents
            .iter()
            .filter(|agent| is(agent))
            .map(|agent| text(agent, "id"));
        names.collect::<Vec<_>>()
    };
    let is_revoked = |agent: &Value| text(agent, "status") == "revoked";
    let away = named(&|agent| text(agent, "status") != "connected" && !is_revoked(agent));
    let ending = named(&|agent| {
        let left = millis(&agent["certificate_not_after"]).map(|end| end.saturating_sub(now_ms));
        !is_revoked(agent) && left.is_some_and(|left| left < CERTIFICATE_ENDS_MS)
    });
    let connected = agents
        .iter()
        .filter(|agent| text(agent, "status") == "connected")
        .count();
    let mut checks = vec![match (connected, away.as_slice()) {
        (_, []) => Check::ok("agents", format!("all {connected} are connected")),
        (0, _) => Check::fail(
            "agents",
            format!("none of {} is connected", away.len()),
            "start them, or mend the network",
        ),
        (_, away) => Check::warn(
            "agents",
            format!("not connected: {}", short(away)),
            "dotmac explain AGENT",
        ),
    }];
    if !ending.is_empty() {
        let detail = format!(
            "ends within {}: {}",
            duration(CERTIFICATE_ENDS_MS),
            short(&ending)
        );
        checks.push(Check::warn(
            "agents' certificates",
            detail,
            "agents renew by themselves: see their logs",
        ));
    }
    checks
}

fn short(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMES_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{agents, quorum};
    use crate::cli::doctor::check::{Verdict, worst};

    fn status(states: [&str; 3]) -> Value {
        let nodes: Vec<Value> = (1..)
            .zip(states)
            .map(|(id, state)| json!({"id": id, "state": state, "signing": state != "unreachable", "refusals": []}))
            .collect();
        json!({"leader": 1, "term": 3, "nodes": nodes})
    }

    #[test]
    fn a_controller_less_is_a_warning_and_two_less_a_failure() {
        assert_eq!(
            worst(&quorum(&status(["leader", "follower", "follower"]))),
            Verdict::Ok
        );
        let checks = quorum(&status(["leader", "follower", "unreachable"]));
        assert_eq!(worst(&checks), Verdict::Warn);
        assert!(
            checks[1]
                .detail
                .contains("one more, and nothing can change"),
            "{checks:?}"
        );
        assert_eq!(
            worst(&quorum(&status(["leader", "unreachable", "unreachable"]))),
            Verdict::Fail
        );
        for nobody in [
            status(["leader", "unreachable", "unreachable"]),
            Value::Null,
        ] {
            let checks = quorum(&nobody);
            let bad = |name: &str| {
                let check = checks.iter().find(|one| one.name == name).unwrap();
                check.verdict == Verdict::Fail
            };
            assert!(
                ["majority", "signers"].iter().all(|name| bad(name)),
                "{checks:?}"
            );
        }
    }

    #[test]
    fn a_controller_that_refuses_to_sign_is_a_failure_with_its_reason() {
        let mut refusing = status(["leader", "follower", "follower"]);
        refusing["nodes"][1]["signing"] = false.into();
        refusing["nodes"][1]["refusals"] = json!(["wave 7 is forged"]);
        let checks = quorum(&refusing);
        assert_eq!(worst(&checks), Verdict::Fail);
        assert!(
            checks[2].detail.contains("2: wave 7 is forged"),
            "{checks:?}"
        );
    }

    #[test]
    fn agents_that_are_away_are_named() {
        let agent = |id: &str, status: &str, end: u64| json!({"id": id, "status": status, "certificate_not_after": end});
        let verdict = |list: &[Value]| worst(&agents(list, 0));
        assert_eq!(verdict(&[]), Verdict::Warn);
        assert_eq!(verdict(&[agent("a", "connected", 9_000_000)]), Verdict::Ok);
        assert_eq!(verdict(&[agent("a", "connected", 9)]), Verdict::Warn);
        assert_eq!(
            verdict(&[agent("a", "connected", 9_000_000), agent("b", "revoked", 0)]),
            Verdict::Ok
        );
        assert_eq!(
            verdict(&[agent("a", "disconnected", 9_000_000)]),
            Verdict::Fail
        );
        let away = agents(
            &[
                agent("a", "connected", 9_000_000),
                agent("b", "disconnected", 9_000_000),
            ],
            0,
        );
        assert!(away[0].detail.contains("not connected: b"), "{away:?}");
    }
}
