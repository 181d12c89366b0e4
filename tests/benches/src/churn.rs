//! `make bench-churn`: whether the disk of the controllers levels off. Commands that leave nothing behind are committed as
//! fast as they can be, over many rounds of snapshots and purges of the log; the stores must then stay as large as they
//! were. What is kept on purpose (audit, usage) grows by retention, and is told apart: commands that leave one fact each.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;
use dotmac_controller::node::Node;
use dotmac_domain::Command;
use dotmac_protocol::{ids::TokenId, time::Timestamp};
use dotmac_tests::fleet::CONTROLLERS;
use serde_json::json;

use crate::{
    commits::{Counted, OWN, lead, propose},
    ground::Ground,
    report::{self, Found, put},
    samples::{median, rounded},
    tell,
    versus::disk,
};

/// Tokens that one command names: about 512 bytes.
const USES: u64 = 20;
/// Commits for which growth is told.
const PER: f64 = 10_000.0;

/// How much is churned.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Points of the curve, each after so many seconds of commits
    #[arg(long, default_value_t = 24)]
    points: u32,
    /// Seconds between two points
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Writers at once: fewer make more entries of the log for as many commits
    #[arg(long, default_value_t = 16)]
    writers: u64,
}

/// Commits and looks at the disk in turn.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut found = report::begin();
    let ground = Ground::start("bench-churn").await?;
    ground.fleet.settled().await?;
    // Until the end: the supervisor would start the controller that this program plays.
    let hold = ground.fleet.kill_and_hold(&[OWN]).await?;
    let running = lead(&ground.fleet, &Arc::new(Counted::default())).await?;
    let stores = CONTROLLERS.map(|name| ground.fleet.home().join(name).join("data/store"));
    let look = || disk(&stores);
    let measured = async {
        let passing = Command::NoteTokenUse { uses: uses() };
        curve(
            settings,
            &running.node,
            ("passing", &passing),
            &look,
            &mut found,
        )
        .await?;
        let kept = Command::NoteAccess {
            action: "bench.noted".into(),
            tenant: None,
            detail: "x".repeat(256),
        };
        curve(settings, &running.node, ("kept", &kept), &look, &mut found).await
    }
    .await;
    running.stop().await;
    drop(hold);
    measured?;
    report::write("churn.json", found)
}

/// Unknown tokens: noted nowhere.
fn uses() -> Vec<(TokenId, Timestamp)> {
    let token = |number: u64| {
        format!("{number:016x}")
            .parse()
            .expect("16 digits name a token")
    };
    (0..USES)
        .map(|number| (token(number), Timestamp(0)))
        .collect()
}

/// Commits one command over and over, and tells how large the three stores are meanwhile.
async fn curve(
    settings: &Settings,
    node: &Arc<Node>,
    (name, command): (&str, &Command),
    look: &impl Fn() -> Result<f64>,
    found: &mut Found,
) -> Result<()> {
    let mut points = vec![(0.0, look()?)];
    let mut commits = 0;
    for _ in 0..settings.points {
        let over = Duration::from_secs(settings.seconds);
        commits += propose(node, settings.writers, over, command).await?.len();
        points.push((f64::from(u32::try_from(commits)?), look()?));
        let (at, mebibytes) = points[points.len() - 1];
        let figures = node.log.figures();
        tell(&format!(
            "{name}: {at:.0} commits, entry {}, snapshot {}: {mebibytes:.0} MiB",
            figures.last_log, figures.snapshot
        ));
    }
    let shown: Vec<_> = points
        .iter()
        .map(|(at, size)| json!([at, rounded(*size)]))
        .collect();
    found.insert(format!("{name}_commits_and_mib"), json!(shown));
    put(found, format!("{name}_growth_mib_per_10k"), growth(&points));
    Ok(())
}

/// Mebibytes of the three stores for each 10,000 commits of the second half: its last third against its first, so that the
/// moment of one snapshot decides nothing.
fn growth(points: &[(f64, f64)]) -> f64 {
    let half = &points[points.len() / 2..];
    let third = (half.len() / 3).max(1);
    let (first, last) = (&half[..third], &half[half.len() - third..]);
    let middle = |part: &[(f64, f64)]| {
        let at = median(part.iter().map(|(at, _)| *at));
        (at, median(part.iter().map(|(_, size)| *size)))
    };
    let ((from, before), (to, after)) = (middle(first), middle(last));
    (after - before) / ((to - from) / PER).max(f64::EPSILON)
}

#[cfg(test)]
mod tests {
    use super::growth;

    #[test]
    fn growth_is_that_of_the_second_half() {
        let level: Vec<_> = (0..24)
            .map(|n| (f64::from(n) * 1e4, f64::from(n).min(9.0)))
            .collect();
        assert!(growth(&level).abs() < 1e-9);
        let rising: Vec<_> = (0..24)
            .map(|n| (f64::from(n) * 1e4, f64::from(n)))
            .collect();
        assert!((growth(&rising) - 1.0).abs() < 1e-9);
    }
}
