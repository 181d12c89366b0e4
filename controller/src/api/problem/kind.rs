//! The kinds of errors: stable code, status, title, and what to do. A code never changes its meaning.

use axum::http::StatusCode;

/// One kind of error.
#[derive(Debug)]
pub(in crate::api) struct Kind {
    /// Stable code.
    pub(super) code: &'static str,
    /// HTTP status.
    pub(super) status: StatusCode,
    /// What went wrong, for people.
    pub(super) title: &'static str,
    /// What to do about it, unless the problem knows better.
    pub(super) next: &'static str,
    /// Seconds after which another try may help.
    pub(super) retry_after_s: Option<u32>,
}

const fn kind(
    code: &'static str,
    status: StatusCode,
    title: &'static str,
    next: &'static str,
) -> Kind {
    Kind {
        code,
        status,
        title,
        next,
        retry_after_s: None,
    }
}

const fn passing(kind: Kind, retry_after_s: u32) -> Kind {
    Kind {
        retry_after_s: Some(retry_after_s),
        ..kind
    }
}

macro_rules! kinds {
    ($($name:ident $code:literal $status:ident $title:literal $next:literal $($seconds:literal)?;)*) => {
        $(pub(in crate::api) static $name: Kind =
            kinds!(@one kind($code, StatusCode::$status, $title, $next) $(, $seconds)?);)*
    };
    (@one $kind:expr) => { $kind };
    (@one $kind:expr, $seconds:literal) => { passing($kind, $seconds) };
}

kinds! {
    INVALID "invalid" UNPROCESSABLE_ENTITY "The request has wrong fields"
        "correct what `errors` lists";
    MALFORMED "malformed" BAD_REQUEST "The request cannot be read"
        "send one JSON object";
    UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "The body is not JSON"
        "send `Content-Type: application/json`";
    TOO_LARGE "too-large" PAYLOAD_TOO_LARGE "The body is too large"
        "send less at once";
    BODY_TIMED_OUT "body-timed-out" REQUEST_TIMEOUT "The body did not arrive in time"
        "send it again";
    UNAUTHENTICATED "unauthenticated" UNAUTHORIZED "The request names nobody"
        "send the header `Authorization: Bearer TOKEN`; `make up` puts the administrator's token into .dotmac/admin.token";
    TOKEN_IN_QUERY "token-in-query" UNAUTHORIZED "A token does not belong into an address"
        "send it in the header `Authorization: Bearer TOKEN`, and replace it: addresses end up in logs";
    FORBIDDEN "forbidden" FORBIDDEN "The token may not do this"
        "use a token whose role includes the permission";
    NOT_FOUND "not-found" NOT_FOUND "There is no such thing"
        "look at the list of those that this token may see";
    NO_SUCH_PATH "no-such-path" NOT_FOUND "There is no such path"
        "start at /";
    METHOD_NOT_ALLOWED "method-not-allowed" METHOD_NOT_ALLOWED "The path does not know this method"
        "the header `Allow` lists those it knows";
    PRECONDITION_FAILED "precondition-failed" PRECONDITION_FAILED "It has changed meanwhile"
        "read it again and decide anew";
    DOMAIN_IN_USE "domain-in-use" CONFLICT "The domain name is taken"
        "choose another domain_name, or delete the deployment that has it";
    ALREADY_EXISTS "already-exists" CONFLICT "It exists already"
        "choose another name or version";
    WRONG_STATE "wrong-state" CONFLICT "Its state does not allow this"
        "look at its status and what it waits for";
    NO_AGENT "no-agent" CONFLICT "No agent can take it"
        "start an agent in that region: `dotmac agents token --region REGION`";
    OUT_OF_ORDER "out-of-order" CONFLICT "It does not follow what is known"
        "read again and send what follows";
    IDEMPOTENCY_KEY_REUSED "idempotency-key-reused" UNPROCESSABLE_ENTITY "The Idempotency-Key was used for another request"
        "use a new key for each new request, and the same one for a retry only";
    JOIN_TOKEN_REFUSED "join-token-refused" FORBIDDEN "The join token does not count"
        "make a new one: `dotmac agents token --region REGION`";
    BUDGET_EXHAUSTED "budget-exhausted" TOO_MANY_REQUESTS "A budget is used up"
        "try again later" 60;
    NOT_FOUNDED "not-founded" SERVICE_UNAVAILABLE "The cluster is not founded yet"
        "wait until a majority of the controllers runs" 1;
    UNAVAILABLE "unavailable" SERVICE_UNAVAILABLE "No majority of the controllers can be reached"
        "try again with the same Idempotency-Key; reads may be asked for with ?consistency=stale" 1;
    TIMED_OUT "timed-out" GATEWAY_TIMEOUT "It took too long"
        "try again with the same Idempotency-Key: that is safe";
    OVERLOADED "overloaded" TOO_MANY_REQUESTS "Too much is waiting already"
        "try again later with the same Idempotency-Key" 1;
    STORAGE "storage" SERVICE_UNAVAILABLE "This controller's storage refuses"
        "ask another controller; see this one's log" 5;
    REFUSED_BY_PEER "refused-by-peer" SERVICE_UNAVAILABLE "Another controller refuses"
        "see `dotmac cluster status` and try again" 1;
    ATTESTATIONS "attestations" SERVICE_UNAVAILABLE "Too few controllers vouch for the request"
        "try again with the same Idempotency-Key; `dotmac cluster status` shows who is away" 1;
    AGENT_DISCONNECTED "agent-disconnected" SERVICE_UNAVAILABLE "The agent is not connected"
        "try again when `dotmac agents list` shows it as connected" 2;
    INTERNAL "internal" INTERNAL_SERVER_ERROR "The controller made a mistake"
        "see its log under the x-request-id";
}
