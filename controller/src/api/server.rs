//! Serves HTTP/1.1 connections with limits on their number, their headers and the time these may take. It speaks no
//! TLS: whoever listens elsewhere than on the loopback puts one in front.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use dotmac_runtime::supervise;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};

use super::router;
use crate::node::Node;

/// Connections at once at most; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: u32 = 1024;
/// Headers of a request at most.
const HEADERS_MAX: usize = 64;
/// Bytes of a request's head at most.
const HEAD_MAX: usize = 64 * 1024;
/// How long a request's head may take; also how long an idle connection is kept.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);
/// How long open requests may take once the controller stops.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);
/// Pause after a connection could not be accepted, such as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the API until `shutdown` resolves, then lets open requests end for at most three seconds.
pub async fn serve<F>(node: Arc<Node>, listener: TcpListener, shutdown: F)
where
    F: Future<Output = ()> + Send,
{
    let router = router(node);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let stop = watch::Sender::new(false);
    let mut shutdown = pin!(shutdown);
    loop {
        let next = accept(&listener, &places);
        let (stream, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = next => accepted,
        };
        let connection = serve_connection(stream, router.clone(), stop.subscribe(), place);
        supervise::spawn("api connection", connection);
    }
    stop.send_replace(true);
    // Every connection ends by itself within the deadline, and gives its place back.
    let all = places.acquire_many(CONNECTIONS_MAX);
    if tokio::time::timeout(2 * DRAIN_DEADLINE, all).await.is_err() {
        tracing::warn!("connections of the api are still open");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender is gone only after it has said so.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    mut stop: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) {
    // Answers are small and whole; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_DEADLINE, connection).await {
                Ok(ended) => ended,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection of the api ended");
    }
    drop(place);
}
