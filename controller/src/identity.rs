//! This controller's own certificate: issued by its own issuer for a key made at every start, renewed at half life.

use std::{sync::Arc, time::Duration};

use dotmac_domain::command::{Genesis, NodeCard};
use dotmac_runtime::{
    clock::Clock,
    entropy::Entropy,
    pki::{Issuer, KeyPair, PkiError},
    tls::{Identity, IdentityCell, IdentityError},
};
use thiserror::Error;

/// Milliseconds for which a controller's certificate counts: 24 hours.
const LIFETIME_MS: u64 = 24 * 3_600_000;
/// Pause before a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Why a controller has no certificate.
#[derive(Debug, Error)]
pub enum CertifyError {
    /// The issuer cannot issue it.
    #[error("this controller's certificate cannot be issued")]
    Issue(#[from] PkiError),
    /// It cannot be shown.
    #[error("this controller's certificate cannot be used")]
    Use(#[from] IdentityError),
}

/// Issues certificates to this controller itself.
#[derive(Debug, Clone)]
pub struct SelfIssuer {
    /// Its issuer.
    pub issuer: Arc<Issuer>,
    /// Its card.
    pub card: NodeCard,
    /// The cluster it belongs to.
    pub genesis: Arc<Genesis>,
    /// Its clock.
    pub clock: Clock,
    /// Its randomness.
    pub entropy: Entropy,
}

impl SelfIssuer {
    /// A certificate for a fresh key.
    pub fn issue(&self) -> Result<Identity, CertifyError> {
        let key = KeyPair::generate(&self.entropy);
        let chain = self.issuer.issue_node(
            &key,
            &self.genesis.cluster,
            self.card.node,
            self.card.incarnation.as_str(),
            self.clock.now(),
            LIFETIME_MS,
        )?;
        Ok(Identity { chain, key })
    }

    /// Renews at half life until the process ends; connections that stand are not touched.
    pub async fn renew(self, cell: IdentityCell) {
        let mut pause = Duration::from_millis(LIFETIME_MS / 2);
        loop {
            tokio::time::sleep(pause).await;
            let renewed = self
                .issue()
                .and_then(|identity| cell.replace(&identity).map_err(CertifyError::from));
            pause = match renewed {
                Ok(()) => Duration::from_millis(LIFETIME_MS / 2),
                Err(error) => {
                    tracing::error!(%error, "this controller's certificate was not renewed");
                    AGAIN
                }
            };
        }
    }
}
