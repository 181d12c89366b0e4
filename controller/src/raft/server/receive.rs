//! Receives a snapshot: facts into the ledger, pieces into a file, and when all is there and sound, Raft installs it. What came
//! of a file before the stream broke is kept, for the next try with the same file; one file at a time.

use std::time::Duration;

use dotmac_runtime::{causes, quic};
use openraft::Snapshot;
use quinn::{RecvStream, SendStream};
use thiserror::Error;

use super::Shared;
use crate::{
    raft::{
        rpc::{PeerReply, Refusal, SnapshotPart},
        state_machine::{StateMachineError, check_facts, read_meta, read_state},
        types::{Meta, RaftVote, SnapshotData},
    },
    storage::{
        directory::DirectoryError,
        ledger::LedgerError,
        snapshots::{FileMark, Incoming, SnapshotError, SnapshotFile},
    },
};

/// How long the next part may take.
const STEP: Duration = Duration::from_secs(10);

/// Why a snapshot was not received.
#[derive(Debug, Error)]
enum ReceiveError {
    #[error(transparent)]
    Frame(#[from] quic::FrameError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    State(#[from] StateMachineError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("the snapshot ended early")]
    Ended,
    #[error("no part came within {0:?}")]
    Slow(Duration),
    #[error("the file covers something else than was announced")]
    OtherMeta,
    #[error("the work was interrupted")]
    Interrupted,
    #[error("{0}")]
    Raft(String),
}

/// A snapshot that a leader wants to send.
pub(super) struct Offer {
    vote: RaftVote,
    meta: Meta,
    /// Which file it is, if the sender can go on in the middle of it.
    file: Option<FileMark>,
}

impl Offer {
    pub(super) fn new(vote: RaftVote, meta: Meta, file: Option<FileMark>) -> Self {
        Self { vote, meta, file }
    }
}

/// A file of which only the beginning is here.
pub(in crate::raft) struct Partial {
    file: FileMark,
    incoming: Incoming,
}

impl Shared {
    /// Takes a snapshot from the stream and answers with the vote afterwards.
    pub(super) async fn receive(
        &self,
        offer: Offer,
        send: &mut SendStream,
        receive: &mut RecvStream,
    ) -> PeerReply {
        let Ok(mut partial) = self.receiving.try_lock() else {
            return PeerReply::Refused(Refusal::Overloaded);
        };
        if let Err(error) = self.engine.check_reserve() {
            return PeerReply::Refused(Refusal::Reserve(error.to_string()));
        }
        match self.receive_parts(offer, &mut partial, send, receive).await {
            Ok(vote) => PeerReply::SnapshotDone { vote },
            Err(error) => {
                tracing::warn!(error = causes::in_full(&error), "snapshot not received");
                PeerReply::Refused(Refusal::Other(causes::in_full(&error)))
            }
        }
    }

    async fn receive_parts(
        &self,
        offer: Offer,
        partial: &mut Option<Partial>,
        send: &mut SendStream,
        receive: &mut RecvStream,
    ) -> Result<RaftVote, ReceiveError> {
        let Offer { vote, meta, file } = offer;
        let own = self.raft.with_raft_state(|state| *state.vote_ref()).await;
        let own = own.map_err(|error| ReceiveError::Raft(causes::in_full(&error)))?;
        if vote < own {
            return Ok(own);
        }
        let heads = self.ledger.heads().into_iter();
        let heads = heads
            .map(|(stream, head)| (stream, head.sequence))
            .collect();
        let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        let mut incoming = match partial.take() {
            Some(kept) if Some(kept.file) == file => kept.incoming,
            _ => self.snapshots.receive(index)?,
        };
        let wanted = match file {
            Some(_) => PeerReply::SnapshotWantedFrom {
                heads,
                offset: incoming.received(),
            },
            None => PeerReply::SnapshotWanted { heads },
        };
        self.send(send, wanted).await?;
        if let Err(error) = self.take_parts(&mut incoming, receive).await {
            *partial = file.map(|file| Partial { file, incoming });
            return Err(error);
        }
        self.ledger.settle().await?;
        let file = self.check(incoming, &meta).await?;
        let data = SnapshotData { file: Some(file) };
        let snapshot = Snapshot {
            meta,
            snapshot: Box::new(data),
        };
        let installed = self.raft.install_full_snapshot(vote, snapshot).await;
        let response = installed.map_err(|error| ReceiveError::Raft(causes::in_full(&error)))?;
        tracing::info!(index, "snapshot installed");
        Ok(response.vote)
    }

    async fn take_parts(
        &self,
        incoming: &mut Incoming,
        receive: &mut RecvStream,
    ) -> Result<(), ReceiveError> {
        loop {
            let part = tokio::time::timeout(STEP, quic::read_frame(receive)).await;
            self.elections.heard();
            let part = part.map_err(|_| ReceiveError::Slow(STEP))??;
            match part.ok_or(ReceiveError::Ended)? {
                // Facts are made from committed entries only: they stay, whatever becomes of the snapshot.
                SnapshotPart::Facts(facts) => {
                    self.ledger.check_follows(&facts)?;
                    self.ledger.append(0, &facts).await?;
                }
                SnapshotPart::Begin(stream, head) => {
                    self.ledger.begin_behind(&stream, head).await?;
                }
                SnapshotPart::Piece { offset, bytes } => incoming.write(offset, &bytes)?,
                SnapshotPart::End => return Ok(()),
            }
        }
    }

    /// Whether the file is whole, says what was announced, and has all its facts here.
    async fn check(&self, incoming: Incoming, meta: &Meta) -> Result<SnapshotFile, ReceiveError> {
        let (ledger, meta, engine) = (self.ledger.clone(), meta.clone(), self.engine.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let file = incoming.finish()?;
            if read_meta(&file)? != meta {
                return Err(ReceiveError::OtherMeta);
            }
            let state = read_state(&file)?;
            check_facts(&state, &ledger)?;
            engine.raise_version(state.rules)?;
            Ok(file)
        });
        checked.await.unwrap_or(Err(ReceiveError::Interrupted))
    }
}
