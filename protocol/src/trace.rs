//! Which trace a request belongs to (W3C Trace Context, level 1), and what the spans of its stations are called.
//!
//! A span that another process names as its parent has an id that both can compute: so only the context travels. Nothing
//! is decided by a trace, and it holds nothing of what was asked.
//!
//! ```text
//!   http -+- attest -- vouch (each peer)
//!         `- propose -+- commit (the leader)
//!                     `- seal -+- sign (each signer)
//!                              `- dispatch -- accept -- apply -+- start (each component)
//!                                                              `- probe
//! ```

use std::{
    fmt::{self, Display},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    digest::Digest,
    ids::{NodeId, Sequence, UnitId},
    time::Timestamp,
};

/// The domain of span ids that several processes compute.
const SPAN_DOMAIN: &str = "dotmac/span/v1";
/// Characters of a `traceparent` of version 00.
const TRACEPARENT_CHARS: usize = 55;

/// A trace, all over the world; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TraceId([u8; 16]);

/// A span within a trace; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpanId([u8; 8]);

/// The trace that something belongs to, and the span that caused it. It prints as a `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that caused it; of a request of ours the HTTP server's.
    pub parent: SpanId,
    /// Whether its spans are exported.
    pub is_sampled: bool,
}

/// The text is no `traceparent`.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("not a traceparent")]
pub struct TraceParentError;

impl TraceId {
    /// An id of these bytes; of zeros only, which is none, the smallest there is.
    #[must_use]
    pub fn of(bytes: [u8; 16]) -> Self {
        Self(nonzero(bytes))
    }

    /// The 16 bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// A number below 1,000 that every process draws alike for this trace, for sampling.
    #[must_use]
    pub fn lot(self) -> u16 {
        // The last bytes are the random ones where a trace id begins with a time.
        let [.., a, b, c, d] = self.0;
        let lot = u32::from_be_bytes([a, b, c, d]) % 1_000;
        u16::try_from(lot).expect("below 1,000")
    }
}

impl SpanId {
    /// An id of these bytes; of zeros only, which is none, the smallest there is.
    #[must_use]
    pub fn of(bytes: [u8; 8]) -> Self {
        Self(nonzero(bytes))
    }

    /// The 8 bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl TraceContext {
    /// The same trace, caused by another span.
    #[must_use]
    pub fn under(self, parent: SpanId) -> Self {
        Self { parent, ..self }
    }

    /// The span of proposing the request to the log.
    #[must_use]
    pub fn proposed(&self) -> SpanId {
        self.station("propose", "")
    }

    /// The span of collecting the request's attestations.
    #[must_use]
    pub fn attested(&self) -> SpanId {
        self.station("attest", "")
    }

    /// The span of sealing an order that the request led to.
    #[must_use]
    pub fn sealed(&self, unit: &UnitId, sequence: Sequence) -> SpanId {
        self.station("seal", format_args!("{unit} {sequence}"))
    }

    /// The span of handing an order to its agent, in the session that this controller began at this time.
    #[must_use]
    pub fn dispatched(
        &self,
        unit: &UnitId,
        sequence: Sequence,
        (node, began): (NodeId, Timestamp),
    ) -> SpanId {
        let about = format_args!("{unit} {sequence} {node} {}", began.0);
        self.station("dispatch", about)
    }

    /// The span of an agent's taking an order.
    #[must_use]
    pub fn accepted(&self, unit: &UnitId, sequence: Sequence) -> SpanId {
        self.station("accept", format_args!("{unit} {sequence}"))
    }

    /// The span of carrying an order out.
    #[must_use]
    pub fn applied(&self, unit: &UnitId, sequence: Sequence) -> SpanId {
        self.station("apply", format_args!("{unit} {sequence}"))
    }

    /// The span of a station that nobody else names; `about` tells it from others of its kind.
    #[must_use]
    pub fn station(&self, station: &str, about: impl Display) -> SpanId {
        let mut bytes = [&self.trace_id.0[..], &self.parent.0[..]].concat();
        bytes.extend_from_slice(format!("{station}\0{about}").as_bytes());
        let digest = Digest::tagged(SPAN_DOMAIN, &bytes);
        let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
        SpanId::of([a, b, c, d, e, f, g, h])
    }

    /// The context that a message carries: of the values of its `traceparent` header, the one that was sent, if it is one and
    /// sound. Several cannot be told apart, so none counts.
    pub fn sole<'h>(values: impl IntoIterator<Item = &'h [u8]>) -> Option<Self> {
        let mut values = values.into_iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        let text = std::str::from_utf8(value).ok()?;
        text.trim().parse().ok().filter(|_| text.is_ascii())
    }
}

/// Version 00, and what later versions promise to keep of it. Upper case, zeros and version ff are refused.
impl FromStr for TraceContext {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        let known = text.get(..TRACEPARENT_CHARS).ok_or(TraceParentError)?;
        let rest = &text[TRACEPARENT_CHARS..];
        let mut parts = known.split('-');
        let mut part = || parts.next().ok_or(TraceParentError);
        let [version] = digits(part()?)?;
        let trace_id = TraceId(digits(part()?)?);
        let parent = SpanId(digits(part()?)?);
        let [flags] = digits(part()?)?;
        let is_whole = match version {
            0x00 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        let is_something = trace_id.0 != [0; 16] && parent.0 != [0; 8];
        if is_whole && is_something && parts.next().is_none() {
            let is_sampled = flags & 1 == 1;
            return Ok(Self {
                trace_id,
                parent,
                is_sampled,
            });
        }
        Err(TraceParentError)
    }
}

fn digits<const N: usize>(text: &str) -> Result<[u8; N], TraceParentError> {
    let mut bytes = [0; N];
    let is_lower = text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let decoded = hex::decode_to_slice(text, &mut bytes);
    match decoded {
        Ok(()) if is_lower => Ok(bytes),
        _ => Err(TraceParentError),
    }
}

fn nonzero<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    if bytes == [0; N] {
        bytes[N - 1] = 1;
    }
    bytes
}

impl Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl Display for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.is_sampled);
        write!(
            formatter,
            "00-{}-{}-{flags:02x}",
            self.trace_id, self.parent
        )
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, formatter)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, formatter)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{SpanId, TraceContext, TraceId, TraceParentError};
    use crate::{
        ids::{NodeId, Sequence, UnitId},
        time::Timestamp,
    };

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_comes_back_as_it_was() {
        let context: TraceContext = TEXT.parse().unwrap();
        assert!(context.is_sampled);
        assert_eq!(context.to_string(), TEXT);
        let unsampled = TEXT.replace("-01", "-00");
        assert_eq!(
            unsampled.parse::<TraceContext>().unwrap().to_string(),
            unsampled
        );
    }

    #[test]
    fn later_versions_keep_the_first_parts_and_other_flags_are_ignored() {
        let context: TraceContext = TEXT.parse().unwrap();
        for text in [
            TEXT.replacen("00-", "cc-", 1),
            format!(
                "{}-what-the-future-will-be-like",
                TEXT.replacen("00-", "cc-", 1)
            ),
            TEXT.replace("-01", "-ff"),
        ] {
            assert_eq!(text.parse(), Ok(context), "{text}");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        let zeros = |count| "0".repeat(count);
        for text in [
            String::new(),
            TEXT[..54].to_owned(),
            format!("{TEXT}-00"),
            format!("{TEXT} "),
            format!(" {TEXT}"),
            TEXT.to_uppercase(),
            TEXT.replacen("00-", "ff-", 1),
            format!("{}x", TEXT.replacen("00-", "01-", 1)),
            TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zeros(32)),
            TEXT.replace("00f067aa0ba902b7", &zeros(16)),
            TEXT.replace('-', "_"),
            TEXT.replace("-01", "-0g"),
            TEXT.replace("00f067aa0ba902b7-01", "00f067aa0ba902b-011"),
            format!("00-ä{}", &TEXT[5..]),
        ] {
            assert_eq!(
                text.parse::<TraceContext>(),
                Err(TraceParentError),
                "{text}"
            );
        }
    }

    #[test]
    fn every_station_of_every_order_has_a_span_of_its_own() {
        let context: TraceContext = TEXT.parse().unwrap();
        let other = context.under(SpanId::of([7; 8]));
        let unit: UnitId = "instance/demo-isp-00000000".parse().unwrap();
        let session = |node, began| (NodeId(node), Timestamp(began));
        let spans = [context, other].into_iter().flat_map(|context| {
            let orders = [Sequence(1), Sequence(12)].into_iter().flat_map({
                let unit = unit.clone();
                move |sequence| {
                    [
                        context.sealed(&unit, sequence),
                        context.dispatched(&unit, sequence, session(1, 23)),
                        context.dispatched(&unit, sequence, session(12, 3)),
                        context.accepted(&unit, sequence),
                        context.applied(&unit, sequence),
                    ]
                }
            });
            orders.chain([context.proposed(), context.attested()])
        });
        let spans: Vec<SpanId> = spans.collect();
        assert_eq!(spans.iter().collect::<BTreeSet<_>>().len(), spans.len());
        assert_eq!(context.proposed(), context.proposed());
    }

    #[test]
    fn lots_are_drawn_evenly_and_ids_are_never_zero() {
        let lots = (0..100_000_u32).filter(|number| {
            let mut bytes = [0; 16];
            bytes[12..].copy_from_slice(&number.to_be_bytes());
            TraceId::of(bytes).lot() < 10
        });
        assert_eq!(lots.count(), 1_000);
        assert_ne!(TraceId::of([0; 16]).bytes(), [0; 16]);
        assert_ne!(SpanId::of([0; 8]).bytes(), [0; 8]);
    }
}
