//! What apply answers: what was accepted, or why not, in words that name field, value and what is allowed.

use dotmac_protocol::{
    codec::Format,
    ids::{AgentId, DeploymentId, TenantId},
};
use serde::{Deserialize, Serialize};

/// The answer to one envelope.
pub type Reply = Result<Accepted, Rejection>;

/// What became of an accepted command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accepted {
    /// It is done; there is nothing to name.
    Done,
    /// This deployment was made or changed.
    Deployment {
        /// Whose.
        tenant: TenantId,
        /// Which.
        deployment: DeploymentId,
    },
    /// This agent was admitted.
    Agent(AgentId),
    /// This wave was sealed; 0 when there was nothing to seal.
    Wave(u64),
    /// Records up to this sequence count.
    Through(u64),
    /// This tenant was made or changed.
    Tenant(TenantId),
}

/// A business "no".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Rejection {
    /// Stable code; its HTTP status is decided in the API.
    pub code: Code,
    /// One sentence for people.
    pub detail: String,
    /// The fields that are wrong.
    pub errors: Vec<FieldError>,
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Its name.
    pub field: String,
    /// The value, cut to 200 characters.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

/// Stable codes of rejections; documented in docs/errors.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Code {
    /// A field is wrong.
    Invalid,
    /// The actor may not do this.
    Forbidden,
    /// There is no such thing, or it is somebody else's.
    NotFound,
    /// The domain name is taken.
    DomainInUse,
    /// It exists already, with another content.
    AlreadyExists,
    /// The thing is not in a state that allows it.
    WrongState,
    /// The request id was used for something else.
    IdempotencyKeyReused,
    /// The join token does not count: unknown, used, expired, or for another region.
    JoinTokenRefused,
    /// A budget is used up; later it will be free again.
    BudgetExhausted,
    /// The cluster was founded already, or not yet.
    NotFounded,
    /// A report does not follow what is known.
    OutOfOrder,
    /// It has changed since the asker saw it.
    PreconditionFailed,
    /// There is no such release, or none that may be chosen.
    UnknownRelease,
    /// The actor's token has ended.
    TokenEnded,
    /// There are as many as there can be; waiting does not help.
    LimitReached,
}

impl Code {
    /// The code as it is written in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::DomainInUse => "domain-in-use",
            Self::AlreadyExists => "already-exists",
            Self::WrongState => "wrong-state",
            Self::IdempotencyKeyReused => "idempotency-key-reused",
            Self::JoinTokenRefused => "join-token-refused",
            Self::BudgetExhausted => "budget-exhausted",
            Self::NotFounded => "not-founded",
            Self::OutOfOrder => "out-of-order",
            Self::PreconditionFailed => "precondition-failed",
            Self::UnknownRelease => "unknown-release",
            Self::TokenEnded => "token-ended",
            Self::LimitReached => "limit-reached",
        }
    }
}

/// Characters of a rejection's sentence at most; longer ones are cut.
pub const DETAIL_CHARS_MAX: usize = 1_000;
/// Characters of a field's name and of its value at most; longer ones are cut.
pub const FIELD_CHARS_MAX: usize = 200;

impl Rejection {
    /// A rejection without fields.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        Self {
            code,
            detail: detail.chars().take(DETAIL_CHARS_MAX).collect(),
            errors: Vec::new(),
        }
    }

    /// A wrong field.
    #[must_use]
    pub fn field(field: &str, value: impl ToString, allowed: impl Into<String>) -> Self {
        let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        let field = cut(field, FIELD_CHARS_MAX);
        let value = cut(&value.to_string(), FIELD_CHARS_MAX);
        let allowed = cut(&allowed.into(), DETAIL_CHARS_MAX);
        let detail = format!("{field} {value:?} is not allowed: {allowed}");
        let errors = vec![FieldError {
            field,
            value,
            allowed,
        }];
        Self {
            errors,
            ..Self::new(Code::Invalid, detail)
        }
    }

    /// There is no such thing, or it is somebody else's: both in the same words (law 7).
    #[must_use]
    pub fn not_found(kind: &str, id: impl ToString) -> Self {
        Self::new(
            Code::NotFound,
            format!("there is no {kind} {}", id.to_string()),
        )
    }
}

/// The replies to one log entry, as a proposer gets them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Replies(pub Vec<Reply>);

impl Format for Replies {
    const KIND: &'static str = "replies";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 1024 * 1024;
}
