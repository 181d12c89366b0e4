//! One item of a file on its way: what it means, what is different, and the first request of what is to be done.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    document::Fault,
    item::Item,
    report::{Action, Line},
    steps::{self, Step},
    world::Target,
};
use crate::cli::{
    client::{Answer, Client},
    deployments,
    failure::Failure,
    plan::{Plan, Seen},
    view,
};

/// What a deployment is while it changes by itself: its next change has to wait.
pub(super) const CHANGING: [&str; 4] = ["pending", "provisioning", "upgrading", "rolling_back"];

/// One item on its way.
pub(super) struct Job {
    /// As the file has it.
    pub(super) item: Item,
    /// Which deployment that is.
    pub(super) target: Target,
    /// What became of it.
    pub(super) line: Line,
    /// The first step as it was foreseen.
    pub(super) first: Option<Plan>,
}

impl Job {
    /// Compares an item with what there is.
    pub(super) fn new(item: Item, target: Target) -> Self {
        let changes = steps::differences(&item, &target);
        let (action, id) = match &target {
            Target::New { .. } => (Action::Create, String::new()),
            Target::Existing(shown) => {
                let id = view::text(shown, "id");
                match steps::next(&item, &target) {
                    Some(_) => (Action::Change, id),
                    None => (Action::Nothing, id),
                }
            }
        };
        let line = Line {
            action,
            id,
            changes,
            is_done: false,
        };
        Self {
            item,
            target,
            line,
            first: None,
        }
    }

    /// Whether nothing is to be done.
    pub(super) fn is_same(&self) -> bool {
        matches!(self.line.action, Action::Nothing)
    }

    /// What is done to what, for people.
    pub(super) fn heading(&self) -> String {
        match &self.target {
            Target::New { .. } => format!("create {}:", self.item.who.title()),
            Target::Existing(_) => format!("change {}:", self.line.id),
        }
    }

    /// How to go on where one failed deployment keeps a whole file from being applied.
    pub(super) fn way_on(&self, failure: &Failure) -> String {
        let Target::Existing(shown) = &self.target else {
            return String::new();
        };
        if shown["status"] != "failed" || !matches!(failure, Failure::Refused(_)) {
            return String::new();
        }
        let id = &self.line.id;
        let way = match shown["rollback_to"].is_null() {
            true => format!(
                "`dotmac deployments restart {id}` tries again what failed, `delete {id}` gives it up"
            ),
            false => format!(
                "`dotmac deployments rollback {id}` brings its last healthy version back, `restart {id}` tries again \
                 what failed"
            ),
        };
        format!("\n  to go on: {way}; or take it out of the file until then")
    }

    /// Asks the API what the first step would do. What it says is so already needs no step.
    pub(super) async fn foresee(
        &mut self,
        client: &Client,
        reason: Option<&str>,
    ) -> Result<(), Failure> {
        while let Some(step) = steps::next(&self.item, &self.target) {
            let Some(plan) = self.plan(client, &step, reason).await? else {
                return Ok(());
            };
            let foreseen = plan.foresee(client, &client.key()).await?;
            match &step {
                Step::Update(body) if foreseen.changes.is_empty() => self.item.settle(body),
                _ => {
                    self.first = Some(plan);
                    break;
                }
            }
        }
        if self.first.is_none() {
            self.line.action = Action::Nothing;
        }
        self.line.changes = steps::differences(&self.item, &self.target);
        Ok(())
    }

    /// The request of the first step; nothing when it can only be asked later.
    async fn plan(
        &mut self,
        client: &Client,
        step: &Step,
        reason: Option<&str>,
    ) -> Result<Option<Plan>, Failure> {
        let seen = match &self.target {
            Target::New { .. } => None,
            Target::Existing(shown) => {
                let is_changing = CHANGING.contains(&view::text(shown, "status").as_str());
                if is_changing && !matches!(step, Step::Suspend) {
                    // It is asked when the deployment has come to rest.
                    return Ok(None);
                }
                let path = deployments::path_of(&self.line.id);
                let answer: Answer = client.entity(&path).await?;
                self.target = Target::Existing(Box::new(answer.body.clone()));
                Some(Seen { path, answer })
            }
        };
        Ok(Some(plan_of(&self.item, step, seen, reason)))
    }
}

/// The line that a failure is about.
pub(super) fn place(item: &Item, failure: &Failure) -> u64 {
    match failure {
        Failure::Refused(problem) => match problem.errors.first() {
            Some(error) => item.line_of(&error.field),
            None => item.line,
        },
        _ => item.line,
    }
}

/// A step as a request.
pub(super) fn plan_of(item: &Item, step: &Step, seen: Option<Seen>, reason: Option<&str>) -> Plan {
    let title = item.who.title();
    let Some(seen) = seen else {
        let body = match step {
            Step::Create(body) => body.clone(),
            _ => Value::Null,
        };
        return Plan::create(format!("create {title}"), deployments::PATH, body);
    };
    let path = seen.path.clone();
    let with_reason = |mut body: Map<String, Value>| {
        body.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
        (!body.is_empty()).then_some(Value::Object(body))
    };
    let (method, path, body) = match step {
        Step::Update(body) | Step::Create(body) => (Method::PATCH, path, Some(body.clone())),
        Step::Resume => (Method::POST, format!("{path}/resume"), None),
        Step::Suspend => (
            Method::POST,
            format!("{path}/suspend"),
            with_reason(Map::new()),
        ),
        Step::Scale(replicas) => {
            let body = Map::from_iter([("replicas".to_owned(), json!(replicas))]);
            (Method::POST, format!("{path}/scale"), with_reason(body))
        }
    };
    let plan = Plan::change(title, method, path, seen);
    Plan { body, ..plan }
}

/// Items that name one deployment in two ways.
pub(super) fn one_by_two_names(jobs: &[Job]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        let same = jobs[..index]
            .iter()
            .find(|other| !job.line.id.is_empty() && other.line.id == job.line.id);
        if let Some(other) = same {
            let what = format!("{} is already in line {}", job.line.id, other.item.line);
            faults.push(Fault::new(job.item.line, what));
        }
    }
    faults
}
