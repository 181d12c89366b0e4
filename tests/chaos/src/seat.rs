//! One controller's place: its folder, its addresses, and the process that runs there, started directly and not by a
//! supervisor, so that its end is seen and nobody starts it behind the harness' back.

use std::{
    fs::{self, OpenOptions},
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use dotmac_runtime::process::{ProcessIdentity, Signal};
use tokio::process::{Child, Command};

/// How long a process may take to end after it was told or killed.
const END_WITHIN: Duration = Duration::from_secs(20);
/// Characters of a log told after a failure.
const TAIL_CHARS: usize = 1_500;

/// Where a controller listens.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// HTTP.
    pub(crate) api: SocketAddr,
    /// QUIC.
    pub(crate) link: SocketAddr,
    /// The network namespace it lives in, if not the harness' own.
    pub(crate) namespace: Option<String>,
}

/// One controller's place.
#[derive(Debug)]
pub(crate) struct Seat {
    /// 1, 2 or 3.
    pub(crate) number: usize,
    /// Its folder; configuration and logs lie there.
    pub(crate) directory: PathBuf,
    /// Where it listens.
    pub(crate) place: Place,
    /// Variables of the next process.
    pub(crate) environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Seat {
    /// An empty one.
    pub(crate) fn new(number: usize, directory: PathBuf, place: Place) -> Self {
        Self {
            number,
            directory,
            place,
            environment: Vec::new(),
            child: None,
        }
    }

    /// The folder that a disk of its own may be mounted on; all that it must not lose lies there.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// Its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.disk().join("data")
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join("controller.toml")
    }

    /// Its log, which is not on its disk: it is ours to judge by.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("controller.log")
    }

    /// What it wrote to standard error.
    pub(crate) fn crash_log(&self) -> PathBuf {
        self.directory.join("crash.log")
    }

    /// Starts the process.
    ///
    /// # Errors
    /// When one runs already, or it cannot be started.
    pub(crate) fn start(&mut self, program: &Path) -> Result<()> {
        if self.is_running()? {
            bail!("controller {} runs already", self.number);
        }
        let crash_log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.crash_log())?;
        let mut command = match &self.place.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .args(["run", "--config"])
            .arg(self.config())
            .envs(self.environment.iter().cloned())
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(crash_log)
            .kill_on_drop(true);
        let child = command.spawn().context("a controller does not start")?;
        self.child = Some(child);
        Ok(())
    }

    /// Whether its process has not ended.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.is_some() && self.ended()?.is_none())
    }

    /// How its process ended, if it did.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().context("no process was started")?;
        Ok(child.try_wait()?)
    }

    /// The id of its process.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn pid(&self) -> Result<u32> {
        let pid = self.child.as_ref().and_then(Child::id);
        pid.with_context(|| format!("controller {} does not run", self.number))
    }

    /// Sends a signal to its process.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let process = ProcessIdentity::of(self.pid()?);
        let process = process.with_context(|| format!("controller {} is gone", self.number))?;
        Ok(process.send_signal(signal)?)
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Errors
    /// When it has ended before, or does not end.
    pub(crate) async fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.gone(END_WITHIN).await
    }

    /// Waits until its process has ended by itself.
    ///
    /// # Errors
    /// When it does not in time.
    pub(crate) async fn gone(&mut self, within: Duration) -> Result<ExitStatus> {
        let number = self.number;
        let child = self.child.as_mut().context("no process was started")?;
        let ended = tokio::time::timeout(within, child.wait()).await;
        let status = ended.with_context(|| format!("controller {number} does not end"))??;
        self.child = None;
        Ok(status)
    }

    /// The ends of its logs.
    pub(crate) fn tail(&self) -> String {
        let tail = |path: PathBuf| {
            let text = fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let start = text.chars().count().saturating_sub(TAIL_CHARS);
            text.chars().skip(start).collect::<String>()
        };
        let (log, crash) = (tail(self.log()), tail(self.crash_log()));
        format!("controller {}: {log}\n{crash}", self.number)
    }
}

/// An end in words.
pub(crate) fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}
