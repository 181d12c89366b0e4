//! The controllers and whose signatures count: nothing is used twice, one change at a time, and a new trust root takes
//! nothing back of what was proven before.

use dotmac_domain::{
    Accepted, Command, Reply, State,
    cluster::Standing,
    command::{NodeCard, NoteMembers},
    reply::Code,
    signer::{self, SignRefusal},
};
use dotmac_protocol::{
    codec::encode,
    digest::Digest,
    ids::{Epoch, NodeId, TrustVersion},
    keys::{PublicKey, Signature},
    time::Timestamp,
    trust::{ControllerIdentity, Role, SignedTrustRoot, TRUST_ROOT_DOMAIN, TrustRoot},
};

use crate::fixture::{World, admin, attest, code_of, create, key};

pub(crate) fn card(node: u8) -> NodeCard {
    NodeCard {
        node: NodeId(node.into()),
        incarnation: format!("{node:032x}").parse().unwrap(),
        link_address: format!("127.0.0.1:{}", 7000 + u16::from(node)),
        api_address: format!("127.0.0.1:{}", 8000 + u16::from(node)),
        signing_key: PublicKey::of(&key(node)),
        issuer: vec![node],
    }
}

/// The trust root of this version in which these controllers sign.
pub(crate) fn root(version: u64, nodes: &[u8]) -> TrustRoot {
    let role = |threshold: usize, seeds: &[u8]| Role {
        threshold: u16::try_from(threshold).unwrap(),
        keys: seeds
            .iter()
            .map(|seed| PublicKey::of(&key(*seed)))
            .collect(),
    };
    let controllers = nodes.iter().map(|node| ControllerIdentity {
        node: NodeId((*node).into()),
        signing_key: PublicKey::of(&key(*node)),
        issuer: Digest::of(&[*node]),
    });
    TrustRoot {
        cluster: "test".parse().unwrap(),
        version: TrustVersion(version),
        epoch: Epoch(1),
        root: role(1, &[10]),
        approver: role(1, &[20]),
        controller: role(nodes.len() / 2 + 1, nodes),
        timestamp: role(nodes.len() / 2 + 1, nodes),
        controllers: controllers.collect(),
    }
}

pub(crate) fn sign(root: &TrustRoot, seed: u8) -> SignedTrustRoot {
    let body = encode(root).unwrap();
    let signatures = vec![Signature::make(&key(seed), TRUST_ROOT_DOMAIN, &body)];
    SignedTrustRoot { body, signatures }
}

fn follow(root: &TrustRoot) -> Command {
    Command::FollowTrustRoot {
        signed: sign(root, 10),
    }
}

fn promote(node: u64) -> Command {
    let node = NodeId(node);
    Command::PromoteController { node }
}

fn retire(node: u64) -> Command {
    let node = NodeId(node);
    Command::RetireController { node }
}

fn members(voters: &[u64], learners: &[u64]) -> Command {
    let nodes = |list: &[u64]| list.iter().map(|node| NodeId(*node)).collect();
    Command::NoteMembers(NoteMembers {
        voters: nodes(voters),
        learners: nodes(learners),
    })
}

/// Asks with the word of these controllers.
fn ask_by(world: &mut World, seeds: &[u8], command: Command) -> Reply {
    let envelope = world.envelope(admin(), command);
    let envelope = attest(envelope, seeds, world.now + 30_000);
    world.apply(&envelope)
}

/// A cluster in which controller 4 votes and does not sign.
fn with_fourth() -> World {
    let (mut world, _) = World::with_agent();
    world
        .ask(Command::AdmitController(Box::new(card(4))))
        .unwrap();
    world.ask(promote(4)).unwrap();
    world.plan(members(&[1, 2, 3, 4], &[])).unwrap();
    world
}

fn standing(state: &State, node: u64) -> Standing {
    state.controllers.get(&NodeId(node)).unwrap().standing
}

fn refusal(reply: Reply) -> String {
    reply.unwrap_err().detail
}

#[test]
fn a_controller_learns_then_votes_then_signs_and_leaves_in_the_opposite_order() {
    let (mut world, _) = World::with_agent();
    let admit = || Command::AdmitController(Box::new(card(4)));
    assert_eq!(world.ask(admit()), Ok(Accepted::Done));
    assert_eq!(world.ask(admit()), Ok(Accepted::Done), "asked again");
    assert_eq!(standing(&world.state, 4), Standing::Learner);
    assert!(refusal(world.ask(follow(&root(2, &[1, 2, 3, 4])))).contains("that vote"));
    world.ask(promote(4)).unwrap();
    let wanted = world.state.wanted_members();
    assert!(wanted.voters.contains(&NodeId(4)) && wanted.learners.is_empty());
    assert_eq!(standing(&world.state, 4), Standing::Joining);
    world.plan(members(&[1, 2, 3, 4], &[])).unwrap();
    assert_eq!(standing(&world.state, 4), Standing::Voter);
    assert!(!world.state.signs(NodeId(4)));
    world.ask(follow(&root(2, &[1, 2, 3, 4]))).unwrap();
    assert!(world.state.signs(NodeId(4)));
    assert_eq!(world.state.unfinished_change(), None);

    world.now += 60_000;
    let keys = [1, 2, 3];
    assert!(refusal(ask_by(&mut world, &keys, retire(2))).contains("its key has to leave"));
    ask_by(&mut world, &keys, follow(&root(3, &[1, 3, 4]))).unwrap();
    world.now += 60_000;
    ask_by(&mut world, &[3, 4], retire(2)).unwrap();
    assert_eq!(standing(&world.state, 2), Standing::Leaving);
    world.plan(members(&[1, 2, 3, 4], &[])).unwrap();
    assert_eq!(
        standing(&world.state, 2),
        Standing::Leaving,
        "it votes still"
    );
    world.plan(members(&[1, 3, 4], &[])).unwrap();
    assert_eq!(standing(&world.state, 2), Standing::Retired);
    assert_eq!(world.state.present_controllers().count(), 3);
}

#[test]
fn neither_a_number_nor_a_disk_nor_a_key_is_used_a_second_time() {
    let mut world = with_fourth();
    world.ask(retire(4)).unwrap();
    world.plan(members(&[1, 2, 3], &[])).unwrap();
    let with = |change: &dyn Fn(&mut NodeCard)| {
        let mut fresh = card(9);
        change(&mut fresh);
        Command::AdmitController(Box::new(fresh))
    };
    for gone in [1, 4] {
        let old = card(gone);
        let used: [(&str, Command); 4] = [
            ("node", with(&|fresh| fresh.node = old.node)),
            (
                "incarnation",
                with(&|fresh| fresh.incarnation = old.incarnation.clone()),
            ),
            (
                "signing_key",
                with(&|fresh| fresh.signing_key = old.signing_key),
            ),
            ("issuer", with(&|fresh| fresh.issuer = old.issuer.clone())),
        ];
        for (field, command) in used {
            let refused = world.ask(command).unwrap_err();
            assert_eq!(refused.errors[0].field, field, "{refused}");
        }
    }
    let taken = world.ask(with(&|fresh| fresh.link_address = card(1).link_address));
    assert_eq!(taken.unwrap_err().errors[0].field, "link_address");
    let free = with(&|fresh| fresh.link_address = card(4).link_address);
    assert_eq!(
        world.ask(free),
        Ok(Accepted::Done),
        "a place may be used again"
    );
}

#[test]
fn one_change_at_a_time_and_the_second_is_told_what_it_waits_for() {
    let (mut world, _) = World::with_agent();
    world
        .ask(Command::AdmitController(Box::new(card(4))))
        .unwrap();
    let second = || Command::AdmitController(Box::new(card(5)));
    let refused = refusal(world.ask(second()));
    assert!(
        refused.contains("controller 4") && refused.contains("promote 4"),
        "{refused}"
    );
    let refused = refusal(world.ask(follow(&root(2, &[1, 2]))));
    assert!(refused.contains("controller 4"), "{refused}");
    world.ask(promote(4)).unwrap();
    world.plan(members(&[1, 2, 3, 4], &[])).unwrap();
    let refused = refusal(world.ask(second()));
    assert!(refused.contains("does not sign"), "{refused}");
    world.ask(follow(&root(2, &[1, 2, 3, 4]))).unwrap();
    assert_eq!(world.ask(second()), Ok(Accepted::Done));
}

#[test]
fn the_last_voter_stays() {
    let mut world = World::founded();
    for (version, nodes, gone) in [(2, &[1, 2][..], 3), (3, &[1], 2)] {
        world.ask(follow(&root(version, nodes))).unwrap();
        world.ask(retire(gone)).unwrap();
        let left: Vec<u64> = (1..gone).collect();
        world.plan(members(&left, &[])).unwrap();
    }
    let mut nobody = root(4, &[1]);
    nobody.controllers.clear();
    assert!(world.ask(follow(&nobody)).is_err());
    assert!(refusal(world.ask(retire(1))).contains("its key"));
}

#[test]
fn law_3_a_trust_root_follows_only_in_order_signed_by_the_root_key_and_for_a_strict_majority() {
    let mut world = with_fourth();
    let four = || root(2, &[1, 2, 3, 4]);
    let changed = |change: &dyn Fn(&mut TrustRoot)| {
        let mut next = four();
        change(&mut next);
        follow(&next)
    };
    let by = |seed| Command::FollowTrustRoot {
        signed: sign(&four(), seed),
    };
    let two = NodeId(2);
    let wrong = [
        ("unsigned", by(1)),
        ("skipped", changed(&|next| next.version = TrustVersion(3))),
        ("repeated", changed(&|next| next.version = TrustVersion(1))),
        (
            "another cluster",
            changed(&|next| next.cluster = "other".parse().unwrap()),
        ),
        ("an earlier epoch", changed(&|next| next.epoch = Epoch(0))),
        (
            "too few waves",
            changed(&|next| next.controller.threshold = 2),
        ),
        (
            "too few clocks",
            changed(&|next| next.timestamp.threshold = 2),
        ),
        ("too many", changed(&|next| next.controller.threshold = 4)),
        (
            "a stranger's key",
            changed(&|next| next.controller.keys[3] = PublicKey::of(&key(9))),
        ),
        (
            "another issuer",
            changed(&|next| next.controllers[3].issuer = Digest::ZERO),
        ),
        ("two at once", follow(&root(2, &[1, 3, 4]))),
        ("another change", follow(&root(2, &[1, 2]))),
        ("unknown", follow(&root(2, &[1, 2, 3, 9]))),
    ];
    for (what, command) in wrong {
        assert!(world.ask(command).is_err(), "{what}");
        assert_eq!(world.state.trust, Some(root(1, &[1, 2, 3])), "{what}");
    }
    assert!(world.state.signs(two));
    assert_eq!(
        code_of(world.forge(follow(&four()))),
        Code::Forbidden,
        "without proof"
    );
    assert_eq!(world.ask(follow(&four())), Ok(Accepted::Done));
    assert_eq!(
        world.ask(follow(&four())),
        Ok(Accepted::Done),
        "asked again"
    );
    assert_eq!(world.state.trust_roots.size(), 2);
    let after = world.state.trust_roots_after(TrustVersion(0), 9);
    assert_eq!(
        after[1].follow(&after[0].self_signed().unwrap()),
        Ok(four())
    );
}

#[test]
fn law_3_what_was_proven_stays_proven_and_new_requests_need_the_new_majority() {
    let mut world = with_fourth();
    let old = world.create("Demo ISP");
    world.carry_on();
    let sealed = world.state.wave_number;
    world.ask(follow(&root(2, &[1, 2, 3, 4]))).unwrap();
    let now = Timestamp(world.now);
    let refused = signer::check(&world.state, sealed, now);
    assert_eq!(refused, Err(SignRefusal::Trust(TrustVersion(1))));
    // Vouched for before, applied after: it counts for as long as attestations live.
    let late = world.create("Late ISP");
    world.now += 60_000;
    assert!(
        world.ask(create("Forged ISP")).is_ok(),
        "it is taken, as ever"
    );
    world.carry_on();
    let resealed = world.state.wave_number;
    assert!(resealed > sealed);
    let now = Timestamp(world.now);
    assert!(signer::check(&world.state, resealed, now).is_ok());
    for deployment in [&old, &late] {
        assert_eq!(world.leaf(deployment).trust_version, TrustVersion(2));
    }
    let ordered: Vec<_> = world
        .state
        .units
        .values()
        .filter(|unit| unit.wave.is_some())
        .collect();
    assert_eq!(ordered.len(), 2, "two of four controllers prove nothing");
    let new = crate::fixture::deployment_of(ask_by(&mut world, &[1, 2, 4], create("New ISP")));
    world.carry_on();
    assert_eq!(world.leaf(&new).trust_version, TrustVersion(2));
}

#[test]
fn law_3_a_higher_epoch_is_taken_over_by_what_is_sealed_next() {
    let (mut world, _) = World::with_agent();
    world.create("Demo ISP");
    world.carry_on();
    let mut raised = root(2, &[1, 2, 3]);
    raised.epoch = Epoch(2);
    world.ask(follow(&raised)).unwrap();
    world.now += 1_000;
    world.carry_on();
    let number = world.state.wave_number;
    let now = Timestamp(world.now);
    assert!(signer::check(&world.state, number, now).is_ok());
    let statement = world.state.clock.as_ref().unwrap().statement().unwrap();
    assert_eq!(
        (statement.epoch, statement.trust_version),
        (Epoch(2), TrustVersion(2))
    );
}

#[test]
fn only_a_platform_admin_changes_the_cluster_and_only_a_planner_notes_its_members() {
    let mut world = World::founded();
    let agent = dotmac_domain::envelope::Actor::Agent("lab-1-00000000".parse().unwrap());
    let changes = [
        Command::AdmitController(Box::new(card(4))),
        promote(1),
        retire(1),
        follow(&root(2, &[1, 2])),
    ];
    for command in changes {
        assert_eq!(
            code_of(world.ask_as(agent.clone(), command.clone())),
            Code::Forbidden
        );
        assert_eq!(code_of(world.plan(command)), Code::Forbidden);
    }
    assert_eq!(code_of(world.ask(members(&[1], &[]))), Code::Forbidden);
}
