//! One page of a deployment's series, newest first: what its instance used, what happened in it, what its probes found.
//! It reads this controller's own ledger, a bounded number of links a request.

use std::{str::FromStr, sync::Arc};

use dotmac_domain::{
    State,
    access::Permission,
    audit::{Fact, Link, ReportRecord, Stream},
    tenancy::Deployment,
};
use dotmac_protocol::{
    codec,
    ids::{DeploymentId, TenantId},
};
use serde_json::{Map, Value, json};

use super::environment;
use crate::{
    api::{
        answer::time,
        fields::Fields,
        operation::{Operation, Scope},
        problem::{INTERNAL, NOT_FOUND, Problem, WRONG_STATE},
        reading::Reading,
        schema,
    },
    node::Node,
};

/// Links looked at for one page at most; a page of a rare kind ends early then, and its cursor goes on.
const LOOKED_AT_MAX: u64 = 5_000;
/// Links read at once.
const READ_EACH: u64 = 500;
/// Bytes of links in one page, about.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// What is asked of a tenant's series, so far as all of them are asked the same.
pub(super) struct Asked {
    pub(super) state: Arc<State>,
    pub(super) tenant: TenantId,
    pub(super) deployment: DeploymentId,
    pub(super) window: Window,
    node: Arc<Node>,
}

/// How many links, and before which sequence.
pub(super) struct Window {
    limit: usize,
    before: Option<u64>,
}

/// What all of these operations take.
pub(super) fn operation(operation: Operation) -> Operation {
    operation
        .needs(&[Permission::TenantRead], Scope::Tenant)
        .named("id", schema::tenant_id(), "the tenant's id")
        .query(
            "environment",
            schema::one_of(&environment::ENVIRONMENTS),
            environment::USUALLY,
        )
        .paged(schema::pattern("^[1-9][0-9]{0,17}$"))
        .problems(&[&NOT_FOUND, &WRONG_STATE])
}

/// Reads what is asked; `more` reads the parameters of one operation.
pub(super) fn read<T>(
    mut reading: Reading,
    id: &str,
    more: impl FnOnce(&mut Fields) -> T,
) -> Result<(Asked, T), Problem> {
    reading.who.has(Permission::TenantRead)?;
    let (limit, cursor) = reading.page::<Cursor>();
    let Reading {
        node,
        who,
        state,
        mut query,
        ..
    } = reading;
    let (tenant, _) = who.visible_tenant(&state, id)?;
    let environment = environment::read(&mut query);
    let more = more(&mut query);
    query.finish()?;
    let (deployment, _) = environment::choose(&state, &tenant, environment)?;
    let asked = Asked {
        deployment: deployment.clone(),
        window: Window {
            limit,
            before: cursor.map(|cursor| cursor.0),
        },
        tenant,
        state,
        node,
    };
    Ok((asked, more))
}

/// A sequence as a cursor: digits, and nothing else.
struct Cursor(u64);

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_number = (1..=18).contains(&text.len())
            && !text.starts_with('0')
            && text.bytes().all(|one| one.is_ascii_digit());
        text.parse().ok().filter(|_| is_number).map(Self).ok_or(())
    }
}

impl Asked {
    /// The deployment that is meant.
    pub(super) fn one(&self) -> &Deployment {
        &self.state.deployments[&self.deployment]
    }

    /// The answer's members of every series: whose it is, and a page of what `show` makes of its links.
    pub(super) async fn page(
        self,
        stream: Stream,
        show: impl Fn(&ReportRecord) -> Option<Map<String, Value>> + Send + 'static,
    ) -> Result<Map<String, Value>, Problem> {
        let head = self.state.streams.get(&stream);
        let head = head.map_or(0, |head| head.sequence);
        let environment = self.one().environment.clone();
        let (node, window) = (self.node, self.window);
        let read =
            tokio::task::spawn_blocking(move || newest(&node, &stream, head, &window, show)).await;
        let (items, next) =
            read.map_err(|_| Problem::new(&INTERNAL, "the ledger could not be read"))??;
        Ok(Map::from_iter([
            ("tenant_id".to_owned(), json!(self.tenant)),
            ("deployment".to_owned(), json!(self.deployment)),
            ("environment".to_owned(), json!(environment)),
            ("items".to_owned(), json!(items)),
            ("next_cursor".to_owned(), json!(next)),
        ]))
    }
}

/// The newest links of a stream that `show` takes, and the cursor of those before.
fn newest(
    node: &Node,
    stream: &Stream,
    head: u64,
    window: &Window,
    show: impl Fn(&ReportRecord) -> Option<Map<String, Value>>,
) -> Result<(Vec<Value>, Option<String>), Problem> {
    let before = window.before.map_or(head, |before| (before - 1).min(head));
    let (mut end, mut items, mut bytes) = (before, Vec::new(), 0);
    while end > 0 && before - end < LOOKED_AT_MAX {
        let start = end.saturating_sub(READ_EACH);
        let count = usize::try_from(end - start).unwrap_or_default();
        let facts = node.log.facts(stream, start, count)?;
        for fact in facts.iter().rev() {
            let (record, length) = decode(fact)?;
            end = fact.sequence - 1;
            if let Some(mut item) = show(&record) {
                item.insert("sequence".to_owned(), json!(record.sequence));
                item.insert("received_at".to_owned(), json!(time(record.at)));
                items.push(Value::Object(item));
                bytes += length;
            }
            if items.len() == window.limit || bytes > PAGE_BYTES {
                let next = (end > 0).then(|| (end + 1).to_string());
                return Ok((items, next));
            }
        }
        // What this controller does not hold any more is not shown, and is not waited for.
        end = start;
    }
    let next = (end > 0).then(|| (end + 1).to_string());
    Ok((items, next))
}

fn decode(fact: &Fact) -> Result<(ReportRecord, usize), Problem> {
    let unreadable = || {
        let (sequence, stream) = (fact.sequence, &fact.stream);
        let detail = format!("link {sequence} of stream {stream} cannot be read");
        Problem::new(&INTERNAL, detail)
    };
    let Link::Report(bytes) = &fact.link else {
        return Err(unreadable());
    };
    let record = codec::decode(bytes).map_err(|_| unreadable())?;
    Ok((record, bytes.len()))
}

/// The members of every answer, with the items' own.
pub(super) fn schema_of(item: &[(&str, Value)], own: &[(&str, Value)]) -> Value {
    let of_all = [
        ("sequence", schema::count()),
        (
            "received_at",
            schema::about("when it came, by the controllers' clock", schema::time()),
        ),
    ];
    let item = schema::object(&[&of_all, item].concat(), &[]);
    let page = [
        ("tenant_id", schema::tenant_id()),
        ("deployment", schema::deployment_id()),
        ("environment", schema::one_of(&environment::ENVIRONMENTS)),
        ("items", schema::about("newest first", schema::list(item))),
        ("next_cursor", schema::text_or_null()),
    ];
    schema::object(&[&page, own].concat(), &[])
}
