//! The exporting thread: batches, tries, pauses. It has a runtime of its own, so that a collector that hangs holds up
//! nothing but this thread, and whatever it waits for ends at once when the process stops.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use opentelemetry_proto::tonic::resource::v1::Resource;
use reqwest::{Client, Response, StatusCode, Url, header, redirect::Policy};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::{Counts, Endpoint, STOP_PATIENCE, Service, Span, encode};
use crate::causes;

/// Spans in one export at most.
const BATCH_MAX: usize = 512;
/// How long a span waits for company.
const BATCH_DELAY: Duration = Duration::from_millis(200);
/// How long the collector may take for one export.
const EXPORT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the words of an answer are waited for, and how many bytes of them are read.
const WORDS_PATIENCE: Duration = Duration::from_secs(1);
const WORDS_BYTES_MAX: usize = 4096;
/// How often one batch is tried, about a minute in all; then it is dropped.
const BATCH_TRIES_MAX: u32 = 15;
/// The first pause after a failure; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause after a failure, and so the longest time until a collector that is back is noticed.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Failures are told once in this time.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Why a batch was not taken.
#[derive(Debug, Error)]
enum ExportError {
    #[error("the collector cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the collector did not answer within {EXPORT_PATIENCE:?}")]
    Slow,
    #[error("the collector answered {0}")]
    Status(StatusCode),
    #[error("the collector took the batch but {0} spans of it")]
    Partial(usize),
}

impl ExportError {
    /// Whether the same batch may be taken later, as OTLP has it.
    fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Slow => true,
            Self::Partial(_) => false,
            Self::Status(status) => {
                let passing = [
                    StatusCode::TOO_MANY_REQUESTS,
                    StatusCode::BAD_GATEWAY,
                    StatusCode::SERVICE_UNAVAILABLE,
                    StatusCode::GATEWAY_TIMEOUT,
                ];
                passing.contains(status)
            }
        }
    }
}

/// What became of a batch.
enum Sent {
    Taken,
    Dropped,
    /// The process stops.
    Stopped,
}

pub(super) struct Exporter {
    url: Url,
    resource: Resource,
    counts: Arc<Counts>,
    warned: Option<Instant>,
    /// Whether the last try failed.
    is_failing: bool,
    /// Whether the present failure was told.
    is_told: bool,
}

impl Exporter {
    pub(super) fn new(endpoint: &Endpoint, service: &Service, counts: Arc<Counts>) -> Self {
        Self {
            url: endpoint.traces(),
            resource: encode::resource(service),
            counts,
            warned: None,
            is_failing: false,
            is_told: false,
        }
    }

    /// Exports until the process stops. Blocks: it is a thread's whole work.
    pub(super) fn run(mut self, queue: mpsc::Receiver<Span>, stopped: watch::Receiver<bool>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.export(queue, stopped)),
            Err(error) => tracing::error!(%error, "no spans are exported: no runtime for them"),
        }
    }

    async fn export(
        &mut self,
        mut queue: mpsc::Receiver<Span>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let client = match client(&self.url) {
            Ok(client) => client,
            Err(error) => {
                let error = causes::in_full(&error);
                tracing::error!(error, "no spans are exported: no client for them");
                self.drop_rest(queue, Vec::new());
                return;
            }
        };
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = fill(&mut queue, &mut batch) => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
            if batch.is_empty() {
                return;
            }
            match self.send(&client, &batch, &mut stopped).await {
                Sent::Taken | Sent::Dropped => batch.clear(),
                Sent::Stopped => break,
            }
        }
        queue.close();
        // A collector that is away is not waited for.
        if !self.is_failing {
            let _ = timeout(STOP_PATIENCE, self.empty(&client, &mut queue, &mut batch)).await;
        }
        self.drop_rest(queue, batch);
    }

    /// What is left is lost.
    fn drop_rest(&self, mut queue: mpsc::Receiver<Span>, mut batch: Vec<Span>) {
        queue.close();
        while let Ok(span) = queue.try_recv() {
            batch.push(span);
        }
        self.drop_batch(&batch);
    }

    /// One try for each batch that is left.
    async fn empty(
        &mut self,
        client: &Client,
        queue: &mut mpsc::Receiver<Span>,
        batch: &mut Vec<Span>,
    ) {
        loop {
            while batch.len() < BATCH_MAX
                && let Ok(span) = queue.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            let Ok(rejected) = self.post(client, batch).await else {
                return;
            };
            self.note_taken(batch, rejected);
            batch.clear();
        }
    }

    async fn send(
        &mut self,
        client: &Client,
        batch: &[Span],
        stopped: &mut watch::Receiver<bool>,
    ) -> Sent {
        let mut pause = PAUSE_MIN;
        for _ in 0..BATCH_TRIES_MAX {
            let posted = tokio::select! {
                posted = self.post(client, batch) => posted,
                // What is under way may end: sent again it would arrive twice.
                () = out_of_patience(stopped) => Err(ExportError::Slow),
            };
            let error = match posted {
                Ok(rejected) => {
                    self.note_taken(batch, rejected);
                    return Sent::Taken;
                }
                Err(error) => error,
            };
            self.warn(&error);
            self.is_failing = true;
            if !error.is_passing() {
                break;
            }
            tokio::select! {
                () = sleep(pause) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return Sent::Stopped,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.drop_batch(batch);
        Sent::Dropped
    }

    /// Sends a batch; gives how many of its spans the collector rejected for good.
    async fn post(&self, client: &Client, batch: &[Span]) -> Result<u64, ExportError> {
        let posting = client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(encode::body(&self.resource, batch))
            .send();
        let answer = timeout(EXPORT_PATIENCE, posting)
            .await
            .map_err(|_| ExportError::Slow)?
            .map_err(|error| ExportError::Unreachable(error.without_url()))?;
        if !answer.status().is_success() {
            return Err(ExportError::Status(answer.status()));
        }
        // A body that never ends is not waited for: the head has said that the batch was taken.
        let words = timeout(WORDS_PATIENCE, words(answer)).await;
        Ok(words
            .ok()
            .flatten()
            .map_or(0, |words| encode::rejected(&words)))
    }

    fn note_taken(&mut self, batch: &[Span], rejected: u64) {
        let rejected = usize::try_from(rejected)
            .unwrap_or(usize::MAX)
            .min(batch.len());
        self.counts.settle(batch.len() - rejected, rejected);
        self.is_failing = false;
        if rejected > 0 {
            self.warn(&ExportError::Partial(rejected));
            return;
        }
        if std::mem::take(&mut self.is_told) {
            let dropped = self.counts.dropped.load(Ordering::Relaxed);
            tracing::info!(dropped, "the collector takes spans again");
        }
    }

    fn drop_batch(&self, batch: &[Span]) {
        self.counts.settle(0, batch.len());
    }

    fn warn(&mut self, error: &ExportError) {
        let now = Instant::now();
        let is_soon = self
            .warned
            .is_some_and(|warned| now.duration_since(warned) < WARN_EVERY);
        if is_soon {
            return;
        }
        self.warned = Some(now);
        self.is_told = true;
        let (error, dropped) = (
            causes::in_full(error),
            self.counts.dropped.load(Ordering::Relaxed),
        );
        tracing::warn!(error, dropped, "spans are not exported");
    }
}

/// Waits for spans: for the first as long as it takes, for others a moment. Nothing is in `batch` when none will come.
async fn fill(queue: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    // A turn that was cancelled left in the batch what it took.
    if batch.is_empty() && queue.recv_many(batch, BATCH_MAX).await == 0 {
        return;
    }
    let company = async {
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            if queue.recv_many(batch, room).await == 0 {
                return;
            }
        }
    };
    let _ = timeout(BATCH_DELAY, company).await;
}

/// Resolves when the process has been stopping for as long as it may.
async fn out_of_patience(stopped: &mut watch::Receiver<bool>) {
    // A sender that is gone is a stop, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    sleep(STOP_PATIENCE).await;
}

fn client(url: &Url) -> Result<Client, reqwest::Error> {
    let builder = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .pool_max_idle_per_host(1);
    // Plain HTTP needs no certificates of authorities.
    match url.scheme() {
        "http" => builder.tls_certs_only([]).build(),
        _ => builder.build(),
    }
}

/// The body of an answer; nothing when it is longer than anything that counts.
async fn words(mut answer: Response) -> Option<Vec<u8>> {
    let mut words = Vec::new();
    while let Some(more) = answer.chunk().await.ok()? {
        if words.len() + more.len() > WORDS_BYTES_MAX {
            return None;
        }
        words.extend_from_slice(&more);
    }
    Some(words)
}
