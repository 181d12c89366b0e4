//! What requests about deployments and their answers look like. Beside the readers (`order`, `update`) and the writer
//! (`view`) of the same members.

use dotmac_domain::{
    tenancy::{REASON_CHARS_MAX, REPLICAS_BOUND_MAX, REPLICAS_MAX, Status},
    tier,
};
use serde_json::{Value, json};

use super::order::ADDRESS_MAX;
use crate::api::{licenses, schema, tenants};

/// The resource tiers of the price list.
const TIERS: [&str; 5] = ["micro", "small", "medium", "large", "xlarge"];

/// All of them.
pub(in crate::api) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("Deployment", deployment()),
        ("DeploymentCreate", create()),
        ("DeploymentUpdate", update()),
        ("DeploymentScale", scale()),
        ("DeploymentSuspend", suspend()),
        ("Resources", resources()),
        ("CustomResources", custom_resources()),
    ]
}

/// The body of the contract's quick start.
pub(super) fn example() -> Value {
    json!({
        "tenant_name": "Demo ISP", "resource_tier": "small", "license_tier": "professional",
        "domain_name": "demo-isp.dotmac.app",
    })
}

fn scale() -> Value {
    let replicas = schema::whole(1, REPLICAS_MAX.into());
    let replicas = schema::about(
        "at most what the tier grants, between min_replicas and max_replicas",
        replicas,
    );
    schema::body(&[("replicas", replicas)], &[("reason", reason())])
}

fn suspend() -> Value {
    schema::body(&[], &[("reason", reason())])
}

fn reason() -> Value {
    schema::about("why, for the audit", schema::note(REASON_CHARS_MAX))
}

fn create() -> Value {
    let line = || schema::line(100);
    let mut made = schema::body(
        &[],
        &[
            (
                "tenant_name",
                schema::about(
                    "the ISP's name; required unless tenant_id is given",
                    schema::line(255),
                ),
            ),
            (
                "tenant_id",
                schema::about("adds an environment to this tenant", schema::tenant_id()),
            ),
            ("environment", words(tier::ENVIRONMENTS, "production")),
            (
                "region",
                schema::about(
                    "the cluster's default region if not given",
                    schema::of("RegionId"),
                ),
            ),
            ("domain_name", schema::host_name()),
            ("resource_tier", words(tier::RESOURCE_TIERS, "small")),
            ("resources", schema::of("CustomResources")),
            ("license_tier", words(tier::LICENSE_TIERS, "basic")),
            (
                "image_tag",
                schema::about("the version of a release, or NAME:VERSION", image_tag()),
            ),
            ("cluster_name", line()),
            ("max_customers", or_else(schema::whole(1, 1_000_000), 1000)),
            ("max_services", or_else(schema::whole(1, 100_000), 500)),
            (
                "api_rate_limit",
                or_else(schema::whole(100, 1_000_000), 1000),
            ),
            ("database_url", schema::secret(ADDRESS_MAX)),
            ("redis_url", schema::secret(ADDRESS_MAX)),
            ("features", features(schema::flag())),
            (
                "custom_config",
                schema::about(
                    "at most 64 KiB; members with secret-looking names or values are sealed to the agent, at most 62 of them",
                    schema::any_object(),
                ),
            ),
            ("reseller_id", line()),
        ],
    );
    made["allOf"] = json!([
        {"anyOf": [given("tenant_name"), given("tenant_id")]},
        resources_with_custom(),
    ]);
    made
}

fn update() -> Value {
    let mut made = schema::body(
        &[],
        &[
            ("resource_tier", choice(tier::RESOURCE_TIERS)),
            ("resources", schema::of("CustomResources")),
            ("license_tier", choice(tier::LICENSE_TIERS)),
            ("image_tag", image_tag()),
            ("min_replicas", schema::whole(1, REPLICAS_MAX.into())),
            ("max_replicas", schema::whole(1, REPLICAS_BOUND_MAX.into())),
            ("domain_name", schema::host_name()),
            (
                "features",
                schema::about(
                    "joined with what there is; null takes one away",
                    features(schema::or_null(schema::flag())),
                ),
            ),
        ],
    );
    made["allOf"] = json!([resources_with_custom(), {"anyOf": bounds()}]);
    made
}

/// `min_replicas` is at most `max_replicas`, when both are given.
fn bounds() -> Vec<Value> {
    let both = (1..=REPLICAS_MAX).map(|least| {
        json!({"properties": {"min_replicas": {"const": least}, "max_replicas": {"minimum": least}}, "required": ["min_replicas"]})
    });
    let absent = ["min_replicas", "max_replicas"]
        .map(|name| json!({"properties": {name: {"type": "null"}}}));
    absent.into_iter().chain(both).collect()
}

/// `resources` come with tier `custom` and with no other.
fn resources_with_custom() -> Value {
    json!({
        "if": {"properties": {"resource_tier": {"const": "custom"}}, "required": ["resource_tier"]},
        "then": {"properties": {"resources": {"type": "object"}}, "required": ["resources"]},
        "else": {"properties": {"resources": {"type": "null"}}},
    })
}

fn custom_resources() -> Value {
    schema::about(
        "Every number of tier `custom`; no request is above its limit.",
        schema::object(
            &[
                ("cpu_request", schema::cpu()),
                ("memory_request", schema::bytes()),
                ("cpu_limit", schema::cpu()),
                ("memory_limit", schema::bytes()),
                ("storage", schema::bytes()),
                ("max_replicas", schema::whole(1, REPLICAS_BOUND_MAX.into())),
            ],
            &[],
        ),
    )
}

fn image_tag() -> Value {
    schema::pattern("^([a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?:)?[A-Za-z0-9_+][A-Za-z0-9._+-]{0,63}$")
}

fn features(switch: Value) -> Value {
    json!({
        "type": "object", "additionalProperties": switch, "maxProperties": 200,
        "propertyNames": {"maxLength": 100},
    })
}

fn given(name: &str) -> Value {
    json!({"properties": {name: {"type": "string"}}, "required": [name]})
}

fn words(sentence: &str, default: &str) -> Value {
    or_else(choice(sentence), default)
}

/// The words that a sentence such as `a, b or c` lists.
pub(in crate::api) fn choice(sentence: &str) -> Value {
    let words = sentence
        .split([',', ' '])
        .filter(|word| !matches!(*word, "" | "or"));
    schema::one_of(&words.collect::<Vec<_>>())
}

fn or_else(schema: Value, default: impl Into<Value>) -> Value {
    let mut schema = schema;
    schema["default"] = default.into();
    schema
}

fn resources() -> Value {
    let text = schema::any_text;
    schema::object(
        &[
            ("cpu_request", text()),
            ("memory_request", text()),
            ("cpu_limit", text()),
            ("memory_limit", text()),
            ("storage", text()),
        ],
        &[],
    )
}

fn release(has_digest: bool) -> Value {
    let mut members = vec![
        ("name", schema::release_name()),
        ("version", schema::release_version()),
    ];
    if has_digest {
        members.push(("digest", schema::or_null(schema::digest())));
    }
    schema::object(&members, &[])
}

fn component() -> Value {
    schema::object(
        &[
            ("name", schema::part_name()),
            ("desired", schema::count()),
            ("ready", schema::count()),
            ("restarts", schema::count()),
            ("pids", schema::list(schema::count())),
            ("address", schema::text_or_null()),
        ],
        &[],
    )
}

fn rollback_target() -> Value {
    let version = schema::object(
        &[
            ("release", release(false)),
            ("resource_tier", tier_of_answers()),
            ("features", schema::map_of(schema::flag())),
            ("generation", schema::count()),
            ("confirmed_at", schema::time()),
        ],
        &[],
    );
    schema::about(
        "the last other version that was healthy",
        schema::or_null(version),
    )
}

fn tier_of_answers() -> Value {
    schema::one_of(&[&TIERS[..], &["custom"]].concat())
}

fn deployment() -> Value {
    let waiting = schema::object(
        &[
            ("reason", schema::any_text()),
            ("since", schema::time()),
            ("who", schema::any_text()),
        ],
        &[],
    );
    let hop = schema::object(
        &[("station", schema::any_text()), ("at_ms", schema::count())],
        &[],
    );
    let members = [
        identity(),
        content(),
        health(),
        vec![
            (
                "waiting",
                schema::about(
                    "what it waits for, and who can change that",
                    schema::or_null(waiting),
                ),
            ),
            ("reason", schema::text_or_null()),
            ("next_step", schema::text_or_null()),
            ("journey", schema::list(hop)),
        ],
    ];
    schema::object(&members.concat(), &[])
}

fn identity() -> Vec<(&'static str, Value)> {
    vec![
        ("id", schema::deployment_id()),
        ("tenant_id", schema::tenant_id()),
        ("tenant_name", schema::any_text()),
        ("deployment_name", schema::any_text()),
        ("namespace", schema::any_text()),
        ("environment", choice(tier::ENVIRONMENTS)),
        ("region", schema::region_id()),
        ("agent", schema::or_null(schema::agent_id())),
        ("status", schema::one_of(&Status::ALL.map(Status::as_str))),
        ("generation", schema::count()),
        ("observed_generation", schema::count()),
        (
            "revision",
            schema::about("its `ETag` is \"r\" and this number", schema::count()),
        ),
        ("created_at", schema::time()),
        ("deployed_at", schema::or_null(schema::time())),
        ("last_updated", schema::time()),
        ("delete_after", schema::or_null(schema::time())),
    ]
}

fn content() -> Vec<(&'static str, Value)> {
    vec![
        ("resource_tier", tier_of_answers()),
        ("license_tier", choice(tier::LICENSE_TIERS)),
        ("domain_name", schema::text_or_null()),
        ("cluster_name", schema::text_or_null()),
        ("reseller_id", schema::text_or_null()),
        ("replicas", schema::count()),
        ("min_replicas", schema::count()),
        ("max_replicas", schema::count()),
        ("tier_max_replicas", schema::count()),
        ("features", schema::map_of(schema::flag())),
        ("max_customers", schema::count()),
        ("max_services", schema::count()),
        ("api_rate_limit", schema::count()),
        ("license", licenses::brief_schema()),
        ("usage", tenants::usage_schema()),
        ("release", release(true)),
        ("resources", schema::of("Resources")),
        ("rollback_to", rollback_target()),
        ("custom_config", schema::any_object()),
        (
            "credentials",
            schema::about(
                "the names of what was sealed to the agent",
                schema::list(schema::any_text()),
            ),
        ),
    ]
}

fn health() -> Vec<(&'static str, Value)> {
    let words = ["healthy", "degraded", "unhealthy", "unknown"];
    vec![
        ("pod_count", schema::count()),
        ("ready_pods", schema::count()),
        ("health_status", schema::one_of(&words)),
        ("health_reason", schema::any_text()),
        ("restarts_ordered", schema::count()),
        ("suspended_reason", schema::text_or_null()),
        ("limits", schema::text_or_null()),
        ("components", schema::list(component())),
    ]
}
