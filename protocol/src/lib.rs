//! What both ends trust: names, orders, signatures, reports and frames, with one encoded form each.
//!
//! ```text
//!   ids  time  digest  keys  codec          words and bytes
//!        |                                   
//!   license                                  what an instance may do at a moment
//!   release -> unit -> wave -> acceptance    what to run, as a signed order, and whether to take it
//!   trust                                    whose signatures count
//!   clock                                    what time it is and what every agent has to keep, signed every minute
//!   trace                                    which trace a request and its orders belong to
//!   record -> line                           what an agent did: a signed hash chain, on the wire and on disk
//!   frame                                    how all of it travels
//! ```
//! It refuses tokio, files, clocks and randomness: everything here is a function of its arguments.

pub mod acceptance;
pub mod clock;
pub mod codec;
pub mod digest;
pub mod frame;
pub mod ids;
pub mod keys;
pub mod license;
pub mod line;
pub mod record;
pub mod release;
pub mod secrecy;
pub mod time;
pub mod trace;
pub mod trust;
pub mod unit;
pub mod wave;
