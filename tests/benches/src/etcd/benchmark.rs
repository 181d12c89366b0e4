//! etcd's own benchmark client, and what it tells. It runs a number of requests, not a time: so each round asks for as
//! many as the round before it says fit.

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::programs::peer;
use tokio::process::Command;

use super::{Etcd, VALUE_BYTES};

/// Connections at most: with one for each of 256 clients etcd does a third less.
const CONNECTIONS_MAX: u64 = 16;
/// Keys that are written in turn.
const KEYS: u64 = 10_000;
/// The key that `etcd-watch` writes: the names of the client's own keys are no text.
const WATCHED: &str = "dotmac/bench";

/// What is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Writing values.
    Put,
    /// Linearizable reads of the key that was watched before.
    Read,
}

/// What one run found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Told {
    /// Requests a second.
    pub(crate) per_second: f64,
    /// Milliseconds.
    pub(crate) p50_ms: f64,
    /// Milliseconds.
    pub(crate) p99_ms: f64,
}

impl Etcd {
    /// Makes so many requests with so many clients at once.
    ///
    /// # Errors
    /// When the client fails or tells no figures.
    pub(crate) async fn drive(&self, verb: Verb, clients: u64, total: u64) -> Result<Told> {
        let mut client = Command::new(peer("etcd-benchmark")?);
        match verb {
            Verb::Put => client
                .arg("put")
                .args(["--val-size", &VALUE_BYTES.to_string()])
                .args(["--key-space-size", &KEYS.to_string(), "--sequential-keys"]),
            Verb::Read => client.args(["range", WATCHED]),
        };
        let ran = client
            .args(["--endpoints", &self.endpoints(), "--precise"])
            .args(["--clients", &clients.to_string()])
            .args(["--conns", &clients.min(CONNECTIONS_MAX).to_string()])
            .args(["--total", &total.to_string()])
            .kill_on_drop(true)
            .output()
            .await?;
        let (said, failed) = (
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr),
        );
        ensure!(ran.status.success(), "etcd-benchmark: {}", failed.trim());
        parse(&said).with_context(|| format!("etcd-benchmark tells no figures: {said}"))
    }
}

fn parse(said: &str) -> Option<Told> {
    let after = |mark: &str| {
        let (_, rest) = said.split_once(mark)?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    Some(Told {
        per_second: after("Requests/sec:")?,
        p50_ms: after("50% in ")? * 1000.0,
        p99_ms: after("99% in ")? * 1000.0,
    })
}

#[cfg(test)]
mod tests {
    use super::{Told, parse};

    #[test]
    fn figures_are_found_in_what_the_client_says() {
        let said = "Summary:\n  Requests/sec:\t603.69\n\n  50% in 0.125 secs.\n  99% in 0.5 secs.\n  99.9% in 0.01 secs.\n";
        let expected = Told {
            per_second: 603.69,
            p50_ms: 125.0,
            p99_ms: 500.0,
        };
        assert_eq!(parse(said), Some(expected));
        assert_eq!(parse("Error: no leader"), None);
    }
}
