//! How the program misbehaves when it is told to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::output::{pour, say};

/// Bytes of output that one order may ask for.
const WRITE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// As it should.
    #[default]
    Healthy,
    /// Every answer is late.
    Slow,
    /// It answers, and says that it is not ready.
    Sick,
    /// It accepts requests and answers none.
    Hang,
    /// It ends with an exit code, once.
    Crash,
    /// It ends at every start; for the environment.
    CrashLoop,
}

/// An order at `/control`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Control {
    /// How to behave from now on.
    pub(crate) mode: Mode,
    /// With which code to crash.
    #[serde(default)]
    pub(crate) exit_code: Option<u8>,
    /// How much to write before.
    #[serde(default)]
    pub(crate) write_bytes: usize,
    /// How late to be when slow.
    #[serde(default = "default_delay_ms")]
    pub(crate) delay_ms: u64,
}

fn default_delay_ms() -> u64 {
    2_000
}

/// How to crash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crash {
    pub(crate) exit_code: u8,
    pub(crate) write_bytes: usize,
}

impl Crash {
    /// Writes what it has to and ends the program, as a crash does: without cleaning up.
    pub(crate) fn happen(self) -> ! {
        self.write();
        say(&format!(
            "demo-isp: crashing with exit code {}",
            self.exit_code
        ));
        std::process::exit(i32::from(self.exit_code))
    }

    pub(crate) fn write(self) {
        pour(self.write_bytes.min(WRITE_BYTES_MAX));
    }
}

/// Makes an answer late, or never.
pub(crate) async fn misbehave(mode: Mode, delay_ms: u64) {
    match mode {
        Mode::Slow => tokio::time::sleep(Duration::from_millis(delay_ms)).await,
        Mode::Hang => std::future::pending().await,
        Mode::Healthy | Mode::Sick | Mode::Crash | Mode::CrashLoop => (),
    }
}
