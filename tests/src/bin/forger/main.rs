//! A controller that lies. It has one controller's key, data and, once it leads, its leadership; it tries everything
//! that these can buy, says on standard output what it tried, and runs on until its standard input ends. A tool of the
//! tests: no build of the product holds it.
//! Longer than 400 lines: each of its attempts is short, and it is one program that makes all of them.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use dotmac_controller::{
    app::{self, Ports},
    bootstrap,
    config::Config,
    node::{Node, bearer_digest},
    raft::RaftLog,
};
use dotmac_domain::{
    Command, Envelope, Reply,
    access::Role,
    command::{CreateDeployment, CreateToken},
    envelope::{ATTESTATION_DOMAIN, Actor, Attestation, Evidence, command_digest},
    state::RULES_VERSION,
    tenancy::tenant_id,
};
use dotmac_protocol::{
    ids::{AgentId, DeploymentId, RequestId},
    keys::Signature,
    time::Timestamp,
};
use dotmac_runtime::entropy::Entropy;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

/// How long it waits for what it cannot force: leadership, and an agent that connects.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long an election may take before it calls for the next one; also how often it looks for an agent.
const ELECTION: Duration = Duration::from_secs(1);
/// How long one lie may take to be committed.
const DEADLINE: Duration = Duration::from_secs(5);
/// The text of the access token that it makes for itself.
const FORGED_TOKEN: &str = "forged-platform-admin-0123456789";

/// What it has.
struct Forger {
    node: Arc<Node>,
    key: SigningKey,
    entropy: Entropy,
}

/// Whom the evidence of a lie is from.
enum Proof {
    None,
    /// Its own attestation, as often as there are controllers.
    OwnOnly,
    /// Its own, and others under the real keys' names, made with keys of its own.
    MadeUp,
}

mod waves;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let config = std::env::args()
        .nth(1)
        .context("usage: forger CONTROLLER.TOML")?;
    let config = Config::load(Path::new(&config))?;
    let key = bootstrap::load_keys(&config)?.signing;
    let ports = Ports::system();
    let entropy = ports.entropy.clone();
    let running = app::start(config, ports).await?;
    say(&json!({"started": running.node.card.node}))?;
    let forger = Forger {
        node: Arc::clone(&running.node),
        key,
        entropy,
    };
    let agent = forger.seize_power(&running.raft).await?;
    say(&json!({"leads": true, "agent": agent}))?;
    let tried = forger.lie(&agent).await?;
    say(&tried)?;
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        () = forger.seal_and_sign() => {}
        ended = ended => drop(ended??),
    }
    running.stop().await;
    Ok(())
}

impl Forger {
    /// Stands for election until it leads, which no honest controller would, and waits for an agent with a deployment.
    async fn seize_power(&self, raft: &RaftLog) -> Result<AgentId> {
        let power = async {
            let mut turns = tokio::time::interval(ELECTION);
            loop {
                let connected = self
                    .node
                    .registry
                    .heard()
                    .into_iter()
                    .map(|heard| heard.agent);
                let mut useful = connected.filter(|agent| self.victim(agent).is_some());
                if self.node.is_leader()
                    && let Some(agent) = useful.next()
                {
                    return Ok(agent);
                }
                turns.tick().await;
                if !self.node.is_leader() {
                    raft.raft().trigger().elect().await?;
                }
            }
        };
        tokio::time::timeout(PATIENCE, power)
            .await
            .context("it never led with an agent connected")?
    }

    /// A deployment of this agent.
    fn victim(&self, agent: &AgentId) -> Option<DeploymentId> {
        let state = self.node.state();
        let mut deployments = state.deployments.iter();
        let of_agent = deployments.find(|(_, one)| one.agent.as_ref() == Some(agent));
        of_agent.map(|(id, _)| id.clone())
    }

    async fn lie(&self, agent: &AgentId) -> Result<Value> {
        let state = self.node.state();
        let victim = self.victim(agent).context("the agent has no deployment")?;
        let region = state
            .deployments
            .get(&victim)
            .context("it is gone")?
            .region
            .to_string();
        let mut tried = Vec::new();
        for (what, proof) in [
            ("a deployment without evidence", Proof::None),
            ("a deployment with its own word only", Proof::OwnOnly),
            (
                "a deployment with made-up words of the others",
                Proof::MadeUp,
            ),
        ] {
            let create = create(what, &region, None)?;
            tried.push(self.propose(what, create, proof).await?);
        }
        let release = self.release(&victim)?;
        tried.push(
            self.propose("a release without evidence", release, Proof::None)
                .await?,
        );
        let what = "a deployment of the forged release";
        let create = create(what, &region, Some("forged:1.0.0"))?;
        tried.push(self.propose(what, create, Proof::OwnOnly).await?);
        let token = Command::CreateToken(CreateToken {
            id: "00000000000f0f0f".parse()?,
            secret_digest: bearer_digest(FORGED_TOKEN),
            name: "forged".into(),
            role: Role::PlatformAdmin,
            tenant: None,
            expires_at: None,
        });
        tried.push(
            self.propose("an admin's token without evidence", token, Proof::OwnOnly)
                .await?,
        );
        let delete = Command::DeleteDeployment {
            deployment: victim.clone(),
        };
        tried.push(
            self.propose("a deletion without evidence", delete, Proof::OwnOnly)
                .await?,
        );
        let direct = self.send_direct(agent, &victim).await?;
        Ok(json!({
            "tried": tried, "direct": direct, "victim": victim, "agent": agent, "token": FORGED_TOKEN,
        }))
    }

    /// A manifest like the victim's, under another name.
    fn release(&self, victim: &DeploymentId) -> Result<Command> {
        let state = self.node.state();
        let release = &state.deployments.get(victim).context("it is gone")?.release;
        let manifest = &state
            .releases
            .get(release)
            .context("it has no release")?
            .manifest;
        let mut manifest: Value = serde_json::from_slice(manifest)?;
        manifest["name"] = "forged".into();
        manifest["version"] = "1.0.0".into();
        manifest["channel"] = "forged".into();
        let manifest = dotmac_protocol::release::Manifest::parse(manifest.to_string().as_bytes())?;
        Ok(Command::AddRelease {
            manifest: manifest.canonical(),
        })
    }

    /// Puts a lie into the log, in the name of the operator.
    async fn propose(&self, what: &str, command: Command, proof: Proof) -> Result<Value> {
        let request: RequestId = self.entropy.hex(16).parse()?;
        let state = self.node.state();
        let genesis = state
            .genesis
            .as_ref()
            .context("the cluster is not founded")?;
        let actor = Actor::Person(genesis.admin.id.clone());
        let at = self.node.clock.now();
        let made = match &command {
            Command::CreateDeployment(create) => Some(tenant_id(&create.tenant_name, &request)),
            _ => None,
        };
        let evidence = self.evidence(&proof, &request, &command, &actor, at)?;
        let envelope = Envelope {
            at,
            rules: RULES_VERSION,
            request,
            asked: command_digest(&command),
            actor,
            evidence,
            hops: Vec::new(),
            trace: None,
            command,
            expected: None,
        };
        let reply: Reply = self.node.log.propose(envelope, DEADLINE).await?;
        Ok(
            json!({"what": what, "reply": format!("{reply:?}"), "accepted": reply.is_ok(), "deployment": made}),
        )
    }

    fn evidence(
        &self,
        proof: &Proof,
        request: &RequestId,
        command: &Command,
        actor: &Actor,
        at: Timestamp,
    ) -> Result<Evidence> {
        let expires_at = at.plus_millis(30_000);
        let attestation = Attestation {
            request: request.clone(),
            command: command_digest(command),
            actor: actor.clone(),
            expires_at,
        };
        let signatures = match proof {
            Proof::None => return Ok(Evidence::None),
            Proof::OwnOnly => vec![self.sign(ATTESTATION_DOMAIN, &attestation.bytes()); 3],
            Proof::MadeUp => self.sign_for_all(ATTESTATION_DOMAIN, &attestation.bytes())?,
        };
        Ok(Evidence::Attested {
            expires_at,
            signatures,
        })
    }

    fn sign(&self, domain: &str, bytes: &[u8]) -> Signature {
        Signature::make(&self.key, domain, bytes)
    }

    /// Its own signature, and one under the name of every other controller.
    fn sign_for_all(&self, domain: &str, bytes: &[u8]) -> Result<Vec<Signature>> {
        let state = self.node.state();
        let trust = state.trust.as_ref().context("there is no trust root")?;
        let own = self.sign(domain, bytes);
        let names = trust
            .controller
            .keys
            .iter()
            .map(dotmac_protocol::keys::PublicKey::id);
        let signatures = names.map(|name| {
            if name == own.key {
                return own.clone();
            }
            let other = Signature::make(&self.entropy.signing_key(), domain, bytes);
            Signature { key: name, ..other }
        });
        Ok(signatures.collect())
    }
}

fn create(name: &str, region: &str, image_tag: Option<&str>) -> Result<Command> {
    Ok(Command::CreateDeployment(Box::new(CreateDeployment {
        tenant_name: name.into(),
        tenant: None,
        environment: "production".into(),
        region: Some(region.parse()?),
        domain_name: None,
        resource_tier: "small".into(),
        resources: None,
        license_tier: "basic".into(),
        image_tag: image_tag.map(str::to_owned),
        cluster_name: None,
        max_customers: 1_000,
        max_services: 500,
        api_rate_limit: 1_000,
        features: std::collections::BTreeMap::new(),
        custom_config: "{}".into(),
        credentials: Vec::new(),
        sealed_for: None,
        reseller: None,
    })))
}

/// Writes a line at once.
fn say(line: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
