//! Who calls: the unit whose own HS256 secret signed the token, or whose licence key an older instance shows. What a
//! caller claims only says which secret to try first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection},
    http::{StatusCode, header, request::Parts},
};
use bytes::Bytes;
use dotmac_protocol::{
    ids::{TenantId, UnitId},
    unit::Instance,
};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde_json::{Map, Value};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use super::{Api, listener::Connection, problem::Problem, tokens::Claims, trace::note_caller};
use crate::{
    platform::UnitSecrets,
    reports::Of,
    unit::{Desired, Order, Wanted},
};

/// Bytes of a token at most.
const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Calls of one unit at the same time; above it they are told to come again, so that no unit takes another's place.
const UNIT_CALLS_MAX: usize = 16;

/// A unit that proved itself.
pub(super) struct Caller {
    pub(super) wanted: Wanted,
    pub(super) instance: Arc<Instance>,
    pub(super) secrets: Arc<UnitSecrets>,
    _place: OwnedSemaphorePermit,
}

/// A unit that proved itself with its licence key, as older instances do.
pub(super) struct KeyCaller(pub(super) Caller);

/// The places of all units among the calls.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<BTreeMap<UnitId, Arc<Semaphore>>>);

/// The members of a JSON body that is an object.
pub(super) struct Body(pub(super) Map<String, Value>);

impl Caller {
    /// Whose reports its reports are, whatever they say.
    pub(super) fn of(&self) -> Of {
        Of {
            tenant: self.wanted.tenant.clone(),
            unit: self.wanted.unit.clone(),
        }
    }

    /// Somebody else's tenant is answered like one that does not exist.
    pub(super) fn check_tenant(&self, tenant: &str) -> Result<(), Problem> {
        if tenant == self.wanted.tenant.as_str() {
            Ok(())
        } else {
            Err(Problem::NotFound)
        }
    }

    fn admit(api: &Api, parts: &mut Parts, found: Found) -> Result<Self, Problem> {
        if let Some(connection) = parts.extensions.get::<Arc<Connection>>() {
            connection.prove(Some(&found.wanted.unit));
        }
        let place = api.places.take(&found.wanted.unit)?;
        note_caller(parts, &found.wanted.unit);
        Ok(Self {
            wanted: found.wanted,
            instance: found.instance,
            secrets: found.secrets,
            _place: place,
        })
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let found = authenticate(api, bearer(parts)?).await?;
        Self::admit(api, parts, found)
    }
}

impl FromRequestParts<Api> for KeyCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let key = bearer(parts)?;
        let hint = parts.headers.get("x-tenant-id");
        let hint = hint.and_then(|value| value.to_str().ok());
        let found = find(api, hint, |secrets| secrets.is_license_key(key))?;
        let found = found.ok_or(Problem::Unauthorized("the license key is unknown"))?;
        Caller::admit(api, parts, found).map(Self)
    }
}

impl FromRequest<Api> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, api)
            .await
            .map_err(|rejection| unreadable(&rejection))?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            Ok(_) => Err(Problem::Body("the body is not a JSON object".to_owned())),
            Err(error) => Err(Problem::Body(format!("the body is not JSON: {error}"))),
        }
    }
}

impl Places {
    fn take(&self, unit: &UnitId) -> Result<OwnedSemaphorePermit, Problem> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A unit without calls needs no entry: what is left are the units that call right now.
        places.retain(|_, place| place.available_permits() < UNIT_CALLS_MAX);
        let place = places
            .entry(unit.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(UNIT_CALLS_MAX)));
        let permit = Arc::clone(place).try_acquire_owned();
        permit.map_err(|_| Problem::Busy)
    }
}

fn bearer(parts: &Parts) -> Result<&str, Problem> {
    let (_, token) = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .ok_or(Problem::Unauthorized("a bearer token is needed"))?;
    if token.len() > TOKEN_BYTES_MAX {
        let reason = "the token is too long: it may have at most 4096 bytes";
        return Err(Problem::Unauthorized(reason));
    }
    Ok(token)
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::BodySize
    } else {
        Problem::Body("the body cannot be read".to_owned())
    }
}

/// A unit and its secrets.
struct Found {
    wanted: Wanted,
    instance: Arc<Instance>,
    secrets: Arc<UnitSecrets>,
}

async fn authenticate(api: &Api, token: &str) -> Result<Found, Problem> {
    let invalid = Problem::Unauthorized("the token is not valid");
    let header = jsonwebtoken::decode_header(token).map_err(|_| invalid.clone())?;
    if header.alg != Algorithm::HS256 || header.crit.is_some() {
        return Err(invalid);
    }
    let claims: Claims =
        jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| invalid.clone())?;
    let (message, signature) = token.rsplit_once('.').ok_or_else(|| invalid.clone())?;
    let is_signer = |secrets: &UnitSecrets| {
        let key = DecodingKey::from_secret(secrets.service_token().as_bytes());
        // The code is compared in constant time.
        crypto::verify(signature, message.as_bytes(), &key, Algorithm::HS256).unwrap_or(false)
    };
    let found = find(api, claims.tenant(), is_signer)?.ok_or(invalid)?;
    let now = api.now();
    let checked = claims.check(now)?;
    let unit = &found.wanted.unit;
    api.tokens.note(unit, &checked, now)?;
    if checked.is_ahead(now) {
        let (tokens, unit) = (Arc::clone(&api.tokens), unit.clone());
        // Off the threads that answer: it waits for the disk.
        let keeping = spawn_blocking(move || tokens.keep(&unit, &checked, now));
        keeping.await.unwrap_or(Err(Problem::Unavailable))?;
    }
    Ok(found)
}

/// The unit whose secrets convince: those of the claimed tenant are asked first, then all others. Unreadable secrets
/// convince nobody; they are an error only of whoever claims to be theirs.
fn find(
    api: &Api,
    claimed: Option<&str>,
    mut convinces: impl FnMut(&UnitSecrets) -> bool,
) -> Result<Option<Found>, Problem> {
    let desired = Arc::clone(&api.sources.desired.borrow());
    let is_claimed = |tenant: &TenantId| Some(tenant.as_str()) == claimed;
    let of_claimed = kept(&desired).filter(|(wanted, _)| is_claimed(&wanted.tenant));
    let of_others = kept(&desired).filter(|(wanted, _)| !is_claimed(&wanted.tenant));
    let mut is_unreadable = false;
    for (wanted, instance) in of_claimed.chain(of_others) {
        let secrets = match api.sources.platform.secrets(&wanted.unit) {
            Ok(secrets) => secrets,
            Err(error) => {
                tracing::error!(unit = %wanted.unit, %error, "a unit's secrets cannot be read");
                is_unreadable |= is_claimed(&wanted.tenant);
                continue;
            }
        };
        if convinces(&secrets) {
            return Ok(Some(Found {
                wanted: wanted.clone(),
                instance: Arc::clone(instance),
                secrets,
            }));
        }
    }
    if is_unreadable {
        return Err(Problem::Unavailable);
    }
    Ok(None)
}

fn kept(desired: &Desired) -> impl Iterator<Item = (&Wanted, &Arc<Instance>)> {
    desired.values().filter_map(|wanted| match &wanted.order {
        Order::Keep(instance) => Some((wanted, instance)),
        Order::Remove => None,
    })
}
