//! The pure core as a whole: one module for each law it has to keep, and the golden files of what it stores.

#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected has to stop"
)]

mod changed;
mod changes;
mod cluster;
mod fixture;
mod golden;
#[path = "../../../../protocol/tests/protocol/hexfile.rs"]
mod hexfile;
mod hostile;
mod law_10_waiting;
mod law_11_bounded;
mod law_11_platform;
mod law_2_absence;
mod law_2_restore;
mod law_3_batches;
mod law_3_clock;
mod law_3_histories;
mod law_3_signers;
mod law_3_tokens;
mod law_3_waves;
mod law_4_joining;
mod law_5_resync;
mod law_6_purity;
mod law_7_foreign;
mod law_7_platform;
mod law_8_once;
mod law_9_secrets;
mod licenses;
mod paid_for;
mod platform;
mod random;
mod releases;
mod reports;
mod retention;
mod rules;
