//! Renews the certificate at half of its life, on the session, for a new key. A renewal that gets lost is asked for again
//! with yet another key; the certificate in use stays until the new one is on disk.

use std::time::Duration;

use dotmac_protocol::{frame::AgentFrame, time::Timestamp};
use dotmac_runtime::pki::{self, KeyPair};
use tokio::sync::mpsc;

use super::{
    enrol::check_chain,
    identity::Certificate,
    session::{Ended, Session, SessionEnd},
};

/// How long a renewal may take.
const RENEW_PATIENCE: Duration = Duration::from_secs(15);
/// Pause after a renewal that failed.
const RENEW_PAUSE: Duration = Duration::from_secs(30);
/// The clock is looked at this often at least, for it may be set.
const LOOK_MS_MAX: u64 = 10_000;

pub(super) async fn run(
    session: &Session<'_>,
    mut renewed: mpsc::Receiver<Result<Vec<Vec<u8>>, String>>,
) -> Ended {
    loop {
        wait_until_due(session).await;
        let key = KeyPair::generate(&session.link.parts.entropy);
        let request = pki::csr(&key);
        while renewed.try_recv().is_ok() {}
        let frame = AgentFrame::Renew { request };
        session
            .control
            .send(frame)
            .await
            .map_err(|_| SessionEnd::Closed)?;
        let outcome = match tokio::time::timeout(RENEW_PATIENCE, renewed.recv()).await {
            Err(_) => Err("no answer in time".to_owned()),
            Ok(None) => return Err(SessionEnd::Closed),
            Ok(Some(answer)) => answer.and_then(|chain| take_over(session, key, chain)),
        };
        if let Err(reason) = outcome {
            tracing::warn!(reason, "the certificate was not renewed");
            tokio::time::sleep(RENEW_PAUSE).await;
        }
    }
}

async fn wait_until_due(session: &Session<'_>) {
    loop {
        let now = session.link.parts.clock.now();
        let due = due(&session.link.certificate());
        if due <= now {
            return;
        }
        let pause_ms = due.millis_since(now).min(LOOK_MS_MAX);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

/// The middle of the certificate's life, from when it came. At once when it cannot be read.
fn due(certificate: &Certificate) -> Timestamp {
    certificate.validity().map_or(Timestamp(0), |validity| {
        let life_ms = validity.not_after.millis_since(certificate.obtained);
        certificate.obtained.plus_millis(life_ms / 2)
    })
}

fn take_over(session: &Session<'_>, key: KeyPair, chain: Vec<Vec<u8>>) -> Result<(), String> {
    check_chain(&chain, &key)?;
    let before = session.link.certificate().clone();
    let now = session.link.parts.clock.now();
    let certificate = Certificate {
        key,
        chain,
        obtained: now,
        ..before
    };
    let validity = certificate.validity().map_err(|error| error.to_string())?;
    if !validity.contains(now) {
        return Err("the new certificate is not valid now".to_owned());
    }
    let parts = &session.link.parts;
    parts
        .store
        .keep(&certificate)
        .map_err(|error| error.to_string())?;
    session
        .link
        .replace(certificate)
        .map_err(|error| error.to_string())?;
    tracing::info!("the certificate was renewed");
    Ok(())
}
