//! How a deployment is changed while it lives: every guarded transition, the tier's bounds, what a rollback brings back.
//! Longer than 400 lines: the claims about one life, which all begin with the same deployment.

use std::collections::BTreeMap;

use dotmac_domain::{
    Command, Envelope, Reply,
    access::Role,
    audit::Link,
    command::UpdateDeployment,
    desired::Unit,
    envelope::Actor,
    reply::Code,
    tenancy::{Deployment, Status},
};
use dotmac_protocol::{
    codec,
    ids::{DeploymentId, UnitId},
    record::{HealthStatus, Outcome},
    unit::{Instance, Payload, RunState},
};

use crate::fixture::{
    TestAgent, World, admin, code_of, create, deployment as creation, deployment_of, token,
    token_id,
};
use crate::licenses::{longer, suspend as suspend_license};

pub(crate) fn update(id: &DeploymentId) -> UpdateDeployment {
    UpdateDeployment {
        deployment: id.clone(),
        resource_tier: None,
        resources: None,
        license_tier: None,
        image_tag: None,
        min_replicas: None,
        max_replicas: None,
        domain_name: None,
        features: None,
    }
}

fn ask_update(world: &mut World, update: UpdateDeployment) -> Reply {
    world.ask(Command::UpdateDeployment(Box::new(update)))
}

fn scale(world: &mut World, id: &DeploymentId, replicas: u16) -> Reply {
    world.ask(Command::ScaleDeployment {
        deployment: id.clone(),
        replicas,
        reason: "more subscribers".into(),
    })
}

fn restart(id: &DeploymentId) -> Command {
    Command::RestartDeployment {
        deployment: id.clone(),
    }
}

fn suspend(id: &DeploymentId) -> Command {
    Command::SuspendDeployment {
        deployment: id.clone(),
        reason: "unpaid".into(),
    }
}

fn resume(id: &DeploymentId) -> Command {
    Command::ResumeDeployment {
        deployment: id.clone(),
    }
}

fn rollback(id: &DeploymentId) -> Command {
    Command::RollbackDeployment {
        deployment: id.clone(),
    }
}

fn deployment<'w>(world: &'w World, id: &DeploymentId) -> &'w Deployment {
    &world.state.deployments[id]
}

fn unit(world: &World, id: &DeploymentId) -> Unit {
    let units = world.state.units.iter();
    let mut own = units.filter(|((_, unit), _)| *unit == UnitId::instance(id));
    own.next().expect("a unit").1.clone()
}

fn instance(world: &World, id: &DeploymentId) -> Instance {
    let Ok(Payload::Instance(instance)) = codec::decode(&unit(world, id).payload) else {
        panic!("no instance is ordered");
    };
    *instance
}

/// The agent says how the newest generation is.
pub(crate) fn report(
    world: &mut World,
    agent: &mut TestAgent,
    id: &DeploymentId,
    status: HealthStatus,
) {
    world.carry_on();
    let leaf = world.leaf_like(id, &unit(world, id));
    let records = vec![
        agent.receipt(&leaf, Outcome::Accepted),
        agent.health(&leaf, status, "said by a test"),
    ];
    world.report(agent, records).unwrap();
}

#[test]
fn an_order_belongs_to_the_trace_of_the_request_that_led_to_it_and_is_the_same_with_or_without() {
    let (mut world, mut agent, id) = World::with_active();
    assert_eq!(unit(&world, &id).trace, None);
    let before = unit(&world, &id);
    let mut envelope = world.proven(admin(), restart(&id));
    envelope.trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        .parse()
        .ok();
    let mut untraced = world.state.clone();
    let reply = untraced.apply(&Envelope {
        trace: None,
        ..envelope.clone()
    });
    assert_eq!(world.apply(&envelope), reply.reply);
    let ordered = unit(&world, &id);
    assert_eq!(ordered.trace, envelope.trace);
    assert_eq!(ordered.generation, before.generation.next());
    let key = untraced
        .units
        .iter()
        .find(|(_, unit)| unit.deployment == id);
    let same = Unit {
        trace: None,
        ..ordered
    };
    assert_eq!(key.unwrap().1, &same, "a trace decides nothing");
    report(&mut world, &mut agent, &id, HealthStatus::Healthy);
    assert_eq!(unit(&world, &id).trace, envelope.trace);
}

#[test]
fn an_upgrade_is_confirmed_by_health_and_rolled_back_to_the_version_before() {
    let (mut world, mut agent, id) = World::with_active();
    let first = deployment(&world, &id).clone();
    assert_eq!(first.rollback_target(), None);
    assert_eq!(code_of(world.ask(rollback(&id))), Code::WrongState);
    let medium = UpdateDeployment {
        resource_tier: Some("medium".into()),
        features: Some(BTreeMap::from([("crm".into(), Some(true))])),
        ..update(&id)
    };
    ask_update(&mut world, medium).unwrap();
    let upgrading = deployment(&world, &id).clone();
    assert_eq!(upgrading.status, Status::Upgrading);
    assert_eq!(
        (upgrading.max_replicas, upgrading.tier_max_replicas),
        (5, 5)
    );
    assert_eq!(instance(&world, &id).resources.cpu_limit_millis, 2000);
    // Copies that are replaced are no degradation, and confirm nothing.
    report(&mut world, &mut agent, &id, HealthStatus::Degraded);
    assert_eq!(deployment(&world, &id).status, Status::Upgrading);
    assert!(
        deployment(&world, &id)
            .confirmed
            .as_ref()
            .unwrap()
            .is_of(&first)
    );
    report(&mut world, &mut agent, &id, HealthStatus::Healthy);
    let second = deployment(&world, &id).clone();
    assert_eq!(second.status, Status::Active);
    assert!(second.confirmed.as_ref().unwrap().is_of(&second));

    world.ask(rollback(&id)).unwrap();
    let back = deployment(&world, &id).clone();
    assert_eq!(back.status, Status::RollingBack);
    assert_eq!(
        (&back.resource_tier, &back.features, back.max_replicas),
        (&first.resource_tier, &first.features, first.max_replicas)
    );
    assert!(back.generation > second.generation && back.revision == second.revision + 1);
    report(&mut world, &mut agent, &id, HealthStatus::Healthy);
    assert_eq!(deployment(&world, &id).status, Status::Active);
}

#[test]
fn an_upgrade_that_fails_is_rolled_back_to_what_ran_last() {
    let (mut world, mut agent, id) = World::with_active();
    let large = UpdateDeployment {
        resource_tier: Some("large".into()),
        ..update(&id)
    };
    ask_update(&mut world, large.clone()).unwrap();
    report(&mut world, &mut agent, &id, HealthStatus::Failed);
    assert_eq!(deployment(&world, &id).status, Status::Failed);
    assert_eq!(code_of(ask_update(&mut world, large)), Code::WrongState);
    world.ask(rollback(&id)).unwrap();
    assert_eq!(deployment(&world, &id).resource_tier, "small");
    report(&mut world, &mut agent, &id, HealthStatus::Healthy);
    assert_eq!(deployment(&world, &id).status, Status::Active);
}

#[test]
fn the_tiers_maximum_bounds_every_number_of_copies() {
    let (mut world, _, id) = World::with_active();
    let rejection = scale(&mut world, &id, 4).unwrap_err();
    let error = &rejection.errors[0];
    assert_eq!(rejection.code, Code::Invalid);
    assert_eq!(
        (
            error.field.as_str(),
            error.value.as_str(),
            error.allowed.as_str()
        ),
        ("replicas", "4", "at most 3, the maximum of tier small")
    );
    for (least, most) in [
        (Some(4), None),
        (None, Some(4)),
        (Some(3), Some(2)),
        (Some(0), None),
    ] {
        let wrong = UpdateDeployment {
            min_replicas: least,
            max_replicas: most,
            ..update(&id)
        };
        assert_eq!(code_of(ask_update(&mut world, wrong)), Code::Invalid);
    }
    scale(&mut world, &id, 3).unwrap();
    assert_eq!(instance(&world, &id).replicas, 3);
    let narrow = UpdateDeployment {
        max_replicas: Some(2),
        ..update(&id)
    };
    ask_update(&mut world, narrow).unwrap();
    assert_eq!(
        instance(&world, &id).replicas,
        2,
        "copies follow their bounds"
    );
    assert_eq!(code_of(scale(&mut world, &id, 3)), Code::Invalid);
    let micro = UpdateDeployment {
        resource_tier: Some("micro".into()),
        ..update(&id)
    };
    ask_update(&mut world, micro).unwrap();
    assert_eq!(deployment(&world, &id).max_replicas, 2);
}

#[test]
fn a_suspended_deployment_is_stopped_until_it_is_resumed() {
    let (mut world, mut agent, id) = World::with_active();
    world.ask(suspend(&id)).unwrap();
    assert_eq!(deployment(&world, &id).status, Status::Suspended);
    assert_eq!(instance(&world, &id).run, RunState::Suspended);
    let waiting = deployment(&world, &id).waiting.clone();
    assert!(waiting.is_some(), "it is not stopped yet");
    report(&mut world, &mut agent, &id, HealthStatus::Stopped);
    assert_eq!(deployment(&world, &id).waiting, None);
    // What an agent says of it starts nothing.
    report(&mut world, &mut agent, &id, HealthStatus::Healthy);
    assert_eq!(deployment(&world, &id).status, Status::Suspended);
    assert_eq!(code_of(world.ask(suspend(&id))), Code::WrongState);
    assert_eq!(code_of(world.ask(restart(&id))), Code::WrongState);

    let deletion = Command::DeleteDeployment {
        deployment: id.clone(),
    };
    world.ask(deletion).unwrap();
    assert_eq!(deployment(&world, &id).run_state(), RunState::Suspended);
    let undeletion = Command::UndeleteDeployment {
        deployment: id.clone(),
    };
    world.ask(undeletion).unwrap();
    assert_eq!(deployment(&world, &id).status, Status::Suspended);

    world.ask(resume(&id)).unwrap();
    assert_eq!(deployment(&world, &id).status, Status::Provisioning);
    assert_eq!(instance(&world, &id).run, RunState::Running);
    report(&mut world, &mut agent, &id, HealthStatus::Healthy);
    assert_eq!(deployment(&world, &id).status, Status::Active);
    assert_eq!(code_of(world.ask(resume(&id))), Code::WrongState);
}

#[test]
fn a_tenant_neither_resumes_what_the_operator_suspended_nor_chooses_what_is_paid_for() {
    let (mut world, _, id) = World::with_active();
    let tenant = deployment(&world, &id).tenant.clone();
    let own = token(7, Role::TenantAdmin, Some(&tenant));
    world.ask(Command::CreateToken(own)).unwrap();
    let own = Actor::Person(token_id(7));
    for tier in [
        UpdateDeployment {
            license_tier: Some("enterprise".into()),
            ..update(&id)
        },
        UpdateDeployment {
            resource_tier: Some("xlarge".into()),
            ..update(&id)
        },
    ] {
        let command = Command::UpdateDeployment(Box::new(tier));
        assert_eq!(code_of(world.ask_as(own.clone(), command)), Code::Forbidden);
    }
    let mut further = creation("");
    further.tenant = Some(tenant);
    further.environment = "staging".into();
    further.license_tier = "enterprise".into();
    let command = Command::CreateDeployment(Box::new(further));
    assert_eq!(code_of(world.ask_as(own.clone(), command)), Code::Forbidden);

    world.ask(suspend(&id)).unwrap();
    assert_eq!(
        code_of(world.ask_as(own.clone(), resume(&id))),
        Code::Forbidden
    );
    world.ask(resume(&id)).unwrap();
    world.ask_as(own.clone(), suspend(&id)).unwrap();
    world.ask_as(own, resume(&id)).unwrap();
}

#[test]
fn law_7_the_story_of_a_tenant_names_nobody_elses_deployment() {
    let (mut world, _, id) = World::with_active();
    let other = world.create("Secret ISP");
    let named = |id: &DeploymentId| UpdateDeployment {
        domain_name: Some("secret.example".into()),
        ..update(id)
    };
    let mut taken = creation("Third ISP");
    taken.domain_name = Some("secret.example".into());
    let third = deployment_of(world.ask(Command::CreateDeployment(Box::new(taken))));
    let rejection = ask_update(&mut world, named(&id)).unwrap_err();
    assert!(
        rejection.detail.contains(third.as_str()),
        "he may see it: {rejection}"
    );
    let told = format!("{:?}", world.facts().last().unwrap());
    let text = String::from_utf8_lossy(&entry_bytes(&world)).into_owned();
    assert!(text.contains("the domain is in use"), "{told}");
    assert!(
        !text.contains(third.as_str()) && !text.contains(other.as_str()),
        "{text}"
    );
}

/// The last entry that apply wrote.
fn entry_bytes(world: &World) -> Vec<u8> {
    match &world.facts().last().unwrap().link {
        Link::Entry(bytes) => bytes.clone(),
        Link::Record(_) | Link::Report(_) => panic!("a record is no entry"),
    }
}

#[test]
fn only_guarded_transitions_exist() {
    let all = [
        Status::Pending,
        Status::Provisioning,
        Status::Active,
        Status::Degraded,
        Status::Upgrading,
        Status::RollingBack,
        Status::Suspended,
        Status::Failed,
        Status::Destroying,
        Status::Destroyed,
    ];
    let (world, _, id) = World::with_active();
    let mut allowed = Vec::new();
    for status in all {
        let commands = [
            ("update", {
                let domain_name = Some("new.example".into());
                let update = UpdateDeployment {
                    domain_name,
                    ..update(&id)
                };
                Command::UpdateDeployment(Box::new(update))
            }),
            (
                "scale",
                Command::ScaleDeployment {
                    deployment: id.clone(),
                    replicas: 2,
                    reason: String::new(),
                },
            ),
            ("restart", restart(&id)),
            ("suspend", suspend(&id)),
            ("resume", resume(&id)),
            ("license", Command::UpdateLicense(Box::new(longer(&id)))),
            ("suspend license", suspend_license(&id)),
        ];
        for (name, command) in commands {
            let mut world = world.clone();
            let mut changed = deployment(&world, &id).clone();
            changed.status = status;
            world.state.deployments.insert_mut(id.clone(), changed);
            match world.ask(command) {
                Ok(_) => allowed.push((name, status)),
                Err(rejection) => assert_eq!(rejection.code, Code::WrongState, "{name} {status:?}"),
            }
        }
    }
    allowed.sort_unstable();
    let mut expected = vec![
        ("update", Status::Active),
        ("update", Status::Degraded),
        ("scale", Status::Active),
        ("scale", Status::Degraded),
        ("restart", Status::Active),
        ("restart", Status::Degraded),
        ("restart", Status::Failed),
        ("suspend", Status::Provisioning),
        ("suspend", Status::Active),
        ("suspend", Status::Degraded),
        ("suspend", Status::Upgrading),
        ("suspend", Status::RollingBack),
        ("suspend", Status::Failed),
        ("resume", Status::Suspended),
    ];
    // A licence may be changed until its deployment is deleted.
    for status in &all[..8] {
        expected.extend([("license", *status), ("suspend license", *status)]);
    }
    expected.sort_unstable();
    assert_eq!(allowed, expected);
}

#[test]
fn a_change_of_another_revision_than_the_asker_saw_is_refused() {
    let (mut world, _, id) = World::with_active();
    let seen = deployment(&world, &id).revision;
    world.ask(restart(&id)).unwrap();
    let mut late = world.proven(admin(), restart(&id));
    late.expected = Some(seen);
    let before = world.state.clone();
    assert_eq!(code_of(world.apply(&late)), Code::PreconditionFailed);
    assert_eq!(world.state.deployments, before.deployments);
    let mut in_time = world.proven(admin(), restart(&id));
    in_time.expected = Some(seen + 1);
    world.apply(&in_time).unwrap();
    // Health is no change that a person decided.
    assert_eq!(deployment(&world, &id).revision, seen + 2);
}

#[test]
fn a_host_name_that_is_given_up_is_free_again() {
    let (mut world, _, id) = World::with_active();
    let other = world.create("Other ISP");
    let named = |id: &DeploymentId, name: &str| UpdateDeployment {
        domain_name: Some(name.into()),
        ..update(id)
    };
    ask_update(&mut world, named(&id, "One.Example")).unwrap();
    assert_eq!(
        deployment(&world, &id).domain_name.as_deref(),
        Some("one.example")
    );
    let mut taken = create("Third ISP");
    let Command::CreateDeployment(third) = &mut taken else {
        panic!("create makes a deployment");
    };
    third.domain_name = Some("one.example".into());
    assert_eq!(code_of(world.ask(taken.clone())), Code::DomainInUse);
    ask_update(&mut world, named(&id, "two.example")).unwrap();
    world.ask(taken).unwrap();
    assert!(world.state.deployments.contains_key(&other));
}

#[test]
fn a_preview_shows_the_change_and_leaves_no_trace() {
    let (mut world, _, id) = World::with_active();
    let before = world.state.clone();
    let envelope = world.envelope(admin(), restart(&id));
    let (after, _) = world.state.preview(&envelope).unwrap();
    assert_eq!(after.deployments[&id].restarts, 1);
    assert_eq!(world.state, before);
    let envelope = world.envelope(admin(), resume(&id));
    let rejection = world.state.preview(&envelope).unwrap_err();
    assert_eq!(rejection.code, Code::WrongState);
}

#[test]
fn law_3_a_forged_change_is_refused_and_carried_along_by_none() {
    let (mut world, _, id) = World::with_active();
    let before = deployment(&world, &id).clone();
    let forged = UpdateDeployment {
        features: Some(BTreeMap::from([("backdoor".into(), Some(true))])),
        ..update(&id)
    };
    let commands = [
        Command::UpdateDeployment(Box::new(forged)),
        restart(&id),
        suspend(&id),
    ];
    for command in commands {
        assert_eq!(code_of(world.forge(command)), Code::Forbidden);
    }
    assert_eq!(deployment(&world, &id), &before);
    // A forged deployment cannot be made good by a change that somebody really asked for.
    let forged = world.forge(create("Forged ISP"));
    let forged = deployment_of(forged);
    let mut changed = deployment(&world, &forged).clone();
    changed.status = Status::Active;
    world.state.deployments.insert_mut(forged.clone(), changed);
    assert_eq!(code_of(world.ask(restart(&forged))), Code::Forbidden);
}
