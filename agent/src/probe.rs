//! Asks running copies how they are, over HTTP on the loopback, and judges the answers. It restarts nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dotmac_protocol::{release::Probe, time::Timestamp};
use dotmac_runtime::clock::Clock;
use reqwest::{Client, redirect::Policy};
use tokio::sync::Notify;

use crate::{driver::SlotName, metrics::Metrics, reports::Counter};

/// Bytes of an answer that are read at most, where its JSON matters.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Milliseconds between the first questions, until one is answered well.
const EAGER_MS: u64 = 100;

/// Which of the two questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Is it alive at all?
    Live,
    /// Should it be used?
    Ready,
}

/// What the answers come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Verdict {
    /// Not enough answers yet.
    #[default]
    Open,
    /// The last answer was good.
    Good,
    /// Too many bad answers in a row; the last one's reason.
    Bad(String),
}

/// By slot and question: about which start, and what.
type Verdicts = BTreeMap<(SlotName, Kind), (u64, Verdict)>;

/// The verdicts about all slots of a unit, by the start they are about. Clones share one board.
#[derive(Debug, Clone, Default)]
pub struct Board {
    verdicts: Arc<Mutex<Verdicts>>,
    /// Told when a verdict changes.
    wake: Arc<Notify>,
}

/// One series of questions about one start of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry {
    /// Which slot.
    pub slot: SlotName,
    /// Which start of it.
    pub launch: u64,
    /// Which question.
    pub kind: Kind,
    /// How to ask.
    pub probe: Probe,
    /// Where.
    pub port: u16,
    /// When the process was started: failures do not count during its grace.
    pub started_at: Timestamp,
    /// Whether that was after an end that nobody asked for: it is missed until it has spoken.
    pub started_again: bool,
}

/// Judges answers. Pure: the same answers at the same times give the same verdict.
#[derive(Debug)]
pub struct Judge {
    failures_max: u16,
    grace_ms: u64,
    grace_ends: Timestamp,
    failures: u16,
    verdict: Verdict,
}

impl Board {
    /// A board whose changes wake `wake`.
    #[must_use]
    pub fn new(wake: Arc<Notify>) -> Self {
        Self {
            verdicts: Arc::default(),
            wake,
        }
    }

    /// The verdict about a start of a slot.
    #[must_use]
    pub fn verdict(&self, slot: &SlotName, launch: u64, kind: Kind) -> Verdict {
        let verdicts = self.lock();
        let found = verdicts.get(&(slot.clone(), kind));
        found
            .filter(|(about, _)| *about == launch)
            .map(|(_, verdict)| verdict.clone())
            .unwrap_or_default()
    }

    /// Forgets the verdicts about a slot that is not asked any more.
    pub fn forget(&self, slot: &SlotName) {
        self.lock().retain(|(of, _), _| of != slot);
    }

    fn put(&self, inquiry: &Inquiry, verdict: Verdict) {
        let key = (inquiry.slot.clone(), inquiry.kind);
        let mut verdicts = self.lock();
        // A task about an earlier start may speak last.
        if verdicts
            .get(&key)
            .is_none_or(|(about, _)| *about <= inquiry.launch)
        {
            verdicts.insert(key, (inquiry.launch, verdict));
        }
        drop(verdicts);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Verdicts> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Judge {
    /// A judge of one start that has heard nothing yet.
    #[must_use]
    pub fn new(probe: &Probe, started_at: Timestamp) -> Self {
        Self {
            failures_max: probe.failures,
            grace_ms: probe.grace_ms.into(),
            grace_ends: started_at.plus_millis(probe.grace_ms.into()),
            failures: 0,
            verdict: Verdict::Open,
        }
    }

    /// Whether an answer says something: while a process starts, a bad one does not. One that was started again is
    /// counted as missed until its verdict.
    #[must_use]
    pub fn counts(&self, is_good: bool, started_again: bool, now: Timestamp) -> bool {
        let is_in_grace = started_again || now < self.grace_ends;
        is_good || !is_in_grace || self.verdict != Verdict::Open
    }

    /// Takes one answer; gives the verdict if it changed. Another reason for the same verdict is no change.
    pub fn hear(&mut self, answer: Result<(), String>, now: Timestamp) -> Option<&Verdict> {
        let before = std::mem::discriminant(&self.verdict);
        // A clock that was set back must not stretch the grace.
        self.grace_ends = self.grace_ends.min(now.plus_millis(self.grace_ms));
        match answer {
            Ok(()) => {
                self.failures = 0;
                self.verdict = Verdict::Good;
            }
            Err(_) if now < self.grace_ends && self.verdict == Verdict::Open => {}
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= self.failures_max {
                    self.verdict = Verdict::Bad(reason);
                }
            }
        }
        (before != std::mem::discriminant(&self.verdict)).then_some(&self.verdict)
    }
}

/// The client of all probes: straight to the loopback, no proxy, no redirects, a new connection each time, because a
/// program that accepts no more connections is not alive.
///
/// # Panics
/// When a client that trusts no certificate cannot be built, which only a broken build does.
#[must_use]
pub fn client() -> Client {
    Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        // Probes speak plain HTTP, and this machine may have no certificates of authorities.
        .tls_certs_only([])
        .build()
        .expect("a client without certificates and proxies can always be built")
}

/// Asks for ever; `offset_ms` spreads the probes of many slots over the period, and `counter` is told every answer
/// that counts.
pub async fn keep_asking(
    inquiry: Inquiry,
    client: Client,
    board: Board,
    clock: Clock,
    metrics: Metrics,
    offset_ms: u64,
    counter: Option<Counter>,
) {
    let mut judge = Judge::new(&inquiry.probe, inquiry.started_at);
    let period_ms = u64::from(inquiry.probe.period_ms);
    let mut eager_ms = EAGER_MS.min(period_ms) / 2;
    let mut spread_ms = offset_ms.checked_rem(period_ms).unwrap_or(0);
    loop {
        let asked = tokio::time::Instant::now();
        let answer = ask(&client, &inquiry).await;
        metrics.probed(answer.is_ok(), asked.elapsed());
        let now = clock.now();
        if let Some(counter) = &counter
            && judge.counts(answer.is_ok(), inquiry.started_again, now)
        {
            let took_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
            counter.count(now, took_ms, answer.is_ok());
        }
        if let Some(verdict) = judge.hear(answer, now) {
            board.put(&inquiry, verdict.clone());
        }
        let pause_ms = if judge.verdict == Verdict::Open {
            eager_ms = (eager_ms * 2).min(period_ms);
            eager_ms
        } else {
            period_ms + std::mem::take(&mut spread_ms)
        };
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

/// One question: any 2xx is a success, and where a JSON member is named it must be `true`.
async fn ask(client: &Client, inquiry: &Inquiry) -> Result<(), String> {
    let timeout = Duration::from_millis(inquiry.probe.timeout_ms.into());
    match tokio::time::timeout(timeout, answer(client, inquiry)).await {
        Ok(answer) => answer.map_err(|reason| format!("{}: {reason}", inquiry.probe.http.path)),
        Err(_) => Err(format!(
            "{}: no answer within {} ms",
            inquiry.probe.http.path, inquiry.probe.timeout_ms
        )),
    }
}

async fn answer(client: &Client, inquiry: &Inquiry) -> Result<(), String> {
    let http = &inquiry.probe.http;
    let url = format!("http://127.0.0.1:{}{}", inquiry.port, http.path);
    let mut response = client.get(url).send().await.map_err(|error| {
        let refused = if error.is_connect() {
            "it does not accept connections"
        } else {
            "it broke the connection off"
        };
        refused.to_owned()
    })?;
    if !response.status().is_success() {
        return Err(format!("it answers {}", response.status().as_u16()));
    }
    let Some(member) = &http.json_true else {
        return Ok(());
    };
    let mut body = Vec::new();
    while let Some(part) = response
        .chunk()
        .await
        .map_err(|_| "its answer breaks off")?
    {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(format!("its answer exceeds {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&part);
    }
    let json: serde_json::Value =
        serde_json::from_slice(&body).map_err(|_| "its answer is no JSON")?;
    match json.get(member) {
        Some(serde_json::Value::Bool(true)) => Ok(()),
        Some(other) => Err(format!("{member} is {other}").chars().take(200).collect()),
        None => Err(format!("its answer has no member {member}")),
    }
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::{
        release::{HttpProbe, Probe},
        time::Timestamp,
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::{Inquiry, Judge, Kind, Verdict, ask, client};

    fn probe(json_true: Option<&str>) -> Probe {
        Probe {
            http: HttpProbe {
                port: "http".parse().unwrap(),
                path: "/health/ready".into(),
                json_true: json_true.map(Into::into),
            },
            period_ms: 1_000,
            timeout_ms: 300,
            failures: 3,
            grace_ms: 10_000,
        }
    }

    #[test]
    fn failures_count_after_the_grace_and_only_in_a_row() {
        let mut judge = Judge::new(&probe(None), Timestamp(0));
        let bad = || Err("no".to_owned());
        for at in [100, 9_999] {
            assert_eq!(judge.hear(bad(), Timestamp(at)), None, "within the grace");
        }
        for at in [10_000, 11_000] {
            assert_eq!(judge.hear(bad(), Timestamp(at)), None);
        }
        assert_eq!(
            judge.hear(bad(), Timestamp(12_000)),
            Some(&Verdict::Bad("no".into()))
        );
        assert_eq!(judge.hear(Ok(()), Timestamp(13_000)), Some(&Verdict::Good));
        for at in [14_000, 15_000] {
            assert_eq!(judge.hear(bad(), Timestamp(at)), None);
        }
        assert_eq!(judge.hear(Ok(()), Timestamp(16_000)), None);
        assert_eq!(
            judge.hear(bad(), Timestamp(17_000)),
            None,
            "the row was broken"
        );
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stretch_the_grace() {
        let mut judge = Judge::new(&probe(None), Timestamp(2_592_000_000));
        let heard: Vec<_> = [0, 9_999, 10_000, 11_000, 12_000]
            .map(|at| judge.hear(Err("no".into()), Timestamp(at)).is_some())
            .into();
        assert_eq!(heard, [false, false, false, false, true]);
    }

    #[test]
    fn what_was_good_once_has_no_grace_left() {
        let mut judge = Judge::new(&probe(None), Timestamp(0));
        let counts = |judge: &Judge, again, at| judge.counts(false, again, Timestamp(at));
        assert!(!counts(&judge, false, 9_999) && counts(&judge, false, 10_000));
        assert!(!counts(&judge, true, 10_000), "it is missed instead");
        judge.hear(Ok(()), Timestamp(1));
        assert!(counts(&judge, false, 2) && counts(&judge, true, 2));
        let heard: Vec<_> = (2..5)
            .map(|at| judge.hear(Err("no".into()), Timestamp(at)).is_some())
            .collect();
        assert_eq!(heard, [false, false, true]);
    }

    async fn answer_of(reply: &'static str, json_true: Option<&str>) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _read = stream.read(&mut request).await.unwrap();
            stream.write_all(reply.as_bytes()).await.unwrap();
            if reply.is_empty() {
                std::future::pending::<()>().await;
            }
        };
        let inquiry = Inquiry {
            slot: "web.0".parse().unwrap(),
            launch: 1,
            kind: Kind::Ready,
            probe: probe(json_true),
            port,
            started_at: Timestamp(0),
            started_again: false,
        };
        let client = client();
        tokio::select! {
            answer = ask(&client, &inquiry) => answer,
            () = async { serving.await; std::future::pending().await } => unreachable!(),
        }
    }

    #[tokio::test]
    async fn the_answer_200_is_not_enough_where_a_member_must_be_true() {
        let sick = "HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{\"healthy\":false}";
        assert_eq!(answer_of(sick, None).await, Ok(()));
        let reason = "/health/ready: healthy is false".to_owned();
        assert_eq!(answer_of(sick, Some("healthy")).await, Err(reason));
        let well = "HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"healthy\":true}";
        assert_eq!(answer_of(well, Some("healthy")).await, Ok(()));
    }

    #[tokio::test]
    async fn errors_and_silence_are_failures() {
        let error = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(
            answer_of(error, None).await,
            Err("/health/ready: it answers 503".into())
        );
        let silent = "/health/ready: no answer within 300 ms".to_owned();
        assert_eq!(answer_of("", None).await, Err(silent));
    }
}
