//! Which backup a name on the command line means, at a target and at a controller alike. It refuses what is no name before
//! anybody is asked.

use dotmac_domain::backups::is_name;
use serde_json::Value;

use super::{PATH, failed};
use crate::{
    backup::{
        latest::{Candidate, Condition, LATEST, latest},
        listing,
        origin::Origin,
        target::Target,
    },
    cli::{client::Client, failure::Failure, find::Context, view},
};

/// Backups of a target that are looked at at most.
const BACKUPS_MAX: usize = 100_000;

/// Whether a text is a backup's name, or `latest`.
///
/// # Errors
/// When it is neither; control characters in it are told as such.
pub(super) fn check(name: &str) -> Result<(), Failure> {
    if name == LATEST || is_name(name) {
        return Ok(());
    }
    let name: String = name.chars().take(80).collect();
    Err(Failure::Usage(format!(
        "{name:?} is no backup's name: `{LATEST}`, or a name as `dotmac backup list` shows it, such as \
         20261123T165400Z-00a1f9"
    )))
}

/// The backup that is meant, of those at a target; with an origin, of those that are of it.
pub(super) async fn at_target(
    context: &Context,
    (target, origin): (&Target, Option<&Origin>),
    name: &str,
) -> Result<String, Failure> {
    if name != LATEST {
        return Ok(name.to_owned());
    }
    let listed = listing::list(target, origin)
        .await
        .map_err(|error| failed(&error))?;
    let candidates: Vec<Candidate> = listed.iter().map(listing::Listed::candidate).collect();
    chosen(context, &candidates, &target.to_string())
}

/// The backup that is meant, of those that a controller lists.
pub(super) async fn at_controller(
    context: &Context,
    client: &Client,
    name: &str,
) -> Result<String, Failure> {
    if name != LATEST {
        return Ok(name.to_owned());
    }
    let listed = client.list(PATH, BACKUPS_MAX).await?;
    let candidates: Vec<Candidate> = listed.iter().map(candidate).collect();
    chosen(context, &candidates, "the controllers' target")
}

fn candidate(item: &Value) -> Candidate {
    let number = |name: &str| item[name].as_u64().unwrap_or_default();
    let condition = match item["state"].as_str() {
        Some("whole") => Condition::Whole {
            cluster: view::text(item, "cluster"),
            epoch: number("epoch"),
            index: number("index"),
        },
        Some("unfinished") => Condition::Unfinished,
        Some("foreign") => Condition::Foreign,
        _ => Condition::Damaged(view::text(item, "problem")),
    };
    Candidate {
        name: view::text(item, "id"),
        condition,
    }
}

fn chosen(context: &Context, candidates: &[Candidate], place: &str) -> Result<String, Failure> {
    let name = latest(candidates).map_err(|no| Failure::Failed(format!("{place}: {no}")))?;
    let foreign = candidates
        .iter()
        .filter(|one| one.condition == Condition::Foreign);
    let foreign = foreign.count();
    if foreign > 0 {
        context.output.note(&format!(
            "backups of other clusters lie there, too, and are passed over: {foreign}"
        ));
    }
    let newer = candidates
        .iter()
        .filter(|one| one.condition == Condition::Unfinished && one.name > name);
    for one in newer {
        context.output.note(&format!(
            "{} is unfinished, under way or given up: {name} is the newest whole one",
            one.name
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Condition, Failure, candidate, check};

    #[test]
    fn what_is_no_name_is_refused_and_no_escape_reaches_the_terminal() {
        check("latest").unwrap();
        check("20261123T165400Z-00a1f9").unwrap();
        for wrong in [
            "../../etc",
            "",
            "\u{1b}[2J\u{1b}]0;x\u{7}",
            "20261123T165400Z-00a1f9\n",
        ] {
            let refused = check(wrong).unwrap_err();
            assert!(matches!(refused, Failure::Usage(_)));
            let said = refused.to_string();
            assert!(!said.contains(char::is_control), "{said:?}");
            assert!(
                said.contains("latest") && said.contains("backup list"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_controllers_list_tells_what_a_targets_does() {
        let whole = candidate(
            &json!({"id": "a", "state": "whole", "cluster": "c", "epoch": 2, "index": 7}),
        );
        let expected = Condition::Whole {
            cluster: "c".into(),
            epoch: 2,
            index: 7,
        };
        assert_eq!(whole.condition, expected);
        let damaged = candidate(&json!({"id": "a", "state": "damaged", "problem": "cut"}));
        assert_eq!(damaged.condition, Condition::Damaged("cut".into()));
        let foreign = candidate(&json!({"id": "a", "state": "foreign", "problem": "theirs"}));
        assert_eq!(foreign.condition, Condition::Foreign);
    }
}
