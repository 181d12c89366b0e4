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

impl Kind {
    /// Stable code.
    pub(in crate::api) fn code(&self) -> &'static str {
        self.code
    }

    /// HTTP status.
    pub(in crate::api) fn status(&self) -> StatusCode {
        self.status
    }

    /// Every kind.
    pub(in crate::api) fn all() -> impl Iterator<Item = &'static Self> {
        ALL.iter().copied()
    }

    /// Seconds after which another try may help.
    pub(in crate::api) fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// What went wrong, for people.
    pub(in crate::api) fn title(&self) -> &'static str {
        self.title
    }
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

        static ALL: &[&Kind] = &[$(&$name),*];
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
    HEAD_TOO_LARGE "head-too-large" REQUEST_HEADER_FIELDS_TOO_LARGE "The head of the request is too large"
        "send fewer or shorter headers, or a shorter address";
    HEAD_TIMED_OUT "head-timed-out" REQUEST_TIMEOUT "The head of the request did not arrive in time"
        "send it again, all at once";
    RATE_LIMITED "rate-limited" TOO_MANY_REQUESTS "The caller takes more than his share"
        "wait as `Retry-After` says; a retry with the same Idempotency-Key is safe" 1;
    BODY_TIMED_OUT "body-timed-out" REQUEST_TIMEOUT "The body did not arrive in time"
        "send it again";
    UNAUTHENTICATED "unauthenticated" UNAUTHORIZED "The request names nobody"
        "send the header `Authorization: Bearer TOKEN`; `make up` puts the administrator's token into .dotmac/admin.token";
    TOKEN_IN_QUERY "token-in-query" UNAUTHORIZED "A token does not belong into an address"
        "send it in the header `Authorization: Bearer TOKEN`, and replace it: addresses end up in logs";
    TOKEN_ENDED "token-ended" UNAUTHORIZED "The token no longer counts"
        "ask an administrator for a new one: `dotmac tokens create`";
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
    LIMIT_REACHED "limit-reached" CONFLICT "There are as many as there can be"
        "remove some that nobody needs any more; waiting does not help";
    WRONG_STATE "wrong-state" CONFLICT "Its state does not allow this"
        "look at its status and what it waits for";
    NO_AGENT "no-agent" CONFLICT "No agent can take it"
        "start an agent in that region: `dotmac agents token --region REGION`";
    UNKNOWN_RELEASE "unknown-release" CONFLICT "There is no such release"
        "choose one of those that `errors` lists, or have it added: `dotmac releases add FILE`";
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
    STORAGE "storage" SERVICE_UNAVAILABLE "The storage of a controller refuses"
        "ask another controller; see this one's log" 5;
    REFUSED_BY_PEER "refused-by-peer" SERVICE_UNAVAILABLE "Another controller refuses"
        "see `dotmac cluster status` and try again" 1;
    ATTESTATIONS "attestations" SERVICE_UNAVAILABLE "Too few controllers vouch for the request"
        "try again with the same Idempotency-Key; `dotmac cluster status` shows who is away" 1;
    AGENT_DISCONNECTED "agent-disconnected" SERVICE_UNAVAILABLE "The agent is not connected"
        "try again when `dotmac agents list` shows it as connected" 2;
    BACKUP_TARGET "backup-target" SERVICE_UNAVAILABLE "The backup target cannot be used"
        "see whether it is there and takes the credentials; `dotmac backup status` shows the newest good backup" 5;
    INTERNAL "internal" INTERNAL_SERVER_ERROR "The controller made a mistake"
        "see its log under the x-request-id";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Kind;
    use crate::error_pages;

    #[test]
    fn every_kind_has_a_page_with_its_status_and_title_and_every_page_a_kind() {
        let kinds: BTreeSet<&str> = Kind::all().map(Kind::code).collect();
        assert_eq!(kinds, error_pages::codes().collect());
        for kind in Kind::all() {
            let page = error_pages::page(kind.code).expect("compared above");
            let example = page
                .split("```json\n")
                .nth(1)
                .and_then(|rest| rest.split("```").next());
            let example: serde_json::Value = serde_json::from_str(example.unwrap()).unwrap();
            assert_eq!(example["code"], kind.code);
            assert_eq!(example["status"], kind.status.as_u16(), "{}", kind.code);
            assert_eq!(example["title"], kind.title, "{}", kind.code);
        }
    }
}
