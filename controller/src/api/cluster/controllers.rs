//! Which controllers there are, and the changes of them: one is admitted, promoted, removed. Nothing is taken on here that
//! would lose the quorum.

use std::sync::Arc;

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use dotmac_domain::{
    Command, State,
    access::Permission,
    cluster::{ADDRESS_BYTES_MAX, Controller, ISSUER_BYTES_MAX, Standing},
    command::NodeCard,
};
use dotmac_protocol::{codec, digest::Digest, ids::NodeId, keys::PublicKey, trust::majority};
use serde_json::{Value, json};

use super::find;
use crate::{
    api::{
        answer::{answer, page_of, time},
        change::{Change, Entity},
        fields::Fields,
        operation::{Operation, Scope},
        problem::{LIMIT_REACHED, Problem, WRONG_STATE},
        reading::{Named, Reading},
        schema,
    },
    node::Node,
};

/// Where they are.
const CONTROLLERS: &str = "/api/v1/cluster/controllers";
/// Entries that a controller may lack when it begins to vote: what a busy cluster commits within a second.
const LAG_MAX: u64 = 2_000;

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let one = |operation: Operation| {
        operation
            .named(
                "id",
                schema::pattern("^[0-9]{1,20}$"),
                "the controller's number",
            )
            .needs(&[Permission::ClusterWrite], Scope::Platform)
            .optional_body(schema::nothing())
            .problems(&[&WRONG_STATE])
            .answers(StatusCode::OK, "As it is now", schema::of("Controller"))
    };
    let admitted = "It learns everything and has no vote until it is promoted. Its number, its disk and its keys must be new.";
    let joins = "The genesis, the trust roots and the cards of all controllers: what a controller that joins starts from.";
    vec![
        Operation::read("controllers.list", CONTROLLERS, list)
            .says("List controllers", "By number, those that left too.")
            .needs(&[Permission::ClusterRead], Scope::Platform)
            .paged(schema::pattern("^[0-9]{1,20}$"))
            .answers(
                StatusCode::OK,
                "One page",
                schema::page_of(schema::of("Controller")),
            ),
        Operation::change(Method::POST, "controllers.admit", CONTROLLERS, admit)
            .says("Admit a controller", admitted)
            .needs(&[Permission::ClusterWrite], Scope::Platform)
            .body(schema::of("NodeCard"))
            .problems(&[&WRONG_STATE, &LIMIT_REACHED])
            .answers(StatusCode::CREATED, "It learns", schema::of("Controller")),
        Operation::read("controllers.join", format!("{CONTROLLERS}/join"), join)
            .says("What a controller starts from", joins)
            .needs(&[Permission::ClusterWrite], Scope::Platform)
            .answers(StatusCode::OK, "The file", schema::of("JoinFile")),
        one(Operation::change(
            Method::POST,
            "controllers.promote",
            format!("{CONTROLLERS}/{{id}}/promote"),
            promote,
        ))
        .says(
            "Let a controller vote",
            "Refused until it has nearly everything.",
        ),
        one(Operation::change(
            Method::POST,
            "controllers.remove",
            format!("{CONTROLLERS}/{{id}}/remove"),
            remove,
        ))
        .says(
            "Take a controller out",
            "Its key has left the trust root before. Its number is never used again.",
        ),
    ]
}

/// What their bodies and answers look like.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let text = schema::any_text;
    let digits = |bytes: &str| schema::pattern(&format!("^([0-9a-f]{{2}}){bytes}$"));
    let mut issuer = digits("+");
    issuer["maxLength"] = (2 * ISSUER_BYTES_MAX).into();
    let mut address = schema::pattern("^[!-~]+:[1-9][0-9]{0,4}$");
    address["maxLength"] = ADDRESS_BYTES_MAX.into();
    let card = [
        ("node", schema::whole(1, u64::MAX)),
        ("incarnation", schema::pattern("^[0-9a-f]{32}$")),
        ("link_address", address.clone()),
        ("api_address", address),
        ("signing_key", digits("{32}")),
        ("issuer", issuer),
    ];
    let standing = schema::one_of(&["learner", "joining", "voter", "leaving", "retired"]);
    let controller = schema::object(
        &[
            ("id", schema::count()),
            ("incarnation", text()),
            ("standing", standing),
            ("since", schema::time()),
            ("signs", schema::flag()),
            ("waits_for", schema::text_or_null()),
            ("link_address", text()),
            ("address", text()),
            ("signing_key", text()),
            ("issuer", text()),
        ],
        &[],
    );
    let joins = schema::object(
        &[
            ("cluster", text()),
            ("trust_root", text()),
            ("controllers", schema::list(text())),
            ("body", text()),
            ("trust_roots", schema::list(text())),
            ("cards", schema::list(schema::object(&card, &[]))),
        ],
        &[],
    );
    vec![
        ("NodeCard", schema::body(&card, &[])),
        ("Controller", controller),
        ("JoinFile", joins),
    ]
}

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    let Reading { who, state, .. } = &reading;
    who.require(state, Permission::ClusterRead, None)?;
    let (limit, after) = reading.page::<u64>();
    let Reading { state, query, .. } = reading;
    query.finish()?;
    let items = state
        .controllers
        .iter()
        .filter(|(node, _)| after.is_none_or(|after| node.0 > after))
        .map(|(node, one)| (node.0, item(&state, one)));
    Ok(page_of(items, limit))
}

async fn join(reading: Reading) -> Result<Response, Problem> {
    let write = Permission::ClusterWrite;
    reading.who.require(&reading.state, write, None)?;
    let Reading { state, query, .. } = reading;
    query.finish()?;
    let Some(genesis) = &state.genesis else {
        return Err(Problem::new(&WRONG_STATE, "the cluster is not founded yet"));
    };
    let encoded =
        |bytes: Result<Vec<u8>, codec::EncodeError>| hex::encode(bytes.unwrap_or_default());
    let present = || state.present_controllers();
    let names = present().map(|one| format!("{} at {}", one.card.node, one.card.link_address));
    let cards = present().map(|one| {
        let card = &one.card;
        json!({
            "node": card.node, "incarnation": card.incarnation, "link_address": card.link_address,
            "api_address": card.api_address, "signing_key": hex::encode(card.signing_key.0),
            "issuer": hex::encode(&card.issuer),
        })
    });
    // Those before a restore are behind its genesis.
    let roots = state.trust_roots.values();
    let roots = roots.skip_while(|known| known.signed.body != genesis.trust_root.body);
    let roots = roots.map(|known| encoded(codec::encode(&known.signed)));
    let body = json!({
        "cluster": genesis.cluster, "trust_root": genesis.trust_root.digest().to_string(),
        "controllers": names.collect::<Vec<_>>(), "body": encoded(codec::encode(genesis)),
        "trust_roots": roots.collect::<Vec<_>>(), "cards": cards.collect::<Vec<_>>(),
    });
    Ok(answer(StatusCode::OK, body))
}

async fn admit(change: Change) -> Result<Response, Problem> {
    let write = Permission::ClusterWrite;
    change.who.require(&change.state, write, None)?;
    let card = read_card(change.fields()?)?;
    let node = card.node;
    let command = Command::AdmitController(Box::new(card));
    change
        .carry_out(command, StatusCode::CREATED, |state, _| shown(state, node))
        .await
}

async fn promote(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let node = known(&change, &id)?;
    let standing = change.state.controllers.get(&node).map(|one| one.standing);
    if standing == Some(Standing::Learner) {
        require_caught_up(&change.node, node).await?;
    }
    let command = Command::PromoteController { node };
    change
        .carry_out(command, StatusCode::OK, |state, _| shown(state, node))
        .await
}

async fn remove(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    let node = known(&change, &id)?;
    require_quorum_without(&change, node).await?;
    let command = Command::RetireController { node };
    change
        .carry_out(command, StatusCode::OK, |state, _| shown(state, node))
        .await
}

/// The controller that a path names, for whoever may change it.
fn known(change: &Change, id: &str) -> Result<NodeId, Problem> {
    let write = Permission::ClusterWrite;
    change.who.require(&change.state, write, None)?;
    change.expect_no_fields()?;
    let node = id.parse().ok().map(NodeId);
    let node = node.filter(|node| change.state.controllers.contains_key(node));
    node.ok_or_else(|| {
        let problem = Problem::not_found("controller", id);
        match change
            .who
            .require(&change.state, Permission::ClusterRead, None)
        {
            Ok(()) => problem.with_next(numbers(&change.state)),
            Err(_) => problem,
        }
    })
}

/// Which controllers there are, for whoever named another one.
fn numbers(state: &State) -> String {
    let present = state.present_controllers();
    let numbers: Vec<String> = present.map(|one| one.card.node.to_string()).collect();
    let numbers = numbers.join(", ");
    format!("name one of the controllers that there are: {numbers} (`dotmac cluster status`)")
}

/// That a learner lacks so little that it does not hold up what it votes for.
async fn require_caught_up(asked: &Arc<Node>, node: NodeId) -> Result<(), Problem> {
    let found = find(asked).await;
    let newest = found.newest().unwrap_or_default();
    let detail = match found.statuses.get(&node) {
        None => format!("controller {node} cannot be reached: it may vote once it has caught up"),
        Some(status) => {
            let behind = newest.saturating_sub(status.applied);
            if behind <= LAG_MAX {
                return Ok(());
            }
            format!(
                "controller {node} has {} of {newest} entries, {behind} are missing: it may vote once it lacks {LAG_MAX} at most",
                status.applied
            )
        }
    };
    Err(Problem::new(&WRONG_STATE, detail))
}

/// That those who stay can still decide: a majority of them can be reached.
async fn require_quorum_without(change: &Change, node: NodeId) -> Result<(), Problem> {
    let mut voters = change.state.wanted_members().voters;
    if !voters.remove(&node) || voters.is_empty() {
        return Ok(());
    }
    let found = find(&change.node).await;
    let (able, needed) = (
        found.reachable(&voters),
        usize::from(majority(voters.len())),
    );
    if able >= needed {
        return Ok(());
    }
    let away = found.away(&voters);
    let detail = format!(
        "without controller {node} there would be no quorum: {able} of the {} others can be reached, {needed} have to: {away}",
        voters.len()
    );
    Err(Problem::new(&WRONG_STATE, detail))
}

fn read_card(mut fields: Fields) -> Result<NodeCard, Problem> {
    let node = fields.required_number("node", 1..=u64::MAX);
    let incarnation = fields.required("incarnation", "32 hexadecimal digits");
    let link_address: Option<String> = fields.required("link_address", "HOST:PORT");
    let api_address: Option<String> = fields.required("api_address", "HOST:PORT");
    let signing_key = digits(&mut fields, "signing_key", "64 hexadecimal digits");
    let signing_key = signing_key.and_then(|bytes| {
        let key = bytes.as_slice().try_into().ok();
        if key.is_none() {
            fields.refuse("signing_key", &hex::encode(&bytes), "64 hexadecimal digits");
        }
        key
    });
    let issuer = digits(&mut fields, "issuer", "a certificate in hexadecimal digits");
    let card = (|| {
        Some(NodeCard {
            node: NodeId(node?),
            incarnation: incarnation?,
            link_address: link_address?,
            api_address: api_address?,
            signing_key: PublicKey(signing_key?),
            issuer: issuer?,
        })
    })();
    fields.finish_with(card)
}

fn digits(fields: &mut Fields, name: &'static str, allowed: &str) -> Option<Vec<u8>> {
    let text: String = fields.required(name, allowed)?;
    let bytes = hex::decode(&text).ok();
    if bytes.is_none() {
        fields.refuse(name, &text, allowed);
    }
    bytes
}

fn shown(state: &State, node: NodeId) -> Option<Entity> {
    let controller = state.controllers.get(&node)?;
    Some(Entity {
        body: item(state, controller),
        revision: None,
        location: None,
    })
}

/// A controller as lists show it.
fn item(state: &State, controller: &Controller) -> Value {
    let Controller {
        card,
        standing,
        since,
    } = controller;
    let unfinished = state.unfinished_change();
    let waits_for = unfinished.filter(|one| one.node == card.node);
    json!({
        "id": card.node, "incarnation": card.incarnation, "standing": standing.as_str(),
        "since": time(*since), "signs": state.signs(card.node),
        "waits_for": waits_for.map(|one| one.waits_for),
        "link_address": card.link_address, "address": card.api_address,
        "signing_key": hex::encode(card.signing_key.0),
        "issuer": Digest::of(&card.issuer).to_string(),
    })
}
