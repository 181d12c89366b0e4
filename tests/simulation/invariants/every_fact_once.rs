//! Every chain of facts is whole on every controller, the same everywhere, and tells of each request and of each record
//! of an agent once (law 8).

use std::collections::BTreeSet;

use dotmac_domain::{
    audit::{AuditRecord, Fact, Link, Stream},
    envelope::Actor,
};
use dotmac_protocol::{codec, digest::Digest, ids::RequestId};

use super::{ControllerView, Invariant, Verdict, View};

/// Facts read at once.
const PIECE: usize = 500;

pub(super) struct EveryFactOnce;

impl Invariant for EveryFactOnce {
    fn name(&self) -> &'static str {
        "every_fact_once"
    }

    fn conclude(&mut self, view: &View<'_>) -> Verdict {
        for controller in view.members() {
            let mut told = BTreeSet::new();
            for (stream, head) in &controller.state.streams {
                let facts = read(controller, stream)?;
                check_chain(controller, stream, &facts)?;
                let last = facts.last().map_or(Digest::ZERO, |fact| fact.link.digest());
                if last != head.digest {
                    return Err(format!(
                        "{stream} ends otherwise in the ledger of controller {}",
                        controller.place
                    ));
                }
                check_once(stream, &facts, &mut told)?;
            }
        }
        Ok(())
    }
}

fn read(controller: &ControllerView, stream: &Stream) -> Result<Vec<Fact>, String> {
    let mut facts: Vec<Fact> = Vec::new();
    loop {
        let after = facts.last().map_or(0, |fact| fact.sequence);
        let more = controller.ledger.read(stream, after, PIECE);
        let more = more.map_err(|error| format!("{stream} cannot be read: {error}"))?;
        if more.is_empty() {
            return Ok(facts);
        }
        facts.extend(more);
    }
}

fn check_chain(controller: &ControllerView, stream: &Stream, facts: &[Fact]) -> Verdict {
    let found = facts.iter().map(|fact| fact.sequence);
    if found.eq(1..=u64::try_from(facts.len()).unwrap()) {
        return Ok(());
    }
    Err(format!(
        "{stream} has a gap in the ledger of controller {}",
        controller.place
    ))
}

/// Each request of a person is told once, and so is each thing that an agent recorded.
fn check_once(
    stream: &Stream,
    facts: &[Fact],
    told: &mut BTreeSet<(RequestId, String, String)>,
) -> Verdict {
    for fact in facts {
        let Link::Entry(bytes) = &fact.link else {
            continue;
        };
        let record: AuditRecord = codec::decode(bytes).map_err(|error| error.to_string())?;
        let entry = record.entry;
        let what = match &entry.actor {
            Actor::Person(_) => (entry.request.clone(), entry.action.clone(), String::new()),
            Actor::Agent(agent) if entry.unit.is_some() => {
                // It names the record that it comes from.
                let detail = format!("{agent} {}", entry.detail);
                (entry.request.clone(), entry.action.clone(), detail)
            }
            Actor::Agent(_) | Actor::Planner | Actor::Founder => continue,
        };
        if !told.insert(what) {
            return Err(format!(
                "{stream} tells {} of request {} twice: {}",
                entry.action, entry.request, entry.detail
            ));
        }
    }
    Ok(())
}
