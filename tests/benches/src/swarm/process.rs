//! The child process of a swarm: starts its agents, and says on standard output what changed. It ends with its standard
//! input, so that none outlives the benchmark.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use dotmac_protocol::frame::JoinToken;
use dotmac_runtime::supervise;
use tokio::{
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval},
};

use super::{Seen, agent};

/// How often it says what changed at most.
const SAY_EVERY: Duration = Duration::from_millis(5);
/// Enrolments under way at once in one process: three controllers take 32 each.
const ENROLMENTS_AT_ONCE: usize = 32;

/// Runs the agents whose join tokens lie in the directory.
pub(crate) async fn run(directory: &Path) -> Result<()> {
    let text = std::fs::read_to_string(directory.join("join.tokens"))?;
    let tokens: Option<Vec<JoinToken>> = text.lines().map(JoinToken::from_text).collect();
    let tokens = tokens.context("these are no join tokens")?;
    ensure!(!tokens.is_empty(), "there is no join token");
    let seen = Arc::new(watch::Sender::new(Seen::default()));
    let enrolments = Arc::new(Semaphore::new(ENROLMENTS_AT_ONCE));
    for (number, token) in tokens.into_iter().enumerate() {
        let (home, seen) = (directory.join(number.to_string()), Arc::clone(&seen));
        let enrolments = Arc::clone(&enrolments);
        supervise::spawn("bench agent", async move {
            let ended = agent::live(&home, token, &enrolments, &seen).await;
            let why =
                ended.map_or_else(|error| format!("{error:#}"), |()| "its chain failed".into());
            seen.send_modify(|seen| seen.ended = Some(why));
        });
    }
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        said = say(seen.subscribe()) => said,
        ended = ended => Ok(ended?.map(|_| ())?),
    }
}

/// Writes a line whenever something changed.
async fn say(mut seen: watch::Receiver<Seen>) -> Result<()> {
    let mut ticks = interval(SAY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        seen.changed().await?;
        let line = serde_json::to_string(&*seen.borrow_and_update())?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()?;
    }
}
