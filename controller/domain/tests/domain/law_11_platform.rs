//! Law 11, the platform's own things: tokens, tenants, regions and revoked agents have a limit, and what happens there
//! is said clearly.

use dotmac_domain::{
    Command,
    access::{LIVE_TOKENS_MAX, Role, TOKEN_USES_MAX, TOKENS_MAX, Token},
    fleet::REVOKED_AGENTS_MAX,
    region::{REGION_DESCRIPTION_CHARS_MAX, REGIONS_MAX},
    reply::Code,
    tenancy::{DESTROYED_KEPT_MS, TENANTS_MAX},
};
use dotmac_protocol::{digest::Digest, time::Timestamp};

use crate::fixture::{GRACE_MS, World, code_of, create, token, token_id};

/// Puts tokens into the State until it has `count`.
fn fill(world: &mut World, count: usize, template: &Token) {
    for number in 0x10_0000.. {
        if world.state.tokens.size() >= count {
            return;
        }
        let entry = Token {
            secret_digest: Digest::of(&u64::to_le_bytes(number)),
            ..template.clone()
        };
        let id = token_id(number);
        world
            .state
            .token_ids
            .insert_mut(entry.secret_digest, id.clone());
        world.state.tokens.insert_mut(id, entry);
    }
}

fn ask(world: &mut World, number: u64) -> dotmac_domain::Reply {
    world.ask(Command::CreateToken(token(number, Role::Support, None)))
}

#[test]
fn law_11_tokens_that_count_are_bounded_and_an_ended_one_makes_room() {
    let mut world = World::founded();
    ask(&mut world, 2).unwrap();
    let template = world.state.tokens.get(&token_id(2)).unwrap().clone();
    fill(&mut world, LIVE_TOKENS_MAX, &template);
    let refused = ask(&mut world, 3).unwrap_err();
    assert_eq!(refused.code, Code::LimitReached);
    assert!(refused.detail.contains("10000"), "{refused}");
    let token = token_id(2);
    world.ask(Command::RevokeToken { token }).unwrap();
    assert!(ask(&mut world, 3).is_ok());
}

#[test]
fn law_11_ended_tokens_are_forgotten_at_the_limit_but_those_that_something_rests_on() {
    let (mut world, _) = World::with_agent();
    world
        .ask(Command::CreateToken(token(2, Role::PlatformAdmin, None)))
        .unwrap();
    let holder = dotmac_domain::envelope::Actor::Person(token_id(2));
    let id = crate::fixture::deployment_of(world.ask_as(holder, create("Demo ISP")));
    ask(&mut world, 3).unwrap();
    for number in [2, 3] {
        let token = token_id(number);
        world.ask(Command::RevokeToken { token }).unwrap();
    }
    let ended = world.state.tokens.get(&token_id(3)).unwrap().clone();
    fill(&mut world, TOKENS_MAX, &ended);
    ask(&mut world, 4).unwrap();
    let left: Vec<_> = world.state.tokens.keys().cloned().collect();
    assert_eq!(left, [token_id(1), token_id(2), token_id(4)]);
    assert_eq!(world.state.token_ids.size(), 3);
    world.carry_on();
    assert_eq!(world.leaf(&id).tenant.as_str(), id.as_str());
    let wave = world.state.wave_number;
    assert_eq!(crate::law_3_signers::signed(&world, wave), Ok(()));
}

#[test]
fn law_11_tokens_are_refused_when_all_are_still_needed() {
    let mut world = World::founded();
    ask(&mut world, 2).unwrap();
    let token = token_id(2);
    world.ask(Command::RevokeToken { token }).unwrap();
    // Each one made the next: none can go.
    let mut template = world.state.tokens.get(&token_id(2)).unwrap().clone();
    let mut before = token_id(2);
    for number in 0x10_0000_u64.. {
        if world.state.tokens.size() >= TOKENS_MAX {
            break;
        }
        let actor = dotmac_domain::envelope::Actor::Person(before);
        template.warrant.as_mut().unwrap().actor = actor;
        before = token_id(number);
        world
            .state
            .tokens
            .insert_mut(before.clone(), template.clone());
    }
    let last = world.state.tokens.get(&before).unwrap().clone();
    // Something rests on the last one, too.
    let mut live = last.clone();
    (live.revoked_at, live.secret_digest) = (None, Digest::of(b"live"));
    live.warrant.as_mut().unwrap().actor = dotmac_domain::envelope::Actor::Person(before);
    world.state.tokens.insert_mut(token_id(2), live);
    let refused = ask(&mut world, 3).unwrap_err();
    assert_eq!(refused.code, Code::LimitReached);
    assert!(refused.detail.contains("100000"), "{refused}");
}

#[test]
fn law_11_tenants_are_bounded_however_they_are_made_and_old_cancelled_ones_make_room() {
    let (mut world, _) = World::with_agent();
    let make = || Command::CreateTenant {
        name: "Demo ISP".into(),
        reseller: None,
    };
    world.ask(make()).unwrap();
    let template = world.state.tenants.values().next().unwrap().clone();
    for number in world.state.tenants.size()..TENANTS_MAX {
        let id = format!("t-{number:08x}").parse().unwrap();
        world.state.tenants.insert_mut(id, template.clone());
    }
    for command in [make(), create("Demo ISP")] {
        let refused = world.ask(command).unwrap_err();
        assert_eq!(refused.code, Code::LimitReached);
        assert!(refused.detail.contains("20000"), "{refused}");
    }
    let oldest = world.state.tenants.keys().next().unwrap().clone();
    let tenant = oldest.clone();
    world.ask(Command::DeleteTenant { tenant }).unwrap();
    assert_eq!(code_of(world.ask(make())), Code::LimitReached);
    world.now += DESTROYED_KEPT_MS;
    world.ask(make()).unwrap();
    assert_eq!(world.state.tenants.size(), TENANTS_MAX);
    assert!(!world.state.tenants.contains_key(&oldest));
}

#[test]
fn law_11_regions_are_bounded_and_so_are_their_descriptions() {
    let mut world = World::founded();
    let make = |number: usize, length: usize| Command::CreateRegion {
        region: format!("r-{number}").parse().unwrap(),
        description: "é".repeat(length),
    };
    let long = make(0, REGION_DESCRIPTION_CHARS_MAX + 1);
    assert_eq!(code_of(world.ask(long)), Code::Invalid);
    for number in world.state.regions.size()..REGIONS_MAX {
        let made = world.ask(make(number, REGION_DESCRIPTION_CHARS_MAX));
        assert!(made.is_ok(), "{number}");
    }
    let refused = world.ask(make(REGIONS_MAX, 0)).unwrap_err();
    assert_eq!(refused.code, Code::LimitReached);
}

#[test]
fn law_11_of_the_revoked_agents_the_oldest_is_forgotten() {
    let (mut world, first) = World::with_agent();
    let revoke = |world: &mut World, agent: &crate::fixture::TestAgent| {
        let agent = agent.id.clone();
        world.ask(Command::RevokeAgent { agent }).unwrap();
    };
    revoke(&mut world, &first);
    let template = world.state.revoked_agents.get(&first.id).unwrap().clone();
    world.now += GRACE_MS;
    let mut later = template;
    later.revoked_at = Timestamp(world.now);
    for number in 1..REVOKED_AGENTS_MAX {
        let id = format!("x-{number:08x}").parse().unwrap();
        world.state.revoked_agents.insert_mut(id, later.clone());
    }
    let second = world.join(41);
    revoke(&mut world, &second);
    assert_eq!(world.state.revoked_agents.size(), REVOKED_AGENTS_MAX);
    assert!(!world.state.revoked_agents.contains_key(&first.id));
    assert!(world.state.revoked_agents.contains_key(&second.id));
}

#[test]
fn law_11_one_command_notes_a_bounded_number_of_uses() {
    let mut world = World::founded();
    let uses = |count: usize| Command::NoteTokenUse {
        uses: vec![(token_id(1), Timestamp(0)); count],
    };
    assert!(world.plan(uses(TOKEN_USES_MAX)).is_ok());
    assert_eq!(code_of(world.plan(uses(TOKEN_USES_MAX + 1))), Code::Invalid);
}
