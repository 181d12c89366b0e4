//! Clients that write all the time and retry as the API's pages say: after a broken connection, 429 or 503, with the same
//! `Idempotency-Key`. A request that gets another answer, or none within its patience, is a failed one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    api::{Answer, Api},
    deployment,
};

/// How long a client asks again.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts that the API names no time for.
const PAUSE: Duration = Duration::from_millis(100);

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<Result<Vec<String>>>>,
    count: Arc<AtomicUsize>,
}

/// What was acknowledged.
#[derive(Debug)]
pub struct Acknowledged(Vec<String>);

impl Clients {
    /// So many clients begin to write, each one request after the other.
    #[must_use]
    pub fn start(api: &Api, clients: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let count = Arc::<AtomicUsize>::default();
        let tasks = (0..clients).map(|client| {
            let work = write(api.clone(), client, stopped.clone(), Arc::clone(&count));
            tokio::spawn(work)
        });
        let tasks = tasks.collect();
        Self { stop, tasks, count }
    }

    /// How much was acknowledged so far.
    #[must_use]
    pub fn so_far(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends the work.
    ///
    /// # Errors
    /// When a request failed.
    pub async fn stop(self) -> Result<Acknowledged> {
        self.stop.send_replace(true);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await??);
        }
        Ok(Acknowledged(all))
    }
}

impl Acknowledged {
    /// How much it is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every write is in the audit, once.
    ///
    /// # Errors
    /// When one is missing or was done twice.
    pub async fn are_kept_once(&self, api: &Api) -> Result<()> {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for record in api.list("/api/v1/audit?limit=1000", "after").await? {
            if record["action"] == "token.created" {
                let detail = deployment::text(&record, "detail");
                let id = detail.split(' ').next().unwrap_or_default().to_owned();
                *times.entry(id).or_default() += 1;
            }
        }
        for id in &self.0 {
            let times = times.get(id).copied().unwrap_or(0);
            ensure!(
                times == 1,
                "token {id} was acknowledged and is kept {times} times"
            );
        }
        Ok(())
    }
}

async fn write(
    api: Api,
    client: usize,
    stopped: watch::Receiver<bool>,
    count: Arc<AtomicUsize>,
) -> Result<Vec<String>> {
    let mut acknowledged = Vec::new();
    for number in 0_u64.. {
        if *stopped.borrow() {
            break;
        }
        let id = format!("{client:04x}{number:012x}");
        let digest = dotmac_controller::node::bearer_digest(&format!("secret of {id}")).to_string();
        let body =
            json!({"id": id, "secret_digest": digest, "name": "a client's", "role": "auditor"});
        persist(&api, &format!("client-{id}"), &body)
            .await?
            .ok(201)?;
        count.fetch_add(1, Ordering::Relaxed);
        acknowledged.push(id);
        // As many requests as a busy operator, not as a benchmark: the tokens are counted by the platform.
        tokio::time::sleep(PAUSE).await;
    }
    Ok(acknowledged)
}

/// Asks until there is an answer that retrying does not change.
async fn persist(api: &Api, key: &str, body: &Value) -> Result<Answer> {
    let begun = Instant::now();
    loop {
        let last = match api
            .ask(Method::POST, "/api/v1/tokens", Some(body), Some(key))
            .await
        {
            Ok(answer) if !matches!(answer.status, 429 | 503 | 504) => return Ok(answer),
            Ok(answer) => format!("{}: {}", answer.status, answer.body),
            Err(error) => format!("{error:#}"),
        };
        if begun.elapsed() >= PATIENCE {
            return Err(anyhow!("{key} got no answer within {PATIENCE:?}: {last}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
