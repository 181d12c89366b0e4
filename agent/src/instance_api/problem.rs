//! Errors of the instance API as RFC 9457 problems. The one place that decides on statuses; texts are for strangers.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::fields::Wrong;
use crate::reports::Refusal;

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// No token, or one that no unit of this agent signed, or that is over.
    Unauthorized(&'static str),
    /// The token is of another kind of service.
    Forbidden(&'static str),
    /// There is no such thing, or it is somebody else's.
    NotFound,
    /// The path exists, the method does not.
    Method,
    /// The body is not what the call takes.
    Body(String),
    /// The query is not what the call takes.
    Query(String),
    /// Members of the body are not what the call takes.
    Fields(Vec<Wrong>),
    /// The body is too large.
    BodySize,
    /// Too many requests at once.
    Busy,
    /// The request took too long.
    Slow,
    /// The instance reports more than it may; there is enough allowance after so many seconds.
    Often { wait_s: u64 },
    /// Too much waits for the controllers: no report is taken until some of it was acknowledged.
    Full,
    /// The agent itself cannot answer; its log says why.
    Unavailable,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Often { wait_s } => Self::Often { wait_s },
            Refusal::Full => Self::Full,
            Refusal::Busy => Self::Busy,
            Refusal::Failed => Self::Unavailable,
        }
    }
}

impl Problem {
    /// What is wrong, in one line.
    pub(super) fn detail(&self) -> String {
        self.parts().2
    }

    fn parts(&self) -> (StatusCode, &'static str, String) {
        match self {
            Self::Unauthorized(detail) => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                (*detail).to_owned(),
            ),
            Self::Forbidden(detail) => (StatusCode::FORBIDDEN, "forbidden", (*detail).to_owned()),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not-found",
                "there is nothing here".into(),
            ),
            Self::Method => {
                let detail = "this path does not take this method".to_owned();
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
            }
            Self::Body(detail) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-body",
                detail.clone(),
            ),
            Self::Query(detail) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-query",
                detail.clone(),
            ),
            Self::Fields(wrong) => {
                let fields: Vec<String> = wrong
                    .iter()
                    .map(|one| {
                        format!("{} is {}, allowed is {}", one.field, one.value, one.allowed)
                    })
                    .collect();
                let (status, detail) = (StatusCode::UNPROCESSABLE_ENTITY, fields.join("; "));
                (status, "invalid-body", detail)
            }
            Self::BodySize => {
                let detail = "the body is too large".to_owned();
                (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
            }
            Self::Busy => {
                let detail = "too many calls at once; try again in a second".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
            }
            Self::Slow => {
                let detail = "the request took too long".to_owned();
                (StatusCode::REQUEST_TIMEOUT, "timeout", detail)
            }
            Self::Often { wait_s } => {
                let detail = format!("this instance reports too much; try again in {wait_s} s");
                (StatusCode::TOO_MANY_REQUESTS, "too-many-reports", detail)
            }
            Self::Full => {
                let detail =
                    "too many reports wait for the controllers; try again later".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, "reports-full", detail)
            }
            Self::Unavailable => {
                let detail = "the platform cannot answer now; try again".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, detail) = self.parts();
        let mut body = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "code": code,
            "detail": detail,
        });
        if let Self::Fields(wrong) = &self {
            let errors = wrong
                .iter()
                .map(|one| json!({"field": one.field, "value": one.value, "allowed": one.allowed}));
            body["errors"] = errors.collect();
        }
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        match &self {
            Self::Unauthorized(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Busy => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Often { wait_s } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*wait_s));
            }
            Self::Full | Self::Unavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            }
            _ => {}
        }
        response
    }
}
