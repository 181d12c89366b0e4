//! Waits until a deployment is what was asked for, and shows what it waits for meanwhile.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::Instant;

use super::fetch;
use crate::cli::{
    client::{Client, elapsed_ms},
    failure::Failure,
    find::Context,
    output::duration,
    view,
};

/// Milliseconds between two looks.
const LOOK_MS: u64 = 100;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// It runs and is healthy.
    Active,
    /// It is gone.
    Destroyed,
}

/// Where a deployment is on the way to a goal.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Reached,
    Failed,
    OnTheWay,
}

/// Waits at most `seconds` for the goal and gives the deployment as it is then.
///
/// # Errors
/// When the time is over (with the reason why it is not done), when it failed, or when the API cannot be reached.
pub(crate) async fn wait_for(
    context: &Context,
    client: &Client,
    id: &str,
    goal: Goal,
    seconds: u64,
) -> Result<Value, Failure> {
    let started = Instant::now();
    let bar = bar(context);
    let mut told = String::new();
    loop {
        let deployment = match fetch(client, id).await {
            // What is forgotten was destroyed long ago.
            Err(Failure::NotFound(_)) if goal == Goal::Destroyed => {
                return Ok(serde_json::json!({
                    "id": id, "status": "destroyed",
                }));
            }
            other => other?,
        };
        let line = progress(&deployment, context.clock.now().0);
        match standing(&deployment, goal) {
            Standing::Reached => {
                bar.finish_and_clear();
                context.output.note(&format!(
                    "{id} is {} after {}",
                    goal.word(),
                    duration(elapsed_ms(started))
                ));
                return Ok(deployment);
            }
            Standing::Failed => {
                bar.finish_and_clear();
                return Err(Failure::Failed(format!("{id}: {line}")));
            }
            Standing::OnTheWay => {}
        }
        if elapsed_ms(started) >= seconds.saturating_mul(1_000) {
            bar.finish_and_clear();
            return Err(Failure::TimedOut(format!(
                "{id} is not {} after {seconds} s: {line}",
                goal.word()
            )));
        }
        let head =
            view::text(&deployment, "status") + &view::text(&deployment["waiting"], "reason");
        bar.set_message(line.clone());
        if bar.is_hidden() && head != told {
            context
                .output
                .note(&format!("{:>8}  {line}", duration(elapsed_ms(started))));
            told = head;
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

impl Goal {
    fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Destroyed => "destroyed",
        }
    }
}

/// What a deployment is and waits for, in one line.
pub(crate) fn progress(deployment: &Value, now_ms: u64) -> String {
    let status = view::text(deployment, "status");
    let waiting = &deployment["waiting"];
    let reason = view::text(waiting, "reason");
    if reason.is_empty() {
        return status;
    }
    let since = view::age(waiting, "since", now_ms);
    match view::text(waiting, "who") {
        who if who.is_empty() => format!("{status}: {reason} (for {since})"),
        who => format!("{status}: {reason} (for {since}; who can change it: {who})"),
    }
}

fn standing(deployment: &Value, goal: Goal) -> Standing {
    match (goal, view::text(deployment, "status").as_str()) {
        (Goal::Active, "active") | (Goal::Destroyed, "destroyed") => Standing::Reached,
        (Goal::Active, "destroyed" | "failed" | "destroying" | "suspended") => Standing::Failed,
        (Goal::Active | Goal::Destroyed, _) => Standing::OnTheWay,
    }
}

/// A line that is written over, where somebody looks at it.
fn bar(context: &Context) -> ProgressBar {
    if !context.output.is_watched() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Goal, Standing, progress, standing};

    #[test]
    fn the_reason_says_since_when_and_who_can_change_it() {
        let deployment = json!({"status": "provisioning", "waiting":
            {"reason": "no agent is connected in do-fra1", "since": 1_000, "who": "the operator"}});
        assert_eq!(
            progress(&deployment, 4_000),
            "provisioning: no agent is connected in do-fra1 (for 3000 ms; who can change it: the operator)"
        );
        assert_eq!(
            progress(&json!({"status": "active", "waiting": null}), 0),
            "active"
        );
    }

    #[test]
    fn a_failed_deployment_is_not_waited_for() {
        let is = |status: &str, goal| standing(&json!({ "status": status }), goal);
        assert_eq!(is("active", Goal::Active), Standing::Reached);
        assert_eq!(is("degraded", Goal::Active), Standing::OnTheWay);
        assert_eq!(is("failed", Goal::Active), Standing::Failed);
        assert_eq!(is("failed", Goal::Destroyed), Standing::OnTheWay);
        assert_eq!(is("destroyed", Goal::Destroyed), Standing::Reached);
    }
}
