//! The flags of `dotmac deployments create`, one for each field of the request. What they may hold is decided by the
//! API alone, which names field, value and what is allowed.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use serde_json::{Map, Value};

use super::Patience;
use crate::cli::{failure::Failure, plan::Consent};

#[derive(Args)]
pub(crate) struct Create {
    /// Name of the ISP as people write it
    #[arg(long, visible_alias = "tenant-name", required_unless_present_any = ["tenant_id", "from"])]
    pub(super) name: Option<String>,
    /// Host name under which subscribers reach it
    #[arg(long, visible_alias = "domain-name")]
    domain: Option<String>,
    /// micro, small, medium, large, xlarge or custom [default: small]
    #[arg(long, visible_alias = "resource-tier")]
    tier: Option<String>,
    /// free, basic, premium, professional or enterprise [default: basic]
    #[arg(long, visible_alias = "license-tier")]
    license: Option<String>,
    /// Where it runs [default: the cluster's]
    #[arg(long)]
    region: Option<String>,
    /// Release to run: VERSION or NAME:VERSION [default: the default channel's]
    #[arg(long, visible_alias = "image-tag")]
    release: Option<String>,
    /// A named cluster of the region
    #[arg(long)]
    cluster_name: Option<String>,
    /// development, staging or production [default: production]
    #[arg(long)]
    environment: Option<String>,
    /// An existing tenant that gets a deployment for a further environment
    #[arg(long, value_name = "ID")]
    tenant_id: Option<String>,
    /// Who sold it
    #[arg(long, value_name = "ID")]
    reseller_id: Option<String>,
    /// Subscribers at most [default: 1000]
    #[arg(long)]
    max_customers: Option<u64>,
    /// Services at most [default: 500]
    #[arg(long)]
    max_services: Option<u64>,
    /// Calls of its API a minute at most [default: 1000]
    #[arg(long)]
    api_rate_limit: Option<u64>,
    /// File that holds the address of its database, with credentials
    #[arg(long, value_name = "FILE")]
    database_url_file: Option<PathBuf>,
    /// File that holds the address of its Redis, with credentials
    #[arg(long, value_name = "FILE")]
    redis_url_file: Option<PathBuf>,
    /// Switch a feature: NAME=true or NAME=false (repeat it)
    #[arg(long = "feature", value_name = "NAME=BOOL")]
    features: Vec<Pair>,
    /// Custom configuration: NAME=VALUE, where VALUE is JSON or else text (repeat it)
    #[arg(long = "config", value_name = "NAME=VALUE")]
    custom_config: Vec<Pair>,
    /// With tier custom, all of: cpu_request, memory_request, cpu_limit, memory_limit, storage, max_replicas (repeat it)
    #[arg(long = "resource", value_name = "NAME=VALUE")]
    resources: Vec<Pair>,
    /// The whole request as a JSON file; flags replace its members
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    pub(super) patience: Patience,
    #[command(flatten)]
    pub(super) consent: Consent,
}

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    name: String,
    value: Value,
}

impl Pair {
    /// Pairs as an object; of two with one name the later counts.
    pub(super) fn object(pairs: &[Self]) -> Value {
        let members = pairs
            .iter()
            .map(|pair| (pair.name.clone(), pair.value.clone()));
        Value::Object(members.collect())
    }
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("it has no '='")?;
        if name.is_empty() {
            return Err("the name before '=' is empty".into());
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

impl Create {
    /// Whose it is, for people.
    pub(super) fn title(&self) -> &str {
        let name = self.name.as_deref().or(self.tenant_id.as_deref());
        name.unwrap_or("what the file says")
    }

    /// The request.
    pub(super) fn body(&self) -> Result<Value, Failure> {
        let mut body = match &self.from {
            None => Map::new(),
            Some(file) => {
                let text =
                    std::fs::read(file).map_err(|cause| Failure::io("read", file, &cause))?;
                serde_json::from_slice(&text)
                    .map_err(|cause| Failure::Usage(format!("{}: {cause}", file.display())))?
            }
        };
        let texts = [
            ("tenant_name", &self.name),
            ("domain_name", &self.domain),
            ("resource_tier", &self.tier),
            ("license_tier", &self.license),
            ("region", &self.region),
            ("image_tag", &self.release),
            ("cluster_name", &self.cluster_name),
            ("environment", &self.environment),
            ("tenant_id", &self.tenant_id),
            ("reseller_id", &self.reseller_id),
        ];
        for (name, value) in texts {
            body.extend(value.clone().map(|value| (name.to_owned(), value.into())));
        }
        let numbers = [
            ("max_customers", self.max_customers),
            ("max_services", self.max_services),
            ("api_rate_limit", self.api_rate_limit),
        ];
        for (name, value) in numbers {
            body.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        // From files, so that no credential shows in a list of processes or a shell's history.
        for (name, file) in [
            ("database_url", &self.database_url_file),
            ("redis_url", &self.redis_url_file),
        ] {
            if let Some(file) = file {
                let text = std::fs::read_to_string(file)
                    .map_err(|cause| Failure::io("read", file, &cause))?;
                body.insert(name.into(), text.trim().into());
            }
        }
        let groups = [
            ("features", &self.features),
            ("custom_config", &self.custom_config),
            ("resources", &self.resources),
        ];
        for (name, pairs) in groups {
            if !pairs.is_empty() {
                body.insert(name.into(), Pair::object(pairs));
            }
        }
        Ok(Value::Object(body))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::Create;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn body(flags: &[&str]) -> serde_json::Value {
        let line = ["create"].iter().chain(flags);
        Line::try_parse_from(line).unwrap().create.body().unwrap()
    }

    #[test]
    fn what_is_not_given_is_left_to_the_api() {
        assert_eq!(
            body(&["--name", "Demo ISP"]),
            json!({"tenant_name": "Demo ISP"})
        );
    }

    #[test]
    fn flags_become_the_fields_of_the_contract() {
        let flags = [
            "--name",
            "X",
            "--tier",
            "custom",
            "--license-tier",
            "premium",
            "--max-customers",
            "5",
        ];
        let pairs = [
            "--feature",
            "billing=true",
            "--config",
            "colour=blue",
            "--resource",
            "max_replicas=3",
        ];
        let expected = json!({"tenant_name": "X", "resource_tier": "custom", "license_tier": "premium",
            "max_customers": 5, "features": {"billing": true}, "custom_config": {"colour": "blue"},
            "resources": {"max_replicas": 3}});
        assert_eq!(body(&[&flags[..], &pairs].concat()), expected);
    }

    #[test]
    fn credentials_come_from_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("url");
        std::fs::write(&file, "postgres://u:p@h/d\n").unwrap();
        let made = body(&["--name", "X", "--database-url-file", file.to_str().unwrap()]);
        assert_eq!(made["database_url"], "postgres://u:p@h/d");
    }
}
