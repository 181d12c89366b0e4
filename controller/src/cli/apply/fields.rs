//! The fields that a file of deployments may hold: one table, so that reading, comparing, exporting and the example
//! agree.

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// A text.
    Text,
    /// A whole number.
    Count,
    /// `active` or `suspended`.
    State,
    /// Names that are true or false; null forgets one.
    Switches,
    /// A mapping of its own members.
    Members,
    /// A mapping of anything, in which secrets come from elsewhere.
    Config,
    /// A secret, which comes from elsewhere.
    Secret,
}

/// When a field may be given another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It says which deployment is meant.
    Never,
    /// At creation only.
    AtCreation,
    /// Whenever it runs, by an update.
    ByUpdate,
    /// By an order of its own (scale, suspend, resume).
    ByOrder,
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    /// Its name, as the API has it.
    pub(super) name: &'static str,
    /// What it holds.
    pub(super) sort: Sort,
    /// When it may change.
    pub(super) change: Change,
    /// Whether a creation may name it.
    pub(super) at_creation: bool,
}

/// Values of the field `state`.
pub(super) const STATES: [&str; 2] = ["active", "suspended"];

/// Every field.
pub(super) const FIELDS: [Field; 23] = [
    identity("id"),
    identity("tenant_id"),
    identity("tenant_name"),
    identity("environment"),
    order("state", Sort::State),
    order("replicas", Sort::Count),
    update("resource_tier", Sort::Text, true),
    update("resources", Sort::Members, true),
    update("license_tier", Sort::Text, true),
    update("image_tag", Sort::Text, true),
    update("domain_name", Sort::Text, true),
    update("min_replicas", Sort::Count, false),
    update("max_replicas", Sort::Count, false),
    update("features", Sort::Switches, true),
    creation("region", Sort::Text),
    creation("cluster_name", Sort::Text),
    creation("reseller_id", Sort::Text),
    creation("max_customers", Sort::Count),
    creation("max_services", Sort::Count),
    creation("api_rate_limit", Sort::Count),
    creation("custom_config", Sort::Config),
    creation("database_url", Sort::Secret),
    creation("redis_url", Sort::Secret),
];

const fn identity(name: &'static str) -> Field {
    field(name, Sort::Text, Change::Never, false)
}

const fn order(name: &'static str, sort: Sort) -> Field {
    field(name, sort, Change::ByOrder, false)
}

const fn update(name: &'static str, sort: Sort, at_creation: bool) -> Field {
    field(name, sort, Change::ByUpdate, at_creation)
}

const fn creation(name: &'static str, sort: Sort) -> Field {
    field(name, sort, Change::AtCreation, true)
}

const fn field(name: &'static str, sort: Sort, change: Change, at_creation: bool) -> Field {
    Field {
        name,
        sort,
        change,
        at_creation,
    }
}

/// The field of this name.
pub(super) fn find(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.name == name)
}

/// What to write instead of a member that deployments show but nobody can ask for.
pub(super) fn hint(name: &str) -> Option<&'static str> {
    let hint = match name {
        "status" => "it is what the cluster tells; write `state: active` or `state: suspended`",
        "release" => "write `image_tag: NAME:VERSION`",
        "credentials" => "write `database_url: {from_env: NAME}`",
        "agent" | "components" | "created_at" | "delete_after" | "deployed_at"
        | "deployment_name" | "generation" | "health_reason" | "health_status" | "journey"
        | "last_updated" | "limits" | "namespace" | "next_step" | "pod_count" | "ready_pods"
        | "reason" | "restarts_ordered" | "revision" | "rollback_to" | "suspended_reason"
        | "tier_max_replicas" | "waiting" => {
            "it is what the cluster tells; `dotmac deployments export` leaves such members out"
        }
        _ => return None,
    };
    Some(hint)
}

impl Sort {
    /// What is wanted, for people.
    pub(super) fn wanted(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Count => "a number",
            Self::State => "active or suspended",
            Self::Switches => "a mapping of names to true or false",
            Self::Members | Self::Config => "a mapping",
            Self::Secret => "{from_env: NAME} or {from_file: PATH}",
        }
    }
}
