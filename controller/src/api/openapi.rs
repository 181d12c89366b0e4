//! The OpenAPI 3.1 document, made of the registry of operations and of the schemas that stand beside their readers. It
//! knows no domain and adds no promise of its own.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    operation::{Access, Audit, Operation, Parameter, Place, Success},
    problem::Kind,
    schema,
};

mod problems;

/// What the nouns of the operations are about.
pub(super) const TAGS: &[(&str, &str)] = &[
    (
        "deployments",
        "Instances of the ISP Framework, one a tenant and environment.",
    ),
    ("tenants", "The ISPs that are customers."),
    ("licenses", "What instances may do, and until when."),
    ("releases", "What instances consist of."),
    ("regions", "Places where instances run."),
    ("tiers", "What resource and license tiers grant."),
    ("agents", "The machines that keep instances true."),
    ("join_tokens", "Single-use tokens with which agents join."),
    ("tokens", "Access tokens."),
    ("whoami", "Who holds this token, and what he may do."),
    ("cluster", "How the controllers are."),
    (
        "controllers",
        "The controllers one by one: those that learn, vote, and left.",
    ),
    ("trust_roots", "Whose signatures count, version by version."),
    (
        "backups",
        "The newest good one, the one under way, and those at the target.",
    ),
    ("events", "What changes, as it changes."),
    (
        "audit",
        "What was done, by whom, in chains that nobody can rewrite unseen.",
    ),
    ("health", "Whether this controller lives and can serve."),
    ("metrics", "What this controller counts."),
    ("root", "The way in."),
    ("docs", "This document, and pages about errors."),
];
/// The API in a few paragraphs.
pub(super) const ABOUT: &str = "Every answer is JSON, every error a problem (RFC 9457) with a stable `code`, a page about it under \
`type`, and `next`, what to do.\n\nChanges take `Idempotency-Key`: the same key with the same request gets the first answer \
again, with another request 422. With `dry_run=true` a change answers 200 with what would be different, and changes nothing. \
Entities carry `ETag`; a change with `If-Match` is refused (412) when they have changed since.\n\nReads see everything that \
was committed before them; `consistency=stale` answers with what this controller last knew. Lists page with `limit` and \
`cursor`. Whoever may not see a thing gets the same 404 as if there were none. Unknown members and parameters are refused.";

/// The document; `regions` are those of this cluster, if known.
pub(super) fn document(
    operations: &[Operation],
    schemas: Vec<(String, Value)>,
    regions: &[String],
) -> Value {
    let mut responses = Map::new();
    let mut paths = Map::new();
    for one in operations {
        let item = paths.entry(one.path.clone()).or_insert_with(|| json!({}));
        item[one.method.as_str().to_ascii_lowercase()] = operation(one, &mut responses);
    }
    let mut schemas: Map<String, Value> = schemas.into_iter().collect();
    if !regions.is_empty() {
        schemas.insert(
            "RegionId".to_owned(),
            json!({"type": "string", "enum": regions}),
        );
    }
    let used = |tag: &str| operations.iter().any(|one| one.tag() == tag);
    let tags: Vec<Value> = TAGS
        .iter()
        .filter(|(name, _)| used(name))
        .map(|(name, about)| json!({"name": name, "description": about}))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "DotMac control plane", "version": "1", "summary": "The operator's API",
            "description": ABOUT, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses,
            "headers": headers(),
            "securitySchemes": {"bearer": {
                "type": "http", "scheme": "bearer",
                "description": "`make up` puts the administrator's token into .dotmac/admin.token",
            }},
        },
    })
}

fn headers() -> Value {
    let header = |about: &str, schema: Value| json!({"description": about, "required": true, "schema": schema});
    json!({
        "RequestId": header("the id under which log and audit know the request", schema::pattern("^[0-9a-f]{32}$")),
        "RetryAfter": header("seconds after which another try may help", schema::whole(1, 86_400)),
        "Challenge": header("how to say who asks", schema::one_of(&["Bearer"])),
    })
}

fn operation(one: &Operation, responses: &mut Map<String, Value>) -> Value {
    let mut made = json!({
        "operationId": one.id,
        "tags": [one.tag()],
        "summary": one.summary,
        "description": description(one),
        "parameters": one.parameters.iter().map(parameter).collect::<Value>(),
        "security": security(one),
    });
    if let Some(body) = &one.body {
        made["requestBody"] = json!({
            "required": body.is_required,
            "content": {"application/json": {"schema": body.schema}},
        });
        if let Some(example) = &body.example {
            made["requestBody"]["content"]["application/json"]["example"] = example.clone();
        }
    }
    made["responses"] = answers(one);
    for (status, kinds) in problems::by_status(one) {
        let name = problems::name(status, &kinds);
        let answer = json!({"$ref": format!("#/components/responses/{name}")});
        responses
            .entry(name)
            .or_insert_with(|| problems::response(status, &kinds));
        join_problem(&mut made["responses"], status, answer, &kinds);
    }
    made
}

/// A status that is both an answer and a problem (readiness) says both.
fn join_problem(answers: &mut Value, status: StatusCode, answer: Value, kinds: &[&Kind]) {
    let key = status.as_str();
    match answers.get_mut(key) {
        None => answers[key] = answer,
        Some(known) => {
            known["content"]["application/problem+json"] =
                json!({"schema": problems::schema_of(status, kinds)});
        }
    }
}

/// What an operation does, who may ask for it, and what the audit keeps.
pub(super) fn description(one: &Operation) -> String {
    let rights = match &one.access {
        Access::Public => "Needs no token.".to_owned(),
        Access::AnyToken => "Needs a token, whichever.".to_owned(),
        Access::Needs(permissions, _) => {
            let names: Vec<String> = permissions
                .iter()
                .map(|one| format!("`{}`", one.as_str()))
                .collect();
            format!("Needs {}.", names.join(" and "))
        }
    };
    let audit = match one.audit {
        Audit::Noted(action) => {
            format!(" Noted in the audit as `{action}` before anything is shown.")
        }
        Audit::None | Audit::ByCommand => String::new(),
    };
    format!("{} {rights}{audit}", one.about)
}

fn security(one: &Operation) -> Value {
    match &one.access {
        Access::Public => json!([]),
        Access::AnyToken => json!([{"bearer": []}]),
        Access::Needs(permissions, _) => {
            let names: Vec<&str> = permissions.iter().map(|one| one.as_str()).collect();
            json!([{"bearer": names}])
        }
    }
}

fn parameter(one: &Parameter) -> Value {
    let mut made = json!({
        "name": one.name, "in": one.place.as_str(), "required": one.is_required,
        "description": one.about, "schema": one.schema,
    });
    if one.place == Place::Header {
        // Its value stands as it is, without the separators of lists.
        made["style"] = "simple".into();
    }
    made
}

/// The answers that are no problem, and those of a dry run.
fn answers(one: &Operation) -> Value {
    let mut made = json!({});
    let mut first = true;
    for success in &one.answers {
        let shown = answer(one, success, std::mem::take(&mut first));
        match (made.get_mut(success.status.as_str()), &success.content) {
            // The same answer, as another sort of text.
            (Some(known), Some((media, _))) => {
                known["content"][*media] = shown["content"][*media].clone();
            }
            _ => made[success.status.as_str()] = shown,
        }
    }
    if one.audit == Audit::ByCommand {
        let plan = schema::of("DryRun");
        match made.get_mut("200") {
            Some(known) => {
                let schema = &mut known["content"]["application/json"]["schema"];
                *schema = json!({"anyOf": [schema.take(), plan]});
            }
            None => {
                made["200"] = json!({
                    "description": "With `dry_run`: what would be different",
                    "headers": {"x-request-id": {"$ref": "#/components/headers/RequestId"}},
                    "content": {"application/json": {"schema": plan}},
                });
            }
        }
    }
    made
}

fn answer(one: &Operation, success: &Success, is_first: bool) -> Value {
    let mut headers = json!({"x-request-id": {"$ref": "#/components/headers/RequestId"}});
    // A dry run shares the answer 200, and names no new place.
    let is_shared = one.audit == Audit::ByCommand && success.status == StatusCode::OK;
    for (name, about) in &success.headers {
        headers[*name] =
            json!({"description": about, "required": !is_shared, "schema": {"type": "string"}});
    }
    let mut made = json!({"description": success.about, "headers": headers});
    if let Some((media, schema)) = &success.content {
        made["content"] = json!({*media: {"schema": schema}});
    }
    let links: Map<String, Value> = one
        .links
        .iter()
        .filter(|_| is_first)
        .map(|link| {
            let parameters: Map<String, Value> = link
                .parameters
                .iter()
                .map(|(name, from)| ((*name).to_owned(), Value::from(*from)))
                .collect();
            let name = link.operation.replace('.', "_");
            (
                name,
                json!({"operationId": link.operation, "parameters": parameters}),
            )
        })
        .collect();
    if !links.is_empty() {
        made["links"] = links.into();
    }
    made
}

/// The schemas that every operation shares.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let difference = schema::object(
        &[
            ("field", schema::any_text()),
            ("from", json!({})),
            ("to", json!({})),
        ],
        &[],
    );
    let dry_run = schema::object(
        &[
            ("dry_run", json!({"const": true})),
            ("changes", schema::list(difference)),
            ("result", schema::or_null(schema::any_object())),
        ],
        &[],
    );
    vec![
        ("Problem", problems::schema()),
        ("DryRun", dry_run),
        ("RegionId", schema::region_id()),
    ]
}
