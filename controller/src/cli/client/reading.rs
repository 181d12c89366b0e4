//! What one attempt came to: a body that is JSON and small enough, a refusal, or a reason to ask another controller.

use std::time::Duration;

use reqwest::{Response, StatusCode, header};
use serde_json::Value;

use super::Answer;
use crate::cli::failure::{Failure, Problem};

/// Bytes of an answer at most.
pub(super) const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Seconds of a `Retry-After` that are believed at most.
const RETRY_AFTER_S_MAX: u64 = 3_600;

/// What became of one attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    Answered(Answer),
    Refused(Failure),
    Again(Again),
}

/// Why another try is worth it, perhaps elsewhere.
#[derive(Debug)]
pub(super) struct Again {
    /// In a few words.
    pub(super) why: String,
    /// What the controller said, if one answered.
    pub(super) problem: Option<Problem>,
    /// How long this controller wants to be left alone.
    pub(super) pause: Duration,
}

impl Again {
    /// Nobody answered.
    pub(super) fn unanswered(why: String) -> Self {
        Self {
            why,
            problem: None,
            pause: Duration::ZERO,
        }
    }
}

/// Reads an answer to its end.
pub(super) async fn read(response: Response) -> Attempt {
    let status = response.status();
    let path = response.url().path().to_owned();
    if status.is_redirection() {
        let why = format!("it names another place (status {})", status.as_u16());
        return Attempt::Again(Again::unanswered(why));
    }
    let text = |name| {
        let value = response.headers().get(name);
        value
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let is_json = text(header::CONTENT_TYPE).is_some_and(|kind| kind.contains("json"));
    let etag = text(header::ETAG);
    let seconds = text(header::RETRY_AFTER).and_then(|text| text.trim().parse::<u64>().ok());
    let pause = Duration::from_secs(seconds.unwrap_or_default().min(RETRY_AFTER_S_MAX));
    let body = match body(response).await {
        Ok(body) => body,
        Err(attempt) => return attempt,
    };
    if status.is_success() {
        let body = if body.is_empty() {
            Ok(Value::Null)
        } else {
            serde_json::from_slice(&body)
        };
        return match body {
            Ok(body) => Attempt::Answered(Answer { body, etag }),
            Err(cause) => Attempt::Refused(Failure::foreign(&path, &cause.to_string())),
        };
    }
    let problem = problem(status, &body, is_json);
    if matches!(status.as_u16(), 408 | 425 | 429 | 502..=504) {
        return Attempt::Again(Again {
            why: problem.to_string(),
            problem: Some(problem),
            pause,
        });
    }
    Attempt::Refused(Failure::of(problem))
}

fn problem(status: StatusCode, body: &[u8], is_json: bool) -> Problem {
    let mut problem: Problem = if is_json {
        serde_json::from_slice(body).unwrap_or_default()
    } else {
        Problem::default()
    };
    problem.status = status.as_u16();
    if problem.title.is_empty() {
        problem.title = status.to_string();
    }
    problem
}

pub(super) async fn body(mut response: Response) -> Result<Vec<u8>, Attempt> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body),
            Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => {
                body.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => {
                let why = format!("it has more than {ANSWER_BYTES_MAX} bytes");
                return Err(Attempt::Refused(Failure::answer(why)));
            }
            Err(cause) => return Err(Attempt::Again(Again::unanswered(innermost(&cause)))),
        }
    }
}

/// The cause at the bottom, which is the one that helps ("connection refused").
pub(super) fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
