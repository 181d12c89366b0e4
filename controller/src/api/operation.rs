//! One operation of the API, said once: its path, who may ask, what it reads and answers, what the audit keeps, and its
//! handler. Router, OpenAPI document and the table of who may do what are all made of these; nothing is served without
//! one.

use std::sync::Arc;

use axum::{
    handler::Handler,
    http::{Method, StatusCode},
    middleware,
    routing::{MethodFilter, MethodRouter, on},
};
use dotmac_domain::access::Permission;
use serde_json::{Value, json};

use super::{
    problem::{self, Kind},
    schema,
};
use crate::node::Node;

mod guard;
mod parts;

pub(super) use parts::{Access, Audit, Body, Link, Parameter, Place, Scope, Success};

/// One operation.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    /// `noun.verb`; the noun is its tag.
    pub(super) id: &'static str,
    /// The method.
    pub(super) method: Method,
    /// The path, parameters in braces.
    pub(super) path: String,
    /// A few words.
    pub(super) summary: &'static str,
    /// More of them.
    pub(super) about: &'static str,
    /// Who may ask.
    pub(super) access: Access,
    /// What the audit keeps.
    pub(super) audit: Audit,
    /// Parameters, the usual ones too.
    pub(super) parameters: Vec<Parameter>,
    /// The body that is asked for.
    pub(super) body: Option<Body>,
    /// Answers that are no problem.
    pub(super) answers: Vec<Success>,
    /// Problems of its own, besides those of every operation of its sort.
    pub(super) problems: Vec<&'static Kind>,
    /// What to do next with an answer.
    pub(super) links: Vec<Link>,
    is_bare: bool,
    handler: MethodRouter<Arc<Node>>,
}

impl Operation {
    /// A read: its handler takes a [`super::reading::Reading`].
    pub(super) fn read<H, T>(id: &'static str, path: impl Into<String>, handler: H) -> Self
    where
        H: Handler<T, Arc<Node>>,
        T: 'static,
    {
        let words = schema::one_of(&["linearizable", "stale"]);
        let about =
            "`stale` answers with what this controller last knew, without asking the others";
        Self::new(Method::GET, id, path.into(), handler)
            .problems(&problem::OF_READS)
            .query("consistency", words, about)
    }

    /// A read that needs no State of now: its handler takes no [`super::reading::Reading`].
    pub(super) fn look<H, T>(id: &'static str, path: impl Into<String>, handler: H) -> Self
    where
        H: Handler<T, Arc<Node>>,
        T: 'static,
    {
        let mut made = Self::new(Method::GET, id, path.into(), handler)
            .problems(&[&problem::MALFORMED, &problem::INVALID]);
        made.is_bare = true;
        made
    }

    /// A change: its handler takes a [`super::change::Change`], and has asked for a command when it answers well.
    pub(super) fn change<H, T>(
        method: Method,
        id: &'static str,
        path: impl Into<String>,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Node>>,
        T: 'static,
    {
        let key = json!({"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]([ -~]*[!-~])?$"});
        let about = "the same for each retry: then the first answer comes again";
        let dry_run = "only say what would be different";
        let mut made = Self::new(method, id, path.into(), handler)
            .problems(&problem::OF_CHANGES)
            .query("dry_run", schema::flag(), dry_run)
            .header("Idempotency-Key", key, about);
        made.audit = Audit::ByCommand;
        made
    }

    fn new<H, T>(method: Method, id: &'static str, path: String, handler: H) -> Self
    where
        H: Handler<T, Arc<Node>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("a method that axum knows");
        Self {
            id,
            method,
            path,
            summary: "",
            about: "",
            access: Access::AnyToken,
            audit: Audit::None,
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            problems: Vec::new(),
            links: Vec::new(),
            is_bare: false,
            handler: on(filter, handler),
        }
    }

    /// A few words for lists, and more of them.
    pub(super) fn says(self, summary: &'static str, about: &'static str) -> Self {
        Self {
            summary,
            about,
            ..self
        }
    }

    /// Nobody needs a token.
    pub(super) fn public(self) -> Self {
        let access = Access::Public;
        Self { access, ..self }
    }

    /// The permissions that it needs, all of them.
    pub(super) fn needs(self, permissions: &[Permission], scope: Scope) -> Self {
        let access = Access::Needs(permissions.to_vec(), scope);
        Self { access, ..self }
    }

    /// A sensitive read: the handler calls `Reading::note_access` with this action before it shows anything.
    pub(super) fn noted(self, action: &'static str) -> Self {
        let audit = Audit::Noted(action);
        Self { audit, ..self }.problems(&problem::OF_CHANGES)
    }

    /// A name in the path.
    pub(super) fn named(self, name: &'static str, schema: Value, about: &'static str) -> Self {
        self.parameter(Place::Path, name, true, schema, about)
    }

    /// An optional parameter of the query.
    pub(super) fn query(self, name: &'static str, schema: Value, about: &'static str) -> Self {
        self.parameter(Place::Query, name, false, schema, about)
    }

    /// A parameter of the query that must be given.
    pub(super) fn required(self, name: &'static str, schema: Value, about: &'static str) -> Self {
        self.parameter(Place::Query, name, true, schema, about)
    }

    /// An optional header.
    pub(super) fn header(self, name: &'static str, schema: Value, about: &'static str) -> Self {
        self.parameter(Place::Header, name, false, schema, about)
    }

    /// `limit` and `cursor`, as `Reading::page` reads them; `cursor` is what a cursor of this list may be.
    pub(super) fn paged(self, cursor: Value) -> Self {
        self.query(
            "limit",
            schema::whole(1, 1000),
            "items of a page at most; 100 if not given",
        )
        .query("cursor", cursor, "the `next_cursor` of the page before")
    }

    /// `If-Match`, as `Change` checks it.
    pub(super) fn versioned(self) -> Self {
        let schema = json!({"type": "string", "minLength": 1, "pattern": r#"^(\*|"[!#-~]*")$"#});
        let about =
            "the `ETag` of what was seen: 412 if it has changed since; `*` is whatever there is";
        self.header("If-Match", schema, about)
            .problems(&[&problem::PRECONDITION_FAILED])
    }

    /// A body that must be given.
    pub(super) fn body(self, schema: Value) -> Self {
        self.asks(schema, true)
    }

    /// A body that may be left out.
    pub(super) fn optional_body(self, schema: Value) -> Self {
        self.asks(schema, false)
    }

    /// A body that makes sense, for readers.
    pub(super) fn example(mut self, example: Value) -> Self {
        let body = self.body.as_mut();
        body.expect("a body comes before its example").example = Some(example);
        self
    }

    /// An answer with a body of JSON.
    pub(super) fn answers(self, status: StatusCode, about: &'static str, schema: Value) -> Self {
        self.answers_as(status, about, "application/json", schema)
    }

    /// An answer with a body of another sort.
    pub(super) fn answers_as(
        mut self,
        status: StatusCode,
        about: &'static str,
        media: &'static str,
        schema: Value,
    ) -> Self {
        self.answers.push(Success {
            status,
            about,
            content: Some((media, schema)),
            headers: Vec::new(),
        });
        self
    }

    /// An answer without a body.
    pub(super) fn answers_empty(mut self, status: StatusCode, about: &'static str) -> Self {
        self.answers.push(Success {
            status,
            about,
            content: None,
            headers: Vec::new(),
        });
        self
    }

    /// A header of the answer that was named last.
    pub(super) fn with(mut self, name: &'static str, about: &'static str) -> Self {
        let answer = self.answers.last_mut();
        answer
            .expect("an answer comes before its headers")
            .headers
            .push((name, about));
        self
    }

    /// Problems that it may answer with, besides those of every operation of its sort.
    pub(super) fn problems(mut self, kinds: &[&'static Kind]) -> Self {
        self.problems.extend(kinds);
        self
    }

    /// What to do next with an answer.
    pub(super) fn link(
        mut self,
        operation: &'static str,
        parameters: &[(&'static str, &'static str)],
    ) -> Self {
        let parameters = parameters.to_vec();
        self.links.push(Link {
            operation,
            parameters,
        });
        self
    }

    fn parameter(
        mut self,
        place: Place,
        name: &'static str,
        is_required: bool,
        schema: Value,
        about: &'static str,
    ) -> Self {
        self.parameters.push(Parameter {
            name,
            place,
            is_required,
            schema,
            about,
        });
        self
    }

    fn asks(self, schema: Value, is_required: bool) -> Self {
        let body = Some(Body {
            schema,
            is_required,
            example: None,
        });
        Self { body, ..self }
    }

    /// What it belongs to.
    pub(super) fn tag(&self) -> &'static str {
        self.id.split('.').next().unwrap_or(self.id)
    }

    /// Every problem it may answer with, once each, by status and code.
    pub(super) fn all_problems(&self) -> Vec<&'static Kind> {
        let mut kinds = self.problems.clone();
        kinds.extend(problem::OF_ALL);
        let names_something = self.parameters.iter().any(|one| one.place == Place::Path);
        if names_something {
            kinds.extend([&problem::NOT_FOUND, &problem::NO_SUCH_PATH]);
        }
        if self.access != Access::Public {
            kinds.extend(problem::OF_TOKENS);
        }
        if let Access::Needs(..) = self.access {
            kinds.push(&problem::FORBIDDEN);
        }
        kinds.sort_by_key(|kind| (kind.status(), kind.code()));
        kinds.dedup_by_key(|kind| kind.code());
        kinds
    }

    /// What serves it: the handler, and around it the guard that lets no answer out without its trace in the audit.
    pub(super) fn route(&self) -> MethodRouter<Arc<Node>> {
        let rule = guard::Rule {
            operation: self.id,
            audit: self.audit,
            is_bare: self.is_bare && self.access == Access::Public,
        };
        self.handler
            .clone()
            .route_layer(middleware::from_fn_with_state(rule, guard::guard))
    }
}
