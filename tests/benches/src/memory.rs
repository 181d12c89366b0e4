//! Resident memory of processes over a run, and whether it levels off.

use std::time::Duration;

use anyhow::{Context as _, Result};
use dotmac_runtime::supervise;
use dotmac_tests::fleet::{CONTROLLERS, Fleet};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, interval},
};

use crate::samples::{median, rounded};

/// Between two samples.
const EVERY: Duration = Duration::from_secs(1);
/// Points of the curve that is told.
const POINTS: usize = 24;

/// Samples of the controllers' resident memory, being taken.
pub(crate) struct Curve {
    stop: watch::Sender<bool>,
    samples: JoinHandle<Vec<(f64, f64)>>,
}

impl Curve {
    /// Begins to take samples.
    pub(crate) fn begin(fleet: &Fleet) -> Result<Self> {
        let pids: Result<Vec<u32>> = CONTROLLERS
            .iter()
            .map(|name| Ok(fleet.process(name)?.pid))
            .collect();
        let pids = pids?;
        let (stop, mut stopped) = watch::channel(false);
        let samples = supervise::spawn("bench memory", async move {
            let started = Instant::now();
            let mut samples = Vec::new();
            let mut tick = interval(EVERY);
            loop {
                tokio::select! {
                    _ = tick.tick() => {}
                    _ = stopped.changed() => return samples,
                }
                let resident: Option<f64> = pids.iter().map(|pid| resident_mib(*pid).ok()).sum();
                samples
                    .extend(resident.map(|resident| (started.elapsed().as_secs_f64(), resident)));
            }
        });
        Ok(Self { stop, samples })
    }

    /// Ends it and tells the curve: seconds and mebibytes of all controllers together.
    pub(crate) async fn end(self) -> Result<Memory> {
        self.stop.send_replace(true);
        Ok(Memory {
            samples: self.samples.await?,
        })
    }
}

/// What was sampled.
pub(crate) struct Memory {
    samples: Vec<(f64, f64)>,
}

impl Memory {
    /// Some points of the curve.
    pub(crate) fn points(&self) -> Value {
        let step = self.samples.len().div_ceil(POINTS).max(1);
        let points = self.samples.iter().step_by(step);
        points
            .map(|(at, resident)| json!([at.round(), resident.round()]))
            .collect()
    }

    /// Mebibytes a minute by which it grew in one part of the run, from 0 to 1: the median of the part's last third
    /// against that of its first, so that one sample decides nothing.
    pub(crate) fn growth(&self, from: f64, to: f64) -> f64 {
        let end = self.samples.last().map_or(0.0, |(at, _)| *at);
        let part = |from: f64, to: f64| {
            let within = self
                .samples
                .iter()
                .filter(move |(at, _)| (from * end..=to * end).contains(at));
            median(within.map(|(_, resident)| *resident))
        };
        let third = (to - from) / 3.0;
        let minutes = (2.0 * third * end / 60.0).max(f64::EPSILON);
        rounded((part(to - third, to) - part(from, from + third)) / minutes)
    }

    /// Mebibytes at the end.
    pub(crate) fn last(&self) -> f64 {
        self.samples
            .last()
            .map_or(0.0, |(_, resident)| rounded(*resident))
    }
}

/// Mebibytes of a process that are in memory.
pub(crate) fn resident_mib(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(kibibytes.parse::<f64>()? / 1024.0)
}
