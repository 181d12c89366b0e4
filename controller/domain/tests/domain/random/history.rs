//! What a history becomes: each step is turned into envelopes that fit the world as it is by then.

use dotmac_domain::{
    Command,
    access::Role,
    envelope::{Actor, Envelope},
    fleet::Presence,
};
use dotmac_protocol::{
    digest::Digest,
    ids::{DeploymentId, NodeId, TenantId},
    record::{Event, HealthStatus, Limits, Outcome, SignedRecord},
    time::Timestamp,
};

use crate::fixture::{
    HOUR_MS, MANIFEST, TestAgent, World, admin, attest, deployment, join_token, token, token_id,
};

use super::{Step, change::change};

/// Roles that tokens get.
const ROLES: [Role; 4] = [
    Role::PlatformAdmin,
    Role::TenantAdmin,
    Role::TenantUser,
    Role::Support,
];

/// A world in which a history happens.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) world: World,
    agents: Vec<(TestAgent, Vec<SignedRecord>)>,
}

impl History {
    /// A cluster with a release and an agent.
    pub(crate) fn new() -> Self {
        let (world, agent) = World::with_agent();
        Self {
            world,
            agents: vec![(agent, vec![])],
        }
    }

    /// Takes one step: applies the envelopes that it becomes.
    pub(crate) fn take(&mut self, step: &Step) {
        match step.clone() {
            Step::Clock(delta) => {
                self.world.now = self.world.now.saturating_add_signed(delta);
            }
            Step::Plan => {
                for command in self.world.due() {
                    self.as_planner(command);
                }
            }
            Step::SealAll => {
                let orders = self.world.state.units.keys().cloned().collect();
                self.as_planner(Command::SealWave { orders });
            }
            Step::Remove { which } => {
                let deployment = self.deployment(which);
                self.as_planner(Command::RemoveDeployment { deployment });
            }
            Step::Forget { which } => {
                let deployment = self.deployment(which);
                self.as_planner(Command::ForgetDeployment { deployment });
            }
            Step::Presence { agent, kind } => self.presence(agent, kind),
            Step::Report { agent, unit, kind } => self.report(agent, unit, kind),
            Step::ReportAgain { agent, from } => self.report_again(agent, from),
            Step::ReportGap { agent } => {
                let index = pick(agent, self.agents.len());
                let (agent, _) = &mut self.agents[index];
                let head = agent.head();
                agent.record(None, audit_event("skipped"));
                let after = agent.record(None, audit_event("behind the gap"));
                agent.rewind(head);
                self.send(index, vec![after]);
            }
            Step::Enrol { seed, token } => self.enrol(seed, token),
            Step::Renew { agent, key } => {
                let index = pick(agent, self.agents.len());
                let actor = Actor::Agent(self.agents[index].0.id.clone());
                let not_after = Timestamp(self.world.now);
                let key = Digest::of(&[key]);
                let command = Command::RenewCertificate { key, not_after };
                let envelope = self.world.envelope(actor, command);
                self.apply(&envelope);
            }
            Step::Again { which, changed } => {
                let mut envelope = self.logged(which).clone();
                if changed {
                    envelope.asked = Digest::of(b"changed");
                }
                envelope.at = Timestamp(self.world.now);
                self.apply(&envelope);
            }
            Step::Create { .. }
            | Step::Delete { .. }
            | Step::Undelete { .. }
            | Step::Change { .. }
            | Step::JoinToken { .. }
            | Step::Token { .. }
            | Step::Release { .. }
            | Step::Retire { .. }
            | Step::Platform { .. }
            | Step::Access { .. } => self.person(step),
        }
    }

    /// Whether a step seals orders that the planners do not want sealed now.
    pub(crate) fn seals_unasked(&self, step: &Step) -> bool {
        match step {
            Step::SealAll => true,
            Step::Again { which, .. } => {
                matches!(self.logged(*which).command, Command::SealWave { .. })
            }
            _ => false,
        }
    }

    /// An envelope of those that were applied.
    fn logged(&self, which: u8) -> &Envelope {
        &self.world.log[pick(which, self.world.log.len())]
    }

    fn person(&mut self, step: &Step) {
        let (command, who, proof) = match step.clone() {
            Step::Create {
                name,
                tenant,
                environment,
                region,
                who,
                proof,
            } => {
                let tenant = tenant.map(|one| self.tenant(one));
                (creation(name, tenant, environment, region), who, proof)
            }
            Step::Delete { which, who, proof } => (
                Command::DeleteDeployment {
                    deployment: self.deployment(which),
                },
                who,
                proof,
            ),
            Step::Undelete { which, who } => (
                Command::UndeleteDeployment {
                    deployment: self.deployment(which),
                },
                who,
                1,
            ),
            Step::Change {
                which,
                kind,
                who,
                proof,
            } => (change(self.deployment(which), kind), who, proof),
            Step::JoinToken { number, proof } => {
                let mut token = join_token(0x200 + u64::from(number % 4));
                token.expires_at = Timestamp(self.world.now + HOUR_MS);
                (Command::CreateJoinToken(token), 0, proof)
            }
            Step::Token {
                number,
                role,
                tenant,
                proof,
            } => {
                let role = ROLES[pick(role, 4)];
                let tenant = role.is_tenant_bound().then(|| self.tenant(tenant));
                let command = token(2 + u64::from(number % 3), role, tenant.as_ref());
                (Command::CreateToken(command), number, proof)
            }
            Step::Release { version, proof } => {
                let version = format!("1.0.{}", version % 3);
                let manifest = MANIFEST.replace("1.0.0", &version).into_bytes();
                (Command::AddRelease { manifest }, 0, proof)
            }
            Step::Retire { version } => {
                let version = format!("1.0.{}", version % 3).parse().unwrap();
                let name = "demo-isp".parse().unwrap();
                (Command::RetireRelease { name, version }, 0, 1)
            }
            Step::Access { tenant, who } => {
                let tenant = (tenant % 4 > 0).then(|| self.tenant(tenant));
                let (action, detail) = ("logs.read".into(), "20 lines".into());
                (
                    Command::NoteAccess {
                        action,
                        tenant,
                        detail,
                    },
                    who,
                    1,
                )
            }
            Step::Platform {
                kind,
                which,
                who,
                proof,
            } => {
                let (state, now) = (&self.world.state, self.world.now);
                (
                    super::platform::command(state, kind, which, now),
                    who,
                    proof,
                )
            }
            other => panic!("no request of a person: {other:?}"),
        };
        self.ask(command, who, proof);
    }

    /// Asks as somebody, mostly the administrator, and mostly with proof.
    fn ask(&mut self, command: Command, who: u8, proof: u8) {
        let actor = match who % 8 {
            0 => Actor::Person(token_id(2)),
            1 => Actor::Person(token_id(99)),
            2 => Actor::Planner,
            _ => admin(),
        };
        let envelope = self.world.envelope(actor, command);
        let expires_at = self.world.now + 30_000;
        let envelope = match proof % 8 {
            0 => envelope,
            2 => attest(envelope, &[3], expires_at),
            _ => attest(envelope, &[1, 2], expires_at),
        };
        self.apply(&envelope);
    }

    fn enrol(&mut self, seed: u8, number: u8) {
        let mut agent = TestAgent::new(40 + seed % 3);
        if let Some((known, _)) = self.agents.iter().find(|(one, _)| one.id == agent.id) {
            agent = known.clone();
        }
        let actor = Actor::Agent(agent.id.clone());
        let command = Command::EnrolAgent(agent.enrol(0x200 + u64::from(number % 4)));
        let envelope = self.world.envelope(actor, command);
        self.apply(&envelope);
        if self.agents.iter().all(|(one, _)| one.id != agent.id) {
            self.agents.push((agent, vec![]));
        }
    }

    fn presence(&mut self, agent: u8, kind: u8) {
        let since = Timestamp(self.world.now);
        let presence = match kind % 3 {
            0 => Presence::Unknown,
            1 => Presence::Disconnected { since },
            _ => Presence::Connected {
                node: NodeId(1),
                software: "0.1.0".into(),
                since,
            },
        };
        let agent = self.agents[pick(agent, self.agents.len())].0.id.clone();
        self.as_planner(Command::NotePresence {
            changes: vec![(agent, presence)],
        });
    }

    fn report(&mut self, agent: u8, unit: u8, kind: u8) {
        let units: Vec<_> = self.world.state.units.iter().collect();
        if units.is_empty() {
            return;
        }
        let ((owner, _), unit) = units[pick(unit, units.len())];
        // Mostly the owner speaks of his unit, sometimes another agent does.
        let by_owner = self.agents.iter().position(|(one, _)| one.id == *owner);
        let index = match by_owner {
            Some(owner) if kind % 16 != 15 => owner,
            _ => pick(agent, self.agents.len()),
        };
        let mut leaf = self.world.leaf_like(&unit.deployment, unit);
        if kind % 8 == 7 {
            leaf.generation.0 = leaf.generation.0.wrapping_add(u64::from(agent));
            leaf.sequence.0 = leaf.sequence.0.saturating_sub(1);
        }
        let (agent, _) = &mut self.agents[index];
        let limits = Limits::NotEnforced {
            reason: "no cgroups".into(),
        };
        let record = match kind / 16 {
            0..4 => agent.receipt(&leaf, Outcome::Accepted),
            4 => agent.receipt(
                &leaf,
                Outcome::Refused {
                    reason: "too old".into(),
                },
            ),
            5 => agent.receipt(&leaf, Outcome::Applied { limits }),
            6 => agent.receipt(
                &leaf,
                Outcome::Failing {
                    reason: "no port".into(),
                },
            ),
            7 => agent.receipt(&leaf, Outcome::Removed),
            8..11 => agent.health(&leaf, HealthStatus::Healthy, ""),
            11 => agent.health(&leaf, HealthStatus::Degraded, "slow"),
            12 => agent.health(&leaf, HealthStatus::Failed, "exit status 7"),
            13 => agent.health(&leaf, HealthStatus::Starting, ""),
            14 => {
                let reports = crate::reports::one_of_each(self.world.now / 60_000);
                agent.record(Some(&leaf.unit), Event::Reports(reports))
            }
            _ => agent.record(Some(&leaf.unit), audit_event("instance.restarted")),
        };
        self.send(index, vec![record]);
    }

    fn report_again(&mut self, agent: u8, from: u8) {
        let index = pick(agent, self.agents.len());
        let known = &self.agents[index].1;
        if known.is_empty() {
            return;
        }
        let records = known[pick(from, known.len())..].to_vec();
        let (agent, _) = &self.agents[index];
        let actor = Actor::Agent(agent.id.clone());
        let envelope = self.world.envelope(actor, agent.report(records));
        self.apply(&envelope);
    }

    fn send(&mut self, index: usize, records: Vec<SignedRecord>) {
        let (agent, sent) = &mut self.agents[index];
        let actor = Actor::Agent(agent.id.clone());
        let envelope = self.world.envelope(actor, agent.report(records.clone()));
        let accepted = self.world.apply(&envelope).is_ok();
        if accepted {
            sent.extend(records);
        }
    }

    fn as_planner(&mut self, command: Command) {
        let envelope = self.world.envelope(Actor::Planner, command);
        self.apply(&envelope);
    }

    fn apply(&mut self, envelope: &Envelope) {
        // Whether it was accepted is not the point here.
        let _reply = self.world.apply(envelope);
    }

    fn deployment(&self, which: u8) -> DeploymentId {
        let known: Vec<_> = self.world.state.deployments.keys().collect();
        match known.len() {
            0 => "nobody-00000000".parse().unwrap(),
            count => known[pick(which, count)].clone(),
        }
    }

    fn tenant(&self, which: u8) -> TenantId {
        let known: Vec<_> = self.world.state.tenants.keys().collect();
        match known.len() {
            0 => "nobody-00000000".parse().unwrap(),
            count => known[pick(which, count)].clone(),
        }
    }
}

fn creation(name: u8, tenant: Option<TenantId>, environment: u8, region: u8) -> Command {
    let environments = ["production", "staging", "development", "moon"];
    let regions = ["lab-1", "lab-1", "lab-2", "mars"];
    let mut create = deployment(&format!("ISP {}", name % 8));
    create.tenant = tenant;
    create.environment = environments[pick(environment, 4)].into();
    let region = regions.get(pick(region, 5));
    create.region = region.map(|one| one.parse().unwrap());
    create.domain_name = (name.is_multiple_of(3)).then(|| format!("isp{}.example", name % 4));
    Command::CreateDeployment(Box::new(create))
}

pub(crate) fn audit_event(action: &str) -> Event {
    Event::Audit {
        action: action.into(),
        detail: String::new(),
    }
}

fn pick(number: u8, count: usize) -> usize {
    usize::from(number) % count
}
