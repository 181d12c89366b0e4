//! `controller.toml`: every key, its default and what it allows. `config/controller.toml` explains them to people.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use dotmac_protocol::ids::NodeId;
use dotmac_runtime::{logging::LogFile, telemetry::Endpoint};
use serde::Deserialize;
use thiserror::Error;

mod api;
mod backup;
mod retention;

pub use api::{Api, Limits};
pub use backup::Backup;
pub use retention::Retention;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This controller's number, 1 or above.
    pub node: NodeId,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// The file that `dotmac cluster create` made.
    pub genesis: PathBuf,
    /// The key that seals this controller's other keys on disk.
    pub seal_key_file: PathBuf,
    /// The HTTP API.
    pub api: Api,
    /// The QUIC endpoint for peers and agents.
    pub link: Link,
    /// The log of this process.
    #[serde(default)]
    pub log: Log,
    /// What callers of the HTTP API may take.
    #[serde(default)]
    pub limits: Limits,
    /// Limits of storage.
    #[serde(default)]
    pub storage: Storage,
    /// How long facts are kept.
    #[serde(default)]
    pub retention: Retention,
    /// Certificates for agents.
    #[serde(default)]
    pub certificates: Certificates,
    /// What is told about this controller's work.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Where backups go, and when.
    #[serde(default)]
    pub backup: Backup,
}

/// The QUIC endpoint for peers and agents.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Where it listens (UDP).
    #[serde(deserialize_with = "dotmac_runtime::listen::address")]
    pub listen: SocketAddr,
    /// `host:port` under which peers and agents reach it.
    pub advertise: String,
}

/// The log of this process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The file; standard error when absent.
    pub file: Option<PathBuf>,
    /// Bytes after which a new file begins.
    pub bytes_max: u64,
    /// Old files kept.
    pub keep: u32,
}

/// Limits of storage.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Free bytes below which no new writes are taken.
    pub reserve_bytes: u64,
}

/// Certificates for agents.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// Hours for which an agent's certificate counts; it is renewed at half of them.
    pub agent_hours: u32,
}

/// What is told about this controller's work.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// The OTLP collector that spans are sent to; none are made without one.
    pub otlp_endpoint: Option<Endpoint>,
    /// Of a thousand requests that change nothing, so many are traced.
    pub reads_sampled_per_thousand: u16,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            reads_sampled_per_thousand: 10,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            file: None,
            bytes_max: 16 * 1024 * 1024,
            keep: 3,
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            reserve_bytes: 256 * 1024 * 1024,
        }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self { agent_hours: 24 }
    }
}

/// Why a configuration does not count.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML of this form.
    #[error("configuration {path}: {detail}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What, and where.
        detail: String,
    },
    /// A key has a value that is not allowed.
    #[error("configuration {path}: {key} = {value:?} is not allowed: {allowed}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

/// What is wrong with a text, and in which line of it.
fn in_one_line(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => format!("line {}: {message}", before.lines().count().max(1)),
        None => message,
    }
}

impl Config {
    /// Reads and checks a file. Relative paths count from the file's own folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            detail: in_one_line(&text, &error),
        })?;
        config.check(path)?;
        let base = path.parent().unwrap_or(Path::new("."));
        for one in [
            &mut config.data_dir,
            &mut config.genesis,
            &mut config.seal_key_file,
        ] {
            *one = base.join(&one);
        }
        for one in [
            &mut config.log.file,
            &mut config.api.tls_certificate,
            &mut config.api.tls_key,
            &mut config.backup.access_key_id_file,
            &mut config.backup.secret_access_key_file,
        ] {
            *one = one.take().map(|file| base.join(file));
        }
        Ok(config)
    }

    /// Where callers reach the API: with `https://` in front if it speaks TLS.
    #[must_use]
    pub fn api_address(&self) -> String {
        let listen = || self.api.listen.to_string();
        let address = self.api.advertise.clone().unwrap_or_else(listen);
        match self.api.tls() {
            Some(_) => format!("https://{address}"),
            None => address,
        }
    }

    /// The log file of this process, if one is configured.
    #[must_use]
    pub fn log_file(&self) -> Option<LogFile> {
        let Log {
            file,
            bytes_max,
            keep,
        } = self.log.clone();
        file.map(|path| LogFile {
            path,
            bytes_max,
            keep,
        })
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let refuse = |key, value: String, allowed| {
            Err(ConfigError::Value {
                path: path.to_owned(),
                key,
                value,
                allowed,
            })
        };
        if self.node.0 == 0 {
            return refuse("node", self.node.to_string(), "1 or above");
        }
        if let Some((key, value, allowed)) = self.api.wrong() {
            return refuse(key, value, allowed);
        }
        if let Some((key, value, allowed)) = self.backup.wrong() {
            return refuse(key, value, allowed);
        }
        if self.certificates.agent_hours == 0 || self.certificates.agent_hours > 24 * 7 {
            let value = self.certificates.agent_hours.to_string();
            return refuse("certificates.agent_hours", value, "1 to 168");
        }
        if let Some((key, value, allowed)) = self.retention.wrong() {
            return refuse(key, value, allowed);
        }
        let reads = self.telemetry.reads_sampled_per_thousand;
        if reads > 1_000 {
            let key = "telemetry.reads_sampled_per_thousand";
            return refuse(key, reads.to_string(), "0 to 1000");
        }
        if self.log.bytes_max < 64 * 1024 {
            return refuse(
                "log.bytes_max",
                self.log.bytes_max.to_string(),
                "65536 or above",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Certificates, Config, Limits, Log, Storage, api::stop_notice_ms};

    const EXAMPLE: &str = include_str!("../../config/controller.toml");

    /// The example with every key that it shows in a comment switched on.
    fn switched_on() -> String {
        let is_key = |line: &str| line.starts_with("# ") && line.contains(" = ");
        let lines = EXAMPLE
            .lines()
            .map(|line| if is_key(line) { &line[2..] } else { line });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_is_valid_and_shows_the_real_defaults() {
        let short: Config = toml::from_str(EXAMPLE).unwrap();
        short.check(Path::new("controller.toml")).unwrap();
        let full: Config = toml::from_str(&switched_on()).unwrap();
        assert_eq!(format!("{short:?}"), format!("{full:?}"));
        let defaults = super::Telemetry::default();
        assert_eq!(
            full.telemetry.reads_sampled_per_thousand,
            defaults.reads_sampled_per_thousand
        );
        let keep = |one: &super::Backup| (one.keep_last, one.keep_daily, one.keep_weekly);
        assert_eq!(keep(&full.backup), keep(&super::Backup::default()));
        assert_eq!(full.limits, Limits::default());
        assert_eq!(full.api.stop_notice_ms, stop_notice_ms());
        assert_eq!(full.log.bytes_max, Log::default().bytes_max);
        assert_eq!(full.storage.reserve_bytes, Storage::default().reserve_bytes);
        assert_eq!(
            full.certificates.agent_hours,
            Certificates::default().agent_hours
        );
    }

    #[test]
    fn the_example_explains_every_key() {
        let full: toml::Table = switched_on().parse().unwrap();
        let sections = full.iter().map(|(name, value)| match value.as_table() {
            Some(section) => section.keys().map(|key| format!("{name}.{key}")).collect(),
            None => vec![name.clone()],
        });
        let keys: Vec<_> = sections.flatten().collect();
        let expected = "api.advertise api.listen api.stop_notice_ms api.tls_certificate api.tls_key \
                        backup.access_key_id_file backup.daily_at backup.endpoint \
                        backup.every_minutes backup.keep_daily backup.keep_last backup.keep_weekly \
                        backup.recipients backup.region backup.secret_access_key_file backup.target \
                        certificates.agent_hours data_dir genesis limits.connections \
                        limits.connections_per_caller limits.connections_per_peer limits.guesses_burst \
                        limits.guesses_per_second limits.guests_burst limits.guests_per_second \
                        limits.requests_at_once_per_caller limits.requests_burst \
                        limits.requests_per_second limits.streams limits.streams_per_caller \
                        link.advertise link.listen log.bytes_max log.file log.keep node \
                        retention.audit_days retention.minutes_days seal_key_file \
                        storage.reserve_bytes telemetry.otlp_endpoint \
                        telemetry.reads_sampled_per_thousand";
        let mut found = keys.clone();
        found.sort();
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn an_api_off_the_loopback_without_tls_is_refused_by_naming_both_keys() {
        let with = |api: &str| {
            let start = EXAMPLE.find("[api]").unwrap();
            let end = EXAMPLE.find("[link]").unwrap();
            let text = format!("{}[api]\n{api}\n{}", &EXAMPLE[..start], &EXAMPLE[end..]);
            let config: Config = toml::from_str(&text).unwrap();
            let checked = config.check(Path::new("controller.toml"));
            (
                checked.map_err(|error| error.to_string()),
                config.api_address(),
            )
        };
        for listen in ["0.0.0.0:8000", "[::]:8000", "10.0.0.1:8000", "192.0.2.7:80"] {
            let error = with(&format!("listen = \"{listen}\"")).0.unwrap_err();
            let names = ["api.listen", "api.tls_certificate", "api.tls_key"];
            assert!(names.iter().all(|name| error.contains(name)), "{error}");
        }
        let plain = with("listen = \"[::1]:8000\"");
        assert_eq!(plain, (Ok(()), "[::1]:8000".into()));
        let pair = "tls_certificate = \"c\"\ntls_key = \"k\"";
        let one = with(&format!("listen = \"10.0.0.1:443\"\n{pair}"));
        assert_eq!(one, (Ok(()), "https://10.0.0.1:443".into()));
        let all = with(&format!(
            "listen = \"0.0.0.0:443\"\nadvertise = \"a.example:443\"\n{pair}"
        ));
        assert_eq!(all, (Ok(()), "https://a.example:443".into()));
        assert!(
            with(&format!("listen = \"0.0.0.0:443\"\n{pair}"))
                .0
                .is_err()
        );
        for half in ["tls_certificate", "tls_key"] {
            let error = with(&format!("listen = \"127.0.0.1:1\"\n{half} = \"x\""))
                .0
                .unwrap_err();
            assert!(
                error.contains("tls_certificate") && error.contains("tls_key"),
                "{error}"
            );
        }
    }
}
