//! Two ways to put load on a server. A *closed* loop sends the next request once the last one is answered: it finds out
//! how many a second there can be. An *open* loop sends at set times whatever the server does, and a request that is
//! late because the one before it was slow counts from its set time: it finds out what a caller feels.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use dotmac_runtime::supervise;
use tokio::time::Instant;

use crate::{
    samples::Samples,
    wire::{Ask, Target, Wire},
};

/// Makes the request of this number.
pub(crate) type Make = Arc<dyn Fn(u64) -> Ask + Send + Sync>;

/// Share of refused or unanswered requests, in percent, above which a round says nothing.
const REFUSED_MAX: u64 = 1;

/// How a round is driven.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// Connections at once; each keeps its own.
    pub(crate) connections: u64,
    /// How long.
    pub(crate) over: Duration,
    /// Between the set times of one connection; `None` for a closed loop.
    pub(crate) every: Option<Duration>,
}

/// Drives a round; the connections are spread over the targets.
///
/// # Errors
/// When no connection can be made.
pub(crate) async fn drive(targets: &[Target], round: Round, make: Make) -> Result<Samples> {
    let mut wires = Vec::new();
    for (number, target) in (0..round.connections).zip(targets.iter().cycle()) {
        wires.push((Wire::open(target, number).await?, target.clone()));
    }
    let start = Instant::now();
    let clients: Vec<_> = (0..)
        .zip(wires)
        .map(|(number, (wire, target))| {
            let client = Client {
                wire,
                target,
                number,
                round,
                make: Arc::clone(&make),
            };
            supervise::spawn("bench client", client.run(start))
        })
        .collect();
    let mut all = Samples::default();
    for client in clients {
        all.join(client.await?);
    }
    all.elapsed = start.elapsed();
    Ok(all)
}

/// As [`drive`], for rounds in which every request must succeed.
///
/// # Errors
/// When too many did not.
pub(crate) async fn drive_whole(targets: &[Target], round: Round, make: Make) -> Result<Samples> {
    let samples = drive(targets, round, make).await?;
    let lost = samples.refused + samples.failed;
    ensure!(
        lost * 100 <= REFUSED_MAX * samples.len() as u64,
        "{} requests were refused and {} not answered, beside {} good ones",
        samples.refused,
        samples.failed,
        samples.len()
    );
    Ok(samples)
}

struct Client {
    wire: Wire,
    target: Target,
    number: u64,
    round: Round,
    make: Make,
}

impl Client {
    async fn run(mut self, start: Instant) -> Samples {
        let mut samples = Samples::default();
        let end = start + self.round.over;
        // Set times of different clients are spread over the interval.
        let offset = self.round.every.map(|every| {
            every.mul_f64(f64_of(self.number) / f64_of(self.round.connections.max(1)))
        });
        let mut due = start + offset.unwrap_or_default();
        let mut count = 0;
        loop {
            let from = match self.round.every {
                Some(every) => {
                    tokio::time::sleep_until(due).await;
                    let from = due;
                    due += every;
                    from
                }
                None => Instant::now(),
            };
            if from >= end || Instant::now() >= end {
                break;
            }
            let ask = (self.make)(self.number + count * self.round.connections);
            count += 1;
            match self.wire.ask(&ask).await {
                Ok((status, _)) if status == ask.expected => samples.take(from.elapsed()),
                Ok(_) => samples.refused += 1,
                Err(_) => {
                    samples.failed += 1;
                    match Wire::open(&self.target, self.number).await {
                        Ok(wire) => self.wire = wire,
                        Err(_) => break,
                    }
                }
            }
        }
        samples.elapsed = start.elapsed();
        samples
    }
}

fn f64_of(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
