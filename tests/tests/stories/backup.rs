//! All controllers are lost, and an old backup is all there is: a cluster begins again on empty disks, and nothing that
//! ran is removed or taken back.
//!
//! Longer than 400 lines: each story is one with its steps.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::process::ProcessIdentity;
use dotmac_tests::{
    api::DEPLOYMENTS,
    cli,
    deployment::{self, text},
    fleet::{ACTIVE_WITHIN, AGENTS, CONTROLLERS, Fleet},
    programs, runner,
    s3::{ACCESS_KEY, BUCKET, SECRET_KEY, Store},
    search,
    wait::until,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::facts::Stopped;

/// Planted where credentials go.
const SECRET: &str = "planted-Zq7vN3-secret";
/// How long agents may take to find the new controllers, to learn of them and to tell all.
const ADOPTED_WITHIN: Duration = Duration::from_secs(90);

pub(crate) async fn law_2_a_restored_old_backup_removes_and_reverts_nothing_newer() -> Result<()> {
    let fleet = Fleet::start("backup").await?;
    match tell(&fleet).await {
        Ok(()) => fleet.down().await,
        Err(error) => {
            fleet.keep();
            Err(error.context(fleet.tails()))
        }
    }
}

async fn tell(fleet: &Fleet) -> Result<()> {
    let with_secret = json!({
        "tenant_name": "Kept ISP", "region": "byov-lagos",
        "custom_config": {"radius_password": SECRET},
    });
    let kept = fleet.deploy_as(&with_secret).await?;
    let scaled = fleet.deploy("Scaled ISP", "do-fra1").await?;
    let removed = fleet.deploy("Removed ISP", "do-fra1").await?;
    let name = back_up(fleet, &kept).await?;

    // What the backup knows nothing of.
    let unknown = fleet.deploy("Unknown ISP", "do-fra1").await?;
    let path = format!("{DEPLOYMENTS}/{scaled}/scale");
    fleet
        .api()?
        .post(&path, &json!({"replicas": 2, "reason": "a story"}))
        .await?
        .ok(202)?;
    until_copies(fleet, &scaled, 2).await?;
    fleet
        .dotmac(&["deployments", "delete", &removed, "--yes"])
        .await?
        .ok()?;
    fleet
        .until_status(&removed, "destroyed", Duration::from_secs(40))
        .await?;
    let mut ran = Vec::new();
    for id in [&kept, &scaled, &unknown] {
        ran.push((id.clone(), pids(&fleet.deployment(id).await?)));
    }
    let hold = fleet.kill_and_hold(&CONTROLLERS).await?;
    begin_again(fleet, &name).await?;
    drop(hold);

    fleet.settled().await?;
    let status = fleet.api()?.get("/api/v1/cluster/status").await?;
    ensure!(
        (&status["epoch"], &status["trust_version"]) == (&json!(2), &json!(2)),
        "{status}"
    );
    until("every agent has told all", ADOPTED_WITHIN, async || {
        let agents = fleet.api()?.list("/api/v1/agents", "cursor").await?;
        let is_done = |agent: &&Value| agent["status"] == "connected" && agent["awaited"] == false;
        Ok((agents.iter().filter(is_done).count() == AGENTS.len()).then_some(()))
    })
    .await?;
    for (id, before) in &ran {
        let left = before
            .iter()
            .all(|pid| Path::new(&format!("/proc/{pid}")).exists());
        ensure!(
            left && !before.is_empty(),
            "{id}: not all of {before:?} run"
        );
    }
    shown(fleet, (&kept, &scaled, &removed, &unknown)).await?;
    // New orders go to agents that hold newer ones than the backup knows.
    let told = fleet
        .api()?
        .post(&path, &json!({"replicas": 1, "reason": "a story"}))
        .await?;
    told.ok(202)?;
    until_copies(fleet, &scaled, 1).await?;
    fleet.deploy("After ISP", "do-fra1").await?;
    let now = pids(&fleet.deployment(&kept).await?);
    ensure!(now == ran[0].1, "{kept} was {:?} and is {now:?}", ran[0].1);
    let left = &ran[2].1;
    ensure!(
        left.iter()
            .all(|pid| Path::new(&format!("/proc/{pid}")).exists()),
        "{left:?}"
    );
    fleet.dotmac(&["audit", "verify"]).await?.ok()?;
    Ok(())
}

pub(crate) async fn law_12_backups_go_to_an_s3_store_and_one_that_is_away_delays_nothing()
-> Result<()> {
    if let Err(error) = programs::peer("weed") {
        return runner::skip(error.to_string());
    }
    let mut store = Store::start().await?;
    let fleet = Fleet::start("backup-s3").await?;
    match to_store(&fleet, &mut store).await {
        Ok(()) => fleet.down().await,
        Err(error) => {
            fleet.keep();
            Err(error.context(fleet.tails()))
        }
    }
}

async fn to_store(fleet: &Fleet, store: &mut Store) -> Result<()> {
    let home = fleet.home();
    let (id, secret) = (home.join("s3.id"), home.join("s3.secret"));
    for (path, text) in [(&id, ACCESS_KEY), (&secret, SECRET_KEY)] {
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    let hold = fleet.kill_and_hold(&CONTROLLERS).await?;
    for controller in CONTROLLERS {
        let path = home.join(controller).join("controller.toml");
        let text = fs::read_to_string(&path)?;
        let kept: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("target = "))
            .collect();
        let section = format!(
            "{}\ntarget = \"s3://{BUCKET}/a/fleet\"\nendpoint = \"{}\"\nkeep_last = 1\nkeep_daily = 0\n\
             keep_weekly = 0\naccess_key_id_file = \"{}\"\nsecret_access_key_file = \"{}\"\n",
            kept.join("\n"),
            store.endpoint(),
            id.display(),
            secret.display()
        );
        fs::write(&path, section)?;
    }
    drop(hold);
    fleet.settled().await?;
    fleet.dotmac(&["backup", "create", "--wait"]).await?.ok()?;
    let made = fleet.dotmac_json(&["backup", "create", "--wait"]).await?;
    until(
        "the older one is removed",
        Duration::from_secs(20),
        async || {
            let listed = fleet.dotmac_json(&["backup", "list"]).await?;
            let items = listed["items"].as_array().context("no items")?;
            Ok((items.len() == 1 && items[0]["id"] == made["id"]).then_some(()))
        },
    )
    .await?;
    let config = home
        .join("controller-1/controller.toml")
        .display()
        .to_string();
    let identity = home.join("keys/backup.identity").display().to_string();
    let verify = [
        "backup",
        "verify",
        "latest",
        "--config",
        &config,
        "--identity",
        &identity,
    ];
    fleet.dotmac(&verify).await?.ok()?;
    fleet
        .dotmac(&["backup", "verify", text(&made, "id")])
        .await?
        .ok()?;

    hung(fleet, store).await?;
    store.stop().await?;
    fleet.dotmac(&["backup", "create"]).await?.ok()?;
    let meanwhile = fleet.deploy("Meanwhile ISP", "do-fra1");
    let failed = until("the failure is told", Duration::from_secs(90), async || {
        let status = fleet.api()?.get("/api/v1/backups/status").await?;
        Ok(status["failed"].is_object().then_some(status))
    });
    let (deployed, failed) = tokio::join!(meanwhile, failed);
    deployed?;
    let failed = failed?;
    ensure!(
        text(&failed["failed"], "reason").contains("backup target s3://"),
        "{failed}"
    );
    ensure!(failed["good"]["id"] == made["id"], "{failed}");
    let health = fleet.dotmac_json(&["cluster", "status"]).await?;
    ensure!(health["backups"]["failed"]["in_a_row"] == 1, "{health}");
    let (found, _) = search::files_with(home, SECRET_KEY.as_bytes())?;
    ensure!(
        found.len() == 1 && found[0].path == secret,
        "{} files hold the secret",
        found.len()
    );
    Ok(())
}

/// Connections are still taken, and nothing answers.
async fn hung(fleet: &Fleet, store: &Store) -> Result<()> {
    let process = store.pid().and_then(ProcessIdentity::of);
    let stopped = Stopped::new(vec![process.context("the store has ended")?])?;
    // For a while a controller tells what it saw last.
    until(
        "a target that hangs is told",
        Duration::from_secs(90),
        async || {
            let listed = fleet.dotmac(&["backup", "list"]).await?;
            let is_told = listed.err.contains("the backup target does not answer");
            Ok((listed.code != 0 && is_told).then_some(()))
        },
    )
    .await?;
    drop(stopped);
    Ok(())
}

/// Makes a backup and looks at it from all sides; gives its name.
async fn back_up(fleet: &Fleet, deployment: &str) -> Result<String> {
    let made = fleet.dotmac_json(&["backup", "create", "--wait"]).await?;
    let name = text(&made, "id").to_owned();
    let listed = fleet.dotmac_json(&["backup", "list"]).await?;
    ensure!(
        listed["items"][0]["id"] == name.as_str() && listed["items"][0]["state"] == "whole",
        "{listed}"
    );
    for one in [name.as_str(), "latest"] {
        let told = fleet.dotmac(&["backup", "verify", one]).await?.ok()?.out;
        ensure!(told.contains(&name), "{told}");
    }
    let odd = fleet.dotmac(&["backup", "verify", "../../etc"]).await?;
    let odd = odd.with_code(2)?.err;
    ensure!(odd.contains("no backup's name"), "{odd}");
    let config = fleet
        .home()
        .join("controller-1/controller.toml")
        .display()
        .to_string();
    let identity = fleet
        .home()
        .join("keys/backup.identity")
        .display()
        .to_string();
    let verify = ["backup", "verify", &name, "--config", &config];
    fleet.dotmac(&verify).await?.ok()?;
    fleet
        .dotmac(&[&verify[..], &["--identity", &identity]].concat())
        .await?
        .ok()?;
    proven(fleet, &name, &verify).await?;
    let other = fleet
        .home()
        .join("keys/other.identity")
        .display()
        .to_string();
    fleet
        .dotmac(&["backup", "keygen", "--out", &other])
        .await?
        .ok()?;
    let wrong = fleet
        .dotmac(&[&verify[..], &["--identity", &other]].concat())
        .await?;
    let wrong = wrong.with_code(1)?.err;
    ensure!(wrong.contains("sealed to"), "{wrong}");
    let folder = fleet.home().join("backups");
    let token = fs::read_to_string(fleet.home().join("admin.token"))?;
    for secret in [SECRET, token.trim(), deployment, "Kept ISP"] {
        let (found, files) = search::files_with(&folder, secret.as_bytes())?;
        ensure!(
            found.is_empty() && files > 3,
            "{secret} is in {} of {files} files",
            found.len()
        );
    }
    Ok(name)
}

/// Whose a backup is, a genesis proves; without one that is said to be open.
async fn proven(fleet: &Fleet, name: &str, with_config: &[&str]) -> Result<()> {
    let target = format!("file://{}", fleet.home().join("backups").display());
    let genesis = fleet.home().join("genesis.json").display().to_string();
    let bare = ["backup", "verify", name, "--target", &target];
    let said = fleet.dotmac(&bare).await?.ok()?;
    ensure!(
        said.err.contains("origin is not proven") && said.out.contains("origin: not proven"),
        "{} {}",
        said.out,
        said.err
    );
    let pinned = [&bare[..], &["--genesis", &genesis]].concat();
    for (how, is_proven) in [(&bare[..], false), (&pinned, true), (with_config, true)] {
        let told = fleet.dotmac_json(how).await?;
        ensure!(told["origin_is_proven"] == is_proven, "{how:?}: {told}");
    }
    Ok(())
}

/// Wipes all controllers and restores the backup on what are new disks.
async fn begin_again(fleet: &Fleet, name: &str) -> Result<()> {
    let home = fleet.home();
    let shown = |path: &Path| path.display().to_string();
    let identity = shown(&home.join("keys/backup.identity"));
    let config = |name: &str| home.join(name).join("controller.toml");
    let mut cards = Vec::new();
    for controller in CONTROLLERS {
        fs::remove_dir_all(home.join(controller).join("data"))?;
        fs::remove_file(home.join(controller).join("seal.key"))?;
        let init = ["init", "--config", &shown(&config(controller))];
        let card = cli::run(&home.join("bin/dotmac-controller"), &init, &[])
            .await?
            .ok()?;
        let path = home.join(controller).join("card.json");
        fs::write(&path, card.out)?;
        cards.push(shown(&path));
    }
    let old = shown(&config("controller-1"));
    let (root, out) = (
        shown(&home.join("keys/root.key")),
        shown(&home.join("genesis.new")),
    );
    let mut plan = vec![
        "backup",
        "plan",
        name,
        "--config",
        &old,
        "--identity",
        &identity,
    ];
    plan.extend(["--root-key-file", &root, "--out", &out]);
    for card in &cards[..2] {
        plan.extend(["--card", card]);
    }
    let few = fleet.dotmac(&plan).await?.with_code(1)?.err;
    ensure!(few.contains("2 cards are given"), "{few}");
    plan.extend(["--card", &cards[2]]);
    fleet.dotmac(&plan).await?.ok()?;
    fs::rename(&out, home.join("genesis.json"))?;
    for controller in CONTROLLERS {
        let own = shown(&config(controller));
        // It would found the cluster anew, without all that is in the backup.
        let program = home.join("bin/dotmac-controller");
        let early = cli::run(&program, &["run", "--config", &own], &[]).await?;
        let early = early.with_code(3)?.err;
        ensure!(
            early.contains("run `dotmac backup restore` here first"),
            "{early}"
        );
        let mut restore = vec!["backup", "restore", "--config", &own];
        restore.extend(["--identity", &identity, "--controller", &own]);
        let other = [&restore[..], &["20200101T000000Z-000000"]].concat();
        let other = fleet.dotmac(&other).await?.with_code(1)?.err;
        ensure!(
            other.contains(name) && other.contains("20200101T000000Z-000000"),
            "{other}"
        );
        fleet.dotmac(&restore).await?.ok()?;
        restore.push("latest");
        let again = fleet.dotmac(&restore).await?.with_code(1)?.err;
        ensure!(again.contains("could vote twice"), "{again}");
    }
    Ok(())
}

/// What is newer than the backup is shown, and left.
async fn shown(fleet: &Fleet, ids: (&str, &str, &str, &str)) -> Result<()> {
    let (kept, scaled, removed, unknown) = ids;
    fleet.until_status(kept, "active", ACTIVE_WITHIN).await?;
    let gone = fleet.deployment(removed).await?;
    ensure!(gone["status"] == "destroyed", "{gone}");
    let missing = fleet
        .api()?
        .ask(Method::GET, &format!("{DEPLOYMENTS}/{unknown}"), None, None)
        .await?;
    ensure!(missing.status == 404, "{unknown} is known");
    let newer = fleet.deployment(scaled).await?;
    ensure!(
        deployment::waiting(&newer).contains("newer than the restored backup"),
        "{newer}"
    );
    let agents = fleet.api()?.list("/api/v1/agents", "cursor").await?;
    let agent = agents.iter().find(|agent| agent["region"] == "do-fra1");
    let agent = agent.context("no agent of do-fra1")?;
    let units: Vec<&str> = agent["quarantined"]
        .as_array()
        .context("no list")?
        .iter()
        .map(|unit| text(unit, "unit"))
        .collect();
    ensure!(units.len() == 2, "{agent}");
    for id in [unknown, scaled] {
        ensure!(
            units.iter().any(|unit| unit.contains(id)),
            "{id} is not in {units:?}"
        );
    }
    let page = fleet
        .dotmac(&["agents", "show", text(agent, "id")])
        .await?
        .ok()?
        .out;
    ensure!(page.contains("unknown to the restored backup"), "{page}");
    let told = fleet.dotmac_json(&["audit"]).await?;
    let items = told["items"].as_array().context("no items")?;
    ensure!(
        items.iter().any(|one| one["action"] == "cluster.restored"),
        "{told}"
    );
    Ok(())
}

async fn until_copies(fleet: &Fleet, id: &str, copies: usize) -> Result<()> {
    until(
        &format!("{id} runs {copies} copies"),
        ACTIVE_WITHIN,
        async || {
            let shown = fleet.deployment(id).await?;
            let is_so = shown["status"] == "active" && pids(&shown).len() == copies;
            Ok(is_so.then_some(()))
        },
    )
    .await
}

/// The processes of a deployment, in order.
fn pids(shown: &Value) -> Vec<u64> {
    let components = shown["components"].as_array().into_iter().flatten();
    let mut pids: Vec<u64> = components
        .flat_map(|one| one["pids"].as_array().into_iter().flatten())
        .filter_map(Value::as_u64)
        .collect();
    pids.sort_unstable();
    pids
}
