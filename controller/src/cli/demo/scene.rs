//! What every demonstration needs: the local fleet, a client that fails over fast, the writer, the time line, and the
//! instances that ran before.

use std::{sync::Arc, time::Duration};

use dotmac_runtime::process::{ProcessIdentity, Signal};
use serde_json::{Value, json};

use super::{tally::Tally, timeline::Timeline, writer::Writer};
use crate::{
    cli::{
        Client, cluster,
        deployments::{self, fetch},
        failure::Failure,
        find::Context,
        view,
    },
    local::{
        layout::Layout,
        member::Member,
        slots::{self, Slot},
    },
};

/// Milliseconds for one controller's answer: short, so that the next one is asked soon.
const ATTEMPT_MS: u64 = 1_000;
/// Milliseconds for a write in all.
const DEADLINE_MS: u64 = 20_000;
/// Milliseconds for everything to be well again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Milliseconds between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Acknowledged writes before the break and after the recovery.
const WRITES_AROUND: usize = 20;

/// One demonstration under way.
pub(crate) struct Scene<'a> {
    pub(crate) context: &'a Context,
    pub(crate) layout: Layout,
    pub(crate) client: Arc<Client>,
    pub(crate) timeline: Timeline,
    /// What ran before the break.
    pub(crate) slots_before: Vec<Slot>,
    writer: Writer,
}

/// What a demonstration found out beyond the writes.
pub(crate) struct Verdict {
    /// Lines for people.
    pub(crate) lines: Vec<String>,
    /// Instance processes that should have run on and did not.
    pub(crate) instances_lost: usize,
}

impl<'a> Scene<'a> {
    /// Finds the fleet and begins to write.
    pub(crate) async fn set(context: &'a Context) -> Result<Self, Failure> {
        let layout = context.local()?;
        let client = Arc::new(context.client_at(&layout, DEADLINE_MS, ATTEMPT_MS)?);
        let status: Value = client.get(cluster::PATH).await?;
        if status["leader"].is_null() {
            return Err(Failure::Failed(
                "the cluster has no leader: look at `make status` first".into(),
            ));
        }
        let region = crate::local::first_region().to_owned();
        let writer = Writer::start(Arc::clone(&client), context.entropy.clone(), region);
        if !writer.more(WRITES_AROUND, PATIENCE).await {
            let why = writer.count().await.err();
            let why = why.map_or_else(
                || "they are not acknowledged".to_owned(),
                |failure| failure.to_string(),
            );
            return Err(Failure::Failed(format!(
                "writes do not work before anything is broken: {why}"
            )));
        }
        let timeline = Timeline::new(!context.output.is_data());
        let slots_before = slots::running(&layout);
        Ok(Self {
            context,
            layout,
            client,
            timeline,
            slots_before,
            writer,
        })
    }

    /// Kills a process without warning, and begins the time line.
    pub(crate) fn kill(&self, name: &str, identity: &ProcessIdentity) -> Result<(), Failure> {
        let killed = identity.send_signal(Signal::KILL);
        killed.map_err(|cause| Failure::Failed(format!("{name} cannot be killed: {cause}")))
    }

    /// The process of the fleet with this name.
    pub(crate) fn member(&self, name: &str) -> Result<Member, Failure> {
        let found = Member::all(&self.layout)
            .into_iter()
            .find(|member| member.name == name);
        found.ok_or_else(|| Failure::Failed(format!("{name} is no process of this fleet")))
    }

    /// The identity of a process of the fleet that must run.
    pub(crate) fn running(&self, member: &Member) -> Result<ProcessIdentity, Failure> {
        let missing = || Failure::Failed(format!("{} does not run: `make up` first", member.name));
        member.pid_file.running().ok_or_else(missing)
    }

    /// An instance to break, with its deployment as the API shows it.
    pub(crate) async fn an_instance(&self) -> Result<(Slot, Value), Failure> {
        for slot in self.slots_before.iter().filter(|slot| slot.child.is_some()) {
            let deployment = fetch(&self.client, &slot.deployment).await?;
            if deployment["status"] == "active" {
                return Ok((slot.clone(), deployment));
            }
        }
        Err(Failure::Failed(
            "no instance is active: dotmac deployments create --name 'Demo ISP' --wait".into(),
        ))
    }

    /// Looks again and again until it gives something.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T, Failure> {
        let looking = async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        found.map_err(|_| {
            Failure::TimedOut(format!(
                "{what} did not happen within {} s",
                PATIENCE.as_secs()
            ))
        })
    }

    /// Waits until the supervisor has started a process again.
    pub(crate) async fn restarted(
        &self,
        member: &Member,
        before: &ProcessIdentity,
    ) -> Result<(), Failure> {
        let again = async || member.pid_file.running().filter(|now| now != before);
        let now = self
            .until(&format!("the restart of {}", member.name), again)
            .await?;
        self.timeline
            .mark(&format!("{} runs again as pid {}", member.name, now.pid));
        Ok(())
    }

    /// Waits for the first writes that were asked for and acknowledged after now.
    pub(crate) async fn writes_again(&self) -> Result<(), Failure> {
        // The first may have been on its way before the break.
        if !self.writer.more(2, PATIENCE).await {
            return Err(Failure::TimedOut(
                "no write is acknowledged any more".into(),
            ));
        }
        self.timeline.mark("writes are acknowledged again");
        Ok(())
    }

    /// Waits until every deployment of before is active, but those that somebody deleted, and says so.
    pub(crate) async fn all_active(&self) -> Result<(), Failure> {
        let active = async || {
            let all = deployments::all(&self.client).await.ok()?;
            let ids = |slot: &Slot| slot.deployment.clone();
            let is_active = |id: String| {
                let shown = all.iter().find(|one| one["id"] == id);
                shown.is_none_or(|one| one["status"] == "active" || one["status"] == "destroying")
            };
            self.slots_before
                .iter()
                .map(ids)
                .all(is_active)
                .then_some(())
        };
        self.until("that every deployment is active", active)
            .await?;
        self.timeline.mark("every deployment is active");
        Ok(())
    }

    /// Instance processes that ran before and do not any more, without the one that was broken on purpose.
    pub(crate) fn instances_lost(&self, broken: Option<&Slot>) -> usize {
        let spared = self
            .slots_before
            .iter()
            .filter(|slot| broken.is_none_or(|broken| broken.directory != slot.directory));
        spared
            .filter(|slot| !slot.child.as_ref().is_some_and(ProcessIdentity::is_alive))
            .count()
    }

    /// Ends the writing, counts, and shows the verdict.
    pub(crate) async fn close(self, verdict: Result<Verdict, Failure>) -> Result<(), Failure> {
        let Self {
            context,
            timeline,
            writer,
            ..
        } = self;
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(failure) => {
                // What was lost is worth knowing even then; a second failure tells nothing new.
                if let Ok(tally) = writer.count().await {
                    context.output.note(&tally.describe());
                }
                return Err(failure);
            }
        };
        let healthy = writer.more(WRITES_AROUND, PATIENCE).await;
        let tally = writer.count().await?;
        show(context, &timeline, &verdict, tally)?;
        if !healthy || tally.lost > 0 || verdict.instances_lost > 0 {
            return Err(Failure::Failed("something was lost".into()));
        }
        Ok(())
    }
}

fn show(
    context: &Context,
    timeline: &Timeline,
    verdict: &Verdict,
    tally: Tally,
) -> Result<(), Failure> {
    if context.output.is_data() {
        let lines = timeline
            .lines()
            .into_iter()
            .map(|(at_ms, what)| json!({"at_ms": at_ms, "what": what}));
        return context.output.data(&json!({
            "timeline": lines.collect::<Vec<_>>(),
            "notes": verdict.lines,
            "writes": {"asked": tally.asked, "acknowledged": tally.acknowledged,
                "longest_pause_ms": tally.longest_gap_ms, "lost": tally.lost},
            "instances_lost": verdict.instances_lost,
        }));
    }
    for line in &verdict.lines {
        context.output.line(line)?;
    }
    context.output.line(&format!(
        "instance processes that should run on and do not: {}",
        verdict.instances_lost
    ))?;
    context.output.line(&tally.describe())
}

/// Restarts of a deployment's components as the API counts them.
pub(crate) fn restarts(deployment: &Value) -> u64 {
    let counts = view::items(deployment, "components").iter();
    counts
        .filter_map(|component| component["restarts"].as_u64())
        .sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::restarts;

    #[test]
    fn restarts_of_all_components_count() {
        let deployment = json!({"components": [{"restarts": 2}, {"restarts": 1}, {"name": "new"}]});
        assert_eq!(restarts(&deployment), 3);
    }
}
