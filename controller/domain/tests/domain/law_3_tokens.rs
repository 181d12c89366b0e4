//! Law 3, tokens: one controller makes none and ends none, a forged one authorises nothing, and what ends a token takes
//! nothing back that it had authorised.

use dotmac_domain::{
    Command,
    access::{Role, Token},
    envelope::{Actor, Evidence},
    reply::Code,
    signer::{EvidenceError, TOKEN_CHAIN_MAX},
};
use dotmac_protocol::time::Timestamp;

use crate::{
    fixture::{HOUR_MS, World, code_of, create, token, token_id},
    law_3_signers::{seal_all, signed, unproven},
};

/// A token that nobody is proven to have asked for, as a lying leader's snapshot could bring it.
fn plant_token(world: &mut World, number: u64) {
    let command = Command::CreateToken(token(number, Role::PlatformAdmin, None));
    world.ask(command).unwrap();
    let id = token_id(number);
    let mut entry = world.state.tokens.get(&id).unwrap().clone();
    entry.warrant.as_mut().unwrap().evidence = Evidence::None;
    world.state.tokens.insert_mut(id, entry);
}

#[test]
fn law_3_one_controller_makes_no_token_and_ends_none() {
    let (mut world, _) = World::with_agent();
    let before = world.state.tokens.clone();
    let create = Command::CreateToken(token(2, Role::PlatformAdmin, None));
    assert_eq!(code_of(world.forge(create.clone())), Code::Forbidden);
    assert_eq!(world.state.tokens, before);
    world.ask(create).unwrap();
    let before = world.state.tokens.clone();
    for number in [1, 2] {
        let token = token_id(number);
        let revoke = Command::RevokeToken { token };
        assert_eq!(code_of(world.forge(revoke.clone())), Code::Forbidden);
        // Nor in the holder's own name.
        let own = world.envelope(Actor::Person(token_id(number)), revoke);
        assert_eq!(code_of(world.apply(&own)), Code::Forbidden);
    }
    assert_eq!(world.state.tokens, before);
}

#[test]
fn law_3_a_forged_token_authorises_nothing() {
    let (mut world, _) = World::with_agent();
    plant_token(&mut world, 2);
    // Honest controllers vouch for its holder: their State has the token.
    world
        .ask_as(Actor::Person(token_id(2)), create("Forged"))
        .unwrap();
    let wave = seal_all(&mut world);
    assert_eq!(
        unproven(signed(&world, wave)),
        ("deployment", EvidenceError::Missing)
    );
    // Nor does it make another one.
    let command = Command::CreateToken(token(3, Role::PlatformAdmin, None));
    let reply = world.ask_as(Actor::Person(token_id(2)), command);
    assert_eq!(code_of(reply), Code::Forbidden);
}

#[test]
fn law_3_a_token_that_a_forged_token_made_authorises_nothing_either() {
    let (mut world, _) = World::with_agent();
    for number in 2..6 {
        let maker = Actor::Person(token_id(number - 1));
        let command = Command::CreateToken(token(number, Role::PlatformAdmin, None));
        world.ask_as(maker, command).unwrap();
    }
    let mut first = world.state.tokens.get(&token_id(2)).unwrap().clone();
    first.warrant.as_mut().unwrap().evidence = Evidence::None;
    world.state.tokens.insert_mut(token_id(2), first);
    world
        .ask_as(Actor::Person(token_id(5)), create("Forged"))
        .unwrap();
    let wave = seal_all(&mut world);
    assert_eq!(
        unproven(signed(&world, wave)),
        ("deployment", EvidenceError::Missing)
    );
}

#[test]
fn law_3_a_token_that_the_administrator_made_counts() {
    let (mut world, _) = World::with_agent();
    for number in 2..5 {
        let maker = Actor::Person(token_id(number - 1));
        let command = Command::CreateToken(token(number, Role::PlatformAdmin, None));
        world.ask_as(maker, command).unwrap();
    }
    world
        .ask_as(Actor::Person(token_id(4)), create("Demo ISP"))
        .unwrap();
    let wave = seal_all(&mut world);
    assert_eq!(signed(&world, wave), Ok(()));
}

/// An administrator's token that ends in an hour.
fn with_passing_admin() -> World {
    let (mut world, _) = World::with_agent();
    let mut passing = token(2, Role::PlatformAdmin, None);
    passing.expires_at = Some(Timestamp(world.now + HOUR_MS));
    world.ask(Command::CreateToken(passing)).unwrap();
    world
}

#[test]
fn law_3_what_ends_a_token_takes_nothing_back_that_it_had_authorised() {
    let holder = || Actor::Person(token_id(2));
    let revoke: fn(&mut World) = |world| {
        let token = token_id(2);
        world.ask(Command::RevokeToken { token }).unwrap();
    };
    let expire: fn(&mut World) = |world| world.now += HOUR_MS;
    for end in [revoke, expire] {
        let mut world = with_passing_admin();
        // Even in the very millisecond of the end.
        let id = crate::fixture::deployment_of(world.ask_as(holder(), create("Before ISP")));
        let release = Command::AddRelease {
            manifest: crate::fixture::MANIFEST
                .replace("1.0.0", "1.0.1")
                .into_bytes(),
        };
        world.ask_as(holder(), release).unwrap();
        let further = token(3, Role::PlatformAdmin, None);
        let further = dotmac_domain::command::CreateToken {
            expires_at: Some(Timestamp(world.now + HOUR_MS)),
            ..further
        };
        world
            .ask_as(holder(), Command::CreateToken(further))
            .unwrap();
        world
            .ask_as(Actor::Person(token_id(3)), create("Made by its child"))
            .unwrap();
        end(&mut world);
        world.carry_on();
        assert_eq!(world.leaf(&id).verb, dotmac_protocol::wave::Verb::Apply);
        let wave = world.state.wave_number;
        assert_eq!(signed(&world, wave), Ok(()));
    }
}

#[test]
fn law_3_an_ended_token_asks_for_nothing_more_and_says_so() {
    let mut expired = with_passing_admin();
    expired.now += HOUR_MS - 1;
    expired
        .ask_as(Actor::Person(token_id(2)), create("In time"))
        .unwrap();
    expired.now += 1;
    let mut revoked = with_passing_admin();
    let token = token_id(2);
    revoked.ask(Command::RevokeToken { token }).unwrap();
    for (mut world, word) in [(expired, "expired"), (revoked, "revoked")] {
        let deployments = world.state.deployments.clone();
        let reply = world.ask_as(Actor::Person(token_id(2)), create("Too late"));
        let rejection = reply.unwrap_err();
        assert_eq!(rejection.code, Code::TokenEnded);
        assert!(rejection.detail.contains(word), "{}", rejection.detail);
        assert_eq!(world.state.deployments, deployments);
        // The plan that needs no proof is refused, too.
        let envelope = world.envelope(Actor::Person(token_id(2)), create("Dry run"));
        let refused = world.state.preview(&envelope).unwrap_err();
        assert_eq!(refused.code, Code::TokenEnded);
    }
}

#[test]
fn law_3_a_signer_does_not_believe_a_warrant_of_an_ended_token() {
    // A lying leader's State: the deployment stands, and its token had ended before.
    for end in [
        |token: &mut Token, at: u64| token.revoked_at = Some(Timestamp(at)),
        |token: &mut Token, at: u64| token.expires_at = Some(Timestamp(at)),
    ] {
        let mut world = with_passing_admin();
        world.now += 10;
        world
            .ask_as(Actor::Person(token_id(2)), create("Demo ISP"))
            .unwrap();
        let wave = seal_all(&mut world);
        assert_eq!(signed(&world, wave), Ok(()));
        let mut entry = world.state.tokens.get(&token_id(2)).unwrap().clone();
        end(&mut entry, world.now - 5);
        world.state.tokens.insert_mut(token_id(2), entry);
        assert_eq!(
            unproven(signed(&world, wave)),
            ("deployment", EvidenceError::Ended)
        );
    }
}

#[test]
fn law_3_no_token_is_made_that_signers_would_not_follow_back() {
    let (mut world, _) = World::with_agent();
    let max = TOKEN_CHAIN_MAX as u64;
    for number in 2..=max {
        let maker = Actor::Person(token_id(number - 1));
        let command = Command::CreateToken(token(number, Role::PlatformAdmin, None));
        world.ask_as(maker, command).unwrap();
    }
    let last = Actor::Person(token_id(max));
    world.ask_as(last.clone(), create("Demo ISP")).unwrap();
    let wave = seal_all(&mut world);
    assert_eq!(signed(&world, wave), Ok(()));
    let command = Command::CreateToken(token(max + 1, Role::PlatformAdmin, None));
    let reply = world.ask_as(last, command.clone());
    assert_eq!(code_of(reply), Code::LimitReached);
    world.ask(command).unwrap();
}

#[test]
fn law_3_the_platform_keeps_an_administrator_whatever_is_revoked() {
    let mut world = with_passing_admin();
    let revoke = |world: &mut World, who: u64, which: u64| {
        let token = token_id(which);
        world.ask_as(Actor::Person(token_id(who)), Command::RevokeToken { token })
    };
    // Another one that ends does not replace it.
    let refused = revoke(&mut world, 2, 1).unwrap_err();
    assert_eq!(refused.code, Code::WrongState);
    assert!(refused.detail.contains("last platform_admin"), "{refused}");
    assert_eq!(code_of(revoke(&mut world, 1, 1)), Code::WrongState);
    world
        .ask(Command::CreateToken(token(3, Role::PlatformAdmin, None)))
        .unwrap();
    assert!(revoke(&mut world, 3, 1).is_ok());
    assert_eq!(code_of(revoke(&mut world, 3, 3)), Code::WrongState);
    // Twice is the same as once.
    let before = world.state.tokens.clone();
    assert!(revoke(&mut world, 3, 1).is_ok());
    assert_eq!(world.state.tokens, before);
}
