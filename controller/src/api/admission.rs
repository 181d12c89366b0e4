//! Whether a request may come in at all, decided before anything of it is read, looked up or waited for: its head, its
//! address, and what its caller has taken already. Around what it lets in it keeps the time, and the places for streams.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures::StreamExt as _;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};

use dotmac_protocol::ids::TokenId;
use dotmac_runtime::supervise;

use super::{
    address,
    limits::{Account, Refused, cost, is_long},
    principal,
    problem::{INTERNAL, MALFORMED, Problem, TIMED_OUT},
    server::{Busy, Connection, Refusal},
};
use crate::node::Node;

/// How long an answer may take to begin: above everything that a handler waits for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// How long a request waits while its caller has as many as he may.
const TURN_DEADLINE: Duration = Duration::from_secs(2);
/// After which time a place may be free again, as far as anybody can tell.
const PLACE_WAIT: Duration = Duration::from_secs(1);
/// How long a stream may still speak once the controller begins to stop.
const LAST_WORD: Duration = Duration::from_millis(500);
/// Pause before a refusal that follows another one on the same connection; doubled by each further one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How many times as long as a long list took its caller waits for his next one: he keeps a quarter of a core busy at most.
const LONG_LIST_REST: u32 = 3;
/// Paths that anybody may ask as often as he likes: they cost less than saying no.
const UNCOUNTED: &str = "/health/";

/// What an admitted request holds until its answer begins.
struct Admitted {
    /// Who asks, and what was taken of his rate for it.
    taken: Option<(TokenId, u32)>,
    account: Option<Arc<Account>>,
    _turn: Option<OwnedSemaphorePermit>,
    long: Option<OwnedSemaphorePermit>,
}

/// Wraps every request.
pub(super) async fn admit(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    let Some(connection) = connection else {
        return Problem::new(&INTERNAL, "the request has no connection").into_response();
    };
    let mut response = answer(&node, &connection, request, next).await;
    if node.is_stopping() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

async fn answer(
    node: &Node,
    connection: &Arc<Connection>,
    request: Request,
    next: Next,
) -> Response {
    let busy = connection.busy();
    if let Some(refusal) = request.extensions().get::<Refusal>() {
        return refused(*refusal).into_response();
    }
    if let Err(problem) = address::check(request.uri()) {
        return problem.into_response();
    }
    let (parts, body) = request.into_parts();
    let mut admitted = match enter(node, connection, &parts).await {
        Ok(admitted) => admitted,
        Err(refused) => {
            tokio::time::sleep(pause(connection.note_refused())).await;
            return refused.into_response();
        }
    };
    connection.note_admitted();
    let is_options = parts.method == Method::OPTIONS;
    let request = Request::from_parts(parts, body);
    let started = Instant::now();
    let answered = timeout(ANSWER_DEADLINE, next.run(request)).await;
    if let Some(place) = admitted.long.take() {
        rest(place, started.elapsed() * LONG_LIST_REST);
    }
    let Ok(response) = answered else {
        let seconds = ANSWER_DEADLINE.as_secs();
        let detail = format!("there is no answer after {seconds} s");
        return Problem::new(&TIMED_OUT, detail).into_response();
    };
    if is_options && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        return methods(response);
    }
    match response.body().size_hint().exact() {
        Some(bytes) => {
            if let Some((token, cost)) = &admitted.taken {
                let now = Instant::now();
                connection.gate.charge_answer(token, bytes, *cost, now);
            }
            response
        }
        None => stream(node, connection, admitted.account, busy, response),
    }
}

/// Gives a place back after a while.
fn rest(place: OwnedSemaphorePermit, duration: Duration) {
    drop(supervise::spawn("long list", async move {
        tokio::time::sleep(duration).await;
        drop(place);
    }));
}

/// What a client is told whose head was refused.
fn refused(refusal: Refusal) -> Problem {
    let problem = Problem::new(refusal.kind, refusal.detail);
    if std::ptr::eq(refusal.kind, &raw const MALFORMED) {
        return problem.with_next("send a plain HTTP/1.1 request");
    }
    problem
}

async fn enter(node: &Node, connection: &Connection, request: &Parts) -> Result<Admitted, Refused> {
    let now = Instant::now();
    let guest = Admitted {
        taken: None,
        account: None,
        _turn: None,
        long: None,
    };
    let Ok(bearer) = principal::bearer(&request.headers) else {
        if !request.uri.path().starts_with(UNCOUNTED) {
            connection.gate.admit_guest(connection.peer, now)?;
        }
        return Ok(guest);
    };
    let Some((caller, _)) = node.authenticate(bearer) else {
        connection.gate.admit_guess(connection.peer, now)?;
        return Ok(guest);
    };
    let limits = connection.gate.limits();
    let cost = cost(&request.method, request.uri.query());
    connection.gate.admit_caller(&caller.token, cost, now)?;
    let account = connection.belong_to(&caller.token).ok_or_else(|| {
        let most = limits.connections_per_caller.get();
        Refused::new("connections of one token", most, PLACE_WAIT).closing()
    })?;
    let places = async {
        let turn = Arc::clone(&account.requests).acquire_owned().await.ok();
        let long = if is_long(cost) {
            Arc::clone(&account.long_lists).acquire_owned().await.ok()
        } else {
            None
        };
        (turn, long)
    };
    let (turn, long) = timeout(TURN_DEADLINE, places).await.map_err(|_| {
        let most = limits.requests_at_once_per_caller.get();
        Refused::new("requests of one token at a time", most, PLACE_WAIT)
    })?;
    Ok(Admitted {
        taken: Some((caller.token, cost)),
        account: Some(account),
        _turn: turn,
        long,
    })
}

/// How long the next no is held back: whoever does not heed `Retry-After` waits for each one, and takes nothing
/// meanwhile but his own connection.
fn pause(before: u32) -> Duration {
    match before {
        0 => Duration::ZERO,
        before => PAUSE_MIN
            .saturating_mul(1 << (before - 1).min(16))
            .min(PAUSE_MAX),
    }
}

/// The answer to OPTIONS: the methods that the path knows.
fn methods(refusal: Response) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(allow) = refusal.headers().get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allow.clone());
    }
    response
}

/// An answer without an end of its own: it has a place as long as it lasts, and ends when the controller stops.
fn stream(
    node: &Node,
    connection: &Connection,
    account: Option<Arc<Account>>,
    busy: Busy,
    response: Response,
) -> Response {
    let gate = &connection.gate;
    let own = account.map(|account| Arc::clone(&account.streams).try_acquire_owned());
    let all = Arc::clone(gate.streams()).try_acquire_owned();
    let places = match (own, all) {
        (Some(Err(_)), _) => {
            let most = gate.limits().streams_per_caller.get();
            return Refused::new("streams of one token", most, PLACE_WAIT).into_response();
        }
        (_, Err(_)) => {
            let most = gate.limits().streams.get();
            return Refused::new("streams", most, PLACE_WAIT).into_response();
        }
        (own, Ok(all)) => (own, all, busy),
    };
    let mut stopping = node.stopping();
    let stopped = async move {
        // A sender that is gone is a stop, too.
        let _ = stopping.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(LAST_WORD).await;
    };
    let (parts, body) = response.into_parts();
    let pieces = body.into_data_stream().take_until(Box::pin(stopped));
    let held = pieces.map(move |piece| {
        let _ = &places;
        piece
    });
    Response::from_parts(parts, Body::from_stream(held))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{PAUSE_MAX, pause};

    #[test]
    fn the_first_no_is_instant_and_the_next_ones_ever_slower() {
        let pauses = [0, 1, 2, 3, 4, 5, 6, 100, u32::MAX].map(pause);
        let expected = [0, 50, 100, 200, 400, 800, 1000, 1000, 1000].map(Duration::from_millis);
        assert_eq!(pauses, expected);
        assert_eq!(pauses[8], PAUSE_MAX);
    }
}
