//! Schemas in words, for readers: what a member is, in a few of them.

use serde_json::Value;

use super::markdown::escape;

/// What a schema allows, as HTML.
pub(super) fn words(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    if let Some(value) = schema.get("const") {
        return code(value);
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values: Vec<String> = values
            .iter()
            .filter(|value| !value.is_null())
            .map(code)
            .collect();
        return values.join(" ");
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(options) = schema.get(key).and_then(Value::as_array)
            && schema.get("properties").is_none()
        {
            let options = options.iter().filter(|one| one["type"] != "null");
            return options.map(words).collect::<Vec<_>>().join(" or ");
        }
    }
    let types = match &schema["type"] {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "null")
            .collect(),
        _ => vec!["any"],
    };
    let mut said: Vec<String> = types.iter().map(|name| (*name).to_owned()).collect();
    if let Some(items) = schema.get("items") {
        said = vec![format!("list of {}", words(items))];
    }
    if let Some(values) = schema
        .get("additionalProperties")
        .filter(|values| values.is_object())
    {
        said = vec![format!("object of {}", words(values))];
    }
    said.extend(range(schema, "minLength", "maxLength", " characters"));
    said.extend(range(schema, "minimum", "maximum", ""));
    if let Some(format) = schema["format"].as_str() {
        said.push(escape(format));
    }
    if let Some(pattern) = schema["pattern"]
        .as_str()
        .filter(|pattern| pattern.len() <= 60)
    {
        said.push(format!("<code>{}</code>", escape(pattern)));
    }
    said.join(", ")
}

/// The members of an object as a table; none for anything else.
pub(super) fn members(schema: &Value) -> Option<String> {
    let members = schema["properties"]
        .as_object()
        .filter(|members| !members.is_empty())?;
    let required: Vec<&str> = schema["required"]
        .as_array()
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let rows: String = members
        .iter()
        .map(|(name, member)| {
            let is_required = required.contains(&name.as_str());
            let note = if is_required { "" } else { "optional" };
            let about = member["description"]
                .as_str()
                .map(super::markdown::inline)
                .unwrap_or_default();
            format!(
                "<tr><td><code>{}</code></td><td>{}</td><td>{note} {about}</td></tr>\n",
                escape(name),
                words(member)
            )
        })
        .collect();
    Some(format!(
        "<table><tr><th>member</th><th>value</th><th></th></tr>\n{rows}</table>\n"
    ))
}

/// The name of the component that a schema refers to.
pub(super) fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

fn code(value: &Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned);
    format!("<code>{}</code>", escape(&text))
}

fn range(schema: &Value, least: &str, most: &str, unit: &str) -> Option<String> {
    match (schema.get(least), schema.get(most)) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
        (Some(least), None) => Some(format!("at least {least}{unit}")),
        (None, Some(most)) => Some(format!("at most {most}{unit}")),
        (None, None) => None,
    }
}
