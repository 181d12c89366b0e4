//! Sends a snapshot: first the facts that the receiver lacks, then the file in pieces, from where the receiver has it. It
//! never holds more than a piece.

use std::time::Duration;

use dotmac_protocol::record::ChainHead;
use dotmac_runtime::quic::{self, FrameError};
use openraft::Snapshot;
use quinn::{RecvStream, SendStream};
use thiserror::Error;

use crate::{
    raft::{
        links::{AskError, Links},
        rpc::{PeerReply, PeerRequest, SnapshotPart},
        types::{RaftVote, TypeConfig},
    },
    storage::{
        ledger::{Ledger, LedgerError},
        snapshots::{SnapshotError, SnapshotFile},
    },
};

/// How long one step may take without progress.
const STEP: Duration = Duration::from_secs(10);
/// Facts in one frame at most.
const FACTS_MAX: usize = 64;

/// Why a snapshot was not sent.
#[derive(Debug, Error)]
pub(super) enum TransferError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("a part of the snapshot could not be sent")]
    Frame(#[from] FrameError),
    #[error("the receiver refuses: {0}")]
    Refused(String),
    #[error("the snapshot has no file")]
    NoFile,
    #[error("no progress within {0:?}")]
    Stuck(Duration),
}

/// Sends a snapshot and gives the receiver's vote after it was installed, or was not wanted.
pub(super) async fn send(
    links: &Links,
    ledger: &Ledger,
    target: u64,
    vote: RaftVote,
    snapshot: Snapshot<TypeConfig>,
) -> Result<RaftVote, TransferError> {
    let file = snapshot.snapshot.file.ok_or(TransferError::NoFile)?;
    let meta = Box::new(snapshot.meta);
    let resuming = PeerRequest::ResumeSnapshot {
        vote,
        meta: meta.clone(),
        file: file.mark()?,
    };
    let (mut out, mut back, reply) = match ask(links, target, resuming).await {
        // A program of version 1 breaks off at a question that it does not know.
        Err(TransferError::Ask(AskError::NoAnswer { .. } | AskError::Lost { .. })) => {
            ask(links, target, PeerRequest::Snapshot { vote, meta }).await?
        }
        asked => asked?,
    };
    let (heads, offset) = match reply {
        PeerReply::SnapshotWanted { heads } => (heads, 0),
        PeerReply::SnapshotWantedFrom { heads, offset } => (heads, offset),
        PeerReply::SnapshotDone { vote } => return Ok(vote),
        other => return Err(TransferError::Refused(format!("{other:?}"))),
    };
    send_facts(&mut out, ledger, heads.into_iter().collect()).await?;
    send_file(&mut out, &file, offset).await?;
    step(quic::write_frame(&mut out, &SnapshotPart::End)).await??;
    // Finished or not: the answer tells.
    let _ = out.finish();
    match step(links.answer(target, &mut back)).await?? {
        PeerReply::SnapshotDone { vote } => Ok(vote),
        other => Err(TransferError::Refused(format!("{other:?}"))),
    }
}

/// Opens a stream with a question, and gives the first answer.
async fn ask(
    links: &Links,
    target: u64,
    request: PeerRequest,
) -> Result<(SendStream, RecvStream, PeerReply), TransferError> {
    let (mut out, mut back) = links.open(target).await?;
    let question = links.asked(request, STEP);
    step(quic::write_frame(&mut out, &question)).await??;
    let reply = step(links.answer(target, &mut back)).await??;
    Ok((out, back, reply))
}

/// Where links were dropped, the receiver is told where the rest begins. A program of version 1 would not know that part; it
/// never gets it, because nothing is dropped under its rules, and it follows no others.
async fn send_facts(
    out: &mut SendStream,
    ledger: &Ledger,
    heads: std::collections::BTreeMap<dotmac_domain::audit::Stream, u64>,
) -> Result<(), TransferError> {
    for (stream, head) in ledger.heads() {
        let mut after = heads.get(&stream).copied().unwrap_or(0);
        while after < head.sequence {
            let facts = ledger.read(&stream, after, FACTS_MAX)?;
            let (Some(first), Some(last)) = (facts.first(), facts.last()) else {
                // All of it was dropped.
                step(quic::write_frame(
                    out,
                    &SnapshotPart::Begin(stream.clone(), head),
                ))
                .await??;
                break;
            };
            if first.sequence > after + 1 {
                let before = ChainHead {
                    sequence: first.sequence - 1,
                    digest: first.link.previous().map_err(LedgerError::from)?,
                };
                let begin = SnapshotPart::Begin(stream.clone(), before);
                step(quic::write_frame(out, &begin)).await??;
            }
            after = last.sequence;
            step(quic::write_frame(out, &SnapshotPart::Facts(facts))).await??;
        }
    }
    Ok(())
}

async fn send_file(
    out: &mut SendStream,
    file: &SnapshotFile,
    mut offset: u64,
) -> Result<(), TransferError> {
    let pieces = file.pieces()?;
    loop {
        let bytes = pieces.read(offset)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let next = offset + bytes.len() as u64;
        step(quic::write_frame(
            out,
            &SnapshotPart::Piece { offset, bytes },
        ))
        .await??;
        offset = next;
    }
}

async fn step<T>(work: impl Future<Output = T>) -> Result<T, TransferError> {
    let done = tokio::time::timeout(STEP, work).await;
    done.map_err(|_| TransferError::Stuck(STEP))
}
