//! What every change has in common: who asks, a body of bounded size that arrives in bounded time, and the request id
//! under which a retry gets the first answer.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRequest, FromRequestParts as _, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::Response,
};
use bytes::Bytes;
use dotmac_domain::{Accepted, Command, State};
use dotmac_protocol::{
    digest::Digest,
    ids::{RequestId, TokenId},
    time::Timestamp,
};
use dotmac_runtime::entropy::Entropy;
use serde_json::{Value, json};

use super::{
    answer::answer,
    body,
    fields::Fields,
    principal::Principal,
    problem::{Problem, TIMED_OUT},
    reading::READ_DEADLINE,
    strict_json,
    tracking::{Tag, Trace},
};
use crate::node::{Ask, Node};

mod plan;

/// How long a change may take to be committed and applied.
const CHANGE_DEADLINE: Duration = Duration::from_secs(3);
/// Characters of an idempotency key at most.
const KEY_MAX: usize = 128;

/// A change that may be asked for.
pub(super) struct Change {
    /// This controller.
    pub(super) node: Arc<Node>,
    /// Who asks.
    pub(super) who: Principal,
    /// The State before, with everything that was committed when the request came.
    pub(super) state: Arc<State>,
    /// The body, as it came.
    pub(super) body: Bytes,
    request: RequestId,
    asked: Digest,
    received_at: Timestamp,
    expected: Option<u64>,
    is_dry_run: bool,
    tag: Tag,
}

/// What a change is about, as its answer shows it.
pub(super) struct Entity {
    /// The JSON that a read of it would show.
    pub(super) body: Value,
    /// Its revision: the answer's `ETag`.
    pub(super) revision: Option<u64>,
    /// Where it is, if it was made by this change.
    pub(super) location: Option<String>,
}

impl FromRequest<Arc<Node>> for Change {
    type Rejection = Problem;

    async fn from_request(request: Request, node: &Arc<Node>) -> Result<Self, Problem> {
        let received_at = node.clock.now();
        let (mut parts, body) = request.into_parts();
        let who = Principal::from_request_parts(&mut parts, node).await?;
        let is_dry_run = is_dry_run(parts.uri.query())?;
        let expected = expected_revision(&parts.headers)?;
        let key = idempotency_key(&parts.headers)?;
        let body = body::read(&parts.headers, body).await?;
        let request = request_id(key, &who.caller.token, &node.entropy);
        let tag = Tag::of(&parts);
        tag.set(request.clone());
        let state = node.read(READ_DEADLINE).await?;
        who.still_valid(&state, node.clock.now())?;
        let asked = asked(&parts, &body);
        Ok(Self {
            node: Arc::clone(node),
            who,
            state,
            body,
            request,
            asked,
            received_at,
            expected,
            is_dry_run,
            tag,
        })
    }
}

impl Change {
    /// The members of the body.
    pub(super) fn fields(&self) -> Result<Fields, Problem> {
        Fields::of_body(strict_json::parse(&self.body)?)
    }

    /// The members of a body that may be left out.
    pub(super) fn fields_or_none(&self) -> Result<Fields, Problem> {
        if self.body.is_empty() {
            return Fields::of_body(json!({}));
        }
        self.fields()
    }

    /// That nothing is asked for besides what the path says.
    pub(super) fn expect_no_fields(&self) -> Result<(), Problem> {
        if self.body.is_empty() {
            Ok(())
        } else {
            self.fields()?.finish()
        }
    }

    /// When the request arrived.
    pub(super) fn received_at(&self) -> Timestamp {
        self.received_at
    }

    /// Carries the command out and answers with what it is about, as `view` shows it in a State; with `dry_run` it only
    /// says what would be different. Before the change there is no reply yet, so a new thing's view is absent then.
    pub(super) async fn carry_out(
        &self,
        command: Command,
        status: StatusCode,
        view: impl Fn(&State, Option<&Accepted>) -> Option<Entity>,
    ) -> Result<Response, Problem> {
        if self.is_dry_run {
            return self.rehearse(command, view);
        }
        let accepted = self.ask(command).await?;
        let state = self.state_after().await;
        let entity = view(&state, Some(&accepted)).ok_or_else(|| {
            let detail = "the change is accepted and not seen here yet";
            Problem::new(&TIMED_OUT, detail)
        })?;
        Ok(entity.answer(status))
    }

    /// Says what a command would do now.
    fn rehearse(
        &self,
        command: Command,
        view: impl Fn(&State, Option<&Accepted>) -> Option<Entity>,
    ) -> Result<Response, Problem> {
        let before = view(&self.state, None);
        let envelope = self
            .node
            .envelope(&self.who.caller, self.request_for(command));
        let (state, accepted) = self.state.preview(&envelope)?;
        self.tag.leave(Trace::DryRun);
        let after = view(&state, Some(&accepted));
        // What was done under this key already would not be done again.
        let before = before.or_else(|| view(&self.state, Some(&accepted)));
        let body = |entity: &Option<Entity>| entity.as_ref().map(|entity| entity.body.clone());
        let (before_body, after_body) = (body(&before), body(&after));
        let changes = plan::differences(before_body.as_ref(), after_body.as_ref());
        let answer = json!({"dry_run": true, "changes": changes, "result": after_body});
        // The version that the plan is about: send it as If-Match, and what was shown is what happens.
        let entity = Entity {
            body: answer,
            revision: before.and_then(|entity| entity.revision),
            location: None,
        };
        Ok(entity.answer(StatusCode::OK))
    }

    /// Proves and proposes the command that the request becomes.
    async fn ask(&self, command: Command) -> Result<Accepted, Problem> {
        let ask = self.request_for(command);
        let accepted = self
            .node
            .ask(&self.who.caller, ask, CHANGE_DEADLINE)
            .await??;
        self.tag.leave(Trace::Command);
        Ok(accepted)
    }

    fn request_for(&self, command: Command) -> Ask {
        Ask {
            request: self.request.clone(),
            asked: self.asked,
            received_at: self.received_at,
            expected: self.expected,
            trace: self.tag.context(),
            command,
        }
    }

    /// The State with the change in it; if that cannot be had in time, what this controller knows. The change is
    /// committed, so nobody has to be asked: its answer arrives here with it.
    async fn state_after(&self) -> Arc<State> {
        let mut applied = self.node.log.applied();
        let arrives = async {
            while !self.node.state().answers.contains_key(&self.request) {
                if applied.changed().await.is_err() {
                    return;
                }
            }
        };
        // Too late is told by the view, which does not find the change.
        let _ = tokio::time::timeout(READ_DEADLINE, arrives).await;
        self.node.state()
    }
}

impl Entity {
    /// The entity as an answer.
    pub(super) fn answer(self, status: StatusCode) -> Response {
        let mut response = answer(status, self.body);
        let headers = response.headers_mut();
        if let Some(revision) = self.revision {
            let tag =
                HeaderValue::try_from(entity_tag(revision)).expect("digits are a header value");
            headers.insert(header::ETAG, tag);
        }
        let location = self.location.map(HeaderValue::try_from);
        if let Some(Ok(location)) = location {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}

/// The entity tag of a revision.
pub(super) fn entity_tag(revision: u64) -> String {
    format!("\"r{revision}\"")
}

/// Whether only the plan is asked for.
fn is_dry_run(query: Option<&str>) -> Result<bool, Problem> {
    let mut query = Fields::of_query(query)?;
    let is_dry_run = query.flag("dry_run").unwrap_or(false);
    query.finish()?;
    Ok(is_dry_run)
}

/// The revision that the caller saw, by `If-Match`: one entity tag as reads give it, or `*` for any.
fn expected_revision(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    let tag = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|tag| {
            tag.bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'"')
        });
    match (text, tag) {
        _ if values.next().is_some() => {}
        ("*", _) => return Ok(None),
        // A tag that no read ever gave is that of no version.
        (_, Some(tag)) => return Ok(Some(revision_of(tag).unwrap_or(u64::MAX))),
        _ => {}
    }
    let mut wrong = Fields::of_query(None)?;
    let found = String::from_utf8_lossy(value.as_bytes());
    wrong.refuse("If-Match", &found, "once, one ETag such as \"r3\", or *");
    wrong.finish().map(|()| None)
}

fn revision_of(tag: &str) -> Option<u64> {
    let digits = tag.strip_prefix('r')?;
    let is_plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    is_plain.then(|| digits.parse().ok()).flatten()
}

/// Whatever tells a retry from a mix-up.
fn asked(parts: &Parts, body: &[u8]) -> Digest {
    let text = [parts.method.as_str(), parts.uri.path()].map(str::as_bytes);
    Digest::tagged("dotmac/asked/v1", &[text[0], text[1], body].join(&0))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let is_printable = |text: &&str| text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    let key = value.to_str().ok().filter(is_printable);
    match key {
        Some(key) if (1..=KEY_MAX).contains(&key.len()) && values.next().is_none() => Ok(Some(key)),
        _ => {
            let mut wrong = Fields::of_query(None)?;
            let allowed = format!("once, 1 to {KEY_MAX} printable ASCII characters");
            wrong.refuse(
                "Idempotency-Key",
                &String::from_utf8_lossy(value.as_bytes()),
                allowed,
            );
            wrong.finish().map(|()| None)
        }
    }
}

/// What the request is called: the same for each retry with the same key and token, otherwise new.
fn request_id(key: Option<&str>, token: &TokenId, entropy: &Entropy) -> RequestId {
    let name = match key {
        Some(key) => {
            let whole = [token.as_str().as_bytes(), key.as_bytes()].join(&0);
            Digest::tagged("dotmac/idempotency", &whole).hex()[..32].to_owned()
        }
        None => entropy.hex(16),
    };
    name.parse()
        .expect("32 hexadecimal digits are a request id")
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};
    use dotmac_runtime::entropy::Entropy;

    use super::{entity_tag, expected_revision, idempotency_key, request_id};

    #[test]
    fn if_match_is_one_tag_as_reads_give_it() {
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, HeaderValue::from_str(value).unwrap());
            expected_revision(&headers).ok()
        };
        assert_eq!(check(&entity_tag(7)), Some(Some(7)));
        assert_eq!(check("*"), Some(None));
        for unknown in ["\"7\"", "\"r+7\"", "\"r\"", "\"\""] {
            assert_eq!(check(unknown), Some(Some(u64::MAX)), "{unknown}");
        }
        for wrong in ["", "r7", "W/\"r7\"", "\"r7\", \"r8\""] {
            assert_eq!(check(wrong), None, "{wrong}");
        }
        assert_eq!(expected_revision(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_request_is_called_the_same_for_the_same_key_and_token_only() {
        let entropy = Entropy::seeded(1);
        let token = "0123456789abcdef".parse().unwrap();
        let other = "fedcba9876543210".parse().unwrap();
        let first = request_id(Some("key"), &token, &entropy);
        assert_eq!(first, request_id(Some("key"), &token, &entropy));
        assert_ne!(first, request_id(Some("key2"), &token, &entropy));
        assert_ne!(first, request_id(Some("key"), &other, &entropy));
        assert_ne!(
            request_id(None, &token, &entropy),
            request_id(None, &token, &entropy)
        );
    }

    #[test]
    fn a_key_is_1_to_128_printable_characters() {
        let check = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", HeaderValue::from_bytes(value).unwrap());
            idempotency_key(&headers).is_ok()
        };
        assert!(check(b"a") && check(&[b'x'; 128]));
        assert!(!check(b"") && !check(&[b'x'; 129]) && !check("é".as_bytes()) && !check(b"a\tb"));
    }
}
