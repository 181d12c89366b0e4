//! Enrolment and sessions over real QUIC on the loopback, against controllers that do what the test says.
//! Longer than 400 lines: the claims about one link, which all need the same site.

mod news;
pub(crate) mod site;

use dotmac_protocol::{
    digest::Digest,
    frame::{
        AgentFrame, Answer, ControllerFrame, EnrolGreeting, EnrolReply, EnrolRequest, Question,
        RECOVER_DOMAIN, Report, Welcome,
    },
    ids::{NodeId, Sequence, TrustVersion},
    record::{ChainHead, Event, Outcome, Record},
    time::Timestamp,
    trust::TrustError,
};
use dotmac_runtime::{
    entropy::Entropy,
    pki::{self, Issuer},
    quic::{read_frame, write_frame},
    seal::SealKey,
};
use quinn::Connection;

use self::site::{Agent, Cluster, Controller, HOUR_MS, Relay, soon};
use super::enrol::EnrolError;
use crate::{
    fixture::{agent, apply, clock, sign_clock, sign_trust, trust_root, unit},
    trust::{TrustStore, TrustStoreError},
};

pub(crate) async fn greet_and_read(
    connection: &Connection,
    greeting: &EnrolGreeting,
) -> (quinn::SendStream, Option<EnrolRequest>) {
    let (mut send, mut receive) = soon(connection.accept_bi()).await.unwrap();
    soon(write_frame(&mut send, greeting)).await.unwrap();
    let request = soon(read_frame::<EnrolRequest>(&mut receive)).await;
    (send, request.ok().flatten())
}

pub(crate) fn greeting(cluster: &Cluster) -> EnrolGreeting {
    EnrolGreeting {
        trust_roots: vec![cluster.signed()],
    }
}

pub(crate) fn admitted(cluster: &Cluster, controller: &Controller, request: &[u8]) -> EnrolReply {
    EnrolReply::Admitted {
        agent: agent(),
        chain: cluster.certify(request, HOUR_MS),
        controllers: vec![controller.address(), "127.0.0.1:7444".into()],
    }
}

#[tokio::test]
async fn an_agent_joins_with_its_own_keys_and_asks_for_the_same_when_the_reply_was_lost() {
    let cluster = Cluster::new();
    let (controller, agent_site) = (cluster.controller(1), Agent::new(&cluster));
    let address = controller.address();
    let serve = async {
        let lost = controller.accept().await;
        let (_, first) = greet_and_read(&lost, &greeting(&cluster)).await;
        lost.close(1_u32.into(), b"the reply is lost");
        let connection = controller.accept().await;
        let (mut send, second) = greet_and_read(&connection, &greeting(&cluster)).await;
        assert_eq!(first, second);
        let Some(EnrolRequest::Join {
            secret,
            request,
            region,
            ..
        }) = second
        else {
            panic!("a join is asked for")
        };
        assert_eq!((secret, region.as_str()), ([77; 32], "byov-lagos"));
        let reply = admitted(&cluster, &controller, &request);
        soon(write_frame(&mut send, &reply)).await.unwrap();
        soon(connection.closed()).await;
    };
    let join = async {
        assert!(
            agent_site
                .join(&cluster, &address)
                .await
                .unwrap_err()
                .can_be_repeated()
        );
        agent_site.join(&cluster, &address).await.unwrap()
    };
    let ((), certificate) = tokio::join!(serve, join);
    assert_eq!(certificate.agent, agent());
    assert_eq!(certificate.controllers, [address, "127.0.0.1:7444".into()]);
    let kept = agent_site.store().certificate().unwrap().unwrap();
    assert_eq!(kept.chain, certificate.chain);
    let trust = TrustStore::open(&agent_site.path("trust"))
        .unwrap()
        .unwrap();
    assert_eq!(*trust.current(), cluster.trust);
}

#[tokio::test]
async fn the_token_is_not_shown_to_an_impostor_nor_under_another_trust_root() {
    let cluster = Cluster::new();
    let foreign = Issuer::create(&cluster.id, NodeId(1), &cluster.clock, &cluster.entropy);
    let impostor = cluster.controller_of(1, &foreign);
    let honest = cluster.controller(1);
    let mut other = cluster.trust.clone();
    other.epoch = dotmac_protocol::ids::Epoch(9);
    let other = EnrolGreeting {
        trust_roots: vec![sign_trust(&other, &[10])],
    };
    for (controller, greeting) in [(&impostor, greeting(&cluster)), (&honest, other)] {
        let site = Agent::new(&cluster);
        let serve = async {
            let connection = controller.accept().await;
            let (_, request) = greet_and_read(&connection, &greeting).await;
            assert_eq!(request, None, "the agent left without showing its token");
        };
        let address = controller.address();
        let ((), refused) = tokio::join!(serve, site.join(&cluster, &address));
        let expected = |error: &EnrolError| match error {
            EnrolError::Controller(_) => std::ptr::eq(controller, &raw const impostor),
            EnrolError::Trust(TrustStoreError::Refused(TrustError::Pin)) => {
                std::ptr::eq(controller, &raw const honest)
            }
            _ => false,
        };
        let error = refused.unwrap_err();
        assert!(expected(&error), "{error}");
        assert!(site.store().certificate().unwrap().is_none());
    }
}

#[tokio::test]
async fn a_refused_join_says_why_and_whether_to_try_again() {
    let cluster = Cluster::new();
    let (controller, site) = (cluster.controller(1), Agent::new(&cluster));
    let serve = async {
        let connection = controller.accept().await;
        let (mut send, _) = greet_and_read(&connection, &greeting(&cluster)).await;
        let reply = EnrolReply::Refused {
            code: "token-used".into(),
            reason: "the token was used".into(),
            retry: false,
        };
        soon(write_frame(&mut send, &reply)).await.unwrap();
        soon(connection.closed()).await;
    };
    let address = controller.address();
    let ((), refused) = tokio::join!(serve, site.join(&cluster, &address));
    let error = refused.unwrap_err();
    assert!(
        !error.can_be_repeated() && error.to_string().contains("token-used"),
        "{error}"
    );
}

fn event_of(report: &Report, index: usize) -> Event {
    dotmac_protocol::codec::decode::<Record>(&report.records[index].body)
        .unwrap()
        .event
}

#[tokio::test]
async fn an_order_is_confirmed_by_a_record_that_is_resent_until_it_is_acknowledged() {
    let cluster = Cluster::new();
    let (controller, site) = (cluster.controller(1), Agent::new(&cluster));
    let running = site.link(&cluster, &[&controller], HOUR_MS);
    cluster.hand.advance_millis(1_000);
    let (session, hello) = controller.session(&cluster, vec![]).await;
    assert_eq!(
        (hello.agent, hello.outbox, hello.inventory.len()),
        (agent(), (0, 0), 0)
    );
    for _ in 0..2 {
        session.deliver(apply("demo", 1, 1)).await;
    }
    let first = session.report().await;
    assert_eq!(first.records.len(), 1);
    assert!(
        matches!(event_of(&first, 0), Event::Receipt(receipt) if receipt.outcome == Outcome::Accepted)
    );
    soon(
        running
            .intake
            .desired()
            .wait_for(|desired| desired.contains_key(&unit("demo"))),
    )
    .await
    .unwrap();
    // The acknowledgement is lost with the session.
    session.connection.close(1_u32.into(), b"gone");
    let (mut session, hello) = controller.session(&cluster, vec![]).await;
    assert_eq!(hello.outbox, (1, 1));
    assert_eq!(hello.inventory[0].sequence, Sequence(1));
    let again = session.report().await;
    assert_eq!(again, first);
    again.records[0]
        .verify(
            &site.store().keys(&Entropy::seeded(0)).unwrap().public(),
            ChainHead::START,
        )
        .unwrap();
    let incarnation = hello.incarnation;
    session
        .tell(&ControllerFrame::Acknowledged {
            incarnation,
            through: 1,
        })
        .await;
    let event = Event::Audit {
        action: "unit.next".into(),
        detail: String::new(),
    };
    running
        .chain
        .append(&crate::unit::About::default(), event.clone())
        .unwrap();
    let next = session.report().await;
    assert_eq!((next.records.len(), event_of(&next, 0)), (1, event));
}

#[tokio::test]
async fn law_3_an_order_waits_for_the_sessions_first_clock() {
    let cluster = Cluster::new();
    let (controller, site) = (cluster.controller(1), Agent::new(&cluster));
    let _running = site.link(&cluster, &[&controller], HOUR_MS);
    let (mut session, _) = controller.session_without_clock(&cluster, vec![]).await;
    session.deliver(apply("demo", 1, 1)).await;
    let newest = clock(1, cluster.clock.now());
    session.tell(&ControllerFrame::Clock(newest)).await;
    let report = session.report().await;
    assert!(
        matches!(event_of(&report, 0), Event::Receipt(receipt) if receipt.outcome == Outcome::Accepted)
    );
}

#[tokio::test]
async fn law_3_an_order_without_a_signed_clock_is_refused_and_taken_in_the_next_session() {
    let cluster = Cluster::new();
    let (controller, site) = (cluster.controller(1), Agent::new(&cluster));
    let running = site.link(&cluster, &[&controller], HOUR_MS);
    let (mut session, _) = controller.session_without_clock(&cluster, vec![]).await;
    session.deliver(apply("demo", 1, 1)).await;
    let report = session.report().await;
    assert!(
        matches!(event_of(&report, 0), Event::Receipt(receipt) if matches!(
            &receipt.outcome, Outcome::Refused { reason } if reason.starts_with("no signed clock came")
        ))
    );
    assert!(running.intake.desired().borrow().is_empty());
    // One timestamp key alone tells no time; two do, and the order is asked for again by a new session.
    let now = cluster.clock.now();
    let lone = sign_clock(1, now, Digest::ZERO, &[1]);
    session.tell(&ControllerFrame::Clock(lone)).await;
    session.tell(&ControllerFrame::Clock(clock(1, now))).await;
    soon(session.connection.closed()).await;
    let (session, _) = controller.session(&cluster, vec![]).await;
    session.deliver(apply("demo", 1, 1)).await;
    let mut desired = running.intake.desired();
    let taken = desired.wait_for(|desired| desired.contains_key(&unit("demo")));
    soon(taken).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_of_its_life_with_a_new_key() {
    let cluster = Cluster::new();
    let (controller, site) = (cluster.controller(1), Agent::new(&cluster));
    let _running = site.link(&cluster, &[&controller], HOUR_MS);
    let before = site.store().certificate().unwrap().unwrap();
    cluster.hand.advance_millis(HOUR_MS / 2 + 1);
    let (mut session, _) = controller.session(&cluster, vec![]).await;
    let AgentFrame::Renew { request } = session.hear().await else {
        panic!("a renewal is asked for")
    };
    assert_ne!(pki::key_digest(&request).unwrap(), before.key.digest());
    // A certificate for another key is not taken; the agent keeps what it has.
    let foreign = cluster.certify(&pki::csr(&before.key), HOUR_MS);
    session
        .tell(&ControllerFrame::Renewed { chain: foreign })
        .await;
    session.connection.close(1_u32.into(), b"gone");
    let (mut session, _) = controller.session(&cluster, vec![]).await;
    let AgentFrame::Renew { request: second } = session.hear().await else {
        panic!("a renewal is asked for again")
    };
    assert_ne!(second, request);
    assert_eq!(
        site.store().certificate().unwrap().unwrap().chain,
        before.chain
    );
    let chain = cluster.certify(&second, HOUR_MS);
    session
        .tell(&ControllerFrame::Renewed {
            chain: chain.clone(),
        })
        .await;
    soon(async {
        while site.store().certificate().unwrap().unwrap().chain != chain {
            tokio::task::yield_now().await;
        }
    })
    .await;
    session.connection.close(1_u32.into(), b"gone");
    let connection = controller.accept().await;
    let peer = dotmac_runtime::tls::peer(&connection).unwrap();
    assert_eq!(peer.key, pki::key_digest(&second).unwrap());
}

#[tokio::test]
async fn an_agent_whose_certificate_ran_out_recovers_by_its_identity_key() {
    let cluster = Cluster::new();
    let (controller, site) = (cluster.controller(1), Agent::new(&cluster));
    let running = site.link(&cluster, &[&controller], HOUR_MS);
    let public = site.store().keys(&Entropy::seeded(0)).unwrap().public();
    let (session, _) = controller.session(&cluster, vec![]).await;
    running.connected_to(1).await;
    cluster.hand.advance_millis(HOUR_MS * 48);
    session.connection.close(1_u32.into(), b"gone");
    let connection = controller.accept().await;
    let (mut send, asked) = greet_and_read(&connection, &greeting(&cluster)).await;
    let Some(EnrolRequest::Recover {
        agent: name,
        request,
        now,
        signature,
    }) = asked
    else {
        panic!("a recovery is asked for")
    };
    assert_eq!((name, now), (agent(), cluster.clock.now()));
    let signed = [now.0.to_be_bytes().as_slice(), &request].concat();
    public.verify(RECOVER_DOMAIN, &signed, &signature).unwrap();
    let reply = admitted(&cluster, &controller, &request);
    soon(write_frame(&mut send, &reply)).await.unwrap();
    let (_session, hello) = controller.session(&cluster, vec![]).await;
    assert_eq!(hello.agent, agent());
    running.connected_to(1).await;
}

#[tokio::test]
async fn a_controller_that_falls_silent_is_left_for_another() {
    let cluster = Cluster::new();
    let (first, second) = (cluster.controller(1), cluster.controller(2));
    let site = Agent::new(&cluster);
    let relay = Relay::to(&first).await;
    let running = site.link_to(&cluster, vec![relay.address.to_string()], HOUR_MS);
    let both = vec![relay.address.to_string(), second.address()];
    let (_lost, _) = first.session(&cluster, both.clone()).await;
    running.connected_to(1).await;
    let began = tokio::time::Instant::now();
    drop(relay);
    let (_session, _) = second.session(&cluster, both).await;
    running.connected_to(2).await;
    // Three seconds of silence, and at worst one attempt at the dead one.
    assert!(
        began.elapsed() < std::time::Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn answers_are_sealed_to_the_asker_and_unknown_units_refused() {
    let cluster = Cluster::new();
    let (controller, site) = (cluster.controller(1), Agent::new(&cluster));
    let _running = site.link(&cluster, &[&controller], HOUR_MS);
    let (session, _) = controller.session(&cluster, vec![]).await;
    let asker = SealKey::from_bytes(&[3; 32]);
    let ask = async |unit| {
        let (mut send, mut receive) = soon(session.connection.open_bi()).await.unwrap();
        let seal_to = asker.public();
        let question = Question::Logs {
            unit,
            component: None,
            lines: 12,
            follow: false,
            seal_to,
        };
        soon(write_frame(&mut send, &question)).await.unwrap();
        let mut answers = Vec::new();
        while let Some(answer) = soon(read_frame::<Answer>(&mut receive)).await.unwrap() {
            answers.push(answer);
        }
        answers
    };
    let mut text = Vec::new();
    for answer in ask(unit("demo")).await {
        let Answer::Piece(sealed) = answer else {
            panic!("a piece")
        };
        assert!(!sealed.ciphertext.windows(8).any(|part| part == b"12 lines"));
        text.extend_from_slice(&asker.open("dotmac/answer/v1", &sealed).unwrap());
    }
    assert_eq!(text.len(), "12 lines\n".len() + 100_000);
    assert!(text.starts_with(b"12 lines\n"));
    let refused = Answer::Refused {
        reason: "no output here".into(),
    };
    assert_eq!(ask(unit("other")).await, vec![refused]);
}

#[tokio::test]
async fn newer_trust_roots_of_a_welcome_are_followed_and_forged_ones_end_the_session() {
    let cluster = Cluster::new();
    let (controller, site) = (cluster.controller(1), Agent::new(&cluster));
    let running = site.link(&cluster, &[&controller], HOUR_MS);
    let mut second = cluster.trust.clone();
    second.version = TrustVersion(2);
    let welcome = |trust_roots| {
        let (now, controllers) = (Timestamp(0), vec![]);
        ControllerFrame::Welcome(Welcome {
            node: NodeId(1),
            now,
            trust_roots,
            controllers,
            acknowledged: 0,
        })
    };
    let (mut session, _) = controller.hello().await;
    session
        .tell(&welcome(vec![sign_trust(&trust_root(2), &[1, 2, 3])]))
        .await;
    soon(session.connection.closed()).await;
    let (mut session, hello) = controller.hello().await;
    assert_eq!(hello.trust_version, TrustVersion(1));
    session
        .tell(&welcome(vec![sign_trust(&second, &[10])]))
        .await;
    running.connected_to(1).await;
    session.connection.close(1_u32.into(), b"gone");
    let (_, hello) = controller.hello().await;
    assert_eq!(hello.trust_version, TrustVersion(2));
}
