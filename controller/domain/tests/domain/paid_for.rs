//! What is paid for is the operator's to choose: a tenant gets nothing of it by deleting, making, switching or rolling back.

use std::collections::BTreeMap;

use dotmac_domain::{
    Command, Reply,
    access::Role,
    command::{CreateDeployment, UpdateDeployment, UpdateLicense},
    envelope::Actor,
    reply::Code,
    tenancy::{DESTROYED_KEPT_MS, Deployment},
};
use dotmac_protocol::{
    ids::{DeploymentId, TenantId},
    license::{LicenseStanding, Phase},
    record::HealthStatus,
    time::Timestamp,
};

use crate::{
    changes::update,
    fixture::{
        HOUR_MS, START, TestAgent, World, code_of, deployment as creation, deployment_of, token,
        token_id,
    },
};

/// A world with an active deployment, and its tenant's own administrator.
struct Site {
    world: World,
    agent: TestAgent,
    id: DeploymentId,
    tenant: TenantId,
    own: Actor,
}

impl Site {
    fn new() -> Self {
        let (mut world, agent, id) = World::with_active();
        let tenant = world.state.deployments[&id].tenant.clone();
        let own = token(7, Role::TenantAdmin, Some(&tenant));
        world.ask(Command::CreateToken(own)).unwrap();
        Self {
            world,
            agent,
            id,
            tenant,
            own: Actor::Person(token_id(7)),
        }
    }

    fn further(&self, environment: &str) -> CreateDeployment {
        CreateDeployment {
            tenant: Some(self.tenant.clone()),
            environment: environment.into(),
            ..creation("")
        }
    }

    fn make(&mut self, environment: &str) -> Reply {
        let command = Command::CreateDeployment(Box::new(self.further(environment)));
        self.world.ask_as(self.own.clone(), command)
    }

    fn switch(&mut self, actor: Option<&Actor>, features: &[(&str, Option<bool>)]) -> Reply {
        let features = features
            .iter()
            .map(|(name, is_on)| ((*name).into(), *is_on));
        let command = Command::UpdateDeployment(Box::new(UpdateDeployment {
            features: Some(features.collect()),
            ..update(&self.id)
        }));
        match actor {
            Some(actor) => self.world.ask_as(actor.clone(), command),
            None => self.world.ask(command),
        }
    }

    fn license(&mut self, tier: Option<&str>, end: Option<Timestamp>) {
        let command = UpdateLicense {
            deployment: self.id.clone(),
            license_tier: tier.map(str::to_owned),
            max_subscribers: None,
            max_services: None,
            api_rate_limit: None,
            expires_at: end.map(Some),
            grace_ms: end.map(|_| HOUR_MS),
        };
        let command = Command::UpdateLicense(Box::new(command));
        self.world.ask(command).unwrap();
    }

    fn deployment(&self) -> &Deployment {
        &self.world.state.deployments[&self.id]
    }
}

fn withdraw(id: &DeploymentId, standing: LicenseStanding) -> Command {
    let (deployment, reason) = (id.clone(), "fraud".to_owned());
    match standing {
        LicenseStanding::Revoked => Command::RevokeLicense { deployment, reason },
        _ => Command::SuspendLicense { deployment, reason },
    }
}

#[test]
fn a_tenant_whose_license_was_withdrawn_makes_no_other_deployment() {
    for standing in [LicenseStanding::Suspended, LicenseStanding::Revoked] {
        let mut site = Site::new();
        let id = site.id.clone();
        site.world.ask(withdraw(&id, standing)).unwrap();
        assert_eq!(code_of(site.make("staging")), Code::Forbidden);
        // Nor by deleting it, however long ago.
        let delete = Command::DeleteDeployment {
            deployment: id.clone(),
        };
        let own = site.own.clone();
        site.world.ask_as(own, delete).unwrap();
        assert_eq!(code_of(site.make("staging")), Code::Forbidden);
        site.world.destroy(&mut site.agent, &id);
        assert_eq!(code_of(site.make("production")), Code::Forbidden);
        site.world.now += DESTROYED_KEPT_MS;
        site.world.carry_on();
        assert_eq!(
            site.world.state.deployments.get(&id),
            None,
            "it is forgotten"
        );
        assert_eq!(code_of(site.make("production")), Code::Forbidden);
        // The operator may, and from then on the tenant, too.
        let command = Command::CreateDeployment(Box::new(site.further("production")));
        site.world.ask(command).unwrap();
        deployment_of(site.make("staging"));
    }
}

#[test]
fn a_reinstated_license_lets_a_tenant_go_on() {
    let mut site = Site::new();
    let id = site.id.clone();
    site.world
        .ask(withdraw(&id, LicenseStanding::Suspended))
        .unwrap();
    site.world
        .ask(Command::ReinstateLicense { deployment: id })
        .unwrap();
    deployment_of(site.make("staging"));
}

#[test]
fn what_a_tenant_makes_ends_when_his_license_ends() {
    let mut site = Site::new();
    let end = Timestamp(START + 24 * HOUR_MS);
    site.license(None, Some(end));
    let staging = deployment_of(site.make("staging"));
    let license = site.world.state.deployments[&staging].license.clone();
    assert_eq!((license.expires_at, license.grace_ms), (Some(end), HOUR_MS));
    let id = site.id.clone();
    site.world.destroy(&mut site.agent, &id);
    site.world.now = end.0 + 2 * HOUR_MS;
    let again = deployment_of(site.make("production"));
    let license = &site.world.state.deployments[&again].license;
    let now = Timestamp(site.world.now);
    assert_eq!(license.phase(now), Phase::Restricted);
}

#[test]
fn a_tenant_switches_what_his_tier_has_and_nothing_above_it() {
    let mut site = Site::new();
    let own = site.own.clone();
    site.switch(
        Some(&own),
        &[("api_access", Some(false)), ("theme_dark", Some(true))],
    )
    .unwrap();
    site.switch(Some(&own), &[("api_access", Some(true))])
        .unwrap();
    let higher = [("unlimited_api", Some(true))];
    let before = site.deployment().clone();
    assert_eq!(code_of(site.switch(Some(&own), &higher)), Code::Forbidden);
    assert_eq!(site.deployment(), &before);
    let mut further = site.further("staging");
    further.features = BTreeMap::from([("ai_insights".into(), true)]);
    let command = Command::CreateDeployment(Box::new(further));
    assert_eq!(
        code_of(site.world.ask_as(own.clone(), command)),
        Code::Forbidden
    );
    // What the operator granted he may switch off, and not on again.
    site.switch(None, &higher).unwrap();
    site.switch(Some(&own), &[("crm_integration", Some(false))])
        .unwrap();
    site.switch(Some(&own), &[("unlimited_api", None)]).unwrap();
    assert_eq!(code_of(site.switch(Some(&own), &higher)), Code::Forbidden);
}

#[test]
fn a_lower_tier_takes_its_switches_along_but_not_what_the_operator_granted_beyond() {
    let mut site = Site::new();
    site.license(Some("premium"), None);
    let on = [
        ("white_labeling", Some(true)),
        ("ai_insights", Some(true)),
        ("crm_integration", Some(false)),
    ];
    site.switch(None, &on).unwrap();
    site.license(Some("basic"), None);
    let features = &site.deployment().features;
    assert_eq!(features.get("white_labeling"), None);
    assert_eq!(features.get("ai_insights"), Some(&true));
    assert_eq!(features.get("crm_integration"), Some(&false));
}

#[test]
fn a_tenant_rolls_nothing_back_that_the_operator_took_away() {
    let mut site = Site::new();
    let rollback = Command::RollbackDeployment {
        deployment: site.id.clone(),
    };
    site.switch(None, &[("ai_insights", Some(true))]).unwrap();
    let id = site.id.clone();
    crate::changes::report(&mut site.world, &mut site.agent, &id, HealthStatus::Healthy);
    site.switch(None, &[("ai_insights", None)]).unwrap();
    crate::changes::report(&mut site.world, &mut site.agent, &id, HealthStatus::Healthy);
    let own = site.own.clone();
    assert_eq!(
        code_of(site.world.ask_as(own, rollback.clone())),
        Code::Forbidden
    );
    site.world.ask(rollback).unwrap();
    assert_eq!(site.deployment().features.get("ai_insights"), Some(&true));
}
