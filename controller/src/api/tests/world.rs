//! One controller with a log in memory that applies to a real State: what the API's tests ask.

use std::{sync::Arc, time::Duration};

use dotmac_domain::{
    Command,
    access::Role,
    command::{CreateJoinToken, CreateToken, EnrolAgent},
    envelope::Actor,
    fleet::{Presence, agent_name},
};
use dotmac_protocol::{
    digest::Digest,
    frame::JoinToken,
    ids::{AgentId, TenantId},
    keys::PublicKey,
    time::Timestamp,
};
use dotmac_runtime::{
    clock::{Clock, ManualClock},
    entropy::Entropy,
    seal::SealKey,
    supervise,
};
use ed25519_dalek::SigningKey;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::{
    api::Serving,
    log::Log,
    node::{Ask, Node, NodeParts, bearer_digest},
};

mod cluster;
mod genesis;
mod memory_log;
mod reports;

pub(super) use cluster::{card, next_trust_root, signed};
use genesis::genesis;
use memory_log::MemoryLog;
pub(super) use memory_log::Peers;

/// The administrator's token.
pub(super) const ADMIN: &str = "dotmac-admin-token";
/// A region with an agent.
pub(super) const REGION: &str = "do-fra1";
/// A region without one.
pub(super) const EMPTY_REGION: &str = "byov-lagos";
/// The manifest of the release that there is.
pub(super) const MANIFEST_TEXT: &str = include_str!("../../../../tests/releases/demo-isp.json");
const DAY_MS: u64 = 24 * 3_600_000;

/// The controller, its API and who else there is.
pub(super) struct World {
    pub(super) log: Arc<MemoryLog>,
    pub(super) node: Arc<Node>,
    pub(super) clock: ManualClock,
    /// What the agent of [`REGION`] opens credentials with.
    pub(super) seal_key: SealKey,
    pub(super) agent: AgentId,
    pub(super) address: String,
    http: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
    feed: tokio::task::JoinHandle<()>,
}

/// What the API answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Status, code and the fields that are wrong, of a problem.
    pub(super) fn problem(&self) -> (u16, String, Vec<String>) {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{}",
            self.text
        );
        let body = self.json();
        assert_eq!(body["status"], self.status);
        assert!(!body["next"].as_str().unwrap().is_empty() && body["type"].is_string());
        let fields = body["errors"].as_array().unwrap().iter();
        let fields = fields
            .map(|error| error["field"].as_str().unwrap().to_owned())
            .collect();
        (
            self.status,
            body["code"].as_str().unwrap().to_owned(),
            fields,
        )
    }
}

impl World {
    /// A founded cluster with a release and one agent.
    pub(super) async fn new() -> Self {
        Self::serving(Serving::default()).await
    }

    /// The same, served in some way.
    pub(super) async fn serving(serving: Serving) -> Self {
        let (clock, hand) = Clock::manual(Timestamp(1_700_000_000_000));
        let entropy = Entropy::seeded(1);
        let key = SigningKey::from_bytes(&[1; 32]);
        let genesis = Arc::new(genesis(&key));
        let log = Arc::new(MemoryLog::new());
        let parts = NodeParts {
            card: genesis.nodes[0].clone(),
            genesis: Arc::clone(&genesis),
            founding_rules: dotmac_domain::rules::RULES_VERSION,
            clock,
            entropy: entropy.clone(),
            log: Arc::clone(&log) as Arc<dyn Log>,
            signing_key: key,
            traces: crate::traces::Traces::default(),
            metrics: crate::metrics::Metrics::new(&Clock::system()),
            backup: None,
        };
        let node = Arc::new(Node::new(parts));
        let seal_key = SealKey::generate(&entropy);
        let agent = populate(&node, &seal_key).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let served = supervise::spawn(
            "api",
            crate::api::serve(Arc::clone(&node), listener, serving, shutdown),
        );
        let feed = crate::feed::run(Arc::clone(&node), crate::api::render);
        let feed = supervise::spawn("feed", feed);
        while node.feed.subscribe(&node).await.is_err() {
            tokio::task::yield_now().await;
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let stop = Some(stop);
        Self {
            log,
            node,
            clock: hand,
            seal_key,
            agent,
            address,
            http,
            stop,
            served,
            feed,
        }
    }

    pub(super) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.address);
        self.http.request(method.parse().unwrap(), url)
    }

    /// Asks with a token.
    pub(super) async fn ask(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self.request(method, path).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        Self::send(request).await
    }

    /// Sends a request; its answer must be one that the OpenAPI document promises. A stream is not waited for.
    pub(super) async fn send(request: reqwest::RequestBuilder) -> Answer {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let (method, url) = (request.method().clone(), request.url().clone());
        let response = client.execute(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let kind = headers.get("content-type");
        let is_stream = kind.is_some_and(|kind| kind == "text/event-stream");
        let text = if is_stream {
            String::new()
        } else {
            response.text().await.unwrap()
        };
        let answer = Answer {
            status,
            headers,
            text,
        };
        super::contract::check(method.as_str(), url.path(), &answer);
        answer
    }

    /// The administrator's command, without HTTP.
    pub(super) async fn command(&self, command: Command) {
        ask(&self.node, command).await;
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(ADMIN, "GET", path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(ADMIN, "POST", path, Some(body)).await
    }

    /// A token of a role, bound to a tenant or not.
    pub(super) async fn token(&self, role: Role, tenant: Option<&str>) -> String {
        let secret = format!("token-{}", self.node.entropy.hex(8));
        let token = CreateToken {
            id: self.node.entropy.hex(8).parse().unwrap(),
            secret_digest: bearer_digest(&secret),
            name: "test".into(),
            role,
            tenant: tenant.map(|id| id.parse::<TenantId>().unwrap()),
            expires_at: None,
        };
        ask(&self.node, Command::CreateToken(token)).await;
        secret
    }

    /// Says whether the agent is connected.
    pub(super) async fn note_presence(&self, presence: Presence) {
        let changes = vec![(self.agent.clone(), presence)];
        propose(
            &self.node,
            Actor::Planner,
            Command::NotePresence { changes },
        )
        .await;
    }

    /// Removes a deployment whose grace time is over, as the planner would.
    pub(super) async fn remove(&self, id: &str) {
        let deployment = id.parse().unwrap();
        propose(
            &self.node,
            Actor::Planner,
            Command::RemoveDeployment { deployment },
        )
        .await;
    }

    /// Whether these bytes are in anything that was proposed, or in the State.
    pub(super) fn remembers(&self, text: &str) -> bool {
        let holds = |bytes: &[u8]| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        let entries = self.log.entries.lock().unwrap();
        entries.iter().any(|entry| holds(entry)) || holds(&self.node.state().to_bytes().unwrap())
    }

    /// Stops the server and waits for its end.
    pub(super) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.feed.abort();
        self.served.await.unwrap();
    }
}

/// The administrator asks.
async fn ask(node: &Arc<Node>, command: Command) {
    let (caller, _) = node.authenticate(ADMIN).unwrap();
    let request = node.entropy.hex(16).parse().unwrap();
    let (asked, received_at) = (Digest::ZERO, node.clock.now());
    let ask = Ask {
        request,
        asked,
        received_at,
        expected: None,
        trace: None,
        command,
    };
    node.ask(&caller, ask, Duration::from_secs(1))
        .await
        .unwrap()
        .unwrap();
}

async fn propose(node: &Node, actor: Actor, command: Command) {
    node.propose(actor, command, Duration::from_secs(1))
        .await
        .unwrap()
        .unwrap();
}

async fn populate(node: &Arc<Node>, seal_key: &SealKey) -> AgentId {
    propose(
        node,
        Actor::Founder,
        Command::Found(Box::new((*node.genesis).clone())),
    )
    .await;
    ask(
        node,
        Command::AddRelease {
            manifest: MANIFEST_TEXT.into(),
        },
    )
    .await;
    let join = CreateJoinToken {
        id: "00000000000000aa".parse().unwrap(),
        secret_digest: JoinToken::digest_of_proof(&Digest::of(b"join")),
        region: REGION.parse().unwrap(),
        expires_at: node.clock.now().plus_millis(DAY_MS),
    };
    ask(node, Command::CreateJoinToken(join.clone())).await;
    let identity = PublicKey::of(&SigningKey::from_bytes(&[9; 32]));
    let enrol = EnrolAgent {
        token: join.id,
        proof: Digest::of(b"join"),
        region: join.region.clone(),
        incarnation: "0".repeat(32).parse().unwrap(),
        identity,
        seal_key: seal_key.public(),
        key: Digest::of(b"certificate"),
        not_after: node.clock.now().plus_millis(DAY_MS),
    };
    let agent = agent_name(&join.region, &identity);
    propose(
        node,
        Actor::Agent(agent.clone()),
        Command::EnrolAgent(enrol),
    )
    .await;
    agent
}
