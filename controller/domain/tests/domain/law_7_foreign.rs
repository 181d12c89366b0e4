//! Law 7: foreign equals unknown. Nobody can tell another's object from one that does not exist.

use dotmac_domain::{Command, Reply, access::Role, audit::Stream, envelope::Actor, reply::Code};
use dotmac_protocol::ids::{DeploymentId, TenantId};

use crate::fixture::{World, code_of, deployment, deployment_of, token, token_id};

/// A world with two tenants; the first has an administrator, a user and an ISP of its own.
fn two_tenants() -> (World, TenantId, DeploymentId) {
    let (mut world, _, own) = World::with_active();
    let tenant = world.state.deployments.get(&own).unwrap().tenant.clone();
    world
        .ask(Command::CreateToken(token(
            2,
            Role::TenantAdmin,
            Some(&tenant),
        )))
        .unwrap();
    world
        .ask(Command::CreateToken(token(
            3,
            Role::TenantUser,
            Some(&tenant),
        )))
        .unwrap();
    let mut foreign = deployment("Other ISP");
    foreign.domain_name = Some("taken.example".into());
    let foreign = deployment_of(world.ask(Command::CreateDeployment(Box::new(foreign))));
    (world, tenant, foreign)
}

/// The answer as text, with the id that was asked for taken out.
fn anonymous(reply: &Reply, id: &str) -> String {
    format!("{reply:?}").replace(id, "ID")
}

/// An id of the same length that nobody has.
fn unknown(id: &str) -> String {
    let (slug, _) = id.rsplit_once('-').unwrap();
    format!("{}-00000000", "x".repeat(slug.len()))
}

#[test]
fn law_7_foreign_equals_unknown() {
    let (world, _, foreign) = two_tenants();
    let foreign_tenant = world
        .state
        .deployments
        .get(&foreign)
        .unwrap()
        .tenant
        .clone();
    type Ask = fn(&str) -> Command;
    let asks: [(&str, &str, Ask); 4] = [
        ("delete", foreign.as_str(), |id| Command::DeleteDeployment {
            deployment: id.parse().unwrap(),
        }),
        ("undelete", foreign.as_str(), |id| {
            Command::UndeleteDeployment {
                deployment: id.parse().unwrap(),
            }
        }),
        ("create", foreign_tenant.as_str(), |id| {
            let mut further = deployment("");
            further.tenant = Some(id.parse().unwrap());
            further.environment = "staging".into();
            Command::CreateDeployment(Box::new(further))
        }),
        ("access", foreign_tenant.as_str(), |id| {
            Command::NoteAccess {
                action: "logs.read".into(),
                tenant: Some(id.parse().unwrap()),
                detail: String::new(),
            }
        }),
    ];
    for (name, id, ask) in asks {
        for who in [2, 3] {
            let actor = Actor::Person(token_id(who));
            let (mut one, mut other) = (world.clone(), world.clone());
            let nobodys = unknown(id);
            let of_foreign = one.ask_as(actor.clone(), ask(id));
            let of_unknown = other.ask_as(actor, ask(&nobodys));
            assert!(of_foreign.is_err(), "{name}");
            assert_eq!(
                anonymous(&of_foreign, id),
                anonymous(&of_unknown, &nobodys),
                "{name}"
            );
            // Nor does it show in the story of the tenant whose object it is.
            let victims = Stream::Tenant(foreign_tenant.clone());
            assert_eq!(
                one.state.streams.get(&victims),
                world.state.streams.get(&victims),
                "{name}"
            );
            let platform =
                |world: &World| world.state.streams.get(&Stream::Platform).unwrap().sequence;
            assert_eq!(platform(&one), platform(&other), "{name}");
            assert_eq!(platform(&one), platform(&world) + 1, "{name}");
        }
    }
}

#[test]
fn law_7_a_stranger_sees_no_deployment_and_no_holder_of_a_domain() {
    let (mut world, tenant, foreign) = two_tenants();
    let stranger = Actor::Person(token_id(2));
    assert_eq!(world.state.visible_deployment(&stranger, &foreign), None);
    let mut further = deployment("");
    (further.tenant, further.environment) = (Some(tenant), "staging".into());
    further.domain_name = Some("TAKEN.example".into());
    let reply = world.ask_as(stranger, Command::CreateDeployment(Box::new(further)));
    let rejection = reply.unwrap_err();
    assert_eq!(rejection.code, Code::DomainInUse);
    assert!(!format!("{rejection:?}").contains(foreign.as_str()));
}

#[test]
fn law_7_what_is_ones_own_is_forbidden_by_name_and_not_hidden() {
    let (mut world, tenant, _) = two_tenants();
    let own = DeploymentId::first_of(&tenant);
    let user = Actor::Person(token_id(3));
    assert!(world.state.visible_deployment(&user, &own).is_some());
    let reply = world.ask_as(user, Command::DeleteDeployment { deployment: own });
    assert_eq!(code_of(reply), Code::Forbidden);
}

#[test]
fn law_7_a_stranger_gets_nobody_elses_answer_by_using_his_request_id() {
    let (mut world, _, _) = two_tenants();
    let envelope = world.log.last().unwrap().clone();
    let mut stolen = envelope.clone();
    stolen.actor = Actor::Person(token_id(2));
    let reply = world.apply(&stolen);
    assert_eq!(code_of(reply), Code::IdempotencyKeyReused);
    assert!(world.apply(&envelope).is_ok());
}

#[test]
fn law_7_roles_grant_what_the_contract_says_and_a_bound_token_nothing_of_the_platform() {
    use dotmac_domain::access::Permission as P;
    let (world, tenant, _) = two_tenants();
    let may = |who: u64, permission, tenant: Option<&TenantId>| {
        world
            .state
            .may(&Actor::Person(token_id(who)), permission, tenant)
    };
    let own = Some(&tenant);
    for permission in [
        P::TenantCreate,
        P::ReleaseWrite,
        P::AgentWrite,
        P::TokenWrite,
    ] {
        assert!(may(1, permission, None) && may(1, permission, own));
        assert!(!may(2, permission, None) && !may(2, permission, own));
    }
    assert!(may(2, P::DeploymentDelete, own) && !may(3, P::DeploymentDelete, own));
    assert!(may(3, P::DeploymentRead, own) && !may(3, P::DeploymentRead, None));
    assert!(!may(99, P::DeploymentRead, own));
    // A tenant role without a tenant, however it came to be, is worth nothing.
    let mut unbound = world.clone();
    let mut entry = world.state.tokens.get(&token_id(2)).unwrap().clone();
    entry.tenant = None;
    unbound.state.tokens.insert_mut(token_id(2), entry);
    let actor = Actor::Person(token_id(2));
    assert!(!unbound.state.may(&actor, P::DeploymentRead, own));
    for actor in [
        Actor::Planner,
        Actor::Founder,
        Actor::Agent("lab-1".parse().unwrap()),
    ] {
        assert!(!world.state.may(&actor, P::DeploymentRead, own));
    }
}
