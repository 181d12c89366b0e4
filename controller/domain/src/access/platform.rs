//! The commands that change the platform itself: which permission each takes, and how the audit tells it.

use dotmac_protocol::{
    codec,
    ids::{NodeId, TenantId},
    trust::TrustRoot,
};

use super::Permission;
use crate::{
    backups::BackupNews,
    command::Command,
    reply::{Accepted, Reply},
    state::State,
};

/// Action, tenant and detail of an audit entry.
pub(crate) type Words = (&'static str, Option<TenantId>, String);

impl Command {
    /// The permission that a change of the platform itself takes. Such a change counts only when it is proven.
    pub(crate) fn changes_platform(&self) -> Option<Permission> {
        match self {
            Self::CreateToken(_) | Self::RevokeToken { .. } => Some(Permission::TokenWrite),
            Self::CreateTenant { .. } => Some(Permission::TenantCreate),
            Self::UpdateTenant(_) => Some(Permission::TenantUpdate),
            Self::DeleteTenant { .. } => Some(Permission::TenantDelete),
            Self::CreateRegion { .. } | Self::UpdateRegion(_) => Some(Permission::RegionWrite),
            Self::RevokeAgent { .. } => Some(Permission::AgentDelete),
            Self::RevokeJoinToken { .. } => Some(Permission::AgentWrite),
            Self::RaiseRules { .. }
            | Self::FollowTrustRoot { .. }
            | Self::AdmitController(_)
            | Self::PromoteController { .. }
            | Self::RetireController { .. } => Some(Permission::ClusterWrite),
            Self::RequestBackup => Some(Permission::BackupCreate),
            _ => None,
        }
    }
}

impl State {
    /// Action, tenant and detail of a change of the platform, as if it had been accepted.
    pub(crate) fn words_of_platform(&self, command: &Command, reply: &Reply) -> Option<Words> {
        let words = match command {
            Command::CreateToken(token) => {
                let (id, name, role) = (&token.id, &token.name, token.role.as_str());
                (
                    "token.created",
                    token.tenant.clone(),
                    format!("{id} ({name}) as {role}"),
                )
            }
            Command::RevokeToken { token: id } => {
                let token = self.tokens.get(id);
                let tenant = token.and_then(|token| token.tenant.clone());
                let name = token.map_or("unknown", |token| token.name.as_str());
                ("token.revoked", tenant, format!("{id} ({name})"))
            }
            Command::CreateTenant { name, .. } => match reply {
                Ok(Accepted::Tenant(id)) => {
                    ("tenant.created", Some(id.clone()), format!("{id} ({name})"))
                }
                _ => ("tenant.created", None, name.clone()),
            },
            Command::UpdateTenant(update) => {
                let fields = [
                    ("tenant_name", update.name.clone()),
                    ("reseller_id", update.reseller.clone()),
                ];
                let tenant = &update.tenant;
                let detail = format!("{tenant}{}", in_words(fields));
                ("tenant.updated", Some(tenant.clone()), detail)
            }
            Command::DeleteTenant { tenant } => {
                ("tenant.deleted", Some(tenant.clone()), tenant.to_string())
            }
            Command::CreateRegion { region, .. } => ("region.created", None, region.to_string()),
            Command::UpdateRegion(update) => {
                let accepts = update.accepts_deployments;
                let fields = [
                    ("accepts_deployments", accepts.map(|one| one.to_string())),
                    ("description", update.description.clone()),
                ];
                let detail = format!("{}{}", update.region, in_words(fields));
                ("region.updated", None, detail)
            }
            Command::RevokeAgent { agent } => ("agent.revoked", None, agent.to_string()),
            Command::RevokeJoinToken { token } => ("join-token.revoked", None, token.to_string()),
            Command::RaiseRules { to } => ("cluster.finalized", None, format!("rules {to}")),
            Command::RequestBackup => ("backup.requested", None, String::new()),
            Command::NoteBackup { name, news } => words_of_backup(name, news),
            _ => return words_of_cluster(command),
        };
        Some(words)
    }
}

/// Action and detail of a change of the controllers or of the trust root.
fn words_of_cluster(command: &Command) -> Option<Words> {
    let (action, detail) = match command {
        Command::FollowTrustRoot { signed } => {
            let root = codec::decode::<TrustRoot>(&signed.body);
            let version =
                root.map(|root| format!("version {}, epoch {}", root.version, root.epoch));
            ("trust-root.followed", version.unwrap_or_default())
        }
        Command::AdmitController(card) => (
            "controller.admitted",
            format!("{} at {}", card.node, card.link_address),
        ),
        Command::PromoteController { node } => ("controller.promoted", node.to_string()),
        Command::RetireController { node } => ("controller.removed", node.to_string()),
        Command::NoteMembers(members) => {
            let list = |nodes: &[NodeId]| {
                let names: Vec<_> = nodes.iter().map(ToString::to_string).collect();
                names.join(", ")
            };
            let (voters, learners) = (list(&members.voters), list(&members.learners));
            (
                "cluster.members-noted",
                format!("voters {voters}; learners {learners}"),
            )
        }
        _ => return None,
    };
    Some((action, None, detail))
}

/// How a backup ended.
fn words_of_backup(name: &str, news: &BackupNews) -> Words {
    match news {
        BackupNews::Wrote { .. } => ("backup.begun", None, name.to_owned()),
        BackupNews::Made { index, bytes } => {
            let detail = format!("{name}: {bytes} bytes up to index {index}");
            ("backup.made", None, detail)
        }
        BackupNews::Failed { reason } => ("backup.failed", None, format!("{name}: {reason}")),
    }
}

/// The fields that are set.
fn in_words(fields: [(&str, Option<String>); 2]) -> String {
    let set = fields
        .into_iter()
        .filter_map(|(name, value)| Some(format!(" {name}={}", value?)));
    set.collect()
}
