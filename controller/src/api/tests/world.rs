//! One controller with a log in memory that applies to a real State: what the API's tests ask.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use dotmac_domain::{
    Command, Envelope, Reply, State,
    access::Role as AccessRole,
    audit::{Fact, Stream},
    command::{CreateJoinToken, CreateToken, EnrolAgent, Genesis, NodeCard},
    envelope::Actor,
    fleet::{Presence, agent_name},
};
use dotmac_protocol::{
    codec,
    digest::Digest,
    ids::{AgentId, Epoch, NodeId, TenantId, TrustVersion},
    keys::{PublicKey, Signature},
    time::Timestamp,
    trust::{ControllerIdentity, Role, SignedTrustRoot, TRUST_ROOT_DOMAIN, TrustRoot},
};
use dotmac_runtime::{
    clock::{Clock, ManualClock},
    entropy::Entropy,
    seal::SealKey,
    supervise,
};
use ed25519_dalek::SigningKey;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use crate::{
    log::{Leadership, Log, LogError},
    node::{Node, NodeParts, bearer_digest},
    peers::{PeerAnswer, PeerCall},
};

/// The administrator's token.
pub(super) const ADMIN: &str = "dotmac-admin-token";
/// A region with an agent.
pub(super) const REGION: &str = "do-fra1";
/// A region without one.
pub(super) const EMPTY_REGION: &str = "byov-lagos";
const MANIFEST: &[u8] = include_bytes!("../../../../tests/releases/demo-isp.json");
const DAY_MS: u64 = 24 * 3_600_000;

/// Applies what is proposed at once; keeps what was proposed, as bytes.
pub(super) struct MemoryLog {
    state: Mutex<Arc<State>>,
    facts: Mutex<BTreeMap<Stream, Vec<Fact>>>,
    pub(super) entries: Mutex<Vec<Vec<u8>>>,
    pub(super) failure: Mutex<Option<LogError>>,
    pub(super) leadership: watch::Sender<Leadership>,
    applied: watch::Sender<u64>,
}

impl MemoryLog {
    fn new() -> Self {
        let leadership = Leadership { term: 1, leader: Some(NodeId(1)) };
        Self {
            state: Mutex::default(),
            facts: Mutex::default(),
            entries: Mutex::default(),
            failure: Mutex::default(),
            leadership: watch::Sender::new(leadership),
            applied: watch::Sender::new(0),
        }
    }

    fn failing(&self) -> Result<(), LogError> {
        self.failure.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn apply(&self, envelope: &Envelope) -> Reply {
        self.entries.lock().unwrap().push(codec::encode(envelope).unwrap());
        let mut state = self.state.lock().unwrap();
        let applied = Arc::make_mut(&mut state).apply(envelope);
        for fact in applied.facts {
            self.facts.lock().unwrap().entry(fact.stream.clone()).or_default().push(fact);
        }
        self.applied.send_modify(|index| *index += 1);
        applied.reply
    }
}

impl Log for MemoryLog {
    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.lock().unwrap())
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn propose(&self, envelope: Envelope, _: Duration) -> BoxFuture<'_, Result<Reply, LogError>> {
        Box::pin(async move {
            self.failing()?;
            Ok(self.apply(&envelope))
        })
    }

    fn barrier(&self, _: Duration) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { self.failing() })
    }

    fn call(
        &self,
        node: NodeId,
        _: PeerCall,
        _: Duration,
    ) -> BoxFuture<'_, Result<PeerAnswer, LogError>> {
        Box::pin(async move { Err(LogError::Refused { node, reason: "it is away".into() }) })
    }

    fn facts(&self, stream: &Stream, after: u64, limit: usize) -> Result<Vec<Fact>, LogError> {
        let facts = self.facts.lock().unwrap();
        let links = facts.get(stream).into_iter().flatten();
        Ok(links.filter(|fact| fact.sequence > after).take(limit).cloned().collect())
    }
}

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
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status, code and the fields that are wrong, of a problem.
    pub(super) fn problem(&self) -> (u16, String, Vec<String>) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let body = self.json();
        assert_eq!(body["status"], self.status);
        assert!(!body["next"].as_str().unwrap().is_empty() && body["type"].is_string());
        let fields = body["errors"].as_array().unwrap().iter();
        let fields = fields.map(|error| error["field"].as_str().unwrap().to_owned()).collect();
        (self.status, body["code"].as_str().unwrap().to_owned(), fields)
    }
}

impl World {
    /// A founded cluster with a release and one agent.
    pub(super) async fn new() -> Self {
        let (clock, hand) = Clock::manual(Timestamp(1_700_000_000_000));
        let entropy = Entropy::seeded(1);
        let key = SigningKey::from_bytes(&[1; 32]);
        let genesis = Arc::new(genesis(&key));
        let log = Arc::new(MemoryLog::new());
        let parts = NodeParts {
            card: genesis.nodes[0].clone(),
            genesis: Arc::clone(&genesis),
            clock,
            entropy: entropy.clone(),
            log: Arc::clone(&log) as Arc<dyn Log>,
            signing_key: key,
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
        let served = supervise::spawn("api", crate::api::serve(Arc::clone(&node), listener, shutdown));
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let stop = Some(stop);
        Self { log, node, clock: hand, seal_key, agent, address, http, stop, served }
    }

    pub(super) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.address);
        self.http.request(method.parse().unwrap(), url)
    }

    /// Asks with a token.
    pub(super) async fn ask(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.request(method, path).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        Self::send(request).await
    }

    pub(super) async fn send(request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(ADMIN, "GET", path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(ADMIN, "POST", path, Some(body)).await
    }

    /// A token of a role, bound to a tenant or not.
    pub(super) async fn token(&self, role: AccessRole, tenant: Option<&str>) -> String {
        let secret = format!("token-{}", self.node.entropy.hex(8));
        let token = CreateToken {
            id: self.node.entropy.hex(8).parse().unwrap(),
            secret_digest: bearer_digest(&secret),
            name: "test".into(),
            role,
            tenant: tenant.map(|id| id.parse::<TenantId>().unwrap()),
        };
        propose(&self.node, admin(), Command::CreateToken(token)).await;
        secret
    }

    /// Says whether the agent is connected.
    pub(super) async fn note_presence(&self, presence: Presence) {
        let changes = vec![(self.agent.clone(), presence)];
        propose(&self.node, Actor::Planner, Command::NotePresence { changes }).await;
    }

    /// Removes a deployment whose grace time is over, as the planner would.
    pub(super) async fn remove(&self, id: &str) {
        let deployment = id.parse().unwrap();
        propose(&self.node, Actor::Planner, Command::RemoveDeployment { deployment }).await;
    }

    /// Whether these bytes are in anything that was proposed, or in the State.
    pub(super) fn remembers(&self, text: &str) -> bool {
        let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        let entries = self.log.entries.lock().unwrap();
        entries.iter().any(|entry| holds(entry)) || holds(&self.node.state().to_bytes().unwrap())
    }

    /// Stops the server and waits for its end.
    pub(super) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.served.await.unwrap();
    }
}

fn admin() -> Actor {
    Actor::Person("00000000000000ad".parse().unwrap())
}

async fn propose(node: &Node, actor: Actor, command: Command) {
    node.propose(actor, command, Duration::from_secs(1)).await.unwrap().unwrap();
}

async fn populate(node: &Node, seal_key: &SealKey) -> AgentId {
    propose(node, Actor::Founder, Command::Found(Box::new((*node.genesis).clone()))).await;
    propose(node, admin(), Command::AddRelease { manifest: MANIFEST.to_vec() }).await;
    let join = CreateJoinToken {
        id: "00000000000000aa".parse().unwrap(),
        secret_digest: Digest::of(b"join"),
        region: REGION.parse().unwrap(),
        expires_at: node.clock.now().plus_millis(DAY_MS),
    };
    propose(node, admin(), Command::CreateJoinToken(join.clone())).await;
    let identity = PublicKey::of(&SigningKey::from_bytes(&[9; 32]));
    let enrol = EnrolAgent {
        token: join.id,
        secret_digest: join.secret_digest,
        region: join.region.clone(),
        incarnation: "0".repeat(32).parse().unwrap(),
        identity,
        seal_key: seal_key.public(),
        key: Digest::of(b"certificate"),
        not_after: node.clock.now().plus_millis(DAY_MS),
    };
    propose(node, Actor::Founder, Command::EnrolAgent(enrol)).await;
    agent_name(&join.region, &identity)
}

fn genesis(key: &SigningKey) -> Genesis {
    let role = |key: &SigningKey| Role { threshold: 1, keys: vec![PublicKey::of(key)] };
    let root = SigningKey::from_bytes(&[2; 32]);
    let card = |node: u64, signing_key: PublicKey| NodeCard {
        node: NodeId(node),
        incarnation: format!("{node:032x}").parse().unwrap(),
        link_address: format!("127.0.0.1:{}", 7000 + node),
        api_address: format!("127.0.0.1:{}", 8000 + node),
        signing_key,
        issuer: vec![],
    };
    let trust = TrustRoot {
        cluster: "test".parse().unwrap(),
        version: TrustVersion(1),
        epoch: Epoch(1),
        root: role(&root),
        approver: role(&SigningKey::from_bytes(&[3; 32])),
        controller: role(key),
        timestamp: role(key),
        controllers: vec![ControllerIdentity {
            node: NodeId(1),
            signing_key: PublicKey::of(key),
            issuer: Digest::of(b"issuer"),
        }],
    };
    let body = codec::encode(&trust).unwrap();
    let signatures = vec![Signature::make(&root, TRUST_ROOT_DOMAIN, &body)];
    let other = PublicKey::of(&SigningKey::from_bytes(&[4; 32]));
    Genesis {
        cluster: "test".parse().unwrap(),
        created_at: Timestamp(1_700_000_000_000),
        trust_root: SignedTrustRoot { body, signatures },
        nodes: vec![card(1, PublicKey::of(key)), card(2, other)],
        admin: CreateToken {
            id: "00000000000000ad".parse().unwrap(),
            secret_digest: bearer_digest(ADMIN),
            name: "admin".into(),
            role: AccessRole::PlatformAdmin,
            tenant: None,
        },
        regions: vec![REGION.parse().unwrap(), EMPTY_REGION.parse().unwrap()],
        default_region: REGION.parse().unwrap(),
        default_channel: "stable".into(),
        grace_ms: 1_000,
        window_ms: 60_000,
        removals_per_hour: 10,
        removals_per_tenant_hour: 10,
    }
}
