//! The controller: decides, replicates, signs and delivers.
//!
//! ```text
//!   api  gateway            people's requests and agents' reports come in; signed intents go out
//!     |     ^
//!     v     |
//!   node -> dispatch        requests are proven; waves are checked, signed and countersigned
//!     |
//!     v
//!   log = raft on storage   one log for all controllers, applied to the domain's State; bytes that survive a power cut
//!     ^
//!     |
//!   leader                  runs the planners, and decides who is connected
//! ```

pub mod api;
pub mod app;
pub mod bootstrap;
pub mod cli;
pub mod config;
pub mod dispatch;
pub mod gateway;
pub mod identity;
pub mod leader;
mod local;
pub mod log;
pub mod node;
pub mod peers;
pub mod raft;
pub mod storage;
