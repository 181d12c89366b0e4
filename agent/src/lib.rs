//! The agent: makes signed orders true on its host, keeps them true while cut off, and proves what it did.
//!
//! ```text
//!            controllers                                instances
//!                ^ |  QUIC                                 ^ |  loopback HTTP
//!                | v                                       | v
//!   link (enrol, session, renew)                        instance_api
//!     |  verify: trust, signed_clock                       ^
//!     v                                                    | licence, configuration
//!   journal (accept, fsync) ----- Desired (watch) ---------+
//!     |                              |
//!     v                              v
//!   chain (signed records) <---- reconcile -> driver -> shim -> processes;  probe
//!     ^                                                                       |
//!     +---------- reports (batches, once each) <----------- instance_api -----+ minutes
//! ```
//! Everything that is sent was on disk before, and everything that is done was journalled before.
//! It never removes what it merely does not know: only a signed tombstone does.

pub mod app;
pub mod chain;
pub mod config;
pub mod driver;
#[cfg(test)]
mod fixture;
pub mod instance_api;
pub mod intake;
pub mod journal;
pub mod license_time;
pub mod limits;
pub mod link;
pub mod logs;
pub mod metrics;
pub mod platform;
pub mod probe;
pub mod reconcile;
pub mod reports;
pub mod shim;
pub mod signed_clock;
pub mod stations;
pub mod status;
pub mod traces;
pub mod trust;
pub mod unit;
