//! Logs: JSON lines into a file that is cut off at its size and kept a few times, or text to standard error for people.
//! It never blocks on anything but the local file, and takes no secrets: those have no text form.

mod lossy;
mod rotate;

use std::{io, path::PathBuf, sync::Mutex};

use lossy::Lossy;
pub use rotate::RotatingFile;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// The variable that says what is logged, such as `info,dotmac_controller=debug`.
pub const FILTER_VARIABLE: &str = "DOTMAC_LOG";
/// What is logged unless the variable says otherwise: what we say, and what libraries warn of.
pub const FILTER: &str = "warn,dotmac=info";

/// A log file and its bounds: at most `bytes_max * (keep + 1)` bytes on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Where the current file lies; older ones have `.1`, `.2` … appended.
    pub path: PathBuf,
    /// Size at which a new file is begun.
    pub bytes_max: u64,
    /// How many older files are kept.
    pub keep: u32,
}

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The file cannot be opened.
    #[error("log file {} cannot be opened", path.display())]
    Open {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The filter in [`FILTER_VARIABLE`] does not parse.
    #[error("{FILTER_VARIABLE} is not a log filter")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Somebody set up logging before.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging for the whole process; panics are logged too. `program` is named in the first line;
/// `filter` ([`FILTER`] and what the program adds to it) holds unless [`FILTER_VARIABLE`] says otherwise.
///
/// # Errors
/// When the file cannot be opened, the filter is wrong, or it was done before.
pub fn init(
    program: &'static str,
    filter: &str,
    file: Option<LogFile>,
) -> Result<(), LoggingError> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) => EnvFilter::try_new(text).map_err(LoggingError::Filter)?,
        Err(_) => EnvFilter::new(filter),
    };
    match file {
        Some(file) => install(to_file(file, filter)?)?,
        None => install(
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(|| Lossy::new(io::stderr()))
                .log_internal_errors(false)
                .finish(),
        )?,
    }
    log_panics();
    tracing::info!(program, pid = std::process::id(), "started");
    Ok(())
}

fn to_file(
    file: LogFile,
    filter: EnvFilter,
) -> Result<impl tracing::Subscriber + Send + Sync, LoggingError> {
    let writer = RotatingFile::open(&file.path, file.bytes_max, file.keep).map_err(|source| {
        let path = file.path;
        LoggingError::Open { path, source }
    })?;
    // Each event is one write, so that no line is split between two files.
    Ok(tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(Mutex::new(Lossy::new(writer)))
        .log_internal_errors(false)
        .finish())
}

fn install(
    subscriber: impl tracing::Subscriber + Send + Sync + 'static,
) -> Result<(), LoggingError> {
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::Twice)
}

fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let location = panic.location().map(ToString::to_string);
        let detail = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(location, detail, "panic");
        before(panic);
    }));
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::EnvFilter;

    use super::{LogFile, LoggingError, to_file};

    #[test]
    fn an_event_is_one_json_line_with_its_fields() {
        let directory = tempfile::tempdir().unwrap();
        let file = LogFile {
            path: directory.path().join("log"),
            bytes_max: 10_000,
            keep: 1,
        };
        let subscriber = to_file(file.clone(), EnvFilter::new("info")).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(node = 3, "became leader");
            tracing::debug!("not wanted");
        });
        let text = std::fs::read_to_string(file.path).unwrap();
        let [line] = text.lines().collect::<Vec<_>>()[..] else {
            panic!("{text}");
        };
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&event["message"], &event["node"]),
            (&"became leader".into(), &3.into())
        );
    }

    #[test]
    fn a_log_file_that_cannot_be_opened_is_named() {
        let file = LogFile {
            path: "/proc/none/log".into(),
            bytes_max: 1,
            keep: 0,
        };
        let refused = to_file(file.clone(), EnvFilter::new("info")).err();
        assert!(matches!(refused, Some(LoggingError::Open { path, .. }) if path == file.path));
    }
}
