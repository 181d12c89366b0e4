//! The harness of the whole-system tests: real fleets of real processes, each in a home of its own, and the means to
//! look at them and to break them from outside.
//!
//! ```text
//!   runner     groups of stories, a fleet each, two groups at a time; the output of a test program
//!     |
//!   fleet      a home, its ports, up and down, its processes by name, holds, tails of logs
//!     |
//!   api  cli  watch   how people reach it             processes  search    what is really there
//!   wait       conditions with deadlines          deployment           answers, read
//! ```
//! It refuses to reach into a fleet: what it knows comes from the API, the CLI, the files and `/proc`.

pub mod api;
pub mod cli;
pub mod deployment;
pub mod fleet;
pub mod ports;
pub mod processes;
pub mod programs;
pub mod runner;
pub mod search;
pub mod wait;
pub mod watch;
