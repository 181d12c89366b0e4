//! One HTTP/1.1 connection that is kept, as cheap for the machine as a client can be: whatever it costs is taken from
//! the server that is measured. It retries nothing.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use dotmac_runtime::supervise;
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a connection and an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of an answer at most.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// Requests after which a connection goes on with the next token, so that the load of one connection keeps within the
/// limits of each caller.
const TOKEN_REQUESTS: usize = 50;

/// Where requests go, and in whose name.
#[derive(Clone)]
pub(crate) struct Target {
    /// The server.
    pub(crate) address: SocketAddr,
    /// Values of the header `Authorization`, in turn; none if it wants none.
    pub(crate) callers: Arc<[HeaderValue]>,
}

impl Target {
    /// A server that wants no token.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let callers = [].into();
        Self { address, callers }
    }

    /// The same server, in other names.
    pub(crate) fn with(&self, callers: &[HeaderValue]) -> Self {
        let (address, callers) = (self.address, callers.into());
        Self { address, callers }
    }
}

/// The header of a token.
pub(crate) fn caller(token: &str) -> Result<HeaderValue> {
    Ok(HeaderValue::try_from(format!("Bearer {token}"))?)
}

/// One request and the answer that it should have.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// Its method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    /// JSON, or nothing.
    pub(crate) body: Bytes,
    /// The status that counts as success.
    pub(crate) expected: StatusCode,
    /// The header `Authorization` of this request alone, in place of the target's.
    pub(crate) bearer: Option<HeaderValue>,
}

impl Ask {
    /// A read.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: Bytes::new(),
            expected: StatusCode::OK,
            bearer: None,
        }
    }
}

/// An open connection.
pub(crate) struct Wire {
    sender: SendRequest<Body>,
    host: HeaderValue,
    callers: Arc<[HeaderValue]>,
    sent: usize,
}

impl Wire {
    /// Connects. `number` tells connections apart: they begin with different tokens.
    pub(crate) async fn open(target: &Target, number: u64) -> Result<Self> {
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(target.address))
            .await
            .context("no connection in time")??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // How it ended shows in the answer that is missing.
        supervise::spawn("bench connection", async move {
            let _ = connection.await;
        });
        Ok(Self {
            sender,
            host: HeaderValue::try_from(target.address.to_string())?,
            callers: Arc::clone(&target.callers),
            sent: usize::try_from(number)? * TOKEN_REQUESTS,
        })
    }

    /// Sends a request and gives the answer's head; the body is the caller's to read.
    pub(crate) async fn send(
        &mut self,
        ask: &Ask,
    ) -> Result<hyper::Response<hyper::body::Incoming>> {
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(&ask.path)
            .header(header::HOST, &self.host);
        let turn = (self.sent / TOKEN_REQUESTS).checked_rem(self.callers.len());
        let caller = turn.map(|turn| &self.callers[turn]);
        if let Some(caller) = ask.bearer.as_ref().or(caller) {
            request = request.header(header::AUTHORIZATION, caller);
        }
        self.sent += 1;
        let body = if ask.body.is_empty() {
            Body::empty()
        } else {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Body::from(ask.body.clone())
        };
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(body)?).await?)
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Result<(StatusCode, Bytes)> {
        let asking = async {
            let (head, body) = self.send(ask).await?.into_parts();
            let body = to_bytes(Body::new(body), ANSWER_MAX).await?;
            Ok((head.status, body))
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .context("no answer in time")?
    }
}
