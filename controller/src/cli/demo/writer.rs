//! Writes through the API without a pause, and afterwards asks for each write that was acknowledged. A write is a join
//! token whose secret nobody has and which expires by itself: it leaves nothing behind but its line in the audit.

use std::{sync::Arc, time::Duration};

use dotmac_protocol::frame::JoinToken;
use dotmac_runtime::{entropy::Entropy, supervise::spawn};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::tally::{Tally, Write};
use crate::cli::{Client, elapsed_ms, failure::Failure};

/// Milliseconds between the starts of two writes.
const PERIOD_MS: u64 = 50;
/// Writes at most; then it only looks on.
const WRITES_MAX: usize = 4_000;
/// Milliseconds that a write lives.
const LIFETIME_MS: u64 = 600_000;
const PATH: &str = "/api/v1/agents/tokens";

/// The writing while it goes on.
pub(crate) struct Writer {
    client: Arc<Client>,
    region: String,
    stop: watch::Sender<bool>,
    acknowledged: watch::Receiver<usize>,
    task: JoinHandle<Result<Vec<Write>, Failure>>,
}

impl Writer {
    /// Begins to write.
    pub(crate) fn start(client: Arc<Client>, entropy: Entropy, region: String) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (count, acknowledged) = watch::channel(0);
        let task = spawn(
            "demo writer",
            write(Arc::clone(&client), entropy, region.clone(), stopped, count),
        );
        Self {
            client,
            region,
            stop,
            acknowledged,
            task,
        }
    }

    /// Waits for so many more acknowledgements than there are now; false when they do not come in time.
    pub(crate) async fn more(&self, count: usize, patience: Duration) -> bool {
        let mut acknowledged = self.acknowledged.clone();
        let goal = *acknowledged.borrow() + count;
        let reached = acknowledged.wait_for(|now| *now >= goal);
        matches!(tokio::time::timeout(patience, reached).await, Ok(Ok(_)))
    }

    /// Ends the writing and asks for everything that was acknowledged.
    pub(crate) async fn count(self) -> Result<Tally, Failure> {
        self.stop.send_replace(true);
        let writes = self
            .task
            .await
            .map_err(|cause| Failure::Failed(format!("the writer ended: {cause}")))??;
        let mut lost = 0;
        for write in writes
            .iter()
            .filter(|write| write.acknowledged_ms.is_some())
        {
            lost += usize::from(!exists(&self.client, &write.id, &self.region).await?);
        }
        Ok(Tally::of(&writes, lost))
    }
}

async fn write(
    client: Arc<Client>,
    entropy: Entropy,
    region: String,
    stopped: watch::Receiver<bool>,
    count: watch::Sender<usize>,
) -> Result<Vec<Write>, Failure> {
    let started = Instant::now();
    let mut writes = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(PERIOD_MS));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while !*stopped.borrow() && writes.len() < WRITES_MAX {
        tick.tick().await;
        let id = entropy.hex(8);
        let asked_ms = elapsed_ms(started);
        let acknowledged_ms = match client.post(PATH, Some(&body(&id, &region, &entropy))).await {
            Ok(_) => Some(elapsed_ms(started)),
            Err(Failure::Unreachable { .. } | Failure::Failed(_)) => None,
            Err(refused) => return Err(refused),
        };
        count.send_modify(|count| *count += usize::from(acknowledged_ms.is_some()));
        writes.push(Write {
            id,
            asked_ms,
            acknowledged_ms,
        });
    }
    Ok(writes)
}

/// Whether a write is there: asking for the same name once more is then refused as a repetition.
async fn exists(client: &Client, id: &str, region: &str) -> Result<bool, Failure> {
    match client
        .post(PATH, Some(&body(id, region, &Entropy::system())))
        .await
    {
        Ok(_) => Ok(false),
        Err(Failure::Refused(problem)) if problem.status == 409 => Ok(true),
        Err(failure) => Err(failure),
    }
}

fn body(id: &str, region: &str, entropy: &Entropy) -> Value {
    let digest = JoinToken::secret_digest(&entropy.bytes::<32>()).to_string();
    json!({"id": id, "secret_digest": digest, "region": region, "ttl_ms": LIFETIME_MS})
}
