//! Which events a watcher gets: those he asked for and may see. What he may not see is for him as if it were not there.

use std::collections::BTreeSet;

use dotmac_domain::{Changed, State, access::Permission, envelope::Actor};
use dotmac_protocol::ids::{DeploymentId, TenantId};

use crate::{
    api::{principal::Principal, problem::Problem, reading::Reading},
    feed::Entry,
};

/// One kind of entity that events tell of.
#[derive(Debug)]
pub(super) struct Kind {
    /// The name of its events.
    pub(super) name: &'static str,
    /// What it takes to see one.
    permission: Permission,
    /// Whether each belongs to a tenant, or may.
    is_tenants: bool,
    /// Whether tokens that are bound to a tenant see none at all.
    is_platforms: bool,
}

/// All of them.
pub(super) static KINDS: [Kind; 7] = [
    kind("deployment", Permission::DeploymentRead, true, false),
    kind("tenant", Permission::TenantRead, true, false),
    kind("region", Permission::RegionRead, false, true),
    kind("agent", Permission::AgentRead, false, true),
    kind("release", Permission::ReleaseRead, false, true),
    kind("token", Permission::TokenRead, true, true),
    kind("cluster", Permission::ClusterRead, false, true),
];

const fn kind(
    name: &'static str,
    permission: Permission,
    is_tenants: bool,
    is_platforms: bool,
) -> Kind {
    Kind {
        name,
        permission,
        is_tenants,
        is_platforms,
    }
}

impl Kind {
    /// That somebody may be told of such entities at all.
    fn require(&self, who: &Principal, state: &State) -> Result<(), Problem> {
        if self.is_platforms {
            who.require(state, self.permission, None)
        } else {
            who.has(self.permission)
        }
    }
}

/// What a watcher asked for.
#[derive(Debug)]
pub(super) struct Selection {
    actor: Actor,
    kinds: BTreeSet<&'static str>,
    tenant: Option<TenantId>,
    deployment: Option<DeploymentId>,
}

impl Selection {
    /// Reads `types`, `tenant_id` and `deployment`. A foreign tenant or deployment is as unknown as none (law 7).
    pub(super) fn read(reading: &mut Reading) -> Result<Self, Problem> {
        let (types, tenant, deployment) = {
            let query = &mut reading.query;
            let types = query.text("types");
            let tenant = query.parsed::<TenantId>("tenant_id", "the id of a tenant");
            (types, tenant, query.text("deployment"))
        };
        let (who, state) = (&reading.who, &reading.state);
        let deployment = deployment.map(|id| who.deployment(state, &id));
        let deployment = deployment.transpose()?.map(|(id, _)| id);
        if let Some(tenant) = &tenant {
            who.tenant(state, Permission::EventRead, tenant)?;
        }
        let mut kinds = BTreeSet::new();
        for name in types.iter().flat_map(|types| types.split(',')) {
            match KINDS.iter().find(|kind| kind.name == name) {
                Some(kind) => {
                    kind.require(who, state)?;
                    kinds.insert(kind.name);
                }
                None => {
                    let names = KINDS.each_ref().map(|kind| kind.name).join(", ");
                    let allowed = format!("some of {names}, with commas");
                    reading.query.refuse("types", name, allowed);
                }
            }
        }
        if types.is_none() {
            let is_meant = |kind: &&Kind| match (&deployment, &tenant) {
                (Some(_), _) => kind.name == "deployment",
                (None, Some(_)) => kind.is_tenants,
                (None, None) => true,
            };
            let granted = KINDS
                .iter()
                .filter(is_meant)
                .filter(|kind| kind.require(who, state).is_ok());
            kinds.extend(granted.map(|kind| kind.name));
        }
        Ok(Self {
            actor: who.actor(),
            kinds,
            tenant,
            deployment,
        })
    }

    /// Whether the watcher gets what is told of an entity.
    pub(super) fn takes(&self, state: &State, what: &Changed, entry: &Entry) -> bool {
        let is_wanted = self.kinds.contains(entry.kind)
            && (self.tenant.is_none() || self.tenant == entry.tenant)
            && self
                .deployment
                .as_ref()
                .is_none_or(|wanted| matches!(what, Changed::Deployment(found) if found == wanted));
        is_wanted && self.may_see(state, entry)
    }

    fn may_see(&self, state: &State, entry: &Entry) -> bool {
        let kind = KINDS.iter().find(|kind| kind.name == entry.kind);
        kind.is_some_and(|kind| state.may(&self.actor, kind.permission, entry.tenant.as_ref()))
    }
}
