//! Takes over agents' records: once each, in order, for the reporting agent's own units only (laws 4 and 8).

use dotmac_protocol::{
    ids::{AgentId, DeploymentId, IncarnationId, UnitId},
    record::{
        ChainHead, Event, Health, HealthStatus, Hop, Limits, Outcome, Receipt, Record,
        SignedRecord, cut_detail,
    },
    time::Timestamp,
    wave::Verb,
};

use crate::{
    audit::{Entry, Facts, Link, Stream},
    desired::Unit,
    envelope::{Actor, Envelope},
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
    tenancy::Status,
};

impl State {
    pub(crate) fn accept_report(
        &mut self,
        envelope: &Envelope,
        incarnation: &IncarnationId,
        records: &[SignedRecord],
        now: Timestamp,
        facts: &mut Facts,
    ) -> Reply {
        let agent = self.agent_of(envelope)?;
        let known = self.agents.get(&agent).expect("agent_of found it");
        let identity = known.identity;
        if known.incarnation != *incarnation {
            let detail = "the report is of another life of the agent than the one that joined";
            return Err(Rejection::new(Code::Forbidden, detail));
        }
        let stream = Stream::Agent(agent.clone(), incarnation.clone());
        for signed in records {
            let head = self
                .streams
                .get(&stream)
                .copied()
                .unwrap_or(ChainHead::START);
            if sequence_of(signed).is_some_and(|sequence| sequence <= head.sequence) {
                continue;
            }
            let (record, head) = signed
                .verify(&identity, head)
                .map_err(|error| Rejection::new(Code::OutOfOrder, error.to_string()))?;
            if record.agent != agent || record.incarnation != *incarnation {
                let detail = "the record names another agent or another life of it";
                return Err(Rejection::new(Code::Forbidden, detail));
            }
            self.append_link(
                stream.clone(),
                head.sequence,
                Link::Record(signed.clone()),
                facts,
            );
            self.take(&agent, &record, now, facts);
        }
        let through = self.streams.get(&stream).map_or(0, |head| head.sequence);
        self.note_records_taken(&agent, through, now);
        Ok(Accepted::Through(through))
    }

    /// Lets one record count.
    fn take(&mut self, agent: &AgentId, record: &Record, now: Timestamp, facts: &mut Facts) {
        let Some(unit_id) = &record.unit else {
            return;
        };
        // The tenant is who the unit belongs to, never what the record claims.
        let key = (agent.clone(), unit_id.clone());
        let Some(unit) = self.units.get(&key).cloned() else {
            return;
        };
        let deployment = self.deployments.get(&unit.deployment);
        let is_its_agent = deployment.is_some_and(|one| one.agent.as_ref() == Some(agent));
        match &record.event {
            Event::Receipt(receipt) if is_its_agent => self.take_receipt(key, receipt, now),
            Event::Health(health) if is_its_agent => self.take_health(&unit, health, now),
            Event::Receipt(_) | Event::Health(_) | Event::Audit { .. } => {}
            Event::Reports(reports) => {
                if is_its_agent {
                    self.take_reports(&unit.deployment, (record, reports), now, facts);
                }
                // Its batches are in the agent's own chain: the tenant's story is of what was done.
                return;
            }
        }
        let (action, detail) = describe(&record.event);
        let detail = cut_detail(&detail);
        let entry = Entry {
            actor: Actor::Agent(agent.clone()),
            action,
            tenant: Some(unit.tenant.clone()),
            unit: Some(unit_id.clone()),
            request: record
                .request
                .clone()
                .unwrap_or_else(|| unit.request.clone()),
            detail: format!(
                "record {} of {}: {detail}",
                record.sequence, record.incarnation
            ),
            warrant: None,
        };
        self.append_entry(entry, now, facts);
    }

    fn take_receipt(&mut self, key: (AgentId, UnitId), receipt: &Receipt, now: Timestamp) {
        self.acknowledge(&key, receipt);
        let Some(unit) = self.units.get(&key).cloned() else {
            return;
        };
        let id = &unit.deployment;
        let is_current = receipt.generation == unit.generation;
        match &receipt.outcome {
            Outcome::Accepted => self.note_hops(id, &receipt.hops),
            Outcome::Refused { reason } if is_current && receipt.sequence == unit.sequence => {
                let refused = Some(reason.clone());
                self.put_unit(
                    key,
                    Unit {
                        refused,
                        ..unit.clone()
                    },
                );
            }
            Outcome::Applied { limits } if is_current => {
                self.note_hops(id, &receipt.hops);
                let limits = limits.clone();
                self.change_deployment(id, now, |deployment| deployment.limits = Some(limits));
            }
            Outcome::Failing { reason } if is_current => {
                let reason = reason.clone();
                self.change_deployment(id, now, |deployment| deployment.health_reason = reason);
            }
            Outcome::Removed if is_current && unit.verb == Verb::Remove => {
                self.finish_removal(id, now);
            }
            Outcome::Refused { .. }
            | Outcome::Applied { .. }
            | Outcome::Failing { .. }
            | Outcome::Removed => {}
        }
        self.refresh_waiting_of(&unit.deployment, now);
    }

    /// Whatever an agent says of an order but that it refused it, it has the order on disk.
    fn acknowledge(&mut self, key: &(AgentId, UnitId), receipt: &Receipt) {
        let Some(unit) = self.units.get(key).cloned() else {
            return;
        };
        let is_refusal = matches!(receipt.outcome, Outcome::Refused { .. });
        let is_news = receipt.sequence <= unit.sequence && receipt.sequence > unit.acknowledged;
        if is_refusal || !is_news {
            return;
        }
        let held = receipt.generation.min(unit.generation);
        let is_current = held == unit.generation;
        let entry = Unit {
            acknowledged: receipt.sequence,
            acknowledged_generation: held.max(unit.acknowledged_generation),
            wave: if is_current { None } else { unit.wave },
            refused: None,
            ..unit
        };
        self.put_unit(key.clone(), entry);
    }

    fn take_health(&mut self, unit: &Unit, health: &Health, now: Timestamp) {
        if health.generation != unit.generation || unit.verb == Verb::Remove {
            return;
        }
        let id = &unit.deployment;
        self.note_hops(id, &health.hops);
        self.note_transition(id, health, now);
        let status = health.status;
        self.change_deployment(id, now, |deployment| {
            deployment.observed_generation = health.generation;
            deployment.health = status;
            deployment.health_reason = health.reason.clone();
            deployment.components = health.components.clone();
            let is_going = deployment.status == Status::Destroying;
            let present = match (is_going, deployment.status_before) {
                (true, Some(before)) => before,
                _ => deployment.status,
            };
            let next = status_after(present, status, deployment.deployed_at.is_some());
            if is_going {
                deployment.status_before = Some(next);
            } else {
                deployment.status = next;
            }
            if next == Status::Active {
                deployment.confirm(now);
            }
            if deployment.status == Status::Active {
                deployment.health_reason.clear();
                deployment.deployed_at.get_or_insert(now);
            }
        });
        self.refresh_waiting_of(id, now);
    }

    /// Adds stations of the agent to the way of the first order.
    fn note_hops(&mut self, id: &DeploymentId, hops: &[Hop]) {
        for hop in hops.iter().take(16) {
            self.note_hop(id, &hop.station, hop.at);
        }
    }
}

/// Where a deployment is once its agent says how its newest generation is. What comes with a new version (copies that
/// are replaced one by one) is no degradation.
fn status_after(present: Status, health: HealthStatus, was_active: bool) -> Status {
    let is_running = matches!(
        present,
        Status::Provisioning
            | Status::Active
            | Status::Degraded
            | Status::Failed
            | Status::Upgrading
            | Status::RollingBack
    );
    let is_changing = matches!(present, Status::Upgrading | Status::RollingBack);
    match health {
        _ if !is_running => present,
        HealthStatus::Healthy => Status::Active,
        HealthStatus::Failed => Status::Failed,
        HealthStatus::Degraded if was_active && !is_changing => Status::Degraded,
        HealthStatus::Degraded
        | HealthStatus::Unknown
        | HealthStatus::Starting
        | HealthStatus::Stopped => present,
    }
}

fn sequence_of(signed: &SignedRecord) -> Option<u64> {
    dotmac_protocol::codec::decode::<Record>(&signed.body)
        .ok()
        .map(|record| record.sequence)
}

fn describe_limits(limits: &Limits) -> String {
    match limits {
        Limits::Enforced { by } => format!("limits enforced by {by}"),
        Limits::NotEnforced { reason } => format!("limits not enforced: {reason}"),
    }
}

/// A record in the words of the tenant's story.
fn describe(event: &Event) -> (String, String) {
    match event {
        Event::Receipt(receipt) => {
            let (word, detail) = match &receipt.outcome {
                Outcome::Accepted => ("accepted", String::new()),
                Outcome::Refused { reason } => ("refused", reason.clone()),
                Outcome::Applied { limits } => ("applied", describe_limits(limits)),
                Outcome::Failing { reason } => ("failing", reason.clone()),
                Outcome::Removed => ("removed", String::new()),
            };
            let numbers = format!(
                "generation {} sequence {}",
                receipt.generation, receipt.sequence
            );
            (
                format!("intent.{word}"),
                format!("{numbers} {detail}").trim().to_owned(),
            )
        }
        Event::Health(health) => {
            let status = health.status.as_str();
            (format!("health.{status}"), health.reason.clone())
        }
        Event::Audit { action, detail } => (action.chars().take(64).collect(), detail.clone()),
        Event::Reports(reports) => (
            "instance.reported".into(),
            format!("{} reports", reports.len()),
        ),
    }
}
