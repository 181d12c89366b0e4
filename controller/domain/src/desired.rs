//! What each agent has to keep true, and the waves that order it. Orders wait here until their agent has them on disk.

use dotmac_protocol::{
    codec,
    digest::Digest,
    ids::{AgentId, DeploymentId, Generation, RequestId, Sequence, TenantId, UnitId},
    record::Hop,
    time::{Timestamp, Window},
    unit::{Instance, Payload, RunState},
    wave::{self, Leaf, Verb, WAVE_LEAVES_MAX, WaveHeader},
};
use serde::{Deserialize, Serialize};

use crate::{
    envelope::Envelope,
    fleet::Presence,
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
    tenancy::{Deployment, Status, Waiting},
};

/// One thing that one agent has to keep true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Whose.
    pub tenant: TenantId,
    /// Which deployment it belongs to.
    pub deployment: DeploymentId,
    /// What to do.
    pub verb: Verb,
    /// Counts changes of what it should be.
    pub generation: Generation,
    /// Encoded payload.
    pub payload: Vec<u8>,
    /// Number of the last order sealed for it; 0 for none.
    pub sequence: Sequence,
    /// Number of the last order that the agent has on disk; 0 for none.
    pub acknowledged: Sequence,
    /// Generation that the agent has on disk; 0 for none.
    pub acknowledged_generation: Generation,
    /// The wave that the last order is in, while it is not acknowledged.
    pub wave: Option<u64>,
    /// Why the agent did not take the last order.
    pub refused: Option<String>,
    /// The request that authorises it.
    pub request: RequestId,
}

/// A sealed wave, until all its orders are acknowledged or replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Encoded [`WaveHeader`]: what controllers sign.
    pub header: Vec<u8>,
    /// Encoded leaves, in the tree's order.
    pub leaves: Vec<Vec<u8>>,
    /// When it was sealed, by the State's clock.
    pub sealed_at: Timestamp,
    /// Its window.
    pub window: Window,
}

impl Unit {
    /// Whether a new order must be sealed: there is something newer than what was sealed, or it ran out undelivered.
    #[must_use]
    pub fn needs_order(&self, state: &State, now: Timestamp) -> bool {
        if self.acknowledged_generation >= self.generation {
            return false;
        }
        match self.wave.and_then(|number| state.waves.get(&number)) {
            None => true,
            Some(wave) => {
                let sealed_for_older_trust = state.trust.as_ref().is_some_and(|trust| {
                    decode_header(wave).is_some_and(|one| one.trust_version != trust.version)
                });
                now >= wave.window.not_after || sealed_for_older_trust
            }
        }
    }
}

/// The header of a wave in the State.
#[must_use]
pub fn decode_header(wave: &Wave) -> Option<WaveHeader> {
    codec::decode(&wave.header).ok()
}

/// The leaves of a wave in the State.
#[must_use]
pub fn decode_leaves(wave: &Wave) -> Vec<Leaf> {
    wave.leaves
        .iter()
        .filter_map(|leaf| codec::decode(leaf).ok())
        .collect()
}

impl State {
    /// Gives a deployment to an agent and orders its instance.
    pub(crate) fn assign(&mut self, id: &DeploymentId, agent: &AgentId, now: Timestamp) {
        self.change_deployment(id, now, |deployment| {
            deployment.agent = Some(agent.clone());
            deployment.status = Status::Provisioning;
        });
        self.order_instance(id, now);
    }

    /// Writes what a deployment should be into the outbox of its agent.
    pub(crate) fn order_instance(&mut self, id: &DeploymentId, now: Timestamp) {
        let Some(deployment) = self.deployments.get(id) else {
            return;
        };
        let (Some(agent), Some(instance)) = (&deployment.agent, self.instance_of(id)) else {
            return;
        };
        let Ok(payload) = codec::encode(&Payload::Instance(Box::new(instance))) else {
            // Field limits keep a payload below its bound; a request that did not would wait here, visibly.
            return;
        };
        let (agent, unit) = (agent.clone(), UnitId::instance(id));
        let generation = deployment.generation;
        let request = deployment.warrant.request.clone();
        let tenant = deployment.tenant.clone();
        self.write_unit(
            &agent,
            unit,
            tenant,
            id,
            Verb::Apply,
            generation,
            payload,
            request,
        );
        self.refresh_waiting(&agent, now);
    }

    /// Writes a tombstone into the outbox.
    pub(crate) fn order_removal(&mut self, agent: &AgentId, unit: &UnitId, now: Timestamp) {
        let Some(known) = self.units.get(&(agent.clone(), unit.clone())).cloned() else {
            return;
        };
        let Some(deployment) = self.deployments.get(&known.deployment) else {
            return;
        };
        let payload = codec::encode(&Payload::Nothing).expect("an empty payload is small");
        let (generation, request) = (deployment.generation, deployment.warrant.request.clone());
        let (tenant, id) = (known.tenant, known.deployment);
        self.write_unit(
            agent,
            unit.clone(),
            tenant,
            &id,
            Verb::Remove,
            generation,
            payload,
            request,
        );
        self.refresh_waiting(agent, now);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one argument for each field of the order"
    )]
    fn write_unit(
        &mut self,
        agent: &AgentId,
        unit: UnitId,
        tenant: TenantId,
        deployment: &DeploymentId,
        verb: Verb,
        generation: Generation,
        payload: Vec<u8>,
        request: RequestId,
    ) {
        let key = (agent.clone(), unit);
        let before = self.units.get(&key);
        let entry = Unit {
            tenant,
            deployment: deployment.clone(),
            verb,
            generation,
            payload,
            sequence: before.map_or(Sequence(0), |unit| unit.sequence),
            acknowledged: before.map_or(Sequence(0), |unit| unit.acknowledged),
            acknowledged_generation: before
                .map_or(Generation(0), |unit| unit.acknowledged_generation),
            wave: None,
            refused: None,
            request,
        };
        self.units.insert_mut(key, entry);
    }

    /// What an agent is told of a deployment.
    #[must_use]
    pub fn instance_of(&self, id: &DeploymentId) -> Option<Instance> {
        let deployment = self.deployments.get(id)?;
        let release = self.releases.get(&deployment.release)?;
        Some(Instance {
            tenant: deployment.tenant.clone(),
            tenant_name: deployment.tenant_name.clone(),
            deployment: id.clone(),
            environment: deployment.environment.clone(),
            region: deployment.region.clone(),
            domain_name: deployment.domain_name.clone(),
            manifest: release.manifest.clone(),
            release: release.digest,
            resources: deployment.resources,
            replicas: deployment.replicas,
            run: RunState::Running,
            license: deployment.license.clone(),
            features: deployment.features.clone(),
            custom_config: deployment.custom_config.clone(),
            credentials: deployment.credentials.clone(),
        })
    }

    /// Seals the newest orders of the named units. Everything in the wave follows from the State.
    pub(crate) fn seal_wave(
        &mut self,
        envelope: &Envelope,
        orders: &[(AgentId, UnitId)],
        now: Timestamp,
    ) -> Reply {
        self.require_planner(envelope)?;
        if orders.len() > WAVE_LEAVES_MAX {
            return Err(Rejection::field(
                "orders",
                orders.len(),
                format!("at most {WAVE_LEAVES_MAX}"),
            ));
        }
        let (Some(genesis), Some(trust)) = (self.genesis.as_ref(), self.trust.as_ref()) else {
            return Err(Rejection::new(
                Code::NotFounded,
                "the cluster is not founded yet",
            ));
        };
        let window = Window {
            not_before: now,
            not_after: now.plus_millis(genesis.window_ms),
        };
        // The window opens early enough for an agent whose clock is behind; see the signers' and agents' checks.
        let window = Window {
            not_before: Timestamp(now.0.saturating_sub(30_000)),
            ..window
        };
        let (epoch, trust_version) = (trust.epoch, trust.version);
        let mut sealed = Vec::new();
        let mut leaves = Vec::new();
        for key in orders {
            let Some(unit) = self.units.get(key) else {
                continue;
            };
            if !unit.needs_order(self, now) {
                continue;
            }
            let leaf = Leaf {
                agent: key.0.clone(),
                tenant: unit.tenant.clone(),
                unit: key.1.clone(),
                verb: unit.verb,
                generation: unit.generation,
                sequence: unit.sequence.next(),
                previous: unit.acknowledged,
                epoch,
                trust_version,
                window,
                payload: Digest::of(&unit.payload),
                request: unit.request.clone(),
            };
            leaves.push(leaf.bytes());
            sealed.push((key.clone(), leaf));
        }
        if leaves.is_empty() {
            return Ok(Accepted::Wave(0));
        }
        self.wave_number = self.wave_number.saturating_add(1);
        let number = self.wave_number;
        let header = WaveHeader {
            number,
            root: wave::merkle_root(&leaves),
            leaves: u32::try_from(leaves.len()).unwrap_or(u32::MAX),
            epoch,
            trust_version,
            sealed_at: now,
            window,
        };
        let header = codec::encode(&header).expect("a wave header is of fixed size");
        self.waves.insert_mut(
            number,
            Wave {
                header,
                leaves,
                sealed_at: now,
                window,
            },
        );
        for (key, leaf) in sealed {
            let unit = self.units.get(&key).expect("it was found above").clone();
            let deployment = unit.deployment.clone();
            let entry = Unit {
                sequence: leaf.sequence,
                wave: Some(number),
                refused: None,
                ..unit
            };
            self.units.insert_mut(key.clone(), entry);
            self.note_hop(&deployment, "controller.sealed", now);
            self.refresh_waiting(&key.0, now);
        }
        self.forget_waves();
        Ok(Accepted::Wave(number))
    }

    /// Notes a station once, while the first order is under way.
    pub(crate) fn note_hop(&mut self, id: &DeploymentId, station: &str, at: Timestamp) {
        let Some(deployment) = self.deployments.get(id) else {
            return;
        };
        let is_known = deployment.journey.iter().any(|hop| hop.station == station);
        if is_known || deployment.deployed_at.is_some() {
            return;
        }
        let hop = Hop {
            station: station.into(),
            at,
        };
        let updated = deployment.updated_at;
        self.change_deployment(id, updated, |deployment| deployment.journey.push(hop));
    }

    /// Drops waves that no unacknowledged order belongs to.
    pub(crate) fn forget_waves(&mut self) {
        let used: std::collections::BTreeSet<u64> =
            self.units.values().filter_map(|unit| unit.wave).collect();
        let unused: Vec<u64> = self
            .waves
            .keys()
            .copied()
            .filter(|number| !used.contains(number))
            .collect();
        for number in unused {
            self.waves.remove_mut(&number);
        }
    }

    /// Says again what the orders of an agent wait for (law 10).
    pub(crate) fn refresh_waiting(&mut self, agent: &AgentId, now: Timestamp) {
        let Some(entry) = self.agents.get(agent) else {
            return;
        };
        let presence = entry.presence.clone();
        let ids: Vec<DeploymentId> = self
            .units
            .iter()
            .filter(|((owner, _), _)| owner == agent)
            .map(|(_, unit)| unit.deployment.clone())
            .collect();
        for id in ids {
            let Some(deployment) = self.deployments.get(&id) else {
                continue;
            };
            let waiting = self.waiting_of(&id, deployment, agent, &presence, now);
            let same = |one: &Option<Waiting>, other: &Option<Waiting>| {
                one.as_ref().map(|w| &w.reason) == other.as_ref().map(|w| &w.reason)
            };
            if !same(&waiting, &deployment.waiting) {
                let updated = deployment.updated_at;
                self.change_deployment(&id, updated, |deployment| deployment.waiting = waiting);
            }
        }
    }

    fn waiting_of(
        &self,
        id: &DeploymentId,
        deployment: &Deployment,
        agent: &AgentId,
        presence: &Presence,
        now: Timestamp,
    ) -> Option<Waiting> {
        let settled = matches!(deployment.status, Status::Active | Status::Destroyed);
        let in_grace = deployment.delete_after.is_some();
        if settled || in_grace {
            return if settled {
                None
            } else {
                deployment.waiting.clone()
            };
        }
        let unit = self.units.get(&(agent.clone(), UnitId::instance(id)))?;
        let is_held = unit.acknowledged_generation >= unit.generation;
        let (reason, who) = match (is_held, presence, &unit.refused, unit.wave) {
            (false, Presence::Disconnected { .. }, ..) => (
                format!("agent {agent} is not connected"),
                "whoever runs that agent".to_owned(),
            ),
            (false, _, Some(refusal), _) => (
                format!("agent {agent} refused the order: {refusal}"),
                "an operator: see `dotmac audit`".to_owned(),
            ),
            (false, _, None, None) => (
                "its order is not sealed yet".to_owned(),
                "the leading controller".to_owned(),
            ),
            (false, _, None, Some(number)) => (
                format!(
                    "wave {number} is on its way: to be signed by a majority of the controllers and delivered"
                ),
                "the controllers: `dotmac cluster status` shows who signs".to_owned(),
            ),
            (true, ..) if !deployment.health_reason.is_empty() => (
                deployment.health_reason.clone(),
                format!("agent {agent} keeps trying"),
            ),
            (true, ..) => (
                "its agent has the order and its probes are not healthy yet".to_owned(),
                format!("agent {agent}"),
            ),
        };
        Some(Waiting {
            reason,
            since: now,
            who,
        })
    }
}
