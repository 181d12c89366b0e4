//! After a restore from a backup: what the agents hold that is newer than the State is taken over before anything is
//! ordered of them, and what the State does not know is quarantined and shown. It removes and reverts nothing (law 2).
//! Longer than 400 lines: the restore and the adoption that follows from it are one story.

mod observed;

use dotmac_protocol::{
    codec,
    frame::InventoryItem,
    ids::{AgentId, DeploymentId, Epoch, Generation, RequestId, Sequence, UnitId},
    record::{ChainHead, HealthStatus},
    time::Timestamp,
    unit::Payload,
    wave::Verb,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    audit::{Entry, Fact, Facts, Stream},
    backups::Made,
    command::Genesis,
    desired::Unit,
    envelope::{Actor, Envelope},
    fleet::{Agent, Presence},
    reply::{Accepted, Rejection, Reply},
    state::{Map, State},
    tenancy::Status,
};

pub use observed::Observed;

/// The rules since which a State remembers a restore.
const RULES_SINCE: u16 = 2;

/// What is remembered of the last restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The backup's name.
    pub backup: String,
    /// Index of the last entry in the backup.
    pub index: u64,
    /// The State's clock in the backup.
    pub made_at: Timestamp,
    /// When it was restored.
    pub restored_at: Timestamp,
    /// The epoch that began with it.
    pub epoch: Epoch,
    /// Agents from which nothing newer was taken over yet: nothing is ordered of them.
    pub awaited: Map<AgentId, Awaited>,
    /// What agents hold otherwise than the State knows. It is left as it is.
    pub quarantined: Map<(AgentId, UnitId), Quarantined>,
}

/// What an agent has not told yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Awaited {
    /// Which units it holds.
    Inventory,
    /// Its records up to this one.
    Records(u64),
}

/// A unit that an agent holds and keeps, and that the State knows otherwise or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The deployment, if the State knows it: its content here is older than what runs.
    pub deployment: Option<DeploymentId>,
    /// The generation that the agent holds.
    pub generation: Generation,
    /// The sequence that the agent holds.
    pub sequence: Sequence,
    /// How it was when the agent told.
    pub health: HealthStatus,
    /// When the agent told.
    pub since: Timestamp,
}

/// How a State goes on from a backup.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The backup's name.
    pub backup: String,
    /// Index of the last entry in it.
    pub index: u64,
    /// Bytes of all its parts.
    pub bytes: u64,
    /// When it is restored.
    pub at: Timestamp,
    /// The cluster as it begins again: its new controllers, and the trust root that names them.
    pub genesis: Genesis,
}

/// Why a State cannot go on from a backup.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The backup is of a cluster that never began.
    #[error("the backup is of a cluster that was not founded")]
    NotFounded,
    /// The backup is of rules that know no restore.
    #[error(
        "the backup is of version {0} of the rules, and a cluster goes on from a backup since version {RULES_SINCE}"
    )]
    Rules(u16),
    /// The genesis is of another cluster.
    #[error("the backup is of cluster {found}, the genesis of {expected}")]
    Cluster {
        /// The backup's.
        found: String,
        /// The genesis's.
        expected: String,
    },
    /// Its trust root does not follow.
    #[error("the trust root of the genesis does not follow the backup's")]
    Trust(#[from] dotmac_protocol::trust::TrustError),
    /// Its epoch is not the next one.
    #[error("the trust root of the genesis has epoch {found}, after the backup's comes {expected}")]
    Epoch {
        /// The genesis's.
        found: Epoch,
        /// The next one.
        expected: Epoch,
    },
    /// Its keys are not those of the controllers.
    #[error("the trust root of the genesis does not name its controllers")]
    Controllers,
}

impl State {
    /// The State as it goes on after a restore, and the facts that this adds. The same on every controller.
    ///
    /// # Errors
    /// When the genesis does not follow from the backup.
    pub fn restored(mut self, restore: &Restore) -> Result<(Self, Vec<Fact>), RestoreError> {
        let (Some(before), Some(trust)) = (self.genesis.clone(), self.trust.clone()) else {
            return Err(RestoreError::NotFounded);
        };
        if self.rules < RULES_SINCE {
            return Err(RestoreError::Rules(self.rules));
        }
        let genesis = &restore.genesis;
        if before.cluster != genesis.cluster {
            let (found, expected) = (before.cluster.to_string(), genesis.cluster.to_string());
            return Err(RestoreError::Cluster { found, expected });
        }
        let next = genesis.trust_root.follow(&trust)?;
        let expected = Epoch(trust.epoch.0.saturating_add(1));
        if next.epoch != expected {
            let found = next.epoch;
            return Err(RestoreError::Epoch { found, expected });
        }
        let named: Vec<_> = next.controllers.iter().map(|one| one.signing_key).collect();
        let cards: Vec<_> = genesis.nodes.iter().map(|card| card.signing_key).collect();
        if named != cards || named.is_empty() {
            return Err(RestoreError::Controllers);
        }
        let made_at = self.now;
        let now = self.now.max(restore.at);
        self.now = now;
        let epoch = next.epoch;
        self.retire_all_controllers(now);
        self.begin_with(genesis, next, now);
        self.genesis = Some(Genesis {
            created_at: genesis.created_at,
            trust_root: genesis.trust_root.clone(),
            nodes: genesis.nodes.clone(),
            ..before
        });
        self.note_own_backup(restore, made_at);
        self.forget_presence();
        self.take_orders_back();
        let kept = self.take_deletions_back(now);
        let awaited = self
            .agents
            .keys()
            .map(|agent| (agent.clone(), Awaited::Inventory));
        self.recovery = Some(Recovery {
            backup: restore.backup.clone(),
            index: restore.index,
            made_at,
            restored_at: now,
            epoch,
            awaited: awaited.collect(),
            quarantined: Map::default(),
        });
        let facts = self.note_restore(restore, &kept, now);
        // Whoever watches begins anew with a snapshot: nothing is a change.
        let mark = self.cluster_mark();
        self.take_changed(mark);
        Ok((self, facts))
    }

    /// What a State in a backup cannot know: that the backup, which was under way then, is whole.
    fn note_own_backup(&mut self, restore: &Restore, made_at: Timestamp) {
        let running = self.backups.running.take();
        let since = running.map_or(made_at, |running| running.since);
        self.backups.asked = None;
        self.backups.failed = None;
        self.backups.good = Some(Made {
            name: restore.backup.clone(),
            at: made_at,
            index: restore.index,
            bytes: restore.bytes,
            took_ms: made_at.millis_since(since),
        });
    }

    /// Whether nothing may be ordered of an agent yet, because it holds what this State does not know.
    #[must_use]
    pub fn awaits(&self, agent: &AgentId) -> bool {
        let recovery = self.recovery.as_ref();
        recovery.is_some_and(|recovery| recovery.awaited.contains_key(agent))
    }

    /// What an agent holds otherwise than this State knows.
    pub fn quarantined_of(&self, agent: &AgentId) -> impl Iterator<Item = (&UnitId, &Quarantined)> {
        let all = self
            .recovery
            .iter()
            .flat_map(|recovery| recovery.quarantined.iter());
        all.filter(move |((owner, _), _)| owner == agent)
            .map(|((_, unit), one)| (unit, one))
    }

    /// Takes over what an agent holds, the first time that it tells after a restore.
    pub(crate) fn adopt_inventory(
        &mut self,
        envelope: &Envelope,
        inventory: &[InventoryItem],
        last_record: u64,
        now: Timestamp,
    ) -> Reply {
        let agent = self.agent_of(envelope)?;
        if inventory.len() > dotmac_protocol::frame::INVENTORY_MAX {
            let allowed = format!("at most {}", dotmac_protocol::frame::INVENTORY_MAX);
            return Err(Rejection::field("inventory", inventory.len(), allowed));
        }
        let is_awaited = self
            .recovery
            .as_ref()
            .and_then(|one| one.awaited.get(&agent));
        if is_awaited != Some(&Awaited::Inventory) {
            return Ok(Accepted::Agent(agent));
        }
        for item in inventory {
            self.adopt_item(&agent, item, now);
        }
        self.await_records(&agent, last_record);
        self.refresh_waiting(&agent, now);
        Ok(Accepted::Agent(agent))
    }

    fn await_records(&mut self, agent: &AgentId, last: u64) {
        let known = self.agents.get(agent).map_or(0, |entry| {
            let stream = Stream::Agent(agent.clone(), entry.incarnation.clone());
            self.streams
                .get(&stream)
                .copied()
                .unwrap_or(ChainHead::START)
                .sequence
        });
        if let Some(recovery) = &mut self.recovery {
            if known >= last {
                recovery.awaited.remove_mut(agent);
            } else {
                recovery
                    .awaited
                    .insert_mut(agent.clone(), Awaited::Records(last));
            }
        }
        self.note_told(agent);
    }

    /// An agent and what it keeps look different now that it has told.
    fn note_told(&mut self, agent: &AgentId) {
        let kept: Vec<DeploymentId> = self
            .units_of(agent)
            .map(|(_, unit)| unit.deployment.clone())
            .collect();
        for id in &kept {
            self.deployments.note(id);
        }
        self.agents.note(agent);
    }

    /// An agent's records were taken up to this one: perhaps all that were awaited.
    pub(crate) fn note_records_taken(&mut self, agent: &AgentId, through: u64, now: Timestamp) {
        let Some(recovery) = &mut self.recovery else {
            return;
        };
        if matches!(recovery.awaited.get(agent), Some(Awaited::Records(last)) if *last <= through) {
            recovery.awaited.remove_mut(agent);
            self.note_told(agent);
            self.refresh_waiting(agent, now);
        }
    }

    /// An agent was shut out: nothing is awaited of it.
    pub(crate) fn await_no_more(&mut self, agent: &AgentId) {
        let units: Vec<UnitId> = self
            .quarantined_of(agent)
            .map(|(unit, _)| unit.clone())
            .collect();
        if let Some(recovery) = &mut self.recovery {
            recovery.awaited.remove_mut(agent);
            for unit in units {
                recovery.quarantined.remove_mut(&(agent.clone(), unit));
            }
            self.note_told(agent);
        }
    }

    /// A unit was ordered anew by somebody who could see that it was quarantined: it is the State's again.
    pub(crate) fn release_quarantined(&mut self, key: &(AgentId, UnitId)) {
        if let Some(recovery) = &mut self.recovery {
            recovery.quarantined.remove_mut(key);
        }
    }

    fn adopt_item(&mut self, agent: &AgentId, item: &InventoryItem, now: Timestamp) {
        let key = (agent.clone(), item.unit.clone());
        let Some(unit) = self.units.get(&key).cloned() else {
            if !item.removed {
                self.quarantine(key, None, item, now);
            }
            return;
        };
        if (item.sequence, item.generation) <= (unit.sequence, unit.generation) {
            return;
        }
        let id = unit.deployment.clone();
        let is_newer = item.generation > unit.generation;
        let restored_at = self.recovery.as_ref().map(|recovery| recovery.restored_at);
        // Somebody asked for it after the restore, knowing nothing of what runs: his word is the newest.
        let is_asked = self
            .deployments
            .get(&id)
            .is_some_and(|one| Some(one.warrant.at) > restored_at);
        let generation = match is_asked && item.generation >= unit.generation {
            true => item.generation.next(),
            false => item.generation.max(unit.generation),
        };
        let held = Unit {
            generation,
            sequence: unit.sequence.max(item.sequence),
            acknowledged: unit.acknowledged.max(item.sequence),
            acknowledged_generation: item.generation.max(unit.acknowledged_generation),
            wave: None,
            refused: None,
            ..unit
        };
        if item.removed && !is_asked {
            let tombstone = Unit {
                verb: Verb::Remove,
                payload: codec::encode(&Payload::Nothing).expect("an empty payload is small"),
                ..held
            };
            self.put_unit(key, tombstone);
            self.change_deployment(&id, now, |one| {
                one.generation = generation.max(one.generation)
            });
            self.finish_removal(&id, now);
            return;
        }
        self.put_unit(key.clone(), held);
        self.change_deployment(&id, now, |deployment| {
            deployment.generation = generation.max(deployment.generation);
            if deployment.status == Status::Destroyed {
                // It was brought back after the backup.
                deployment.status = Status::Provisioning;
            }
        });
        if is_newer && !is_asked {
            self.quarantine(key, Some(id), item, now);
        }
    }

    fn quarantine(
        &mut self,
        key: (AgentId, UnitId),
        deployment: Option<DeploymentId>,
        item: &InventoryItem,
        now: Timestamp,
    ) {
        let entry = Quarantined {
            deployment,
            generation: item.generation,
            sequence: item.sequence,
            health: item.health,
            since: now,
        };
        if let Some(recovery) = &mut self.recovery {
            recovery.quarantined.insert_mut(key, entry);
        }
    }

    /// Nobody is connected to the new controllers yet.
    fn forget_presence(&mut self) {
        let agents: Vec<(AgentId, Agent)> = self
            .agents
            .iter()
            .map(|(id, agent)| (id.clone(), agent.clone()))
            .collect();
        for (id, agent) in agents {
            let presence = Presence::Unknown;
            self.agents.insert_mut(id, Agent { presence, ..agent });
        }
    }

    /// What was sealed for the epoch before is not believed any more: it is sealed again once its agent has told.
    fn take_orders_back(&mut self) {
        let numbers: Vec<u64> = self.waves.keys().copied().collect();
        for number in numbers {
            self.break_wave(number);
        }
    }

    /// A deletion whose grace time ran when the backup was made may have been taken back since: it must be asked for again.
    fn take_deletions_back(&mut self, now: Timestamp) -> Vec<DeploymentId> {
        let pending = self
            .deployments
            .iter()
            .filter(|(_, one)| one.status == Status::Destroying && one.delete_after.is_some());
        let pending: Vec<DeploymentId> = pending.map(|(id, _)| id.clone()).collect();
        for id in &pending {
            self.change_deployment(id, now, |deployment| {
                let before = deployment.status_before.take();
                deployment.revision = deployment.revision.saturating_add(1);
                deployment.status = before.unwrap_or(Status::Provisioning);
                deployment.delete_after = None;
                deployment.removal = None;
                deployment.waiting = None;
            });
            self.refresh_waiting_of(id, now);
        }
        pending
    }

    fn note_restore(
        &mut self,
        restore: &Restore,
        kept: &[DeploymentId],
        now: Timestamp,
    ) -> Vec<Fact> {
        let name = dotmac_protocol::digest::Digest::of(restore.backup.as_bytes()).hex();
        let request: RequestId = name[..32]
            .parse()
            .expect("32 hexadecimal digits are a request id");
        let mut facts = Facts::default();
        let entry = |action: &str, tenant, detail: String| Entry {
            actor: Actor::Founder,
            action: action.to_owned(),
            tenant,
            unit: None,
            request: request.clone(),
            detail,
            warrant: None,
        };
        let detail = format!("from backup {} of index {}", restore.backup, restore.index);
        self.append_entry(entry("cluster.restored", None, detail), now, &mut facts);
        for id in kept {
            let tenant = self.deployments.get(id).map(|one| one.tenant.clone());
            let detail =
                format!("{id}: the deletion was asked for before the backup that was restored");
            self.append_entry(
                entry("deployment.undeleted", tenant, detail),
                now,
                &mut facts,
            );
        }
        facts.done()
    }
}
