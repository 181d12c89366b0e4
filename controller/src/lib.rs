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
//!     ^  `-> feed             what changed, written once for all who watch through the api
//!     |
//!   leader                  runs the planners, and decides who is connected
//! ```

pub mod access_token;
pub mod api;
pub mod app;
pub mod backup;
pub mod bootstrap;
pub mod cli;
pub mod config;
pub mod dispatch;
mod error_pages;
pub mod feed;
pub mod gateway;
pub mod identity;
pub mod leader;
mod local;
pub mod log;
pub mod membership;
pub mod metrics;
pub mod node;
pub mod peers;
pub mod raft;
mod readiness;
pub mod storage;
pub mod traces;
pub mod trust_root;
