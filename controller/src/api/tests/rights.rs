//! Who may do what, as one table: every operation of the registry, asked by everybody, of what is one's own, somebody
//! else's and nobody's. An operation without a row fails the test, and so does a row without an operation.

use std::{collections::BTreeSet, fmt::Write as _, num::NonZeroU32};

use dotmac_domain::{Command, access::Role, command::CreateToken};
use serde_json::{Value, json};

use super::{
    changes::named,
    world::{ADMIN, Answer, REGION, World},
};
use crate::{
    api::{
        DEPLOYMENTS, Serving,
        operation::Access,
        operation::{Operation, Place, Scope},
        operations,
    },
    config::Limits,
    node::bearer_digest,
};

mod table;

use table::TABLE;

/// Who asks, in the order of the table's columns.
const CALLERS: [&str; 9] = [
    "admin", "t.admin", "t.user", "reseller", "support", "auditor", "nobody", "expired", "revoked",
];
/// The columns of those whose token is bound to the tenant of the own things.
const BOUND: [usize; 2] = [1, 2];
/// Milliseconds after which the expired token has expired.
const SOON_MS: u64 = 60_000;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    /// Nothing in particular.
    Whole,
    /// Something of the tenant that the bound callers belong to, or something of the platform that is there.
    Own,
    /// Something of another tenant.
    Foreign,
    /// Something that is not there.
    Missing,
}

impl Object {
    fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Own => "own",
            Self::Foreign => "foreign",
            Self::Missing => "missing",
        }
    }
}

/// Two tenants with a deployment each, and everybody's token.
struct Stage {
    world: World,
    own: String,
    foreign: String,
    tokens: Vec<Option<String>>,
}

impl Stage {
    async fn new() -> Self {
        let many = NonZeroU32::new(1_000_000).unwrap();
        let limits = Limits {
            requests_per_second: many,
            requests_burst: many,
            guests_per_second: many,
            guests_burst: many,
            guesses_per_second: many,
            guesses_burst: many,
            ..Limits::default()
        };
        let world = World::serving(Serving {
            limits,
            ..Serving::default()
        })
        .await;
        let made = |answer: Answer| answer.json()["id"].as_str().unwrap().to_owned();
        let own = made(world.post(DEPLOYMENTS, &named("Own")).await);
        let foreign = made(world.post(DEPLOYMENTS, &named("Foreign")).await);
        let mut tokens = vec![Some(ADMIN.to_owned())];
        for role in &Role::ALL[1..] {
            let tenant = role.is_tenant_bound().then_some(own.as_str());
            tokens.push(Some(world.token(*role, tenant).await));
        }
        tokens.push(None);
        tokens.push(Some(passing_token(&world).await));
        let revoked = world.token(Role::PlatformAdmin, None).await;
        let (caller, _) = world.node.authenticate(&revoked).unwrap();
        let path = format!("/api/v1/tokens/{}", caller.token);
        let answer = world.ask(ADMIN, "DELETE", &path, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        tokens.push(Some(revoked));
        world.clock.advance_millis(SOON_MS);
        Self {
            world,
            own,
            foreign,
            tokens,
        }
    }

    /// The id of a thing of the operation's kind.
    fn id(&self, operation: &Operation, object: Object) -> String {
        let noun = operation.tag();
        let missing = object == Object::Missing;
        match (noun, object) {
            ("deployments" | "licenses" | "tenants", Object::Own) => self.own.clone(),
            ("deployments" | "licenses" | "tenants", Object::Foreign) => self.foreign.clone(),
            ("deployments" | "licenses" | "tenants", _) => {
                // As long as the foreign one, so that only the id differs.
                let slug = self.foreign.len() - 9;
                format!("{}-00000000", "x".repeat(slug))
            }
            ("controllers", _) => if missing { "99" } else { "2" }.to_owned(),
            ("regions", _) if !missing => REGION.to_owned(),
            ("agents", _) if !missing => self.world.agent.to_string(),
            ("tokens", _) if !missing => "00000000000000ad".to_owned(),
            ("join_tokens", _) if !missing => "00000000000000aa".to_owned(),
            ("regions", _) => "nowhere".to_owned(),
            ("agents", _) => "nobody-00000000".to_owned(),
            ("tokens" | "join_tokens", _) => "ffffffffffffffff".to_owned(),
            ("backups", _) => "20261123T165400Z-00a1f9".to_owned(),
            ("docs", _) => if missing { "none" } else { "not-found" }.to_owned(),
            other => panic!(
                "{} is about something unknown here: {other:?}",
                operation.id
            ),
        }
    }

    /// The address that asks for an object.
    fn path(&self, operation: &Operation, object: Object) -> String {
        let mut path = operation.path.clone();
        for one in &operation.parameters {
            if one.place != Place::Path {
                continue;
            }
            let value = match (operation.tag(), one.name) {
                ("releases", "name") if object == Object::Missing => "none".to_owned(),
                ("releases", "name") => "demo-isp".to_owned(),
                ("releases", "version") => "1.0.0".to_owned(),
                _ => self.id(operation, object),
            };
            path = path.replace(&format!("{{{}}}", one.name), &value);
        }
        let mut query = String::new();
        for one in &operation.parameters {
            if one.place == Place::Query && one.is_required {
                let value = match one.name {
                    "seal_to" => "ab".repeat(32),
                    "stream" => match object {
                        Object::Own => format!("tenant/{}", self.own),
                        Object::Foreign => format!("tenant/{}", self.foreign),
                        Object::Missing => {
                            format!("tenant/{}-00000000", "x".repeat(self.foreign.len() - 9))
                        }
                        Object::Whole => "platform".to_owned(),
                    },
                    other => panic!("{} asks for {other}", operation.id),
                };
                let _ = write!(query, "&{}={value}", one.name);
            }
        }
        if let (Some(name), true) = (whose(operation), object != Object::Whole) {
            let id = match object {
                Object::Own => self.own.clone(),
                Object::Foreign => self.foreign.clone(),
                _ => format!("{}-00000000", "x".repeat(self.foreign.len() - 9)),
            };
            let _ = write!(query, "&{name}={id}");
        }
        match query.strip_prefix('&') {
            Some(query) => format!("{path}?{query}"),
            None => path,
        }
    }

    /// A body that is right as it stands.
    fn body(&self, operation: &Operation, object: Object) -> Option<Value> {
        let digest = format!("sha256:{}", "1".repeat(64));
        let tenant = match object {
            Object::Own => Some(self.own.clone()),
            Object::Foreign => Some(self.foreign.clone()),
            Object::Missing => Some(format!("{}-00000000", "x".repeat(self.foreign.len() - 9))),
            Object::Whole => None,
        };
        let body = match operation.id {
            "deployments.create" => match tenant {
                Some(tenant) => json!({"tenant_id": tenant, "environment": "staging"}),
                None => named("New"),
            },
            "deployments.update" => json!({"features": {"crm": true}}),
            "deployments.scale" => json!({"replicas": 1}),
            "licenses.update" => json!({"max_subscribers": 5}),
            "licenses.suspend" | "licenses.revoke" => json!({"reason": "unpaid"}),
            "releases.add" => serde_json::from_str(super::world::MANIFEST_TEXT).unwrap(),
            "tenants.create" => json!({"tenant_name": "New"}),
            "tenants.update" => json!({"tenant_name": "Renamed"}),
            "regions.create" => json!({"id": "new-1"}),
            "regions.update" => json!({"accepts_deployments": false}),
            "controllers.admit" => super::world::card(9),
            "trust_roots.follow" => json!({"document": super::world::next_trust_root(&self.world)}),
            "tokens.create" => {
                json!({"id": "0123456789abcdef", "secret_digest": digest, "name": "new",
                "role": if tenant.is_some() { "tenant_user" } else { "support" }, "tenant_id": tenant})
            }
            "join_tokens.create" => {
                json!({"id": "0123456789abcdef", "secret_digest": digest, "region": REGION})
            }
            other => {
                let asked = operation.body.as_ref().is_some_and(|body| body.is_required);
                assert!(!asked, "{other} needs a body here");
                return None;
            }
        };
        Some(body)
    }

    /// Asks; whatever would change something only for a plan of it.
    async fn ask(&self, operation: &Operation, object: Object, caller: usize, dry: bool) -> Answer {
        let mut path = self.path(operation, object);
        if dry && operation.parameters.iter().any(|one| one.name == "dry_run") {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str("dry_run=true");
        }
        let mut request = self.world.request(operation.method.as_str(), &path);
        if let Some(token) = &self.tokens[caller] {
            request = request.bearer_auth(token);
        }
        if let Some(body) = self.body(operation, object) {
            request = request.json(&body);
        }
        World::send(request).await
    }
}

async fn passing_token(world: &World) -> String {
    let secret = "a token that ends soon";
    let token = CreateToken {
        id: "00000000000000ee".parse().unwrap(),
        secret_digest: bearer_digest(secret),
        name: "passing".into(),
        role: Role::PlatformAdmin,
        tenant: None,
        expires_at: Some(world.node.clock.now().plus_millis(SOON_MS)),
    };
    world.command(Command::CreateToken(token)).await;
    secret.to_owned()
}

/// The parameter that says whose things a list or a body is about, where there is no name in the path.
fn whose(operation: &Operation) -> Option<&'static str> {
    match operation.id {
        "audit.list" => Some("tenant"),
        "events.stream" => Some("tenant_id"),
        _ => None,
    }
}

/// The objects that an operation is asked of.
fn objects(operation: &Operation) -> Vec<Object> {
    let is_named = operation
        .parameters
        .iter()
        .any(|one| one.place == Place::Path);
    let is_tenants = matches!(operation.access, Access::Needs(_, Scope::Tenant));
    let takes_tenant = matches!(
        operation.id,
        "deployments.create" | "tokens.create" | "audit.records"
    );
    match (
        is_named,
        is_tenants || takes_tenant || whose(operation).is_some(),
    ) {
        (true, true) => vec![Object::Own, Object::Foreign, Object::Missing],
        (true, false) => vec![Object::Own, Object::Missing],
        (false, true) => vec![Object::Whole, Object::Own, Object::Foreign, Object::Missing],
        (false, false) => vec![Object::Whole],
    }
}

/// Whether it would change something.
fn is_change(operation: &Operation) -> bool {
    operation.parameters.iter().any(|one| one.name == "dry_run")
}

#[tokio::test]
async fn every_operation_answers_everybody_as_the_table_says() {
    let stage = Stage::new().await;
    let mut found = String::new();
    for operation in operations() {
        for object in objects(&operation) {
            let _ = write!(found, "{:<22} {:<8}", operation.id, object.as_str());
            for caller in 0..CALLERS.len() {
                let answer = stage.ask(&operation, object, caller, true).await;
                let _ = write!(found, " {}", answer.status);
                // Whoever is refused a plan is refused the change.
                if is_change(&operation) && answer.status >= 400 {
                    let refused = stage.ask(&operation, object, caller, false).await;
                    assert_eq!(
                        refused.status, answer.status,
                        "{} {}",
                        operation.id, refused.text
                    );
                }
            }
            found.push('\n');
        }
    }
    let wanted: BTreeSet<&str> = TABLE.lines().filter(|line| !line.is_empty()).collect();
    let found: BTreeSet<&str> = found.lines().collect();
    let without_row: Vec<&&str> = found.difference(&wanted).collect();
    let without_operation: Vec<&&str> = wanted.difference(&found).collect();
    assert!(
        without_row.is_empty() && without_operation.is_empty(),
        "the API answers ({}):\n{without_row:#?}\nthe table says:\n{without_operation:#?}",
        CALLERS.join(" ")
    );
    stage.world.stop().await;
}

#[tokio::test]
async fn law_7_whatever_is_asked_a_foreign_thing_is_answered_like_none() {
    let stage = Stage::new().await;
    let mut compared = 0;
    for operation in operations() {
        if !objects(&operation).contains(&Object::Foreign) {
            continue;
        }
        for caller in BOUND {
            for dry in [true, false] {
                let foreign = stage.ask(&operation, Object::Foreign, caller, dry).await;
                let missing = stage.ask(&operation, Object::Missing, caller, dry).await;
                let nobodys = format!("{}-00000000", "x".repeat(stage.foreign.len() - 9));
                let seen = |answer: &Answer, id: &str| {
                    let mut names: Vec<String> =
                        answer.headers.keys().map(ToString::to_string).collect();
                    names.sort();
                    let length = answer.header("content-length").to_owned();
                    (answer.status, names, length, answer.text.replace(id, "ID"))
                };
                let what = format!("{} as {}", operation.id, CALLERS[caller]);
                assert_eq!(
                    seen(&foreign, &stage.foreign),
                    seen(&missing, &nobodys),
                    "{what}"
                );
                assert!(
                    matches!(foreign.status, 403 | 404),
                    "{what} {}",
                    foreign.status
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 50, "{compared}");
    stage.world.stop().await;
}

#[tokio::test]
async fn law_7_no_list_shows_a_tenant_what_is_anothers() {
    let stage = Stage::new().await;
    for operation in operations() {
        if is_change(&operation) || operation.id == "events.stream" {
            continue;
        }
        for object in [Object::Whole, Object::Own] {
            if !objects(&operation).contains(&object) {
                continue;
            }
            for caller in BOUND {
                let answer = stage.ask(&operation, object, caller, false).await;
                assert!(
                    !answer.text.contains(&stage.foreign),
                    "{} shows {} another's: {}",
                    operation.id,
                    CALLERS[caller],
                    answer.text
                );
            }
        }
    }
    // The administrator sees both: the lists are not just empty.
    let all = stage.world.get("/api/v1/tenants").await.text;
    assert!(all.contains(&stage.foreign) && all.contains(&stage.own));
    stage.world.stop().await;
}
