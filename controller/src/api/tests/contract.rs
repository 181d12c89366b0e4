//! The OpenAPI document against the code: it is the one that is checked in, it holds together, and whatever the API
//! answers in any of these tests is what it promises.

use std::{collections::BTreeSet, path::Path, sync::LazyLock};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::world::{Answer, EMPTY_REGION, REGION, World};
use crate::api::{
    docs,
    operation::{Access, Operation, Place},
    operations,
    problem::Kind,
};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| docs::document(&[]));

/// Panics unless an answer is one that the document promises for its request.
pub(super) fn check(method: &str, path: &str, answer: &Answer) {
    let Some(operation) = operation_at(method, path) else {
        assert!(
            matches!(answer.status, 404 | 405),
            "{method} {path} is not documented: {answer:?}"
        );
        return;
    };
    let whose = format!("{method} {path} {}", answer.status);
    let promised = &operation["responses"][answer.status.to_string()];
    assert!(
        promised.is_object(),
        "{whose} is not documented: {}",
        answer.text
    );
    let promised = resolved(promised);
    let headers = promised["headers"].as_object();
    for (name, header) in headers.into_iter().flatten() {
        let is_required = resolved(header)["required"] == true;
        assert!(
            !is_required || answer.headers.contains_key(name),
            "{whose} has no {name}"
        );
    }
    let Some(content) = promised["content"].as_object() else {
        assert_eq!(answer.text, "", "{whose}");
        return;
    };
    let media = answer
        .header("content-type")
        .split(';')
        .next()
        .unwrap_or_default()
        .to_owned();
    let schema = content.get(&media).map(|content| &content["schema"]);
    let schema = schema.unwrap_or_else(|| panic!("{whose} is not promised as {media}"));
    if media.ends_with("json") {
        let body = serde_json::from_str(&answer.text).unwrap();
        let errors: Vec<String> = validator(schema)
            .iter_errors(&body)
            .map(|error| format!("{} at {}", error, error.instance_path()))
            .collect();
        assert!(
            errors.is_empty(),
            "{whose} answers what it does not promise: {errors:#?}"
        );
    }
}

fn operation_at(method: &str, path: &str) -> Option<&'static Value> {
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let wanted: Vec<&str> = template.split('/').collect();
        wanted.len() == parts.len()
            && wanted.iter().zip(&parts).all(|(wanted, part)| {
                wanted == part || (wanted.starts_with('{') && !part.is_empty())
            })
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    // A path without a name in it goes before one that has one.
    let template = paths
        .keys()
        .filter(|template| fits(template))
        .min_by_key(|template| template.matches('{').count())?;
    paths[template].get(method.to_ascii_lowercase())
}

fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(to) => DOCUMENT.pointer(to.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

fn validator(schema: &Value) -> Validator {
    let whole = json!({"allOf": [schema], "components": DOCUMENT["components"]});
    jsonschema::draft202012::new(&whole).unwrap()
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_the_one_that_is_checked_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let made = serde_json::to_string_pretty(&*DOCUMENT).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/openapi.json is not what the code says: UPDATE_GOLDEN=1 cargo test -p dotmac-controller api:: rewrites it"
    );
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let mut found = BTreeSet::new();
    references(&DOCUMENT, &mut found);
    for to in &found {
        assert!(
            DOCUMENT.pointer(to.trim_start_matches('#')).is_some(),
            "{to} leads nowhere"
        );
    }
    for (sort, components) in DOCUMENT["components"].as_object().unwrap() {
        for name in components
            .as_object()
            .unwrap()
            .keys()
            .filter(|_| sort != "securitySchemes")
        {
            let to = format!("#/components/{sort}/{name}");
            assert!(found.contains(to.as_str()), "{to} is not used");
            if sort == "schemas" {
                // A schema that is none panics here.
                validator(&json!({"$ref": to}));
            }
        }
    }
}

#[test]
fn operations_hold_together() {
    let all = operations();
    let find = |id: &str| all.iter().find(|one| one.id == id);
    let mut ids = BTreeSet::new();
    for one in &all {
        assert!(ids.insert(one.id), "{} is there twice", one.id);
        assert!(
            !one.summary.is_empty() && !one.answers.is_empty(),
            "{} says too little",
            one.id
        );
        let in_path: BTreeSet<&str> = one
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let declared: BTreeSet<&str> = names(one, Place::Path);
        assert_eq!(in_path, declared, "{}", one.id);
        for link in &one.links {
            let target = find(link.operation)
                .unwrap_or_else(|| panic!("{} links to {}", one.id, link.operation));
            for (name, _) in &link.parameters {
                let known = target
                    .parameters
                    .iter()
                    .any(|parameter| parameter.name == *name);
                assert!(known, "{} has no {name}", target.id);
            }
        }
        let is_open = ["root.", "health.", "docs.", "releases.schema"]
            .iter()
            .any(|open| one.id.starts_with(open));
        assert_eq!(one.access == Access::Public, is_open, "{}", one.id);
        assert!(
            DOCUMENT["tags"]
                .as_array()
                .unwrap()
                .iter()
                .any(|tag| tag["name"] == one.tag()),
            "{}",
            one.id
        );
    }
}

fn names(one: &Operation, place: Place) -> BTreeSet<&'static str> {
    let placed = one
        .parameters
        .iter()
        .filter(|parameter| parameter.place == place);
    placed.map(|parameter| parameter.name).collect()
}

#[tokio::test]
async fn the_documentation_is_served_without_scripts() {
    let world = World::new().await;
    let served = world.get("/openapi.json").await.json();
    let regions = &served["components"]["schemas"]["RegionId"]["enum"];
    assert_eq!(regions, &json!([EMPTY_REGION, REGION]));
    let mut paths = vec!["/docs".to_owned()];
    paths.extend(Kind::all().map(|kind| format!("/docs/errors/{}", kind.code())));
    for path in paths {
        let page = World::send(world.request("GET", &path)).await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, "text/html; charset=utf-8"),
            "{path}"
        );
        let policy = page.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("script"),
            "{policy}"
        );
        assert!(
            !page.text.contains("<script") && !page.text.contains(" style="),
            "{path}"
        );
        assert!(
            !page.text.contains("src=") && !page.text.contains("href=\"http"),
            "{path}"
        );
    }
    let page = World::send(world.request("GET", "/docs")).await;
    for one in operations() {
        assert!(
            page.text.contains(&format!("<article id=\"{}\">", one.id)),
            "{}",
            one.id
        );
    }
    assert_eq!(
        World::send(world.request("GET", "/docs/errors/none"))
            .await
            .status,
        404
    );
    let style = World::send(world.request("GET", "/docs/style.css")).await;
    assert_eq!(
        (style.status, style.header("content-type")),
        (200, "text/css; charset=utf-8")
    );
    world.stop().await;
}

#[tokio::test]
async fn a_problem_leads_to_its_page() {
    let world = World::new().await;
    let problem = world.get("/api/v1/releases/none/1").await.json();
    let page = world.get(problem["type"].as_str().unwrap()).await;
    assert!(page.text.contains("not-found"), "{}", page.text);
    world.stop().await;
}
