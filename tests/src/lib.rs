//! The harness of the whole-system tests: real fleets of real processes, each in a home of its own, and the means to
//! look at them and to break them from outside.
//!
//! ```text
//!   runner     groups of stories, a fleet each, two groups at a time; the output of a test program
//!     |
//!   fleet      a home, its ports, up and down, its processes by name, holds, tails of logs
//!     |
//!   api  cli  watch  clients   how people reach it             processes  search    what is really there
//!   collector  what an OpenTelemetry collector got of it       prometheus  what a real one thinks of it
//!   openmetrics  promql  queries  log_schema   what programs tell of themselves, read strictly
//!   wait       conditions with deadlines          deployment           answers, read
//! ```
//! It refuses to reach into a fleet: what it knows comes from the API, the CLI, the files and `/proc`.

pub mod api;
pub mod cli;
pub mod clients;
pub mod collector;
pub mod deployment;
pub mod fleet;
pub mod foreign;
pub mod log_schema;
pub mod openmetrics;
pub mod ports;
pub mod processes;
pub mod programs;
pub mod prometheus;
pub mod promql;
pub mod queries;
pub mod runner;
pub mod s3;
pub mod search;
pub mod wait;
pub mod watch;
