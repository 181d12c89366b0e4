//! `dotmac cluster health`: whether the whole is well, and if not what is the matter, since when and who can change it. The
//! API judges; this shows it, and its exit code tells scripts.

use serde_json::Value;

use crate::cli::{failure::Failure, find::Context, view};

/// Where the whole tells how it is.
const PATH: &str = "/api/v1/tenant-orchestration/cluster/health";
/// The columns, and the field that each shows.
const COLUMNS: [(&str, &str); 6] = [
    ("id", "id"),
    ("reachable", "reachable"),
    ("signing", "signing"),
    ("takes writes", "takes_writes"),
    ("behind", "behind"),
    ("clock off (ms)", "clock_skew_ms"),
];

/// Shows how it is.
///
/// # Errors
/// [`Failure::Ended`] when not all is as it should be.
pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let health: Value = context.client()?.get(PATH).await?;
    let (word, end) = judged(&health)?;
    if context.output.is_data() {
        context.output.data(&health)?;
    } else {
        show(context, &health, word)?;
    }
    end
}

/// How it is, as a word and as the end of this command.
fn judged(health: &Value) -> Result<(&'static str, Result<(), Failure>), Failure> {
    match health["status"].as_str() {
        Some("healthy") => Ok(("ok", Ok(()))),
        Some("degraded") => Ok(("warn", Err(Failure::Ended(9)))),
        Some("unhealthy") => Ok(("fail", Err(Failure::Ended(1)))),
        _ => Err(Failure::foreign(PATH, "it does not say how it is")),
    }
}

fn show(context: &Context, health: &Value, word: &str) -> Result<(), Failure> {
    let output = context.output;
    output.verdict(
        word,
        &format!("the cluster is {}", view::text(health, "status")),
    )?;
    for line in above(health) {
        output.line(&line)?;
    }
    for reason in view::items(health, "reasons") {
        for line in of_reason(reason) {
            output.line(&line)?;
        }
    }
    let titles = COLUMNS.map(|(title, _)| title);
    let row = |one: &Value| COLUMNS.map(|(_, field)| view::text(one, field)).to_vec();
    let rows = view::items(health, "controllers").iter().map(row);
    output.table(&titles, rows.collect(), "no controllers")
}

/// Who leads, and how many of those that count there are.
fn above(health: &Value) -> Vec<String> {
    let leader = match view::text(health, "leader") {
        none if none.is_empty() => "none".to_owned(),
        leader => leader,
    };
    let of = |whole: &str, part: &str| view::text(&health[whole], part);
    vec![
        format!("leader {leader}, term {}", view::text(health, "term")),
        format!(
            "{} of {} controllers that vote answer, {} have to; {} can sign, {} have to",
            of("quorum", "reachable"),
            of("quorum", "controllers"),
            of("quorum", "needed"),
            of("signing", "able"),
            of("signing", "needed"),
        ),
        format!(
            "{} of {} agents are connected, {} deployments",
            of("agents", "connected"),
            of("agents", "total"),
            of("deployments", "total"),
        ),
    ]
}

/// What is the matter, and below it since when and who can change it.
fn of_reason(reason: &Value) -> [String; 2] {
    let text = |name: &str| view::text(reason, name);
    let (severity, about) = (text("severity"), text("about"));
    [
        format!("{severity}: {about}: {}", text("reason")),
        format!(
            "    since {}; who: {}",
            view::time(reason, "since"),
            text("who")
        ),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{above, judged, of_reason};
    use crate::cli::failure::Failure;

    #[test]
    fn the_exit_code_tells_healthy_from_degraded_and_unhealthy() {
        let end = |status: &str| judged(&json!({"status": status})).map(|(_, end)| end);
        assert!(matches!(end("healthy"), Ok(Ok(()))));
        assert!(matches!(end("degraded"), Ok(Err(Failure::Ended(9)))));
        assert!(matches!(end("unhealthy"), Ok(Err(Failure::Ended(1)))));
        assert!(end("").is_err(), "a foreign answer");
    }

    #[test]
    fn who_leads_what_is_missing_and_who_can_change_it_are_shown() {
        let health = json!({
            "leader": null, "term": 7, "quorum": {"controllers": 3, "reachable": 1, "needed": 2},
            "signing": {"able": 1, "needed": 2}, "agents": {"connected": 4, "total": 5}, "deployments": {"total": 2},
        });
        let expected = [
            "leader none, term 7",
            "1 of 3 controllers that vote answer, 2 have to; 1 can sign, 2 have to",
            "4 of 5 agents are connected, 2 deployments",
        ];
        assert_eq!(above(&health), expected);
        let [what, who] = of_reason(&json!({
            "severity": "degraded", "about": "storage", "reason": "controller 2 is slow", "who": "whoever runs it",
            "since": "2023-11-14T22:13:20Z",
        }));
        assert_eq!(what, "degraded: storage: controller 2 is slow");
        assert!(who.starts_with("    since 2023-11-1") && who.ends_with("; who: whoever runs it"));
    }
}
