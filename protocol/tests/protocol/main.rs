//! What both ends trust, as a whole: golden files, hostile bytes, proofs and the rules of acceptance.

#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected has to stop"
)]

mod acceptance;
mod clocks;
mod decoders;
mod golden;
mod hexfile;
mod intents;
mod merkle;
mod samples;
