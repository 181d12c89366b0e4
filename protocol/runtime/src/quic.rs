//! QUIC endpoints with every limit written down, and connecting by name. Who may speak is decided in [`crate::tls`].
//!
//! What one connection may cost: [`STREAM_WINDOW_BYTES`] a stream and [`CONNECTION_WINDOW_BYTES`] in all, until
//! [`widen`] is called for a peer that has proved to be a controller. At a limit the sender waits; nothing is dropped.

mod frame;
mod socket;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

pub use frame::{FrameError, read_frame, write_frame};
use quinn::{
    ClientConfig, Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
pub use socket::SOCKET_BUFFER_BYTES;
use thiserror::Error;

use crate::entropy::Entropy;

/// A connection that was silent for so long is dead.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent connection is kept alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Streams of each kind that the other side may have open.
pub const STREAMS_MAX: u32 = 32;
/// As [`STREAMS_MAX`], after [`widen`].
pub const STREAMS_WIDE_MAX: u32 = 256;
/// Unread bytes that one stream may hold.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Unread bytes that one connection may hold, and unacknowledged ones on the way out.
pub const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// As [`CONNECTION_WINDOW_BYTES`], after [`widen`].
pub const CONNECTION_WINDOW_WIDE_BYTES: u32 = 8 * 1024 * 1024;
/// Connection attempts that wait for being accepted; further ones are refused.
pub const INCOMING_MAX: usize = 1024;

/// Bytes of a connection id.
const CONNECTION_ID_BYTES: usize = 8;
/// Unknown connections are ended no faster than this, so that nobody can make us busy with it.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// What the ends of a connection call each other in logs and errors; names are proved by certificates alone.
pub(crate) const SERVER_NAME: &str = "dotmac";

/// Why there is no endpoint.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The UDP address is taken or not ours.
    #[error("UDP address {address} cannot be used")]
    Bind {
        /// Which one.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket does not work with the runtime.
    #[error("the QUIC endpoint cannot be started")]
    Start(#[source] io::Error),
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("{address} cannot be resolved")]
    Resolve {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name has no address at all.
    #[error("{0} has no address")]
    NoAddress(String),
    /// The endpoint is closed, or cannot reach this kind of address.
    #[error("{address} cannot be dialled")]
    Dial {
        /// Which one.
        address: SocketAddr,
        /// Why.
        #[source]
        source: quinn::ConnectError,
    },
    /// The other side, or our check of it, ended the handshake.
    #[error("no connection to {address}")]
    Handshake {
        /// Which one.
        address: SocketAddr,
        /// Why.
        #[source]
        source: quinn::ConnectionError,
    },
    /// It took too long.
    #[error("no connection to {address} within {patience_ms} ms")]
    Timeout {
        /// `host:port`.
        address: String,
        /// How long was waited.
        patience_ms: u128,
    },
}

impl ConnectError {
    /// Whether it was our own check of the other side's certificate that ended the handshake.
    #[must_use]
    pub fn is_refused_certificate(&self) -> bool {
        // RFC 9001, section 4.8: the alerts of TLS; the other side's are another variant.
        const ALERTS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;
        let Self::Handshake { source, .. } = self else {
            return false;
        };
        matches!(source, quinn::ConnectionError::TransportError(error) if ALERTS.contains(&error.code.into()))
    }
}

/// Makes an endpoint: a server on `listen` when `server` is given, otherwise one that only dials. Without `listen` the
/// system picks a port on all interfaces. `reset_key` lets a restarted server end connections it no longer knows at
/// once: keep it on disk, secret, one per endpoint.
///
/// # Errors
/// When the address cannot be used.
///
/// # Panics
/// Outside a Tokio runtime.
pub fn endpoint(
    listen: Option<SocketAddr>,
    server: Option<ServerConfig>,
    reset_key: &[u8; 32],
    entropy: &Entropy,
) -> Result<Endpoint, EndpointError> {
    let socket = match listen {
        Some(address) => {
            socket::bind(address).map_err(|source| EndpointError::Bind { address, source })?
        }
        None => socket::bind_any()
            .map_err(|(address, source)| EndpointError::Bind { address, source })?,
    };
    let runtime = Arc::new(TokioRuntime);
    let socket =
        quinn::Runtime::wrap_udp_socket(runtime.as_ref(), socket).map_err(EndpointError::Start)?;
    endpoint_on(socket, server, reset_key, entropy)
}

/// As [`endpoint`], on a given socket: simulation hands in one of its own.
///
/// # Errors
/// When the socket does not work.
///
/// # Panics
/// Outside a Tokio runtime.
pub fn endpoint_on(
    socket: Arc<dyn quinn::AsyncUdpSocket>,
    server: Option<ServerConfig>,
    reset_key: &[u8; 32],
    entropy: &Entropy,
) -> Result<Endpoint, EndpointError> {
    let reset_key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, reset_key);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    let ids = entropy.clone();
    config
        .cid_generator(move || Box::new(ConnectionIds(ids.clone())))
        .min_reset_interval(RESET_INTERVAL);
    config.rng_seed(Some(entropy.bytes()));
    Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
        .map_err(EndpointError::Start)
}

/// Connects to `host:port`, trying all its addresses in turn, within `patience`. The server checks our certificate last:
/// a refusal of it may come as the end of a connection that this function returned.
///
/// # Errors
/// The last address's error, or that time ran out.
pub async fn connect(
    endpoint: &Endpoint,
    config: &ClientConfig,
    address: &str,
    patience: Duration,
) -> Result<Connection, ConnectError> {
    tokio::time::timeout(patience, connect_any(endpoint, config, address))
        .await
        .unwrap_or_else(|_| {
            Err(ConnectError::Timeout {
                address: address.to_owned(),
                patience_ms: patience.as_millis(),
            })
        })
}

/// Raises the limits of a connection whose other end is a controller: call it after [`crate::tls::peer`] said so.
pub fn widen(connection: &Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS_WIDE_MAX));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(STREAMS_WIDE_MAX));
    connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_WIDE_BYTES));
    connection.set_send_window(u64::from(CONNECTION_WINDOW_WIDE_BYTES));
}

/// The limits of every connection, as both ends set them.
pub(crate) fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("ten seconds fit");
    config
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(None);
    Arc::new(config)
}

/// The limits of a listening endpoint.
pub(crate) fn limit_server(config: &mut ServerConfig) {
    config
        .transport_config(transport())
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(64 * 1024)
        .incoming_buffer_size_total(8 * 1024 * 1024)
        .migration(true);
}

/// Random connection ids. Every id is taken for one that might have been ours before a restart: such a connection is
/// then ended with the reset key, where ids that only this run recognises would leave the other side waiting.
struct ConnectionIds(Entropy);

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.bytes::<CONNECTION_ID_BYTES>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

async fn connect_any(
    endpoint: &Endpoint,
    config: &ClientConfig,
    address: &str,
) -> Result<Connection, ConnectError> {
    let resolved =
        tokio::net::lookup_host(address)
            .await
            .map_err(|source| ConnectError::Resolve {
                address: address.to_owned(),
                source,
            })?;
    let mut last = ConnectError::NoAddress(address.to_owned());
    for address in resolved.take(8) {
        let connecting = endpoint.connect_with(config.clone(), address, SERVER_NAME);
        last = match connecting {
            Err(source) => ConnectError::Dial { address, source },
            Ok(connecting) => match connecting.await {
                Ok(connection) => return Ok(connection),
                Err(source) => ConnectError::Handshake { address, source },
            },
        };
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use dotmac_protocol::frame::ALPN_AGENT;

    use crate::{
        entropy::Entropy,
        loopback::{Cluster, PATIENCE},
    };

    /// The first server's runtime is dropped, as a kill would: no goodbye is sent.
    #[test]
    fn a_restarted_server_ends_connections_it_does_not_know() {
        let cluster = Cluster::new();
        let runtime = || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
        };
        let (before, after) = (runtime().unwrap(), runtime().unwrap());
        let node = cluster.node(1, 1);
        let server = before.block_on(async { cluster.serve(node.clone()) });
        let endpoint = server.endpoint.clone();
        let accepting =
            before.spawn(async move { endpoint.accept().await.unwrap().await.unwrap() });
        let client = cluster.client(Some(cluster.agent()), ALPN_AGENT);
        let dialled = after.block_on(async {
            let dialler = cluster.dialler();
            super::connect(&dialler, &client, &server.address, PATIENCE)
                .await
                .unwrap()
        });
        let accepted = before.block_on(accepting).unwrap();
        drop(before);
        let address: SocketAddr = server.address.parse().unwrap();
        drop((accepted, server));

        after.block_on(async {
            let config = crate::tls::server_config(
                node,
                cluster.pinned.clone(),
                &[ALPN_AGENT],
                &cluster.clock,
            );
            let _restarted =
                super::endpoint(Some(address), Some(config), &[7; 32], &Entropy::seeded(99))
                    .unwrap();
            // Any packet brings the answer, a late acknowledgement too: then there is no stream to write to any more.
            if let Ok(mut send) = dialled.open_uni().await {
                drop(send.write_all(b"are you there").await);
            }
            let ended = dialled.closed().await;
            assert!(matches!(ended, quinn::ConnectionError::Reset), "{ended:?}");
        });
    }
}
