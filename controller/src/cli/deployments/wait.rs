//! Waits until a deployment is what was asked for, and shows what it waits for meanwhile. It looks when the controllers
//! tell of an event, else now and then; a controller that goes away is not noticed.

mod wake;

use std::{collections::BTreeSet, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::Instant;

use self::wake::Wakes;
use super::fetch;
use crate::cli::{
    client::{Client, elapsed_ms},
    failure::Failure,
    find::Context,
    output::duration,
    view,
};

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Goal {
    /// It runs as it was ordered last, with all copies.
    Active,
    /// Like that, and none of these processes is left.
    Replaced(BTreeSet<u64>),
    /// It is stopped.
    Suspended,
    /// It is what it was before its deletion.
    Kept,
    /// It is gone.
    Destroyed,
    /// Its agent goes by this revision or a later one.
    Known(u64),
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
    goal: &Goal,
    seconds: u64,
) -> Result<Value, Failure> {
    let started = Instant::now();
    let limit_ms = seconds.saturating_mul(1_000);
    let mut told = Told::new(context, id, started);
    let mut wakes = Wakes::new(client, id);
    loop {
        let deployment = match fetch(client, id).await {
            // What is forgotten was destroyed long ago.
            Err(Failure::NotFound(_)) if *goal == Goal::Destroyed => {
                return Ok(serde_json::json!({"id": id, "status": "destroyed"}));
            }
            other => other?,
        };
        let line = progress(&deployment, context.clock.now().0);
        match standing(&deployment, goal) {
            Standing::Reached => {
                let status = match goal {
                    Goal::Known(_) => goal.word().to_owned(),
                    _ => view::text(&deployment, "status"),
                };
                let took = duration(elapsed_ms(started));
                told.end(&format!("{id} is {status} after {took}"));
                return Ok(deployment);
            }
            Standing::Failed => {
                told.bar.finish_and_clear();
                let told = progress_in_lines(&deployment, context.clock.now().0, 4);
                return Err(Failure::Failed(format!("{id}: {told}")));
            }
            Standing::OnTheWay => {}
        }
        let left_ms = limit_ms.saturating_sub(elapsed_ms(started));
        if left_ms == 0 {
            told.bar.finish_and_clear();
            let word = goal.word();
            return Err(Failure::TimedOut(format!(
                "{id} is not {word} after {seconds} s: {line}\n  next: dotmac deployments show {id}"
            )));
        }
        told.tell(&deployment, &line);
        wakes.next(left_ms).await;
    }
}

impl Goal {
    fn word(&self) -> &'static str {
        match self {
            Self::Active => "active with all copies",
            Self::Replaced(_) => "restarted",
            Self::Suspended => "stopped",
            Self::Kept => "back",
            Self::Destroyed => "destroyed",
            Self::Known(_) => "changed at its agent",
        }
    }
}

/// Tells the way: one line for each new reason, and where somebody looks a short one below it that shows that time goes
/// on. Each names the deployment: several may be waited for one after the other.
struct Told<'a> {
    context: &'a Context,
    id: &'a str,
    started: Instant,
    bar: ProgressBar,
    /// Status, reason and missing copies that were told last.
    head: (String, String, Option<String>),
}

impl<'a> Told<'a> {
    fn new(context: &'a Context, id: &'a str, started: Instant) -> Self {
        Self {
            context,
            id,
            started,
            bar: bar(context),
            head: Default::default(),
        }
    }

    fn tell(&mut self, deployment: &Value, line: &str) {
        let status = view::text(deployment, "status");
        self.bar.set_message(format!("{}: {status}", self.id));
        let reason = view::text(&deployment["waiting"], "reason");
        let head = (status, reason, unready(deployment));
        if head != self.head {
            let at = duration(elapsed_ms(self.started));
            let remark = format!("{at:>8}  {}: {line}", self.id);
            self.bar.suspend(|| self.context.output.note(&remark));
            self.head = head;
        }
    }

    fn end(&self, line: &str) {
        self.bar.finish_and_clear();
        self.context.output.note(line);
    }
}

/// What a deployment is and waits for, in one line.
pub(crate) fn progress(deployment: &Value, now_ms: u64) -> String {
    let status = view::text(deployment, "status");
    match view::text(&deployment["waiting"], "reason") {
        none if none.is_empty() => match unready(deployment) {
            Some(missing) => format!("{status}: {missing}"),
            None => status,
        },
        reason => format!("{status}: {reason} ({})", patience(deployment, now_ms)),
    }
}

/// The same, where a reason of several lines comes last and keeps them, each but the first behind so many blanks.
pub(crate) fn progress_in_lines(deployment: &Value, now_ms: u64, blanks: usize) -> String {
    let reason = view::lines(&deployment["waiting"], "reason", blanks);
    if !reason.contains('\n') {
        return progress(deployment, now_ms);
    }
    let status = view::text(deployment, "status");
    format!("{status} ({}): {reason}", patience(deployment, now_ms))
}

/// Since when it waits, and who can change that.
fn patience(deployment: &Value, now_ms: u64) -> String {
    let waiting = &deployment["waiting"];
    let since = view::age(waiting, "since", now_ms);
    match view::text(waiting, "who") {
        who if who.is_empty() => format!("for {since}"),
        who => format!("for {since}; who can change it: {who}"),
    }
}

/// The processes of all its components, as its agent told them last.
pub(crate) fn processes(deployment: &Value) -> BTreeSet<u64> {
    let components = view::items(deployment, "components").iter();
    components
        .flat_map(|component| view::items(component, "pids"))
        .filter_map(Value::as_u64)
        .collect()
}

fn standing(deployment: &Value, goal: &Goal) -> Standing {
    let status = view::text(deployment, "status");
    let is_settled = deployment["waiting"].is_null();
    match (goal, status.as_str()) {
        (Goal::Active, "active") if is_settled && unready(deployment).is_none() => {
            Standing::Reached
        }
        (Goal::Replaced(old), "active") if is_settled && unready(deployment).is_none() => {
            match processes(deployment).is_disjoint(old) {
                true => Standing::Reached,
                false => Standing::OnTheWay,
            }
        }
        (Goal::Suspended, "suspended") if is_settled => Standing::Reached,
        (Goal::Destroyed, "destroyed") => Standing::Reached,
        (Goal::Kept, "destroying") => Standing::OnTheWay,
        (Goal::Kept, "destroyed") => Standing::Failed,
        (Goal::Kept, _) => Standing::Reached,
        (Goal::Known(_), "destroying" | "destroyed") => Standing::Failed,
        (Goal::Known(revision), _) => match is_known(deployment, *revision) {
            true => Standing::Reached,
            false => Standing::OnTheWay,
        },
        (Goal::Active | Goal::Replaced(_), "destroyed" | "failed" | "destroying" | "suspended")
        | (Goal::Suspended, "destroyed" | "destroying") => Standing::Failed,
        (Goal::Active | Goal::Replaced(_) | Goal::Suspended | Goal::Destroyed, _) => {
            Standing::OnTheWay
        }
    }
}

/// Whether its agent goes by the newest generation, and that is not one from before the revision.
fn is_known(deployment: &Value, revision: u64) -> bool {
    let number = |name: &str| deployment[name].as_u64();
    number("revision") >= Some(revision)
        && number("observed_generation").is_some()
        && number("observed_generation") >= number("generation")
}

/// What is missing although it is active: copies that were asked for, or processes that are not ready.
fn unready(deployment: &Value) -> Option<String> {
    let components = view::items(deployment, "components");
    let copies = components.iter().filter_map(|one| one["desired"].as_u64());
    if let (Some(wanted), Some(copies)) = (deployment["replicas"].as_u64(), copies.max())
        && copies != wanted
        && deployment["status"] == "active"
    {
        return Some(format!("{copies} of {wanted} copies are there"));
    }
    let (ready, desired) = (&deployment["ready_pods"], &deployment["pod_count"]);
    let (ready, desired) = (ready.as_u64()?, desired.as_u64()?);
    (ready < desired).then(|| format!("{ready} of {desired} processes are ready"))
}

/// A short line that is written over, where somebody looks at it.
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
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::{Goal, Standing, progress, progress_in_lines, standing};

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
        assert_eq!(
            progress_in_lines(&deployment, 4_000, 2),
            progress(&deployment, 4_000)
        );
    }

    #[test]
    fn a_reason_of_several_lines_is_one_line_on_the_way_and_lines_at_the_end() {
        let deployment = json!({"status": "failed", "waiting":
            {"reason": "web.0 ended; its last lines:\nlicensed\nserving\n", "since": 1_000}});
        assert_eq!(
            progress(&deployment, 4_000),
            "failed: web.0 ended; its last lines: | licensed | serving (for 3000 ms)"
        );
        assert_eq!(
            progress_in_lines(&deployment, 4_000, 2),
            "failed (for 3000 ms): web.0 ended; its last lines:\n  licensed\n  serving"
        );
    }

    #[test]
    fn a_failed_deployment_is_not_waited_for() {
        let is = |status: &str, goal| standing(&json!({ "status": status }), &goal);
        assert_eq!(is("active", Goal::Active), Standing::Reached);
        assert_eq!(is("degraded", Goal::Active), Standing::OnTheWay);
        assert_eq!(is("failed", Goal::Active), Standing::Failed);
        assert_eq!(is("failed", Goal::Destroyed), Standing::OnTheWay);
        assert_eq!(is("destroyed", Goal::Destroyed), Standing::Reached);
        assert_eq!(is("active", Goal::Suspended), Standing::OnTheWay);
        assert_eq!(is("suspended", Goal::Kept), Standing::Reached);
    }

    #[test]
    fn a_change_is_known_when_the_agent_goes_by_its_generation() {
        let is = |revision: u64, generation: u64, observed: u64| {
            let one = json!({"status": "active", "revision": revision, "generation": generation,
                "observed_generation": observed});
            standing(&one, &Goal::Known(7))
        };
        assert_eq!(is(6, 3, 3), Standing::OnTheWay, "a controller behind");
        assert_eq!(is(7, 4, 3), Standing::OnTheWay);
        assert_eq!(is(7, 4, 4), Standing::Reached);
        assert_eq!(is(9, 5, 4), Standing::OnTheWay);
        let gone = json!({"status": "destroying", "revision": 9});
        assert_eq!(standing(&gone, &Goal::Known(7)), Standing::Failed);
    }

    fn running(pids: &[u64], replicas: u64, ready: u64) -> Value {
        let count = pids.len();
        json!({"status": "active", "waiting": null, "replicas": replicas, "pod_count": count,
            "ready_pods": ready, "components": [{"desired": count, "pids": pids}]})
    }

    #[test]
    fn an_active_deployment_is_not_done_before_all_its_copies_are_ready() {
        assert_eq!(
            standing(&running(&[1, 2], 2, 2), &Goal::Active),
            Standing::Reached
        );
        assert_eq!(
            standing(&running(&[1, 2], 2, 1), &Goal::Active),
            Standing::OnTheWay
        );
        assert_eq!(
            standing(&running(&[1], 2, 1), &Goal::Active),
            Standing::OnTheWay
        );
        let mut ordered = running(&[1], 1, 1);
        ordered["waiting"] = json!({"reason": "wave 3 is on its way"});
        assert_eq!(standing(&ordered, &Goal::Active), Standing::OnTheWay);
    }

    #[test]
    fn a_restart_is_done_when_no_old_process_is_left() {
        let goal = Goal::Replaced(BTreeSet::from([1, 2]));
        assert_eq!(standing(&running(&[3, 2], 2, 2), &goal), Standing::OnTheWay);
        assert_eq!(standing(&running(&[3, 4], 2, 2), &goal), Standing::Reached);
    }
}
