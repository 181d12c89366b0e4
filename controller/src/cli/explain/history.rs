//! The last events of a thing's audit. Who may not read the audit, or asks a cluster that has none of it, sees none.

use serde_json::Value;

use crate::cli::{audit, client::Client, failure::Failure, view};

/// Events shown.
const EVENTS: usize = 5;
/// Stories that are searched for a request at most.
const STORIES_MAX: usize = 5_000;
/// Letters of the id of a request.
const REQUEST_LETTERS: usize = 32;

/// The last events of a thing of this kind, oldest first.
pub(super) async fn of(client: &Client, kind: &str, thing: &Value) -> Vec<Value> {
    let id = match kind {
        "release" => format!(
            "{}/{}",
            view::text(thing, "name"),
            view::text(thing, "version")
        ),
        _ => view::text(thing, "id"),
    };
    let tenant = match kind {
        "tenant" => Some(id.clone()),
        "deployment" => Some(view::text(thing, "tenant_id")),
        _ => None,
    };
    let mut records = audit::records(client, tenant.as_deref())
        .await
        .unwrap_or_default();
    records.retain(|record| kind == "tenant" || is_about(record, &id));
    let skipped = records.len().saturating_sub(EVENTS);
    records.split_off(skipped)
}

/// What was done because of a request, in every story that this token may see.
///
/// # Errors
/// When the audit may not be read or no controller can serve. Text that is no id of a request has no events.
pub(super) async fn of_request(client: &Client, id: &str) -> Result<Vec<Value>, Failure> {
    if id.len() != REQUEST_LETTERS || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Vec::new());
    }
    let is_its = |record: &Value| record["request"].as_str() == Some(id);
    let mut found = audit::records(client, None).await?;
    found.retain(is_its);
    let streams = client
        .list("/api/v1/audit/streams?limit=500", STORIES_MAX)
        .await?;
    for stream in &streams {
        let name = view::text(stream, "stream");
        if let Some(tenant) = name.strip_prefix("tenant/") {
            let records = audit::records(client, Some(tenant)).await?;
            found.extend(records.into_iter().filter(is_its));
        }
    }
    found.sort_by_key(|record| view::millis(&record["at"]));
    Ok(found)
}

/// A record as a row.
pub(super) fn row(record: &Value) -> Vec<String> {
    let text = |name: &str| view::text(record, name);
    vec![
        view::time(record, "at"),
        text("action"),
        text("actor"),
        text("detail"),
    ]
}

/// Whether a record names the thing.
fn is_about(record: &Value, id: &str) -> bool {
    let names = |text: &str| {
        let part = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
        text.split(|letter: char| !(part(letter) || letter == '/'))
            .any(|word| word == id || word.split('/').any(|word| word == id))
    };
    record
        .as_object()
        .is_some_and(|members| members.values().filter_map(Value::as_str).any(names))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::is_about;

    #[test]
    fn a_record_is_about_what_it_names_as_a_whole_word() {
        let record = json!({"action": "deployment.created", "actor": "person:0123456789abcdef",
            "detail": "x-0190a1b2 in do-fra1, release demo-isp/1.0.0"});
        for id in [
            "x-0190a1b2",
            "do-fra1",
            "demo-isp/1.0.0",
            "0123456789abcdef",
        ] {
            assert!(is_about(&record, id), "{id}");
        }
        for id in ["x-0190a1", "fra1", "demo"] {
            assert!(!is_about(&record, id), "{id}");
        }
    }
}
