//! Who calls: the unit whose own HS256 secret signed the token. Claims only hint at which secret to try.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection},
    http::{StatusCode, header, request::Parts},
};
use bytes::Bytes;
use dotmac_protocol::unit::Instance;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Api, problem::Problem};
use crate::{
    platform::UnitSecrets,
    unit::{Order, Wanted},
};

/// Bytes of a token at most.
const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// A unit that proved itself.
pub(super) struct Caller {
    pub(super) wanted: Wanted,
    pub(super) instance: Arc<Instance>,
    pub(super) secrets: Arc<UnitSecrets>,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    service_type: Option<String>,
    tenant_id: Option<String>,
    exp: Option<serde_json::Number>,
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .filter(|token| token.len() <= TOKEN_BYTES_MAX)
            .ok_or(Problem::Unauthorized("a bearer token is needed"))?;
        authenticate(api, token)
    }
}

/// A JSON body, checked against what the call takes.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, api)
            .await
            .map_err(|rejection| unreadable(&rejection))?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Problem::Body(error.to_string()))
    }
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::BodySize
    } else {
        Problem::Body("the body cannot be read".to_owned())
    }
}

fn authenticate(api: &Api, token: &str) -> Result<Caller, Problem> {
    let invalid = Problem::Unauthorized("the token is not valid");
    let header = jsonwebtoken::decode_header(token).map_err(|_| invalid.clone())?;
    if header.alg != Algorithm::HS256 {
        return Err(invalid);
    }
    let hint: Claims =
        jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| invalid.clone())?;
    let of_subject = hint.sub.as_deref().and_then(|sub| sub.strip_prefix("isp-"));
    let Some(tenant) = hint.tenant_id.as_deref().or(of_subject) else {
        return Err(invalid);
    };
    let desired = Arc::clone(&api.sources.desired.borrow());
    for wanted in desired
        .values()
        .filter(|wanted| wanted.tenant.as_str() == tenant)
    {
        let Order::Keep(instance) = &wanted.order else {
            continue;
        };
        let secrets = api
            .sources
            .platform
            .secrets(&wanted.unit)
            .map_err(|error| {
                tracing::error!(unit = %wanted.unit, %error, "a unit's secrets cannot be read");
                Problem::Unavailable
            })?;
        if let Some(claims) = verified(token, &secrets) {
            check_claims(api, &claims)?;
            return Ok(Caller {
                wanted: wanted.clone(),
                instance: Arc::clone(instance),
                secrets,
            });
        }
    }
    Err(invalid)
}

/// The claims, when this unit's secret signed them. Times are checked against the agent's clock, not here.
fn verified(token: &str, secrets: &UnitSecrets) -> Option<Claims> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let key = DecodingKey::from_secret(secrets.service_token().as_bytes());
    let token = jsonwebtoken::decode::<Claims>(token, &key, &validation).ok()?;
    Some(token.claims)
}

fn check_claims(api: &Api, claims: &Claims) -> Result<(), Problem> {
    let ends_ms = claims
        .exp
        .as_ref()
        .and_then(|exp| exp.as_f64())
        .map(|exp| exp * 1000.0);
    let now_ms = api.now().0 as f64;
    if ends_ms.is_none_or(|ends_ms| ends_ms <= now_ms) {
        return Err(Problem::Unauthorized("the token has expired"));
    }
    if claims.kind.as_deref() != Some("service") {
        return Err(Problem::Unauthorized("the token is not of type service"));
    }
    if claims.service_type.as_deref() != Some("isp") {
        return Err(Problem::Forbidden("only isp services may call this"));
    }
    Ok(())
}
