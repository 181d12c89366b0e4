//! One controller as its API, gateway, dispatch and leader see it: the log, the keys, the clock, and how a person's
//! request becomes a proven command.

use std::{sync::Arc, time::Duration};

use dotmac_domain::{
    Command, Envelope, Reply, State,
    access::Token,
    command::{Genesis, NodeCard},
    envelope::{ATTESTATION_DOMAIN, Actor, Attestation, Evidence, command_digest},
    state::RULES_VERSION,
};
use dotmac_protocol::{
    digest::Digest,
    ids::{NodeId, RequestId, TokenId},
    keys::Signature,
    record::Hop,
    time::Timestamp,
};
use dotmac_runtime::{clock::Clock, entropy::Entropy};
use ed25519_dalek::SigningKey;
use futures::{StreamExt as _, stream::FuturesUnordered};
use thiserror::Error;

use crate::{
    dispatch::{ClockBoard, SignatureBook},
    gateway::Registry,
    log::{Log, LogError},
    peers::{PeerAnswer, PeerCall},
};

/// Milliseconds for which attestations count.
const ATTESTATION_MS: u64 = 30_000;
/// How long a node may take to catch up before a token counts as unknown; below [`ATTEST_DEADLINE`].
const RECOGNISE_DEADLINE: Duration = Duration::from_millis(500);
/// How long one peer may take to attest.
const ATTEST_DEADLINE: Duration = Duration::from_millis(1_000);

/// One controller.
pub struct Node {
    /// Its own card.
    pub card: NodeCard,
    /// How the cluster began.
    pub genesis: Arc<Genesis>,
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
    pub(crate) signing_key: SigningKey,
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
    /// Its clock.
    pub clock: Clock,
    /// Its randomness.
    pub entropy: Entropy,
    /// The replicated log.
    pub log: Arc<dyn Log>,
    /// The key it signs waves and attestations with.
    pub signing_key: SigningKey,
}

impl std::fmt::Debug for NodeParts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "NodeParts({})", self.card.node)
    }
}

/// A person whose token was checked against this node's State.
#[derive(Clone)]
pub struct Caller {
    /// The token's public name.
    pub token: TokenId,
    /// The token's whole text, for the peers that check it, too.
    bearer: String,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Caller({})", self.token)
    }
}

impl Caller {
    /// The caller as an actor.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::Person(self.token.clone())
    }
}

/// What a person asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What the request is called; derived from the idempotency key where there is one.
    pub request: RequestId,
    /// Digest of method, path and body.
    pub asked: Digest,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The command it becomes.
    pub command: Command,
}

/// Why a person's request got no answer of the State.
#[derive(Debug, Error)]
pub enum AskError {
    /// Too few controllers vouched for it in time.
    #[error("{found} of the {needed} controllers needed could vouch for the request: {detail}")]
    Attestations {
        found: usize,
        needed: u16,
        detail: String,
    },
    /// The log did not answer.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Digest under which an access token's text is kept.
#[must_use]
pub fn bearer_digest(bearer: &str) -> Digest {
    Digest::tagged("dotmac/access-token", bearer.as_bytes())
}

impl Node {
    /// Puts a controller together.
    #[must_use]
    pub fn new(parts: NodeParts) -> Self {
        let NodeParts {
            card,
            genesis,
            clock,
            entropy,
            log,
            signing_key,
        } = parts;
        let (book, registry) = (SignatureBook::default(), Registry::default());
        Self {
            card,
            genesis,
            clock,
            entropy,
            log,
            book,
            clocks: ClockBoard::default(),
            registry,
            signing_key,
        }
    }

    /// The newest State of this node.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.log.state()
    }

    /// The State with everything that was committed before the call.
    pub async fn read(&self, deadline: Duration) -> Result<Arc<State>, LogError> {
        self.log.barrier(deadline).await?;
        Ok(self.log.state())
    }

    /// Whose token this is, by this node's State.
    #[must_use]
    pub fn authenticate(&self, bearer: &str) -> Option<(Caller, Token)> {
        let state = self.state();
        let (token, entry) = state.token_by_secret(bearer_digest(bearer))?;
        let caller = Caller {
            token: token.clone(),
            bearer: bearer.to_owned(),
        };
        Some((caller, entry.clone()))
    }

    /// Whose token this is. A token that this node does not know may be newer than its State: then it catches up first.
    pub async fn recognise(&self, bearer: &str) -> Option<(Caller, Token)> {
        if let Some(known) = self.authenticate(bearer) {
            return Some(known);
        }
        // Without a majority nothing newer can be known.
        self.read(RECOGNISE_DEADLINE).await.ok()?;
        self.authenticate(bearer)
    }

    /// Proves and proposes what a person asks for.
    pub async fn ask(
        &self,
        caller: &Caller,
        ask: Ask,
        deadline: Duration,
    ) -> Result<Reply, AskError> {
        let now = self.clock.now();
        let mut envelope = Envelope {
            at: now,
            rules: RULES_VERSION,
            request: ask.request,
            asked: ask.asked,
            actor: caller.actor(),
            evidence: Evidence::None,
            hops: vec![Hop {
                station: "api.received".into(),
                at: ask.received_at,
            }],
            command: ask.command,
        };
        let expires_at = now.plus_millis(ATTESTATION_MS);
        let signatures = self
            .collect_attestations(caller, &envelope, expires_at)
            .await?;
        envelope.evidence = Evidence::Attested {
            expires_at,
            signatures,
        };
        envelope.at = self.clock.now();
        envelope.hops.push(Hop {
            station: "api.attested".into(),
            at: envelope.at,
        });
        Ok(self.log.propose(envelope, deadline).await?)
    }

    /// Proposes what carries no person's evidence: a planner's or an agent's command.
    pub async fn propose(
        &self,
        actor: Actor,
        command: Command,
        deadline: Duration,
    ) -> Result<Reply, LogError> {
        let request: RequestId = self
            .entropy
            .hex(16)
            .parse()
            .expect("16 random bytes make a request id");
        let envelope = Envelope {
            at: self.clock.now(),
            rules: RULES_VERSION,
            request,
            asked: command_digest(&command),
            actor,
            evidence: Evidence::None,
            hops: Vec::new(),
            command,
        };
        self.log.propose(envelope, deadline).await
    }

    async fn collect_attestations(
        &self,
        caller: &Caller,
        envelope: &Envelope,
        expires_at: Timestamp,
    ) -> Result<Vec<Signature>, AskError> {
        let needed = self.threshold();
        let mut signatures = vec![self.sign_attestation(envelope, expires_at)];
        let mut refusals = Vec::new();
        let mut calls: FuturesUnordered<_> = self
            .peers()
            .map(|node| {
                let call = PeerCall::Attest {
                    bearer: caller.bearer.clone(),
                    envelope: Box::new(envelope.clone()),
                    expires_at,
                };
                async move { (node, self.log.call(node, call, ATTEST_DEADLINE).await) }
            })
            .collect();
        while signatures.len() < usize::from(needed) {
            match calls.next().await {
                Some((_, Ok(PeerAnswer::Attested(signature)))) => signatures.push(signature),
                Some((node, Ok(other))) => refusals.push(format!("controller {node}: {other:?}")),
                Some((node, Err(error))) => refusals.push(format!("controller {node}: {error}")),
                None => {
                    let (found, detail) = (signatures.len(), refusals.join("; "));
                    return Err(AskError::Attestations {
                        found,
                        needed,
                        detail,
                    });
                }
            }
        }
        Ok(signatures)
    }

    /// This controller's own word for a request whose token it checked.
    pub(crate) fn sign_attestation(&self, envelope: &Envelope, expires_at: Timestamp) -> Signature {
        let attestation = Attestation {
            request: envelope.request.clone(),
            command: command_digest(&envelope.command),
            actor: envelope.actor.clone(),
            expires_at,
        };
        Signature::make(&self.signing_key, ATTESTATION_DOMAIN, &attestation.bytes())
    }

    /// Signatures of different controllers that count.
    #[must_use]
    pub fn threshold(&self) -> u16 {
        let state = self.state();
        state.trust.as_ref().map_or_else(
            || u16::try_from(self.genesis.nodes.len() / 2 + 1).unwrap_or(u16::MAX),
            |trust| trust.controller.threshold,
        )
    }

    /// The other controllers.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        let own = self.card.node;
        self.genesis
            .nodes
            .iter()
            .map(|card| card.node)
            .filter(move |node| *node != own)
    }

    /// Whether this controller leads, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.log.leadership().borrow().leader == Some(self.card.node)
    }
}
