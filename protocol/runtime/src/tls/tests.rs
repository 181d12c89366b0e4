//! Real handshakes on the loopback, and some in memory where QUIC hides what was negotiated.

use std::sync::Arc;

use dotmac_protocol::{
    frame::{ALPN_AGENT, ALPN_ENROL, ALPN_PEER},
    ids::NodeId,
};
use rustls::{NamedGroup, PeerIncompatible, crypto::aws_lc_rs};

use super::{
    ChainVerifier, Identity, IdentityCell, IdentityError, PeerError, Pins, client_config_unpinned,
    client_tls, peer, peer_after_greeting, provider, server_tls,
};
use crate::{
    loopback::{Cluster, HOUR_MS, NOW, id, trust},
    pki::{Issuer, KeyPair, PeerName},
    quic,
};

#[tokio::test]
async fn controllers_and_agents_prove_themselves_both_ways() {
    let cluster = Cluster::new();
    let server = cluster.serve(cluster.node(1, 1));
    let controller = |node| PeerName::Controller {
        node: NodeId(node),
        incarnation: "00ff".into(),
    };
    let identity = cluster.agent_identity();
    let cases = [
        (ALPN_PEER, cluster.node(2, 2), controller(2)),
        (
            ALPN_AGENT,
            IdentityCell::new(&identity).unwrap(),
            PeerName::Agent("eu-1-00ff".parse().unwrap()),
        ),
    ];
    for (alpn, cell, name) in cases {
        let shown = crate::pki::key_digest(&cell.certificate()).unwrap();
        let client = cluster.client(Some(cell), alpn);
        let (accepted, dialled) = cluster.meet(&server, client).await.unwrap();
        let found = peer(&accepted).unwrap();
        assert_eq!((found.name, found.key), (name, shown));
        assert_eq!(found.issuer, cluster.issuers[1].digest());
        assert_eq!(found.not_after, NOW.plus_millis(HOUR_MS));
        assert_eq!(peer(&dialled).unwrap().name, controller(1));
    }
}

#[tokio::test]
async fn a_certificate_of_an_unpinned_issuer_is_refused() {
    let cluster = Cluster::new();
    let stranger = Issuer::create(&id(), NodeId(1), &cluster.clock, &cluster.entropy);

    let server = cluster.serve(cluster.node_by(1, &stranger));
    let client = cluster.client(Some(cluster.agent()), ALPN_AGENT);
    let refused = cluster.meet(&server, client).await.unwrap_err();
    assert!(refused.contains("is not pinned"), "{refused}");

    let server = cluster.serve(cluster.node(1, 1));
    let client = cluster.client(Some(cluster.node_by(2, &stranger)), ALPN_PEER);
    let refused = cluster.meet(&server, client).await.unwrap_err();
    assert!(refused.contains("is not pinned"), "{refused}");
}

#[tokio::test]
async fn an_issuer_unpinned_later_counts_no_more() {
    let cluster = Cluster::new();
    let server = cluster.serve(cluster.node(1, 1));
    let client = cluster.client(Some(cluster.node(2, 2)), ALPN_PEER);
    assert!(cluster.meet(&server, client.clone()).await.is_ok());
    cluster.pinned.replace(&trust(&cluster.issuers[..1]));
    let refused = cluster.meet(&server, client).await.unwrap_err();
    assert!(refused.contains("is not pinned"), "{refused}");
}

#[tokio::test]
async fn one_controllers_issuer_cannot_vouch_for_another() {
    let cluster = Cluster::new();
    let server = cluster.serve(cluster.node(1, 2));
    let client = cluster.client(Some(cluster.agent()), ALPN_AGENT);
    let refused = cluster.meet(&server, client).await.unwrap_err();
    assert!(
        refused.contains("may not vouch for spiffe://main/controller/1/00ff"),
        "{refused}"
    );

    let server = cluster.serve(cluster.node(1, 1));
    let client = cluster.client(Some(cluster.node(1, 2)), ALPN_PEER);
    let refused = cluster.meet(&server, client).await.unwrap_err();
    assert!(
        refused.contains("may not vouch for spiffe://main/controller/1/00ff"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_chain_whose_issuer_did_not_sign_is_refused() {
    let cluster = Cluster::new();
    let server = cluster.serve(cluster.node(1, 1));
    let stranger = Issuer::create(&id(), NodeId(2), &cluster.clock, &cluster.entropy);
    let key = KeyPair::generate(&cluster.entropy);
    let mut chain = stranger
        .issue_node(&key, &id(), NodeId(2), "00ff", NOW, HOUR_MS)
        .unwrap();
    // Signed by the stranger, shown with the pinned issuer of that name.
    chain[1] = cluster.issuers[1].certificate().to_vec();
    let cell = IdentityCell::new(&Identity { chain, key }).unwrap();
    let refused = cluster
        .meet(&server, cluster.client(Some(cell), ALPN_PEER))
        .await;
    let refused = refused.unwrap_err();
    assert!(
        refused.contains("BadSignature") || refused.contains("UnknownIssuer"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_either_end() {
    let cluster = Cluster::new();
    let old_node = cluster.node(1, 1);
    let old_agent = cluster.agent();
    let fresh = cluster.serve(old_node.clone());
    let client = cluster.client(Some(old_agent.clone()), ALPN_AGENT);
    assert!(cluster.meet(&fresh, client).await.is_ok());

    cluster.hand.advance_millis(HOUR_MS + 1_000);
    let client = cluster.client(Some(cluster.agent()), ALPN_AGENT);
    let refused = cluster.meet(&fresh, client).await.unwrap_err();
    assert!(refused.contains("certificate expired"), "{refused}");

    let renewed = cluster.serve(cluster.node(1, 1));
    let client = cluster.client(Some(old_agent), ALPN_AGENT);
    let refused = cluster.meet(&renewed, client).await.unwrap_err();
    assert!(refused.contains("certificate expired"), "{refused}");
}

#[tokio::test]
async fn a_certificate_of_the_future_is_refused() {
    let cluster = Cluster::new();
    let server = cluster.serve(cluster.node(1, 1));
    cluster.hand.advance_millis(HOUR_MS / 2);
    let client = cluster.client(Some(cluster.agent()), ALPN_AGENT);
    cluster.hand.set(NOW);
    let refused = cluster.meet(&server, client).await.unwrap_err();
    assert!(refused.contains("certificate not valid yet"), "{refused}");
}

#[tokio::test]
async fn a_replaced_identity_is_shown_without_a_restart() {
    let cluster = Cluster::new();
    let cell = cluster.agent();
    let server = cluster.serve(cluster.node(1, 1));
    let client = cluster.client(Some(cell.clone()), ALPN_AGENT);
    let next = cluster.agent_identity();
    cell.replace(&next).unwrap();
    let (accepted, _dialled) = cluster.meet(&server, client).await.unwrap();
    assert_eq!(peer(&accepted).unwrap().key, next.key.digest());
}

#[tokio::test]
async fn without_a_certificate_nobody_is_a_peer() {
    let cluster = Cluster::new();
    let server = cluster.serve(cluster.node(1, 1));
    for alpn in [ALPN_PEER, ALPN_AGENT] {
        let client = cluster.client(None, alpn);
        let (accepted, _dialled) = cluster.meet(&server, client).await.unwrap();
        assert!(
            matches!(peer(&accepted), Err(PeerError::NoCertificate)),
            "{alpn:?}"
        );
    }
    let client = client_config_unpinned(ALPN_ENROL, &cluster.clock);
    let (accepted, dialled) = cluster.meet(&server, client).await.unwrap();
    assert!(matches!(peer(&accepted), Err(PeerError::Enrolment)));
    assert!(matches!(peer(&dialled), Err(PeerError::Enrolment)));
}

#[tokio::test]
async fn an_enrolling_agent_checks_its_controller_after_the_greeting() {
    let cluster = Cluster::new();
    let client = client_config_unpinned(ALPN_ENROL, &cluster.clock);
    let server = cluster.serve(cluster.node(1, 1));
    let (_accepted, dialled) = cluster.meet(&server, client.clone()).await.unwrap();
    let found = peer_after_greeting(&dialled, &cluster.pinned).unwrap();
    assert_eq!(found.issuer, cluster.issuers[0].digest());

    let stranger = Issuer::create(&id(), NodeId(1), &cluster.clock, &cluster.entropy);
    for impostor in [cluster.node_by(1, &stranger), cluster.node(1, 2)] {
        let server = cluster.serve(impostor);
        let (_accepted, dialled) = cluster.meet(&server, client.clone()).await.unwrap();
        let refused = peer_after_greeting(&dialled, &cluster.pinned);
        assert!(
            matches!(refused, Err(PeerError::MayNotVouch { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn an_agent_can_neither_serve_nor_pose_as_a_controller() {
    let cluster = Cluster::new();
    let server = cluster.serve(cluster.node(1, 1));
    let client = cluster.client(Some(cluster.agent()), ALPN_PEER);
    let (accepted, _dialled) = cluster.meet(&server, client).await.unwrap();
    assert!(matches!(
        peer(&accepted),
        Err(PeerError::WrongKind(PeerName::Agent(_)))
    ));

    let client = cluster.client(Some(cluster.node(2, 2)), ALPN_AGENT);
    let (accepted, _dialled) = cluster.meet(&server, client).await.unwrap();
    assert!(matches!(
        peer(&accepted),
        Err(PeerError::WrongKind(PeerName::Controller { .. }))
    ));

    let impostor = cluster.serve(cluster.agent());
    let client = cluster.client(Some(cluster.agent()), ALPN_AGENT);
    let refused = cluster.meet(&impostor, client).await.unwrap_err();
    assert!(refused.contains("is no controller"), "{refused}");
}

#[test]
fn a_chain_and_a_key_that_do_not_fit_are_no_identity() {
    let cluster = Cluster::new();
    let (first, second) = (cluster.agent_identity(), cluster.agent_identity());
    let mixed = Identity {
        chain: first.chain.clone(),
        key: second.key,
    };
    assert!(matches!(
        IdentityCell::new(&mixed),
        Err(IdentityError::Chain(_))
    ));
    let short = Identity {
        chain: first.chain[..1].to_vec(),
        key: first.key,
    };
    assert!(matches!(
        IdentityCell::new(&short),
        Err(IdentityError::Length(1))
    ));
}

/// Carries what one end has to say, separately for each set of keys.
fn flight(
    from: &mut rustls::quic::Connection,
    to: &mut rustls::quic::Connection,
) -> Result<(), rustls::Error> {
    loop {
        let mut bytes = Vec::new();
        let keys = from.write_hs(&mut bytes);
        to.read_hs(&bytes)?;
        if keys.is_none() {
            return Ok(());
        }
    }
}

/// Runs a QUIC handshake without a network; gives the key exchange that both ends agreed on.
fn handshake_in_memory(
    client: rustls::ClientConfig,
    server: rustls::ServerConfig,
) -> Result<NamedGroup, rustls::Error> {
    use rustls::quic::{ClientConnection, ServerConnection, Version};
    let name = quic::SERVER_NAME.try_into().unwrap();
    let client = ClientConnection::new(Arc::new(client), Version::V1, name, Vec::new())?;
    let server = ServerConnection::new(Arc::new(server), Version::V1, Vec::new())?;
    let mut client = rustls::quic::Connection::from(client);
    let mut server = rustls::quic::Connection::from(server);
    while client.is_handshaking() || server.is_handshaking() {
        flight(&mut client, &mut server)?;
        flight(&mut server, &mut client)?;
    }
    let group = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(
        group,
        server.negotiated_key_exchange_group().unwrap().name()
    );
    Ok(group)
}

#[test]
fn the_key_exchange_is_x25519mlkem768_and_no_other() {
    let cluster = Cluster::new();
    let server = || {
        server_tls(
            cluster.node(1, 1),
            cluster.pinned.clone(),
            &[ALPN_PEER],
            &cluster.clock,
        )
    };
    let pins = || Pins::Pinned(cluster.pinned.clone());
    let ours = client_tls(Some(cluster.node(2, 2)), pins(), ALPN_PEER, &cluster.clock);
    assert_eq!(
        handshake_in_memory(ours, server()),
        Ok(NamedGroup::X25519MLKEM768)
    );

    let mut weak = aws_lc_rs::default_provider();
    weak.kx_groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    let clock = Arc::new(cluster.clock.clone());
    let mut weaker = rustls::ClientConfig::builder_with_details(Arc::new(weak), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ChainVerifier::new(pins(), provider())))
        .with_no_client_auth();
    weaker.alpn_protocols = vec![ALPN_PEER.to_vec()];
    let refused = rustls::Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon);
    assert_eq!(handshake_in_memory(weaker, server()), Err(refused));
}
