//! Licences: time restricts and never stops, an operator's order stops and starts, and neither replaces a process.
//! Longer than 400 lines: the claims about one thing, which share its orders.

use dotmac_domain::{
    Changed, Command, Reply,
    access::{Permission, Role},
    audit::{AuditRecord, Link, Stream},
    command::{UpdateDeployment, UpdateLicense, UpdateTenant},
    envelope::Actor,
    reply::Code,
    tenancy::{Deployment, LicenseOrder, Status},
};
use dotmac_protocol::{
    codec,
    ids::{DeploymentId, UnitId},
    license::{GRACE_MAX_MS, LicenseStanding, Phase, Tier},
    record::{HealthStatus, Outcome},
    time::Timestamp,
    unit::{Instance, Payload, RunState},
};

use crate::fixture::{HOUR_MS, START, TestAgent, World, admin, code_of, create, token, token_id};

/// An update that changes nothing.
fn update(id: &DeploymentId) -> UpdateLicense {
    UpdateLicense {
        deployment: id.clone(),
        license_tier: None,
        max_subscribers: None,
        max_services: None,
        api_rate_limit: None,
        expires_at: None,
        grace_ms: None,
    }
}

/// An update that gives an end.
pub(crate) fn longer(id: &DeploymentId) -> UpdateLicense {
    UpdateLicense {
        expires_at: Some(Some(Timestamp(START + 24 * HOUR_MS))),
        ..update(id)
    }
}

pub(crate) fn suspend(id: &DeploymentId) -> Command {
    Command::SuspendLicense {
        deployment: id.clone(),
        reason: "unpaid".into(),
    }
}

fn revoke(id: &DeploymentId) -> Command {
    Command::RevokeLicense {
        deployment: id.clone(),
        reason: "fraud".into(),
    }
}

fn reinstate(id: &DeploymentId) -> Command {
    Command::ReinstateLicense {
        deployment: id.clone(),
    }
}

fn resume(id: &DeploymentId) -> Command {
    Command::ResumeDeployment {
        deployment: id.clone(),
    }
}

fn ask(world: &mut World, update: UpdateLicense) -> Reply {
    world.ask(Command::UpdateLicense(Box::new(update)))
}

fn deployment<'w>(world: &'w World, id: &DeploymentId) -> &'w Deployment {
    &world.state.deployments[id]
}

fn instance(world: &World, agent: &TestAgent, id: &DeploymentId) -> Instance {
    let unit = &world.state.units[&(agent.id.clone(), UnitId::instance(id))];
    let Ok(Payload::Instance(instance)) = codec::decode(&unit.payload) else {
        panic!("no instance is ordered");
    };
    *instance
}

/// The agent takes what is ordered and says how it is.
fn report(world: &mut World, agent: &mut TestAgent, id: &DeploymentId, status: HealthStatus) {
    world.carry_on();
    let unit = world.state.units[&(agent.id.clone(), UnitId::instance(id))].clone();
    let leaf = world.leaf_like(id, &unit);
    let records = vec![
        agent.receipt(&leaf, Outcome::Accepted),
        agent.health(&leaf, status, ""),
    ];
    world.report(agent, records).unwrap();
}

#[test]
fn a_licence_changes_as_a_new_generation_that_replaces_nothing() {
    let (mut world, mut agent, id) = World::with_active();
    let (before, ordered) = (
        deployment(&world, &id).clone(),
        instance(&world, &agent, &id),
    );
    let all = UpdateLicense {
        license_tier: Some("professional".into()),
        max_subscribers: Some(5_000),
        max_services: Some(900),
        api_rate_limit: Some(2_000),
        grace_ms: Some(HOUR_MS),
        ..longer(&id)
    };
    ask(&mut world, all).unwrap();
    let after = deployment(&world, &id).clone();
    assert_eq!(after.status, Status::Active);
    assert_eq!(after.generation, before.generation.next());
    assert_eq!(after.permission, Permission::LicenseUpdate);
    assert_eq!(after.license_tier, "professional");
    let sent = instance(&world, &agent, &id);
    assert_eq!(
        (sent.license.tier, sent.license.max_subscribers),
        (Tier::Premium, 5_000)
    );
    assert_eq!(
        (sent.license.max_services, sent.license.api_rate_limit),
        (900, 2_000)
    );
    // All else of the order is as it was, so that nothing has to be started anew.
    let unlicensed = Instance {
        license: ordered.license.clone(),
        ..sent
    };
    assert_eq!(unlicensed, ordered);
    // Controllers sign it: the warrant is the licence's.
    world.carry_on();
    let number = world.state.wave_number;
    let now = Timestamp(world.now);
    dotmac_domain::signer::check(&world.state, number, now).unwrap();
    report(&mut world, &mut agent, &id, HealthStatus::Healthy);
    assert_eq!(deployment(&world, &id).waiting, None);
    // What is asked for again changes nothing.
    let again = longer(&id);
    ask(&mut world, again).unwrap();
    assert_eq!(deployment(&world, &id).generation, after.generation);
    let never = UpdateLicense {
        expires_at: Some(None),
        ..update(&id)
    };
    ask(&mut world, never).unwrap();
    assert_eq!(deployment(&world, &id).license.expires_at, None);
}

#[test]
fn another_licence_tier_alone_is_no_upgrade_even_when_the_tenant_is_called_otherwise_by_now() {
    let (mut world, _, id) = World::with_active();
    let tenant = deployment(&world, &id).tenant.clone();
    let rename = UpdateTenant {
        tenant,
        name: Some("Another Name".into()),
        reseller: None,
    };
    world.ask(Command::UpdateTenant(rename)).unwrap();
    let mut patch = UpdateDeployment {
        deployment: id.clone(),
        resource_tier: None,
        resources: None,
        license_tier: Some("enterprise".into()),
        image_tag: None,
        min_replicas: None,
        max_replicas: None,
        domain_name: None,
        features: None,
    };
    let command = Command::UpdateDeployment(Box::new(patch.clone()));
    world.ask(command).unwrap();
    let licensed = deployment(&world, &id);
    assert_eq!(
        (licensed.status, licensed.license.tier),
        (Status::Active, Tier::Enterprise)
    );
    assert_eq!(licensed.tenant_name, "Demo ISP");
    patch.max_replicas = Some(2);
    world
        .ask(Command::UpdateDeployment(Box::new(patch)))
        .unwrap();
    assert_eq!(deployment(&world, &id).tenant_name, "Another Name");
}

#[test]
fn a_withdrawn_licence_stops_the_instance_and_only_its_reinstatement_starts_it() {
    let (mut world, mut agent, id) = World::with_active();
    world.ask(suspend(&id)).unwrap();
    let stopped = deployment(&world, &id).clone();
    assert_eq!(stopped.status, Status::Suspended);
    assert_eq!(stopped.license.standing, LicenseStanding::Suspended);
    assert_eq!(
        stopped.suspended_reason.as_deref(),
        Some("license suspended: unpaid")
    );
    let order = LicenseOrder {
        reason: "unpaid".into(),
        since: Timestamp(world.now),
        stopped: true,
    };
    assert_eq!(stopped.license_order, Some(order));
    let sent = instance(&world, &agent, &id);
    assert_eq!(
        (sent.run, sent.license.phase(Timestamp(START))),
        (RunState::Suspended, Phase::Suspended)
    );
    report(&mut world, &mut agent, &id, HealthStatus::Stopped);
    let refused = world.ask(resume(&id)).unwrap_err();
    assert_eq!(refused.code, Code::WrongState);
    assert!(refused.detail.contains("unpaid"), "{refused}");
    assert_eq!(code_of(world.ask(suspend(&id))), Code::WrongState);

    world.ask(revoke(&id)).unwrap();
    assert_eq!(
        deployment(&world, &id).license.standing,
        LicenseStanding::Revoked
    );
    assert_eq!(code_of(world.ask(suspend(&id))), Code::WrongState);
    // Deleted and taken back, it is as withdrawn as before.
    let deployment_id = id.clone();
    world
        .ask(Command::DeleteDeployment {
            deployment: deployment_id.clone(),
        })
        .unwrap();
    assert_eq!(code_of(world.ask(reinstate(&id))), Code::WrongState);
    world
        .ask(Command::UndeleteDeployment {
            deployment: deployment_id,
        })
        .unwrap();
    assert_eq!(code_of(world.ask(resume(&id))), Code::WrongState);

    world.ask(reinstate(&id)).unwrap();
    let started = deployment(&world, &id).clone();
    assert_eq!(
        (started.status, started.license.standing),
        (Status::Provisioning, LicenseStanding::Valid)
    );
    assert_eq!(
        (started.license_order, started.suspended_reason),
        (None, None)
    );
    assert_eq!(instance(&world, &agent, &id).run, RunState::Running);
    report(&mut world, &mut agent, &id, HealthStatus::Healthy);
    assert_eq!(deployment(&world, &id).status, Status::Active);
    assert_eq!(code_of(world.ask(reinstate(&id))), Code::WrongState);
}

#[test]
fn what_stood_still_before_its_licence_was_withdrawn_does_not_start_with_it() {
    let (mut world, _, id) = World::with_active();
    let stop = Command::SuspendDeployment {
        deployment: id.clone(),
        reason: "moving".into(),
    };
    world.ask(stop).unwrap();
    world.ask(suspend(&id)).unwrap();
    assert_eq!(
        deployment(&world, &id).suspended_reason.as_deref(),
        Some("moving")
    );
    assert_eq!(code_of(world.ask(resume(&id))), Code::WrongState);
    world.ask(reinstate(&id)).unwrap();
    assert_eq!(deployment(&world, &id).status, Status::Suspended);
    world.ask(resume(&id)).unwrap();
    assert_eq!(deployment(&world, &id).status, Status::Provisioning);
}

#[test]
fn a_deployment_that_waits_for_its_agent_is_placed_once_its_licence_is_back() {
    let mut world = World::founded();
    world.add_release();
    let id = world.create("Demo ISP");
    world.ask(suspend(&id)).unwrap();
    let agent = world.join(40);
    assert_eq!(deployment(&world, &id).agent, None);
    let waiting = deployment(&world, &id).waiting.clone().unwrap();
    assert!(waiting.who.contains("licenses reinstate"), "{waiting:?}");
    world.ask(reinstate(&id)).unwrap();
    let placed = deployment(&world, &id);
    assert_eq!(
        (placed.status, placed.agent.as_ref()),
        (Status::Provisioning, Some(&agent.id))
    );
    assert_eq!(instance(&world, &agent, &id).run, RunState::Running);
}

#[test]
fn law_5_time_alone_stops_nothing_and_its_phases_are_told_to_those_who_watch() {
    let (mut world, _, id) = World::with_active();
    world.carry_on();
    let short = UpdateLicense {
        expires_at: Some(Some(Timestamp(world.now + HOUR_MS))),
        grace_ms: Some(HOUR_MS),
        ..update(&id)
    };
    ask(&mut world, short).unwrap();
    let generation = deployment(&world, &id).generation;
    for phase in [Phase::Grace, Phase::Restricted] {
        world.now += HOUR_MS;
        world.plan(Command::SealClock).unwrap();
        let told = world.applied.last().unwrap();
        assert!(told.changed.contains(&Changed::Deployment(id.clone())));
        let licensed = deployment(&world, &id);
        assert_eq!(licensed.license.phase(world.state.now), phase);
        assert_eq!(
            (licensed.generation, licensed.run_state()),
            (generation, RunState::Running)
        );
    }
    world.now += HOUR_MS;
    world.plan(Command::SealClock).unwrap();
    assert!(world.applied.last().unwrap().changed.is_empty());
}

#[test]
fn law_3_a_forged_licence_is_refused() {
    let (mut world, _, id) = World::with_active();
    let before = deployment(&world, &id).clone();
    for command in [
        Command::UpdateLicense(Box::new(longer(&id))),
        suspend(&id),
        revoke(&id),
        reinstate(&id),
    ] {
        assert_eq!(code_of(world.forge(command)), Code::Forbidden);
    }
    assert_eq!(deployment(&world, &id), &before);
}

#[test]
fn only_a_platform_admin_changes_a_licence_and_strangers_see_none() {
    let (mut world, _, id) = World::with_active();
    let tenant = deployment(&world, &id).tenant.clone();
    let other = world.create("Other ISP");
    let other = deployment(&world, &other).tenant.clone();
    let roles = [
        (Role::TenantAdmin, Some(&tenant), Code::Forbidden),
        (Role::Support, None, Code::Forbidden),
        (Role::Auditor, None, Code::Forbidden),
        (Role::TenantAdmin, Some(&other), Code::NotFound),
    ];
    for (number, (role, tenant, code)) in (7..).zip(roles) {
        let token = token(number, role, tenant);
        world.ask(Command::CreateToken(token)).unwrap();
        let actor = Actor::Person(token_id(number));
        for command in [
            Command::UpdateLicense(Box::new(longer(&id))),
            suspend(&id),
            revoke(&id),
            reinstate(&id),
        ] {
            assert_eq!(
                code_of(world.ask_as(actor.clone(), command)),
                code,
                "{role:?}"
            );
        }
        let may_read = code == Code::Forbidden;
        let tenant = &deployment(&world, &id).tenant;
        let permission = Permission::LicenseRead;
        assert_eq!(world.state.may(&actor, permission, Some(tenant)), may_read);
    }
}

#[test]
fn law_11_what_a_licence_grants_is_bounded() {
    let (mut world, _, id) = World::with_active();
    let wrong = [
        UpdateLicense {
            license_tier: Some("gold".into()),
            ..update(&id)
        },
        UpdateLicense {
            max_subscribers: Some(0),
            ..update(&id)
        },
        UpdateLicense {
            max_services: Some(100_001),
            ..update(&id)
        },
        UpdateLicense {
            api_rate_limit: Some(99),
            ..update(&id)
        },
        UpdateLicense {
            grace_ms: Some(GRACE_MAX_MS + 1),
            ..update(&id)
        },
        UpdateLicense {
            expires_at: Some(Some(Timestamp(u64::MAX))),
            ..update(&id)
        },
    ];
    let before = deployment(&world, &id).clone();
    for update in wrong {
        assert_eq!(code_of(ask(&mut world, update)), Code::Invalid);
    }
    let long = Command::SuspendLicense {
        deployment: id.clone(),
        reason: "x".repeat(501),
    };
    assert_eq!(code_of(world.ask(long)), Code::Invalid);
    assert_eq!(deployment(&world, &id), &before);
}

#[test]
fn every_change_of_a_licence_is_in_its_tenants_story() {
    let (mut world, _, id) = World::with_active();
    let tenant = deployment(&world, &id).tenant.clone();
    ask(&mut world, longer(&id)).unwrap();
    for command in [
        suspend(&id),
        revoke(&id),
        reinstate(&id),
        create("Other ISP"),
    ] {
        world.ask(command).unwrap();
    }
    let mut late = world.proven(admin(), suspend(&id));
    late.expected = Some(1);
    assert_eq!(code_of(world.apply(&late)), Code::PreconditionFailed);
    let told: Vec<String> = world
        .facts()
        .into_iter()
        .filter(|fact| fact.stream == Stream::Tenant(tenant.clone()))
        .filter_map(|fact| match fact.link {
            Link::Entry(bytes) => codec::decode::<AuditRecord>(&bytes).ok(),
            Link::Record(_) | Link::Report(_) => None,
        })
        .map(|record| format!("{}: {}", record.entry.action, record.entry.detail))
        .filter(|told| told.starts_with("license."))
        .collect();
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!(
        told[..4],
        [
            format!("license.updated: {id} expires_at=2023-11-15T22:13:20Z"),
            format!("license.suspended: {id}: unpaid"),
            format!("license.revoked: {id}: fraud"),
            format!("license.reinstated: {id}"),
        ]
    );
    assert!(
        told[4].starts_with("license.suspended.refused: "),
        "{told:?}"
    );
}
