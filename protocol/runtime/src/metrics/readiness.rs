//! Whether a process is ready, under the same names in every program of ours: what `/health/ready` answers, as figures.

use super::{Kind, Metric, Samples, Value};

static READY: Metric = Metric::new(
    "dotmac_ready",
    Kind::Gauge,
    &[],
    "1 while it is ready, as /health/ready has it, otherwise 0.",
);
static READY_CHECK: Metric = Metric::new(
    "dotmac_ready_check",
    Kind::Gauge,
    &["check"],
    "1 while this check of /health/ready holds, otherwise 0.",
);

/// What is told of readiness.
pub static READINESS: [&Metric; 2] = [&READY, &READY_CHECK];

impl Samples<'_> {
    /// The figures of [`READINESS`]: it is ready when every check holds.
    pub fn put_readiness(&mut self, checks: impl IntoIterator<Item = (&'static str, bool)>) {
        let checks: Vec<(&'static str, bool)> = checks.into_iter().collect();
        self.put(&READY, checks.iter().all(|(_, is_ok)| *is_ok));
        let checks = checks
            .into_iter()
            .map(|(name, is_ok)| ([name.into()], Value::from(is_ok)));
        self.put_all(&READY_CHECK, checks);
    }
}
