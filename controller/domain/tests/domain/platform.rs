//! The platform's own things: tenants, regions, agents and tokens as operators change them.

use dotmac_domain::{
    Accepted, Command,
    command::{UpdateRegion, UpdateTenant},
    envelope::Actor,
    fleet::JoinTokenStatus,
    reply::Code,
    tenancy::{DESTROYED_KEPT_MS, Status, TenantStatus},
};
use dotmac_protocol::{
    ids::{DeploymentId, TenantId},
    record::Outcome,
    time::Timestamp,
};

use crate::fixture::{
    GRACE_MS, TestAgent, World, admin, code_of, create, deployment, deployment_of, join_token,
    token, token_id,
};

fn make_tenant(world: &mut World, name: &str) -> TenantId {
    let (name, reseller) = (name.into(), Some("partner-1".into()));
    match world.ask(Command::CreateTenant { name, reseller }) {
        Ok(Accepted::Tenant(id)) => id,
        other => panic!("no tenant: {other:?}"),
    }
}

fn status(world: &World, id: &TenantId) -> TenantStatus {
    world
        .state
        .status_of(id, world.state.tenants.get(id).unwrap())
}

fn delete(world: &mut World, tenant: &TenantId) -> dotmac_domain::Reply {
    let tenant = tenant.clone();
    world.ask(Command::DeleteTenant { tenant })
}

#[test]
fn a_tenant_lives_from_pending_to_cancelled_as_its_deployment_does() {
    let (mut world, mut agent) = World::with_agent();
    let id = make_tenant(&mut world, "  Ünïcödé ISP ");
    assert!(id.as_str().starts_with("unicode-isp-"), "{id}");
    assert_eq!(world.state.tenants.get(&id).unwrap().name, "Ünïcödé ISP");
    assert_eq!(status(&world, &id), TenantStatus::Pending);
    let mut request = deployment("");
    request.tenant = Some(id.clone());
    let first = deployment_of(world.ask(Command::CreateDeployment(Box::new(request))));
    assert_eq!(first, DeploymentId::first_of(&id));
    assert_eq!(status(&world, &id), TenantStatus::Provisioning);
    world.make_active(&mut agent, &first);
    assert_eq!(status(&world, &id), TenantStatus::Active);
    assert_eq!(code_of(delete(&mut world, &id)), Code::WrongState);
    world
        .ask(Command::DeleteDeployment {
            deployment: first.clone(),
        })
        .unwrap();
    assert_eq!(status(&world, &id), TenantStatus::Deprovisioning);
    assert_eq!(code_of(delete(&mut world, &id)), Code::WrongState);
    world.now += GRACE_MS;
    world.carry_on();
    world.confirm_removal(&mut agent, &first);
    assert_eq!(status(&world, &id), TenantStatus::Pending);
    assert_eq!(delete(&mut world, &id), Ok(Accepted::Tenant(id.clone())));
    assert_eq!(status(&world, &id), TenantStatus::Cancelled);
}

#[test]
fn every_status_of_a_deployment_is_one_of_its_tenant_and_production_decides() {
    let (mut world, _, first) = World::with_active();
    let id = world.state.deployments.get(&first).unwrap().tenant.clone();
    let mut request = deployment("");
    (request.tenant, request.environment) = (Some(id.clone()), "staging".into());
    let second = deployment_of(world.ask(Command::CreateDeployment(Box::new(request))));
    let mut put = |deployment: &DeploymentId, status: Status| {
        let mut entry = world.state.deployments.get(deployment).unwrap().clone();
        entry.status = status;
        world
            .state
            .deployments
            .insert_mut(deployment.clone(), entry);
        world
            .state
            .status_of(&id, world.state.tenants.get(&id).unwrap())
    };
    for (of_deployment, of_tenant) in [
        (Status::Pending, TenantStatus::Pending),
        (Status::Provisioning, TenantStatus::Provisioning),
        (Status::Active, TenantStatus::Active),
        (Status::Degraded, TenantStatus::Active),
        (Status::Upgrading, TenantStatus::Maintenance),
        (Status::RollingBack, TenantStatus::Maintenance),
        (Status::Suspended, TenantStatus::Suspended),
        (Status::Failed, TenantStatus::Failed),
        (Status::Destroying, TenantStatus::Deprovisioning),
    ] {
        assert_eq!(put(&first, of_deployment), of_tenant);
    }
    assert_eq!(put(&second, Status::Failed), TenantStatus::Deprovisioning);
    assert_eq!(put(&first, Status::Destroyed), TenantStatus::Failed);
    assert_eq!(put(&second, Status::Destroyed), TenantStatus::Pending);
}

#[test]
fn a_tenants_deployments_are_its_own_whatever_others_are_called() {
    let (mut world, _) = World::with_agent();
    let id = make_tenant(&mut world, "Alike");
    // The other's id begins with the whole id of the first one.
    let lookalike: TenantId = format!("{id}-s-0123abcd").parse().unwrap();
    let entry = world.state.tenants.get(&id).unwrap().clone();
    world.state.tenants.insert_mut(lookalike.clone(), entry);
    for (tenant, environment) in [
        (&id, "production"),
        (&id, "staging"),
        (&lookalike, "production"),
    ] {
        let mut request = deployment("");
        (request.tenant, request.environment) = (Some(tenant.clone()), environment.into());
        world
            .ask(Command::CreateDeployment(Box::new(request)))
            .unwrap();
    }
    let of = |tenant: &TenantId| -> Vec<String> {
        let ids = world.state.deployments_of(tenant);
        ids.map(|(id, _)| id.to_string()).collect()
    };
    assert_eq!(of(&id), [id.to_string(), format!("{id}-staging")]);
    assert_eq!(of(&lookalike), [lookalike.to_string()]);
}

#[test]
fn a_cancelled_tenant_takes_nothing_more_its_tokens_end_and_it_is_forgotten() {
    let (mut world, _) = World::with_agent();
    let id = make_tenant(&mut world, "Short-lived");
    let role = dotmac_domain::access::Role::TenantAdmin;
    world
        .ask(Command::CreateToken(token(2, role, Some(&id))))
        .unwrap();
    delete(&mut world, &id).unwrap();
    assert!(
        world
            .state
            .tokens
            .get(&token_id(2))
            .unwrap()
            .revoked_at
            .is_some()
    );
    let another = Command::CreateToken(token(3, role, Some(&id)));
    assert_eq!(code_of(world.ask(another)), Code::NotFound);
    let mut request = deployment("");
    request.tenant = Some(id.clone());
    let request = Command::CreateDeployment(Box::new(request));
    assert_eq!(code_of(world.ask(request)), Code::WrongState);
    assert_eq!(code_of(delete(&mut world, &id)), Code::WrongState);
    assert!(world.state.visible_tenant(&admin(), &id).is_some());
    world.now += DESTROYED_KEPT_MS;
    world.create("Time goes on");
    assert_eq!(world.state.visible_tenant(&admin(), &id), None);
    assert_eq!(code_of(delete(&mut world, &id)), Code::NotFound);
}

#[test]
fn a_tenant_is_changed_by_whoever_saw_it_as_it_is() {
    let (mut world, _) = World::with_agent();
    let id = make_tenant(&mut world, "Demo ISP");
    let update = |name: Option<&str>, reseller: Option<&str>| {
        Command::UpdateTenant(UpdateTenant {
            tenant: id.clone(),
            name: name.map(str::to_owned),
            reseller: reseller.map(str::to_owned),
        })
    };
    let mut ask = |expected: Option<u64>, command: Command| {
        let mut envelope = world.proven(admin(), command);
        envelope.expected = expected;
        let reply = world.apply(&envelope);
        let tenant = world.state.tenants.get(&id).unwrap().clone();
        (reply.map_err(|error| error.code), tenant)
    };
    let (reply, tenant) = ask(Some(1), update(Some("Renamed ISP"), None));
    assert!(reply.is_ok());
    assert_eq!((tenant.name.as_str(), tenant.revision), ("Renamed ISP", 2));
    assert_eq!(tenant.reseller.as_deref(), Some("partner-1"));
    let (reply, same) = ask(Some(1), update(Some("Too late"), None));
    assert_eq!((reply, &same), (Err(Code::PreconditionFailed), &tenant));
    // What changes nothing is no change.
    let (reply, same) = ask(None, update(Some("Renamed ISP"), Some("partner-1")));
    assert_eq!((reply.is_ok(), &same), (true, &tenant));
    let (_, without) = ask(None, update(None, Some("")));
    assert_eq!((without.reseller, without.revision), (None, 3));
    for wrong in ["", "  ", "a\u{1b}[31mb", &"x".repeat(256)] {
        assert_eq!(ask(None, update(Some(wrong), None)).0, Err(Code::Invalid));
    }
    let long = "x".repeat(101);
    for wrong in ["a\nb", &long] {
        assert_eq!(ask(None, update(None, Some(wrong))).0, Err(Code::Invalid));
    }
}

#[test]
fn a_region_is_added_used_and_closed_for_what_is_new() {
    let (mut world, _) = World::with_agent();
    let region = || "moon-1".parse().unwrap();
    let mut elsewhere = deployment("Moon ISP");
    elsewhere.region = Some(region());
    let elsewhere = Command::CreateDeployment(Box::new(elsewhere));
    let refused = world.ask(elsewhere.clone()).unwrap_err();
    assert_eq!(refused.errors[0].allowed, "one of lab-1, lab-2");
    let add = Command::CreateRegion {
        region: region(),
        description: "the far side".into(),
    };
    world.ask(add.clone()).unwrap();
    assert_eq!(code_of(world.ask(add)), Code::AlreadyExists);
    let first = deployment_of(world.ask(elsewhere.clone()));
    let close = |accepts_deployments: bool| {
        Command::UpdateRegion(UpdateRegion {
            region: region(),
            description: None,
            accepts_deployments: Some(accepts_deployments),
        })
    };
    world.ask(close(false)).unwrap();
    let closed = world.state.regions.get(&region()).unwrap().clone();
    assert_eq!(
        (closed.description.as_str(), closed.revision),
        ("the far side", 2)
    );
    world.ask(close(false)).unwrap();
    assert_eq!(world.state.regions.get(&region()), Some(&closed));
    let refused = world.ask(elsewhere.clone()).unwrap_err();
    assert_eq!(refused.errors[0].allowed, "one of lab-1, lab-2");
    // What is there stays, and an agent may still join.
    assert!(world.state.deployments.contains_key(&first));
    let mut join = join_token(5);
    join.region = region();
    world.ask(Command::CreateJoinToken(join)).unwrap();
    world.ask(close(true)).unwrap();
    world.ask(elsewhere).unwrap();
    let unknown = Command::UpdateRegion(UpdateRegion {
        region: "mars".parse().unwrap(),
        description: None,
        accepts_deployments: None,
    });
    assert_eq!(code_of(world.ask(unknown)), Code::NotFound);
}

fn revoke(world: &mut World, agent: &TestAgent) -> dotmac_domain::Reply {
    let agent = agent.id.clone();
    world.ask(Command::RevokeAgent { agent })
}

#[test]
fn an_agent_is_shut_out_only_when_it_keeps_nothing_and_never_comes_back() {
    let (mut world, mut agent, id) = World::with_active();
    let deployment = id.clone();
    assert_eq!(code_of(revoke(&mut world, &agent)), Code::WrongState);
    world.ask(Command::DeleteDeployment { deployment }).unwrap();
    assert_eq!(code_of(revoke(&mut world, &agent)), Code::WrongState);
    world.now += GRACE_MS;
    world.carry_on();
    let leaf = world.leaf(&id);
    let accepted = vec![agent.receipt(&leaf, Outcome::Accepted)];
    world.report(&agent, accepted).unwrap();
    // It has the tombstone, and has not obeyed it yet.
    assert_eq!(code_of(revoke(&mut world, &agent)), Code::WrongState);
    let removed = vec![agent.receipt(&leaf, Outcome::Removed)];
    world.report(&agent, removed).unwrap();
    assert_eq!(
        revoke(&mut world, &agent),
        Ok(Accepted::Agent(agent.id.clone()))
    );
    assert!(!world.state.agents.contains_key(&agent.id));
    assert_eq!(world.state.units_of(&agent.id).count(), 0);
    let key = agent.enrol(1).key;
    assert!(!world.state.admits(&agent.id, key));
    let kept = world.state.revoked_agents.get(&agent.id).unwrap();
    assert_eq!(kept.identity, agent.enrol(1).identity);
    // Twice is the same as once, and neither its reports nor a new join token bring it back.
    assert!(revoke(&mut world, &agent).is_ok());
    let late = vec![agent.record(None, crate::random::audit_event("agent.started"))];
    assert_eq!(code_of(world.report(&agent, late)), Code::NotFound);
    let mut join = join_token(0x77);
    join.expires_at = Timestamp(world.now + 1_000);
    world.ask(Command::CreateJoinToken(join)).unwrap();
    let actor = Actor::Agent(agent.id.clone());
    let enrol = world.envelope(actor, Command::EnrolAgent(agent.enrol(0x77)));
    assert_eq!(code_of(world.apply(&enrol)), Code::JoinTokenRefused);
    assert!(!world.state.admits(&agent.id, key));
    // What is asked for now waits for another one.
    let next = deployment_of(world.ask(create("Next ISP")));
    assert_eq!(world.state.deployments.get(&next).unwrap().agent, None);
}

#[test]
fn an_agent_that_goes_takes_no_others_order_with_it() {
    let (mut world, mut leaving) = World::with_agent();
    let gone = world.create("Gone ISP");
    world.make_active(&mut leaving, &gone);
    let staying = world.join(41);
    let deployment = gone.clone();
    world.ask(Command::DeleteDeployment { deployment }).unwrap();
    world.now += GRACE_MS;
    world
        .plan(Command::RemoveDeployment {
            deployment: gone.clone(),
        })
        .unwrap();
    let other = world.create("Staying ISP");
    assert_eq!(
        world.state.deployments.get(&other).unwrap().agent,
        Some(staying.id.clone())
    );
    // Both orders are in one wave, which signers vouch for as a whole.
    world.carry_on();
    assert_eq!(world.leaf(&gone).window, world.leaf(&other).window);
    world.confirm_removal(&mut leaving, &gone);
    revoke(&mut world, &leaving).unwrap();
    world.carry_on();
    let wave = world.state.wave_number;
    assert_eq!(crate::law_3_signers::signed(&world, wave), Ok(()));
    assert_eq!(world.leaf(&other).agent, staying.id);
}

#[test]
fn a_join_token_is_taken_back_only_before_it_is_used() {
    let mut world = World::founded();
    world.ask(Command::CreateJoinToken(join_token(5))).unwrap();
    let revoke = |world: &mut World, number: u64| {
        let token = token_id(number);
        world.ask(Command::RevokeJoinToken { token })
    };
    let status = |world: &World, number: u64| {
        let token = world.state.join_tokens.get(&token_id(number)).unwrap();
        token.status(Timestamp(world.now))
    };
    assert_eq!(status(&world, 5), JoinTokenStatus::Waiting);
    assert!(revoke(&mut world, 5).is_ok() && revoke(&mut world, 5).is_ok());
    assert_eq!(status(&world, 5), JoinTokenStatus::Revoked);
    let agent = TestAgent::new(40);
    let actor = Actor::Agent(agent.id.clone());
    let enrol = world.envelope(actor, Command::EnrolAgent(agent.enrol(5)));
    assert_eq!(code_of(world.apply(&enrol)), Code::JoinTokenRefused);
    let agent = world.join(40);
    assert_eq!(status(&world, 0x1000 + 40), JoinTokenStatus::Used);
    let refused = revoke(&mut world, 0x1000 + 40).unwrap_err();
    assert_eq!(refused.code, Code::WrongState);
    assert!(refused.detail.contains(agent.id.as_str()), "{refused}");
    assert_eq!(code_of(revoke(&mut world, 0xdead)), Code::NotFound);
    world.ask(Command::CreateJoinToken(join_token(6))).unwrap();
    world.now += crate::fixture::HOUR_MS;
    assert_eq!(status(&world, 6), JoinTokenStatus::Expired);
}

#[test]
fn a_tokens_use_is_noted_to_the_minute_never_back_and_without_a_trace_in_the_audit() {
    let mut world = World::founded();
    let streams = world.state.streams.clone();
    let used = |world: &World| {
        let token = world.state.tokens.get(&token_id(1)).unwrap();
        (token.last_used_at.map(|at| at.0), token.revision)
    };
    let note = |world: &mut World, at: u64| {
        let uses = vec![(token_id(1), Timestamp(at)), (token_id(9), Timestamp(at))];
        world.plan(Command::NoteTokenUse { uses }).unwrap();
    };
    world.now += 600_000;
    let minute = world.now - world.now % 60_000;
    note(&mut world, minute + 59_999);
    // It was ahead of the State's clock.
    world.now = minute + 59_999;
    note(&mut world, minute + 59_999);
    assert_eq!(used(&world), (Some(minute), 1));
    note(&mut world, minute - 1);
    assert_eq!(used(&world), (Some(minute), 1));
    world.now = minute + 60_000;
    note(&mut world, u64::MAX);
    assert_eq!(used(&world), (Some(minute + 60_000), 1));
    assert_eq!(world.state.streams, streams);
    let uses = vec![(token_id(1), Timestamp(world.now))];
    assert_eq!(
        code_of(world.ask(Command::NoteTokenUse { uses })),
        Code::Forbidden
    );
}
