//! `dotmac audit verify`: proves every chain that each controller serves, and in a local fleet the agents' own files,
//! and that both tell the same. It names the first bad record of each chain that does not hold.

use std::collections::BTreeMap;

use dotmac_domain::audit::Stream;
use dotmac_protocol::{
    ids::{AgentId, IncarnationId},
    keys::PublicKey,
    record::ChainHead,
};
use serde::Deserialize;
use serde_json::json;

use super::{
    PATH, chain,
    stream::{self, Digest32, ServedLink},
};
use crate::{
    cli::{
        client::{Client, encode},
        failure::Failure,
        find::Context,
    },
    local::member::Member,
};

/// Streams proven at most.
const STREAMS_MAX: usize = 100_000;
/// Links asked for at once.
const LINKS_EACH: usize = 500;

/// A stream as a controller names its end.
#[derive(Debug, Clone, Deserialize)]
struct ServedStream {
    stream: String,
    sequence: u64,
    digest: Digest32,
    key: Option<String>,
    /// The last link that was dropped; older controllers drop none.
    #[serde(default)]
    dropped: u64,
    dropped_digest: Option<Digest32>,
}

/// What was proven and what was not.
#[derive(Debug, Default)]
struct Findings {
    proven: Vec<String>,
    records: u64,
    bad: Vec<String>,
    /// Agents' keys, by agent and life.
    keys: BTreeMap<(AgentId, IncarnationId), PublicKey>,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let mut findings = Findings::default();
    let mut unreachable = Vec::new();
    let servers = context.client()?.servers().to_vec();
    for server in &servers {
        let client = context.client_of(server)?;
        match controller(&client, server, &mut findings).await {
            Err(Failure::Unreachable { .. }) => unreachable.push(server.clone()),
            other => other?,
        }
    }
    if unreachable.len() == servers.len() {
        return Err(Failure::Failed(format!(
            "no controller answers: {}",
            unreachable.join(", ")
        )));
    }
    if let Some(layout) = context.home() {
        for member in Member::all(&layout)
            .iter()
            .filter(|member| !member.is_controller())
        {
            agent_files(member, &mut findings);
        }
    }
    report(context, &findings, &unreachable)
}

/// Proves all that one controller serves, from its own disk.
async fn controller(client: &Client, server: &str, findings: &mut Findings) -> Result<(), Failure> {
    let streams = client
        .list_after(&format!("{PATH}/streams"), "after", STREAMS_MAX)
        .await?;
    for served in streams {
        let served: ServedStream = serde_json::from_value(served).map_err(Failure::answer)?;
        match served_stream(client, &served, findings).await? {
            Ok(head) => {
                findings.records += head.sequence.saturating_sub(served.dropped);
                findings
                    .proven
                    .push(format!("{} {} at {server}", served.stream, head.sequence));
            }
            Err(bad) => findings
                .bad
                .push(format!("{} at {server}: {bad}", served.stream)),
        }
    }
    Ok(())
}

async fn served_stream(
    client: &Client,
    served: &ServedStream,
    findings: &mut Findings,
) -> Result<Result<ChainHead, String>, Failure> {
    let key = match served.key.as_deref().map(stream::public_key).transpose() {
        Ok(key) => key,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let Ok(name) = served.stream.parse::<Stream>() else {
        return Ok(Err("this program does not know such a stream".to_owned()));
    };
    // What was dropped for its age is proven by nobody; the State keeps its end, and the rest follows from that.
    let mut head = ChainHead {
        sequence: served.dropped,
        digest: served
            .dropped_digest
            .as_ref()
            .map_or(ChainHead::START.digest, |one| one.0),
    };
    while head.sequence < served.sequence {
        let path = format!(
            "{PATH}/records?stream={}&after={}&limit={LINKS_EACH}",
            encode(&served.stream),
            head.sequence
        );
        let page: serde_json::Value = client.get(&path).await?;
        let links: Vec<ServedLink> =
            serde_json::from_value(page["items"].clone()).map_err(Failure::answer)?;
        if links.is_empty() {
            return Ok(Err(format!("record {} is missing", head.sequence + 1)));
        }
        for link in links
            .iter()
            .take_while(|link| link.sequence <= served.sequence)
        {
            match stream::check(&name, link, key.as_ref(), head) {
                Ok(after) => head = after,
                Err(wrong) => {
                    return Ok(Err(format!("record {} is bad: {wrong}", head.sequence + 1)));
                }
            }
        }
    }
    if head.digest != served.digest.0 {
        return Ok(Err(format!(
            "record {} is not the one that the state names",
            head.sequence
        )));
    }
    if let (Some(key), Stream::Agent(agent, life)) = (key, name) {
        findings.keys.insert((agent, life), key);
    }
    Ok(Ok(head))
}

fn agent_files(member: &Member, findings: &mut Findings) {
    let directory = member.data().join("chain");
    if !directory.is_dir() {
        return;
    }
    let keys = &findings.keys;
    let key_of =
        |agent: &AgentId, life: &IncarnationId| keys.get(&(agent.clone(), life.clone())).copied();
    match chain::prove(&directory, key_of) {
        Ok(proven) => {
            let records = (proven.head.sequence + 1).saturating_sub(proven.first.max(1));
            findings.records += records;
            findings.proven.push(format!(
                "{} {records} in {}",
                member.name,
                directory.display()
            ));
        }
        Err(bad) => findings.bad.push(bad),
    }
}

fn report(context: &Context, findings: &Findings, unreachable: &[String]) -> Result<(), Failure> {
    if context.output.is_data() {
        context.output.data(&json!({
            "proven": findings.proven, "records": findings.records, "bad": findings.bad, "unreachable": unreachable,
        }))?;
    } else {
        for server in unreachable {
            context.output.note(&format!(
                "{server} does not answer: what it holds was not looked at"
            ));
        }
        let (chains, records) = (findings.proven.len(), findings.records);
        context
            .output
            .line(&format!("{chains} chains with {records} records hold"))?;
    }
    match findings.bad.as_slice() {
        [] => Ok(()),
        bad => Err(Failure::Failed(format!(
            "{} chains do not hold:\n  {}",
            bad.len(),
            bad.join("\n  ")
        ))),
    }
}
