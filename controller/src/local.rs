//! The fleet of `make up`: real processes on one machine, each with a directory of its own, kept alive by a supervisor.
//!
//! ```text
//!   layout  ports  member     where everything lies and listens
//!   preflight -> create       what must hold before anything starts; the first start's keys and genesis
//!   supervise  session  pids  keeps them alive, adopts what survived, never signals a stranger
//!   settle                    tokens, agents and the demo release: through the API, like anybody
//!   roll                      after a pull: what runs a replaced program is restarted, one at a time
//!   retired                   controllers that left the cluster for ever are left out
//!   up  status  down          what people type
//! ```
//! It has no way into a controller but its API, and touches nothing outside DOTMAC_HOME.

mod alive;
mod create;
pub(crate) mod down;
pub(crate) mod hold;
pub(crate) mod layout;
pub(crate) mod member;
mod pids;
mod ports;
mod preflight;
pub(crate) mod release;
mod retired;
mod roll;
pub(crate) mod session;
mod settle;
pub(crate) mod slots;
pub(crate) mod status;
mod supervise;
pub(crate) mod up;

use std::path::PathBuf;

use self::layout::Layout;

/// Where the supervisor writes what it does.
pub(crate) fn log_of_supervisor(layout: &Layout) -> PathBuf {
    layout.process("supervisor").join("supervisor.log")
}

/// A region that every local fleet has.
pub(crate) fn first_region() -> &'static str {
    ports::REGIONS[0]
}
