//! A small cluster to test against: three controllers with fixed keys, an administrator, two regions, a release.
//! Everything follows from its arguments, so that a test that fails once fails always.

use dotmac_domain::{
    Accepted, Applied, Command, Envelope, Reply, State,
    audit::Fact,
    desired::{Unit, decode_leaves},
    envelope::{
        ATTESTATION_BATCH_DOMAIN, ATTESTATION_DOMAIN, Actor, Attestation, AttestationBatch,
        Evidence, InBatch, command_digest,
    },
    plan::plan,
    reply::Code,
    state::RULES_VERSION,
};
use dotmac_protocol::{
    digest::Digest,
    ids::{DeploymentId, RequestId, UnitId},
    keys::Signature,
    record::{HealthStatus, Limits, Outcome, SignedRecord},
    time::{Timestamp, Window},
    wave::{Leaf, merkle_paths},
};
mod agent;
mod values;

pub(crate) use agent::TestAgent;
pub(crate) use values::{
    MANIFEST, admin, create, deployment, genesis, join_token, key, token, token_id,
};

/// When every test begins, in milliseconds.
pub(crate) const START: u64 = 1_700_000_000_000;
/// The cluster's grace time in milliseconds.
pub(crate) const GRACE_MS: u64 = 60_000;
/// The cluster's window in milliseconds.
pub(crate) const WINDOW_MS: u64 = 600_000;
/// One hour in milliseconds.
pub(crate) const HOUR_MS: u64 = 3_600_000;
/// Tombstones an hour at most.
pub(crate) const REMOVALS_PER_HOUR: u32 = 3;
/// Tombstones an hour at most for one tenant.
pub(crate) const REMOVALS_PER_TENANT_HOUR: u32 = 2;

/// Signs an envelope's evidence with the keys of these controllers.
pub(crate) fn attest(mut envelope: Envelope, signers: &[u8], expires_at: u64) -> Envelope {
    let attestation = Attestation {
        request: envelope.request.clone(),
        command: command_digest(&envelope.command),
        actor: envelope.actor.clone(),
        expires_at: Timestamp(expires_at),
    };
    let sign = |seed: &u8| Signature::make(&key(*seed), ATTESTATION_DOMAIN, &attestation.bytes());
    envelope.evidence = Evidence::Attested {
        expires_at: attestation.expires_at,
        signatures: signers.iter().map(sign).collect(),
    };
    envelope
}

/// Signs the evidence of several envelopes together with the keys of these controllers.
pub(crate) fn attest_together(envelopes: &mut [Envelope], signers: &[u8], expires_at: u64) {
    let expires_at = Timestamp(expires_at);
    let leaf = |envelope: &Envelope| Attestation::of(envelope, expires_at).bytes();
    let leaves: Vec<_> = envelopes.iter().map(leaf).collect();
    let batch = AttestationBatch::of(&leaves);
    let sign = |seed: &u8| Signature::make(&key(*seed), ATTESTATION_BATCH_DOMAIN, &batch.bytes());
    let signatures: Vec<_> = signers.iter().map(sign).collect();
    let places = (0..).zip(merkle_paths(&leaves));
    for (envelope, (index, path)) in envelopes.iter_mut().zip(places) {
        envelope.evidence = Evidence::AttestedInBatch(Box::new(InBatch {
            expires_at,
            batch: batch.clone(),
            index,
            path,
            signatures: signatures.clone(),
        }));
    }
}

/// A State and everything needed to ask it for something.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) now: u64,
    requests: u64,
    /// Everything that was applied, in order.
    pub(crate) log: Vec<Envelope>,
    /// Everything that was answered.
    pub(crate) applied: Vec<Applied>,
}

impl World {
    /// A founded cluster, with nothing in it.
    pub(crate) fn founded() -> Self {
        Self::founded_under(RULES_VERSION)
    }

    /// A cluster that was founded by a program whose newest rules were these.
    pub(crate) fn founded_under(rules: u16) -> Self {
        let mut world = Self {
            state: State::default(),
            now: START,
            requests: 0,
            log: vec![],
            applied: vec![],
        };
        let found = Command::Found(Box::new(genesis()));
        let mut envelope = world.envelope(Actor::Founder, found);
        envelope.rules = rules;
        assert_eq!(world.apply(&envelope), Ok(Accepted::Done));
        world
    }

    /// A cluster with the release and an agent that joined by a proven token.
    pub(crate) fn with_agent() -> (Self, TestAgent) {
        Self::with_agent_under(RULES_VERSION)
    }

    fn with_agent_under(rules: u16) -> (Self, TestAgent) {
        let mut world = Self::founded_under(rules);
        world.add_release();
        let agent = world.join(40);
        (world, agent)
    }

    /// A cluster with one active deployment.
    pub(crate) fn with_active() -> (Self, TestAgent, DeploymentId) {
        Self::with_active_under(RULES_VERSION)
    }

    /// The same in a cluster that was founded under these rules.
    pub(crate) fn with_active_under(rules: u16) -> (Self, TestAgent, DeploymentId) {
        let (mut world, mut agent) = Self::with_agent_under(rules);
        let id = world.create("Demo ISP");
        world.make_active(&mut agent, &id);
        (world, agent, id)
    }

    pub(crate) fn add_release(&mut self) {
        let command = Command::AddRelease {
            manifest: MANIFEST.into(),
        };
        assert_eq!(self.ask(command), Ok(Accepted::Done));
    }

    /// An agent joins through a token of the administrator's.
    pub(crate) fn join(&mut self, seed: u8) -> TestAgent {
        let agent = TestAgent::new(seed);
        let token = 0x1000 + u64::from(seed);
        let mut command = join_token(token);
        command.expires_at = Timestamp(self.now + HOUR_MS);
        assert_eq!(
            self.ask(Command::CreateJoinToken(command)),
            Ok(Accepted::Done)
        );
        let actor = Actor::Agent(agent.id.clone());
        let enrol = self.envelope(actor, Command::EnrolAgent(agent.enrol(token)));
        assert_eq!(self.apply(&enrol), Ok(Accepted::Agent(agent.id.clone())));
        agent
    }

    pub(crate) fn request(&mut self) -> RequestId {
        self.requests += 1;
        format!("{:032x}", self.requests).parse().unwrap()
    }

    /// An envelope without proof.
    pub(crate) fn envelope(&mut self, actor: Actor, command: Command) -> Envelope {
        Envelope {
            at: Timestamp(self.now),
            rules: RULES_VERSION,
            request: self.request(),
            asked: command_digest(&command),
            actor,
            evidence: Evidence::None,
            expected: None,
            hops: vec![],
            trace: None,
            command,
        }
    }

    /// An envelope that two controllers vouch for.
    pub(crate) fn proven(&mut self, actor: Actor, command: Command) -> Envelope {
        let expires_at = self.now + 30_000;
        let envelope = self.envelope(actor, command);
        attest(envelope, &[1, 2], expires_at)
    }

    pub(crate) fn apply(&mut self, envelope: &Envelope) -> Reply {
        let applied = self.state.apply(envelope);
        self.log.push(envelope.clone());
        self.applied.push(applied.clone());
        applied.reply
    }

    /// Everything that was written to the ledger.
    pub(crate) fn facts(&self) -> Vec<Fact> {
        let facts = self.applied.iter().flat_map(|applied| &applied.facts);
        facts.cloned().collect()
    }

    /// Asks as the administrator, with proof.
    pub(crate) fn ask(&mut self, command: Command) -> Reply {
        self.ask_as(admin(), command)
    }

    pub(crate) fn ask_as(&mut self, actor: Actor, command: Command) -> Reply {
        let envelope = self.proven(actor, command);
        self.apply(&envelope)
    }

    /// Asks as whoever controls one controller: without proof.
    pub(crate) fn forge(&mut self, command: Command) -> Reply {
        let envelope = self.envelope(admin(), command);
        self.apply(&envelope)
    }

    pub(crate) fn plan(&mut self, command: Command) -> Reply {
        let envelope = self.envelope(Actor::Planner, command);
        self.apply(&envelope)
    }

    /// What the planners ask for now, besides the clock of every minute.
    pub(crate) fn planned(&self) -> Vec<Command> {
        let mut due = self.due();
        due.retain(|command| *command != Command::SealClock);
        due
    }

    /// Everything that the planners ask for now.
    pub(crate) fn due(&self) -> Vec<Command> {
        plan(&self.state, Timestamp(self.now))
    }

    /// Applies what the planners ask for until they ask for nothing.
    pub(crate) fn carry_on(&mut self) {
        for _ in 0..100 {
            if self.due().is_empty() {
                return;
            }
            for command in self.due() {
                self.plan(command).unwrap();
            }
        }
        panic!("the planners never come to an end: {:?}", self.due());
    }

    pub(crate) fn create(&mut self, name: &str) -> DeploymentId {
        deployment_of(self.ask(create(name)))
    }

    pub(crate) fn report(&mut self, agent: &TestAgent, records: Vec<SignedRecord>) -> Reply {
        let actor = Actor::Agent(agent.id.clone());
        let envelope = self.envelope(actor, agent.report(records));
        self.apply(&envelope)
    }

    /// The last order for a deployment's instance.
    pub(crate) fn leaf(&self, id: &DeploymentId) -> Leaf {
        let unit = UnitId::instance(id);
        let mut leaves = self.state.waves.values().flat_map(decode_leaves);
        leaves
            .rfind(|leaf| leaf.unit == unit)
            .expect("an order for the deployment is sealed")
    }

    /// An order as it was sealed for this unit last.
    pub(crate) fn leaf_like(&self, id: &DeploymentId, unit: &Unit) -> Leaf {
        let trust = self.state.trust.as_ref().expect("founded");
        Leaf {
            agent: self.state.agents.keys().next().expect("an agent").clone(),
            tenant: unit.tenant.clone(),
            unit: UnitId::instance(id),
            verb: unit.verb,
            generation: unit.generation,
            sequence: unit.sequence,
            previous: unit.acknowledged,
            epoch: trust.epoch,
            trust_version: trust.version,
            window: Window {
                not_before: Timestamp(self.now),
                not_after: Timestamp(self.now + WINDOW_MS),
            },
            payload: Digest::of(&unit.payload),
            request: unit.request.clone(),
            trace: unit.trace,
        }
    }

    /// Seals, accepts and runs a deployment.
    pub(crate) fn make_active(&mut self, agent: &mut TestAgent, id: &DeploymentId) {
        self.carry_on();
        let leaf = self.leaf(id);
        let limits = Limits::Enforced {
            by: "cgroup v2".into(),
        };
        let records = vec![
            agent.receipt(&leaf, Outcome::Accepted),
            agent.receipt(&leaf, Outcome::Applied { limits }),
            agent.health(&leaf, HealthStatus::Healthy, ""),
        ];
        self.report(agent, records).unwrap();
    }

    /// Lets a sealed tombstone be obeyed.
    pub(crate) fn confirm_removal(&mut self, agent: &mut TestAgent, id: &DeploymentId) {
        let leaf = self.leaf(id);
        let records = vec![
            agent.receipt(&leaf, Outcome::Accepted),
            agent.receipt(&leaf, Outcome::Removed),
        ];
        self.report(agent, records).unwrap();
    }

    /// Deletes a deployment and lets its removal come true.
    pub(crate) fn destroy(&mut self, agent: &mut TestAgent, id: &DeploymentId) {
        let deployment = id.clone();
        self.ask(Command::DeleteDeployment { deployment }).unwrap();
        self.now += GRACE_MS;
        self.carry_on();
        self.confirm_removal(agent, id);
    }
}

pub(crate) fn deployment_of(reply: Reply) -> DeploymentId {
    let Ok(Accepted::Deployment { deployment, .. }) = reply else {
        panic!("not a deployment: {reply:?}");
    };
    deployment
}

pub(crate) fn code_of(reply: Reply) -> Code {
    reply.expect_err("it should be refused").code
}
