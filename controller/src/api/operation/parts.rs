//! What an operation is made of: rights, audit, parameters, body, answers and links, as plain values.

use axum::http::StatusCode;
use dotmac_domain::access::Permission;
use serde_json::Value;

/// Whose things a permission is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Scope {
    /// The platform's: tokens that are bound to a tenant are refused (403).
    Platform,
    /// One tenant's: a foreign one is as unknown as none (404).
    Tenant,
    /// A list that holds what the caller may see, and nothing else.
    Filtered,
}

/// Who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) enum Access {
    /// Everybody, without a token.
    Public,
    /// Whoever has a token that counts.
    AnyToken,
    /// Whoever has all of these permissions.
    Needs(Vec<Permission>, Scope),
}

/// What the audit keeps of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Audit {
    /// Nothing: a plain read.
    None,
    /// A note with this action, committed before anything is shown: a sensitive read.
    Noted(&'static str),
    /// The command that it becomes.
    ByCommand,
}

/// Where a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Place {
    /// In the path.
    Path,
    /// In the query.
    Query,
    /// In a header.
    Header,
}

impl Place {
    /// As OpenAPI writes it.
    pub(in crate::api) fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
        }
    }
}

/// A parameter of the path, the query or a header.
#[derive(Debug, Clone)]
pub(in crate::api) struct Parameter {
    /// Its name.
    pub(in crate::api) name: &'static str,
    /// Where it is.
    pub(in crate::api) place: Place,
    /// Whether it must be given.
    pub(in crate::api) is_required: bool,
    /// What it may be.
    pub(in crate::api) schema: Value,
    /// What it does.
    pub(in crate::api) about: &'static str,
}

/// A body that is asked for.
#[derive(Debug, Clone)]
pub(in crate::api) struct Body {
    /// What it may be.
    pub(in crate::api) schema: Value,
    /// Whether it must be given.
    pub(in crate::api) is_required: bool,
    /// One that makes sense, for readers.
    pub(in crate::api) example: Option<Value>,
}

/// An answer that is no problem.
#[derive(Debug, Clone)]
pub(in crate::api) struct Success {
    /// Its status.
    pub(in crate::api) status: StatusCode,
    /// What it means.
    pub(in crate::api) about: &'static str,
    /// Media type and schema of its body; `None` without a body.
    pub(in crate::api) content: Option<(&'static str, Value)>,
    /// Its own headers, and what they say.
    pub(in crate::api) headers: Vec<(&'static str, &'static str)>,
}

/// What to do next with an answer: the operation, and which of its parameters comes from where in the answer.
#[derive(Debug, Clone)]
pub(in crate::api) struct Link {
    /// The id of the other operation.
    pub(in crate::api) operation: &'static str,
    /// Parameter and runtime expression (`$response.body#/id`).
    pub(in crate::api) parameters: Vec<(&'static str, &'static str)>,
}
