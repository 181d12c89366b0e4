//! What a step becomes that changes the platform itself: tokens, tenants, regions, agents.

use dotmac_domain::{
    Command, State,
    access::Role,
    command::{UpdateRegion, UpdateTenant},
};
use dotmac_protocol::{
    ids::{AgentId, RegionId, TenantId, TokenId},
    time::Timestamp,
};

use crate::fixture::{HOUR_MS, token, token_id};

/// A change of the platform as it is now. Numbers choose among what exists.
pub(super) fn command(state: &State, kind: u8, which: u8, now: u64) -> Command {
    let tenant = || -> TenantId {
        pick(which, state.tenants.keys()).unwrap_or_else(|| "nobody-00000000".parse().unwrap())
    };
    let known = || -> TokenId { pick(which, state.tokens.keys()).unwrap_or_else(|| token_id(1)) };
    let region = || -> RegionId { format!("lab-{}", 1 + which % 4).parse().unwrap() };
    match kind % 10 {
        0 => {
            let role = Role::ALL[usize::from(which) % 6];
            let tenant = role.is_tenant_bound().then(tenant);
            let mut passing = token(2 + u64::from(which % 5), role, tenant.as_ref());
            passing.expires_at = (!which.is_multiple_of(3)).then(|| Timestamp(now + HOUR_MS));
            Command::CreateToken(passing)
        }
        1 | 2 => Command::RevokeToken { token: known() },
        3 => Command::NoteTokenUse {
            uses: vec![(known(), Timestamp(now))],
        },
        4 => Command::CreateTenant {
            name: format!("ISP {}", which % 8),
            reseller: None,
        },
        5 => Command::UpdateTenant(UpdateTenant {
            tenant: tenant(),
            name: (!which.is_multiple_of(2)).then(|| "Renamed".to_owned()),
            reseller: Some("partner".to_owned()),
        }),
        6 => Command::DeleteTenant { tenant: tenant() },
        7 if !which.is_multiple_of(2) => Command::CreateRegion {
            region: region(),
            description: String::new(),
        },
        7 => Command::UpdateRegion(UpdateRegion {
            region: region(),
            description: None,
            accepts_deployments: Some(!which.is_multiple_of(4)),
        }),
        8 => {
            let agent: Option<AgentId> = pick(which, state.agents.keys());
            let agent = agent.unwrap_or_else(|| "lab-1-nobody".parse().unwrap());
            Command::RevokeAgent { agent }
        }
        _ => Command::RevokeJoinToken {
            token: token_id(0x200 + u64::from(which % 4)),
        },
    }
}

fn pick<'a, K: Clone + 'a>(which: u8, keys: impl Iterator<Item = &'a K>) -> Option<K> {
    let keys: Vec<&K> = keys.collect();
    let place = usize::from(which).checked_rem(keys.len())?;
    Some(keys[place].clone())
}
