//! Errors as callers see them (RFC 9457), and the one place that gives each an HTTP status. Texts name what was asked,
//! never a secret that was given.

use std::borrow::Cow;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use dotmac_domain::{
    Rejection,
    reply::{Code, FieldError},
};
use serde_json::{Value, json};

use crate::{log::LogError, metrics::ProblemCode, node::AskError};

mod kind;

pub(super) use kind::{
    AGENT_DISCONNECTED, ALREADY_EXISTS, BACKUP_TARGET, BODY_TIMED_OUT, BUDGET_EXHAUSTED,
    DOMAIN_IN_USE, FORBIDDEN, HEAD_TIMED_OUT, HEAD_TOO_LARGE, INTERNAL, INVALID, Kind,
    LIMIT_REACHED, MALFORMED, METHOD_NOT_ALLOWED, NO_AGENT, NO_SUCH_PATH, NOT_FOUND, NOT_FOUNDED,
    OUT_OF_ORDER, OVERLOADED, PRECONDITION_FAILED, RATE_LIMITED, TIMED_OUT, TOKEN_ENDED,
    TOKEN_IN_QUERY, TOO_LARGE, UNAUTHENTICATED, UNAVAILABLE, UNKNOWN_RELEASE,
    UNSUPPORTED_MEDIA_TYPE, WRONG_STATE,
};

/// What every operation may answer with.
pub(super) static OF_ALL: [&Kind; 7] = [
    &INTERNAL,
    &MALFORMED,
    &TOKEN_IN_QUERY,
    &HEAD_TOO_LARGE,
    &HEAD_TIMED_OUT,
    &RATE_LIMITED,
    &TIMED_OUT,
];
/// What every operation that wants a token may answer with.
pub(super) static OF_TOKENS: [&Kind; 5] = [
    &UNAUTHENTICATED,
    &TOKEN_ENDED,
    &TOKEN_IN_QUERY,
    &NOT_FOUNDED,
    &MALFORMED,
];
/// What every read of the newest State may answer with.
pub(super) static OF_READS: [&Kind; 7] = [
    &MALFORMED,
    &INVALID,
    &UNAVAILABLE,
    &TIMED_OUT,
    &OVERLOADED,
    &kind::STORAGE,
    &kind::REFUSED_BY_PEER,
];
/// What every change may answer with.
pub(super) static OF_CHANGES: [&Kind; 13] = [
    &MALFORMED,
    &INVALID,
    &UNSUPPORTED_MEDIA_TYPE,
    &TOO_LARGE,
    &BODY_TIMED_OUT,
    &kind::IDEMPOTENCY_KEY_REUSED,
    &BUDGET_EXHAUSTED,
    &UNAVAILABLE,
    &TIMED_OUT,
    &OVERLOADED,
    &kind::STORAGE,
    &kind::REFUSED_BY_PEER,
    &kind::ATTESTATIONS,
];

/// Characters of a caller's own words that an error repeats at most.
const ECHO_MAX: usize = 80;

/// An error on its way to the caller.
#[derive(Debug)]
pub(super) struct Problem {
    kind: &'static Kind,
    detail: String,
    next: Option<Cow<'static, str>>,
    errors: Vec<FieldError>,
}

impl Problem {
    /// A problem of a kind, in one sentence.
    pub(super) fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            next: None,
            errors: Vec::new(),
        }
    }

    /// With another hint than the kind's.
    pub(super) fn with_next(self, next: impl Into<Cow<'static, str>>) -> Self {
        Self {
            next: Some(next.into()),
            ..self
        }
    }

    /// Fields that are wrong.
    pub(super) fn fields(errors: Vec<FieldError>) -> Self {
        let names: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        let detail = format!("not allowed as given: {}", names.join(", "));
        Self {
            errors,
            ..Self::new(&INVALID, detail)
        }
    }

    /// There is no such thing, or it is somebody else's: the same words for both (law 7).
    pub(super) fn not_found(what: &str, id: &str) -> Self {
        let id: String = id.chars().take(ECHO_MAX).collect();
        Rejection::not_found(what, id).into()
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection.code {
            Code::Invalid => &INVALID,
            Code::Forbidden => &FORBIDDEN,
            Code::NotFound => &NOT_FOUND,
            Code::DomainInUse => &DOMAIN_IN_USE,
            Code::AlreadyExists => &ALREADY_EXISTS,
            Code::WrongState => &WRONG_STATE,
            Code::IdempotencyKeyReused => &kind::IDEMPOTENCY_KEY_REUSED,
            Code::JoinTokenRefused => &kind::JOIN_TOKEN_REFUSED,
            Code::BudgetExhausted => &BUDGET_EXHAUSTED,
            Code::NotFounded => &NOT_FOUNDED,
            Code::OutOfOrder => &OUT_OF_ORDER,
            Code::PreconditionFailed => &PRECONDITION_FAILED,
            Code::UnknownRelease => &UNKNOWN_RELEASE,
            Code::TokenEnded => &TOKEN_ENDED,
            Code::LimitReached => &LIMIT_REACHED,
        };
        Self {
            errors: rejection.errors,
            ..Self::new(kind, rejection.detail)
        }
    }
}

/// What helps when the disk of whoever leads is full: another controller would ask the same one.
const LEADER_FULL: &str = "make room on the disk of that controller, or stop it so that another one leads; until then \
                           every controller answers this";

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        let kind = match &error {
            LogError::Unavailable(_) => &UNAVAILABLE,
            LogError::TimedOut(_) => &TIMED_OUT,
            LogError::Overloaded => &OVERLOADED,
            LogError::Storage(_) | LogError::LeaderStorage(_) => &kind::STORAGE,
            LogError::Refused { .. } => &kind::REFUSED_BY_PEER,
        };
        let problem = Self::new(kind, error.to_string());
        match error {
            LogError::LeaderStorage(_) => problem.with_next(LEADER_FULL),
            _ => problem,
        }
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Attestations { .. } => Self::new(&kind::ATTESTATIONS, error.to_string()),
            AskError::Log(error) => error.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let errors: Vec<Value> = self
            .errors
            .iter()
            .map(|one| json!({"field": one.field, "value": one.value, "allowed": one.allowed}))
            .collect();
        let body = json!({
            "type": format!("/docs/errors/{}", self.kind.code),
            "title": self.kind.title,
            "status": self.kind.status.as_u16(),
            "code": self.kind.code,
            "detail": self.detail,
            "next": self.next.as_deref().unwrap_or(self.kind.next),
            "errors": errors,
        });
        let mut response = (self.kind.status, body.to_string()).into_response();
        response
            .extensions_mut()
            .insert(ProblemCode(self.kind.code));
        let headers = response.headers_mut();
        let content = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, content);
        if let Some(seconds) = self.kind.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{http::header, response::IntoResponse as _};
    use dotmac_domain::{Rejection, reply::Code};

    use super::Problem;
    use crate::{log::LogError, node::AskError};

    #[test]
    fn every_code_has_the_status_that_was_agreed() {
        let status = |code| {
            Problem::from(Rejection::new(code, ""))
                .into_response()
                .status()
                .as_u16()
        };
        let codes = [
            (Code::Invalid, 422),
            (Code::Forbidden, 403),
            (Code::NotFound, 404),
            (Code::DomainInUse, 409),
            (Code::AlreadyExists, 409),
            (Code::WrongState, 409),
            (Code::IdempotencyKeyReused, 422),
            (Code::JoinTokenRefused, 403),
            (Code::BudgetExhausted, 429),
            (Code::NotFounded, 503),
            (Code::OutOfOrder, 409),
            (Code::PreconditionFailed, 412),
            (Code::UnknownRelease, 409),
            (Code::TokenEnded, 401),
            (Code::LimitReached, 409),
        ];
        for (code, expected) in codes {
            assert_eq!(status(code), expected, "{}", code.as_str());
        }
    }

    #[test]
    fn a_full_leader_is_named_and_nobody_is_sent_to_another_controller() {
        let detail = "controller 3, which leads, takes no writes: the disk has 5 bytes left, below the reserve of 9";
        let problem = Problem::from(LogError::LeaderStorage(detail.into()));
        assert_eq!(
            (problem.kind.code, problem.detail.as_str()),
            ("storage", detail)
        );
        let next = problem.next.unwrap();
        assert!(next.contains("stop it so that another one leads"), "{next}");
        let own = Problem::from(LogError::Storage("full".into()));
        assert_eq!(own.detail, "this controller's storage refuses: full");
        assert!(own.next.is_none() && own.kind.next.contains("ask another controller"));
    }

    #[test]
    fn whoever_may_try_again_is_told_when() {
        let attestations = AskError::Attestations {
            found: 1,
            needed: 2,
            detail: String::new(),
        };
        let errors = [
            (
                Problem::from(LogError::Unavailable(String::new())),
                503,
                true,
            ),
            (
                Problem::from(LogError::TimedOut(Duration::from_secs(1))),
                504,
                false,
            ),
            (Problem::from(LogError::Overloaded), 429, true),
            (Problem::from(LogError::Storage(String::new())), 503, true),
            (
                Problem::from(LogError::LeaderStorage(String::new())),
                503,
                true,
            ),
            (Problem::from(attestations), 503, true),
        ];
        for (problem, status, has_time) in errors {
            let response = problem.into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(
                response.headers().contains_key(header::RETRY_AFTER),
                has_time,
                "{status}"
            );
        }
    }
}
