//! Changes of the platform itself (tokens, tenants, regions, agents), with the values that break things.

use dotmac_domain::{
    Command,
    access::Role,
    command::{CreateToken, UpdateRegion, UpdateTenant},
};
use dotmac_protocol::time::Timestamp;
use proptest::{prelude::*, sample::select};

use super::strategies::{agent, digest, number, region, tenant, text, token};

pub(super) fn command() -> impl Strategy<Value = Command> {
    let option = || proptest::option::of(text());
    let end = || proptest::option::of(number().prop_map(Timestamp));
    let named = (token(), digest(), text());
    let rights = (select(Role::ALL.to_vec()), proptest::option::of(tenant()));
    let create = (named, rights, end()).prop_map(
        |((id, secret_digest, name), (role, tenant), expires_at)| {
            Command::CreateToken(CreateToken {
                id,
                secret_digest,
                name,
                role,
                tenant,
                expires_at,
            })
        },
    );
    let uses = prop::collection::vec((token(), number().prop_map(Timestamp)), 0..4);
    prop_oneof![
        3 => create,
        2 => token().prop_map(|token| Command::RevokeToken { token }),
        1 => uses.prop_map(|uses| Command::NoteTokenUse { uses }),
        1 => (text(), option()).prop_map(|(name, reseller)| {
            Command::CreateTenant { name, reseller }
        }),
        1 => (tenant(), option(), option()).prop_map(|(tenant, name, reseller)| {
            Command::UpdateTenant(UpdateTenant { tenant, name, reseller })
        }),
        1 => tenant().prop_map(|tenant| Command::DeleteTenant { tenant }),
        1 => (region(), text()).prop_map(|(region, description)| {
            Command::CreateRegion { region, description }
        }),
        1 => (region(), option(), any::<Option<bool>>()).prop_map(
            |(region, description, accepts_deployments)| {
                Command::UpdateRegion(UpdateRegion { region, description, accepts_deployments })
            }
        ),
        1 => agent().prop_map(|agent| Command::RevokeAgent { agent }),
        1 => token().prop_map(|token| Command::RevokeJoinToken { token }),
        1 => any::<u16>().prop_map(|to| Command::RaiseRules { to }),
    ]
}
