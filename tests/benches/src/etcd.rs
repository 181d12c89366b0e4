//! The peer: three members of etcd beside the fleet, on the same disk, syncing as they do by default; etcd's own benchmark
//! client, and a program that watches with etcd's own client. `make peers` builds all of them.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::{
    ports,
    programs::{self, peer},
    wait::until,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::watch::Heard;

mod benchmark;

pub(crate) use benchmark::{Told, Verb};

/// Members of the cluster.
const MEMBERS: u16 = 3;
/// Bytes of a value: about those of a tenant as an event shows it.
pub(crate) const VALUE_BYTES: u64 = 512;
/// How long it may take to start.
const START_WITHIN: Duration = Duration::from_secs(30);

/// A running cluster; it ends with this value.
#[derive(Debug)]
pub(crate) struct Etcd {
    ports: ports::Reserved,
    members: Vec<Child>,
    home: TempDir,
}

impl Etcd {
    /// Starts it.
    pub(crate) async fn start() -> Result<Self> {
        let program = peer("etcd")?;
        let home = tempfile::Builder::new()
            .prefix("etcd-")
            .tempdir_in(programs::homes()?)?;
        let ports = ports::reserve()?;
        let url =
            |member: u16, offset: u16| format!("http://127.0.0.1:{}", ports.base + member + offset);
        let cluster: Vec<String> = (0..MEMBERS)
            .map(|member| format!("m{member}={}", url(member, 10)))
            .collect();
        let mut members = Vec::new();
        for member in 0..MEMBERS {
            let log = std::fs::File::create(home.path().join(format!("m{member}.log")))?;
            let child = Command::new(&program)
                .args(["--name", &format!("m{member}")])
                .arg("--data-dir")
                .arg(home.path().join(format!("m{member}")))
                .args(["--listen-client-urls", &url(member, 0)])
                .args(["--advertise-client-urls", &url(member, 0)])
                .args(["--listen-peer-urls", &url(member, 10)])
                .args(["--initial-advertise-peer-urls", &url(member, 10)])
                .args([
                    "--initial-cluster",
                    &cluster.join(","),
                    "--log-level",
                    "error",
                ])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .kill_on_drop(true)
                .spawn()?;
            members.push(child);
        }
        until("etcd takes connections", START_WITHIN, async || {
            for member in 0..MEMBERS {
                TcpStream::connect(("127.0.0.1", ports.base + member)).await?;
            }
            Ok(Some(()))
        })
        .await?;
        Ok(Self {
            ports,
            members,
            home,
        })
    }

    /// Where its members listen for clients, separated by commas.
    fn endpoints(&self) -> String {
        let endpoints =
            (0..MEMBERS).map(|member| format!("127.0.0.1:{}", self.ports.base + member));
        endpoints.collect::<Vec<_>>().join(",")
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(Child::id).collect()
    }

    /// Where its members keep everything.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Makes changes of one key before this many watchers of it; `is_shared`: all of them over one connection a member.
    pub(crate) async fn fan_out(
        &self,
        watchers: u64,
        changes: u64,
        is_shared: bool,
    ) -> Result<Heard> {
        let ran = Command::new(peer("etcd-watch")?)
            .args(["-endpoints", &self.endpoints()])
            .args([
                "-watchers",
                &watchers.to_string(),
                "-changes",
                &changes.to_string(),
            ])
            .args(["-bytes", &VALUE_BYTES.to_string()])
            .arg(format!("-shared={is_shared}"))
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr).trim()
        );
        let told: Value = serde_json::from_slice(&ran.stdout)?;
        let numbers = |name: &str| -> Result<Vec<f64>> {
            let values = told[name]
                .as_array()
                .context("etcd-watch tells no figures")?;
            values
                .iter()
                .map(|value| value.as_f64().context("no figure"))
                .collect()
        };
        Ok(Heard {
            write_ms: numbers("put_ms")?,
            last_ms: numbers("last_ms")?,
            whole_ms: numbers("whole_ms")?,
        })
    }
}
