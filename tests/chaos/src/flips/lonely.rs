//! One controller on its own, with a copy of files that it may damage, and what it says about them: its State, or why it
//! refuses. Its peers are not there, so it changes nothing of what it has.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use dotmac_runtime::process::Signal;
use dotmac_tests::{ports, programs};
use serde_json::Value;
use tokio::time::Instant;

use super::{Found, TOLD_WITHIN, VICTIM, replace};
use crate::{
    client::{Client, Request},
    cluster::{self, RESERVE_BYTES},
    seat::{Place, Seat, in_words},
};

/// A controller alone, with files of its own.
pub(super) struct Lonely {
    pub(super) seat: Seat,
    pub(super) client: Client,
    program: PathBuf,
    pristine: PathBuf,
}

impl Lonely {
    /// One with a number of its own; nothing runs.
    pub(super) fn make(
        home: &Path,
        ports: &ports::Reserved,
        number: u16,
        client: &Client,
        pristine: PathBuf,
    ) -> Result<Self> {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let place = Place {
            api: at(ports.base + 200 + number),
            link: at(ports.base + 300 + number),
            namespace: None,
        };
        let directory = home.join(format!("alone-{number}"));
        let seat = Seat::new(VICTIM + 1, directory, place);
        fs::create_dir_all(seat.disk())?;
        cluster::write_configuration(home, &seat, RESERVE_BYTES)?;
        Ok(Self {
            client: client.at(format!("http://{}", seat.place.api)),
            program: programs::directory()?.join("dotmac-controller"),
            pristine,
            seat,
        })
    }

    /// Puts its files back.
    pub(super) async fn prepare(&self) -> Result<()> {
        replace(&self.pristine, &self.seat.disk()).await?;
        for log in [self.seat.log(), self.seat.crash_log()] {
            fs::write(log, "")?;
        }
        Ok(())
    }

    /// Starts it.
    pub(super) async fn begin(&mut self) -> Result<()> {
        if !self.seat.data().exists() {
            self.prepare().await?;
        }
        self.seat.start(&self.program)
    }

    /// Index and digest of its State, and its vote's term, once it has applied all that it knows to be committed; or what came instead.
    pub(super) async fn state(&mut self) -> Result<Result<(u64, String), Found>> {
        let request = Request::get("/api/v1/cluster/status?digests=true");
        let end = Instant::now() + TOLD_WITHIN;
        let mut last = None;
        while Instant::now() < end {
            if !self.seat.is_running()? {
                return Ok(Err(refusal(&mut self.seat)));
            }
            if let Ok(reply) = self.client.ask_once(0, &request).await {
                let now = own_state(&reply.body);
                // Twice the same: it applies nothing more.
                if now.is_some() && now == last {
                    return Ok(Ok(now.context("checked above")?));
                }
                last = now;
            }
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        let words = format!("it tells nothing within {TOLD_WITHIN:?}");
        self.seat.end(Signal::KILL).await?;
        Ok(Err(Found::Wrong(words)))
    }
}

/// What the asked controller tells of itself.
fn own_state(status: &Value) -> Option<(u64, String)> {
    let own = &status["nodes"][VICTIM];
    let digest = own["state_digest"].as_str()?;
    // Nobody connects to it, so it stands for no election, and its term is that of the vote on its disk.
    let term = status["term"].as_u64()?;
    Some((own["applied"].as_u64()?, format!("{digest} in term {term}")))
}

/// The words in which a process that ended has refused; without any it has refused nothing.
pub(super) fn refusal(seat: &mut Seat) -> Found {
    let text = fs::read_to_string(seat.crash_log()).unwrap_or_default();
    let log = fs::read_to_string(seat.log()).unwrap_or_default();
    let said = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("dotmac-controller: "));
    let logged = log
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let logged = logged
        .filter(|line| line["level"] == "ERROR")
        .find_map(|line| {
            let words = line["error"].as_str().or(line["fields"]["error"].as_str());
            words.map(str::to_owned)
        });
    match said.map(str::to_owned).or(logged) {
        Some(words) if !words.is_empty() => Found::Refused(words),
        _ => {
            let status = seat.ended().ok().flatten().map(in_words);
            Found::Wrong(format!("it ended without a word: {status:?}: {text}"))
        }
    }
}
