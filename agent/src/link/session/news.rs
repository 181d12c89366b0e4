//! What becomes different about the controllers during a session: a newer trust root, other addresses. A controller that
//! is none any more is left, and an order that was signed for a trust root on its way waits for that.

use std::sync::Arc;

use dotmac_protocol::{
    frame::{ControllerNews, Delivery},
    time::Timestamp,
};
use dotmac_runtime::tls;
use quinn::Connection;
use tokio::time::timeout;

use super::{CLOCK_PATIENCE, Session, SessionEnd};
use crate::{
    intake::Verdict,
    link::{Link, identity::usable_addresses},
};

impl Session<'_> {
    /// Follows to a newer trust root and keeps the new addresses; leaves a controller that is none any more.
    pub(super) async fn follow(&self, news: ControllerNews) -> Result<(), SessionEnd> {
        let intake = Arc::clone(&self.link.parts.intake);
        let roots = news.trust_roots;
        tokio::task::spawn_blocking(move || intake.follow(&roots)).await??;
        keep_addresses(self.link, &news.controllers)?;
        let version = self.link.parts.intake.trust_version();
        self.trust.send_if_modified(|known| {
            let is_new = *known != version;
            *known = version;
            is_new
        });
        require_pinned(self.link, self.connection)
    }

    /// Takes one order; one for a trust root that is on its way waits for it.
    pub(super) async fn take(
        &self,
        delivery: Delivery,
        received: Timestamp,
    ) -> Result<Verdict, SessionEnd> {
        let delivery = Arc::new(delivery);
        let take = |delivery: Arc<Delivery>| {
            let intake = Arc::clone(&self.link.parts.intake);
            tokio::task::spawn_blocking(move || intake.take(&delivery, received))
        };
        let mut trust = self.trust.subscribe();
        trust.mark_unchanged();
        let verdict = take(Arc::clone(&delivery)).await?;
        let is_behind = verdict == Verdict::TrustBehind;
        if is_behind && timeout(CLOCK_PATIENCE, trust.changed()).await.is_ok() {
            return Ok(take(delivery).await?);
        }
        Ok(verdict)
    }
}

/// Whether the controller at the other end is still one of the trust root in force.
pub(super) fn require_pinned(link: &Link, connection: &Connection) -> Result<(), SessionEnd> {
    let issuer = tls::peer(connection)?.issuer;
    match link.parts.intake.pinned().node(&issuer) {
        Some(_) => Ok(()),
        None => Err(SessionEnd::ControllerLeft),
    }
}

/// Keeps where the controllers are, if any of the addresses can be used.
pub(super) fn keep_addresses(link: &Link, told: &[String]) -> Result<(), SessionEnd> {
    if let Some(controllers) = usable_addresses(told) {
        let mut certificate = link.certificate();
        if certificate.controllers != controllers {
            certificate.controllers = controllers;
            link.parts.store.keep(&certificate)?;
        }
    }
    Ok(())
}
