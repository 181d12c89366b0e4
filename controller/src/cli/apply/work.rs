//! Carries out what a file wants: foresees the first step of every item, and only when the API would take all of them
//! does one after the other, waiting between the steps of one deployment until the next is possible.

use dotmac_protocol::digest::Digest;
use serde_json::Value;

use super::{
    document::Fault,
    item::Item,
    job::{CHANGING, Job, one_by_two_names, place, plan_of},
    report::{self, Action},
    steps::{self, Step},
    world::{Target, World},
};
use crate::cli::{
    client::Client,
    deployments::{self, Goal, Patience, wait_for},
    failure::Failure,
    find::Context,
    plan::{Plan, Seen},
    view,
};

/// Steps of one item at most; more would mean that it never becomes what the file says.
const STEPS_MAX: usize = 6;

/// All items of a file on their way.
pub(super) struct Work<'a> {
    /// The file's name.
    file: String,
    /// Why, for the audit.
    reason: Option<String>,
    /// Whether and how long to wait at the end of each item; between two steps it always waits.
    patience: Patience,
    context: &'a Context,
    client: &'a Client,
    world: World,
    jobs: Vec<Job>,
}

impl<'a> Work<'a> {
    /// Finds out what each item means.
    ///
    /// # Errors
    /// With everything that is not clear or cannot be.
    pub(super) fn new(
        context: &'a Context,
        client: &'a Client,
        (file, world, items): (String, World, Vec<Item>),
        (patience, reason): (Patience, Option<String>),
    ) -> Result<Self, Vec<Fault>> {
        let (mut jobs, mut faults) = (Vec::new(), Vec::new());
        for item in items {
            match world.target(&item) {
                Err(fault) => faults.push(fault),
                Ok(target) => {
                    if let Target::Existing(shown) = &target {
                        faults.extend(steps::fixed(&item, shown));
                    }
                    jobs.push(Job::new(item, target));
                }
            }
        }
        faults.extend(one_by_two_names(&jobs));
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            file,
            reason,
            patience,
            context,
            client,
            world,
            jobs,
        })
    }

    /// Asks the API about the first step of every item; gives whether nothing is to be done at all.
    ///
    /// # Errors
    /// With what is refused first; then nothing is done.
    pub(super) async fn foresee(&mut self) -> Result<bool, Failure> {
        let mut refused = Vec::new();
        for job in &mut self.jobs {
            for name in steps::uncompared(&job.item) {
                if matches!(job.target, Target::Existing(_)) {
                    let title = job.item.who.title();
                    let remark =
                        format!("{title}: {name} is settled at creation and cannot be compared");
                    self.context.output.note(&remark);
                }
            }
            if let Err(failure) = job.foresee(self.client, self.reason.as_deref()).await {
                if matches!(failure, Failure::Unreachable { .. }) {
                    return Err(failure);
                }
                job.line.action = Action::Fail(failure);
                refused.push(job);
            }
        }
        if refused.is_empty() {
            return Ok(self.jobs.iter().all(Job::is_same));
        }
        for job in &refused {
            if let Action::Fail(failure) = &job.line.action {
                let (title, line) = (job.item.who.title(), place(&job.item, failure));
                let (file, hint) = (&self.file, job.way_on(failure));
                let remark = format!("{file}:{line}: {title}: {failure}{hint}");
                self.context.output.note(&remark);
            }
        }
        self.context.output.note("nothing was changed");
        let code = report::worst(refused.iter().map(|job| &job.line));
        Err(Failure::Ended(code.unwrap_or(1)))
    }

    /// Shows everything that is going to change.
    pub(super) fn show_plan(&self) {
        for job in self.jobs.iter().filter(|job| !job.is_same()) {
            self.context.output.note(&job.heading());
            for difference in &job.line.changes {
                difference.say();
            }
        }
    }

    /// Writes every difference as the result.
    pub(super) fn show_differences(&self) -> Result<(), Failure> {
        if self.context.output.is_data() {
            return self.report();
        }
        for job in self.jobs.iter().filter(|job| !job.is_same()) {
            self.context.output.line(&job.heading())?;
            for difference in &job.line.changes {
                self.context.output.line(&difference.line(false))?;
            }
        }
        Ok(())
    }

    /// Does what is to be done, item by item. Only an unreachable cluster ends it early.
    pub(super) async fn carry_out(&mut self) {
        let mut is_over = false;
        for index in 0..self.jobs.len() {
            let job = &self.jobs[index];
            if is_over {
                self.jobs[index].line.action = Action::Skip;
                continue;
            }
            if job.is_same() && !self.patience.wait {
                continue;
            }
            let result = self.carry_out_one(index).await;
            let line = &mut self.jobs[index].line;
            line.is_done = true;
            if let Err(failure) = result {
                is_over = matches!(failure, Failure::Unreachable { .. });
                line.action = Action::Fail(failure);
            }
        }
    }

    /// Writes a line for each item.
    pub(super) fn report(&self) -> Result<(), Failure> {
        let all: Vec<_> = self.jobs.iter().map(|job| (&job.item, &job.line)).collect();
        report::write(self.context.output, &all)
    }

    /// How it ended.
    pub(super) fn result(&self) -> Result<(), Failure> {
        match report::worst(self.jobs.iter().map(|job| &job.line)) {
            None => Ok(()),
            Some(code) => Err(Failure::Ended(code)),
        }
    }

    async fn carry_out_one(&mut self, index: usize) -> Result<(), Failure> {
        let mut first = self.jobs[index].first.take();
        for _ in 0..STEPS_MAX {
            let job = &self.jobs[index];
            let item = &job.item;
            // A tenant that an earlier item made is known by now.
            let target = match (&first, &job.target) {
                (None, _) | (_, Target::New { .. }) => self.target_now(index).await?,
                (Some(_), Target::Existing(shown)) => Target::Existing(shown.clone()),
            };
            let Some(step) = steps::next(item, &target) else {
                return self.finish(index, &target).await;
            };
            let plan = match (first.take(), &target) {
                (Some(plan), Target::Existing(_)) => plan,
                (_, target) => {
                    let seen = self.ready(target, &step).await?;
                    plan_of(item, &step, seen, self.reason.as_deref())
                }
            };
            let key = self.key(item, &plan);
            let done = plan.commit(self.client, &key).await?;
            self.world.note(&done);
            let job = &mut self.jobs[index];
            job.line.id = view::text(&done, "id");
            if let Step::Create(body) | Step::Update(body) = &step {
                job.item.settle(body);
            }
        }
        let failure = "it does not become what the file says; `dotmac diff` tells what is left";
        Err(Failure::Failed(failure.into()))
    }

    /// What the item means now.
    async fn target_now(&self, index: usize) -> Result<Target, Failure> {
        let job = &self.jobs[index];
        if !job.line.id.is_empty() {
            let shown: Value = self.client.get(&deployments::path_of(&job.line.id)).await?;
            return Ok(Target::Existing(Box::new(shown)));
        }
        let target = self.world.target(&job.item);
        target.map_err(|fault| Failure::Usage(fault.what))
    }

    /// The deployment when the step is possible; nothing for a new one.
    async fn ready(&self, target: &Target, step: &Step) -> Result<Option<Seen>, Failure> {
        let Target::Existing(shown) = target else {
            return Ok(None);
        };
        let id = view::text(shown, "id");
        let needs_rest = matches!(step, Step::Update(_) | Step::Scale(_));
        if needs_rest && CHANGING.contains(&view::text(shown, "status").as_str()) {
            let seconds = self.patience.timeout;
            wait_for(self.context, self.client, &id, &Goal::Active, seconds).await?;
        }
        Ok(Some(
            Seen::read(self.client, deployments::path_of(&id)).await?,
        ))
    }

    /// Waits for the end of an item, if that was asked for.
    async fn finish(&self, index: usize, target: &Target) -> Result<(), Failure> {
        let Target::Existing(shown) = target else {
            return Ok(());
        };
        if !self.patience.wait {
            return Ok(());
        }
        let goal = match self.jobs[index].item.is_suspended() {
            Some(true) => Goal::Suspended,
            None if shown["status"] == "suspended" => Goal::Suspended,
            _ => Goal::Active,
        };
        let id = view::text(shown, "id");
        let seconds = self.patience.timeout;
        wait_for(self.context, self.client, &id, &goal, seconds).await?;
        Ok(())
    }

    /// The same for the same step of the same item, so that a run that is repeated does nothing twice.
    fn key(&self, item: &Item, plan: &Plan) -> String {
        let former = match &plan.seen {
            Some(seen) => seen.answer.etag.clone().unwrap_or_default(),
            None => self.world.former(item),
        };
        let body = plan.body.as_ref().map(Value::to_string);
        let parts = [
            plan.method.as_str(),
            &plan.path,
            &former,
            &body.unwrap_or_default(),
        ];
        Digest::tagged("dotmac/apply/v1", parts.join("\n").as_bytes()).hex()[..32].to_owned()
    }
}
