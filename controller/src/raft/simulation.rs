//! One controller's log as the simulation runs it: real in everything but the disk, the network and chance, which are
//! arguments here. Compiled into no program.
//!
//! It refuses snapshots on the wire: simulated logs stay short.

use std::{sync::Arc, time::Duration};

use dotmac_protocol::codec;
use dotmac_runtime::{disk::SystemDisk, entropy::Entropy};
use futures::future::BoxFuture;

pub use super::runtime::seed_elections;
use super::{
    RaftConfig, RaftLog, StartError,
    links::{AskError, Links},
    lives::Lives,
    roster::Roster,
    rpc::{Answered, Asked, PeerReply, PeerRequest},
    stores::Stores,
};
use crate::storage::{
    engine::{Engine, MemoryRecords, OnFatal},
    pace::Pace,
    snapshots::Snapshots,
};

/// Carries questions to other controllers and answers back; either may be lost, late, or come twice.
pub trait Carrier: Send + Sync {
    /// The answer to an encoded question, when one comes.
    fn carry(&self, node: u64, asked: Vec<u8>) -> BoxFuture<'static, Option<Vec<u8>>>;
}

/// A vote that somebody was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// In which term.
    pub term: u64,
    /// Who got it.
    pub candidate: u64,
}

/// The vote that an answer gives, if it gives one.
#[must_use]
pub fn granted(asked: &[u8], answered: &[u8]) -> Option<Granted> {
    let asked: Asked = codec::decode(asked).ok()?;
    let answered: Answered = codec::decode(answered).ok()?;
    match (asked.request, answered.reply) {
        (PeerRequest::Vote(request), PeerReply::Vote(response)) if response.vote_granted => {
            let leader = request.vote.leader_id();
            Some(Granted {
                term: leader.term,
                candidate: leader.voted_for()?,
            })
        }
        _ => None,
    }
}

impl RaftLog {
    /// Takes part with a simulated disk and a simulated network; `config.directory` stays without snapshots.
    ///
    /// # Errors
    /// When what is on the disk does not open.
    pub async fn simulate(
        config: RaftConfig,
        records: MemoryRecords,
        carrier: Arc<dyn Carrier>,
        on_fatal: OnFatal,
        entropy: &Entropy,
    ) -> Result<Arc<Self>, StartError> {
        let engine = Engine::simulate(records, &config.engine, on_fatal)?;
        let snapshots = Snapshots::open(&config.directory, SystemDisk::shared())?;
        let stores = Stores::on(engine, snapshots)?;
        let lives = Lives::open(stores.engine.clone(), entropy).await?;
        let roster = Roster::of(&config.members);
        Self::join(
            config,
            stores,
            Links::carried(carrier, lives, roster),
            Pace::default(),
        )
        .await
    }

    /// Answers a question that came from a controller; none when it cannot be read.
    pub async fn hear(&self, from: u64, asked: &[u8]) -> Option<Vec<u8>> {
        let asked: Asked = codec::decode(asked).ok()?;
        let reply = self.server.shared.hear(from, asked).await;
        let life = self.links.lives().own();
        codec::encode(&Answered { life, reply }).ok()
    }
}

/// Asks over a carrier, within `budget`.
pub(super) async fn ask(
    carrier: &Arc<dyn Carrier>,
    node: u64,
    asked: &Asked,
    budget: Duration,
) -> Result<Answered, AskError> {
    let not_sent = |detail: String| AskError::NotSent { node, detail };
    let bytes = codec::encode(asked).map_err(|error| not_sent(error.to_string()))?;
    let budget_ms = budget.as_millis();
    let answer = tokio::time::timeout(budget, carrier.carry(node, bytes)).await;
    let answer = answer.map_err(|_| AskError::Late { node, budget_ms })?;
    let answer = answer.ok_or(AskError::NoAnswer { node })?;
    codec::decode(&answer).map_err(|error| not_sent(error.to_string()))
}
