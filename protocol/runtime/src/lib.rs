//! The edge that controllers and agents share: clocks, randomness, files, processes, keys, TLS and QUIC.
//!
//! ```text
//!   clock  entropy                     the only sources of time and randomness, passed as arguments
//!   listen                             addresses out of configuration files
//!   rate                               how much of something may be had, and when more
//!   disk   keyfile  logging            files: atomic, private, bounded
//!   metrics                            what the process counts, as OpenMetrics
//!   process  supervise                 who runs: identities that survive pid reuse, named tasks
//!   telemetry                          spans, exported without anybody waiting for it
//!   seal                               one message to one key (HPKE)
//!   pki -> tls -> quic                 who may speak: issuers, pinned chains, limited connections and frames
//! ```
//! It refuses to decide anything about tenants, waves or units: what the bytes mean is `dotmac_protocol`'s business.

pub mod causes;
pub mod clock;
pub mod disk;
pub mod entropy;
pub mod keyfile;
pub mod listen;
pub mod logging;
#[cfg(test)]
mod loopback;
pub mod metrics;
pub mod pki;
pub mod process;
pub mod quic;
pub mod rate;
pub mod seal;
pub mod sealed_stream;
pub mod supervise;
pub mod telemetry;
pub mod tls;
