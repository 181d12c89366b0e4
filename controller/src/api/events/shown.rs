//! What events show of an entity: what GET shows of it.

use dotmac_domain::{Changed, State};
use dotmac_protocol::ids::TenantId;
use serde_json::Value;

use crate::{
    api::{agents, cluster, deployments, regions, releases, tenants, tokens},
    feed::Shown,
    node::Node,
};

/// Writes an entity as GET would; `None` when it is gone.
pub(crate) fn render(node: &Node, state: &State, what: &Changed) -> Option<Shown> {
    match what {
        Changed::Cluster => shown("cluster", None, cluster::seen(node, state)),
        Changed::Region(id) => {
            let region = state.regions.get(id)?;
            shown("region", None, regions::item(state, id, region))
        }
        Changed::Token(id) => {
            let token = state.tokens.get(id)?;
            let now = node.clock.now().max(state.now);
            let value = tokens::item(id, token, now);
            shown("token", token.tenant.clone(), value)
        }
        Changed::Tenant(id) => {
            let tenant = state.tenants.get(id)?;
            let value = tenants::item(state, id, tenant);
            shown("tenant", Some(id.clone()), value)
        }
        Changed::Release(key) => {
            let release = state.releases.get(key)?;
            shown("release", None, releases::item(state, key, release))
        }
        Changed::Agent(id) => {
            let agent = state.agents.get(id)?;
            shown("agent", None, agents::item(state, id, agent))
        }
        Changed::Deployment(id) => {
            let one = state.deployments.get(id)?;
            let value = deployments::item(state, id, one);
            shown("deployment", Some(one.tenant.clone()), value)
        }
    }
}

fn shown(kind: &'static str, tenant: Option<TenantId>, value: Value) -> Option<Shown> {
    let data = value.to_string();
    Some(Shown { kind, tenant, data })
}
