//! What a fleet tells of itself: metrics that every collector reads and every dashboard asks for, whether each process is
//! ready, and logs of one schema.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::{
    api,
    fleet::{AGENTS, CONTROLLERS, Fleet},
    log_schema,
    openmetrics::Exposition,
    prometheus::Prometheus,
    queries::{self, JOBS},
    runner::peer,
    wait::until,
};
use reqwest::header;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::facts::Stopped;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long a figure may take to follow what happened.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(20);

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The addresses of everything that tells metrics: controllers, then agents.
fn addresses(fleet: &Fleet) -> Result<Vec<(String, bool)>> {
    let base = fleet.port_base();
    let controllers = (0..3).map(|node| (format!("http://127.0.0.1:{}", base + node), true));
    let mut found: Vec<(String, bool)> = controllers.collect();
    for agent in AGENTS {
        let file = fleet.home().join(agent).join("data/status.port");
        let port = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        found.push((format!("http://127.0.0.1:{}", port.trim()), false));
    }
    Ok(found)
}

async fn told(
    fleet: &Fleet,
    address: &str,
    with_token: bool,
    accept: &str,
) -> Result<(String, String)> {
    let mut request = client()?
        .get(format!("{address}/metrics"))
        .header(header::ACCEPT, accept);
    if with_token {
        let token = fs::read_to_string(fleet.home().join("admin.token"))?;
        request = request.bearer_auth(token.trim());
    }
    let answer = request.send().await?;
    ensure!(
        answer.status() == 200,
        "{address} answers {}",
        answer.status()
    );
    let kind = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .context("no type")?;
    let kind = kind.to_str()?.to_owned();
    Ok((kind, answer.text().await?))
}

fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

/// Everything that the fleet tells, each process read strictly by itself.
async fn everything(fleet: &Fleet) -> Result<Vec<Exposition>> {
    let mut all = Vec::new();
    for (address, is_controller) in addresses(fleet)? {
        let (kind, text) = told(fleet, &address, is_controller, "*/*").await?;
        ensure!(kind == OPENMETRICS, "{address}: {kind}");
        let read = Exposition::read(&text).with_context(|| address.clone())?;
        all.push(read);
    }
    Ok(all)
}

/// The other half of the architecture test of the same queries: what is documented is really told.
pub(crate) async fn what_dashboards_and_alerts_ask_for_is_what_a_fleet_tells(
    fleet: Arc<Fleet>,
) -> Result<()> {
    fleet.deploy("Counted ISP", "do-fra1").await?;
    fleet.api()?.get("/api/v1/tenants").await?;
    for (address, _) in addresses(&fleet)? {
        api::fetch(&format!("{address}/health/ready")).await?;
    }
    until("the fleet tells all of it", FOLLOWS_WITHIN, async || {
        let all = everything(&fleet).await?;
        for query in queries::all(&checkout())? {
            query.check(|series| queries::told(&all, series), &[])?;
        }
        let sum = |series: &str, wanted: &[(&str, &str)]| -> f64 {
            all.iter().filter_map(|one| one.value(series, wanted)).sum()
        };
        for (series, wanted, expected) in [
            ("dotmac_raft_leader", &[][..], 1.0),
            ("dotmac_raft_members", &[], 9.0),
            ("dotmac_ready", &[], 8.0),
            ("dotmac_agent_connected", &[], 5.0),
            ("dotmac_agent_sessions", &[], 5.0),
            ("dotmac_agent_units", &[("health", "healthy")], 1.0),
            ("dotmac_agent_licenses", &[("phase", "valid")], 1.0),
            ("dotmac_deployments", &[("status", "active")], 3.0),
        ] {
            let found = sum(series, wanted);
            ensure!(
                (found - expected).abs() < f64::EPSILON,
                "{series} {wanted:?}: {found}"
            );
        }
        let grown = [
            "dotmac_raft_commit_seconds_count",
            "dotmac_storage_sync_seconds_count",
            "dotmac_agent_chain_sync_seconds_count",
        ];
        for series in grown {
            ensure!(sum(series, &[]) > 0.0, "{series} stands still");
        }
        Ok(Some(()))
    })
    .await
}

/// The tool that people check metrics with.
pub(crate) async fn promtool_finds_nothing_wrong(fleet: Arc<Fleet>) -> Result<()> {
    let promtool = peer("promtool")?;
    for (address, is_controller) in addresses(&fleet)? {
        let (kind, text) = told(&fleet, &address, is_controller, "text/plain").await?;
        ensure!(kind == "text/plain; version=0.0.4; charset=utf-8", "{kind}");
        ensure!(!text.contains("# EOF"), "the older text has no end");
        let mut tool = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = tool.stdin.take().context("no input")?;
        input.write_all(text.as_bytes()).await?;
        drop(input);
        let done = tool.wait_with_output().await?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{address}: {said}");
    }
    Ok(())
}

/// What fires, and what does not, by the tool that people check rules with.
pub(crate) async fn the_alert_rules_fire_when_they_should_and_else_not() -> Result<()> {
    let tests = checkout().join("config/prometheus/alerts_test.yml");
    let promtool = peer("promtool")?;
    let done = Command::new(promtool)
        .args(["test", "rules"])
        .arg(tests)
        .output()
        .await?;
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(done.status.success(), "{said}");
    Ok(())
}

/// A leader whose followers stand still has all its connections for a while, and leads nobody: it says so at once, and what
/// wakes somebody sees it.
pub(crate) async fn a_leader_that_no_majority_confirms_says_so_and_wakes_somebody(
    fleet: Arc<Fleet>,
) -> Result<()> {
    fleet.settled().await?;
    let targets = |wanted: bool| -> Result<Vec<String>> {
        let all = addresses(&fleet)?.into_iter();
        let wanted = all.filter(|(_, is_controller)| *is_controller == wanted);
        Ok(wanted
            .map(|(address, _)| address.replace("http://", ""))
            .collect())
    };
    let jobs = [(JOBS[0], targets(true)?), (JOBS[1], targets(false)?)];
    let token = fleet.home().join("admin.token");
    let program = peer("prometheus")?;
    let prometheus = Prometheus::start(&program, &checkout(), &token, &jobs).await?;
    let alerts = [
        "DotmacNoLeader",
        "DotmacControllerNotReady",
        "DotmacControllersApart",
    ];
    // From the first look on; how long it must last before somebody is woken is theirs to say.
    let seen = async |alert: &str, is_wanted: bool| {
        let query = format!("ALERTS{{alertname=\"{alert}\"}}");
        until(
            &format!("{alert}: {is_wanted}"),
            FOLLOWS_WITHIN,
            async || {
                let found = prometheus.ask(&query).await?;
                Ok((found.is_empty() != is_wanted).then_some(()))
            },
        )
        .await
    };
    for alert in alerts {
        seen(alert, false).await?;
    }
    let (number, leader) = fleet.leader().await?;
    let others: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|one| *one != leader)
        .collect();
    let others: Result<Vec<_>> = others.iter().map(|name| fleet.process(name)).collect();
    // They keep their connections for a while.
    let still = Stopped::new(others?)?;
    let address = &addresses(&fleet)?[number - 1].0;
    let tells = async |expected: f64| {
        let (_, text) = told(&fleet, address, true, "*/*").await?;
        let all = Exposition::read(&text)?;
        for (series, labels) in [
            ("dotmac_raft_leader", &[][..]),
            ("dotmac_raft_leader_known", &[]),
            ("dotmac_ready", &[]),
            ("dotmac_ready_check", &[("check", "majority")]),
        ] {
            let found = all.value(series, labels);
            ensure!(found == Some(expected), "{series} {labels:?}: {found:?}");
        }
        Ok(Some(()))
    };
    until("it says so", FOLLOWS_WITHIN, async || tells(0.0).await).await?;
    let ready = client()?
        .get(format!("{address}/health/ready"))
        .send()
        .await?;
    ensure!(ready.status() == 503, "it is {}", ready.status());
    for alert in alerts {
        seen(alert, true).await?;
    }
    drop(still);
    fleet.settled().await?;
    fleet.agents_connected().await?;
    until(
        "all are ready again, and one leads",
        FOLLOWS_WITHIN,
        async || {
            let all = everything(&fleet).await?;
            let sum =
                |series: &str| -> f64 { all.iter().filter_map(|one| one.value(series, &[])).sum() };
            let found = (sum("dotmac_raft_leader"), sum("dotmac_ready"));
            ensure!(found == (1.0, 8.0), "{found:?}");
            Ok(Some(()))
        },
    )
    .await?;
    for alert in alerts {
        seen(alert, false).await?;
    }
    Ok(())
}

/// Every process says that it is ready, and a guest is told nothing else by controllers.
pub(crate) async fn every_process_is_ready_and_guests_learn_no_figures(
    fleet: Arc<Fleet>,
) -> Result<()> {
    for (address, is_controller) in addresses(&fleet)? {
        until("it is ready", FOLLOWS_WITHIN, async || {
            let answer = api::fetch(&format!("{address}/health/ready")).await?;
            let body: serde_json::Value = answer.json().await?;
            ensure!(body["status"] == "ready", "{address}: {body}");
            Ok(Some(()))
        })
        .await?;
        api::fetch(&format!("{address}/health/live")).await?;
        let guest = client()?.get(format!("{address}/metrics")).send().await?;
        let expected = if is_controller { 401 } else { 200 };
        ensure!(guest.status() == expected, "{address}: {}", guest.status());
    }
    Ok(())
}

/// Law 5: an agent without controllers is ready, and says that it is cut off.
pub(crate) async fn law_5_an_agent_that_is_cut_off_is_ready_and_says_so(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let agents: Vec<String> = addresses(&fleet)?
        .into_iter()
        .skip(CONTROLLERS.len())
        .map(|(address, _)| address)
        .collect();
    let hold = fleet.kill_and_hold(&CONTROLLERS).await?;
    for address in agents {
        until("it says that it is cut off", FOLLOWS_WITHIN, async || {
            let answer = api::fetch(&format!("{address}/health/ready")).await?;
            let body: serde_json::Value = answer.json().await?;
            Ok((body["connected"] == false).then_some(()))
        })
        .await?;
    }
    drop(hold);
    fleet.settled().await
}

/// Every line of every log keeps to the documented schema.
pub(crate) async fn every_line_of_the_logs_keeps_to_the_schema(fleet: Arc<Fleet>) -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/logs.md");
    let documented = log_schema::documented(&fs::read_to_string(page)?);
    let mut lines = 0;
    for name in CONTROLLERS.iter().chain(&AGENTS) {
        let folder = fleet.home().join(name);
        let file = ["controller.log", "agent.log"].map(|file| folder.join(file));
        let file = file.iter().find(|file| file.is_file());
        let file = file.with_context(|| format!("{name} has no log"))?;
        for line in fs::read_to_string(file)?.lines() {
            log_schema::check(line, &documented)?;
            lines += 1;
        }
    }
    ensure!(lines > 50, "only {lines} lines");
    Ok(())
}
