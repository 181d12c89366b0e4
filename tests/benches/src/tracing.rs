//! `make bench-tracing`: what traces cost where they are made. Deployments on the agents of a fleet, from the request to
//! active, with their spans going to a collector that takes them, to one that is away, to one that takes connections and
//! never answers, and nowhere; and shows of which none, one in a hundred and all are traced. A fleet for each, measured
//! in turn; of every figure the median of the rounds, and the least and the most.

mod orders;
mod reads;
mod sink;

use anyhow::Result;
use clap::Args;
use serde_json::json;

pub(crate) use self::sink::serve as serve_sink;
use crate::report;

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Rounds of each measurement
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Deployments of each round, deleted after it
    #[arg(long, default_value_t = 20)]
    deployments: usize,
    /// Deployments under way at once
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// Seconds of each round of shows
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Connections over which shows are asked for
    #[arg(long, default_value_t = 32)]
    connections: u64,
}

/// Measures orders, then reads.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut found = report::begin();
    found.insert("rounds".into(), json!(settings.rounds));
    found.insert("deployments".into(), json!(settings.deployments));
    found.insert("at_once".into(), json!(settings.at_once));
    found.insert("connections".into(), json!(settings.connections));
    orders::measure(settings, &mut found).await?;
    reads::measure(settings, &mut found).await?;
    report::write("tracing.json", found)
}
