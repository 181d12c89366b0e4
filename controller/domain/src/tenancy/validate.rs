//! What a request for a deployment must look like, and what follows from it.

use std::collections::BTreeMap;

use dotmac_protocol::{
    digest::Digest,
    ids::{DeploymentId, Generation, RegionId, TenantId},
    license::{License, Tier},
};

use super::grant::{LicenseTerms, TierGrant, is_plain};
use crate::{
    access::Permission,
    command::CreateDeployment,
    envelope::Envelope,
    release::ReleaseKey,
    reply::{Code, Rejection},
    state::State,
    tenancy::{Deployment, Status, tenant_id},
    tier,
};

/// Bytes of `custom_config` at most.
const CUSTOM_CONFIG_BYTES_MAX: usize = 64 * 1024;
/// Credentials at most.
const CREDENTIALS_MAX: usize = 64;
/// Bytes of all credentials' names and ciphertexts at most.
const CREDENTIALS_BYTES_MAX: usize = 128 * 1024;
/// Features at most.
const FEATURES_MAX: usize = 200;

/// Everything that a valid request settles.
pub(super) struct CreatePlan {
    pub(super) tenant: TenantId,
    pub(super) tenant_name: String,
    pub(super) id: DeploymentId,
    pub(super) region: RegionId,
    pub(super) grant: TierGrant,
    pub(super) license_tier: Tier,
    /// What the tenant's other licences leave to this one.
    pub(super) terms: Option<LicenseTerms>,
    pub(super) release: ReleaseKey,
    pub(super) generation: Generation,
}

impl State {
    /// Checks a request for a deployment without changing anything.
    pub(super) fn check_create(
        &self,
        envelope: &Envelope,
        create: &CreateDeployment,
    ) -> Result<CreatePlan, Rejection> {
        self.require(
            &envelope.actor,
            Permission::DeploymentCreate,
            create.tenant.as_ref(),
        )?;
        check_fields(create)?;
        if let Some(tenant) = create.tenant.as_ref().filter(|_| !is_plain(create)) {
            self.require(&envelope.actor, Permission::DeploymentPlan, Some(tenant))?;
        }
        let terms = match &create.tenant {
            Some(tenant) => self.check_terms(envelope, tenant)?,
            None => None,
        };
        let environment = create.environment.as_str();
        let (tenant, tenant_name, id) = match &create.tenant {
            Some(tenant) => self.further(envelope, tenant, environment)?,
            None => {
                self.require(&envelope.actor, Permission::TenantCreate, None)?;
                let tenant = tenant_id(&create.tenant_name, &envelope.request);
                self.check_new_tenant(&tenant)?;
                let id = DeploymentId::first_of(&tenant);
                (tenant, create.tenant_name.trim().to_owned(), id)
            }
        };
        let is_gone = |one: &Deployment| one.status == Status::Destroyed;
        if !self.deployments.get(&id).is_none_or(is_gone) {
            let detail = format!("deployment {id} exists already");
            return Err(Rejection::new(Code::AlreadyExists, detail));
        }
        let genesis = self
            .genesis
            .as_ref()
            .expect("apply checks that the cluster is founded");
        let region = create
            .region
            .clone()
            .unwrap_or_else(|| genesis.default_region.clone());
        self.check_open_region(&region)?;
        if let Some(agent) = &create.sealed_for {
            let fits = self
                .agents
                .get(agent)
                .is_some_and(|one| one.region == region);
            if !fits {
                return Err(Rejection::new(
                    Code::WrongState,
                    format!("agent {agent} left {region}"),
                ));
            }
        }
        self.check_credentials(create)?;
        self.check_domain(envelope, create.domain_name.as_deref(), None)?;
        let grant = TierGrant::of(&create.resource_tier, create.resources.as_ref())?;
        let license_tier = Tier::from_name(&create.license_tier).ok_or_else(|| {
            Rejection::field("license_tier", &create.license_tier, tier::LICENSE_TIERS)
        })?;
        let release = self.choose_release(create.image_tag.as_deref())?;
        Ok(CreatePlan {
            generation: self.generation_after(&id),
            tenant,
            tenant_name,
            id,
            region,
            grant,
            license_tier,
            terms,
            release,
        })
    }

    /// Credentials are few, small and sealed to the agent that is to have them.
    fn check_credentials(&self, create: &CreateDeployment) -> Result<(), Rejection> {
        let credentials = &create.credentials;
        let agent = create
            .sealed_for
            .as_ref()
            .and_then(|id| self.agents.get(id));
        let key = agent.map(|agent| Digest::of(&agent.seal_key));
        let bytes: usize = credentials
            .iter()
            .map(|one| one.name.len().saturating_add(one.sealed.ciphertext.len()))
            .fold(0, usize::saturating_add);
        let sound = credentials.len() <= CREDENTIALS_MAX
            && bytes <= CREDENTIALS_BYTES_MAX
            && create.sealed_for.is_some() != credentials.is_empty()
            && credentials.iter().all(|one| Some(one.sealed.to) == key);
        if sound {
            return Ok(());
        }
        let allowed = format!(
            "at most {CREDENTIALS_MAX} and {CREDENTIALS_BYTES_MAX} bytes, each sealed to the target agent"
        );
        Err(Rejection::field("credentials", credentials.len(), allowed))
    }

    /// The first generation of a deployment: above what an agent may still hold of one that had its id before.
    fn generation_after(&self, id: &DeploymentId) -> Generation {
        let before = self.units.values().filter(|unit| unit.deployment == *id);
        let highest = before.map(|unit| unit.generation).max();
        highest.unwrap_or_default().next()
    }

    /// A further environment of a tenant that the actor may see.
    fn further(
        &self,
        envelope: &Envelope,
        tenant: &TenantId,
        environment: &str,
    ) -> Result<(TenantId, String, DeploymentId), Rejection> {
        let known = self.tenants.get(tenant);
        let may_see = self.may(&envelope.actor, Permission::DeploymentRead, Some(tenant));
        let Some(entry) = known.filter(|_| may_see) else {
            return Err(Rejection::not_found("tenant", tenant));
        };
        if !entry.is_served() {
            let detail = format!("tenant {tenant} is cancelled");
            return Err(Rejection::new(Code::WrongState, detail));
        }
        let taken = self.deployments.iter().find(|(_, one)| {
            one.tenant == *tenant
                && one.environment == environment
                && one.status != Status::Destroyed
        });
        if let Some((id, _)) = taken {
            let detail = format!("tenant {tenant} has {id} for environment {environment} already");
            return Err(Rejection::new(Code::AlreadyExists, detail));
        }
        let has_first = self.deployments.values().any(|one| one.tenant == *tenant);
        let id = if has_first {
            DeploymentId::further_of(tenant, environment)
                .map_err(|error| Rejection::field("environment", environment, error.allowed))?
        } else {
            DeploymentId::first_of(tenant)
        };
        Ok((tenant.clone(), entry.name.clone(), id))
    }

    /// A domain is a host name that no other deployment has. `own` may have it already.
    pub(super) fn check_domain(
        &self,
        envelope: &Envelope,
        domain: Option<&str>,
        own: Option<&DeploymentId>,
    ) -> Result<(), Rejection> {
        let Some(domain) = domain else { return Ok(()) };
        if !is_host_name(domain) {
            let allowed = "a host name of RFC 1123: labels of letters, digits and inner hyphens";
            return Err(Rejection::field("domain_name", domain, allowed));
        }
        let holder = self.domains.get(&domain.to_ascii_lowercase());
        let Some(holder) = holder.filter(|holder| Some(*holder) != own) else {
            return Ok(());
        };
        let detail = match self.visible_deployment(&envelope.actor, holder) {
            Some(_) => format!("the domain {domain} is in use by deployment {holder}"),
            None => format!("the domain {domain} is in use"),
        };
        Err(Rejection::new(Code::DomainInUse, detail))
    }
}

fn check_fields(create: &CreateDeployment) -> Result<(), Rejection> {
    let name = create.tenant_name.trim();
    let length = name.chars().count();
    let is_needed = create.tenant.is_none();
    if (is_needed && length == 0) || length > 255 || name.chars().any(char::is_control) {
        let allowed = "1 to 255 characters, no control characters";
        return Err(Rejection::field("tenant_name", name, allowed));
    }
    if !matches!(
        create.environment.as_str(),
        "development" | "staging" | "production"
    ) {
        return Err(Rejection::field(
            "environment",
            &create.environment,
            tier::ENVIRONMENTS,
        ));
    }
    check_grants(
        "max_customers",
        [
            create.max_customers,
            create.max_services,
            create.api_rate_limit,
        ],
    )?;
    for (field, text) in [
        ("cluster_name", &create.cluster_name),
        ("reseller_id", &create.reseller),
    ] {
        if let Some(text) = text
            && (text.is_empty() || text.chars().count() > 100 || text.chars().any(char::is_control))
        {
            return Err(Rejection::field(
                field,
                text,
                "1 to 100 characters, no control characters",
            ));
        }
    }
    check_features(&create.features)?;
    let config = &create.custom_config;
    let is_object =
        serde_json::from_str::<serde_json::Value>(config).is_ok_and(|value| value.is_object());
    if config.len() > CUSTOM_CONFIG_BYTES_MAX || !is_object {
        let allowed = format!("a JSON object of at most {CUSTOM_CONFIG_BYTES_MAX} bytes");
        return Err(Rejection::field("custom_config", config.len(), allowed));
    }
    Ok(())
}

/// What a licence may grant; the contract calls its first number by two names.
pub(super) fn check_license(subscribers: &str, license: &License) -> Result<(), Rejection> {
    let numbers = [
        license.max_subscribers,
        license.max_services,
        license.api_rate_limit,
    ];
    check_grants(subscribers, numbers)
}

fn check_grants(subscribers: &str, numbers: [u32; 3]) -> Result<(), Rejection> {
    let bounds = [
        (subscribers, 1, 1_000_000),
        ("max_services", 1, 100_000),
        ("api_rate_limit", 100, 1_000_000),
    ];
    for ((field, least, most), value) in bounds.into_iter().zip(numbers) {
        if value < least || value > most {
            return Err(Rejection::field(field, value, format!("{least} to {most}")));
        }
    }
    Ok(())
}

/// Switches are few and have short names.
pub(super) fn check_features(features: &BTreeMap<String, bool>) -> Result<(), Rejection> {
    if features.len() > FEATURES_MAX || features.keys().any(|key| key.chars().count() > 100) {
        let allowed = format!("at most {FEATURES_MAX} names of at most 100 characters");
        return Err(Rejection::field("features", features.len(), allowed));
    }
    Ok(())
}

/// A host name of RFC 1123 with at least two labels.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 253 && text.contains('.') && text.split('.').all(label)
}

/// The slug of a name: ASCII by transliteration, at most 28 characters, `isp` if nothing is left.
#[must_use]
pub fn tenant_slug(name: &str) -> String {
    let mut slug = String::new();
    for one in deunicode::deunicode(name).chars() {
        if one.is_ascii_alphanumeric() {
            slug.push(one.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(28);
    let slug = slug.trim_matches('-');
    if slug.is_empty() {
        "isp".to_owned()
    } else {
        slug.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{is_host_name, tenant_slug};

    #[test]
    fn slugs_follow_the_contract() {
        let cases = [
            ("Demo ISP", "demo-isp"),
            ("Ünïcödé Nétwörks", "unicode-networks"),
            ("  --  ", "isp"),
            ("北京", "bei-jing"),
            (
                "a very long name of an internet provider",
                "a-very-long-name-of-an-inter",
            ),
        ];
        for (name, slug) in cases {
            assert_eq!(tenant_slug(name), slug, "{name}");
        }
    }

    #[test]
    fn host_names_follow_rfc_1123() {
        for right in ["demo-isp.dotmac.app", "1.example"] {
            assert!(is_host_name(right), "{right}");
        }
        for wrong in [
            "",
            "localhost",
            "-a.example",
            "a..example",
            "a_b.example",
            "a.example.",
            "a b.c",
        ] {
            assert!(!is_host_name(wrong), "{wrong}");
        }
    }
}
