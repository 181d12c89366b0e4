//! Regions: where workloads may run. They are added, described and closed for what is new, and never removed.

use std::{collections::BTreeMap, ops::Bound};

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use dotmac_domain::{
    Command, State,
    access::Permission,
    command::UpdateRegion,
    envelope::Actor,
    fleet::Presence,
    region::{REGION_DESCRIPTION_CHARS_MAX, Region},
    tenancy::Status,
};
use dotmac_protocol::ids::RegionId;
use serde_json::{Value, json};

use super::{
    answer::{page_of, time},
    change::{Change, Entity},
    fields::Fields,
    operation::{Operation, Scope},
    principal::Principal,
    problem::{ALREADY_EXISTS, LIMIT_REACHED, Problem},
    reading::{Named, Reading},
    schema,
};

/// Where regions live.
const REGIONS: &str = "/api/v1/regions";
/// What the name of a region may be.
const NAME: &str = "1 to 40 lower-case letters, digits or inner hyphens";

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let path = format!("{REGIONS}/{{id}}");
    let one = |operation: Operation| {
        operation
            .named("id", schema::region_id(), "the region's name")
            .answers(StatusCode::OK, "The region", schema::of("Region"))
            .with("ETag", "its version, for If-Match")
    };
    let updated = "Members that are absent stay as they are. A region that accepts no deployments keeps those it has.";
    vec![
        Operation::read("regions.list", REGIONS, list)
            .says("List regions", "By name. A token that is bound to a tenant gets no word of others' things in them.")
            .needs(&[Permission::RegionRead], Scope::Filtered)
            .paged(schema::region_id())
            .answers(StatusCode::OK, "One page", schema::page_of(schema::of("Region"))),
        Operation::change(Method::POST, "regions.create", REGIONS, create)
            .says("Add a region", "Agents join it with join tokens that name it.")
            .needs(&[Permission::RegionWrite], Scope::Platform)
            .body(schema::of("RegionCreate"))
            .problems(&[&ALREADY_EXISTS, &LIMIT_REACHED])
            .answers(StatusCode::CREATED, "It is there", schema::of("Region"))
            .with("ETag", "its version, for If-Match")
            .with("Location", "where it is")
            .link("regions.show", &[("id", "$response.body#/id")])
            .link("regions.update", &[("id", "$response.body#/id")]),
        one(Operation::read("regions.show", path.clone(), show))
            .says("Show a region", "How many agents and deployments it has, and whether it takes more.")
            .needs(&[Permission::RegionRead], Scope::Filtered),
        one(Operation::change(Method::PATCH, "regions.update", path, update))
            .says("Change a region", updated)
            .needs(&[Permission::RegionWrite], Scope::Platform)
            .versioned()
            .body(schema::of("RegionUpdate")),
    ]
}

/// What their bodies and answers look like.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let description = || schema::note(REGION_DESCRIPTION_CHARS_MAX);
    let create = schema::body(
        &[("id", schema::region_id())],
        &[("description", description())],
    );
    let update = schema::body(
        &[],
        &[
            ("description", description()),
            ("accepts_deployments", schema::flag()),
        ],
    );
    let agents = schema::object(
        &[("connected", schema::count()), ("total", schema::count())],
        &[],
    );
    let region = schema::object(
        &[
            ("id", schema::region_id()),
            ("description", schema::any_text()),
            (
                "default",
                schema::about("Whether a request that names none means it", schema::flag()),
            ),
            ("accepts_deployments", schema::flag()),
            (
                "agents",
                schema::about(
                    "Null for a token that is bound to a tenant",
                    schema::or_null(agents),
                ),
            ),
            (
                "deployments",
                schema::about(
                    "Those that the caller may see, without destroyed ones",
                    schema::count(),
                ),
            ),
            ("created_at", schema::time()),
            ("last_updated", schema::time()),
        ],
        &[],
    );
    vec![
        ("RegionCreate", create),
        ("RegionUpdate", update),
        ("Region", region),
    ]
}

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    reading.who.has(Permission::RegionRead)?;
    let (limit, after) = reading.page::<RegionId>();
    let Reading {
        who, state, query, ..
    } = reading;
    query.finish()?;
    let counts = Counts::of(&state, &who);
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let items = state
        .regions
        .range((from, Bound::Unbounded))
        .map(|(id, region)| (id, counts.item(&state, id, region)));
    Ok(page_of(items, limit))
}

async fn show(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    reading.who.has(Permission::RegionRead)?;
    let Reading {
        who, state, query, ..
    } = reading;
    query.finish()?;
    let id = known(&state, &id)?;
    let counts = Counts::of(&state, &who);
    let entity = entity(&state, &id, &counts).ok_or_else(|| not_found(id.as_str()))?;
    Ok(entity.answer(StatusCode::OK))
}

async fn create(change: Change) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::RegionWrite, None)?;
    let mut fields = change.fields()?;
    let id = fields.required::<RegionId>("id", NAME);
    let description = description(&mut fields).unwrap_or_default();
    let id = fields.finish_with(id)?;
    let command = Command::CreateRegion {
        region: id.clone(),
        description,
    };
    change
        .carry_out(command, StatusCode::CREATED, |state, _| {
            Some(Entity {
                location: Some(format!("{REGIONS}/{id}")),
                ..entity(state, &id, &Counts::of(state, &change.who))?
            })
        })
        .await
}

async fn update(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::RegionWrite, None)?;
    let id = known(&change.state, &id)?;
    let mut fields = change.fields()?;
    let update = UpdateRegion {
        region: id.clone(),
        description: description(&mut fields),
        accepts_deployments: fields.flag("accepts_deployments"),
    };
    fields.finish()?;
    change
        .carry_out(Command::UpdateRegion(update), StatusCode::OK, |state, _| {
            entity(state, &id, &Counts::of(state, &change.who))
        })
        .await
}

fn description(fields: &mut Fields) -> Option<String> {
    fields.note("description", REGION_DESCRIPTION_CHARS_MAX)
}

/// The region that a path names.
fn known(state: &State, id: &str) -> Result<RegionId, Problem> {
    let found = id.parse().ok().filter(|id| state.regions.contains_key(id));
    found.ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> Problem {
    Problem::not_found("region", id)
}

fn entity(state: &State, id: &RegionId, counts: &Counts) -> Option<Entity> {
    let region = state.regions.get(id)?;
    Some(Entity {
        body: counts.item(state, id, region),
        revision: Some(region.revision),
        location: None,
    })
}

/// A region as GET shows it to those who are bound to no tenant.
pub(super) fn item(state: &State, id: &RegionId, region: &Region) -> Value {
    Counts::of_all(state).item(state, id, region)
}

/// What there is in each region, as far as somebody may know.
struct Counts {
    /// Agents: connected, and all; nobody bound to a tenant may know.
    agents: Option<BTreeMap<RegionId, (u64, u64)>>,
    deployments: BTreeMap<RegionId, u64>,
}

impl Counts {
    fn of(state: &State, who: &Principal) -> Self {
        if who.own_tenant().is_none() {
            return Self::of_all(state);
        }
        Self {
            agents: None,
            deployments: deployments(state, Some(&who.actor())),
        }
    }

    fn of_all(state: &State) -> Self {
        let mut agents: BTreeMap<RegionId, (u64, u64)> = BTreeMap::new();
        for agent in state.agents.values() {
            let (connected, all) = agents.entry(agent.region.clone()).or_default();
            *connected += u64::from(matches!(agent.presence, Presence::Connected { .. }));
            *all += 1;
        }
        Self {
            agents: Some(agents),
            deployments: deployments(state, None),
        }
    }

    fn item(&self, state: &State, id: &RegionId, region: &Region) -> Value {
        let agents = self.agents.as_ref().map(|agents| {
            let (connected, total) = agents.get(id).copied().unwrap_or_default();
            json!({"connected": connected, "total": total})
        });
        let genesis = state.genesis.as_ref();
        let is_default = genesis.is_some_and(|genesis| genesis.default_region == *id);
        json!({
            "id": id, "description": region.description, "default": is_default,
            "accepts_deployments": region.accepts_deployments, "agents": agents,
            "deployments": self.deployments.get(id).copied().unwrap_or(0),
            "created_at": time(region.created_at), "last_updated": time(region.updated_at),
        })
    }
}

/// Deployments of each region that are not destroyed; of those that an actor may see.
fn deployments(state: &State, actor: Option<&Actor>) -> BTreeMap<RegionId, u64> {
    let mut counts = BTreeMap::new();
    for one in state.deployments.values() {
        let may_see = actor
            .is_none_or(|actor| state.may(actor, Permission::DeploymentRead, Some(&one.tenant)));
        if may_see && one.status != Status::Destroyed {
            *counts.entry(one.region.clone()).or_default() += 1;
        }
    }
    counts
}
