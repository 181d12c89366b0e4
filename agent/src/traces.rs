//! The spans of an agent: an order's way from its arrival to the first healthy probe, and what instances ask of their
//! platform in a trace of their own. What they are called and how they hang together is in `dotmac_protocol::trace`.
//! Nothing waits for one and nothing is decided by one; they name units and slots, and never quote an output, a token,
//! a path or a reason.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::http::{HeaderMap, HeaderValue, Method};
use dotmac_protocol::{
    ids::{NodeId, UnitId},
    record::Hop,
    time::Timestamp,
    trace::{SpanId, TraceContext},
};
use dotmac_runtime::telemetry::{Span, Spans, nanos};

use crate::{
    driver::SlotName,
    unit::{Order, Wanted},
};

/// Makes the spans of one agent; the default makes none.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    spans: Spans,
    /// Counts calls of instances, to tell one from the other.
    calls: Arc<AtomicU64>,
}

/// A session: the controller, and when it began by that one's clock.
pub type SessionMark = (NodeId, Timestamp);

/// A call of an instance that has a trace of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    caller: TraceContext,
    id: SpanId,
    started: u64,
}

impl Traces {
    /// Spans of this agent.
    #[must_use]
    pub fn new(spans: Spans) -> Self {
        let calls = Arc::default();
        Self { spans, calls }
    }

    /// What became of the spans so far.
    #[must_use]
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// When something starts, for the span that is made at its end.
    pub(crate) fn now(&self) -> u64 {
        self.spans.now()
    }

    /// The span of taking an order: from its arrival until it is on disk and confirmed there.
    pub(crate) fn accepted(
        &self,
        wanted: &Wanted,
        session: Option<SessionMark>,
        received: Timestamp,
    ) {
        let (unit, sequence) = (&wanted.unit, wanted.sequence);
        self.order(wanted, "order.accept", nanos(received), |context| {
            let parent = match session {
                Some(session) => context.dispatched(unit, sequence, session),
                None => context.sealed(unit, sequence),
            };
            (context.accepted(unit, sequence), parent)
        });
    }

    /// The span of carrying an order out: until every component was started, or the unit was stopped or removed.
    pub(crate) fn applied(&self, wanted: &Wanted) {
        let (unit, sequence) = (&wanted.unit, wanted.sequence);
        let name = match wanted.order {
            Order::Keep(_) => "order.apply",
            Order::Remove => "order.remove",
        };
        self.order(wanted, name, nanos(wanted.at), |context| {
            let parent = context.accepted(unit, sequence);
            (context.applied(unit, sequence), parent)
        });
    }

    /// The span of starting one copy of a component for an order.
    pub(crate) fn started(
        &self,
        wanted: &Wanted,
        slot: &SlotName,
        launch: u64,
        started: u64,
        is_started: bool,
    ) {
        let span = self.span(wanted, "driver.start", started, |context| {
            let (unit, sequence) = (&wanted.unit, wanted.sequence);
            let about = format_args!("{unit} {sequence} {slot} {launch}");
            let id = context.station("start", about);
            // An order that is never carried out ends no span of that: its starts must not hang on one.
            (id, context.accepted(unit, sequence))
        });
        if let Some(span) = span {
            let failure = (!is_started).then_some("not started");
            self.spans
                .emit(span.text("dotmac.slot", slot).failed(failure));
        }
    }

    /// The span of an order that cannot be carried out for now.
    pub(crate) fn failing(&self, wanted: &Wanted) {
        let span = self.span(wanted, "order.failing", nanos(wanted.at), |context| {
            let (unit, sequence) = (&wanted.unit, wanted.sequence);
            let id = context.station("failing", format_args!("{unit} {sequence}"));
            (id, context.accepted(unit, sequence))
        });
        if let Some(span) = span {
            self.spans.emit(span.failed(Some("failing")));
        }
    }

    /// The span of probing: from the start of the last component until all was healthy for the first time.
    pub(crate) fn healthy(&self, wanted: &Wanted, way: &[Hop], station: &str) {
        let started = way.iter().find(|hop| hop.station == station);
        let started = started.map_or(wanted.at, |hop| hop.at);
        let (unit, sequence) = (&wanted.unit, wanted.sequence);
        self.order(wanted, "probe.healthy", nanos(started), |context| {
            let id = context.station("probe", format_args!("{unit} {sequence}"));
            (id, context.applied(unit, sequence))
        });
    }

    /// A call that goes on in the instance's own trace, if it sent one `traceparent` that is sound and sampled.
    pub(crate) fn begin(&self, headers: &HeaderMap) -> Option<Call> {
        if !self.spans.is_on() {
            return None;
        }
        let sent = headers.get_all("traceparent").into_iter();
        let caller = TraceContext::sole(sent.map(HeaderValue::as_bytes));
        let caller = self.spans.follow(caller)?;
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let started = self.now();
        Some(Call {
            caller,
            id: caller.station("call", format_args!("{started} {number}")),
            started,
        })
    }

    /// The span of an instance's call. `route` is the template of the path: a path may hold a licence key.
    pub(crate) fn answered(
        &self,
        call: &Call,
        unit: &UnitId,
        (method, route): (&Method, &str),
        status: u16,
    ) {
        let ids = (call.id, Some(call.caller.parent));
        let name = format!("{method} {route}");
        let failure = (status >= 500).then_some("not served");
        let span = Span::new(&call.caller, name, ids, (call.started, self.now()))
            .server()
            .text("http.request.method", method)
            .text("http.route", route)
            .number("http.response.status_code", status.into())
            .text("dotmac.unit", unit)
            .failed(failure);
        self.spans.emit_modestly(span);
    }

    fn order(
        &self,
        wanted: &Wanted,
        name: &'static str,
        started: u64,
        ids: impl FnOnce(&TraceContext) -> (SpanId, SpanId),
    ) {
        if let Some(span) = self.span(wanted, name, started, ids) {
            self.spans.emit(span);
        }
    }

    /// A span of an order that ends now; nothing when it is not wanted.
    fn span(
        &self,
        wanted: &Wanted,
        name: &'static str,
        started: u64,
        ids: impl FnOnce(&TraceContext) -> (SpanId, SpanId),
    ) -> Option<Span> {
        let context = self.spans.follow(wanted.trace)?;
        let (id, parent) = ids(&context);
        let span = Span::new(&context, name, (id, Some(parent)), (started, self.now()));
        let span = span
            .text("dotmac.unit", &wanted.unit)
            .number("dotmac.generation", wanted.generation.0)
            .number("dotmac.sequence", wanted.sequence.0);
        Some(span)
    }
}
