//! Around every handler: a change that answers well has committed its command, a sensitive read its note. A handler that
//! forgot it answers `internal`, so that no route can be served without its trace in the audit.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::Audit;
use crate::api::{
    fields::Fields,
    problem::{INTERNAL, Problem},
    tracking::{Tag, Trace},
};

/// What an operation owes to the audit, and to its caller.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Its id.
    pub(super) operation: &'static str,
    /// What it owes.
    pub(super) audit: Audit,
    /// Whether its handler reads no query, so that every parameter is refused here.
    pub(super) is_bare: bool,
}

impl Rule {
    fn is_kept(self, trace: Option<Trace>) -> bool {
        match (self.audit, trace) {
            (Audit::None, _) | (Audit::ByCommand, Some(Trace::Command | Trace::DryRun)) => true,
            (Audit::Noted(wanted), Some(Trace::Note(noted))) => wanted == noted,
            (Audit::ByCommand | Audit::Noted(_), _) => false,
        }
    }
}

/// Wraps one operation's handler.
pub(super) async fn guard(State(rule): State<Rule>, request: Request, next: Next) -> Response {
    if rule.is_bare
        && let Err(problem) = Fields::of_query(request.uri().query()).and_then(Fields::finish)
    {
        return problem.into_response();
    }
    let tag = request.extensions().get::<Tag>().cloned();
    let response = next.run(request).await;
    let trace = tag.and_then(|tag| tag.trace());
    if !response.status().is_success() || rule.is_kept(trace) {
        return response;
    }
    tracing::error!(
        operation = rule.operation,
        "an answer was held back: its request left no trace in the audit"
    );
    let detail = "the request left no trace in the audit, so its answer is held back";
    Problem::new(&INTERNAL, detail).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        body::Body,
        http::{Request, StatusCode},
        middleware,
        routing::get,
    };
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    use super::{Audit, Rule, guard};
    use crate::api::tracking::{Tag, Trace};

    async fn status(audit: Audit, trace: Option<Trace>, answered: StatusCode) -> StatusCode {
        let rule = Rule {
            operation: "test",
            audit,
            is_bare: false,
        };
        let guard = middleware::from_fn_with_state(rule, guard);
        let route = get(move || async move { answered }).route_layer(guard);
        let tag = Tag::default();
        if let Some(trace) = trace {
            tag.leave(trace);
        }
        let request = Request::get("/").extension(tag);
        let router: Router = Router::new().route("/", route);
        let service = TowerToHyperService::new(router);
        let answer = service.call(request.body(Body::empty()).unwrap());
        answer.await.unwrap().status()
    }

    #[tokio::test]
    async fn an_answer_without_its_trace_is_held_back() {
        let (good, held) = (StatusCode::OK, StatusCode::INTERNAL_SERVER_ERROR);
        let conflict = StatusCode::CONFLICT;
        let noted = Audit::Noted("deployment.logs-read");
        for (audit, trace, answered, expected) in [
            (Audit::None, None, good, good),
            (Audit::ByCommand, None, good, held),
            (Audit::ByCommand, Some(Trace::Note("x")), good, held),
            (Audit::ByCommand, Some(Trace::Command), good, good),
            (Audit::ByCommand, Some(Trace::DryRun), good, good),
            (Audit::ByCommand, None, conflict, conflict),
            (noted, None, good, held),
            (noted, Some(Trace::Note("other")), good, held),
            (noted, Some(Trace::Note("deployment.logs-read")), good, good),
        ] {
            let found = status(audit, trace, answered).await;
            assert_eq!(found, expected, "{audit:?} {trace:?}");
        }
    }
}
