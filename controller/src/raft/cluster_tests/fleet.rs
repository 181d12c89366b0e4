//! Three controllers and those that join them, each in a runtime of its own, so that one can be killed without a word to the
//! others.
//!
//! Longer than 400 lines: keys, certificates and disks of controllers that are real in all but their process.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Barrier,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use dotmac_domain::{
    Command, Envelope,
    access::Role as AccessRole,
    command::{CreateToken, Genesis, NodeCard},
    envelope::{Actor, Evidence},
};
use dotmac_protocol::{
    codec,
    digest::Digest,
    frame::ALPN_PEER,
    ids::{Epoch, NodeId, RequestId, TrustVersion},
    keys::{PublicKey, Signature},
    time::Timestamp,
    trust::{ControllerIdentity, Role, SignedTrustRoot, TRUST_ROOT_DOMAIN, TrustRoot},
};
use dotmac_runtime::{
    clock::Clock,
    disk::SystemDisk,
    entropy::Entropy,
    pki::{Issuer, KeyPair},
    quic, supervise,
    tls::{Identity, IdentityCell, Issuers, PinnedIssuers, client_config, server_config},
};
use ed25519_dalek::SigningKey;
use tokio::{runtime::Runtime, time::Instant};

use crate::{
    log::{Log, LogError},
    raft::{RaftConfig, RaftLog},
    storage::{
        directory::{Directory, DirectoryError},
        engine::{EngineConfig, fail_on_fatal},
    },
};

const HOUR_MS: u64 = 3_600_000;
const RESET_KEY: [u8; 32] = [9; 32];
/// Threads of a controller.
const WORKERS: usize = 2;
/// How long anything may take before a test gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// One controller of a fleet.
pub(super) struct Member {
    pub(super) card: NodeCard,
    identity: IdentityCell,
    issuer: Issuer,
    founds: bool,
    pub(super) directory: PathBuf,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    log: Arc<RaftLog>,
}

/// Three controllers that know each other.
pub(super) struct Fleet {
    pub(super) members: Vec<Member>,
    pub(super) genesis: Genesis,
    pinned: PinnedIssuers,
    clock: Clock,
    snapshot_every: u64,
    home: tempfile::TempDir,
}

impl Fleet {
    /// Starts all three and founds the cluster.
    pub(super) fn start(snapshot_every: u64) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (clock, entropy) = (Clock::system(), Entropy::system());
        let issuers: Vec<Issuer> = (1..=3)
            .map(|node| Issuer::create(&cluster(), NodeId(node), &clock, &entropy))
            .collect();
        let signing: Vec<SigningKey> = (1..=3).map(signing_key).collect();
        let trust = trust_root(&issuers, &signing);
        let pinned = PinnedIssuers::of(&trust);
        let members: Vec<Member> = (1..=3)
            .zip(issuers.into_iter().zip(&signing))
            .map(|(node, (issuer, signing))| member(node, issuer, signing, home.path(), &clock))
            .collect();
        let genesis = genesis(&trust, &signing, &members);
        let mut fleet = Self {
            members,
            genesis,
            pinned,
            clock,
            snapshot_every,
            home,
        };
        for node in 1..=3 {
            fleet.revive(node);
        }
        let found = Command::Found(Box::new(fleet.genesis.clone()));
        let found = envelope(u64::MAX, Actor::Founder, found);
        fleet.propose(1, found).unwrap().unwrap();
        fleet
    }

    /// Makes a further controller and starts it, so that it waits to be spoken to.
    pub(super) fn join(&mut self) -> NodeCard {
        let node = u64::try_from(self.members.len()).unwrap() + 1;
        let issuer = Issuer::create(&cluster(), NodeId(node), &self.clock, &Entropy::system());
        let signing = signing_key(u8::try_from(node).unwrap());
        let mut joins = member(node, issuer, &signing, self.home.path(), &self.clock);
        joins.founds = false;
        let card = joins.card.clone();
        self.members.push(joins);
        let controllers = self.members.iter();
        let controllers: BTreeMap<Digest, NodeId> = controllers
            .map(|member| (member.issuer.digest(), member.card.node))
            .collect();
        self.pinned.replace_by(Issuers {
            cluster: cluster(),
            agents: controllers.keys().copied().collect(),
            controllers,
        });
        self.revive(node);
        card
    }

    /// Tells the running controllers with whom they speak from now on.
    pub(super) fn introduce(&self, nodes: &[u64]) {
        let cards: Vec<NodeCard> = self
            .members
            .iter()
            .filter(|member| nodes.contains(&member.card.node.0))
            .map(|member| member.card.clone())
            .collect();
        for member in self.members.iter().filter(|one| one.running.is_some()) {
            let node = member.card.node.0;
            let log = self.log(node);
            self.on(node, async { log.set_controllers(&cards) });
        }
    }

    /// Starts a controller again on its address and its directory.
    pub(super) fn revive(&mut self, node: u64) {
        self.revive_with(node, EngineConfig::default());
    }

    /// The same, with other limits of its storage.
    pub(super) fn revive_with(&mut self, node: u64, engine: EngineConfig) {
        let index = usize::try_from(node).unwrap() - 1;
        assert!(self.members[index].running.is_none());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .unwrap();
        let cards: Vec<NodeCard> = self
            .members
            .iter()
            .map(|member| member.card.clone())
            .collect();
        let member = &self.members[index];
        let config = RaftConfig {
            node: NodeId(node),
            cluster: cluster(),
            members: cards,
            founds: member.founds,
            directory: member.directory.clone(),
            mark: None,
            engine,
            snapshot_every: self.snapshot_every,
            traces: crate::traces::Traces::default(),
            metrics: crate::metrics::Metrics::new(&Clock::system()).raft.clone(),
        };
        let address: SocketAddr = member.card.link_address.parse().unwrap();
        let (identity, pinned, clock) = (
            member.identity.clone(),
            self.pinned.clone(),
            self.clock.clone(),
        );
        let log = runtime.block_on(async move {
            let server = server_config(identity.clone(), pinned.clone(), &[ALPN_PEER], &clock);
            let client = client_config(Some(identity), pinned, ALPN_PEER, &clock);
            let entropy = Entropy::system();
            let bind = || quic::endpoint(Some(address), Some(server.clone()), &RESET_KEY, &entropy);
            // Whoever was killed there lets go of it when the last of his tasks is dropped.
            let patience = Instant::now() + PATIENCE;
            let endpoint = loop {
                match bind() {
                    Err(_) if Instant::now() < patience => tokio::task::yield_now().await,
                    bound => break bound.unwrap(),
                }
            };
            let disk = SystemDisk::shared();
            let started = RaftLog::start(
                config,
                endpoint.clone(),
                client,
                disk,
                fail_on_fatal(),
                &entropy,
            );
            let log = started.await.unwrap();
            let serving = log.clone();
            supervise::spawn("accept", async move {
                while let Some(incoming) = endpoint.accept().await {
                    let serving = serving.clone();
                    supervise::spawn("serve", async move {
                        if let Ok(connection) = incoming.await {
                            serving.serve(connection).await;
                        }
                    });
                }
            });
            log
        });
        self.members[index].running = Some(Running { runtime, log });
    }

    /// Ends a controller as a kill would: nothing is closed, nobody is told.
    pub(super) fn kill(&mut self, node: u64) {
        let index = usize::try_from(node).unwrap() - 1;
        let running = self.members[index].running.take().unwrap();
        drop(running.log);
        running.runtime.shutdown_background();
        // Its threads finish what they were doing and let go of the storage.
        while let Err(error) = Directory::open(&self.members[index].directory, &SystemDisk) {
            assert!(matches!(error, DirectoryError::Locked { .. }), "{error}");
            std::thread::yield_now();
        }
    }

    pub(super) fn log(&self, node: u64) -> Arc<RaftLog> {
        let index = usize::try_from(node).unwrap() - 1;
        self.members[index].running.as_ref().unwrap().log.clone()
    }

    /// Runs something on one controller's runtime.
    pub(super) fn on<T>(&self, node: u64, work: impl Future<Output = T>) -> T {
        let index = usize::try_from(node).unwrap() - 1;
        let runtime = &self.members[index].running.as_ref().unwrap().runtime;
        runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.unwrap() })
    }

    /// Starts something on one controller's runtime.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        node: u64,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        let index = usize::try_from(node).unwrap() - 1;
        let running = self.members[index].running.as_ref().unwrap();
        let _entered = running.runtime.enter();
        supervise::spawn("test", work)
    }

    /// Stops all threads of a controller for a while, as a signal to its process would.
    pub(super) fn stop_for(&self, node: u64, time: Duration) {
        let all = Arc::new(Barrier::new(WORKERS));
        let stopped = (0..WORKERS).map(|_| {
            let all = Arc::clone(&all);
            self.spawn(node, async move {
                all.wait();
                std::thread::sleep(time);
            })
        });
        let stopped: Vec<_> = stopped.collect();
        for thread in stopped {
            self.on(node, thread).unwrap();
        }
    }

    /// Proposes through one controller.
    pub(super) fn propose(
        &self,
        node: u64,
        envelope: Envelope,
    ) -> Result<dotmac_domain::Reply, LogError> {
        let log = self.log(node);
        self.on(
            node,
            async move { log.propose(envelope, PATIENCE / 2).await },
        )
    }

    /// Waits until a controller knows a leader that satisfies a condition, and says which.
    pub(super) fn leader(&self, node: u64, fits: impl Fn(u64) -> bool) -> u64 {
        let mut leadership = self.log(node).leadership();
        let wait = async move {
            let known = leadership.wait_for(|now| now.leader.is_some_and(|leader| fits(leader.0)));
            known.await.unwrap().leader.unwrap().0
        };
        self.on(node, wait)
    }

    /// Waits until all controllers know the same leader: of two that stood when the cluster was founded, one may follow the other.
    pub(super) fn agreed_leader(&self) -> u64 {
        loop {
            let leaders = [1, 2, 3, 1].map(|node| self.leader(node, |_| true));
            if leaders.iter().all(|leader| *leader == leaders[0]) {
                return leaders[0];
            }
            std::thread::yield_now();
        }
    }

    /// Waits until a controller has applied what another one has.
    pub(super) fn catch_up(&self, node: u64, with: u64) {
        let target = *self.log(with).applied().borrow();
        let mut applied = self.log(node).applied();
        self.on(node, async move {
            applied
                .wait_for(|applied| *applied >= target)
                .await
                .unwrap();
        });
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(running) = member.running.take() {
                running.runtime.block_on(running.log.shutdown());
                drop(running.log);
                running.runtime.shutdown_background();
            }
        }
    }
}

/// The first entry of a log, without a cluster around it.
pub(in crate::raft) fn founding() -> Envelope {
    let (clock, entropy) = (Clock::system(), Entropy::seeded(1));
    let issuers: Vec<Issuer> = (1..=3)
        .map(|node| Issuer::create(&cluster(), NodeId(node), &clock, &entropy))
        .collect();
    let signing: Vec<SigningKey> = (1..=3)
        .map(|seed| SigningKey::from_bytes(&[seed; 32]))
        .collect();
    let genesis = genesis(&trust_root(&issuers, &signing), &signing, &[]);
    envelope(u64::MAX, Actor::Founder, Command::Found(Box::new(genesis)))
}

/// A request that leaves one fact on the platform's stream.
pub(in crate::raft) fn note(number: u64) -> Envelope {
    let command = Command::NoteAccess {
        action: "test.noted".into(),
        tenant: None,
        detail: format!("note {number}"),
    };
    envelope(
        number,
        Actor::Person("00".repeat(8).parse().unwrap()),
        command,
    )
}

fn envelope(number: u64, actor: Actor, command: Command) -> Envelope {
    let request: RequestId = format!("{number:032x}").parse().unwrap();
    Envelope {
        at: Clock::system().now(),
        rules: 1,
        asked: Digest::of(request.as_str().as_bytes()),
        request,
        actor,
        evidence: Evidence::None,
        expected: None,
        hops: Vec::new(),
        trace: None,
        command,
    }
}

fn cluster() -> dotmac_protocol::ids::ClusterId {
    "test-cluster".parse().unwrap()
}

fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn member(node: u64, issuer: Issuer, signing: &SigningKey, home: &Path, clock: &Clock) -> Member {
    let key = KeyPair::generate(&Entropy::system());
    let incarnation = format!("{node:032x}");
    let chain = issuer
        .issue_node(
            &key,
            &cluster(),
            NodeId(node),
            &incarnation,
            clock.now(),
            HOUR_MS,
        )
        .unwrap();
    let card = NodeCard {
        node: NodeId(node),
        incarnation: incarnation.parse().unwrap(),
        link_address: own_address().to_string(),
        api_address: String::new(),
        signing_key: PublicKey::of(signing),
        issuer: issuer.certificate().to_vec(),
    };
    Member {
        card,
        identity: IdentityCell::new(&Identity { chain, key }).unwrap(),
        issuer,
        founds: true,
        directory: home.join(format!("node-{node}")),
        running: None,
    }
}

/// An address of the loopback that nobody else has, also while its controller is away: no other member of any test is given it,
/// and its port is none of those that the system gives away.
fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let last = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(last < u8::MAX, "a process has 254 addresses for members");
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    SocketAddr::from((
        Ipv4Addr::new(127, middle, low, last),
        20_000 + u16::from(high),
    ))
}

fn trust_root(issuers: &[Issuer], signing: &[SigningKey]) -> TrustRoot {
    let keys: Vec<PublicKey> = signing.iter().map(PublicKey::of).collect();
    let role = |threshold| Role {
        keys: keys.clone(),
        threshold,
    };
    let identity = |(node, (issuer, key)): (u64, (&Issuer, &PublicKey))| ControllerIdentity {
        node: NodeId(node),
        signing_key: *key,
        issuer: issuer.digest(),
    };
    TrustRoot {
        cluster: cluster(),
        version: TrustVersion(1),
        epoch: Epoch(1),
        root: role(1),
        approver: role(1),
        controller: role(2),
        timestamp: role(2),
        controllers: (1..=3)
            .zip(issuers.iter().zip(&keys))
            .map(identity)
            .collect(),
    }
}

fn genesis(trust: &TrustRoot, signing: &[SigningKey], members: &[Member]) -> Genesis {
    let body = codec::encode(trust).unwrap();
    let signatures = vec![Signature::make(&signing[0], TRUST_ROOT_DOMAIN, &body)];
    Genesis {
        cluster: cluster(),
        created_at: Timestamp(1),
        trust_root: SignedTrustRoot { body, signatures },
        nodes: members.iter().map(|member| member.card.clone()).collect(),
        admin: CreateToken {
            id: "00".repeat(8).parse().unwrap(),
            secret_digest: Digest::of(b"secret"),
            name: "admin".into(),
            role: AccessRole::PlatformAdmin,
            tenant: None,
            expires_at: None,
        },
        regions: vec!["here".parse().unwrap()],
        default_region: "here".parse().unwrap(),
        default_channel: "stable".into(),
        grace_ms: 1,
        window_ms: 1,
        removals_per_hour: 1,
        removals_per_tenant_hour: 1,
    }
}
