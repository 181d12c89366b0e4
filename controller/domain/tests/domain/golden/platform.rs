//! The commands that change the platform itself, and what becomes of it.

use dotmac_domain::{
    Command,
    access::Role,
    command::{UpdateRegion, UpdateTenant},
};
use dotmac_protocol::{ids::TenantId, time::Timestamp};

use crate::fixture::{HOUR_MS, START, TestAgent, World, token, token_id};

/// Every such command once, in the order of the enumeration.
pub(super) fn commands() -> Vec<(&'static str, Command)> {
    let tenant: TenantId = "demo-isp-0190a1b2".parse().unwrap();
    let region = || "lab-3".parse().unwrap();
    vec![
        ("revoke-token", Command::RevokeToken { token: token_id(2) }),
        (
            "note-token-use",
            Command::NoteTokenUse {
                uses: vec![(token_id(1), Timestamp(START))],
            },
        ),
        (
            "create-tenant",
            Command::CreateTenant {
                name: "Ünïcödé Nétwörks".into(),
                reseller: Some("partner-1".into()),
            },
        ),
        (
            "update-tenant",
            Command::UpdateTenant(UpdateTenant {
                tenant: tenant.clone(),
                name: Some("Demo ISP".into()),
                reseller: Some(String::new()),
            }),
        ),
        ("delete-tenant", Command::DeleteTenant { tenant }),
        (
            "create-region",
            Command::CreateRegion {
                region: region(),
                description: "a third one".into(),
            },
        ),
        (
            "update-region",
            Command::UpdateRegion(UpdateRegion {
                region: region(),
                description: Some("closed".into()),
                accepts_deployments: Some(false),
            }),
        ),
        (
            "revoke-agent",
            Command::RevokeAgent {
                agent: TestAgent::new(40).id,
            },
        ),
        (
            "revoke-join-token",
            Command::RevokeJoinToken { token: token_id(5) },
        ),
    ]
}

/// A passing token that was used, a revoked one, a cancelled tenant, a region of one's own, a revoked agent.
pub(super) fn populate(world: &mut World) {
    let mut passing = token(3, Role::Auditor, None);
    passing.expires_at = Some(Timestamp(world.now + 24 * HOUR_MS));
    world.ask(Command::CreateToken(passing)).unwrap();
    let uses = vec![(token_id(3), Timestamp(world.now))];
    world.plan(Command::NoteTokenUse { uses }).unwrap();
    let revoked = token(4, Role::Support, None);
    world.ask(Command::CreateToken(revoked)).unwrap();
    let token = token_id(4);
    world.ask(Command::RevokeToken { token }).unwrap();
    let (name, reseller) = ("Cancelled ISP".into(), Some("partner-1".into()));
    let made = world.ask(Command::CreateTenant { name, reseller });
    let Ok(dotmac_domain::Accepted::Tenant(tenant)) = made else {
        panic!("no tenant: {made:?}");
    };
    world.ask(Command::DeleteTenant { tenant }).unwrap();
    for (_, command) in commands() {
        if matches!(
            command,
            Command::CreateRegion { .. } | Command::UpdateRegion(_)
        ) {
            world.ask(command).unwrap();
        }
    }
    let agent = world.join(42).id;
    world.ask(Command::RevokeAgent { agent }).unwrap();
}
