//! Live questions to agents. The answer is sealed to a key of the asker: this controller passes it on, cannot read it,
//! and keeps nothing of it. Whoever has no session with the agent sends the asker to the controller that has.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use dotmac_domain::fleet::Presence;
use dotmac_protocol::{
    frame::{Answer, Question},
    ids::AgentId,
};
use futures::stream;
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    fields::Fields,
    problem::{AGENT_DISCONNECTED, Problem, WRONG_STATE},
    reading::Reading,
};

/// What `seal_to` may be.
const KEY: &str = "the 64 hexadecimal digits of an X25519 public key";
/// How long an agent may take to begin an answer that is awaited.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// `seal_to`: the key that the answer is sealed to.
pub(super) fn seal_key(query: &mut Fields) -> Option<[u8; 32]> {
    let text = query.required::<String>("seal_to", KEY)?;
    let mut bytes = [0; 32];
    let decoded = hex::decode_to_slice(&text, &mut bytes).ok();
    if decoded.is_none() {
        query.refuse("seal_to", &text, KEY);
    }
    decoded.map(|()| bytes)
}

/// Where to ask instead, if another controller has the agent's session.
pub(super) fn elsewhere(reading: &Reading, agent: &AgentId) -> Option<Response> {
    let node = &reading.node;
    if node
        .registry
        .heard()
        .iter()
        .any(|heard| heard.agent == *agent)
    {
        return None;
    }
    let Presence::Connected { node: other, .. } = reading.state.agents.get(agent)?.presence else {
        return None;
    };
    let known = reading.state.controllers.get(&other);
    let card = &known.filter(|_| other != node.card.node)?.card;
    // A card says so itself where TLS is spoken.
    let scheme = if card.api_address.contains("://") {
        ""
    } else {
        "http://"
    };
    let location = format!("{scheme}{}{}", card.api_address, reading.address);
    let location = HeaderValue::try_from(location).ok()?;
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

/// Puts the question; the answer begins when the agent does. Only after the note of it is committed.
pub(super) async fn ask(
    reading: &Reading,
    agent: &AgentId,
    question: Question,
) -> Result<mpsc::Receiver<Answer>, Problem> {
    let asked = reading.node.registry.question(agent, question).await;
    asked.map_err(|error| Problem::new(&AGENT_DISCONNECTED, error.to_string()))
}

/// The first piece of an answer that begins at once; what the agent refuses is a problem.
pub(super) async fn first(
    agent: &AgentId,
    answers: &mut mpsc::Receiver<Answer>,
) -> Result<Answer, Problem> {
    match tokio::time::timeout(ANSWER_DEADLINE, answers.recv()).await {
        Ok(Some(Answer::Refused { reason })) => Err(Problem::new(&WRONG_STATE, reason)),
        Ok(Some(piece)) => Ok(piece),
        Ok(None) | Err(_) => {
            let detail = format!("agent {agent} gave no answer");
            Err(Problem::new(&AGENT_DISCONNECTED, detail))
        }
    }
}

/// One line a piece, as it comes; a slow reader slows the agent down. When the asker's token ends (`ended` says why), so
/// does the answer.
pub(super) fn stream_of(
    first: Option<Answer>,
    answers: mpsc::Receiver<Answer>,
    ended: impl Future<Output = String> + Send + 'static,
) -> Response {
    let begin = (first, answers, Some(Box::pin(ended)));
    let lines = stream::unfold(begin, |(first, mut answers, ended)| async move {
        let mut ended = ended?;
        let next = async {
            match first {
                Some(answer) => Some(answer),
                None => answers.recv().await,
            }
        };
        let (answer, ended) = tokio::select! {
            biased;
            reason = &mut ended => (Answer::Refused { reason }, None),
            answer = next => (answer?, Some(ended)),
        };
        let line = Bytes::from(line(&answer));
        Some((Ok::<_, Infallible>(line), (None, answers, ended)))
    });
    let mut response = Body::from_stream(lines).into_response();
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn line(answer: &Answer) -> String {
    let value = match answer {
        Answer::Piece(sealed) => json!({
            "to": sealed.to.to_string(),
            "encapsulated": hex::encode(sealed.encapsulated),
            "ciphertext": hex::encode(&sealed.ciphertext),
        }),
        Answer::Refused { reason } => json!({ "refused": reason }),
    };
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use dotmac_protocol::frame::Answer;
    use dotmac_runtime::{
        entropy::Entropy,
        seal::{SealKey, seal},
    };
    use tokio::sync::mpsc;

    use super::{first, stream_of};

    #[tokio::test]
    async fn answers_stay_sealed_and_come_one_a_line() {
        let entropy = Entropy::seeded(1);
        let key = SealKey::generate(&entropy);
        let sealed = seal(&key.public(), "dotmac/answer/v1", b"canary", &entropy).unwrap();
        let (tx, mut rx) = mpsc::channel(3);
        for _ in 0..2 {
            tx.send(Answer::Piece(sealed.clone())).await.unwrap();
        }
        let reason = "gone".to_owned();
        tx.send(Answer::Refused { reason }).await.unwrap();
        drop(tx);
        let agent = "agent-1".parse().unwrap();
        let begin = first(&agent, &mut rx).await.unwrap();
        let body = stream_of(Some(begin), rx, pending()).into_body();
        let body = axum::body::to_bytes(body, 10_000).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        for line in &lines[..2] {
            assert!(line["to"].as_str().unwrap().starts_with("sha256:"));
            assert_eq!(line["encapsulated"].as_str().unwrap().len(), 64);
        }
        assert_eq!(lines[2]["refused"], "gone");
        assert!(!text.contains("canary"));
    }

    #[tokio::test]
    async fn an_answer_ends_when_its_askers_token_does_and_says_why() {
        let (_tx, rx) = mpsc::channel(1);
        let (end, ended) = tokio::sync::oneshot::channel();
        let ended = async move { ended.await.unwrap() };
        let body = stream_of(None, rx, ended).into_body();
        end.send("the token was revoked".to_owned()).unwrap();
        // The agent would go on for ever.
        let body = axum::body::to_bytes(body, 10_000).await.unwrap();
        assert_eq!(body, "{\"refused\":\"the token was revoked\"}\n");
    }

    #[tokio::test]
    async fn a_refusal_or_no_answer_at_the_begin_is_a_problem() {
        let agent = "agent-1".parse().unwrap();
        let (tx, mut rx) = mpsc::channel(1);
        let reason = "not started".to_owned();
        tx.send(Answer::Refused { reason }).await.unwrap();
        drop(tx);
        let refused = first(&agent, &mut rx).await.unwrap_err();
        assert!(format!("{refused:?}").contains("not started"));
        let silent = first(&agent, &mut rx).await.unwrap_err();
        assert!(format!("{silent:?}").contains("agent agent-1 gave no answer"));
    }
}
