//! `agent.toml`: parsed and checked in one place. It refuses unknown keys, so that a misspelt one is never ignored.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    num::NonZeroU32,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use dotmac_protocol::ids::{RegionId, TenantId};
use dotmac_runtime::telemetry::Endpoint;
use serde::Deserialize;
use thiserror::Error;

/// Ports that the process driver may hand out at most.
const PROCESS_PORTS_MIN: u16 = 16;

/// Reports a second that an instance may be allowed at most.
const REPORTS_MAX: u32 = 100_000;

/// An agent's configuration. Relative paths are relative to the file's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where this agent's workloads run; must be the join token's region.
    pub region: RegionId,
    /// Everything the agent keeps.
    pub data_dir: PathBuf,
    /// Holds the join token; needed until the agent is enrolled.
    pub join_token_file: Option<PathBuf>,
    /// Tenants this agent serves; any when empty.
    pub tenants: BTreeSet<TenantId>,
    /// Loopback address of the instance API; port 0 means: choose one and keep it.
    pub instance_api: SocketAddr,
    /// Reports an instance may make a second; after a pause those of 200 s at once.
    pub reports_per_second: NonZeroU32,
    /// Loopback address where it tells how it is; port 0 means: choose one and keep it.
    pub status: SocketAddr,
    /// Ports for components of the process driver.
    pub ports: RangeInclusive<u16>,
    /// Where the log goes; standard error when absent.
    pub log: Option<LogConfig>,
    /// What is told about this agent's work.
    pub telemetry: TelemetryConfig,
}

/// What is told about this agent's work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The OTLP collector that spans are sent to; none are made without one.
    pub otlp_endpoint: Option<Endpoint>,
}

/// A size-limited log file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// The file.
    pub file: PathBuf,
    /// Bytes after which it is rotated.
    #[serde(default = "default_log_bytes_max")]
    pub bytes_max: u64,
    /// Rotated files kept.
    #[serde(default = "default_log_keep")]
    pub keep: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    region: RegionId,
    data_dir: PathBuf,
    join_token_file: Option<PathBuf>,
    #[serde(default)]
    tenants: BTreeSet<TenantId>,
    #[serde(default)]
    instance_api: InstanceApiConfig,
    #[serde(default)]
    status: StatusConfig,
    #[serde(default)]
    process: ProcessConfig,
    log: Option<LogConfig>,
    #[serde(default)]
    telemetry: TelemetryConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct InstanceApiConfig {
    #[serde(deserialize_with = "dotmac_runtime::listen::address")]
    listen: SocketAddr,
    reports_per_second: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StatusConfig {
    #[serde(deserialize_with = "dotmac_runtime::listen::address")]
    listen: SocketAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ProcessConfig {
    port_first: u16,
    port_last: u16,
}

impl Default for InstanceApiConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            reports_per_second: 50,
        }
    }
}

impl Default for StatusConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            port_first: 20_000,
            port_last: 20_999,
        }
    }
}

fn default_log_bytes_max() -> u64 {
    8 * 1024 * 1024
}

fn default_log_keep() -> u32 {
    3
}

/// Why there is no configuration; names the file, the key, the value and what is allowed.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, has an unknown key, or a value of the wrong form.
    #[error("{}: {detail}", file.display())]
    Parse { file: PathBuf, detail: String },
    /// A value is not allowed.
    #[error("{}: {key} = {value:?} is not allowed: {allowed}", file.display())]
    Value {
        file: PathBuf,
        key: &'static str,
        value: String,
        allowed: &'static str,
    },
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// When it cannot be read or something in it is not allowed.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Read {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(file, &text)
    }

    /// Checks the text of a configuration file; `file` is for error texts and relative paths.
    ///
    /// # Errors
    /// When something in it is not allowed.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let parsed: ConfigFile = toml::from_str(text).map_err(|error| ConfigError::Parse {
            file: file.to_owned(),
            detail: error.to_string().trim_end().to_owned(),
        })?;
        let refuse = |key, value: String, allowed| ConfigError::Value {
            file: file.to_owned(),
            key,
            value,
            allowed,
        };
        let listen = parsed.instance_api.listen;
        if !listen.ip().is_loopback() {
            let allowed = "a loopback address such as 127.0.0.1:0; instances run on the same host";
            return Err(refuse("instance_api.listen", listen.to_string(), allowed));
        }
        let per_second = parsed.instance_api.reports_per_second;
        let reports_per_second = NonZeroU32::new(per_second).filter(|one| one.get() <= REPORTS_MAX);
        let Some(reports_per_second) = reports_per_second else {
            let key = "instance_api.reports_per_second";
            return Err(refuse(key, per_second.to_string(), "1 to 100000"));
        };
        let status = parsed.status.listen;
        if !status.ip().is_loopback() {
            let allowed = "a loopback address such as 127.0.0.1:0; it is told without a token";
            return Err(refuse("status.listen", status.to_string(), allowed));
        }
        let ports = parsed.process.port_first..=parsed.process.port_last;
        if parsed.process.port_first < 1024 {
            let allowed = "1024 or above";
            return Err(refuse(
                "process.port_first",
                ports.start().to_string(),
                allowed,
            ));
        }
        if ports.len() < usize::from(PROCESS_PORTS_MIN) {
            let allowed = "at least 15 above process.port_first";
            return Err(refuse(
                "process.port_last",
                ports.end().to_string(),
                allowed,
            ));
        }
        let base = file.parent().unwrap_or(Path::new("."));
        let log = parsed.log.map(|log| LogConfig {
            file: base.join(log.file),
            ..log
        });
        if let Some(log) = log.as_ref().filter(|log| log.bytes_max < 64 * 1024) {
            let allowed = "65536 bytes or more";
            return Err(refuse("log.bytes_max", log.bytes_max.to_string(), allowed));
        }
        Ok(Self {
            region: parsed.region,
            data_dir: base.join(parsed.data_dir),
            join_token_file: parsed.join_token_file.map(|token| base.join(token)),
            tenants: parsed.tenants,
            instance_api: listen,
            reports_per_second,
            status,
            ports,
            log,
            telemetry: parsed.telemetry,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::Config;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/dotmac/agent.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shortest_file_gets_loopback_defaults_and_paths_beside_the_file() {
        let config = parse("region = 'byov-lagos'\ndata_dir = 'data'\n").unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/etc/dotmac/data"));
        assert_eq!(config.instance_api.to_string(), "127.0.0.1:0");
        assert_eq!(config.ports, 20_000..=20_999);
        assert_eq!((config.join_token_file, config.log), (None, None));
    }

    #[test]
    fn errors_name_the_file_the_key_the_value_and_what_is_allowed() {
        let base = "region = 'byov-lagos'\ndata_dir = 'data'\n";
        let cases = [
            ("data_dir = 'data'", vec!["agent.toml", "region"]),
            (
                "region = 'Lagos'\ndata_dir = 'd'",
                vec!["region", "Lagos", "lower-case"],
            ),
            (
                &format!("{base}tennants = []"),
                vec!["tennants", "expected one of", "tenants"],
            ),
            (
                &format!("{base}tenants = ['x']"),
                vec!["tenants", "\"x\"", "slug"],
            ),
            (
                &format!("{base}[instance_api]\nlisten = '0.0.0.0:80'"),
                vec![
                    "agent.toml",
                    "instance_api.listen",
                    "0.0.0.0:80",
                    "loopback",
                ],
            ),
            (
                &format!("{base}[instance_api]\nreports_per_second = 0"),
                vec!["instance_api.reports_per_second", "\"0\"", "1 to 100000"],
            ),
            (
                &format!("{base}[status]\nlisten = '0.0.0.0:9000'"),
                vec!["status.listen", "0.0.0.0:9000", "loopback"],
            ),
            (
                &format!("{base}[status]\nlisten = 'localhost:9464'"),
                vec!["listen", "localhost:9464", "IP:PORT"],
            ),
            (
                &format!("{base}[process]\nport_first = 30000\nport_last = 29000"),
                vec!["process.port_last", "29000", "at least"],
            ),
            (
                &format!("{base}[telemetry]\notlp_endpoint = 'localhost:4318'"),
                vec!["otlp_endpoint", "http://HOST:PORT"],
            ),
            (
                &format!("{base}[log]\nfile = 'x'\nbytes_max = 5"),
                vec!["log.bytes_max", "\"5\"", "65536"],
            ),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            for part in expected {
                assert!(error.contains(part), "{part} is missing in {error}");
            }
        }
    }

    #[test]
    fn the_example_explains_every_key_and_shows_the_real_defaults() {
        let example = include_str!("../../config/agent.toml");
        let is_key = |line: &str| line.starts_with("# ") && line.contains(" = ");
        let lines = example
            .lines()
            .map(|line| if is_key(line) { &line[2..] } else { line });
        let switched_on = lines.collect::<Vec<_>>().join("\n");
        assert_eq!(parse(example).unwrap(), parse(&switched_on).unwrap());
        for key in [
            "region",
            "data_dir",
            "join_token_file",
            "tenants",
            "listen",
            "reports_per_second",
            "port_first",
            "port_last",
            "otlp_endpoint",
        ] {
            assert!(
                switched_on.contains(&format!("\n{key} = ")),
                "{key} is missing"
            );
        }
    }
}
