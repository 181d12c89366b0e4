//! What every change has in common: who asks, a body of bounded size that arrives in bounded time, and the request id
//! under which a retry gets the first answer.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts as _, Request},
    http::{HeaderMap, header, request::Parts},
};
use bytes::{Bytes, BytesMut};
use dotmac_domain::{Accepted, Command, State};
use dotmac_protocol::{
    digest::Digest,
    ids::{RequestId, TokenId},
    time::Timestamp,
};
use dotmac_runtime::entropy::Entropy;
use futures::StreamExt as _;

use super::{
    fields::Fields,
    principal::Principal,
    problem::{
        BODY_TIMED_OUT, MALFORMED, PRECONDITION_FAILED, Problem, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE,
    },
    reading::READ_DEADLINE,
    strict_json,
    tracking::Tag,
};
use crate::node::{Ask, Node};

/// Bytes of a body at most.
pub(super) const BODY_MAX: usize = 256 * 1024;
/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
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
    if_match: Option<String>,
}

impl FromRequest<Arc<Node>> for Change {
    type Rejection = Problem;

    async fn from_request(request: Request, node: &Arc<Node>) -> Result<Self, Problem> {
        let received_at = node.clock.now();
        let (mut parts, body) = request.into_parts();
        let who = Principal::from_request_parts(&mut parts, node).await?;
        Fields::of_query(parts.uri.query())?.finish()?;
        let key = idempotency_key(&parts.headers)?;
        let body = read_body(&parts.headers, body).await?;
        let request = request_id(key, &who.caller.token, &node.entropy);
        Tag::of(&parts).set(request.clone());
        let if_match = parts.headers.get(header::IF_MATCH);
        let if_match = if_match.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let state = node.read(READ_DEADLINE).await?;
        let asked = asked(&parts, &body);
        Ok(Self {
            node: Arc::clone(node),
            who,
            state,
            body,
            request,
            asked,
            received_at,
            if_match,
        })
    }
}

impl Change {
    /// The members of the body.
    pub(super) fn fields(&self) -> Result<Fields, Problem> {
        Fields::of_body(strict_json::parse(&self.body)?)
    }

    /// That nothing is asked for besides what the path says.
    pub(super) fn expect_no_fields(&self) -> Result<(), Problem> {
        if self.body.is_empty() {
            Ok(())
        } else {
            self.fields()?.finish()
        }
    }

    /// That the caller has seen this version of what he changes, if he says which one he saw. A retry was checked
    /// the first time.
    pub(super) fn expect_version(&self, version: &str) -> Result<(), Problem> {
        let Some(wanted) = &self.if_match else {
            return Ok(());
        };
        let is_retry = self.state.answers.contains_key(&self.request);
        let is_same = wanted
            .split(',')
            .any(|one| matches!(one.trim(), "*") || one.trim() == version);
        if is_same || is_retry {
            return Ok(());
        }
        let wanted: String = wanted.chars().take(80).collect();
        let detail = format!("the version is {version}, If-Match wants {wanted}");
        Err(Problem::new(&PRECONDITION_FAILED, detail))
    }

    /// When the request arrived.
    pub(super) fn received_at(&self) -> Timestamp {
        self.received_at
    }

    /// Proves and proposes the command that the request becomes.
    pub(super) async fn ask(&self, command: Command) -> Result<Accepted, Problem> {
        let ask = Ask {
            request: self.request.clone(),
            asked: self.asked,
            received_at: self.received_at,
            command,
        };
        Ok(self
            .node
            .ask(&self.who.caller, ask, CHANGE_DEADLINE)
            .await??)
    }

    /// The State with the change in it; if that cannot be had in time, what this controller knows.
    pub(super) async fn state_after(&self) -> Arc<State> {
        match self.node.read(READ_DEADLINE).await {
            Ok(state) => state,
            Err(_) => self.node.state(),
        }
    }
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

async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(&TOO_LARGE, format!("a body has at most {BODY_MAX} bytes"));
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let length: Option<usize> = length.and_then(|text| text.parse().ok());
    if length.is_some_and(|length| length > BODY_MAX) {
        return Err(too_large());
    }
    let mut stream = body.into_data_stream();
    let collect = async {
        let mut whole = BytesMut::new();
        while let Some(piece) = stream.next().await {
            let broken = |_| Problem::new(&MALFORMED, "the body broke off");
            let piece = piece.map_err(broken)?;
            if whole.len() + piece.len() > BODY_MAX {
                return Err(too_large());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    };
    let late = |_| {
        let seconds = BODY_DEADLINE.as_secs();
        Problem::new(
            &BODY_TIMED_OUT,
            format!("the body took more than {seconds} s"),
        )
    };
    let whole = tokio::time::timeout(BODY_DEADLINE, collect)
        .await
        .map_err(late)??;
    if !whole.is_empty() && !is_json(headers) {
        return Err(Problem::new(
            &UNSUPPORTED_MEDIA_TYPE,
            "the body is not said to be JSON",
        ));
    }
    Ok(whole)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|text| text.split(';').next()).map(str::trim);
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};
    use dotmac_runtime::entropy::Entropy;

    use super::{idempotency_key, request_id};

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
