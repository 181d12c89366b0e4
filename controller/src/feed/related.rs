//! Which entities there are, and which of them look different because another one changed: a tenant's status follows
//! from its deployments, a region counts its agents. It says where to look, and nothing of what is there.

use dotmac_domain::{Changed, State, release::ReleaseKey};

/// Everything that can be shown of a State.
pub(super) fn all(state: &State) -> impl Iterator<Item = Changed> {
    let regions = state.regions.keys().cloned().map(Changed::Region);
    let releases = state.releases.keys().cloned().map(Changed::Release);
    let agents = state.agents.keys().cloned().map(Changed::Agent);
    let tenants = state.tenants.keys().cloned().map(Changed::Tenant);
    let deployments = state.deployments.keys().cloned().map(Changed::Deployment);
    let tokens = state.tokens.keys().cloned().map(Changed::Token);
    std::iter::once(Changed::Cluster)
        .chain(regions)
        .chain(releases)
        .chain(agents)
        .chain(tenants)
        .chain(deployments)
        .chain(tokens)
}

/// What else may look different when this one does.
pub(super) fn of(what: &Changed, state: &State) -> Vec<Changed> {
    match what {
        Changed::Deployment(id) => state.deployments.get(id).map_or_else(Vec::new, |one| {
            let agent = one.agent.clone().map(Changed::Agent);
            let mut found = vec![
                Changed::Tenant(one.tenant.clone()),
                Changed::Region(one.region.clone()),
            ];
            found.extend(agent);
            found
        }),
        Changed::Agent(id) => {
            let agent = state.agents.get(id);
            let region = agent.map(|agent| Changed::Region(agent.region.clone()));
            region.into_iter().collect()
        }
        Changed::Cluster
        | Changed::Region(_)
        | Changed::Release(_)
        | Changed::Tenant(_)
        | Changed::Token(_) => Vec::new(),
    }
}

/// The id of an entity as the API writes it.
pub(super) fn id(what: &Changed) -> String {
    match what {
        Changed::Cluster => "cluster".to_owned(),
        Changed::Region(id) => id.to_string(),
        Changed::Release(ReleaseKey { name, version }) => format!("{name}:{version}"),
        Changed::Agent(id) => id.to_string(),
        Changed::Tenant(id) => id.to_string(),
        Changed::Deployment(id) => id.to_string(),
        Changed::Token(id) => id.to_string(),
    }
}
