//! What the agent was ordered, on disk before it acts: the newest accepted intent of each unit, kept as received.
//!
//! It refuses whatever is not verified, not for this agent, not newer, or outside its window. Tombstones stay, so
//! that a removed unit does not come back by an old order.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use dotmac_protocol::{
    acceptance::{self, Held, Refusal},
    clock::desired_digest,
    codec::{self, Format},
    digest::Digest,
    frame::INVENTORY_MAX,
    ids::{AgentId, TenantId, UnitId},
    time::Timestamp,
    trust::TrustRoot,
    unit::Payload,
    wave::{IntentError, Leaf, SignedIntent, Verb, VerifiedIntent, WaveHeader},
};
use dotmac_runtime::disk;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    trust::TrustStore,
    unit::{Desired, Order, Wanted},
};

const EXTENSION: &str = "intent";

/// The journal of one agent.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    me: AgentId,
    tenants: BTreeSet<TenantId>,
    entries: BTreeMap<UnitId, Entry>,
    /// Highest signed time seen: a clock that was set back does not open old windows again.
    signed_time: Timestamp,
    next_number: u64,
}

#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    number: u64,
    not_after: Timestamp,
    payload: Digest,
}

/// Version 1 of a journal file.
#[derive(Debug, Serialize, Deserialize)]
struct JournalFile {
    /// Counts up with every accepted intent.
    number: u64,
    /// The agent's clock at acceptance.
    at: Timestamp,
    /// As received.
    intent: SignedIntent,
}

impl Format for JournalFile {
    const KIND: &'static str = "journal file";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = SignedIntent::BYTES_MAX + 64;
}

/// What became of an intent that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is on disk now.
    Accepted(Wanted),
    /// It was on disk already: a repeated delivery.
    Held,
}

/// Why an intent was not taken.
#[derive(Debug, Error)]
pub enum TakeError {
    /// It is not to be believed; no receipt is due, for nothing in it can be trusted.
    #[error("the intent is not to be believed")]
    Unverified(#[from] IntentError),
    /// It is genuine, and refused; the receipt says why.
    #[error("the intent for {} is refused: {reason}", leaf.unit)]
    Refused {
        /// The order.
        leaf: Box<Leaf>,
        /// Why, for people.
        reason: String,
    },
    /// The disk fails; nothing changed.
    #[error("the intent for {unit} cannot be written to the journal")]
    Disk {
        unit: UnitId,
        #[source]
        source: io::Error,
    },
}

/// The journal cannot be read at all.
#[derive(Debug, Error)]
#[error("the journal in {} cannot be read", directory.display())]
pub struct OpenError {
    directory: PathBuf,
    #[source]
    source: io::Error,
}

/// A file of the journal that is not what was written. Its unit is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub detail: String,
}

impl Journal {
    /// Reads the journal of agent `me`, which serves `tenants` (any when empty). Every file is
    /// verified again, against the trust root it was signed under.
    ///
    /// # Errors
    /// When the directory cannot be made or listed. Damaged files are returned beside the journal.
    pub fn open(
        directory: &Path,
        me: AgentId,
        tenants: BTreeSet<TenantId>,
        trust: &TrustStore,
    ) -> Result<(Self, Vec<Damage>), OpenError> {
        let mut journal = Self {
            directory: directory.to_owned(),
            me,
            tenants,
            entries: BTreeMap::new(),
            signed_time: Timestamp(0),
            next_number: 1,
        };
        let failed = |source| OpenError {
            directory: directory.to_owned(),
            source,
        };
        disk::create_private_dir(directory).map_err(failed)?;
        let mut damages = Vec::new();
        for file in std::fs::read_dir(directory).map_err(failed)? {
            let file = file.map_err(failed)?.path();
            if file.extension().is_none_or(|found| found != EXTENSION) {
                continue;
            }
            if let Err(detail) = journal.load(&file, trust) {
                damages.push(Damage { file, detail });
            }
        }
        Ok((journal, damages))
    }

    /// Verifies an intent, decides, and writes it down. When this returns `Accepted` it is on disk. `now` is the
    /// agent's clock, `signed_clock` the newest signed one, once the session brought one.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn take(
        &mut self,
        intent: &SignedIntent,
        trust: &TrustRoot,
        now: Timestamp,
        signed_clock: Option<Timestamp>,
    ) -> Result<Taken, TakeError> {
        let verified = intent.verify(trust, &self.me)?;
        let signed_time = signed_clock.max(Some(verified.header().sealed_at));
        self.signed_time = self.signed_time.max(signed_time.unwrap_or_default());
        let leaf = verified.leaf();
        let entry = self.entries.get(&leaf.unit);
        if entry.is_some_and(|entry| entry.wanted.leaf == verified.leaf_digest()) {
            return Ok(Taken::Held);
        }
        let refuse = |reason: String| TakeError::Refused {
            leaf: Box::new(leaf.clone()),
            reason,
        };
        if !self.tenants.is_empty() && !self.tenants.contains(&leaf.tenant) {
            return Err(refuse(
                Refusal::TenantNotServed(leaf.tenant.clone()).to_string(),
            ));
        }
        let held = entry.map(Entry::held);
        acceptance::accept(held.as_ref(), leaf, now.max(self.signed_time))
            .and_then(|()| acceptance::check_clock(signed_clock, now))
            .map_err(|refusal| refuse(refusal.to_string()))?;
        if entry.is_none() && !self.make_room(now) {
            return Err(refuse(format!(
                "this agent holds {INVENTORY_MAX} units already"
            )));
        }
        let (number, at) = (self.next_number, now);
        self.write(&leaf.unit, number, at, intent)?;
        self.next_number += 1;
        let wanted = wanted(&verified, at);
        self.insert(&verified, wanted.clone(), number);
        Ok(Taken::Accepted(wanted))
    }

    /// What every unit should be.
    #[must_use]
    pub fn desired(&self) -> Desired {
        self.entries
            .iter()
            .map(|(unit, entry)| (unit.clone(), entry.wanted.clone()))
            .collect()
    }

    /// Digest of everything that is kept, as signed clocks name it.
    #[must_use]
    pub fn kept(&self) -> Digest {
        let entries = self.entries.iter();
        let kept = entries.filter(|(_, entry)| entry.wanted.order != Order::Remove);
        desired_digest(kept.map(|(unit, entry)| (unit, entry.wanted.generation, entry.payload)))
    }

    /// The intent accepted last: the only one whose receipt a crash can have swallowed.
    #[must_use]
    pub fn last_accepted(&self) -> Option<&Wanted> {
        self.entries
            .values()
            .max_by_key(|entry| entry.number)
            .map(|entry| &entry.wanted)
    }

    fn insert(&mut self, verified: &VerifiedIntent, wanted: Wanted, number: u64) {
        let entry = Entry {
            wanted,
            number,
            not_after: verified.leaf().window.not_after,
            payload: verified.leaf().payload,
        };
        self.entries.insert(verified.leaf().unit.clone(), entry);
    }

    /// Makes room for one more unit. A tombstone may go once its window is over: nothing as old is accepted any more.
    fn make_room(&mut self, now: Timestamp) -> bool {
        if self.entries.len() < INVENTORY_MAX {
            return true;
        }
        let over = |entry: &&Entry| entry.wanted.order == Order::Remove && entry.not_after < now;
        let oldest = self
            .entries
            .values()
            .filter(over)
            .min_by_key(|entry| entry.number);
        let Some(unit) = oldest.map(|entry| entry.wanted.unit.clone()) else {
            return false;
        };
        let removed = std::fs::remove_file(self.file_of(&unit)).is_ok();
        if removed {
            self.entries.remove(&unit);
        }
        removed
    }

    fn write(
        &self,
        unit: &UnitId,
        number: u64,
        at: Timestamp,
        intent: &SignedIntent,
    ) -> Result<(), TakeError> {
        let intent = intent.clone();
        let bytes = codec::encode(&JournalFile { number, at, intent })
            .expect("an intent that was received can be encoded");
        disk::write_atomic(&self.file_of(unit), &bytes, 0o600).map_err(|source| TakeError::Disk {
            unit: unit.clone(),
            source,
        })
    }

    /// A unit's kind has no dot, so that no two units share a file.
    fn file_of(&self, unit: &UnitId) -> PathBuf {
        let name = unit.as_str().replace('/', ".");
        self.directory.join(format!("{name}.{EXTENSION}"))
    }

    fn load(&mut self, file: &Path, trust: &TrustStore) -> Result<(), String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let bytes = std::fs::read(file).map_err(|error| text(&error))?;
        let kept: JournalFile = codec::decode(&bytes).map_err(|error| text(&error))?;
        let header: WaveHeader =
            codec::decode(&kept.intent.header).map_err(|error| text(&error))?;
        let version = header.trust_version;
        let signed_under = trust
            .version(version)
            .ok_or_else(|| format!("trust root {version} of its signatures is not on disk"))?;
        let verified = kept
            .intent
            .verify(signed_under, &self.me)
            .map_err(|error| text(&error))?;
        let unit = &verified.leaf().unit;
        if self.file_of(unit) != file {
            return Err(format!("it holds an order for {unit}"));
        }
        self.signed_time = self.signed_time.max(header.sealed_at);
        self.next_number = self.next_number.max(kept.number.saturating_add(1));
        let wanted = wanted(&verified, kept.at);
        self.insert(&verified, wanted, kept.number);
        Ok(())
    }
}

impl Entry {
    fn held(&self) -> Held {
        Held {
            tenant: self.wanted.tenant.clone(),
            generation: self.wanted.generation,
            sequence: self.wanted.sequence,
            removed: self.wanted.order == Order::Remove,
        }
    }
}

fn wanted(verified: &VerifiedIntent, at: Timestamp) -> Wanted {
    let leaf = verified.leaf();
    Wanted {
        tenant: leaf.tenant.clone(),
        unit: leaf.unit.clone(),
        request: leaf.request.clone(),
        trace: leaf.trace,
        generation: leaf.generation,
        sequence: leaf.sequence,
        leaf: verified.leaf_digest(),
        at,
        order: match (leaf.verb, verified.payload()) {
            (Verb::Apply, Payload::Instance(instance)) => {
                Order::Keep(Arc::new((**instance).clone()))
            }
            (Verb::Apply | Verb::Remove, _) => Order::Remove,
        },
    }
}

#[cfg(test)]
mod tests;
