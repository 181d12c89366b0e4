//! The contract's `DeploymentCreate`: reads it, with its defaults, into a command whose credentials are sealed. What
//! the values mean is checked by the State.

use std::collections::BTreeMap;

use dotmac_domain::{
    State,
    access::Permission,
    command::{CreateDeployment, CustomResources},
    tier::{ENVIRONMENTS, LICENSE_TIERS, RESOURCE_TIERS},
};
use dotmac_protocol::{ids::TenantId, unit::Resources};
use dotmac_runtime::entropy::Entropy;
use serde_json::{Map, Value};

use super::{
    credentials::{self, Secrets},
    quantity,
};
use crate::api::{
    agents,
    fields::{Fields, whole},
    principal::Principal,
    problem::{NOT_FOUNDED, Problem},
};

/// Characters of a connection address at most.
pub(super) const ADDRESS_MAX: usize = 4096;
/// Characters of a tenant's name at most.
const TENANT_NAME_MAX: usize = 255;
/// Characters of other names at most.
const NAME_MAX: usize = 100;
/// Bytes of the configuration that is left, at most; the State checks the same.
const CONFIG_MAX: usize = 64 * 1024;

/// What is asked for, its secrets still apart.
pub(super) struct Order {
    command: CreateDeployment,
    secrets: Secrets,
}

impl Order {
    /// Reads a body.
    ///
    /// # Errors
    /// With every member that is wrong; secrets are named, never repeated.
    pub(super) fn read(mut fields: Fields, state: &State) -> Result<Self, Problem> {
        let mut secrets: Secrets = Vec::new();
        for (member, name) in [("database_url", "database.url"), ("redis_url", "redis.url")] {
            if let Some(secret) = fields.secret(member, ADDRESS_MAX) {
                secrets.push((name.to_owned(), secret));
            }
        }
        let custom_config = config(&mut fields, &mut secrets);
        let is_further = fields.has("tenant_id");
        let tenant = fields.parsed::<TenantId>("tenant_id", "the id of an existing tenant");
        let tenant_name = if is_further {
            fields.line("tenant_name", TENANT_NAME_MAX)
        } else {
            fields.required_line("tenant_name", TENANT_NAME_MAX)
        };
        let command = CreateDeployment {
            tenant_name: tenant_name.unwrap_or_default(),
            tenant,
            environment: word_or(&mut fields, "environment", ENVIRONMENTS, "production"),
            region: agents::region(&mut fields, state, false),
            domain_name: fields.text("domain_name"),
            resource_tier: word_or(&mut fields, "resource_tier", RESOURCE_TIERS, "small"),
            resources: resources(&mut fields),
            license_tier: word_or(&mut fields, "license_tier", LICENSE_TIERS, "basic"),
            image_tag: fields.text("image_tag"),
            cluster_name: fields.line("cluster_name", NAME_MAX),
            max_customers: fields
                .number("max_customers", 1..=1_000_000)
                .unwrap_or(1000),
            max_services: fields.number("max_services", 1..=100_000).unwrap_or(500),
            api_rate_limit: fields
                .number("api_rate_limit", 100..=1_000_000)
                .unwrap_or(1000),
            features: features(&mut fields),
            custom_config,
            credentials: Vec::new(),
            sealed_for: None,
            reseller: fields.line("reseller_id", NAME_MAX),
        };
        fields.finish()?;
        Ok(Self { command, secrets })
    }

    /// Whether the caller may ask for it at all. Another's tenant is as unknown as none (law 7).
    pub(super) fn check_right(&self, who: &Principal, state: &State) -> Result<(), Problem> {
        match &self.command.tenant {
            Some(tenant) => who.tenant(state, Permission::DeploymentCreate, tenant),
            None => {
                who.require(state, Permission::DeploymentCreate, None)?;
                who.require(state, Permission::TenantCreate, None)
            }
        }
    }

    /// The command, with the secrets sealed to the agent that will get the deployment.
    ///
    /// # Errors
    /// When there are secrets and no agent to seal them to.
    pub(super) fn seal(
        self,
        state: &State,
        entropy: &Entropy,
    ) -> Result<CreateDeployment, Problem> {
        if self.secrets.is_empty() {
            return Ok(self.command);
        }
        let default = state
            .genesis
            .as_ref()
            .map(|genesis| &genesis.default_region);
        let region = self.command.region.as_ref().or(default);
        let region =
            region.ok_or_else(|| Problem::new(&NOT_FOUNDED, "the cluster is not founded yet"))?;
        let (agent, credentials) =
            credentials::seal_to_agent(&self.secrets, state, region, entropy)?;
        // The region is settled with the agent.
        let region = Some(region.clone());
        Ok(CreateDeployment {
            credentials,
            sealed_for: Some(agent),
            region,
            ..self.command
        })
    }
}

/// One of a few words, which the error lists.
pub(in crate::api) fn word(
    fields: &mut Fields,
    name: &'static str,
    allowed: &str,
) -> Option<String> {
    let text = fields.text(name)?;
    let mut words = allowed
        .split([',', ' '])
        .filter(|word| !matches!(*word, "" | "or"));
    if !words.any(|word| word == text) {
        fields.refuse(name, &text, allowed);
    }
    Some(text)
}

fn word_or(fields: &mut Fields, name: &'static str, allowed: &str, default: &str) -> String {
    word(fields, name, allowed).unwrap_or_else(|| default.to_owned())
}

fn features(fields: &mut Fields) -> BTreeMap<String, bool> {
    let mut switches = BTreeMap::new();
    for (name, value) in fields.object("features").unwrap_or_default() {
        match value {
            Value::Bool(value) => {
                switches.insert(name, value);
            }
            other => {
                let field = format!("features.{name}");
                let value = if other.is_number() {
                    other.to_string()
                } else {
                    String::new()
                };
                fields.refuse(&field, &value, "true or false");
            }
        }
    }
    switches
}

/// The configuration without what is secret in it.
fn config(fields: &mut Fields, secrets: &mut Secrets) -> String {
    let mut members: Map<String, Value> = fields.object("custom_config").unwrap_or_default();
    match credentials::take_from(&mut members) {
        Ok(found) => secrets.extend(found),
        Err(error) => fields.refuse("custom_config", "", error.allowed),
    }
    let text = Value::Object(members).to_string();
    if text.len() > CONFIG_MAX {
        let allowed = format!("an object of at most {CONFIG_MAX} bytes");
        fields.refuse("custom_config", &format!("{} bytes", text.len()), allowed);
    }
    text
}

/// The numbers of tier `custom`; the State says whether they are wanted.
pub(super) fn resources(fields: &mut Fields) -> Option<CustomResources> {
    let mut numbers = fields.nested("resources")?;
    let cpu =
        |numbers: &mut Fields, name| numbers.quantity(name, quantity::cpu_millis, quantity::CPU);
    let bytes =
        |numbers: &mut Fields, name| numbers.quantity(name, quantity::bytes, quantity::BYTES);
    let cpu_request_millis = cpu(&mut numbers, "cpu_request");
    let memory_request_bytes = bytes(&mut numbers, "memory_request");
    let cpu_limit_millis = cpu(&mut numbers, "cpu_limit");
    let memory_limit_bytes = bytes(&mut numbers, "memory_limit");
    let storage_bytes = bytes(&mut numbers, "storage");
    let max_replicas = numbers.quantity("max_replicas", replicas, "1 to 50");
    fields.absorb(numbers);
    Some(CustomResources {
        resources: Resources {
            cpu_request_millis: cpu_request_millis?,
            memory_request_bytes: memory_request_bytes?,
            cpu_limit_millis: cpu_limit_millis?,
            memory_limit_bytes: memory_limit_bytes?,
            storage_bytes: storage_bytes?,
        },
        max_replicas: max_replicas?,
    })
}

fn replicas(value: &Value) -> Option<u16> {
    whole(value)
        .filter(|count| (1..=50).contains(count))
        .and_then(|count| count.try_into().ok())
}
