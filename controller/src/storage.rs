//! What a controller keeps on its disk, safe across a power cut: the log, the ledger of facts and snapshot files.
//!
//! ```text
//!   directory   one process at a time, data of a version this program knows
//!   engine      ordered records; acknowledged only when they are on disk
//!    |- ledger  facts by (stream, sequence), each exactly once
//!   pace        how long its syncs take
//!   snapshots   whole states as files, the last two
//! ```
//! Nothing outside `engine` names the database engine. It refuses to decide what is stored: it keeps bytes.

pub mod directory;
pub mod engine;
#[cfg(test)]
pub(crate) mod fuse;
pub mod ledger;
pub mod pace;
pub mod snapshots;
