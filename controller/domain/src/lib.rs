//! The pure core of the controller: one [`Envelope`] at a time turns one [`State`] into the next.
//!
//! ```text
//!   Envelope{at, actor, evidence, command} --State::apply--> Applied{reply, facts, changed}
//!   (State, now) --plan--> commands that carry on what takes more than one step
//!   (State, wave, now) --signer::check--> may this controller sign it? (and for the clock: clock::check)
//! ```
//! It refuses clocks, randomness, files, sockets and unordered maps: the same log gives the same bytes on every
//! node (law 6). A business "no" is a [`reply::Rejection`]; apply itself never fails.

pub mod access;
pub mod apply;
pub mod audit;
pub mod backups;
pub mod calendar;
pub mod changed;
pub mod checked;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod desired;
pub mod envelope;
pub mod fleet;
pub mod plan;
pub mod recovery;
pub mod region;
pub mod release;
pub mod reply;
pub mod report;
pub mod reported;
pub mod retention;
pub mod rules;
pub mod signer;
pub mod state;
pub mod tenancy;
pub mod tier;
pub mod trust;

pub use apply::Applied;
pub use changed::Changed;
pub use command::Command;
pub use envelope::Envelope;
pub use reply::{Accepted, Rejection, Reply};
pub use state::State;
