//! Serves HTTP/1.1 connections, in clear or over TLS: a bounded number of them, each guarded against clients that are
//! slow or say things with two meanings. When it stops, nobody who asks notices: first it says so, then it lets go.
//!
//! ```text
//!   accept -> a place (Places) -> TLS -> Guard (head, framing, pace) -> hyper -> router (track -> admit -> handler)
//! ```

use std::{convert::Infallible, future::Future, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request, response::Response};
use dotmac_runtime::supervise;
use futures::FutureExt as _;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{limits::Gate, router};
use crate::{config::Limits, node::Node};

mod connection;
mod descriptors;
mod framing;
mod guard;
mod head;
mod pace;
mod peer;
mod places;
mod tls;

#[cfg(test)]
mod tests;

pub use tls::{Tls, TlsError, TlsFiles};

pub(super) use connection::{Busy, Connection};
pub(super) use head::Refusal;
pub(super) use peer::Peer;

use guard::{Guard, Patience};
use places::Places;

/// Bytes that the HTTP server may keep of one connection: a head that was checked, and what follows it.
const BUFFER_MAX: usize = 2 * head::HEAD_MAX;
/// How long TLS may take to be agreed on.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long open requests may take once it is no longer listened; longer than a change may take.
const DRAIN_DEADLINE: Duration = Duration::from_secs(8);
/// Pause after a connection could not be accepted, such as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the API is served.
#[derive(Debug, Default)]
pub struct Serving {
    /// What callers may take.
    pub limits: Limits,
    /// How it speaks TLS; in clear otherwise.
    pub tls: Option<Tls>,
    /// Time between "not ready" and the end of listening.
    pub stop_notice: Duration,
}

/// One listener's connections.
struct Server {
    service: TowerToHyperService<Router>,
    gate: Arc<Gate>,
    places: Arc<Places>,
    tls: Option<TlsAcceptor>,
    accepted: u64,
    closing: watch::Sender<bool>,
}

/// Serves the API until `shutdown` resolves. Then this controller is no longer ready, and each answer closes its
/// connection; after the notice it is no longer listened, and open requests have eight seconds to end.
pub async fn serve<F>(node: Arc<Node>, listener: TcpListener, serving: Serving, shutdown: F)
where
    F: Future<Output = ()> + Send,
{
    let Serving {
        mut limits,
        tls,
        stop_notice,
    } = serving;
    limits.connections = descriptors::make_room(limits.connections);
    let (total, per_peer) = (limits.connections.get(), limits.connections_per_peer.get());
    let mut server = Server {
        service: TowerToHyperService::new(router(Arc::clone(&node))),
        gate: Arc::new(Gate::new(limits)),
        places: Arc::new(Places::new(total, per_peer)),
        tls: tls.as_ref().map(Tls::acceptor),
        accepted: 0,
        closing: watch::Sender::new(false),
    };
    let follower = tls.map(|tls| supervise::spawn("api certificate", tls.follow()));
    server.accept_until(&listener, shutdown).await;
    node.stop_serving();
    server
        .accept_until(&listener, tokio::time::sleep(stop_notice))
        .await;
    // Whoever connected before the end is served.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        server.start(stream, peer).await;
    }
    drop(listener);
    server.closing.send_replace(true);
    // Every connection ends by itself within the deadline, and gives its place back.
    let gone = timeout(2 * DRAIN_DEADLINE, server.places.all_gone());
    if gone.await.is_err() {
        tracing::warn!("connections of the api are still open");
    }
    if let Some(follower) = follower {
        follower.abort();
    }
}

impl Server {
    async fn accept_until<F: Future<Output = ()>>(&mut self, listener: &TcpListener, end: F) {
        let mut end = pin!(end);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut end => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => tokio::select! {
                    biased;
                    () = &mut end => return,
                    () = self.start(stream, peer) => {}
                },
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection once there is a place for it.
    async fn start(&mut self, stream: TcpStream, peer: std::net::SocketAddr) {
        let place = self.places.take().await;
        // Answers are small and whole; waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        self.accepted += 1;
        let connection = Connection::new(
            self.accepted,
            peer.ip().into(),
            self.tls.is_some(),
            Arc::clone(&self.gate),
            Arc::clone(&self.places),
        );
        self.places.enter(&connection);
        let (tls, service) = (self.tls.clone(), self.service.clone());
        let (places, closing) = (Arc::clone(&self.places), self.closing.subscribe());
        supervise::spawn("api connection", async move {
            tokio::select! {
                () = connection.given_up() => {}
                () = serve_stream(stream, tls, &connection, service, closing) => {}
            }
            places.leave(&connection);
            drop(place);
        });
    }
}

async fn serve_stream(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    connection: &Arc<Connection>,
    service: TowerToHyperService<Router>,
    closing: watch::Receiver<bool>,
) {
    let patience = Patience::default();
    let Some(tls) = tls else {
        return serve_http(stream, connection, patience, service, closing).await;
    };
    match timeout(HANDSHAKE_DEADLINE, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve_http(stream, connection, patience, service, closing).await,
        Ok(Err(error)) => tracing::debug!(%error, "tls of an api connection not agreed on"),
        Err(_) => tracing::debug!("tls of an api connection took too long"),
    }
}

async fn serve_http<S>(
    stream: S,
    connection: &Arc<Connection>,
    patience: Patience,
    service: TowerToHyperService<Router>,
    mut closing: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let guarded = TokioIo::new(Guard::new(stream, Arc::clone(connection), patience));
    let service = service_fn(|request| answer(&service, connection, request));
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // The guard keeps the time.
            .header_read_timeout(None)
            .max_headers(head::HEADERS_MAX)
            .max_buf_size(BUFFER_MAX)
            .serve_connection(guarded, service)
    );
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = closed(&mut closing) => {
            serving.as_mut().graceful_shutdown();
            timeout(DRAIN_DEADLINE, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection of the api ended");
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // The sender is gone only after it has said so.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Hands a request to the router, together with what is known of its connection.
async fn answer(
    service: &TowerToHyperService<Router>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let refused = connection.next_request();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Arc::clone(connection));
    if let Some(refusal) = refused {
        request.extensions_mut().insert(refusal);
    }
    service.call(request).await
}
