//! What controllers say to each other, one question and one answer a stream, versioned.
//!
//! A snapshot alone takes more frames: after its question come [`SnapshotPart`]s. Every frame names the life of its
//! sender's disk. It refuses nothing itself: limits are in the formats, decisions in `server`.

use dotmac_domain::{
    Envelope, Reply,
    audit::{Fact, Stream},
};
use dotmac_protocol::{codec::Format, record::ChainHead};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use serde::{Deserialize, Serialize};

use super::{
    lives::Life,
    types::{Meta, RaftVote, TypeConfig},
};
use crate::{
    peers::{PeerAnswer, PeerCall},
    storage::snapshots::FileMark,
};

/// A question with what goes with every question.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    /// The life of the asker's disk.
    pub life: Life,
    /// Milliseconds for which the asker waits.
    pub budget_ms: u32,
    /// The question.
    pub request: PeerRequest,
}

impl Format for Asked {
    const KIND: &'static str = "peer request";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 4 * 1024 * 1024;
}

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub enum PeerRequest {
    /// Raft asks for a vote.
    Vote(VoteRequest<u64>),
    /// Raft's entries, or none as a heartbeat.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A snapshot is about to come.
    Snapshot {
        /// The leader's vote.
        vote: RaftVote,
        /// What it covers.
        meta: Box<Meta>,
    },
    /// Proposals for the leader, in order.
    Propose {
        /// At most 512.
        envelopes: Vec<Envelope>,
    },
    /// Up to where must a reader have applied to see everything committed by now?
    ReadIndex,
    /// The product's own questions.
    Call(PeerCall),
    /// A snapshot is about to come, from where it was broken off if that is possible. Programs of version 1 do not know the
    /// question, and give no answer.
    ResumeSnapshot {
        /// The leader's vote.
        vote: RaftVote,
        /// What it covers.
        meta: Box<Meta>,
        /// Which file it is.
        file: FileMark,
    },
}

/// An answer with what goes with every answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answered {
    /// The life of the answerer's disk.
    pub life: Life,
    /// The answer.
    pub reply: PeerReply,
}

impl Format for Answered {
    const KIND: &'static str = "peer reply";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 16 * 1024 * 1024;
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum PeerReply {
    /// To a vote.
    Vote(VoteResponse<u64>),
    /// To entries.
    Append(AppendEntriesResponse<u64>),
    /// Send the snapshot, and the facts behind these ends.
    SnapshotWanted {
        /// The ends of the streams that are here.
        heads: Vec<(Stream, u64)>,
    },
    /// The snapshot was installed, or is not wanted: the vote tells.
    SnapshotDone {
        /// The receiver's vote.
        vote: RaftVote,
    },
    /// To proposals, each for itself.
    Proposed(Vec<Result<Reply, Refusal>>),
    /// The index to have applied.
    ReadIndex(u64),
    /// To a call.
    Answer(Box<PeerAnswer>),
    /// Not answered.
    Refused(Refusal),
    /// To a snapshot that can be resumed: send the facts behind these ends, and the file from there.
    SnapshotWantedFrom {
        /// The ends of the streams that are here.
        heads: Vec<(Stream, u64)>,
        /// Bytes of the file that are here.
        offset: u64,
    },
}

/// Why a peer did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It does not lead; nothing was proposed.
    NotLeader,
    /// Too much waits there; nothing was proposed.
    Overloaded,
    /// Its disk is at its reserve; nothing was written.
    Reserve(String),
    /// The outcome is unknown: time ran out there.
    TimedOut,
    /// Something else, for people.
    Other(String),
    /// The asker is known with other storage than it has; nothing it says counts.
    Reborn,
}

/// With this a connection of another controller is closed that names none of the cluster's.
pub const CLOSE_UNKNOWN: u32 = 2;

/// A further frame of a snapshot's stream.
#[derive(Debug, Serialize, Deserialize)]
pub enum SnapshotPart {
    /// Facts that the receiver lacks, in order.
    Facts(Vec<Fact>),
    /// A piece of the file.
    Piece {
        /// Where it belongs.
        offset: u64,
        /// At most 256 KiB.
        bytes: Vec<u8>,
    },
    /// That was all.
    End,
    /// Older links of this chain are kept nowhere any more: it begins behind this one.
    Begin(Stream, ChainHead),
}

impl Format for SnapshotPart {
    const KIND: &'static str = "snapshot part";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 8 * 1024 * 1024;
}
