//! Orders that no other controller vouches for: sealed into the log, countersigned by itself alone, and sent straight
//! to an agent over its own session.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use dotmac_controller::peers::{PeerCall, Subject};
use dotmac_domain::{Command, desired::decode_leaves, envelope::Actor};
use dotmac_protocol::{
    codec,
    digest::Digest,
    frame::Delivery,
    ids::{AgentId, DeploymentId, UnitId},
    time::{Timestamp, Window},
    unit::Payload,
    wave::{Leaf, SignedIntent, Verb, WAVE_DOMAIN, WaveHeader, merkle_paths, merkle_root},
};
use dotmac_runtime::quic::write_frame;
use serde_json::{Value, json};

use crate::{DEADLINE, Forger};

/// Between two looks for orders that an honest planner leaves out.
const LOOK: Duration = Duration::from_millis(250);

impl Forger {
    /// Seals every order that nobody asked for into a wave of its own, signs it, and gives that signature to everybody:
    /// to the other controllers, and with the order to its agent. Goes on until it is dropped.
    pub(crate) async fn seal_and_sign(&self) {
        let mut signed = 0;
        loop {
            let state = self.node.state();
            let now = self.node.clock.now();
            let units = state
                .units
                .iter()
                .filter(|(_, unit)| unit.needs_order(&state, now));
            for key in units.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                let command = Command::SealWave { orders: vec![key] };
                // A planner's command; whether it counts is for the others to say.
                let _ = self.node.propose(Actor::Planner, command, DEADLINE).await;
            }
            let state = self.node.state();
            let new: Vec<u64> = state
                .waves
                .keys()
                .copied()
                .filter(|wave| *wave > signed)
                .collect();
            for wave in new {
                signed = wave;
                self.sign_alone(wave).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn sign_alone(&self, number: u64) {
        let state = self.node.state();
        let Some(wave) = state.waves.get(&number) else {
            return;
        };
        let signature = self.sign(WAVE_DOMAIN, &wave.header);
        for peer in self.node.peers() {
            let call = PeerCall::Countersign {
                subject: Subject::Wave(number),
                signature: signature.clone(),
            };
            let _ = self.node.log.call(peer, call, DEADLINE).await;
        }
        for (index, leaf) in decode_leaves(wave).into_iter().enumerate() {
            let Some(unit) = state.units.get(&(leaf.agent.clone(), leaf.unit.clone())) else {
                continue;
            };
            let intent = SignedIntent {
                header: wave.header.clone(),
                signatures: vec![signature.clone()],
                leaf: wave.leaves[index].clone(),
                index: u32::try_from(index).unwrap_or(u32::MAX),
                path: merkle_paths(&wave.leaves).swap_remove(index),
                payload: unit.payload.clone(),
            };
            if self.node.registry.connection(&leaf.agent).is_some() {
                let _ = self.deliver(&leaf.agent, intent).await;
            }
        }
    }

    /// Sends waves that no other controller ever saw over the agent's own session.
    pub(crate) async fn send_direct(
        &self,
        agent: &AgentId,
        victim: &DeploymentId,
    ) -> Result<Vec<Value>> {
        let state = self.node.state();
        let mut sent = Vec::new();
        for (verb, payload) in [
            (Verb::Remove, Payload::Nothing),
            (Verb::Apply, self.changed_instance(victim)?),
        ] {
            let unit_id = UnitId::instance(victim);
            let unit = state
                .units
                .get(&(agent.clone(), unit_id.clone()))
                .context("no such unit")?;
            let trust = state.trust.as_ref().context("there is no trust root")?;
            let now = self.node.clock.now();
            let window = Window {
                not_before: Timestamp(now.0.saturating_sub(30_000)),
                not_after: now.plus_millis(600_000),
            };
            let payload = codec::encode(&payload)?;
            let leaf = Leaf {
                agent: agent.clone(),
                tenant: unit.tenant.clone(),
                unit: unit_id,
                verb,
                generation: unit.generation.next(),
                sequence: unit.sequence.next().next(),
                previous: unit.acknowledged,
                epoch: trust.epoch,
                trust_version: trust.version,
                window,
                payload: Digest::of(&payload),
                request: unit.request.clone(),
                trace: unit.trace,
            }
            .bytes();
            let leaves = vec![leaf.clone()];
            let header = WaveHeader {
                number: state.wave_number + 1,
                root: merkle_root(&leaves),
                leaves: 1,
                epoch: trust.epoch,
                trust_version: trust.version,
                sealed_at: now,
                window,
            };
            let header = codec::encode(&header)?;
            let own = self.sign(WAVE_DOMAIN, &header);
            for (signed, signatures) in [
                ("by nobody", Vec::new()),
                ("by itself", vec![own.clone()]),
                (
                    "by itself three times",
                    vec![own.clone(), own.clone(), own.clone()],
                ),
                (
                    "by itself, and in the others' names",
                    self.sign_for_all(WAVE_DOMAIN, &header)?,
                ),
            ] {
                let path = merkle_paths(&leaves).remove(0);
                let (header, leaf, payload) = (header.clone(), leaf.clone(), payload.clone());
                let intent = SignedIntent {
                    header,
                    signatures,
                    leaf,
                    index: 0,
                    path,
                    payload,
                };
                self.deliver(agent, intent).await?;
                sent.push(json!({"verb": format!("{verb:?}"), "signed": signed}));
            }
        }
        Ok(sent)
    }

    /// The victim under another name and with more copies.
    fn changed_instance(&self, victim: &DeploymentId) -> Result<Payload> {
        let mut instance = self
            .node
            .state()
            .instance_of(victim)
            .context("it is gone")?;
        instance.tenant_name = "Forged".into();
        instance.replicas = 3;
        Ok(Payload::Instance(Box::new(instance)))
    }

    /// The agent may leave after a lie; it comes back.
    async fn deliver(&self, agent: &AgentId, intent: SignedIntent) -> Result<()> {
        let delivery = Delivery {
            intent,
            hops: Vec::new(),
        };
        for _ in 0..100 {
            if let Some(connection) = self.node.registry.connection(agent)
                && let Ok(mut stream) = connection.open_uni().await
                && write_frame(&mut stream, &delivery).await.is_ok()
                && stream.finish().is_ok()
                && matches!(stream.stopped().await, Ok(None))
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("agent {agent} took nothing")
    }
}
