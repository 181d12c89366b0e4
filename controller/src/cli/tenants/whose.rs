//! Whose instance a command is about: a tenant with one of its environments, named by the tenant's id or by that of one
//! of its deployments.

use clap::Args;
use serde_json::Value;

use super::path_of;
use crate::cli::{
    client::Client,
    deployments,
    failure::{Failure, Problem},
    suggest, view,
};

/// Deployments of a tenant at most: one an environment.
const DEPLOYMENTS_MAX: usize = 10;
/// Ids that are suggested at most.
const MEANT_MAX: usize = 3;

#[derive(Args)]
pub(crate) struct Whose {
    /// Tenant, or one of its deployments
    id: String,
    /// Which deployment of the tenant; its only one, or production, if not given
    #[arg(long, value_parser = ["development", "staging", "production"])]
    environment: Option<String>,
}

/// A tenant, and which of its deployments.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    /// The tenant, as the API shows it.
    pub(super) tenant: Value,
    /// The environment that was named, by itself or by its deployment.
    pub(crate) environment: Option<String>,
}

impl Found {
    /// Address of what the tenant's instance has under this name.
    pub(crate) fn path(&self, series: &str) -> String {
        format!("{}/{series}", path_of(&view::text(&self.tenant, "id")))
    }
}

impl Whose {
    /// Looks for a tenant of this id, then for a deployment.
    ///
    /// # Errors
    /// When nobody has the id, or the tenant has no such environment, with what may have been meant; when a deployment
    /// of another environment is named.
    pub(crate) async fn find(&self, client: &Client) -> Result<Found, Failure> {
        match client.thing(&path_of(&self.id)).await {
            Ok(tenant) => self.of_tenant(client, tenant).await,
            Err(Failure::NotFound(_)) => self.of_deployment(client).await,
            Err(failure) => Err(failure),
        }
    }

    async fn of_tenant(&self, client: &Client, tenant: Value) -> Result<Found, Failure> {
        let environment = self.environment.clone();
        if let Some(wanted) = &environment {
            let all = all(client, &view::text(&tenant, "id")).await?;
            if !all.iter().any(|one| one["environment"] == *wanted) {
                let detail = format!("{} has no {wanted} deployment", self.id);
                let others = all.iter().map(|one| view::text(one, "id"));
                return Err(missing(detail, others.collect()));
            }
        }
        Ok(Found {
            tenant,
            environment,
        })
    }

    async fn of_deployment(&self, client: &Client) -> Result<Found, Failure> {
        let deployment = match deployments::fetch(client, &self.id).await {
            Ok(deployment) => deployment,
            Err(Failure::NotFound(_)) => {
                let detail = format!("there is neither a tenant nor a deployment {}", self.id);
                return Err(missing(detail, self.similar(client).await));
            }
            Err(failure) => return Err(failure),
        };
        let environment = view::text(&deployment, "environment");
        if let Some(wanted) = self.environment.as_ref().filter(|one| **one != environment) {
            let id = &self.id;
            return Err(Failure::Usage(format!(
                "{id} is a deployment of the environment {environment}, not of {wanted}"
            )));
        }
        let tenant = path_of(&view::text(&deployment, "tenant_id"));
        Ok(Found {
            tenant: client.thing(&tenant).await?,
            environment: Some(environment),
        })
    }

    /// Ids of tenants and deployments that are close to this one.
    async fn similar(&self, client: &Client) -> Vec<String> {
        let mut ids = suggest::similar(client, deployments::PATH, &self.id).await;
        for id in suggest::similar(client, super::PATH, &self.id).await {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids.truncate(MEANT_MAX);
        ids
    }
}

/// The deployments of a tenant, without destroyed ones.
pub(super) async fn all(client: &Client, tenant: &str) -> Result<Vec<Value>, Failure> {
    let path = format!("{}?tenant_id={}", deployments::PATH, super::encode(tenant));
    client.list(&path, DEPLOYMENTS_MAX).await
}

fn missing(detail: String, meant: Vec<String>) -> Failure {
    Failure::NotFound(Box::new(Problem {
        status: 404,
        code: "not-found".into(),
        detail,
        meant,
        ..Problem::default()
    }))
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, http::StatusCode, routing::get};
    use serde_json::{Value, json};

    use super::{Found, Whose};
    use crate::cli::{client::tests, deployments, failure::Failure};

    /// Asks a controller that knows the tenant alpha with two deployments and the tenant lonely with none.
    async fn find(id: &str, environment: Option<&str>) -> Result<Found, Failure> {
        let router = |router: Router, path: &str, answer: Value| {
            router.route(path, get(async move || Json(answer)))
        };
        let of = |id: &str, environment: &str| json!({"id": id, "tenant_id": "alpha-01", "environment": environment});
        let both = [
            of("alpha-01", "production"),
            of("alpha-01-staging", "staging"),
        ];
        let tenants = [json!({"id": "alpha-01"}), json!({"id": "lonely-02"})];
        let path = deployments::PATH;
        let mut world = Router::new();
        for (path, answer) in [
            (path.to_owned(), json!({"items": both})),
            (format!("{path}/alpha-01-staging"), both[1].clone()),
            ("/api/v1/tenants".to_owned(), json!({"items": tenants})),
            ("/api/v1/tenants/alpha-01".to_owned(), tenants[0].clone()),
        ] {
            world = router(world, &path, answer);
        }
        let none = async || {
            (
                StatusCode::NOT_FOUND,
                Json(json!({"status": 404, "detail": "none"})),
            )
        };
        let client = tests::client_of(world.fallback(none)).await;
        let (id, environment) = (id.to_owned(), environment.map(str::to_owned));
        Whose { id, environment }.find(&client).await
    }

    #[tokio::test]
    async fn a_tenant_or_one_of_its_deployments_names_an_instance() {
        for (id, environment, expected) in [
            ("alpha-01", None, None),
            ("alpha-01", Some("staging"), Some("staging")),
            ("alpha-01-staging", None, Some("staging")),
            ("alpha-01-staging", Some("staging"), Some("staging")),
        ] {
            let found = find(id, environment).await.unwrap();
            assert_eq!(found.environment.as_deref(), expected, "{id}");
            assert_eq!(found.path("usage"), "/api/v1/tenants/alpha-01/usage");
        }
    }

    #[tokio::test]
    async fn who_misses_it_is_told_what_may_have_been_meant() {
        let said = async |id, environment| {
            let failure = find(id, environment).await.unwrap_err();
            (failure.code(), failure.to_string())
        };
        let (code, text) = said("alpha-01-stagign", None).await;
        assert_eq!(code, 3);
        assert!(
            text.contains("neither a tenant nor a deployment alpha-01-stagign")
                && text.contains("did you mean alpha-01-staging"),
            "{text}"
        );
        let (code, text) = said("lonly-02", None).await;
        assert!(
            code == 3 && text.contains("did you mean lonely-02?"),
            "{text}"
        );
        let (code, text) = said("alpha-01", Some("development")).await;
        assert!(
            code == 3
                && text.contains("alpha-01 has no development deployment")
                && text.contains("did you mean alpha-01, alpha-01-staging?"),
            "{text}"
        );
        let (code, text) = said("alpha-01-staging", Some("production")).await;
        assert!(
            code == 2 && text.contains("of the environment staging"),
            "{text}"
        );
    }
}
