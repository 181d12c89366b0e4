//! The flags of every change of a deployment, and the requests they become. What the values may be is decided by the
//! API alone.

use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Patience, create::Pair, path_of};
use crate::cli::{
    client::Client,
    failure::Failure,
    plan::{Consent, Plan, Seen},
};

/// A change that says nothing but which deployment.
#[derive(Args)]
pub(crate) struct Named {
    /// Deployment or tenant
    pub(super) id: String,
    #[command(flatten)]
    pub(super) patience: Patience,
    #[command(flatten)]
    pub(super) consent: Consent,
}

/// A change with a reason for the audit.
#[derive(Args)]
pub(crate) struct Reasoned {
    #[command(flatten)]
    pub(super) named: Named,
    /// Why, for the audit
    #[arg(long)]
    pub(super) reason: Option<String>,
}

#[derive(Args)]
pub(crate) struct Scale {
    #[command(flatten)]
    pub(super) reasoned: Reasoned,
    /// Copies that should run
    #[arg(long)]
    pub(super) replicas: u64,
}

#[derive(Args)]
#[command(after_help = "At least one of the fields has to be given; the others stay as they are.")]
pub(crate) struct Update {
    #[command(flatten)]
    pub(super) named: Named,
    #[command(flatten)]
    fields: Fields,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct Fields {
    /// micro, small, medium, large, xlarge or custom
    #[arg(long, visible_alias = "resource-tier")]
    tier: Option<String>,
    /// free, basic, premium, professional or enterprise
    #[arg(long, visible_alias = "license-tier")]
    license: Option<String>,
    /// Release to run: VERSION or NAME:VERSION
    #[arg(long, visible_alias = "image-tag")]
    release: Option<String>,
    /// Host name under which subscribers reach it
    #[arg(long, visible_alias = "domain-name")]
    domain: Option<String>,
    /// Copies at least
    #[arg(long)]
    min_replicas: Option<u64>,
    /// Copies at most
    #[arg(long)]
    max_replicas: Option<u64>,
    /// Switch a feature: NAME=true, NAME=false, or NAME=null to forget it (repeat it)
    #[arg(long = "feature", value_name = "NAME=BOOL")]
    features: Vec<Pair>,
    /// With tier custom, all of: cpu_request, memory_request, cpu_limit, memory_limit, storage, max_replicas (repeat it)
    #[arg(long = "resource", value_name = "NAME=VALUE")]
    resources: Vec<Pair>,
}

impl Fields {
    fn body(&self) -> Value {
        let mut body = Map::new();
        let texts = [
            ("resource_tier", &self.tier),
            ("license_tier", &self.license),
            ("image_tag", &self.release),
            ("domain_name", &self.domain),
        ];
        for (name, value) in texts {
            body.extend(value.clone().map(|value| (name.to_owned(), value.into())));
        }
        let numbers = [
            ("min_replicas", self.min_replicas),
            ("max_replicas", self.max_replicas),
        ];
        for (name, value) in numbers {
            body.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        for (name, pairs) in [("features", &self.features), ("resources", &self.resources)] {
            if !pairs.is_empty() {
                body.insert(name.into(), Pair::object(pairs));
            }
        }
        Value::Object(body)
    }
}

impl Update {
    pub(super) async fn plan(&self, client: &Client) -> Result<Plan, Failure> {
        let id = &self.named.id;
        let seen = Seen::read(client, path_of(id)).await?;
        let plan = Plan::change(format!("update {id}"), Method::PATCH, path_of(id), seen);
        Ok(plan.with_body(self.fields.body()))
    }
}

impl Scale {
    pub(super) async fn plan(&self, client: &Client) -> Result<Plan, Failure> {
        let plan = verb(client, &self.reasoned.named.id, "scale").await?;
        let mut body = json!({"replicas": self.replicas});
        if let Some(reason) = &self.reasoned.reason {
            body["reason"] = reason.as_str().into();
        }
        Ok(plan.with_body(body))
    }
}

impl Reasoned {
    pub(super) async fn plan(&self, client: &Client, name: &str) -> Result<Plan, Failure> {
        let plan = verb(client, &self.named.id, name).await?;
        Ok(match &self.reason {
            Some(reason) => plan.with_body(json!({"reason": reason})),
            None => plan,
        })
    }
}

impl Named {
    pub(super) async fn plan(&self, client: &Client, name: &str) -> Result<Plan, Failure> {
        verb(client, &self.id, name).await
    }

    pub(super) async fn deletion(&self, client: &Client) -> Result<Plan, Failure> {
        let id = &self.id;
        let seen = Seen::read(client, path_of(id)).await?;
        Ok(Plan::delete(format!("delete {id}"), id, seen))
    }
}

/// `POST …/{id}/{name}`, which is how most changes of a deployment are asked for.
async fn verb(client: &Client, id: &str, name: &str) -> Result<Plan, Failure> {
    let seen = Seen::read(client, path_of(id)).await?;
    let path = format!("{}/{name}", path_of(id));
    Ok(Plan::change(
        format!("{name} {id}"),
        Method::POST,
        path,
        seen,
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::Update;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        update: Update,
    }

    #[test]
    fn only_what_is_given_is_changed() {
        let line = [
            "update",
            "demo-isp-0190a1b2",
            "--tier",
            "medium",
            "--feature",
            "billing=true",
            "--feature",
            "old=null",
        ];
        let body = Line::try_parse_from(line).unwrap().update.fields.body();
        let expected =
            json!({"resource_tier": "medium", "features": {"billing": true, "old": null}});
        assert_eq!(body, expected);
    }

    #[test]
    fn an_update_of_nothing_is_wrong_usage() {
        assert!(Line::try_parse_from(["update", "demo-isp-0190a1b2"]).is_err());
    }
}
