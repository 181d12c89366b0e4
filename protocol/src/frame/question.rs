//! Live questions of controllers to agents, and the answers, sealed to whoever asked. They change nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    codec::Format,
    ids::{PartName, UnitId},
    unit::Sealed,
};

/// A live question to an agent. Answers are sealed to the asker's key; that it was asked is audited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// The last lines of a unit's output.
    Logs {
        /// Which unit.
        unit: UnitId,
        /// Which component; all when absent.
        component: Option<PartName>,
        /// How many lines of the past, at most 10,000.
        lines: u32,
        /// Whether to go on with new lines until the stream is closed.
        follow: bool,
        /// X25519 public key to seal the answer to.
        seal_to: [u8; 32],
    },
    /// The environment that a unit's copies are started with, secrets included: [`CopyEnvironment`]s as JSON, one a line.
    Environment {
        /// Which unit.
        unit: UnitId,
        /// Which component; all when absent.
        component: Option<PartName>,
        /// X25519 public key to seal the answer to.
        seal_to: [u8; 32],
    },
}

impl Question {
    /// X25519 public key to seal the answer to.
    #[must_use]
    pub fn seal_to(&self) -> &[u8; 32] {
        match self {
            Self::Logs { seal_to, .. } | Self::Environment { seal_to, .. } => seal_to,
        }
    }
}

/// What one copy of a component is started with. It holds secrets and has no `Debug`.
#[derive(Serialize, Deserialize)]
#[allow(
    missing_debug_implementations,
    reason = "it holds secrets, which must not be printable"
)]
pub struct CopyEnvironment {
    /// The component.
    pub component: PartName,
    /// Which copy, from 0.
    pub replica: u16,
    /// Whether a process of exactly this runs; otherwise it is what the next one is started with.
    pub running: bool,
    /// How many copies follow in the same answer.
    pub remaining: u32,
    /// The variables by name.
    pub variables: BTreeMap<String, String>,
}

impl Format for Question {
    const KIND: &'static str = "question";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 4 * 1024;
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A sealed piece of text, at most 64 KiB in clear.
    Piece(Sealed),
    /// The agent cannot answer.
    Refused {
        /// Why.
        reason: String,
    },
}

impl Format for Answer {
    const KIND: &'static str = "answer";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 128 * 1024;
}
