//! Tenants: whose instances the platform runs. How one is doing follows from its deployments.

use std::ops::Bound;

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use dotmac_domain::{
    Accepted, Command, State,
    access::Permission,
    command::UpdateTenant,
    tenancy::{Tenant, TenantStatus},
};
use dotmac_protocol::ids::TenantId;
use serde_json::{Value, json};

use super::{
    answer::{page_of, time},
    change::{Change, Entity},
    licenses,
    operation::{Operation, Scope},
    problem::{LIMIT_REACHED, Problem, WRONG_STATE},
    reading::{Named, Reading},
    schema,
};

mod environment;
mod events;
mod health;
mod instance_env;
mod series;
mod usage;

pub(super) use usage::{Brief as UsageBrief, brief as usage_brief, brief_schema as usage_schema};

/// Where tenants live.
const TENANTS: &str = "/api/v1/tenants";
/// Characters of a tenant's name at most.
const NAME_MAX: usize = 255;
/// Characters of a partner's id at most.
const RESELLER_MAX: usize = 100;

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let path = format!("{TENANTS}/{{id}}");
    let one = |operation: Operation| {
        operation
            .named("id", schema::tenant_id(), "the tenant's id")
            .answers(StatusCode::OK, "The tenant", schema::of("Tenant"))
            .with("ETag", "its version, for If-Match")
    };
    let statuses = schema::one_of(&TenantStatus::ALL.map(TenantStatus::as_str));
    let updated = "Members that are absent stay as they are; an empty `reseller_id` takes it away. Its instances get to \
                   know another name with their next update.";
    let deleted = "Only one whose deployments are all destroyed. It is `cancelled` and shown for 30 days more; the \
                   tokens that are bound to it end.";
    let of_reseller = "only those that this partner brought";
    vec![
        Operation::read("tenants.list", TENANTS, list)
            .says(
                "List tenants",
                "Those the caller may see, by id; cancelled ones only when asked for.",
            )
            .needs(&[Permission::TenantRead], Scope::Filtered)
            .query("status_filter", statuses, "only those in this state")
            .query("reseller_id", schema::line(RESELLER_MAX), of_reseller)
            .paged(schema::tenant_id())
            .answers(
                StatusCode::OK,
                "One page",
                schema::page_of(schema::of("Tenant")),
            ),
        Operation::change(Method::POST, "tenants.create", TENANTS, create)
            .says(
                "Make a tenant",
                "Without a deployment; a deployment that names it adds one.",
            )
            .needs(&[Permission::TenantCreate], Scope::Platform)
            .body(schema::of("TenantCreate"))
            .problems(&[&super::problem::ALREADY_EXISTS, &LIMIT_REACHED])
            .answers(StatusCode::CREATED, "It is there", schema::of("Tenant"))
            .with("ETag", "its version, for If-Match")
            .with("Location", "where it is")
            .link("tenants.show", &[("id", "$response.body#/id")])
            .link("tenants.update", &[("id", "$response.body#/id")])
            .link("tenants.delete", &[("id", "$response.body#/id")]),
        one(Operation::read("tenants.show", path.clone(), show))
            .says("Show a tenant", "With its deployments.")
            .needs(&[Permission::TenantRead], Scope::Tenant),
        one(Operation::change(
            Method::PATCH,
            "tenants.update",
            path.clone(),
            update,
        ))
        .says("Change a tenant", updated)
        .needs(&[Permission::TenantUpdate], Scope::Tenant)
        .versioned()
        .body(schema::of("TenantUpdate"))
        .problems(&[&WRONG_STATE]),
        one(Operation::change(
            Method::DELETE,
            "tenants.delete",
            path.clone(),
            delete,
        ))
        .says("Delete a tenant", deleted)
        .needs(&[Permission::TenantDelete], Scope::Tenant)
        .versioned()
        .problems(&[&WRONG_STATE]),
        instance_env::operation(format!("{path}/instance-env")),
        usage::operation(format!("{path}/usage")),
        events::operation(format!("{path}/events")),
        health::operation(format!("{path}/health")),
    ]
}

/// What their bodies and answers look like.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let create = schema::body(
        &[("tenant_name", schema::line(NAME_MAX))],
        &[("reseller_id", schema::line(RESELLER_MAX))],
    );
    let update = schema::body(
        &[],
        &[
            ("tenant_name", schema::line(NAME_MAX)),
            ("reseller_id", schema::note(RESELLER_MAX)),
        ],
    );
    let statuses = TenantStatus::ALL.map(TenantStatus::as_str);
    let tenant = schema::object(
        &[
            ("id", schema::tenant_id()),
            ("tenant_name", schema::any_text()),
            ("status", schema::one_of(&statuses)),
            ("reseller_id", schema::text_or_null()),
            ("deployments", schema::list(schema::deployment_id())),
            (
                "license",
                schema::about(
                    "of the deployment that its status is of",
                    schema::or_null(licenses::brief_schema()),
                ),
            ),
            ("usage", usage::brief_schema()),
            ("created_at", schema::time()),
            ("last_updated", schema::time()),
        ],
        &[],
    );
    let own = vec![
        ("TenantCreate", create),
        ("TenantUpdate", update),
        ("Tenant", tenant),
    ];
    [own, usage::schemas(), events::schemas(), health::schemas()].concat()
}

async fn list(mut reading: Reading) -> Result<Response, Problem> {
    reading.who.has(Permission::TenantRead)?;
    let (limit, after) = reading.page::<TenantId>();
    let Reading {
        who,
        state,
        mut query,
        ..
    } = reading;
    let words = TenantStatus::ALL.map(TenantStatus::as_str);
    let wanted = query.choice("status_filter", &words);
    let reseller = query.line("reseller_id", RESELLER_MAX);
    query.finish()?;
    let actor = who.actor();
    let takes = |id: &TenantId, tenant: &Tenant| match wanted {
        Some(wanted) => state.status_of(id, tenant).as_str() == wanted,
        None => tenant.is_served(),
    };
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let items = state
        .tenants
        .range((from, Bound::Unbounded))
        .filter(|(id, _)| state.visible_tenant(&actor, id).is_some())
        .filter(|(_, tenant)| reseller.is_none() || tenant.reseller == reseller)
        .filter(|(id, tenant)| takes(id, tenant))
        .map(|(id, tenant)| (id, item(&state, id, tenant)));
    Ok(page_of(items, limit))
}

async fn show(reading: Reading, Named(id): Named<String>) -> Result<Response, Problem> {
    reading.who.has(Permission::TenantRead)?;
    let Reading {
        who, state, query, ..
    } = reading;
    query.finish()?;
    let (id, tenant) = who.visible_tenant(&state, &id)?;
    Ok(entity(&state, &id, tenant).answer(StatusCode::OK))
}

async fn create(change: Change) -> Result<Response, Problem> {
    change
        .who
        .require(&change.state, Permission::TenantCreate, None)?;
    let mut fields = change.fields()?;
    let name = fields.required_line("tenant_name", NAME_MAX);
    let reseller = fields.line("reseller_id", RESELLER_MAX);
    let name = fields.finish_with(name)?;
    change
        .carry_out(
            Command::CreateTenant { name, reseller },
            StatusCode::CREATED,
            |state, accepted| {
                let Some(Accepted::Tenant(id)) = accepted else {
                    return None;
                };
                Some(Entity {
                    location: Some(format!("{TENANTS}/{id}")),
                    ..entity(state, id, state.tenants.get(id)?)
                })
            },
        )
        .await
}

async fn update(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    change.who.has(Permission::TenantUpdate)?;
    let (id, _) = change.who.visible_tenant(&change.state, &id)?;
    let mut fields = change.fields()?;
    let update = UpdateTenant {
        tenant: id.clone(),
        name: fields.line("tenant_name", NAME_MAX),
        reseller: fields.note("reseller_id", RESELLER_MAX),
    };
    fields.finish()?;
    carry_out(&change, id, Command::UpdateTenant(update)).await
}

async fn delete(Named(id): Named<String>, change: Change) -> Result<Response, Problem> {
    change.who.has(Permission::TenantDelete)?;
    let (id, _) = change.who.visible_tenant(&change.state, &id)?;
    change.expect_no_fields()?;
    let tenant = id.clone();
    carry_out(&change, id, Command::DeleteTenant { tenant }).await
}

async fn carry_out(change: &Change, id: TenantId, command: Command) -> Result<Response, Problem> {
    change
        .carry_out(command, StatusCode::OK, |state, _| {
            Some(entity(state, &id, state.tenants.get(&id)?))
        })
        .await
}

fn entity(state: &State, id: &TenantId, tenant: &Tenant) -> Entity {
    Entity {
        body: item(state, id, tenant),
        revision: Some(tenant.revision),
        location: None,
    }
}

/// A tenant as GET shows it.
pub(super) fn item(state: &State, id: &TenantId, tenant: &Tenant) -> Value {
    let deployments: Vec<&str> = state
        .deployments_of(id)
        .map(|(id, _)| id.as_str())
        .collect();
    let main = state.main_deployment_of(id);
    let license = main.map(|(_, one)| licenses::brief(state, one));
    let usage = main.and_then(|(id, one)| usage::brief(state, id, one));
    json!({
        "id": id, "tenant_name": tenant.name, "status": state.status_of(id, tenant).as_str(),
        "reseller_id": tenant.reseller, "deployments": deployments, "created_at": time(tenant.created_at),
        "last_updated": time(tenant.updated_at), "license": license, "usage": usage,
    })
}
