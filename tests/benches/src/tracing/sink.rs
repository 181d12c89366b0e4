//! A collector that takes every export and counts the spans in it by name. It keeps nothing else and checks nothing: what
//! it takes from the machine is little beside what a real one does.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};

use crate::wire::{Ask, Target, Wire};

/// How long it may take to start.
const START_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of one export at most.
const EXPORT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Names that are counted; spans of further ones are not.
const NAMES_MAX: usize = 256;

/// A collector as a process of its own; it ends with this value.
#[derive(Debug)]
pub(super) struct Sink {
    /// Where it takes exports.
    pub(super) address: SocketAddr,
    _child: Child,
}

/// What came so far.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Exports.
    pub(super) exports: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Their spans, by name.
    pub(super) spans: BTreeMap<String, u64>,
}

impl Sink {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not tell its address in time.
    pub(super) async fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("sink")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().context("no output")?);
        timeout(START_WITHIN, lines.read_line(&mut line))
            .await
            .context("the sink does not start")??;
        Ok(Self {
            address: line.trim().parse().context("the sink tells no address")?,
            _child: child,
        })
    }

    /// What came so far.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) async fn seen(&self) -> Result<Seen> {
        let mut wire = Wire::open(&Target::open(self.address), 0).await?;
        let (_, body) = wire.ask(&Ask::get("/seen")).await?;
        Ok(serde_json::from_slice(&body)?)
    }
}

/// The process of [`Sink`].
pub(crate) async fn serve() -> Result<()> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shown = Arc::clone(&seen);
    let take = post(async move |body: Bytes| {
        let names = names(&body);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.exports += 1;
        seen.bytes += body.len() as u64;
        for name in names {
            seen.count(name);
        }
    });
    let show = get(async move || -> Json<Seen> {
        Json(shown.lock().unwrap_or_else(PoisonError::into_inner).clone())
    });
    let router = Router::new()
        .route("/v1/traces", take)
        .route("/seen", show)
        .layer(DefaultBodyLimit::max(EXPORT_BYTES_MAX));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    axum::serve(listener, router).await?;
    Ok(())
}

impl Seen {
    fn count(&mut self, name: &str) {
        if let Some(count) = self.spans.get_mut(name) {
            *count += 1;
        } else if self.spans.len() < NAMES_MAX {
            self.spans.insert(name.to_owned(), 1);
        }
    }
}

/// The names of the spans in an export, by the field numbers of OTLP: resource spans, scope spans, spans, name.
fn names(export: &[u8]) -> Vec<&str> {
    let resources = members(export, 1).into_iter();
    let scopes = resources.flat_map(|resource| members(resource, 2));
    let spans = scopes.flat_map(|scope| members(scope, 2));
    let names = spans.flat_map(|span| members(span, 5));
    names
        .filter_map(|name| std::str::from_utf8(name).ok())
        .collect()
}

/// The members of a protocol buffers message that have this number and a length, up to what cannot be read.
fn members(message: &[u8], number: u64) -> Vec<&[u8]> {
    let (mut rest, mut found) = (message, Vec::new());
    while let Some((known, member)) = next(&mut rest) {
        found.extend(member.filter(|_| known == number));
    }
    found
}

/// The next member's number, and its bytes if it has a length.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let key = varint(rest)?;
    let length = match key & 7 {
        0 => return varint(rest).map(|_| (key >> 3, None)),
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (member, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((key >> 3, (key & 7 == 2).then_some(member)))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::names;

    fn member(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap();
        [&[number << 3 | 2, length], bytes].concat()
    }

    #[test]
    fn names_are_those_of_spans_and_nothing_else() {
        let times = [&[0x39][..], &[7; 8], &[0x18, 0x96, 0x01]].concat();
        let span = |name: &str| {
            [
                member(1, b"trace"),
                times.clone(),
                member(5, name.as_bytes()),
            ]
            .concat()
        };
        let scope = [
            member(1, b"scope"),
            member(2, &span("wave.seal")),
            member(2, &span("order.accept")),
        ]
        .concat();
        let resource = [member(1, &member(5, b"service")), member(2, &scope)].concat();
        let export = [member(1, &resource), member(1, &resource)].concat();
        let both = ["wave.seal", "order.accept"];
        assert_eq!(names(&export), [both, both].concat());
        assert_eq!(names(&export[..export.len() - 1]), both);
        assert!(names(b"").is_empty());
    }
}
