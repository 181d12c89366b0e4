//! Two administrators who ask for one thing after another, through any controller, again and again until they have an
//! answer; and sometimes once more, as if the answer had been lost. What they were answered is what must not get lost.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use dotmac_controller::node::{Ask, Node};
use dotmac_domain::{
    Accepted, Command, Reply,
    command::{CreateDeployment, UpdateDeployment},
    envelope::{Actor, command_digest},
    fleet::agent_name,
};
use dotmac_protocol::ids::{DeploymentId, RequestId};
use dotmac_runtime::supervise;

use crate::{
    agent::{enrolment, join_token},
    controller::Controller,
    genesis::{ADMIN, REGIONS},
    random::Random,
    trace::Trace,
};

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// Milliseconds after which a client gives a controller up that does not answer.
const PATIENCE_MS: u64 = 3_500;
/// Deployments that are kept at a time.
const DEPLOYMENTS: usize = 4;
/// The release that there is.
const MANIFEST: &str = include_str!("../releases/demo-isp.json");

/// A request that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    pub(crate) request: RequestId,
    pub(crate) what: &'static str,
    pub(crate) reply: Reply,
}

/// An attempt that came to an end: whose, which, and how.
type Ended = (usize, u64, Result<Reply, String>);

/// See the module's text.
pub(crate) struct Clients {
    random: Random,
    each: Vec<Client>,
    /// What is done before anything else, last first.
    script: Vec<Operation>,
    ended: Arc<Mutex<Vec<Ended>>>,
    attempts: u64,
    pub(crate) acknowledged: Vec<Acknowledged>,
    deployments: Vec<DeploymentId>,
    names: u64,
    /// Deployments whose deletion somebody asked for, answered or not.
    pub(crate) deleted: BTreeSet<DeploymentId>,
    /// Whether nothing new is asked for any more.
    pub(crate) is_closing: bool,
}

#[derive(Default)]
struct Client {
    operation: Option<Operation>,
    /// The attempt under way, and when it is given up.
    attempt: Option<(u64, u64)>,
    pause_until: u64,
}

#[derive(Clone)]
struct Operation {
    request: RequestId,
    what: &'static str,
    actor: Option<Actor>,
    command: Command,
    /// The answer that it had already.
    before: Option<Reply>,
}

impl Clients {
    pub(crate) fn new(mut random: Random) -> Self {
        let mut script = vec![Command::AddRelease {
            manifest: MANIFEST.into(),
        }];
        let mut enrolments = Vec::new();
        for number in 0..u8::try_from(REGIONS.len()).unwrap() {
            script.push(Command::CreateJoinToken(join_token(number)));
            enrolments.push(enrolment(number));
        }
        let mut script: Vec<_> = script
            .into_iter()
            .map(|command| operation(&mut random, "prepare", None, command))
            .collect();
        for enrolment in enrolments {
            let agent = agent_name(&enrolment.region, &enrolment.identity);
            let command = Command::EnrolAgent(enrolment);
            script.push(operation(
                &mut random,
                "enrol",
                Some(Actor::Agent(agent)),
                command,
            ));
        }
        script.reverse();
        Self {
            random,
            each: vec![Client::default(), Client::default()],
            script,
            ended: Arc::default(),
            attempts: 0,
            acknowledged: Vec::new(),
            deployments: Vec::new(),
            names: 0,
            deleted: BTreeSet::new(),
            is_closing: false,
        }
    }

    /// Whether the release and the agents are there.
    pub(crate) fn is_prepared(&self) -> bool {
        let busy = |client: &Client| {
            let operation = client.operation.as_ref();
            operation.is_some_and(|one| matches!(one.what, "prepare" | "enrol"))
        };
        self.script.is_empty() && !self.each.iter().any(busy)
    }

    /// Whether nobody waits for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.each.iter().all(|client| client.operation.is_none())
    }

    pub(crate) fn step(&mut self, now_ms: u64, controllers: &[Controller], trace: &mut Trace) {
        let ended = std::mem::take(&mut *self.ended.lock().unwrap());
        for (client, attempt, outcome) in ended {
            if self.each[client]
                .attempt
                .is_some_and(|(one, _)| one == attempt)
            {
                self.end(client, outcome, now_ms, trace);
            }
        }
        for number in 0..self.each.len() {
            let client = &mut self.each[number];
            if client.attempt.is_some_and(|(_, until)| until <= now_ms) {
                client.attempt = None;
            }
            if client.attempt.is_some() || client.pause_until > now_ms {
                continue;
            }
            if client.operation.is_none() {
                // The first one prepares alone.
                if !self.script.is_empty() && number > 0 {
                    continue;
                }
                self.each[number].operation = match self.script.pop() {
                    Some(operation) => Some(operation),
                    None if self.is_closing || !self.is_prepared() => None,
                    None => Some(self.invent()),
                };
            }
            self.attempt(number, now_ms, controllers);
        }
    }

    fn attempt(&mut self, number: usize, now_ms: u64, controllers: &[Controller]) {
        let Some(operation) = self.each[number].operation.clone() else {
            return;
        };
        let controller = self.random.pick(controllers);
        let Some(running) = controller.running() else {
            self.each[number].pause_until = now_ms + 50;
            return;
        };
        self.attempts += 1;
        let attempt = self.attempts;
        self.each[number].attempt = Some((attempt, now_ms + PATIENCE_MS));
        let (node, ended) = (Arc::clone(&running.node), Arc::clone(&self.ended));
        let _entered = running.runtime.enter();
        supervise::spawn("client", async move {
            let outcome = ask(&node, operation).await;
            ended.lock().unwrap().push((number, attempt, outcome));
        });
    }

    fn end(
        &mut self,
        number: usize,
        outcome: Result<Reply, String>,
        now_ms: u64,
        trace: &mut Trace,
    ) {
        let pause_ms = self.random.between(20, 400);
        let client = &mut self.each[number];
        client.attempt = None;
        client.pause_until = now_ms + pause_ms;
        let operation = client.operation.as_mut().expect("it was attempted");
        let reply = match outcome {
            Ok(reply) => reply,
            Err(error) => {
                let what = operation.what;
                return trace.note(now_ms, &format!("client {number} {what}: {error}"));
            }
        };
        let (request, what) = (operation.request.clone(), operation.what);
        trace.note(
            now_ms,
            &format!("client {number} {what} {request}: {reply:?}"),
        );
        if let Ok(Accepted::Deployment { deployment, .. }) = &reply
            && what == "create"
            && operation.before.is_none()
        {
            self.deployments.push(deployment.clone());
        }
        if operation.actor.is_none() {
            self.acknowledged.push(Acknowledged {
                request,
                what,
                reply: reply.clone(),
            });
        }
        let is_again = operation.actor.is_none() && operation.before.is_none();
        if is_again && self.random.chance(300) {
            operation.before = Some(reply);
        } else {
            client.operation = None;
        }
    }

    /// The next thing to ask for.
    fn invent(&mut self) -> Operation {
        let random = &mut self.random;
        if self.deployments.len() < DEPLOYMENTS && random.chance(500) || self.deployments.is_empty()
        {
            self.names += 1;
            let region = *random.pick(&REGIONS);
            let create = deployment(&format!("ISP {}", self.names), region);
            let command = Command::CreateDeployment(Box::new(create));
            return operation(random, "create", None, command);
        }
        let deployment = random.pick(&self.deployments).clone();
        let reason = "the simulation".to_owned();
        let (what, command) = match random.below(100) {
            0..35 => {
                let features = [("billing".to_owned(), Some(random.chance(500)))];
                let update = UpdateDeployment {
                    deployment,
                    resource_tier: None,
                    resources: None,
                    license_tier: None,
                    image_tag: None,
                    min_replicas: None,
                    max_replicas: None,
                    domain_name: None,
                    features: Some(features.into()),
                };
                ("update", Command::UpdateDeployment(Box::new(update)))
            }
            35..55 => ("restart", Command::RestartDeployment { deployment }),
            55..72 => ("suspend", Command::SuspendDeployment { deployment, reason }),
            72..90 => ("resume", Command::ResumeDeployment { deployment }),
            90..95 => {
                let name = format!("Tenant {}", random.below(1_000_000));
                let reseller = None;
                ("tenant", Command::CreateTenant { name, reseller })
            }
            _ => {
                self.deployments.retain(|one| *one != deployment);
                self.deleted.insert(deployment.clone());
                ("delete", Command::DeleteDeployment { deployment })
            }
        };
        operation(&mut self.random, what, None, command)
    }
}

/// Asks as the API does: the token is looked up, peers vouch, the log decides.
async fn ask(node: &Arc<Node>, operation: Operation) -> Result<Reply, String> {
    let command = operation.command;
    if let Some(actor) = operation.actor {
        let proposed = node.propose(actor, command, DEADLINE).await;
        return proposed.map_err(|error| error.to_string());
    }
    let (caller, _) = node
        .recognise(ADMIN)
        .await
        .map_err(|error| error.to_string())?;
    let ask = Ask {
        request: operation.request,
        asked: command_digest(&command),
        received_at: node.clock.now(),
        expected: None,
        trace: None,
        command,
    };
    let answered = node.ask(&caller, ask, DEADLINE).await;
    answered.map_err(|error| error.to_string())
}

fn operation(
    random: &mut Random,
    what: &'static str,
    actor: Option<Actor>,
    command: Command,
) -> Operation {
    let request = format!("{:016x}{:016x}", random.next(), random.next());
    Operation {
        request: request.parse().unwrap(),
        what,
        actor,
        command,
        before: None,
    }
}

fn deployment(name: &str, region: &str) -> CreateDeployment {
    CreateDeployment {
        tenant_name: name.into(),
        tenant: None,
        environment: "production".into(),
        region: Some(region.parse().unwrap()),
        domain_name: None,
        resource_tier: "small".into(),
        resources: None,
        license_tier: "basic".into(),
        image_tag: None,
        cluster_name: None,
        max_customers: 100,
        max_services: 100,
        api_rate_limit: 1_000,
        features: [("billing".to_owned(), true)].into(),
        custom_config: "{}".into(),
        credentials: vec![],
        sealed_for: None,
        reseller: None,
    }
}
