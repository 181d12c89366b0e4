//! What there is: read once before anything is compared, and only what the caller may see. It says which deployment an
//! item of a file means, or that there is none yet.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    document::Fault,
    item::{Item, Who},
};
use crate::cli::{client::Client, deployments, failure::Failure, tenants, view};

/// Things read at most.
const ITEMS_MAX: usize = 100_000;
/// Things read at a time.
const PAGE_ITEMS: usize = 500;

/// Everything an item may mean.
#[derive(Debug, Default)]
pub(super) struct World {
    /// All deployments, destroyed ones too.
    deployments: Vec<Value>,
    /// Id and name of each tenant.
    tenants: BTreeSet<(String, String)>,
}

/// What an item means.
#[derive(Debug, PartialEq)]
pub(super) enum Target {
    /// This deployment.
    Existing(Box<Value>),
    /// None yet; the tenant that gets it, if there is one already.
    New { tenant: Option<String> },
}

impl World {
    /// Reads it.
    pub(super) async fn read(client: &Client) -> Result<Self, Failure> {
        let all = format!("{}?include=destroyed&limit={PAGE_ITEMS}", deployments::PATH);
        let deployments = client.list(&all, ITEMS_MAX).await?;
        // Who may see deployments may not always see tenants; the names in deployments then have to do.
        let tenants = match client
            .list(&format!("{}?limit={PAGE_ITEMS}", tenants::PATH), ITEMS_MAX)
            .await
        {
            Err(Failure::Refused(_) | Failure::NotFound(_)) => Vec::new(),
            other => other?,
        };
        Ok(Self::of(deployments, &tenants))
    }

    fn of(deployments: Vec<Value>, tenants: &[Value]) -> Self {
        let pair = |one: &Value, id: &str| (view::text(one, id), view::text(one, "tenant_name"));
        let mut known: BTreeSet<_> = tenants.iter().map(|one| pair(one, "id")).collect();
        let alive = deployments.iter().filter(|one| !is_destroyed(one));
        known.extend(alive.map(|one| pair(one, "tenant_id")));
        Self {
            deployments,
            tenants: known,
        }
    }

    /// Takes over a deployment that was made or changed since.
    pub(super) fn note(&mut self, deployment: &Value) {
        let id = view::text(deployment, "id");
        let tenant = view::text(deployment, "tenant_id");
        self.tenants
            .insert((tenant, view::text(deployment, "tenant_name")));
        self.deployments
            .retain(|one| view::text(one, "id") != id || is_destroyed(one));
        self.deployments.push(deployment.clone());
    }

    /// Which deployment an item means.
    ///
    /// # Errors
    /// When it may mean several, when it should exist and does not, or when it is on its way out.
    pub(super) fn target(&self, item: &Item) -> Result<Target, Fault> {
        let alive = || self.deployments.iter().filter(|one| !is_destroyed(one));
        let of_tenant = |tenant: &str, environment: &str| {
            alive().find(|one| is(one, "tenant_id", tenant) && is(one, "environment", environment))
        };
        let (found, tenant) = match &item.who {
            Who::Id(id) => {
                let found = alive().find(|one| is(one, "id", id));
                if found.is_none() {
                    let what = format!(
                        "there is no deployment {id}; to make a new one leave `id` out and give `tenant_name`"
                    );
                    return Err(Fault::new(item.line_of("id"), what));
                }
                (found, None)
            }
            Who::Tenant { id, environment } => (of_tenant(id, environment), Some(id.clone())),
            Who::Name { name, environment } => {
                let tenant = self.only_tenant(item, name)?;
                let found = tenant
                    .as_deref()
                    .and_then(|tenant| of_tenant(tenant, environment));
                (found, tenant)
            }
        };
        match found {
            None => Ok(Target::New { tenant }),
            Some(found) if is(found, "status", "destroying") => {
                let id = view::text(found, "id");
                let what = format!(
                    "{id} is being removed: take that back (`dotmac deployments undelete {id}`), or wait until it is gone"
                );
                Err(Fault::new(item.line, what))
            }
            Some(found) => Ok(Target::Existing(Box::new(found.clone()))),
        }
    }

    fn only_tenant(&self, item: &Item, name: &str) -> Result<Option<String>, Fault> {
        let same: Vec<&str> = self
            .tenants
            .iter()
            .filter(|(_, known)| known == name)
            .map(|(id, _)| id.as_str())
            .collect();
        match same[..] {
            [] => Ok(None),
            [only] => Ok(Some(only.to_owned())),
            _ => {
                let ids = same.join(", ");
                let count = same.len();
                let what = format!(
                    "tenant_name: {count} tenants are called {name:?} ({ids}): write the tenant_id of one instead"
                );
                Err(Fault::new(item.line, what))
            }
        }
    }

    /// Every id that an item has had so far. A creation that is asked for again while these stay the same is the same
    /// creation; after one of them was destroyed it is another one.
    pub(super) fn former(&self, item: &Item) -> String {
        let is_meant = |one: &Value| match &item.who {
            Who::Id(id) => is(one, "id", id),
            Who::Tenant { id, environment } => {
                is(one, "tenant_id", id) && is(one, "environment", environment)
            }
            Who::Name { name, environment } => {
                is(one, "tenant_name", name) && is(one, "environment", environment)
            }
        };
        let found = self.deployments.iter().filter(|one| is_meant(one));
        let text = |one: &Value| {
            format!(
                "{} {}",
                view::text(one, "id"),
                view::text(one, "created_at")
            )
        };
        let ids: BTreeSet<String> = found.map(text).collect();
        ids.into_iter().collect::<Vec<_>>().join(",")
    }
}

fn is(one: &Value, member: &str, text: &str) -> bool {
    one[member].as_str() == Some(text)
}

fn is_destroyed(one: &Value) -> bool {
    is(one, "status", "destroyed")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Target, World};
    use crate::cli::apply::{document, item};

    fn deployment(id: &str, name: &str, environment: &str, status: &str) -> Value {
        json!({"id": id, "tenant_id": id.replace("-staging", ""), "tenant_name": name,
            "environment": environment, "status": status, "created_at": "2026-01-01T00:00:00Z"})
    }

    fn target(world: &World, text: &str) -> Result<Target, String> {
        let items = item::read(&document::read(text).unwrap()).unwrap();
        world.target(&items[0]).map_err(|fault| fault.what)
    }

    fn world() -> World {
        let deployments = vec![
            deployment("a-1", "A", "production", "active"),
            deployment("a-1-staging", "A", "staging", "destroyed"),
            deployment("twin-1", "Twin", "production", "active"),
            deployment("twin-2", "Twin", "production", "active"),
            deployment("b-1", "B", "production", "destroying"),
        ];
        World::of(deployments, &[json!({"id": "c-1", "tenant_name": "C"})])
    }

    #[test]
    fn a_name_with_its_environment_finds_the_deployment() {
        let Target::Existing(found) = target(&world(), "tenant_name: A").unwrap() else {
            panic!("it exists")
        };
        assert_eq!(found["id"], "a-1");
        let id = |id: &str| Some(id.to_owned());
        let new = |text| match target(&world(), text) {
            Ok(Target::New { tenant }) => tenant,
            other => panic!("{other:?}"),
        };
        assert_eq!(new("tenant_name: A\nenvironment: staging"), id("a-1"));
        assert_eq!(new("tenant_name: C"), id("c-1"));
        assert_eq!(new("tenant_name: D"), None);
    }

    #[test]
    fn what_is_not_clear_is_never_guessed() {
        let said = target(&world(), "tenant_name: Twin").unwrap_err();
        assert!(
            said.contains("2 tenants") && said.contains("twin-1, twin-2"),
            "{said}"
        );
        let said = target(&world(), "id: z-1").unwrap_err();
        assert!(said.starts_with("there is no deployment z-1"), "{said}");
        let said = target(&world(), "tenant_name: B").unwrap_err();
        assert!(said.contains("undelete b-1"), "{said}");
    }

    #[test]
    fn a_creation_is_another_one_after_the_former_was_destroyed() {
        let items = "tenant_name: A\nenvironment: staging";
        let items = item::read(&document::read(items).unwrap()).unwrap();
        let mut world = world();
        let before = world.former(&items[0]);
        assert!(before.starts_with("a-1-staging"));
        world.note(&deployment("a-2-staging", "A", "staging", "destroyed"));
        assert_ne!(world.former(&items[0]), before);
    }
}
