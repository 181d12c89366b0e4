//! What a call's path and query say. One that cannot be read is a problem like any other, and not the framework's text.

use axum::{
    extract::{self, FromRequestParts},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::{Api, problem::Problem};

/// The variable parts of a path. One that is no UTF-8 names nothing.
pub(super) struct Path<T>(pub(super) T);

/// The parameters of a query, each at most once; unknown ones are allowed.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let read = extract::Path::from_request_parts(parts, api).await;
        read.map(|extract::Path(read)| Self(read))
            .map_err(|_| Problem::NotFound)
    }
}

impl<T: DeserializeOwned> FromRequestParts<Api> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let read = extract::Query::from_request_parts(parts, api).await;
        read.map(|extract::Query(read)| Self(read))
            .map_err(|rejection| Problem::Query(rejection.body_text()))
    }
}
