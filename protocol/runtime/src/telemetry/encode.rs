//! Spans as the protocol buffers of OTLP.

use dotmac_protocol::trace::SpanId;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as Encoded, Status, span::SpanKind, status},
};
use prost::Message as _;

use super::{
    Service,
    span::{Attribute, Span},
};

/// The flag of W3C Trace Context that says "sampled", as OTLP carries it.
const SAMPLED: u32 = 1;

/// How many spans an answer says were rejected; none when it says nothing that can be read.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    let rejected = answer.partial_success.map(|partial| partial.rejected_spans);
    rejected.map_or(0, |spans| u64::try_from(spans).unwrap_or(0))
}

/// What all spans of a process share.
pub(super) fn resource(service: &Service) -> Resource {
    let attributes = [
        ("service.name", service.name),
        ("service.namespace", service.namespace.as_str()),
        ("service.instance.id", service.instance.as_str()),
        ("service.version", service.version),
    ];
    let text = |(key, value): (&str, &str)| attribute(key, Value::StringValue(value.to_owned()));
    Resource {
        attributes: attributes.map(text).into(),
        ..Resource::default()
    }
}

/// The body of one export.
pub(super) fn body(resource: &Resource, spans: &[Span]) -> Vec<u8> {
    let scope = InstrumentationScope {
        name: "dotmac".to_owned(),
        ..InstrumentationScope::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: spans.iter().map(encoded).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec()
}

fn encoded(span: &Span) -> Encoded {
    let kind = if span.is_server {
        SpanKind::Server
    } else {
        SpanKind::Internal
    };
    let failure = span.failure.map(|kind| Status {
        message: kind.to_owned(),
        code: status::StatusCode::Error.into(),
    });
    let parent = |parent: SpanId| parent.bytes().to_vec();
    let attributes = span.attributes.iter().map(|(key, value)| {
        let value = match value {
            Attribute::Text(text) => Value::StringValue(text.clone()),
            Attribute::Number(number) => Value::IntValue(*number),
        };
        attribute(key, value)
    });
    Encoded {
        trace_id: span.trace.bytes().to_vec(),
        span_id: span.id.bytes().to_vec(),
        parent_span_id: span.parent.map(parent).unwrap_or_default(),
        flags: SAMPLED,
        name: span.name.clone().into_owned(),
        kind: kind.into(),
        start_time_unix_nano: span.start,
        end_time_unix_nano: span.end,
        attributes: attributes.collect(),
        status: Some(failure.unwrap_or_else(|| Status {
            code: status::StatusCode::Ok.into(),
            ..Status::default()
        })),
        ..Encoded::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
