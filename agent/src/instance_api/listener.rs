//! A listener with a bounded number of connections that nobody can fill for others: whoever comes is let in at once, and
//! the connection that is least worth keeping makes room ([`Places`]). One that says nothing for a while, or does not
//! get to the end of a request's head, is closed before that. HTTP/1.1 alone is spoken.

mod places;
mod stream;

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request, response::Response};
use dotmac_runtime::{metrics::Counter, supervise};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::net::{TcpListener, TcpStream};

pub(super) use self::places::Connection;
#[cfg(test)]
pub(crate) use self::places::UNIT_CONNECTIONS_MAX;
use self::{places::Places, stream::PatientStream};

/// Bytes that the HTTP server keeps of one connection at most; no head may be longer.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Pause after a connection could not be accepted, such as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What makes a connection worth more than one on which nothing has come of it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A caller proves himself: a handler calls [`Connection::prove`].
    Caller,
    /// Any request is answered.
    Answer,
}

/// How long a connection is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// When nothing comes in: longer than instances keep a connection between their calls.
    pub(crate) silence: Duration,
    /// From the first byte of a request's head to its last.
    pub(crate) head: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(90),
            head: Duration::from_secs(10),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LimitedListener {
    listener: TcpListener,
    places: Arc<Places>,
    proof: Proof,
    patience: Patience,
}

impl LimitedListener {
    /// So many connections at most; those that are closed to make room are counted.
    pub(crate) fn new(
        listener: TcpListener,
        connections_max: usize,
        proof: Proof,
        closed: Counter,
    ) -> Self {
        Self {
            listener,
            places: Arc::new(Places::new(connections_max, closed)),
            proof,
            patience: Patience::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Serves whoever comes; never ends. Connections that are open when it is dropped stay.
    pub(crate) async fn serve(self, router: Router) -> ! {
        let service = TowerToHyperService::new(router);
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if !is_of_the_other_end(&error) {
                        tracing::warn!(%error, "connection not accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            };
            // Answers are small and whole; waiting to fill a packet would only delay them.
            let _ = stream.set_nodelay(true);
            let place = self.places.enter().await;
            let (service, proof, patience) = (service.clone(), self.proof, self.patience);
            supervise::spawn("connection", async move {
                // The place outlives the stream: no more are open than there are places.
                let connection = place.connection();
                tokio::select! {
                    biased;
                    () = connection.given_up() => {}
                    () = serve_stream(stream, connection, service, proof, patience) => {}
                }
            });
        }
    }
}

async fn serve_stream(
    stream: TcpStream,
    connection: &Arc<Connection>,
    service: TowerToHyperService<Router>,
    proof: Proof,
    patience: Patience,
) {
    let stream = PatientStream::new(stream, Arc::clone(connection), patience);
    let service = service_fn(|request| answer(&service, connection, proof, request));
    let served = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = pin!(served).await {
        tracing::debug!(%error, "connection ended");
    }
}

/// Hands a request to the router, together with its connection.
async fn answer(
    service: &TowerToHyperService<Router>,
    connection: &Arc<Connection>,
    proof: Proof,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let _answering = connection.answering();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Arc::clone(connection));
    let response = service.call(request).await;
    if proof == Proof::Answer {
        connection.prove(None);
    }
    response
}

fn is_of_the_other_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
