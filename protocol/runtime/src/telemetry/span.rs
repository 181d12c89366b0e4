//! One span as it waits for its export: ids, times, a name, and a few short attributes. It holds no secret: whoever makes
//! one names things by ids, and never quotes a body, a query, a token or an output.

use std::{borrow::Cow, fmt::Display};

use dotmac_protocol::trace::{SpanId, TraceContext, TraceId};

/// Bytes of a name or an attribute's text at most; the rest is cut off.
const TEXT_BYTES_MAX: usize = 256;

/// One finished span.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub(super) trace: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) name: Cow<'static, str>,
    pub(super) is_server: bool,
    /// Nanoseconds since 1970.
    pub(super) start: u64,
    /// Nanoseconds since 1970.
    pub(super) end: u64,
    /// What kind of failure it ended with, in a word.
    pub(super) failure: Option<&'static str>,
    pub(super) attributes: Vec<(&'static str, Attribute)>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Attribute {
    Text(String),
    Number(i64),
}

impl Span {
    /// A span of this name within the context's trace, from start to end in nanoseconds since 1970; an end before the start
    /// counts as the start. A name that was put together is cut off at 256 bytes.
    #[must_use]
    pub fn new(
        context: &TraceContext,
        name: impl Into<Cow<'static, str>>,
        (id, parent): (SpanId, Option<SpanId>),
        (start, end): (u64, u64),
    ) -> Self {
        Self {
            trace: context.trace_id,
            id,
            parent,
            name: match name.into() {
                Cow::Owned(name) => Cow::Owned(cut(name)),
                ours @ Cow::Borrowed(_) => ours,
            },
            is_server: false,
            start,
            end: end.max(start),
            failure: None,
            attributes: Vec::new(),
        }
    }

    /// It answers somebody's request.
    #[must_use]
    pub fn server(mut self) -> Self {
        self.is_server = true;
        self
    }

    /// With a short text, cut off at 256 bytes.
    #[must_use]
    pub fn text(mut self, key: &'static str, value: impl Display) -> Self {
        let value = cut(value.to_string());
        self.attributes.push((key, Attribute::Text(value)));
        self
    }

    /// With a number; one above what the format holds is its largest.
    #[must_use]
    pub fn number(mut self, key: &'static str, value: u64) -> Self {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.attributes.push((key, Attribute::Number(value)));
        self
    }

    /// It ended with a failure of this kind, if with any: a word of ours, never the text of an error.
    #[must_use]
    pub fn failed(mut self, kind: Option<&'static str>) -> Self {
        self.failure = kind;
        self
    }
}

fn cut(mut text: String) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    // What waits in the queue must not hold the room of what was cut off.
    text.shrink_to_fit();
    text
}
