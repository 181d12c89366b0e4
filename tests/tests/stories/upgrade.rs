//! The program of before and this one on the same data: an upgrade under load, taken back, made again, finalized. The
//! programs of before are real ones, built from the commit in tests/peers/previous.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::process::{ProcessIdentity, Signal};
use dotmac_tests::{
    cli,
    clients::Clients,
    deployment,
    fleet::{ACTIVE_WITHIN, AGENTS, CONTROLLERS, Fleet},
    programs, runner,
    wait::until,
};
use serde_json::Value;

/// Where the cluster tells how it is.
const STATUS: &str = "/api/v1/cluster/status";

/// A fleet of the program of before with two instances, and their processes.
async fn fleet_of_before(name: &str) -> Result<(Fleet, Vec<(String, ProcessIdentity)>)> {
    let Ok(before) = programs::peer("previous") else {
        return runner::leave("the programs of before are not built: make upgrades".into());
    };
    let fleet = Fleet::prepare(name)?;
    programs::install_from(&before, fleet.home())?;
    fleet
        .up()
        .await
        .map_err(|error| error.context(fleet.tails()))?;
    let mut instances = Vec::new();
    for (name, region) in [("First ISP", "aws-eu-west-1"), ("Second ISP", "byov-lagos")] {
        let id = fleet.deploy(name, region).await?;
        let process = deployment::process(&fleet.deployment(&id).await?)?;
        instances.push((id, process));
    }
    Ok((fleet, instances))
}

/// `make up` after a pull.
async fn upgrade(fleet: &Fleet) -> Result<String> {
    programs::install(fleet.home())?;
    let ran = fleet.dotmac(&["local", "up", "--detach"]).await?.ok()?;
    Ok(ran.err + &ran.out)
}

/// Puts programs in place and restarts one process after the other by hand, as an operator without `make up` does.
async fn put_back(fleet: &Fleet, programs: &Path) -> Result<()> {
    programs::install_from(programs, fleet.home())?;
    for name in CONTROLLERS.iter().chain(&AGENTS) {
        let before = fleet.process(name)?;
        before.send_signal(Signal::TERM)?;
        fleet.back(name, &before).await?;
        fleet.settled().await?;
        fleet.agents_connected().await?;
    }
    Ok(())
}

/// The instances run on as the processes that they were.
async fn ran_on(fleet: &Fleet, instances: &[(String, ProcessIdentity)]) -> Result<()> {
    for (id, process) in instances {
        ensure!(process.is_alive(), "the process of {id} is gone");
        let shown = fleet.until_status(id, "active", ACTIVE_WITHIN).await?;
        let now = deployment::process(&shown)?;
        ensure!(now == *process, "{id} was {process} and is {now}");
        ensure!(deployment::restarts(&shown) == 0, "{shown}");
    }
    Ok(())
}

async fn status(fleet: &Fleet) -> Result<Value> {
    fleet.api()?.get(STATUS).await
}

pub(crate) async fn an_upgrade_one_process_at_a_time_fails_no_request_and_can_be_taken_back()
-> Result<()> {
    let (fleet, instances) = fleet_of_before("upgrade").await?;
    let fleet = Arc::new(fleet);
    told(&fleet, taken_back(&fleet, &instances).await)
}

async fn taken_back(fleet: &Arc<Fleet>, instances: &[(String, ProcessIdentity)]) -> Result<()> {
    let clients = Clients::start(&fleet.api()?, 2);
    let (_, leader) = fleet.leader().await?;
    let said = upgrade(fleet).await?;
    let place = |name: &str| said.find(&format!("{name} restarted in"));
    for name in CONTROLLERS.iter().chain(&AGENTS) {
        ensure!(place(name).is_some(), "{name} was not restarted:\n{said}");
        let is_last = AGENTS.contains(name) || place(name) <= place(leader);
        ensure!(
            is_last,
            "{name} was restarted after the leader {leader}:\n{said}"
        );
    }
    ran_on(fleet, instances).await?;
    let upgraded = clients.so_far();
    let shown = status(fleet).await?;
    ensure!(shown["rules"]["rules"] == 1, "{shown}");
    for node in shown["nodes"].as_array().context("no nodes")? {
        ensure!(node["rules_supported"] == 2, "{node}");
    }
    let next = deployment::text(&shown, "rules_next");
    ensure!(next.contains("`dotmac cluster finalize`"), "{shown}");
    let members = members(fleet)?;
    let again = upgrade(fleet).await?;
    ensure!(!again.contains("restarted"), "the second one did: {again}");
    ensure!(self::members(fleet)? == members, "something was restarted");

    put_back(fleet, &programs::peer("previous")?).await?;
    ran_on(fleet, instances).await?;
    let shown = status(fleet).await?;
    ensure!(
        shown["rules"].is_null(),
        "it is not the program of before: {shown}"
    );
    let acknowledged = clients.stop().await?;
    ensure!(
        upgraded > 20 && acknowledged.len() > upgraded + 20,
        "too little was asked: {upgraded}"
    );
    acknowledged.are_kept_once(&fleet.api()?).await?;
    fleet.dotmac(&["audit", "verify"]).await?.ok()?;
    fleet.down().await
}

pub(crate) async fn a_finalized_upgrade_is_not_taken_back_and_the_program_of_before_says_so()
-> Result<()> {
    let (fleet, instances) = fleet_of_before("finalize").await?;
    let fleet = Arc::new(fleet);
    told(&fleet, finalized(&fleet, &instances).await)
}

async fn finalized(fleet: &Arc<Fleet>, instances: &[(String, ProcessIdentity)]) -> Result<()> {
    let format = |name: &str| fs::read_to_string(fleet.home().join(name).join("data/store/FORMAT"));
    // One controller still runs the program of before.
    let hold = fleet.kill_and_hold(&["controller-3"]).await?;
    let before = programs::peer("previous")?;
    programs::install(fleet.home())?;
    for name in ["controller-1", "controller-2"] {
        let old = fleet.process(name)?;
        old.send_signal(Signal::TERM)?;
        fleet.back(name, &old).await?;
    }
    fleet.leader().await?;
    let away = fleet
        .dotmac(&["cluster", "finalize", "--yes", "--deadline", "3"])
        .await?;
    ensure!(
        away.code != 0 && away.err.contains("controller 3"),
        "{away:?}"
    );
    programs::install_from(&before, fleet.home())?;
    drop(hold);
    fleet.settled().await?;
    programs::install(fleet.home())?;
    let refused = fleet.dotmac(&["cluster", "finalize", "--yes"]).await?;
    let why = "waits for controller 3, whose program follows version 1 only";
    ensure!(
        refused.code != 0 && refused.err.contains(why),
        "{refused:?}"
    );

    upgrade(fleet).await?;
    for name in CONTROLLERS {
        ensure!(format(name)?.ends_with(" 1\n"), "{name}: {}", format(name)?);
    }
    let clients = Clients::start(&fleet.api()?, 1);
    let plan = fleet
        .dotmac(&["cluster", "finalize", "--dry-run"])
        .await?
        .ok()?;
    ensure!(plan.err.contains("rules"), "{plan:?}");
    let done = fleet
        .dotmac(&["cluster", "finalize", "--yes"])
        .await?
        .ok()?;
    ensure!(
        done.out.contains("rules 2: in force from now on"),
        "{done:?}"
    );
    let again = fleet
        .dotmac(&["cluster", "finalize", "--yes"])
        .await?
        .ok()?;
    ensure!(again.out.contains("rules 2: in force already"), "{again:?}");
    let shown = status(fleet).await?;
    ensure!(
        shown["rules"]["rules"] == 2 && shown["rules_next"].is_null(),
        "{shown}"
    );
    until(
        "every directory says so",
        Duration::from_secs(5),
        async || {
            let all = CONTROLLERS.map(|name| format(name).unwrap_or_default());
            Ok(all.iter().all(|text| text.ends_with(" 2\n")).then_some(()))
        },
    )
    .await?;
    clients.stop().await?.are_kept_once(&fleet.api()?).await?;
    ran_on(fleet, instances).await?;
    fleet.down().await?;

    let at = fleet.home().join("controller-1");
    let config = at.join("controller.toml").display().to_string();
    let old = before.join("dotmac-controller");
    let refused = cli::run(&old, &["run", "--config", &config], &[])
        .await?
        .with_code(1)?;
    let sentence =
        "holds data of version 2, newer than this program's version 1; nothing was touched";
    ensure!(refused.err.contains(sentence), "{refused:?}");
    fleet.up().await?;
    for (id, _) in instances {
        fleet.until_status(id, "active", ACTIVE_WITHIN).await?;
    }
    fleet.dotmac(&["audit", "verify"]).await?.ok()?;
    fleet.down().await
}

fn members(fleet: &Fleet) -> Result<Vec<ProcessIdentity>> {
    let names = CONTROLLERS.iter().chain(&AGENTS).chain(&["supervisor"]);
    names.map(|name| fleet.process(name)).collect()
}

/// What happened, with the ends of the logs when it failed.
fn told(fleet: &Fleet, result: Result<()>) -> Result<()> {
    result.map_err(|error| {
        fleet.keep();
        error.context(fleet.tails())
    })
}
