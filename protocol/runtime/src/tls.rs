//! Who may speak to whom: TLS 1.3 with X25519MLKEM768 alone, certificates of pinned issuers alone, nothing resumed and
//! nothing sent early. A certificate counts when its issuer's digest is pinned, the chain and the dates hold, and its
//! name fits that issuer. Whether an agent's key is still admitted is the acceptor's question, asked with
//! [`Peer::key`].

mod identity;
mod peer;
mod pinned;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::Arc;

pub use identity::{Identity, IdentityCell, IdentityError};
pub use peer::{Peer, PeerError, peer, peer_after_greeting};
pub use pinned::{Issuers, PinnedIssuers};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
};
use verify::{ChainVerifier, Pins};

use crate::{clock::Clock, quic};

/// How a listening endpoint speaks: it shows `identity`, accepts `alpns`, and checks a client's certificate against
/// `pinned`. A client without one gets through the handshake, and no further: [`peer`] refuses it.
///
/// # Panics
/// Never: the settings do not depend on the arguments.
#[must_use]
pub fn server_config(
    identity: IdentityCell,
    pinned: PinnedIssuers,
    alpns: &[&[u8]],
    clock: &Clock,
) -> quinn::ServerConfig {
    let tls = server_tls(identity, pinned, alpns, clock);
    let tls = QuicServerConfig::try_from(tls).expect("the provider has QUIC's initial suite");
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    quic::limit_server(&mut config);
    config
}

/// How a dialling endpoint speaks: it shows `identity` if it has one, and accepts controllers of `pinned` issuers alone.
///
/// # Panics
/// Never: the settings do not depend on the arguments.
#[must_use]
pub fn client_config(
    identity: Option<IdentityCell>,
    pinned: PinnedIssuers,
    alpn: &[u8],
    clock: &Clock,
) -> quinn::ClientConfig {
    quic_client(client_tls(identity, Pins::Pinned(pinned), alpn, clock))
}

/// For enrolment, when nothing is pinned yet: it accepts any controller whose chain holds, shows no certificate, and
/// **must not** be told a secret before [`peer_after_greeting`] has checked it against what the greeting pinned.
///
/// # Panics
/// Never: the settings do not depend on the arguments.
#[must_use]
pub fn client_config_unpinned(alpn: &[u8], clock: &Clock) -> quinn::ClientConfig {
    quic_client(client_tls(None, Pins::AnyIssuer, alpn, clock))
}

fn server_tls(
    identity: IdentityCell,
    pinned: PinnedIssuers,
    alpns: &[&[u8]],
    clock: &Clock,
) -> rustls::ServerConfig {
    let provider = provider();
    let verifier = ChainVerifier::new(Pins::Pinned(pinned), Arc::clone(&provider));
    let mut config = rustls::ServerConfig::builder_with_details(provider, Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(identity));
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    // A resumed session would skip the check of the client's certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

fn client_tls(
    identity: Option<IdentityCell>,
    pins: Pins,
    alpn: &[u8],
    clock: &Clock,
) -> rustls::ClientConfig {
    let provider = provider();
    let verifier = ChainVerifier::new(pins, Arc::clone(&provider));
    let builder = rustls::ClientConfig::builder_with_details(provider, Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

fn quic_client(tls: rustls::ClientConfig) -> quinn::ClientConfig {
    let tls = QuicClientConfig::try_from(tls).expect("the provider has QUIC's initial suite");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(quic::transport());
    config
}

/// One key exchange, so that nobody can be talked into a weaker one.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    Arc::new(provider)
}
