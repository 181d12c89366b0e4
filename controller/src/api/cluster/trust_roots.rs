//! The chain of trust roots: whoever pinned one follows to the next. It is read here, and the next one is handed in, signed
//! where the root key is.

use std::{collections::BTreeSet, ops::Bound};

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use dotmac_domain::{Command, State, access::Permission, trust::KnownRoot};
use dotmac_protocol::{codec, ids::TrustVersion, trust::SignedTrustRoot};
use serde_json::{Value, json};

use super::find;
use crate::api::{
    answer::{page_of, time},
    change::{Change, Entity},
    operation::{Operation, Scope},
    problem::{LIMIT_REACHED, Problem, WRONG_STATE},
    reading::Reading,
    schema,
};

/// Where they are.
const TRUST_ROOTS: &str = "/api/v1/cluster/trust-roots";
/// Hexadecimal digits of a signed trust root at most.
const DOCUMENT_DIGITS_MAX: usize = 2 * <SignedTrustRoot as codec::Format>::BYTES_MAX;

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let about =
        "Every version, the oldest first. Each follows the one before by the root key's signature.";
    let follows = "The document is signed by the root key, which no controller holds. At most one controller differs from the \
                   version before; it votes already, and a strict majority of the keys counts.";
    vec![
        Operation::read("trust_roots.list", TRUST_ROOTS, list)
            .says("List trust roots", about)
            .needs(&[Permission::ClusterRead], Scope::Platform)
            .paged(schema::pattern("^[0-9]{1,20}$"))
            .answers(
                StatusCode::OK,
                "One page",
                schema::page_of(schema::of("TrustRoot")),
            ),
        Operation::change(Method::POST, "trust_roots.follow", TRUST_ROOTS, follow)
            .says("Take the next trust root in force", follows)
            .needs(&[Permission::ClusterWrite], Scope::Platform)
            .body(schema::of("TrustRootFollow"))
            .problems(&[&WRONG_STATE, &LIMIT_REACHED])
            .answers(StatusCode::OK, "It is in force", schema::of("TrustRoot")),
    ]
}

/// What their bodies and answers look like.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let digits = |most: usize| schema::pattern(&format!("^([0-9a-f]{{2}}){{1,{}}}$", most / 2));
    let controller = schema::object(
        &[
            ("id", schema::count()),
            ("signing_key", schema::any_text()),
            ("issuer", schema::any_text()),
        ],
        &[],
    );
    let root = schema::object(
        &[
            ("id", schema::count()),
            ("epoch", schema::count()),
            ("since", schema::time()),
            ("digest", schema::any_text()),
            ("in_force", schema::flag()),
            ("threshold", schema::count()),
            ("controllers", schema::list(controller)),
            ("document", schema::any_text()),
        ],
        &[],
    );
    // A repetition of more than a thousand is more than most readers of patterns take.
    let mut document = digits(2_000);
    document["pattern"] = "^([0-9a-f]{2})+$".into();
    document["maxLength"] = DOCUMENT_DIGITS_MAX.into();
    vec![
        ("TrustRoot", root),
        (
            "TrustRootFollow",
            schema::body(&[("document", document)], &[]),
        ),
    ]
}

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    let Reading { who, state, .. } = &reading;
    who.require(state, Permission::ClusterRead, None)?;
    let (limit, after) = reading.page::<u64>();
    let Reading { state, query, .. } = reading;
    query.finish()?;
    let from = after.map_or(Bound::Unbounded, |one| Bound::Excluded(TrustVersion(one)));
    let items = state
        .trust_roots
        .range((from, Bound::Unbounded))
        .map(|(version, known)| (version.0, item(&state, known)));
    Ok(page_of(items, limit))
}

async fn follow(change: Change) -> Result<Response, Problem> {
    let write = Permission::ClusterWrite;
    change.who.require(&change.state, write, None)?;
    let mut fields = change.fields()?;
    let allowed =
        "a signed trust root in hexadecimal digits, as `dotmac cluster trust-root` makes it";
    let text: Option<String> = fields.required("document", allowed);
    let signed = text.as_deref().and_then(|text| {
        let bytes = hex::decode(text).ok()?;
        codec::decode::<SignedTrustRoot>(&bytes).ok()
    });
    if let (Some(text), None) = (&text, &signed) {
        fields.refuse("document", text, allowed);
    }
    let signed = fields.finish_with(signed)?;
    require_signers(&change, &signed).await?;
    let digest = signed.digest();
    let command = Command::FollowTrustRoot { signed };
    change
        .carry_out(command, StatusCode::OK, |state, accepted| {
            let known = state.trust_roots.values();
            let mut known = known.filter(|known| known.signed.digest() == digest);
            let found = accepted.and_then(|_| known.next());
            // Before the change there is the version in force, so that a plan shows what becomes different.
            let known = found.or_else(|| state.trust_roots.values().next_back());
            known.map(|known| Entity {
                body: item(state, known),
                revision: None,
                location: None,
            })
        })
        .await
}

/// That enough of the controllers that are to sign can be reached: otherwise no order would go out any more.
async fn require_signers(change: &Change, signed: &SignedTrustRoot) -> Result<(), Problem> {
    let Ok(next) = change.state.check_trust_root(signed) else {
        // The State says what is wrong with it.
        return Ok(());
    };
    let found = find(&change.node).await;
    let signers: BTreeSet<_> = next.controllers.iter().map(|one| one.node).collect();
    let (able, needed) = (
        found.reachable(&signers),
        usize::from(next.controller.threshold),
    );
    if able >= needed {
        return Ok(());
    }
    let away = found.away(&signers);
    let detail = format!(
        "{able} of the {} controllers that would sign can be reached, {needed} have to: {away}",
        signers.len()
    );
    Err(Problem::new(&WRONG_STATE, detail))
}

/// A trust root as lists show it.
fn item(state: &State, known: &KnownRoot) -> Value {
    let KnownRoot {
        since,
        root,
        signed,
    } = known;
    let controllers = root.controllers.iter().map(|one| {
        json!({
            "id": one.node, "signing_key": hex::encode(one.signing_key.0), "issuer": one.issuer.to_string(),
        })
    });
    let document = codec::encode(signed).unwrap_or_default();
    json!({
        "id": root.version, "epoch": root.epoch, "since": time(*since),
        "digest": signed.digest().to_string(),
        "in_force": state.trust.as_ref().is_some_and(|trust| trust.version == root.version),
        "threshold": root.controller.threshold,
        "controllers": controllers.collect::<Vec<_>>(),
        "document": hex::encode(document),
    })
}
