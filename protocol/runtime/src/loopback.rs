//! For tests: a cluster of two controllers and an agent, with real certificates and real connections on the loopback.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use dotmac_protocol::{
    frame::{ALPN_AGENT, ALPN_ENROL, ALPN_PEER},
    ids::{ClusterId, Epoch, NodeId, TrustVersion},
    keys::PublicKey,
    time::Timestamp,
    trust::{ControllerIdentity, Role, TrustRoot},
};
use quinn::{Connection, Endpoint};

use crate::{
    clock::{Clock, ManualClock},
    entropy::Entropy,
    pki::{Issuer, KeyPair, csr},
    quic,
    tls::{Identity, IdentityCell, PinnedIssuers, client_config, server_config},
};

pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);
pub(crate) const HOUR_MS: u64 = 3_600_000;
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster of two controllers, both pinned, on a clock that the test turns.
pub(crate) struct Cluster {
    pub(crate) entropy: Entropy,
    pub(crate) clock: Clock,
    pub(crate) hand: ManualClock,
    pub(crate) issuers: [Issuer; 2],
    pub(crate) pinned: PinnedIssuers,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let entropy = Entropy::seeded(1);
        let (clock, hand) = Clock::manual(NOW);
        let issuers = [1, 2].map(|node| Issuer::create(&id(), NodeId(node), &clock, &entropy));
        let pinned = PinnedIssuers::of(&trust(&issuers));
        Self {
            entropy,
            clock,
            hand,
            issuers,
            pinned,
        }
    }

    /// A certificate for controller `named`, made by controller `by`.
    pub(crate) fn node(&self, named: u64, by: u64) -> IdentityCell {
        let issuer = &self.issuers[usize::try_from(by).unwrap() - 1];
        self.node_by(named, issuer)
    }

    pub(crate) fn node_by(&self, named: u64, issuer: &Issuer) -> IdentityCell {
        let key = KeyPair::generate(&self.entropy);
        let chain = issuer
            .issue_node(
                &key,
                &id(),
                NodeId(named),
                "00ff",
                self.clock.now(),
                HOUR_MS,
            )
            .unwrap();
        IdentityCell::new(&Identity { chain, key }).unwrap()
    }

    pub(crate) fn agent_identity(&self) -> Identity {
        let key = KeyPair::generate(&self.entropy);
        let agent = "eu-1-00ff".parse().unwrap();
        let chain = self.issuers[1]
            .issue_agent(&csr(&key), &id(), &agent, self.clock.now(), HOUR_MS)
            .unwrap();
        Identity { chain, key }
    }

    pub(crate) fn agent(&self) -> IdentityCell {
        IdentityCell::new(&self.agent_identity()).unwrap()
    }

    pub(crate) fn serve(&self, identity: IdentityCell) -> Server {
        let alpns = [ALPN_PEER, ALPN_AGENT, ALPN_ENROL];
        let config = server_config(identity, self.pinned.clone(), &alpns, &self.clock);
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = quic::endpoint(Some(listen), Some(config), &[7; 32], &self.entropy).unwrap();
        let address = endpoint.local_addr().unwrap().to_string();
        Server { endpoint, address }
    }

    pub(crate) fn client(
        &self,
        identity: Option<IdentityCell>,
        alpn: &[u8],
    ) -> quinn::ClientConfig {
        client_config(identity, self.pinned.clone(), alpn, &self.clock)
    }

    pub(crate) fn dialler(&self) -> Endpoint {
        quic::endpoint(None, None, &[8; 32], &self.entropy).unwrap()
    }

    /// Connects both ends; an error is the text of whichever end refused first.
    pub(crate) async fn meet(
        &self,
        server: &Server,
        client: quinn::ClientConfig,
    ) -> Result<(Connection, Connection), String> {
        let dialler = self.dialler();
        let accepting = async { server.endpoint.accept().await.unwrap().await };
        let dialling = quic::connect(&dialler, &client, &server.address, PATIENCE);
        let (accepted, dialled) = tokio::join!(accepting, dialling);
        let dialled = dialled.map_err(|error| crate::causes::in_full(&error));
        let accepted = accepted.map_err(|error| crate::causes::in_full(&error));
        match (accepted, dialled) {
            (Ok(accepted), Ok(dialled)) => Ok((accepted, dialled)),
            (accepted, dialled) => Err(format!(
                "server: {}; client: {}",
                accepted.err().unwrap_or_default(),
                dialled.err().unwrap_or_default()
            )),
        }
    }
}

pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) address: String,
}

pub(crate) fn id() -> ClusterId {
    "main".parse().unwrap()
}

pub(crate) fn trust(issuers: &[Issuer]) -> TrustRoot {
    let role = Role {
        threshold: 1,
        keys: vec![PublicKey([1; 32])],
    };
    let controllers = (1..).zip(issuers).map(|(node, issuer)| ControllerIdentity {
        node: NodeId(node),
        signing_key: PublicKey([1; 32]),
        issuer: issuer.digest(),
    });
    TrustRoot {
        cluster: id(),
        version: TrustVersion(1),
        epoch: Epoch(1),
        root: role.clone(),
        approver: role.clone(),
        controller: role.clone(),
        timestamp: role,
        controllers: controllers.collect(),
    }
}
