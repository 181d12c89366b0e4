//! The spans of a controller: which station of a request it was, what caused it, how long it took. What they are called
//! and how they hang together is in `dotmac_protocol::trace`. Nothing waits for one and nothing is decided by one; they
//! name requests, units and nodes, and never quote what was asked.

use axum::http::{HeaderMap, HeaderValue, Method};
use dotmac_domain::{Envelope, Reply};
use dotmac_protocol::{
    ids::{NodeId, RequestId, Sequence, UnitId},
    time::Timestamp,
    trace::{SpanId, TraceContext, TraceId},
    wave::Leaf,
};
use dotmac_runtime::{
    entropy::Entropy,
    telemetry::{Span, Spans, nanos},
};

use crate::log::LogError;

/// Makes the spans of one controller; the default makes none.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    spans: Spans,
    node: NodeId,
    reads_per_thousand: u16,
}

/// The trace of an HTTP request, from its head on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HttpTrace {
    /// What the request's own spans are caused by: the server's span.
    pub(crate) context: TraceContext,
    /// The caller's span.
    caller: Option<SpanId>,
    started: u64,
}

/// An HTTP request that was answered.
pub(crate) struct Answered<'a> {
    /// The path's template; none for a path that does not exist.
    pub(crate) route: Option<&'a str>,
    pub(crate) method: &'a Method,
    pub(crate) status: u16,
    pub(crate) request: &'a RequestId,
}

impl Traces {
    /// Spans of this controller. Of requests that change nothing so many in a thousand are traced; of others all.
    #[must_use]
    pub fn new(spans: Spans, node: NodeId, reads_per_thousand: u16) -> Self {
        Self {
            spans,
            node,
            reads_per_thousand,
        }
    }

    /// What became of the spans so far.
    #[must_use]
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// When something starts, for the span that is made at its end.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.spans.now()
    }

    /// The trace of a request: the caller's, if he sent one `traceparent` that is sound, or a new one. Nobody needs one for
    /// a read that is not traced here.
    pub(crate) fn begin(
        &self,
        method: &Method,
        headers: &HeaderMap,
        entropy: &Entropy,
    ) -> Option<HttpTrace> {
        let is_read = method.is_safe();
        if is_read && !self.spans.is_on() {
            return None;
        }
        let sent = headers.get_all("traceparent").into_iter();
        let caller = TraceContext::sole(sent.map(HeaderValue::as_bytes));
        let trace_id = match &caller {
            Some(caller) => caller.trace_id,
            None => TraceId::of(entropy.bytes()),
        };
        if is_read && trace_id.lot() >= self.reads_per_thousand {
            return None;
        }
        Some(HttpTrace {
            context: TraceContext {
                trace_id,
                parent: SpanId::of(entropy.bytes()),
                is_sampled: true,
            },
            caller: caller.map(|caller| caller.parent),
            started: self.now(),
        })
    }

    /// The span of a whole request.
    pub(crate) fn answered(&self, trace: &HttpTrace, answered: &Answered<'_>) {
        let Some(context) = self.spans.follow(Some(trace.context)) else {
            return;
        };
        let method = known(answered.method);
        let name = match answered.route {
            Some(route) => format!("{method} {route}"),
            None => method.to_owned(),
        };
        let ids = (context.parent, trace.caller);
        let failure = (answered.status >= 500).then_some("not served");
        let span = Span::new(&context, name, ids, (trace.started, self.now()))
            .server()
            .text("http.request.method", method)
            .text("http.route", answered.route.unwrap_or_default())
            .number("http.response.status_code", answered.status.into())
            .text("dotmac.request", answered.request)
            .failed(failure);
        // Anybody may make any number of requests that change nothing.
        if answered.method.is_safe() || answered.status >= 400 {
            self.spans.emit_modestly(span);
        } else {
            self.spans.emit(span);
        }
    }

    /// The span of collecting attestations.
    pub(crate) fn attested(&self, envelope: &Envelope, started: u64, is_proven: bool) {
        let failure = (!is_proven).then_some("too few attestations");
        self.emit(envelope.trace, started, |context| {
            ("controller.attest", context.attested(), context.parent)
        })
        .finish(failure, |span| {
            span.text("dotmac.request", &envelope.request)
        });
    }

    /// The span of vouching for a request that another controller took.
    pub(crate) fn vouched(&self, envelope: &Envelope, started: u64, has_vouched: bool) {
        let failure = (!has_vouched).then_some("refused");
        self.emit(envelope.trace, started, |context| {
            let id = context.station("vouch", self.node);
            ("controller.vouch", id, context.attested())
        })
        .finish(failure, |span| span);
    }

    /// The span of proposing a request until it was applied, or was not.
    pub(crate) fn proposed(
        &self,
        trace: Option<TraceContext>,
        started: u64,
        reply: &Result<Reply, LogError>,
    ) {
        let failure = match reply {
            Ok(Ok(_)) => None,
            Ok(Err(rejection)) => Some(rejection.code.as_str()),
            Err(LogError::TimedOut(_)) => Some("timed out"),
            Err(_) => Some("not in the log"),
        };
        self.emit(trace, started, |context| {
            ("raft.propose", context.proposed(), context.parent)
        })
        .finish(failure, |span| span);
    }

    /// The span of the leader's writing an entry, until a majority had it and it was applied here.
    pub(crate) fn committed(&self, envelope: &Envelope, started: u64, batch: usize) {
        self.emit(envelope.trace, started, |context| {
            let id = context.station("commit", self.node);
            ("raft.commit", id, context.proposed())
        })
        .finish(None, |span| {
            let batch = u64::try_from(batch).unwrap_or(u64::MAX);
            span.number("dotmac.batch", batch)
        });
    }

    /// The span of sealing one order into a wave.
    pub(crate) fn sealed(&self, leaf: &Leaf, wave: u64, started: u64) {
        let (unit, sequence) = (&leaf.unit, leaf.sequence);
        self.emit(leaf.trace, started, |context| {
            let id = context.sealed(unit, sequence);
            ("wave.seal", id, context.proposed())
        })
        .finish(None, |span| {
            order(span, unit, sequence).number("dotmac.wave", wave)
        });
    }

    /// The span of checking and signing a wave, as one of its orders sees it.
    pub(crate) fn signed(&self, leaf: &Leaf, wave: u64, started: u64) {
        let (unit, sequence) = (&leaf.unit, leaf.sequence);
        self.emit(leaf.trace, started, |context| {
            let about = format_args!("{unit} {sequence} {wave} {}", self.node);
            let id = context.station("sign", about);
            ("wave.sign", id, context.sealed(unit, sequence))
        })
        .finish(None, |span| {
            order(span, unit, sequence).number("dotmac.wave", wave)
        });
    }

    /// The span of handing an order to its agent: from its last signature, if that came while the session lasted, to the
    /// end of its stream.
    pub(crate) fn dispatched(
        &self,
        trace: Option<TraceContext>,
        (unit, sequence): (&UnitId, Sequence),
        began: Timestamp,
        signed_at: Option<Timestamp>,
        started: u64,
    ) {
        let signed = signed_at.map_or(started, nanos);
        let started = started.min(signed.max(nanos(began)));
        self.emit(trace, started, |context| {
            let id = context.dispatched(unit, sequence, (self.node, began));
            ("order.dispatch", id, context.sealed(unit, sequence))
        })
        .finish(None, |span| order(span, unit, sequence));
    }

    fn emit(
        &self,
        trace: Option<TraceContext>,
        started: u64,
        name: impl FnOnce(&TraceContext) -> (&'static str, SpanId, SpanId),
    ) -> Ending<'_> {
        let span = self.spans.follow(trace).map(|context| {
            let (name, id, parent) = name(&context);
            let times = (started, self.now());
            Span::new(&context, name, (id, Some(parent)), times)
        });
        Ending {
            spans: &self.spans,
            span,
        }
    }
}

/// A span that only lacks its attributes; nothing when it is not wanted.
struct Ending<'a> {
    spans: &'a Spans,
    span: Option<Span>,
}

impl Ending<'_> {
    fn finish(self, failure: Option<&'static str>, with: impl FnOnce(Span) -> Span) {
        if let Some(span) = self.span {
            self.spans.emit(with(span).failed(failure));
        }
    }
}

fn order(span: Span, unit: &UnitId, sequence: Sequence) -> Span {
    span.text("dotmac.unit", unit)
        .number("dotmac.sequence", sequence.0)
}

/// A method's name, if it is one that HTTP knows: any other word is the caller's own, of any length. (OpenTelemetry's
/// conventions for HTTP spans.)
pub(crate) fn known(method: &Method) -> &str {
    const METHODS: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];
    if METHODS.contains(method) {
        method.as_str()
    } else {
        "_OTHER"
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, Method};
    use dotmac_protocol::ids::NodeId;
    use dotmac_runtime::{entropy::Entropy, telemetry::Spans};

    use super::Traces;

    const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("traceparent", HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_change_goes_on_in_the_callers_trace_and_begins_one_otherwise() {
        let (traces, entropy) = (Traces::default(), Entropy::seeded(1));
        let begin = |values: &[&'static str]| {
            let begun = traces.begin(&Method::POST, &headers(values), &entropy);
            begun.unwrap()
        };
        let known = begin(&[SENT]);
        assert_eq!(known.context.trace_id.to_string(), &SENT[3..35]);
        assert_eq!(known.caller.unwrap().to_string(), &SENT[36..52]);
        assert_ne!(known.context.parent, known.caller.unwrap());
        assert!(known.context.is_sampled, "changes are always traced");
        for unsound in [&[][..], &["nonsense"], &[SENT, SENT]] {
            let new = begin(unsound);
            assert_eq!(new.caller, None);
            assert_ne!(new.context.trace_id, known.context.trace_id);
        }
    }

    #[test]
    fn a_method_of_the_callers_own_is_not_quoted() {
        assert_eq!(super::known(&Method::PATCH), "PATCH");
        let own = Method::from_bytes("M".repeat(60_000).as_bytes()).unwrap();
        assert_eq!(super::known(&own), "_OTHER");
    }

    #[test]
    fn reads_are_traced_by_lot_and_not_at_all_where_nothing_is_exported() {
        let entropy = Entropy::seeded(1);
        let traces = Traces::new(Spans::default(), NodeId(1), 1_000);
        let begun = traces.begin(&Method::GET, &headers(&[SENT]), &entropy);
        assert_eq!(begun, None);
    }
}
