//! Law 7, what belongs to tenants and to the platform: foreign equals unknown, nobody gives what he has not, and a role
//! opens what the contract says.

use std::collections::BTreeSet;

use dotmac_domain::{
    Command,
    access::{Permission, Role},
    audit::Stream,
    command::{UpdateRegion, UpdateTenant},
    envelope::Actor,
    reply::Code,
};
use dotmac_protocol::{ids::TenantId, time::Timestamp};

use crate::fixture::{HOUR_MS, World, code_of, join_token, token, token_id};

/// Two tenants, and a token of every role; those bound to a tenant belong to the first. The number of a role's token
/// is 10 and its place.
fn every_role() -> (World, TenantId, TenantId) {
    let (mut world, _, own) = World::with_active();
    let own = world.state.deployments.get(&own).unwrap().tenant.clone();
    let foreign = world.create("Other ISP");
    let foreign = world
        .state
        .deployments
        .get(&foreign)
        .unwrap()
        .tenant
        .clone();
    for (number, role) in (10..).zip(Role::ALL) {
        let tenant = role.is_tenant_bound().then_some(&own);
        world
            .ask(Command::CreateToken(token(number, role, tenant)))
            .unwrap();
    }
    (world, own, foreign)
}

fn holder(role: Role) -> Actor {
    let place = Role::ALL.iter().position(|one| *one == role).unwrap();
    Actor::Person(token_id(10 + place as u64))
}

#[test]
fn law_7_a_foreign_tenant_equals_an_unknown_one_whatever_is_asked_of_it() {
    let (world, _, foreign) = every_role();
    let nobody: TenantId = format!("{}-00000000", "x".repeat(foreign.as_str().len() - 9))
        .parse()
        .unwrap();
    type Ask = fn(&TenantId) -> Command;
    let asks: [Ask; 2] = [
        |tenant| {
            Command::UpdateTenant(UpdateTenant {
                tenant: tenant.clone(),
                name: Some("Mine now".into()),
                reseller: None,
            })
        },
        |tenant| Command::DeleteTenant {
            tenant: tenant.clone(),
        },
    ];
    for ask in asks {
        for role in [Role::TenantAdmin, Role::TenantUser, Role::Reseller] {
            let (mut one, mut other) = (world.clone(), world.clone());
            let of_foreign = one.ask_as(holder(role), ask(&foreign));
            let of_nobody = other.ask_as(holder(role), ask(&nobody));
            assert_eq!(code_of(of_foreign.clone()), Code::NotFound, "{role:?}");
            let text = |reply: &dotmac_domain::Reply, id: &TenantId| {
                format!("{reply:?}").replace(id.as_str(), "ID")
            };
            assert_eq!(text(&of_foreign, &foreign), text(&of_nobody, &nobody));
            let victims = Stream::Tenant(foreign.clone());
            assert_eq!(
                one.state.streams.get(&victims),
                world.state.streams.get(&victims)
            );
            let platform =
                |world: &World| world.state.streams.get(&Stream::Platform).unwrap().sequence;
            assert_eq!(platform(&one), platform(&other), "{role:?}");
            assert_eq!(one.state.visible_tenant(&holder(role), &foreign), None);
        }
        // Whoever reads everything, but may not change it, is told so.
        let mut reader = world.clone();
        let reply = reader.ask_as(holder(Role::Support), ask(&foreign));
        assert_eq!(code_of(reply), Code::Forbidden);
    }
}

#[test]
fn law_7_only_an_administrator_changes_the_platform() {
    let (world, own, _) = every_role();
    let mut passing = token(99, Role::TenantUser, Some(&own));
    passing.expires_at = Some(Timestamp(world.now + 1));
    let agent = world.state.agents.keys().next().unwrap().clone();
    let commands = [
        Command::CreateToken(passing),
        Command::CreateToken(token(98, Role::PlatformAdmin, None)),
        Command::RevokeToken { token: token_id(1) },
        Command::RevokeToken {
            token: token_id(0xffff),
        },
        Command::CreateTenant {
            name: "New ISP".into(),
            reseller: None,
        },
        Command::UpdateTenant(UpdateTenant {
            tenant: own.clone(),
            name: None,
            reseller: Some("me".into()),
        }),
        Command::DeleteTenant { tenant: own },
        Command::CreateRegion {
            region: "moon".parse().unwrap(),
            description: String::new(),
        },
        Command::UpdateRegion(UpdateRegion {
            region: "lab-1".parse().unwrap(),
            description: None,
            accepts_deployments: Some(false),
        }),
        Command::RevokeAgent { agent },
        Command::RevokeJoinToken {
            token: token_id(0x1000 + 40),
        },
        Command::CreateJoinToken(join_token(7)),
    ];
    for command in commands {
        for role in Role::ALL
            .into_iter()
            .filter(|one| *one != Role::PlatformAdmin)
        {
            let mut world = world.clone();
            let before = world.state.clone();
            let code = code_of(world.ask_as(holder(role), command.clone()));
            let is_hidden = code == Code::NotFound && role == Role::Reseller;
            assert!(code == Code::Forbidden || is_hidden, "{role:?} {command:?}");
            assert_eq!(world.state.tokens, before.tokens);
            assert_eq!(world.state.tenants, before.tenants);
            assert_eq!(world.state.regions, before.regions);
            assert_eq!(world.state.agents, before.agents);
            assert_eq!(world.state.join_tokens, before.join_tokens);
        }
        for actor in [Actor::Planner, Actor::Founder] {
            let mut world = world.clone();
            let reply = world.ask_as(actor.clone(), command.clone());
            assert!(reply.is_err(), "{actor:?} {command:?}");
        }
    }
}

#[test]
fn law_7_whoever_may_make_tokens_has_every_right_that_a_token_can_have() {
    for maker in Role::ALL {
        if !maker.grants(Permission::TokenWrite) {
            continue;
        }
        assert!(!maker.is_tenant_bound(), "{maker:?}");
        for role in Role::ALL {
            for permission in Permission::ALL {
                assert!(
                    !role.grants(permission) || maker.grants(permission),
                    "{maker:?} could give {permission:?} away without having it"
                );
            }
        }
    }
}

#[test]
fn law_7_permissions_are_named_once_and_reading_roles_change_nothing() {
    let names: BTreeSet<&str> = Permission::ALL.iter().map(|one| one.as_str()).collect();
    assert_eq!(names.len(), Permission::ALL.len());
    for role in [
        Role::Support,
        Role::Auditor,
        Role::TenantUser,
        Role::Reseller,
    ] {
        for permission in Permission::ALL {
            let reads = permission.as_str().ends_with(":read");
            assert!(reads || !role.grants(permission), "{role:?} {permission:?}");
        }
    }
    assert!(!Role::Support.grants(Permission::AuditRead));
    assert!(Role::Auditor.grants(Permission::AuditRead));
    for own in [
        Permission::DeploymentUpdate,
        Permission::DeploymentScale,
        Permission::DeploymentRestart,
    ] {
        assert!(Role::TenantAdmin.grants(own));
    }
}

#[test]
fn law_7_everybody_may_end_his_own_token_and_nobody_elses() {
    let (mut world, _, _) = every_role();
    for role in [Role::TenantUser, Role::Reseller, Role::Auditor] {
        let Actor::Person(own) = holder(role) else {
            panic!("a person");
        };
        let reply = world.ask_as(holder(role), Command::RevokeToken { token: own.clone() });
        assert!(reply.is_ok(), "{role:?} {reply:?}");
        let revoked = world.state.tokens.get(&own).unwrap();
        assert_eq!((revoked.revision, revoked.revoked_at.is_some()), (2, true));
        // The answer to the one who holds it no more is that it ended, and nothing else.
        let again = world.ask_as(holder(role), Command::RevokeToken { token: own });
        assert_eq!(code_of(again), Code::TokenEnded);
    }
}

#[test]
fn law_7_a_token_that_ends_makes_none_that_outlives_it() {
    let (mut world, _, _) = every_role();
    let mut passing = token(2, Role::PlatformAdmin, None);
    passing.expires_at = Some(Timestamp(world.now + HOUR_MS));
    world.ask(Command::CreateToken(passing)).unwrap();
    let ask = |world: &mut World, expires_at: Option<u64>| {
        let mut child = token(3, Role::Support, None);
        child.expires_at = expires_at.map(Timestamp);
        world.ask_as(Actor::Person(token_id(2)), Command::CreateToken(child))
    };
    let now = world.now;
    for wrong in [None, Some(now + HOUR_MS + 1), Some(now), Some(u64::MAX)] {
        let rejection = ask(&mut world, wrong).unwrap_err();
        assert_eq!(rejection.code, Code::Invalid, "{wrong:?}");
        assert_eq!(rejection.errors[0].field, "ttl_ms");
    }
    assert!(ask(&mut world, Some(now + HOUR_MS)).is_ok());
}
