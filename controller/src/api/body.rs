//! The body of a change: JSON in clear, of bounded size, that arrives in bounded time. Nothing is unpacked.

use std::{error::Error as _, io, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;

use super::problem::{BODY_TIMED_OUT, MALFORMED, Problem, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE};

/// Bytes of a body at most.
pub(super) const BODY_MAX: usize = 256 * 1024;
/// How long a body may take to arrive; one that trickles is given up before.
const BODY_DEADLINE: Duration = Duration::from_secs(20);

/// Reads a body to its end.
///
/// # Errors
/// When it is too large, too slow, breaks off, or is not said to be JSON in clear.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let length: Option<usize> = length.and_then(|text| text.parse().ok());
    if length.is_some_and(|length| length > BODY_MAX) {
        return Err(too_large());
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        let detail = "the body is said to be packed: send it as it is";
        return Err(Problem::new(&UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let whole = tokio::time::timeout(BODY_DEADLINE, collect(body))
        .await
        .map_err(|_| late())??;
    if !whole.is_empty() && !is_json(headers) {
        let detail = "the body is not said to be JSON";
        return Err(Problem::new(&UNSUPPORTED_MEDIA_TYPE, detail));
    }
    Ok(whole)
}

async fn collect(body: Body) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| broken(&error))?;
        if whole.len() + piece.len() > BODY_MAX {
            return Err(too_large());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

fn too_large() -> Problem {
    Problem::new(&TOO_LARGE, format!("a body has at most {BODY_MAX} bytes"))
}

fn late() -> Problem {
    let seconds = BODY_DEADLINE.as_secs();
    let detail = format!("the body trickled, or took more than {seconds} s");
    Problem::new(&BODY_TIMED_OUT, detail)
}

/// Why a body came to no end: the connection's guard lost its patience, or its sender went.
fn broken(error: &axum::Error) -> Problem {
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let io = deeper.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut) {
            return late();
        }
        cause = deeper.source();
    }
    Problem::new(&MALFORMED, "the body broke off")
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let (kind, other) = (kinds.next(), kinds.next());
    let kind = kind.and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|text| text.split(';').next()).map(str::trim);
    other.is_none() && kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
}
