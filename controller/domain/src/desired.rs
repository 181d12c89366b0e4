//! What each agent has to keep true, and the waves that order it. Orders wait here until their agent has them on disk.

use std::collections::BTreeMap;

use dotmac_protocol::{
    codec,
    digest::Digest,
    ids::{AgentId, DeploymentId, Generation, RequestId, Sequence, TenantId, UnitId},
    time::{Timestamp, Window},
    trace::TraceContext,
    unit::{Instance, Payload},
    wave::{self, Leaf, Verb, WAVE_LEAVES_MAX, WaveHeader},
};
use serde::{Deserialize, Serialize};

use crate::{
    envelope::{Envelope, Warrant},
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
    tenancy::Status,
};

mod inventory;
mod journey;
mod waiting;

pub use journey::{JOURNEY_MAX, STATION_BYTES_MAX};

/// The smallest unit id there is.
const FIRST_UNIT: &str = "0------------------0/0";

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
    /// The wave of the last order, acknowledged or not; 0 for none.
    pub sealed_in: u64,
    /// Why the agent did not take the last order.
    pub refused: Option<String>,
    /// The request that authorises it.
    pub request: RequestId,
    /// The trace of that request.
    pub trace: Option<TraceContext>,
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

/// What is written into the outbox.
struct Order {
    verb: Verb,
    generation: Generation,
    payload: Vec<u8>,
    warrant: Warrant,
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
    /// The units of one agent.
    pub fn units_of(&self, agent: &AgentId) -> impl Iterator<Item = (&UnitId, &Unit)> {
        let first: UnitId = FIRST_UNIT.parse().expect("a unit id");
        self.units
            .range((agent.clone(), first)..)
            .take_while(move |((owner, _), _)| owner == agent)
            .map(|((_, id), unit)| (id, unit))
    }

    /// Gives a deployment to an agent and orders its instance.
    pub(crate) fn assign(&mut self, id: &DeploymentId, agent: &AgentId, now: Timestamp) {
        self.change_deployment(id, now, |deployment| {
            deployment.agent = Some(agent.clone());
            deployment.status = Status::Provisioning;
        });
        self.order_instance(id, now);
        self.refresh_waiting_of(id, now);
    }

    /// Writes what a deployment should be into the outbox of its agent.
    pub(crate) fn order_instance(&mut self, id: &DeploymentId, now: Timestamp) {
        let Some(deployment) = self.deployments.get(id).cloned() else {
            return;
        };
        let (Some(agent), Some(instance)) = (deployment.agent, self.instance_of(id)) else {
            return;
        };
        let Ok(payload) = codec::encode(&Payload::Instance(Box::new(instance))) else {
            // Field limits keep a payload below its bound; a request that did not would wait here, visibly.
            return;
        };
        let order = Order {
            verb: Verb::Apply,
            generation: deployment.generation,
            payload,
            warrant: deployment.warrant,
        };
        self.write_unit(&agent, id, deployment.tenant, order);
        self.refresh_waiting_of(id, now);
    }

    /// Writes a tombstone into the outbox.
    pub(crate) fn order_removal(&mut self, agent: &AgentId, id: &DeploymentId, now: Timestamp) {
        let Some(deployment) = self.deployments.get(id).cloned() else {
            return;
        };
        let Some(removal) = deployment.removal else {
            return;
        };
        let order = Order {
            verb: Verb::Remove,
            generation: deployment.generation,
            payload: codec::encode(&Payload::Nothing).expect("an empty payload is small"),
            warrant: removal,
        };
        self.write_unit(agent, id, deployment.tenant, order);
        self.refresh_waiting_of(id, now);
    }

    fn write_unit(
        &mut self,
        agent: &AgentId,
        deployment: &DeploymentId,
        tenant: TenantId,
        order: Order,
    ) {
        let key = (agent.clone(), UnitId::instance(deployment));
        self.release_quarantined(&key);
        let before = self.units.get(&key).cloned();
        if let Some(before) = &before {
            // Signers vouch for a wave as a whole: what else was in it is sealed again.
            self.break_wave(before.sealed_in);
        }
        let entry = Unit {
            tenant,
            deployment: deployment.clone(),
            verb: order.verb,
            generation: order.generation,
            payload: order.payload,
            sequence: before.as_ref().map_or(Sequence(0), |unit| unit.sequence),
            acknowledged: before
                .as_ref()
                .map_or(Sequence(0), |unit| unit.acknowledged),
            acknowledged_generation: before
                .as_ref()
                .map_or(Generation(0), |unit| unit.acknowledged_generation),
            wave: None,
            sealed_in: 0,
            refused: None,
            request: order.warrant.request,
            trace: order.warrant.trace,
        };
        self.put_unit(key, entry);
    }

    /// Writes a unit and counts the open orders of the wave that it leaves.
    pub(crate) fn put_unit(&mut self, key: (AgentId, UnitId), unit: Unit) {
        let left = self.units.get(&key).and_then(|before| before.wave);
        if let Some(number) = left.filter(|_| left != unit.wave) {
            let open = self.open_orders.get(&number).copied().unwrap_or(0);
            self.open_orders.insert_mut(number, open.saturating_sub(1));
            if open <= 1 {
                self.forget_wave(number);
            }
        }
        self.units.insert_mut(key, unit);
    }

    fn forget_wave(&mut self, number: u64) {
        self.waves.remove_mut(&number);
        self.open_orders.remove_mut(&number);
    }

    /// Takes a wave back because one of its orders was replaced: the open ones are to be sealed again.
    pub(crate) fn break_wave(&mut self, number: u64) {
        let Some(wave) = self.waves.get(&number).cloned() else {
            return;
        };
        self.forget_wave(number);
        for leaf in decode_leaves(&wave) {
            let key = (leaf.agent, leaf.unit);
            if let Some(unit) = self.units.get(&key)
                && unit.wave == Some(number)
            {
                let open = Unit {
                    wave: None,
                    ..unit.clone()
                };
                self.units.insert_mut(key, open);
            }
        }
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
            restarts: deployment.restarts,
            run: deployment.run_state(),
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
            let detail = "the cluster is not founded yet";
            return Err(Rejection::new(Code::NotFounded, detail));
        };
        // The window opens early enough for an agent whose clock is behind; see the signers' and agents' checks.
        let window = Window {
            not_before: Timestamp(now.0.saturating_sub(30_000)),
            not_after: now.plus_millis(genesis.window_ms),
        };
        let (epoch, trust_version) = (trust.epoch, trust.version);
        let mut sealed = BTreeMap::new();
        let mut leaves = Vec::new();
        for key in orders {
            let Some(unit) = self.units.get(key) else {
                continue;
            };
            if !unit.needs_order(self, now) || sealed.contains_key(key) || self.awaits(&key.0) {
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
                trace: unit.trace,
            };
            leaves.push(leaf.bytes());
            sealed.insert(key.clone(), (unit.sealed_in, leaf.sequence));
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
        let wave = Wave {
            header,
            leaves,
            sealed_at: now,
            window,
        };
        self.adopt_wave(number, wave, sealed, now);
        Ok(Accepted::Wave(number))
    }

    /// Puts a wave in place of those that its orders were in before.
    fn adopt_wave(
        &mut self,
        number: u64,
        wave: Wave,
        sealed: BTreeMap<(AgentId, UnitId), (u64, Sequence)>,
        now: Timestamp,
    ) {
        self.waves.insert_mut(number, wave);
        let open = u32::try_from(sealed.len()).unwrap_or(u32::MAX);
        self.open_orders.insert_mut(number, open);
        for (key, (before, sequence)) in sealed {
            self.break_wave(before);
            let unit = self.units.get(&key).expect("its order was sealed").clone();
            let deployment = unit.deployment.clone();
            let entry = Unit {
                sequence,
                wave: Some(number),
                sealed_in: number,
                refused: None,
                ..unit
            };
            self.put_unit(key, entry);
            self.note_hop(&deployment, "controller.sealed", now);
            self.refresh_waiting_of(&deployment, now);
        }
    }
}
