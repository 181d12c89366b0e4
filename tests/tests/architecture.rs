//! What holds of the source as a whole: who may depend on whom, what may be named where, how files look, that the
//! example configurations name every key, that dashboards ask for metrics that there are, that those are documented, and
//! which fields logs have. It reads the checkout and what cargo says of it, and runs no program of ours.

#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected has to stop"
)]

#[path = "architecture/configuration.rs"]
mod configuration;
#[path = "architecture/dashboards.rs"]
mod dashboards;
#[path = "architecture/dependencies.rs"]
mod dependencies;
#[path = "architecture/logs.rs"]
mod logs;
#[path = "architecture/metrics.rs"]
mod metrics;
#[path = "architecture/source.rs"]
mod source;

use std::path::PathBuf;

/// The root of the checkout.
fn checkout() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("tests is a folder of the checkout")
        .to_owned()
}
