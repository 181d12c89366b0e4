//! The API over real HTTP, on a real State: what its callers rely on.

mod access;
mod bodies;
mod changes;
mod reads;
mod world;
