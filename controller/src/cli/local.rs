//! The flags of `dotmac local`; what they do is in `local`.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Subcommand};
use dotmac_runtime::telemetry::Endpoint;

use super::{failure::Failure, find::Context};
use crate::local::{down, session, status, up};

#[derive(Subcommand)]
pub(crate) enum Local {
    /// Start three controllers and five agents, and stay until Ctrl-C
    Up {
        /// Return when the fleet is ready; it runs on without this terminal
        #[arg(long)]
        detach: bool,
        /// The port that all others follow from [default: 8000, or what the fleet was made with]
        #[arg(long, env = "DOTMAC_PORT_BASE", value_name = "PORT")]
        port_base: Option<String>,
        /// Milliseconds between the deletion of a deployment and its removal, for a new fleet
        #[arg(
            long,
            env = "DOTMAC_GRACE_MS",
            default_value_t = 10_000,
            value_name = "MS"
        )]
        grace_ms: u64,
        /// An OpenTelemetry collector, such as http://127.0.0.1:4318, that takes the traces of this fleet until its next start
        #[arg(long, env = "DOTMAC_OTLP_ENDPOINT", value_name = "URL")]
        otlp_endpoint: Option<String>,
    },
    /// What runs, since when and where
    Status,
    /// Stop all of it, instances too
    Down {
        /// Then list all data with sizes, ask, and delete it
        #[arg(long)]
        purge: bool,
        /// Do not ask
        #[arg(long, requires = "purge")]
        yes: bool,
    },
    /// Keeps the fleet alive; `up --detach` starts it
    #[command(hide = true)]
    Supervise,
    /// Becomes a process of the fleet
    #[command(hide = true)]
    Session(Session),
}

#[derive(Args)]
pub(crate) struct Session {
    /// Where the process notes itself
    #[arg(long)]
    pid_file: PathBuf,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

impl Session {
    /// Becomes the program; returns only when that fails.
    pub(crate) fn run(self) -> Failure {
        session::become_program(&self.pid_file, &self.program)
    }
}

impl Local {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Up {
                detach,
                port_base,
                grace_ms,
                otlp_endpoint,
            } => {
                let port_base = parse_base(port_base.as_deref())?;
                let otlp_endpoint = parse_endpoint(otlp_endpoint.as_deref())?;
                up::run(
                    context,
                    up::Wish {
                        detach,
                        port_base,
                        grace_ms,
                        otlp_endpoint,
                    },
                )
                .await
            }
            Self::Status => status::run(context),
            Self::Down { purge, yes } => down::run(context, purge, yes).await,
            Self::Supervise => up::stay(context).await,
            Self::Session(session) => Err(session.run()),
        }
    }
}

/// An empty variable is none: make exports it so.
fn parse_base(text: Option<&str>) -> Result<Option<u16>, Failure> {
    match text.map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(base) => Ok(Some(base)),
            Err(_) => Err(Failure::Usage(format!(
                "DOTMAC_PORT_BASE={text} is not a port"
            ))),
        },
    }
}

/// An empty variable is none: make exports it so.
fn parse_endpoint(text: Option<&str>) -> Result<Option<Endpoint>, Failure> {
    match text.map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(endpoint) => Ok(Some(endpoint)),
            Err(error) => Err(Failure::Usage(format!(
                "DOTMAC_OTLP_ENDPOINT={text}: {error}"
            ))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_base, parse_endpoint};

    #[test]
    fn an_empty_endpoint_is_none_and_a_wrong_one_says_what_is_right() {
        assert_eq!(parse_endpoint(Some(" ")).unwrap(), None);
        assert!(
            parse_endpoint(Some("http://127.0.0.1:4318"))
                .unwrap()
                .is_some()
        );
        let refused = parse_endpoint(Some("localhost:4318")).unwrap_err();
        assert!(
            refused.to_string().contains("http://HOST:PORT"),
            "{refused}"
        );
    }

    #[test]
    fn an_empty_port_base_is_none_and_a_wrong_one_is_named() {
        assert_eq!(parse_base(Some("")).unwrap(), None);
        assert_eq!(parse_base(Some("9000")).unwrap(), Some(9000));
        assert!(
            parse_base(Some("70000"))
                .unwrap_err()
                .to_string()
                .contains("70000")
        );
    }
}
