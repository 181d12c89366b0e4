//! Controllers that come and go while an agent is connected, and while it is cut off.

use dotmac_protocol::{
    digest::Digest,
    frame::{ControllerFrame, ControllerNews, EnrolGreeting},
    ids::{NodeId, TrustVersion},
    trust::ControllerIdentity,
};
use dotmac_runtime::{pki::Issuer, quic::write_frame};

use super::site::{Agent, Cluster, HOUR_MS, soon};
use crate::fixture::sign_trust;

#[tokio::test]
async fn an_agent_follows_in_the_session_and_leaves_a_controller_that_is_none_any_more() {
    let cluster = Cluster::new();
    let (first, second) = (cluster.controller(1), cluster.controller(2));
    let site = Agent::new(&cluster);
    let running = site.link(&cluster, &[&first], HOUR_MS);
    let (mut session, _) = first.session(&cluster, vec![first.address()]).await;
    running.connected_to(1).await;
    let mut without = cluster.trust.clone();
    without.version = TrustVersion(2);
    without.controllers.remove(0);
    let news = ControllerNews {
        trust_roots: vec![sign_trust(&without, &[10])],
        controllers: vec![second.address()],
    };
    session.tell(&ControllerFrame::Controllers(news)).await;
    let (_kept, hello) = second.session(&cluster, vec![second.address()]).await;
    assert_eq!(hello.trust_version, TrustVersion(2));
    running.connected_to(2).await;
    soon(session.connection.closed()).await;
    let kept = site.store().certificate().unwrap().unwrap();
    assert_eq!(kept.controllers, [second.address()]);
}

#[tokio::test]
async fn a_forged_trust_root_in_the_session_ends_it_and_changes_nothing() {
    let cluster = Cluster::new();
    let (controller, site) = (cluster.controller(1), Agent::new(&cluster));
    let running = site.link(&cluster, &[&controller], HOUR_MS);
    let (mut session, _) = controller.session(&cluster, vec![]).await;
    running.connected_to(1).await;
    let mut forged = cluster.trust.clone();
    forged.version = TrustVersion(2);
    let news = ControllerNews {
        trust_roots: vec![sign_trust(&forged, &[1, 2, 3])],
        controllers: vec!["127.0.0.1:1".into()],
    };
    session.tell(&ControllerFrame::Controllers(news)).await;
    soon(session.connection.closed()).await;
    let (_, hello) = controller.hello().await;
    assert_eq!(hello.trust_version, TrustVersion(1));
    let kept = site.store().certificate().unwrap().unwrap();
    assert!(!kept.controllers.contains(&"127.0.0.1:1".to_owned()));
}

#[tokio::test]
async fn law_5_an_agent_whose_controllers_were_all_replaced_learns_the_new_ones_by_itself() {
    let cluster = Cluster::new();
    let issuer = Issuer::create(&cluster.id, NodeId(4), &cluster.clock, &cluster.entropy);
    let (controller, site) = (cluster.controller_of(4, &issuer), Agent::new(&cluster));
    let mut replaced = cluster.trust.clone();
    replaced.version = TrustVersion(2);
    replaced.controllers = vec![ControllerIdentity {
        node: NodeId(4),
        signing_key: cluster.trust.controllers[0].signing_key,
        issuer: Digest::of(issuer.certificate()),
    }];
    let running = site.link(&cluster, &[&controller], HOUR_MS);
    // The agent refuses the certificate, and then asks for what there is to know.
    let refused = soon(controller.endpoint.accept()).await.unwrap();
    assert!(soon(refused.into_future()).await.is_err());
    let asking = controller.accept().await;
    let (mut send, _receive) = soon(asking.accept_bi()).await.unwrap();
    let greeting = EnrolGreeting {
        trust_roots: vec![cluster.signed(), sign_trust(&replaced, &[10])],
    };
    soon(write_frame(&mut send, &greeting)).await.unwrap();
    let (_session, hello) = controller.session(&cluster, vec![]).await;
    assert_eq!(hello.trust_version, TrustVersion(2));
    running.connected_to(4).await;
}
