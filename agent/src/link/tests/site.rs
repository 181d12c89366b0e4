//! Controllers and an agent on the loopback, for the link's tests. The controllers do only what a test tells them.
//! Longer than 400 lines: it is both ends of a link, which every test of the link shares.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use dotmac_protocol::{
    digest::Digest,
    frame::{
        ALPN_AGENT, ALPN_ENROL, AgentFrame, ControllerFrame, Delivery, Hello, JoinToken, Question,
        Report, Welcome,
    },
    ids::{ClusterId, NodeId, UnitId},
    record::HealthStatus,
    trust::{SignedTrustRoot, TrustRoot},
    wave::SignedIntent,
};
use dotmac_runtime::{
    clock::{Clock, ManualClock},
    disk::SystemDisk,
    entropy::Entropy,
    pki::{self, Issuer, KeyPair},
    quic::{self, read_frame, write_frame},
    tls::{self, Identity, IdentityCell, PinnedIssuers},
};
use futures::future::BoxFuture;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::{net::UdpSocket, sync::mpsc, task::JoinHandle};

use crate::{
    chain::{Chain, ChainLimits, Owner},
    fixture::{NOW, agent, clock, sign_trust, trust_root_with, unit},
    intake::Intake,
    journal::Journal,
    license_time::LicenseTime,
    link::{
        Host, Link, LinkParts, LinkState,
        enrol::Enrolment,
        identity::{Certificate, IdentityStore},
    },
    signed_clock::ClockStore,
    stations::Stations,
    trust::TrustStore,
};

pub(crate) const HOUR_MS: u64 = 3_600_000;
/// Longer than anything on the loopback takes; a test that waits so long fails.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it happens soon")
}

/// A cluster of three controllers' issuers and its trust root.
pub(crate) struct Cluster {
    pub(crate) clock: Clock,
    pub(crate) hand: ManualClock,
    pub(crate) entropy: Entropy,
    pub(crate) id: ClusterId,
    pub(crate) issuers: [Issuer; 3],
    pub(crate) trust: TrustRoot,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let (clock, hand) = Clock::manual(NOW);
        let entropy = Entropy::seeded(7);
        let id: ClusterId = "test".parse().unwrap();
        let issuers = [1, 2, 3].map(|node| Issuer::create(&id, NodeId(node), &clock, &entropy));
        let digests = [0, 1, 2].map(|node: usize| Digest::of(issuers[node].certificate()));
        let trust = trust_root_with(1, digests);
        Self {
            clock,
            hand,
            entropy,
            id,
            issuers,
            trust,
        }
    }

    pub(crate) fn signed(&self) -> SignedTrustRoot {
        sign_trust(&self.trust, &[10])
    }

    pub(crate) fn controller(&self, node: u64) -> Controller {
        let issuer = &self.issuers[usize::try_from(node - 1).unwrap()];
        self.controller_of(node, issuer)
    }

    pub(crate) fn controller_of(&self, node: u64, issuer: &Issuer) -> Controller {
        let key = KeyPair::generate(&self.entropy);
        let life = HOUR_MS * 24 * 365;
        let chain = issuer
            .issue_node(&key, &self.id, NodeId(node), "00ff", NOW, life)
            .unwrap();
        let identity = IdentityCell::new(&Identity { chain, key }).unwrap();
        let pinned = PinnedIssuers::of(&self.trust);
        let server = tls::server_config(identity, pinned, &[ALPN_AGENT, ALPN_ENROL], &self.clock);
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let endpoint = quic::endpoint(listen, Some(server), &[0; 32], &self.entropy).unwrap();
        Controller {
            node: NodeId(node),
            endpoint,
        }
    }

    pub(crate) fn token(&self, controllers: Vec<String>) -> JoinToken {
        JoinToken {
            id: "0123456789abcdef".parse().unwrap(),
            secret: [77; 32],
            region: "byov-lagos".parse().unwrap(),
            trust_root: self.signed().digest(),
            controllers,
        }
    }

    pub(crate) fn certify(&self, request: &[u8], life_ms: u64) -> Vec<Vec<u8>> {
        let now = self.clock.now();
        self.issuers[0]
            .issue_agent(request, &self.id, &agent(), now, life_ms)
            .unwrap()
    }
}

pub(crate) struct Controller {
    pub(crate) node: NodeId,
    pub(crate) endpoint: Endpoint,
}

impl Controller {
    pub(crate) fn address(&self) -> String {
        self.endpoint.local_addr().unwrap().to_string()
    }

    pub(crate) async fn accept(&self) -> Connection {
        soon(async { self.endpoint.accept().await.unwrap().await.unwrap() }).await
    }

    /// Accepts an agent's session up to its hello.
    pub(crate) async fn hello(&self) -> (Session, Hello) {
        let connection = self.accept().await;
        let (send, mut receive) = soon(connection.accept_bi()).await.unwrap();
        let frame = soon(read_frame::<AgentFrame>(&mut receive)).await.unwrap();
        let Some(AgentFrame::Hello(hello)) = frame else {
            panic!("the first frame is a hello")
        };
        (
            Session {
                connection,
                send,
                receive,
            },
            hello,
        )
    }

    /// Accepts a session and welcomes the agent.
    pub(crate) async fn session(
        &self,
        cluster: &Cluster,
        controllers: Vec<String>,
    ) -> (Session, Hello) {
        let (mut session, hello) = self.session_without_clock(cluster, controllers).await;
        let newest = clock(1, cluster.clock.now());
        session.tell(&ControllerFrame::Clock(newest)).await;
        (session, hello)
    }

    /// Accepts a session and welcomes the agent, without telling it the time.
    pub(crate) async fn session_without_clock(
        &self,
        cluster: &Cluster,
        controllers: Vec<String>,
    ) -> (Session, Hello) {
        let (mut session, hello) = self.hello().await;
        let welcome = Welcome {
            node: self.node,
            now: cluster.clock.now(),
            trust_roots: vec![],
            controllers,
            acknowledged: 0,
        };
        session.tell(&ControllerFrame::Welcome(welcome)).await;
        (session, hello)
    }
}

pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
}

impl Session {
    pub(crate) async fn tell(&mut self, frame: &ControllerFrame) {
        soon(write_frame(&mut self.send, frame)).await.unwrap();
    }

    /// Sends an order; when this returns, it has arrived.
    pub(crate) async fn deliver(&self, intent: SignedIntent) {
        let delivery = Delivery {
            intent,
            hops: vec![],
        };
        let mut stream = soon(self.connection.open_uni()).await.unwrap();
        soon(write_frame(&mut stream, &delivery)).await.unwrap();
        stream.finish().unwrap();
        assert_eq!(soon(stream.stopped()).await.unwrap(), None);
    }

    /// The next frame that is no beat.
    pub(crate) async fn hear(&mut self) -> AgentFrame {
        loop {
            match soon(read_frame::<AgentFrame>(&mut self.receive))
                .await
                .unwrap()
                .unwrap()
            {
                AgentFrame::Beat { .. } => {}
                frame => return frame,
            }
        }
    }

    pub(crate) async fn report(&self) -> Report {
        let mut stream = soon(self.connection.accept_uni()).await.unwrap();
        soon(read_frame::<Report>(&mut stream))
            .await
            .unwrap()
            .unwrap()
    }
}

/// Answers the link in place of the rest of an agent.
struct QuietHost;

impl Host for QuietHost {
    fn health(&self, _: &UnitId) -> HealthStatus {
        HealthStatus::Healthy
    }

    fn answer(&self, question: Question) -> BoxFuture<'_, Result<mpsc::Receiver<String>, String>> {
        let answer = match question {
            Question::Logs {
                unit: asked, lines, ..
            } if asked == unit("demo") => {
                let (pieces, receiver) = mpsc::channel(4);
                pieces.try_send(format!("{lines} lines\n")).unwrap();
                pieces.try_send("x".repeat(100_000)).unwrap();
                Ok(receiver)
            }
            _ => Err("no output here".to_owned()),
        };
        Box::pin(async move { answer })
    }
}

/// An agent's directory; what is on it survives from link to link.
pub(crate) struct Agent {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) endpoint: Endpoint,
}

/// A running link; it ends when this is dropped.
pub(crate) struct RunningLink {
    pub(crate) link: Arc<Link>,
    pub(crate) chain: Arc<Chain>,
    pub(crate) intake: Arc<Intake>,
    task: JoinHandle<()>,
}

impl Drop for RunningLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RunningLink {
    pub(crate) async fn connected_to(&self, node: u64) {
        let wanted = LinkState::Connected(NodeId(node));
        soon(self.link.state().wait_for(|state| *state == wanted))
            .await
            .unwrap();
    }
}

impl Agent {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = quic::endpoint(None, None, &[1; 32], &cluster.entropy).unwrap();
        Self {
            directory,
            endpoint,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn store(&self) -> IdentityStore {
        IdentityStore::open(&self.path("identity")).unwrap()
    }

    pub(crate) async fn join(
        &self,
        cluster: &Cluster,
        address: &str,
    ) -> Result<Certificate, crate::link::enrol::EnrolError> {
        let store = self.store();
        let keys = store.keys(&cluster.entropy).unwrap();
        let enrolment = Enrolment {
            endpoint: &self.endpoint,
            clock: &cluster.clock,
            entropy: &cluster.entropy,
            keys: &keys,
            store: &store,
        };
        let token = cluster.token(vec![address.to_owned()]);
        let region = token.region.clone();
        soon(enrolment.join(address, &token, &region, &self.path("trust"))).await
    }

    /// An admitted agent's link, with a certificate of this life. Everything else comes from its directory.
    pub(crate) fn link(
        &self,
        cluster: &Cluster,
        controllers: &[&Controller],
        life_ms: u64,
    ) -> RunningLink {
        let addresses = controllers
            .iter()
            .map(|controller| controller.address())
            .collect();
        self.link_to(cluster, addresses, life_ms)
    }

    pub(crate) fn link_to(
        &self,
        cluster: &Cluster,
        controllers: Vec<String>,
        life_ms: u64,
    ) -> RunningLink {
        let store = self.store();
        let keys = store.keys(&cluster.entropy).unwrap();
        let certificate = Certificate {
            agent: agent(),
            key: keys.enrolment.clone(),
            chain: cluster.certify(&pki::csr(&keys.enrolment), life_ms),
            obtained: cluster.clock.now(),
            controllers,
        };
        store.keep(&certificate).unwrap();
        let signed = cluster.signed();
        let trust = TrustStore::pin(&self.path("trust"), signed.digest(), &[signed]).unwrap();
        let owner = Owner {
            agent: agent(),
            incarnation: keys.incarnation.clone(),
            key: keys.identity.clone(),
        };
        let (clock, limits) = (cluster.clock.clone(), ChainLimits::default());
        let disk = SystemDisk::shared();
        let opened = Chain::open(&self.path("chain"), owner, disk, clock.clone(), limits).unwrap();
        let chain = Arc::new(opened.chain);
        let journal = Journal::open(&self.path("journal"), agent(), BTreeSet::new(), &trust);
        let journal = journal.unwrap().0;
        let stations = Stations::default();
        let (clocks, _) = ClockStore::open(&self.path("trust"), agent(), &trust);
        let recorded = Arc::clone(&chain);
        let (time, _) = LicenseTime::open(self.path("license_time"), None, clock.clone());
        let intake = Intake::new(
            journal,
            trust,
            clocks,
            recorded,
            stations,
            time,
            clock.clone(),
        );
        let intake = Arc::new(intake);
        let parts = LinkParts {
            endpoint: self.endpoint.clone(),
            clock,
            entropy: cluster.entropy.clone(),
            keys,
            store,
            intake: Arc::clone(&intake),
            chain: Arc::clone(&chain),
            host: Arc::new(QuietHost),
            software: "0.1.0".to_owned(),
        };
        let link = Arc::new(Link::new(parts, certificate).unwrap());
        let running = Arc::clone(&link);
        let task = dotmac_runtime::supervise::spawn("link", async move { running.run().await });
        RunningLink {
            link,
            chain,
            intake,
            task,
        }
    }
}

/// Carries datagrams between one agent and one controller; when it is dropped, the controller is as good as dead.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    pub(crate) async fn to(controller: &Controller) -> Self {
        let outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        inside
            .connect(controller.endpoint.local_addr().unwrap())
            .await
            .unwrap();
        let address = outside.local_addr().unwrap();
        let task = dotmac_runtime::supervise::spawn("relay", async move {
            let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
            let mut agent = None;
            loop {
                tokio::select! {
                    Ok((length, from)) = outside.recv_from(&mut there) => {
                        agent = Some(from);
                        drop(inside.send(&there[..length]).await);
                    }
                    Ok(length) = inside.recv(&mut back) => {
                        if let Some(agent) = agent {
                            drop(outside.send_to(&back[..length], agent).await);
                        }
                    }
                }
            }
        });
        Self { address, task }
    }
}
