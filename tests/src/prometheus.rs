//! A real Prometheus beside a fleet, with the alert rules that are checked in: what people ask is asked of it.

use std::{fmt::Write as _, fs, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{ports, programs, wait::until};

/// How long it may take to start.
const START_WITHIN: Duration = Duration::from_secs(30);

/// A running Prometheus; it ends with this value.
#[derive(Debug)]
pub struct Prometheus {
    ports: ports::Reserved,
    _home: TempDir,
    _running: Child,
}

impl Prometheus {
    /// Starts this program of it, to ask these addresses every second: jobs as in scrape.yml, each with its targets.
    /// `token` is the file that controllers are shown.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn start(
        program: &Path,
        checkout: &Path,
        token: &Path,
        jobs: &[(&str, Vec<String>)],
    ) -> Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("prometheus-")
            .tempdir_in(programs::homes()?)?;
        let ports = ports::reserve()?;
        let rules = checkout
            .join("config/prometheus/alerts.yml")
            .canonicalize()?;
        let mut config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\nscrape_configs:\n",
            rules.display()
        );
        for (job, targets) in jobs {
            writeln!(
                config,
                "  - {{job_name: {job}, authorization: {{credentials_file: '{}'}}, static_configs: [{{targets: {targets:?}}}]}}",
                token.display()
            )?;
        }
        let file = home.path().join("prometheus.yml");
        fs::write(&file, config)?;
        let log = fs::File::create(home.path().join("log"))?;
        let child = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                home.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{}", ports.base))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let log = home.path().join("log");
        let found = Self {
            ports,
            _home: home,
            _running: child,
        };
        let ready = until("Prometheus answers", START_WITHIN, async || {
            found.ask("vector(1)").await.map(Some)
        });
        let words = || fs::read_to_string(log).unwrap_or_default();
        ready.await.with_context(words)?;
        Ok(found)
    }

    /// The series that a query gives now.
    ///
    /// # Errors
    /// When it is no query, or nobody answers.
    pub async fn ask(&self, query: &str) -> Result<Vec<Value>> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://127.0.0.1:{}/api/v1/query", self.ports.base);
        let url = reqwest::Url::parse_with_params(&url, [("query", query)])?;
        let answer = client.get(url).send().await?;
        let mut body: Value = answer.json().await?;
        ensure!(body["status"] == "success", "{query}: {body}");
        let Value::Array(found) = body["data"]["result"].take() else {
            anyhow::bail!("{query} gives no series");
        };
        Ok(found)
    }
}
