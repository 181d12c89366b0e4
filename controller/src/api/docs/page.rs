//! The pages as HTML: the reference, operation by operation, and the frame of the pages about errors.

use std::fmt::Write as _;

use axum::http::Method;
use serde_json::{Value, json};

use super::{
    markdown::{escape, inline},
    shape,
};
use crate::api::{
    openapi,
    operation::{Access, Audit, Operation, Parameter, Place},
    problem::Kind,
};

/// The whole reference.
pub(super) fn reference(operations: &[Operation], schemas: &[(String, Value)]) -> String {
    let mut body = String::from(
        "<h1>DotMac API</h1>\n<p>Made of the same list as the routes; the same for programs: \
         <a href=\"/openapi.json\">/openapi.json</a>. <a href=\"/\">The way in</a>.</p>\n",
    );
    for paragraph in openapi::ABOUT.split("\n\n") {
        let _ = writeln!(body, "<p>{}</p>", inline(paragraph));
    }
    body.push_str("<nav><ul>\n");
    for (tag, _) in tags(operations) {
        let _ = writeln!(body, "<li><a href=\"#{tag}\">{tag}</a></li>");
    }
    body.push_str("<li><a href=\"#errors\">errors</a></li>\n<li><a href=\"#schemas\">schemas</a></li>\n</ul></nav>\n");
    for (tag, about) in tags(operations) {
        let _ = writeln!(
            body,
            "<h2 id=\"{tag}\">{tag}</h2>\n<p>{}</p>",
            inline(about)
        );
        for one in operations.iter().filter(|one| one.tag() == tag) {
            body.push_str(&operation(one));
        }
    }
    body.push_str(
        "<h2 id=\"errors\">errors</h2>\n<table><tr><th>code</th><th>status</th><th></th></tr>\n",
    );
    for kind in Kind::all() {
        let (code, status, title) = (kind.code(), kind.status().as_u16(), inline(kind.title()));
        let _ = writeln!(
            body,
            "<tr><td><a href=\"/docs/errors/{code}\">{code}</a></td><td>{status}</td><td>{title}</td></tr>"
        );
    }
    body.push_str("</table>\n<h2 id=\"schemas\">schemas</h2>\n");
    for (name, schema) in schemas {
        let about = schema["description"]
            .as_str()
            .map(inline)
            .unwrap_or_default();
        let shape =
            shape::members(schema).unwrap_or_else(|| format!("<p>{}</p>", shape::words(schema)));
        let _ = writeln!(
            body,
            "<article id=\"schema-{name}\"><h3>{name}</h3>\n<p>{about}</p>\n{shape}</article>"
        );
    }
    frame("DotMac API", &body)
}

/// The page about an error.
pub(super) fn error(kind: &Kind, content: &str) -> String {
    let body = format!(
        "{content}\n<p>HTTP status {}. <a href=\"/docs#errors\">All errors</a></p>\n",
        kind.status().as_u16()
    );
    frame(&format!("{} - DotMac API", kind.code()), &body)
}

fn frame(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <link rel=\"stylesheet\" href=\"/docs/style.css\">\n</head>\n<body>\n{body}</body>\n</html>\n",
        escape(title)
    )
}

fn tags(operations: &[Operation]) -> impl Iterator<Item = (&'static str, &'static str)> {
    openapi::TAGS
        .iter()
        .copied()
        .filter(|(tag, _)| operations.iter().any(|one| one.tag() == *tag))
}

fn operation(one: &Operation) -> String {
    let mut html = format!(
        "<article id=\"{}\">\n<h3><code><span class=\"method\">{}</span> {}</code> {}</h3>\n<p>{}</p>\n",
        one.id,
        one.method,
        escape(&one.path),
        escape(one.summary),
        inline(&openapi::description(one))
    );
    if !one.parameters.is_empty() {
        html.push_str("<h4>Parameters</h4>\n<table><tr><th>name</th><th>in</th><th>value</th><th></th></tr>\n");
        for parameter in &one.parameters {
            html.push_str(&parameter_row(parameter));
        }
        html.push_str("</table>\n");
    }
    if let Some(body) = &one.body {
        let note = if body.is_required {
            ""
        } else {
            ", may be left out"
        };
        let _ = writeln!(
            html,
            "<h4>Body{note}</h4>\n<p>{}</p>",
            shape::words(&body.schema)
        );
        html.push_str(&shape::members(&body.schema).unwrap_or_default());
    }
    html.push_str("<h4>Answers</h4>\n<table>\n");
    for answer in &one.answers {
        let shape = answer
            .content
            .as_ref()
            .map(|(_, schema)| shape::words(schema))
            .unwrap_or_default();
        let headers: Vec<&str> = answer.headers.iter().map(|(name, _)| *name).collect();
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{} {}</td><td>{shape}</td></tr>",
            answer.status.as_u16(),
            inline(answer.about),
            headers
                .iter()
                .map(|name| format!("<code>{name}</code>"))
                .collect::<Vec<_>>()
                .join(" "),
        );
    }
    for kind in one.all_problems() {
        let (status, code) = (kind.status().as_u16(), kind.code());
        let _ = writeln!(
            html,
            "<tr><td>{status}</td><td><a href=\"/docs/errors/{code}\">{code}</a></td><td>{}</td></tr>",
            inline(kind.title())
        );
    }
    let _ = writeln!(
        html,
        "</table>\n<h4>Example</h4>\n<pre><code>{}</code></pre>\n</article>",
        escape(&example(one))
    );
    html
}

fn parameter_row(one: &Parameter) -> String {
    let note = if one.is_required { "" } else { "optional: " };
    format!(
        "<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td>{note}{}</td></tr>\n",
        one.name,
        one.place.as_str(),
        shape::words(&one.schema),
        inline(one.about)
    )
}

/// The request as a shell line.
fn example(one: &Operation) -> String {
    let mut path = one.path.clone();
    let mut query = Vec::new();
    for parameter in &one.parameters {
        let name = parameter.name;
        match parameter.place {
            Place::Path => path = path.replace(&format!("{{{name}}}"), &name.to_uppercase()),
            Place::Query if parameter.is_required => {
                query.push(format!("{name}={}", name.to_uppercase()))
            }
            Place::Query | Place::Header => {}
        }
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let mut line = String::from("curl -sS");
    if one.method != Method::GET {
        let _ = write!(line, " -X {}", one.method);
    }
    let _ = write!(line, " 'http://127.0.0.1:8000{path}'");
    if one.access != Access::Public {
        line.push_str(" \\\n  -H \"Authorization: Bearer $(cat .dotmac/admin.token)\"");
    }
    if one.audit == Audit::ByCommand {
        line.push_str(" \\\n  -H \"Idempotency-Key: $(uuidgen)\"");
    }
    if let Some(body) = one.body.as_ref().filter(|body| body.is_required) {
        let example = body.example.clone().unwrap_or_else(|| json!({}));
        let _ = write!(
            line,
            " \\\n  -H 'Content-Type: application/json' -d '{example}'"
        );
    }
    line
}
