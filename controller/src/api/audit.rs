//! The audit: one story a tenant and one of the platform for people, and the raw links of every chain for whoever
//! wants to verify them. It reads this controller's own ledger.

use std::str::FromStr;

use axum::{http::StatusCode, response::Response};
use dotmac_domain::{
    State,
    access::Permission,
    audit::{AuditRecord, Fact, Link, ReportRecord, Stream},
    envelope::Actor,
};
use dotmac_protocol::{codec, record::Record};
use serde_json::{Value, json};

use super::{
    answer::{page, page_of, time},
    operation::{Operation, Scope},
    principal::Principal,
    problem::{INTERNAL, NOT_FOUND, Problem},
    reading::Reading,
    schema,
};

mod shapes;

pub(super) use shapes::schemas;

/// Where the audit is.
const AUDIT: &str = "/api/v1/audit";
/// What a chain is called.
const STREAM: &str = "platform, tenant/ID, agent/ID/INCARNATION, usage/ID, events/ID or minutes/ID";
/// No chain is longer; each number of it has a place in every reader's integers.
const SEQUENCE_MAX: u64 = 999_999_999_999_999_999;

/// Bytes of links in one page, about; a page ends early then.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// What can be asked.
pub(super) fn operations() -> Vec<Operation> {
    let sequence = || schema::whole(0, SEQUENCE_MAX);
    let cursor = || schema::pattern("^[0-9]{1,18}$");
    vec![
        Operation::read("audit.list", AUDIT, story)
            .says(
                "Read the audit",
                "What was done, by whom, in order: the platform's story, or one tenant's.",
            )
            .needs(&[Permission::AuditRead], Scope::Tenant)
            .query(
                "tenant",
                schema::tenant_id(),
                "whose story; the platform's if not given",
            )
            .query("after", sequence(), "only what follows this sequence")
            .paged(cursor())
            .problems(&[&NOT_FOUND])
            .answers(
                StatusCode::OK,
                "One page",
                schema::page_of(schema::of("AuditEntry")),
            ),
        Operation::read("audit.records", format!("{AUDIT}/records"), records)
            .says(
                "Read the raw links of a chain",
                "For whoever verifies the chain himself.",
            )
            .needs(&[Permission::AuditRead], Scope::Tenant)
            .required("stream", schema::stream(), STREAM)
            .query("after", sequence(), "only what follows this sequence")
            .paged(cursor())
            .problems(&[&NOT_FOUND])
            .answers(
                StatusCode::OK,
                "One page",
                schema::page_of(schema::of("AuditLink")),
            ),
        Operation::read("audit.streams", format!("{AUDIT}/streams"), streams)
            .says(
                "List the chains",
                "Every chain the caller may see, its head, and its last link that was dropped (0: none): the first one that is \
                 kept names that one's digest.",
            )
            .needs(&[Permission::AuditRead], Scope::Filtered)
            .query("after", schema::stream(), "only what follows this chain")
            .paged(schema::stream())
            .answers(
                StatusCode::OK,
                "One page",
                schema::page_of(schema::of("AuditStream")),
            ),
    ]
}

async fn story(mut reading: Reading) -> Result<Response, Problem> {
    let tenant = reading.query.parsed("tenant", "the id of a tenant");
    let (limit, after) = window(&mut reading);
    reading.who.has(Permission::AuditRead)?;
    // Who is bound to a tenant sees that one's story, whether he names it or not.
    let tenant = tenant.or_else(|| reading.who.own_tenant().cloned());
    let stream = tenant.map_or(Stream::Platform, Stream::Tenant);
    answer(reading, Some(stream), after, limit, item).await
}

async fn records(mut reading: Reading) -> Result<Response, Problem> {
    let stream = reading.query.required::<Stream>("stream", STREAM);
    let (limit, after) = window(&mut reading);
    reading.who.has(Permission::AuditRead)?;
    answer(reading, stream, after, limit, link).await
}

async fn streams(mut reading: Reading) -> Result<Response, Problem> {
    let after = reading.query.parsed::<Stream>("after", STREAM);
    let (limit, cursor) = reading.page::<Stream>();
    reading.who.has(Permission::AuditRead)?;
    let Reading {
        state, query, who, ..
    } = reading;
    query.finish()?;
    let after = cursor.or(after);
    let items = state
        .streams
        .iter()
        .filter(|(stream, _)| after.as_ref().is_none_or(|after| *stream > after))
        .filter(|(stream, _)| may_see(&who, &state, stream))
        .map(|(stream, head)| {
            let key = match stream {
                Stream::Agent(agent, _) => {
                    let identity = state.identity_of(agent);
                    identity.map(|identity| hex::encode(identity.0))
                }
                Stream::Platform
                | Stream::Tenant(_)
                | Stream::Usage(_)
                | Stream::Events(_)
                | Stream::Minutes(_) => None,
            };
            let dropped = state.dropped(stream);
            let item = json!({
                "stream": stream.to_string(), "sequence": head.sequence,
                "digest": head.digest.to_string(), "key": key,
                "dropped": dropped.sequence, "dropped_digest": dropped.digest.to_string(),
            });
            (stream.to_string(), item)
        });
    Ok(page_of(items, limit))
}

/// How many links, and after which sequence. The cursor of a page is a sequence, too.
fn window(reading: &mut Reading) -> (usize, u64) {
    let after = reading.query.number("after", 0..=SEQUENCE_MAX);
    let (limit, cursor) = reading.page::<Cursor>();
    (limit, cursor.map(|cursor| cursor.0).or(after).unwrap_or(0))
}

/// A sequence as a cursor: digits, and nothing else.
struct Cursor(u64);

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_number =
            (1..=18).contains(&text.len()) && text.bytes().all(|one| one.is_ascii_digit());
        text.parse().ok().filter(|_| is_number).map(Self).ok_or(())
    }
}

/// One page of a stream that the caller may see; otherwise as if there were none (law 7).
async fn answer(
    reading: Reading,
    stream: Option<Stream>,
    after: u64,
    limit: usize,
    show: fn(&Fact) -> Result<Value, Problem>,
) -> Result<Response, Problem> {
    let Reading {
        node,
        who,
        state,
        query,
        ..
    } = reading;
    let stream = query.finish_with(stream)?;
    match &stream {
        Stream::Tenant(tenant) => who.tenant(&state, Permission::AuditRead, tenant)?,
        Stream::Platform => who.require(&state, Permission::AuditRead, None)?,
        Stream::Agent(..) | Stream::Usage(_) | Stream::Events(_) | Stream::Minutes(_)
            if may_see(&who, &state, &stream) && state.streams.contains_key(&stream) => {}
        Stream::Agent(..) | Stream::Usage(_) | Stream::Events(_) | Stream::Minutes(_) => {
            return Err(Problem::not_found("stream", &stream.to_string()));
        }
    }
    let head = state.streams.get(&stream).map_or(0, |head| head.sequence);
    let read = tokio::task::spawn_blocking(move || node.log.facts(&stream, after, limit)).await;
    let facts = read.map_err(|_| Problem::new(&INTERNAL, "the ledger could not be read"))??;
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, after);
    for fact in &facts {
        if fact.sequence > head || bytes > PAGE_BYTES {
            break;
        }
        bytes += size(&fact.link);
        last = fact.sequence;
        items.push(show(fact)?);
    }
    let has_more = !items.is_empty() && last < head;
    Ok(page(items, has_more.then(|| last.to_string())))
}

fn may_see(who: &Principal, state: &State, stream: &Stream) -> bool {
    let tenant = match stream {
        Stream::Tenant(tenant) => Some(tenant),
        Stream::Usage(id) | Stream::Events(id) | Stream::Minutes(id) => {
            state.deployments.get(id).map(|one| &one.tenant)
        }
        Stream::Platform | Stream::Agent(..) => None,
    };
    state.may(&who.actor(), Permission::AuditRead, tenant)
}

fn size(link: &Link) -> usize {
    match link {
        Link::Entry(bytes) | Link::Report(bytes) => bytes.len(),
        Link::Record(record) => record.body.len(),
    }
}

/// A link for people.
fn item(fact: &Fact) -> Result<Value, Problem> {
    let Link::Entry(bytes) = &fact.link else {
        return Err(unreadable(fact));
    };
    let record: AuditRecord = codec::decode(bytes).map_err(|_| unreadable(fact))?;
    let entry = record.entry;
    let actor = match &entry.actor {
        Actor::Person(token) => format!("person:{token}"),
        Actor::Agent(agent) => format!("agent:{agent}"),
        Actor::Planner => "planner".to_owned(),
        Actor::Founder => "founder".to_owned(),
    };
    Ok(json!({
        "stream": fact.stream.to_string(), "sequence": fact.sequence, "at": time(record.at),
        "actor": actor, "action": entry.action, "tenant": entry.tenant, "unit": entry.unit,
        "request": entry.request, "detail": entry.detail,
        "digest": fact.link.digest().to_string(),
    }))
}

/// A link as whoever verifies needs it.
fn link(fact: &Fact) -> Result<Value, Problem> {
    let (body, previous, signature) = match &fact.link {
        Link::Entry(bytes) => {
            let record: AuditRecord = codec::decode(bytes).map_err(|_| unreadable(fact))?;
            (bytes, record.previous, Value::Null)
        }
        Link::Report(bytes) => {
            let record: ReportRecord = codec::decode(bytes).map_err(|_| unreadable(fact))?;
            (bytes, record.previous, Value::Null)
        }
        Link::Record(signed) => {
            let record: Record = codec::decode(&signed.body).map_err(|_| unreadable(fact))?;
            let signature = json!({
                "key": signed.signature.key.0.to_string(),
                "value": hex::encode(signed.signature.halves.concat()),
            });
            (&signed.body, record.previous, signature)
        }
    };
    Ok(json!({
        "sequence": fact.sequence, "body": hex::encode(body), "signature": signature,
        "previous": previous.to_string(), "digest": fact.link.digest().to_string(),
    }))
}

fn unreadable(fact: &Fact) -> Problem {
    let detail = format!(
        "link {} of stream {} cannot be read",
        fact.sequence, fact.stream
    );
    Problem::new(&INTERNAL, detail)
}
