//! Which of a tenant's deployments is meant: the one of an environment, or the usual one.

use dotmac_domain::{
    State,
    tenancy::{Deployment, Status},
};
use dotmac_protocol::ids::{DeploymentId, TenantId};

use crate::api::{
    fields::Fields,
    problem::{Problem, WRONG_STATE},
};

/// The environments that a deployment can have.
pub(super) const ENVIRONMENTS: [&str; 3] = ["development", "staging", "production"];
/// What the parameter says.
pub(super) const USUALLY: &str =
    "which of its deployments: its only one, or `production`, if not given";
/// The one that is meant when there are several and none is named.
const USUAL: &str = "production";

/// The environment that a query names.
pub(super) fn read(query: &mut Fields) -> Option<&'static str> {
    let text = query.text("environment")?;
    let known = ENVIRONMENTS.into_iter().find(|known| *known == text);
    if known.is_none() {
        query.refuse("environment", &text, "development, staging or production");
    }
    known
}

/// The deployment of that environment; of none, the only one or that of production.
pub(super) fn choose<'s>(
    state: &'s State,
    tenant: &TenantId,
    environment: Option<&str>,
) -> Result<(&'s DeploymentId, &'s Deployment), Problem> {
    let deployments: Vec<_> = state
        .deployments_of(tenant)
        .filter(|(_, one)| one.status != Status::Destroyed)
        .collect();
    let of = |wanted: &str| {
        let mut found = deployments.iter();
        found.find(|(_, one)| one.environment == wanted).copied()
    };
    let found = match (environment, deployments.as_slice()) {
        (Some(wanted), _) => of(wanted),
        (None, [only]) => Some(*only),
        (None, _) => of(USUAL),
    };
    found.ok_or_else(|| match (environment, deployments.is_empty()) {
        (Some(wanted), _) => Problem::not_found("deployment", &format!("{tenant} ({wanted})")),
        (None, true) => Problem::new(&WRONG_STATE, format!("tenant {tenant} has no deployment")),
        (None, false) => {
            let environments: Vec<&str> = deployments
                .iter()
                .map(|(_, one)| one.environment.as_str())
                .collect();
            let detail = format!(
                "tenant {tenant} has several deployments: say which environment, {}",
                environments.join(" or ")
            );
            Problem::new(&WRONG_STATE, detail)
        }
    })
}
