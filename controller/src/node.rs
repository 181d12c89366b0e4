//! One controller as its API, gateway, dispatch and leader see it: the log, the keys, the clock, and how a person's
//! request becomes a proven command.

use std::{sync::Arc, time::Duration};

use dotmac_domain::{
    Command, Envelope, Reply, State,
    command::{Genesis, NodeCard},
    envelope::{Actor, Evidence, command_digest},
};
use dotmac_protocol::{
    ids::{NodeId, RequestId},
    record::Hop,
    trust::majority,
};
use dotmac_runtime::{clock::Clock, entropy::Entropy};
use ed25519_dalek::SigningKey;
use tokio::sync::watch;

use crate::{
    api::Noticed,
    backup::{Settings, keeper::Shelf},
    dispatch::{ClockBoard, SignatureBook},
    feed::Feed,
    gateway::Registry,
    log::{Log, LogError},
    metrics::Metrics,
    traces::Traces,
};

mod ask;
mod attestations;
mod authentication;
mod digests;
mod uses;

pub use ask::{Ask, AskError};
pub use authentication::{Caller, Unrecognised};
pub use digests::Digests;
pub use uses::{TokenUses, run_token_uses};

pub use crate::access_token::bearer_digest;

/// Milliseconds for which attestations count.
const ATTESTATION_MS: u64 = 30_000;

/// One controller.
pub struct Node {
    /// Its own card.
    pub card: NodeCard,
    /// How the cluster began.
    pub genesis: Arc<Genesis>,
    /// The rules that it began with.
    pub founding_rules: u16,
    /// Its clock.
    pub clock: Clock,
    /// Its randomness.
    pub entropy: Entropy,
    /// The replicated log.
    pub log: Arc<dyn Log>,
    /// Signatures under waves and clocks.
    pub book: SignatureBook,
    /// The newest signed clock.
    pub clocks: ClockBoard,
    /// Agents connected to this controller.
    pub registry: Registry,
    /// What changed, for all who watch.
    pub feed: Feed,
    /// When tokens were used last.
    pub uses: TokenUses,
    /// The digest of its State, for whoever asks.
    pub digests: Digests,
    /// Where the spans of requests go.
    pub traces: Traces,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How backups are made, if they are.
    pub backup: Option<Settings>,
    /// What the backup target was last found to hold.
    pub(crate) shelf: Shelf,
    /// Since when this controller has noticed what is not well.
    pub(crate) noticed: Noticed,
    pub(crate) signing_key: SigningKey,
    attesting: attestations::Attesting,
    stopping: watch::Sender<bool>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Node({})", self.card.node)
    }
}

/// What a node is made of.
pub struct NodeParts {
    /// Its own card.
    pub card: NodeCard,
    /// How the cluster began.
    pub genesis: Arc<Genesis>,
    /// The rules that it began with.
    pub founding_rules: u16,
    /// Its clock.
    pub clock: Clock,
    /// Its randomness.
    pub entropy: Entropy,
    /// The replicated log.
    pub log: Arc<dyn Log>,
    /// The key it signs waves and attestations with.
    pub signing_key: SigningKey,
    /// Where the spans of requests go.
    pub traces: Traces,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How backups are made, if they are.
    pub backup: Option<Settings>,
}

impl std::fmt::Debug for NodeParts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "NodeParts({})", self.card.node)
    }
}

impl Node {
    /// Puts a controller together.
    #[must_use]
    pub fn new(parts: NodeParts) -> Self {
        let NodeParts {
            card,
            genesis,
            founding_rules,
            clock,
            entropy,
            log,
            signing_key,
            traces,
            metrics,
            backup,
        } = parts;
        let (book, registry) = (SignatureBook::default(), Registry::default());
        Self {
            card,
            genesis,
            founding_rules,
            clock,
            entropy,
            log,
            book,
            clocks: ClockBoard::default(),
            registry,
            feed: Feed::default(),
            uses: TokenUses::default(),
            digests: Digests::default(),
            traces,
            metrics,
            backup,
            shelf: Shelf::default(),
            noticed: Noticed::default(),
            signing_key,
            attesting: attestations::Attesting::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// From now on this controller sends callers elsewhere.
    pub fn stop_serving(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether this controller sends callers elsewhere, because it is about to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Wakes when this controller begins to send callers elsewhere.
    #[must_use]
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// The newest State of this node.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.log.state()
    }

    /// The State with everything that was committed before the call.
    ///
    /// # Errors
    /// When that cannot be had in time: there is no majority, or this controller's disk is so full that it keeps nothing new.
    pub async fn read(&self, deadline: Duration) -> Result<Arc<State>, LogError> {
        match (self.log.barrier(deadline).await, self.log.storage()) {
            (Ok(()), _) => Ok(self.log.state()),
            (Err(LogError::Unavailable(_) | LogError::TimedOut(_)), Err(full)) => {
                Err(LogError::Storage(full))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Proves and proposes what a person asks for.
    pub async fn ask(
        self: &Arc<Self>,
        caller: &Caller,
        ask: Ask,
        deadline: Duration,
    ) -> Result<Reply, AskError> {
        if let Err(rejection) = self.state().require_rules(&ask.command, &Evidence::None) {
            return Ok(Err(rejection));
        }
        let mut envelope = self.envelope(caller, ask);
        let now = envelope.at;
        let expires_at = now.plus_millis(ATTESTATION_MS);
        let started = self.traces.now();
        let evidence = self.prove(caller, &envelope, expires_at).await;
        self.traces.attested(&envelope, started, evidence.is_ok());
        envelope.evidence = evidence?;
        envelope.at = self.clock.now();
        envelope.hops.push(Hop {
            station: "api.attested".into(),
            at: envelope.at,
        });
        let (trace, started) = (envelope.trace, self.traces.now());
        let reply = self.log.propose(envelope, deadline).await;
        self.traces.proposed(trace, started, &reply);
        Ok(reply?)
    }

    /// What a person asks for as an envelope that nobody has vouched for yet.
    #[must_use]
    pub fn envelope(&self, caller: &Caller, ask: Ask) -> Envelope {
        Envelope {
            at: self.clock.now(),
            rules: self.state().rules,
            request: ask.request,
            asked: ask.asked,
            actor: caller.actor(),
            evidence: Evidence::None,
            expected: ask.expected,
            hops: vec![Hop {
                station: "api.received".into(),
                at: ask.received_at,
            }],
            trace: ask.trace,
            command: ask.command,
        }
    }

    /// Proposes what carries no person's evidence: a planner's or an agent's command.
    pub async fn propose(
        &self,
        actor: Actor,
        command: Command,
        deadline: Duration,
    ) -> Result<Reply, LogError> {
        let state = self.state();
        if let Err(rejection) = state.require_rules(&command, &Evidence::None) {
            return Ok(Err(rejection));
        }
        let rules = match actor {
            Actor::Founder => self.founding_rules,
            Actor::Person(_) | Actor::Agent(_) | Actor::Planner => state.rules,
        };
        let request: RequestId = self
            .entropy
            .hex(16)
            .parse()
            .expect("16 random bytes make a request id");
        let envelope = Envelope {
            at: self.clock.now(),
            rules,
            request,
            asked: command_digest(&command),
            actor,
            evidence: Evidence::None,
            expected: None,
            hops: Vec::new(),
            trace: None,
            command,
        };
        self.log.propose(envelope, deadline).await
    }

    /// Signatures of different controllers that count.
    #[must_use]
    pub fn threshold(&self) -> u16 {
        let state = self.state();
        state.trust.as_ref().map_or_else(
            || majority(self.genesis.nodes.len()),
            |trust| trust.controller.threshold,
        )
    }

    /// The cards of all controllers that there are now, this one's too.
    #[must_use]
    pub fn controllers(&self) -> Vec<NodeCard> {
        let state = self.state();
        if state.controllers.is_empty() {
            return self.genesis.nodes.clone();
        }
        let present = state.present_controllers();
        present.map(|one| one.card.clone()).collect()
    }

    /// The other controllers.
    #[must_use]
    pub fn peers(&self) -> Vec<NodeId> {
        let controllers = self.controllers().into_iter().map(|card| card.node);
        controllers.filter(|node| *node != self.card.node).collect()
    }

    /// Whether this controller leads, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.log.leadership().borrow().leader == Some(self.card.node)
    }
}
