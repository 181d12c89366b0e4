//! The keys of `[api]` and `[limits]`: where the HTTP API listens, how it speaks TLS, and what its callers may take.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// The HTTP API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Where it listens. Plain HTTP exists on loopback only.
    #[serde(deserialize_with = "dotmac_runtime::listen::address")]
    pub listen: SocketAddr,
    /// `host:port` under which callers reach it, if that is not where it listens.
    pub advertise: Option<String>,
    /// The certificate of its TLS (PEM), with those that lead to its authority.
    pub tls_certificate: Option<PathBuf>,
    /// The key of that certificate (PEM); nobody but its owner may read it.
    pub tls_key: Option<PathBuf>,
    /// Milliseconds between "not ready" and the end of listening when the controller stops.
    #[serde(default = "stop_notice_ms")]
    pub stop_notice_ms: u32,
}

pub(super) fn stop_notice_ms() -> u32 {
    2_000
}

/// What callers of one controller's HTTP API may take. At each limit others are not touched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once.
    pub connections: NonZeroU32,
    /// Connections of one address on which no token was shown yet.
    pub connections_per_peer: NonZeroU32,
    /// Connections of one token.
    pub connections_per_caller: NonZeroU32,
    /// Requests of one token that are answered at a time.
    pub requests_at_once_per_caller: NonZeroU32,
    /// Requests a second of one token.
    pub requests_per_second: NonZeroU32,
    /// Requests of one token after a pause.
    pub requests_burst: NonZeroU32,
    /// Requests a second of one address without a token.
    pub guests_per_second: NonZeroU32,
    /// Requests of one address without a token after a pause.
    pub guests_burst: NonZeroU32,
    /// Unknown tokens a second of one address.
    pub guesses_per_second: NonZeroU32,
    /// Unknown tokens of one address after a pause.
    pub guesses_burst: NonZeroU32,
    /// Streams (events, logs) at once.
    pub streams: NonZeroU32,
    /// Streams of one token.
    pub streams_per_caller: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).expect("every default is above 0");
        Self {
            connections: number(4096),
            connections_per_peer: number(1024),
            connections_per_caller: number(1536),
            requests_at_once_per_caller: number(64),
            requests_per_second: number(500),
            requests_burst: number(1000),
            guests_per_second: number(100),
            guests_burst: number(200),
            guesses_per_second: number(10),
            guesses_burst: number(100),
            streams: number(3072),
            streams_per_caller: number(1000),
        }
    }
}

impl Api {
    /// The files of certificate and key, if it speaks TLS.
    #[must_use]
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        self.tls_certificate.as_deref().zip(self.tls_key.as_deref())
    }

    /// The first key that is wrong, its value, and what is allowed.
    pub(super) fn wrong(&self) -> Option<(&'static str, String, &'static str)> {
        let listen = self.listen.to_string();
        match (&self.tls_certificate, &self.tls_key) {
            (Some(file), None) => {
                let file = file.display().to_string();
                Some((
                    "api.tls_certificate",
                    file,
                    "only together with api.tls_key",
                ))
            }
            (None, Some(file)) => {
                let file = file.display().to_string();
                Some((
                    "api.tls_key",
                    file,
                    "only together with api.tls_certificate",
                ))
            }
            (None, None) if !self.listen.ip().is_loopback() => Some((
                "api.listen",
                listen,
                "a loopback address, because plain HTTP exists on loopback only; for any other address set \
                 api.tls_certificate and api.tls_key",
            )),
            _ if self.listen.ip().is_unspecified() && self.advertise.is_none() => Some((
                "api.listen",
                listen,
                "the address of one interface, or api.advertise says under which host:port callers reach it",
            )),
            _ => None,
        }
    }
}
