//! An instance's output: a live question to its agent. The answer is sealed to a key of the asker; this controller
//! passes it on and cannot read it. That it was asked is in the audit before anything is shown.

use std::fmt::Write as _;

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use dotmac_domain::{access::Permission, fleet::Presence};
use dotmac_protocol::{
    frame::{Answer, Question},
    ids::{AgentId, PartName, UnitId},
};
use futures::stream;
use serde_json::json;
use tokio::sync::mpsc;

use crate::api::{
    fields::Fields,
    problem::{AGENT_DISCONNECTED, Problem, WRONG_STATE},
    reading::{Named, Reading},
};

/// Lines of the past at most, and when the caller does not say.
const LINES: (u64, u32) = (10_000, 100);

/// `GET …/deployments/{id}/logs`
pub(super) async fn logs(
    mut reading: Reading,
    Named(id): Named<String>,
) -> Result<Response, Problem> {
    let (id, deployment) = reading.who.deployment(&reading.state, &id)?;
    let (tenant, agent) = (deployment.tenant.clone(), deployment.agent.clone());
    reading
        .who
        .require(&reading.state, Permission::DeploymentLogs, Some(&tenant))?;
    let question = question(&mut reading.query, UnitId::instance(&id));
    let query = std::mem::replace(&mut reading.query, Fields::of_query(None)?);
    let (question, detail) = query.finish_with(question)?;
    let Some(agent) = agent else {
        let detail = format!("no agent has {id} yet, so it has no output");
        return Err(Problem::new(&WRONG_STATE, detail));
    };
    if let Some(elsewhere) = elsewhere(&reading, &agent) {
        return Ok(elsewhere);
    }
    reading
        .note_access(
            "deployment.logs-read",
            Some(tenant),
            format!("{id}: {detail}"),
        )
        .await?;
    let asked = reading.node.registry.question(&agent, question).await;
    let answers = asked.map_err(|error| Problem::new(&AGENT_DISCONNECTED, error.to_string()))?;
    Ok(stream_of(answers))
}

/// The question and how the audit tells it.
fn question(query: &mut Fields, unit: UnitId) -> Option<(Question, String)> {
    let lines = query.number("lines", 0..=LINES.0).unwrap_or(LINES.1);
    let follow = query.flag("follow").unwrap_or(false);
    let component = query.parsed::<PartName>("component", "the name of a component");
    let key = "the 64 hexadecimal digits of an X25519 public key";
    let seal_to = query.required::<String>("seal_to", key).and_then(|text| {
        let mut bytes = [0; 32];
        let decoded = hex::decode_to_slice(&text, &mut bytes).ok();
        if decoded.is_none() {
            query.refuse("seal_to", &text, key);
        }
        decoded.map(|()| bytes)
    })?;
    let mut detail = format!("the last {lines} lines");
    if let Some(component) = &component {
        let _ = write!(detail, " of {component}");
    }
    if follow {
        detail.push_str(" and those that follow");
    }
    Some((
        Question::Logs {
            unit,
            component,
            lines,
            follow,
            seal_to,
        },
        detail,
    ))
}

/// Where to ask instead, if another controller has the agent's session.
fn elsewhere(reading: &Reading, agent: &AgentId) -> Option<Response> {
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
    let card = node
        .genesis
        .card(other)
        .filter(|_| other != node.card.node)?;
    let location = format!("http://{}{}", card.api_address, reading.address);
    let location = HeaderValue::try_from(location).ok()?;
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

/// One line a piece, as it comes; a slow reader slows the agent down.
fn stream_of(answers: mpsc::Receiver<Answer>) -> Response {
    let lines = stream::unfold(answers, |mut answers| async move {
        let answer = answers.recv().await?;
        Some((
            Ok::<_, std::convert::Infallible>(Bytes::from(line(&answer))),
            answers,
        ))
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
    use dotmac_protocol::frame::Answer;
    use dotmac_runtime::{
        entropy::Entropy,
        seal::{SealKey, seal},
    };
    use tokio::sync::mpsc;

    use super::stream_of;

    #[tokio::test]
    async fn answers_stay_sealed_and_come_one_a_line() {
        let entropy = Entropy::seeded(1);
        let key = SealKey::generate(&entropy);
        let sealed = seal(&key.public(), "dotmac/answer/v1", b"canary", &entropy).unwrap();
        let (tx, rx) = mpsc::channel(2);
        tx.send(Answer::Piece(sealed)).await.unwrap();
        tx.send(Answer::Refused {
            reason: "gone".into(),
        })
        .await
        .unwrap();
        drop(tx);
        let body = axum::body::to_bytes(stream_of(rx).into_body(), 10_000)
            .await
            .unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0]["to"].as_str().unwrap().starts_with("sha256:"));
        assert_eq!(lines[0]["encapsulated"].as_str().unwrap().len(), 64);
        assert_eq!(lines[1]["refused"], "gone");
        assert!(!text.contains("canary"));
    }
}
