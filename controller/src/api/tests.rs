//! The API over real HTTP, on a real State: what its callers rely on.

mod access;
mod attacks;
mod attesting;
mod backups;
mod bodies;
mod changes;
mod cluster;
mod contract;
mod events;
mod instance_env;
mod licenses;
mod metrics;
mod origins;
mod platform;
mod reads;
mod reported;
mod restores;
mod rights;
mod tokens;
mod updates;
mod world;
