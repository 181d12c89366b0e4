//! Applies committed entries to the State, hands the facts to the ledger, and makes and takes snapshots.
//!
//! The State lives in memory: snapshot files and the log bring it back. A snapshot is written only when the facts of
//! everything in it are on disk. It refuses a snapshot whose facts the ledger lacks.

use std::{collections::BTreeSet, sync::Arc};

use dotmac_domain::{Changed, Command, Envelope, State, reply::Replies, rules::RULES_VERSION};
use dotmac_protocol::codec::{self, DecodeError};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, storage::RaftStateMachine,
};
use thiserror::Error;
use tokio::sync::watch;

use super::types::{
    Entry, Failure, LogId, Membership, Meta, SnapshotData, SnapshotHeader, TypeConfig, Verb,
    state_failure,
};
use crate::{
    log::{Changes, Moment, What},
    storage::{
        ledger::{Ledger, LedgerError},
        snapshots::{SnapshotError, SnapshotFile, Snapshots},
    },
};

mod written;

pub(crate) use written::{decode_state, read_meta, read_state, write_state};

/// Why the state machine fails.
#[derive(Debug, Error)]
pub enum StateMachineError {
    /// A snapshot file cannot be read or written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The ledger fails.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A snapshot's header or State is none of this program's.
    #[error("a snapshot cannot be decoded")]
    Decode(#[from] DecodeError),
    /// The State in a snapshot does not parse.
    #[error("the state in a snapshot is malformed: {0}")]
    State(String),
    /// The snapshot is newer than the facts that are here.
    #[error(
        "the ledger lacks facts of stream {stream}: it ends at {found}, the snapshot at {expected}"
    )]
    FactsMissing {
        /// Which stream.
        stream: String,
        /// Where the ledger ends.
        found: u64,
        /// Where the snapshot ends.
        expected: u64,
    },
    /// An entry puts rules into force that this program does not know; it must not go on by the old ones.
    #[error(
        "the cluster was finalized to version {to} of the rules, and this program knows {RULES_VERSION}: start the newer \
         program again"
    )]
    NewerRules {
        /// Which version.
        to: u16,
    },
    /// Raft gave no file.
    #[error("the snapshot to install has no file")]
    NoFile,
    /// A blocking task ended early: the program is stopping.
    #[error("the work was interrupted")]
    Interrupted,
}

/// What the rest of the controller sees of the State: always the newest, cheap to take.
#[derive(Debug, Clone)]
pub struct View {
    state: watch::Receiver<Arc<State>>,
    moment: watch::Receiver<Moment>,
    applied: watch::Receiver<u64>,
    changes: Changes,
}

impl View {
    /// The newest State.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// The newest State, and the entry up to which it was applied.
    #[must_use]
    pub fn moment(&self) -> Moment {
        self.moment.borrow().clone()
    }

    /// Index of the last applied entry; the State is never older.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// What applied entries changed.
    #[must_use]
    pub fn changes(&self) -> Changes {
        self.changes.clone()
    }
}

/// The state machine as Raft owns it.
#[derive(Debug)]
pub struct StateMachine {
    state: State,
    last_applied: Option<LogId>,
    membership: Membership,
    ledger: Ledger,
    snapshots: Snapshots,
    published: watch::Sender<Arc<State>>,
    moment: watch::Sender<Moment>,
    applied: watch::Sender<u64>,
    changes: Changes,
}

impl StateMachine {
    /// Opens the newest sound snapshot, or starts empty. Blocks.
    pub fn open(ledger: Ledger, snapshots: Snapshots) -> Result<(Self, View), StateMachineError> {
        let (mut state, mut meta) = (State::default(), Meta::default());
        if let Some(file) = snapshots.newest()? {
            meta = read_meta(&file)?;
            state = read_state(&file)?;
            check_facts(&state, &ledger)?;
            drop_facts(&state, &ledger);
        }
        let shared = Arc::new(state.clone());
        let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        let published = watch::Sender::new(Arc::clone(&shared));
        let moment = watch::Sender::new(moment_of(&shared, meta.last_log_id));
        let applied = watch::Sender::new(index);
        let changes = Changes::new(index, shared);
        let view = View {
            state: published.subscribe(),
            moment: moment.subscribe(),
            applied: applied.subscribe(),
            changes: changes.clone(),
        };
        let machine = Self {
            state,
            last_applied: meta.last_log_id,
            membership: meta.last_membership,
            ledger,
            snapshots,
            published,
            moment,
            applied,
            changes,
        };
        Ok((machine, view))
    }

    async fn apply_entry(
        &mut self,
        entry: Entry,
        changed: &mut BTreeSet<Changed>,
    ) -> Result<Replies, StateMachineError> {
        self.last_applied = Some(entry.log_id);
        let mut facts = Vec::new();
        let mut replies = Vec::new();
        let mut dropping = Vec::new();
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.membership = Membership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(proposal) => {
                for envelope in proposal.envelopes.iter() {
                    check_rules(envelope)?;
                    let applied = self.state.apply(envelope);
                    facts.extend(applied.facts);
                    changed.extend(applied.changed);
                    replies.push(applied.reply);
                    if let Command::DropFacts { drops } = &envelope.command {
                        dropping.extend(drops.iter().map(|(stream, _)| stream.clone()));
                    }
                }
            }
        }
        self.ledger.append(entry.log_id.index, &facts).await?;
        for stream in dropping {
            let end = self.state.dropped(&stream).sequence;
            self.ledger.drop_through(&stream, end);
        }
        Ok(Replies(replies))
    }

    /// The State first, so that whoever sees the index finds at least that State.
    fn publish(&self, what: What) {
        let state = Arc::new(self.state.clone());
        let index = self.last_applied.map_or(0, |log_id| log_id.index);
        self.published.send_replace(Arc::clone(&state));
        self.moment
            .send_replace(moment_of(&state, self.last_applied));
        self.applied.send_replace(index);
        match what {
            What::These(changed) => self.changes.note(index, state, changed),
            What::Everything => self.changes.replace(index, state),
        }
    }

    async fn install(&mut self, meta: &Meta, data: SnapshotData) -> Result<(), StateMachineError> {
        let file = data.file.ok_or(StateMachineError::NoFile)?;
        let (ledger, snapshots) = (self.ledger.clone(), self.snapshots.clone());
        let state = blocking(move || {
            let state = read_state(&file)?;
            check_facts(&state, &ledger)?;
            snapshots.adopt(&file)?;
            Ok(state)
        })
        .await?;
        drop_facts(&state, &self.ledger);
        self.state = state;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish(What::Everything);
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), Failure> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, Failure>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replies = Vec::new();
        let mut changed = BTreeSet::new();
        for entry in entries {
            let applied = self.apply_entry(entry, &mut changed).await;
            replies.push(applied.map_err(|error| state_failure(Verb::Write, &error))?);
        }
        self.publish(What::These(changed));
        // A bounded step each time: whatever is dropped holds nothing else up.
        let swept = self.ledger.sweep().await;
        swept.map_err(|error| state_failure(Verb::Write, &error))?;
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            state: self.state.clone(),
            last_applied: self.last_applied,
            membership: self.membership.clone(),
            ledger: self.ledger.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>, Failure> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        snapshot: Box<SnapshotData>,
    ) -> Result<(), Failure> {
        let installed = self.install(meta, *snapshot).await;
        installed.map_err(|error| state_failure(Verb::Write, &error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, Failure> {
        let snapshots = self.snapshots.clone();
        let found = blocking(move || {
            let Some(file) = snapshots.newest()? else {
                return Ok(None);
            };
            Ok(Some(snapshot(read_meta(&file)?, file)))
        });
        found
            .await
            .map_err(|error| state_failure(Verb::Read, &error))
    }
}

/// A State at one moment, about to become a file.
#[derive(Debug)]
pub struct SnapshotBuilder {
    state: State,
    last_applied: Option<LogId>,
    membership: Membership,
    ledger: Ledger,
    snapshots: Snapshots,
}

impl SnapshotBuilder {
    async fn build(&mut self) -> Result<Snapshot<TypeConfig>, StateMachineError> {
        self.ledger.settle().await?;
        let index = self.last_applied.map_or(0, |log_id| log_id.index);
        let term = self.last_applied.map_or(0, |log_id| log_id.leader_id.term);
        let meta = Meta {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{term}-{index}"),
        };
        let header = codec::encode(&SnapshotHeader(meta.clone()))
            .expect("the members of a cluster fit in a header");
        let (state, snapshots) = (self.state.clone(), self.snapshots.clone());
        let file =
            blocking(
                move || Ok(snapshots.write(index, &header, |body| write_state(&state, body))?),
            )
            .await?;
        tracing::info!(index, bytes = file.bytes(), "snapshot written");
        Ok(snapshot(meta, file))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, Failure> {
        let built = self.build().await;
        built.map_err(|error| state_failure(Verb::Write, &error))
    }
}

/// Whether the ledger holds the facts up to the ends that a State knows.
pub(crate) fn check_facts(state: &State, ledger: &Ledger) -> Result<(), StateMachineError> {
    let heads = ledger.heads();
    for (stream, expected) in &state.streams {
        let found = heads.get(stream).map_or(0, |head| head.sequence);
        let forks = heads.get(stream).is_some_and(|head| {
            head.sequence == expected.sequence && head.digest != expected.digest
        });
        if found < expected.sequence || forks {
            return Err(StateMachineError::FactsMissing {
                stream: stream.to_string(),
                found,
                expected: expected.sequence,
            });
        }
    }
    Ok(())
}

/// Stops before an entry that this program would take otherwise than the newer ones, and so part from them.
fn check_rules(envelope: &Envelope) -> Result<(), StateMachineError> {
    match envelope.command {
        Command::RaiseRules { to } if to > RULES_VERSION => {
            Err(StateMachineError::NewerRules { to })
        }
        _ => Ok(()),
    }
}

/// Tells the ledger what of each chain may go.
fn drop_facts(state: &State, ledger: &Ledger) {
    for (stream, retained) in &state.retained {
        ledger.drop_through(stream, retained.dropped.sequence);
    }
}

fn moment_of(state: &Arc<State>, last: Option<LogId>) -> Moment {
    Moment {
        index: last.map_or(0, |last| last.index),
        term: last.map_or(0, |last| last.leader_id.term),
        state: Arc::clone(state),
    }
}

fn snapshot(meta: Meta, file: SnapshotFile) -> Snapshot<TypeConfig> {
    Snapshot {
        meta,
        snapshot: Box::new(SnapshotData { file: Some(file) }),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateMachineError> + Send + 'static,
) -> Result<T, StateMachineError> {
    // In a simulated world a second thread would be a second source of chance.
    #[cfg(feature = "simulation")]
    if super::runtime::is_seeded() {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(StateMachineError::Interrupted))
}
