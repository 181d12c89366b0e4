//! The documentation that every controller serves: the OpenAPI document, the same for readers, and a page about each
//! error. Plain HTML with one style of our own: no script, nothing from elsewhere.

use std::sync::{Arc, LazyLock};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use dotmac_domain::access::Permission;
use serde_json::Value;

use super::{
    answer::answer,
    openapi,
    operation::Operation,
    principal,
    problem::{Kind, NO_SUCH_PATH, Problem},
    reading::Named,
    schema,
};
use crate::{error_pages, node::Node};

mod markdown;
mod page;
mod shape;

/// The style of all pages.
const STYLE: &str = include_str!("docs/style.css");
/// Nothing is loaded but the style, from here; nothing is sent anywhere, and no page of others shows these.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The pages that do not depend on the cluster.
static REFERENCE: LazyLock<String> =
    LazyLock::new(|| page::reference(&super::operations(), &super::schemas()));

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let html = "text/html";
    let code = schema::one_of(&Kind::all().map(Kind::code).collect::<Vec<_>>());
    vec![
        Operation::look("docs.openapi", "/openapi.json", show_openapi)
            .public()
            .says(
                "The OpenAPI document",
                "Made of the same list as the routes. Regions are those of this cluster.",
            )
            .answers(StatusCode::OK, "OpenAPI 3.1", schema::any_object()),
        Operation::look("docs.show", "/docs", show_reference)
            .public()
            .says("The API for readers", "The same as HTML, without scripts.")
            .answers_as(StatusCode::OK, "A page", html, schema::any_text()),
        Operation::look("docs.style", "/docs/style.css", show_style)
            .public()
            .says("The style of these pages", "")
            .answers_as(
                StatusCode::OK,
                "A style sheet",
                "text/css",
                schema::any_text(),
            ),
        Operation::look("docs.error", "/docs/errors/{code}", show_error)
            .public()
            .says(
                "A page about an error",
                "What `type` of a problem leads to.",
            )
            .named("code", code, "the code of a problem")
            .answers_as(StatusCode::OK, "A page", html, schema::any_text()),
    ]
}

/// The document, as it is served and as it is checked in (without regions).
pub(super) fn document(regions: &[String]) -> Value {
    openapi::document(&super::operations(), super::schemas(), regions)
}

/// The document; with the names of the regions for those only who may read them.
async fn show_openapi(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response {
    let state = node.state();
    let caller = principal::bearer(&headers).ok();
    let caller = caller.and_then(|bearer| node.authenticate(bearer));
    let may_read =
        caller.is_some_and(|(caller, _)| state.may(&caller.actor(), Permission::RegionRead, None));
    let regions = state.regions.keys().filter(|_| may_read);
    let regions: Vec<String> = regions.map(ToString::to_string).collect();
    answer(StatusCode::OK, document(&regions))
}

async fn show_reference() -> Response {
    html(REFERENCE.clone())
}

async fn show_style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

async fn show_error(Named(code): Named<String>) -> Result<Response, Problem> {
    let kind = Kind::all().find(|kind| kind.code() == code);
    let found = kind.and_then(|kind| Some((kind, error_pages::page(kind.code())?)));
    let Some((kind, text)) = found else {
        let code: String = code.chars().take(80).collect();
        return Err(Problem::new(
            &NO_SUCH_PATH,
            format!("there is no error {code}"),
        ));
    };
    Ok(html(page::error(kind, &markdown::to_html(text))))
}

fn html(page: String) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        ),
        (
            HeaderName::from_static("referrer-policy"),
            HeaderValue::from_static("no-referrer"),
        ),
    ];
    (headers, page).into_response()
}
