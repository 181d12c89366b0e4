//! What an operator does with the command line alone: the whole life of a deployment, plans, exit
//! codes, tokens, and all of it while controllers are restarted.
//! Longer than 400 lines: these stories share one fleet, and a group of stories is one file.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::process::Signal;
use dotmac_tests::{
    cli::Ran,
    deployment,
    fleet::{CONTROLLERS, Fleet},
    wait::until,
};
use serde_json::{Value, json};

/// What one command wrote must hold these words.
pub(crate) fn told<'a>(ran: &'a Ran, words: &[&str]) -> Result<&'a Ran> {
    for word in words {
        let Ran {
            command, out, err, ..
        } = ran;
        ensure!(
            err.contains(word) || out.contains(word),
            "{word:?} is missing after `{command}`:\n{out}\n{err}"
        );
    }
    Ok(ran)
}

/// Runs a command that must end with 0, and gives it with its JSON.
pub(crate) async fn done(fleet: &Fleet, arguments: &[&str]) -> Result<(Ran, Value)> {
    let ran = fleet
        .dotmac(&[arguments, &["-o", "json"]].concat())
        .await?
        .ok()?;
    let json = ran.json()?;
    Ok((ran, json))
}

/// Ids, revisions and states of all deployments: what a plan may not change.
pub(crate) async fn everything(fleet: &Fleet) -> Result<BTreeSet<String>> {
    let list = fleet.dotmac_json(&["deployments", "list"]).await?;
    let items = list["items"].as_array().context("no items")?;
    Ok(items
        .iter()
        .map(|one| {
            format!(
                "{} {} {} {}",
                one["id"], one["revision"], one["status"], one["generation"]
            )
        })
        .collect())
}

/// The processes of all its components.
pub(crate) fn pids(deployment: &Value) -> BTreeSet<u64> {
    let components = deployment["components"].as_array().into_iter().flatten();
    let pids = components.flat_map(|one| one["pids"].as_array().into_iter().flatten());
    pids.filter_map(Value::as_u64).collect()
}

/// The whole life of a deployment; every change shows its plan, and `--wait` what it waits for.
pub(crate) async fn a_deployment_lives_its_whole_life_by_the_command_line(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let create = [
        "deployments",
        "create",
        "--name",
        "Life ISP",
        "--region",
        "do-fra1",
        "--wait",
    ];
    let (ran, created) = done(&fleet, &create).await?;
    told(
        &ran,
        &[
            "create Life ISP:",
            "+ tenant_name: Life ISP",
            "provisioning: ",
            "is active after",
        ],
    )?;
    let id = deployment::id(&created)?;
    // The plan named it already as it is called now.
    told(&ran, &[&format!("+ id: {id}")])?;
    let id = id.as_str();

    let (ran, scaled) = done(
        &fleet,
        &["deployments", "scale", id, "--replicas", "2", "--wait"],
    )
    .await?;
    told(&ran, &["~ replicas: 1 -> 2", "is active after"])?;
    ensure!(
        scaled["ready_pods"] == 2 && pids(&scaled).len() == 2,
        "{scaled}"
    );

    let update = [
        "deployments",
        "update",
        id,
        "--tier",
        "medium",
        "--feature",
        "billing=true",
        "--wait",
    ];
    let (ran, updated) = done(&fleet, &update).await?;
    told(
        &ran,
        &[
            "~ resource_tier: small -> medium",
            "+ features.billing: true",
            "upgrading: ",
        ],
    )?;
    ensure!(
        updated["status"] == "active" && updated["features"]["billing"] == true,
        "{updated}"
    );
    let (again, _) = done(&fleet, &update).await?;
    told(&again, &["nothing to change"])?;

    let (ran, restarted) = done(&fleet, &["deployments", "restart", id, "--wait"]).await?;
    told(&ran, &["~ restarts_ordered: 0 -> 1"])?;
    let common: Vec<u64> = pids(&updated)
        .intersection(&pids(&restarted))
        .copied()
        .collect();
    ensure!(
        common.is_empty() && pids(&restarted).len() == 2,
        "{common:?} survived a restart"
    );

    it_is_stopped_and_started(&fleet, id).await?;
    let (ran, back) = done(&fleet, &["deployments", "rollback", id, "--wait"]).await?;
    told(
        &ran,
        &["~ resource_tier: medium -> small", "rolling_back: "],
    )?;
    ensure!(
        back["resource_tier"] == "small" && back["status"] == "active",
        "{back}"
    );
    it_goes_and_comes_back_and_goes(&fleet, id, &back).await
}

async fn it_is_stopped_and_started(fleet: &Fleet, id: &str) -> Result<()> {
    let suspend = ["deployments", "suspend", id, "--reason", "unpaid", "--wait"];
    let (ran, suspended) = done(fleet, &suspend).await?;
    told(
        &ran,
        &[
            "~ status: active -> suspended",
            "+ suspended_reason: unpaid",
        ],
    )?;
    ensure!(
        suspended["status"] == "suspended" && pids(&suspended).is_empty(),
        "{suspended}"
    );
    fleet.dotmac(&suspend).await?.with_code(4)?;
    let (ran, resumed) = done(fleet, &["deployments", "resume", id, "--wait"]).await?;
    told(&ran, &["~ status: suspended -> provisioning"])?;
    ensure!(
        resumed["status"] == "active" && resumed["ready_pods"] == 2,
        "{resumed}"
    );
    Ok(())
}

async fn it_goes_and_comes_back_and_goes(fleet: &Fleet, id: &str, back: &Value) -> Result<()> {
    let (_, deleted) = done(fleet, &["deployments", "delete", id]).await?;
    ensure!(deleted["status"] == "destroying", "{deleted}");
    let (_, kept) = done(fleet, &["deployments", "undelete", id, "--wait"]).await?;
    ensure!(
        kept["status"] == "active" && pids(&kept) == pids(back),
        "{kept}"
    );
    let (ran, gone) = done(fleet, &["deployments", "delete", id, "--wait"]).await?;
    told(&ran, &["its grace time of", "is destroyed after"])?;
    ensure!(gone["status"] == "destroyed", "{gone}");
    let listed = fleet.dotmac_json(&["deployments", "list"]).await?;
    ensure!(
        !listed.to_string().contains(id),
        "a destroyed one is listed"
    );
    let listed = fleet
        .dotmac_json(&["deployments", "list", "--destroyed"])
        .await?;
    ensure!(
        listed.to_string().contains(id),
        "it is not shown when asked for"
    );
    Ok(())
}

/// `--dry-run` shows the plan of everything and changes nothing.
pub(crate) async fn a_dry_run_shows_the_plan_and_changes_nothing(fleet: Arc<Fleet>) -> Result<()> {
    let id = fleet.deploy("Plan ISP", "do-fra1").await?;
    let before = everything(&fleet).await?;
    let verbs: [(&[&str], &str); 8] = [
        (
            &["create", "--name", "Never ISP"],
            "+ tenant_name: Never ISP",
        ),
        (&["scale", &id, "--replicas", "2"], "~ replicas: 1 -> 2"),
        (
            &["update", &id, "--tier", "medium"],
            "~ resource_tier: small -> medium",
        ),
        (&["restart", &id], "~ restarts_ordered: 0 -> 1"),
        (&["suspend", &id], "~ status: active -> suspended"),
        (&["delete", &id], "~ status: active -> destroying"),
        (
            &["delete", &id, "--yes", "--wait"],
            "~ status: active -> destroying",
        ),
        (
            &["update", &id, "--domain", "plan.example"],
            "+ domain_name: plan.example",
        ),
    ];
    for (arguments, plan) in verbs {
        let ran = fleet
            .dotmac(&[&["deployments"], arguments, &["--dry-run"]].concat())
            .await?;
        told(&ran.ok()?, &[plan])?;
    }
    let same = ["deployments", "update", &id, "--tier", "small", "--dry-run"];
    told(
        &fleet.dotmac(&same).await?.with_code(8)?,
        &["nothing to change"],
    )?;
    // What the API would refuse is refused in the plan already.
    fleet
        .dotmac(&["deployments", "scale", &id, "--replicas", "9", "--dry-run"])
        .await?
        .with_code(4)?;
    fleet
        .dotmac(&["deployments", "resume", &id, "--dry-run"])
        .await?
        .with_code(4)?;
    let after = everything(&fleet).await?;
    ensure!(
        before == after,
        "a plan changed something: {before:?} {after:?}"
    );
    let program = fleet
        .dotmac_json(&["deployments", "scale", &id, "--replicas", "2", "--dry-run"])
        .await?;
    ensure!(
        program["dry_run"] == true && program["changes"][0]["field"] == "replicas",
        "{program}"
    );
    Ok(())
}

/// Only a person at a terminal is asked: y for a change, the id for a deletion; anything else changes nothing.
pub(crate) async fn a_person_at_a_terminal_is_asked_and_a_no_changes_nothing(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let id = fleet.deploy("Asked ISP", "do-fra1").await?;
    let before = everything(&fleet).await?;
    let (scale, delete) = (
        ["deployments", "scale", &id, "--replicas", "2"],
        ["deployments", "delete", &id],
    );
    for (arguments, typed) in [
        (&scale[..], "n\n"),
        (&scale, "\n"),
        (&scale, "\u{4}"),
        (&delete, "y\n"),
        (&delete, "asked-isp\n"),
    ] {
        let ran = fleet.dotmac_at_terminal(arguments, typed).await?;
        told(&ran.with_code(1)?, &["nothing was changed"])?;
    }
    let planned = fleet.dotmac_at_terminal(&scale, "n\n").await?;
    told(
        &planned,
        &[
            "\u{1b}[31m1\u{1b}[0m -> \u{1b}[32m2\u{1b}[0m",
            "Go on? [y/N]",
        ],
    )?;
    ensure!(
        everything(&fleet).await? == before,
        "a no changed something"
    );
    fleet.dotmac_at_terminal(&scale, "y\n").await?.ok()?;
    ensure!(
        fleet.deployment(&id).await?["replicas"] == 2,
        "a yes changed nothing"
    );
    let yes = [&scale[..4], &["1", "--yes"]].concat();
    fleet.dotmac_at_terminal(&yes, "").await?.ok()?;
    let deleted = fleet
        .dotmac_at_terminal(&delete, &format!("{id}\n"))
        .await?
        .ok()?;
    told(&deleted, &[&format!("Type {id} to go on:")])?;
    ensure!(
        fleet.deployment(&id).await?["status"] == "destroying",
        "it was typed in full"
    );
    Ok(())
}

/// No command fails while the controllers are killed and started again, one after the other.
pub(crate) async fn no_command_notices_that_controllers_are_restarted_one_by_one(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let id = fleet.deploy("Rolling ISP", "do-fra1").await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let loops: Vec<_> = [0_u64, 1]
        .into_iter()
        .map(|place| {
            let (fleet, id, is_over) = (Arc::clone(&fleet), id.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut commands = 0_u32;
                while !is_over.load(Ordering::Relaxed) {
                    if place == 0 {
                        let replicas = (commands % 2 + 1).to_string();
                        let scale = [
                            "deployments",
                            "scale",
                            id.as_str(),
                            "--replicas",
                            replicas.as_str(),
                            "--wait",
                        ];
                        fleet.dotmac(&scale).await?.ok()?;
                    } else {
                        fleet.dotmac(&["deployments", "list"]).await?.ok()?;
                        fleet.dotmac(&["deployments", "show", &id]).await?.ok()?;
                        let body = format!("Rolling {commands}");
                        fleet
                            .dotmac(&["tenants", "create", "--name", body.as_str()])
                            .await?
                            .ok()?;
                    }
                    commands += 1;
                }
                anyhow::Ok(commands)
            })
        })
        .collect();
    // First as an upgrade stops them, then as a crash does.
    for signal in [Signal::TERM, Signal::KILL] {
        for (place, name) in CONTROLLERS.into_iter().enumerate() {
            let before = fleet.process(name)?;
            before.send_signal(signal)?;
            fleet.back(name, &before).await?;
            let node = fleet.api()?.of_node(place + 1);
            until("it knows the leader", Duration::from_secs(30), async || {
                let status = node.get("/api/v1/cluster/status").await?;
                Ok((!status["leader"].is_null()).then_some(()))
            })
            .await?;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    for one in loops {
        let commands = one.await??;
        ensure!(commands >= 3, "only {commands} commands were run meanwhile");
    }
    // Each tenant was made once, however often it was asked for.
    let tenants = fleet.dotmac_json(&["tenants", "list"]).await?;
    let names = tenants["items"]
        .as_array()
        .context("no items")?
        .iter()
        .map(|one| deployment::text(one, "tenant_name"));
    let mut rolling: Vec<&str> = names.filter(|name| name.starts_with("Rolling ")).collect();
    let count = rolling.len();
    rolling.sort_unstable();
    rolling.dedup();
    ensure!(
        rolling.len() == count,
        "something was made twice: {rolling:?}"
    );
    Ok(())
}

/// Every exit code that `--help` lists.
pub(crate) async fn every_exit_code_means_what_help_says(fleet: Arc<Fleet>) -> Result<()> {
    let help = fleet.dotmac(&["--help"]).await?.ok()?;
    told(
        &help,
        &[
            "0  done",
            "1  failed",
            "2  wrong usage",
            "3  no such thing",
            "4  refused",
            "5  no controller",
            "6  still not",
            "7  it was changed",
            "8  nothing to change",
        ],
    )?;
    let id = fleet.deploy("Codes ISP", "do-fra1").await?;
    let show = fleet
        .dotmac(&["deployments", "show", "nobody-00000000"])
        .await?;
    show.with_code(3)?;
    fleet
        .dotmac(&["deployments", "update", &id])
        .await?
        .with_code(2)?;
    fleet
        .dotmac(&["deployments", "scale", &id, "--replicas", "50"])
        .await?
        .with_code(4)?;
    let nobody = [
        "--server",
        "http://127.0.0.1:1",
        "--deadline",
        "1",
        "deployments",
        "list",
    ];
    fleet.dotmac(&nobody).await?.with_code(5)?;
    let late = fleet
        .dotmac(&["deployments", "restart", &id, "--wait", "--timeout", "0"])
        .await?;
    told(
        &late.with_code(6)?,
        &["after 0 s", "next: dotmac deployments show"],
    )?;
    // A release that can only fail: the end says why, with its last lines.
    let manifest = fleet.home().join("broken.json");
    let broken = json!({"name": "broken", "version": "1.0.0", "channel": "broken", "description": "it ends at once",
        "components": {"web": {"run": {"command": ["sh", "-c", "echo the last word; exit 7"]}, "ports": ["http"],
            "probes": {"ready": {"http": {"port": "http", "path": "/"}, "period_ms": 200, "grace_ms": 1000}}}}});
    fs::write(&manifest, broken.to_string())?;
    fleet
        .dotmac(&["releases", "add", manifest.to_str().context("a path")?])
        .await?
        .ok()?;
    let create = [
        "deployments",
        "create",
        "--name",
        "Broken ISP",
        "--release",
        "broken:1.0.0",
        "--wait",
        "--timeout",
        "60",
    ];
    let failed = fleet.dotmac(&create).await?.with_code(1)?;
    told(&failed, &[": failed (", "exit code 7", "the last word"])?;
    Ok(())
}

/// A token is made by the command line, shown once or written to a private file, and worth nothing once revoked.
pub(crate) async fn a_token_is_made_here_shown_once_and_worth_nothing_once_revoked(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let path = fleet.home().join("auditor.token");
    let file = path.to_str().context("a path")?;
    let create = [
        "tokens",
        "create",
        "--name",
        "auditor of the year",
        "--role",
        "auditor",
        "--ttl",
        "1h",
        "--out",
        file,
    ];
    let (ran, made) = done(&fleet, &create).await?;
    let text = fs::read_to_string(&path)?;
    ensure!(
        fs::metadata(&path)?.permissions().mode() & 0o777 == 0o600,
        "anybody may read it"
    );
    ensure!(
        !format!("{}{}", ran.out, ran.err).contains(text.trim()),
        "a token in a file was shown"
    );
    fleet.dotmac(&create).await?.with_code(2)?;
    let id = deployment::id(&made)?;
    let as_auditor = |arguments: &[&'static str]| [&["--token-file", file][..], arguments].concat();
    let who = fleet.dotmac_json(&as_auditor(&["whoami"])).await?;
    ensure!(
        who["role"] == "auditor" && who["token"] == id.as_str(),
        "{who}"
    );
    fleet.dotmac(&as_auditor(&["audit"])).await?.ok()?;
    fleet
        .dotmac(&as_auditor(&[
            "deployments",
            "create",
            "--name",
            "Not Mine",
        ]))
        .await?
        .with_code(4)?;
    let shown = fleet
        .dotmac(&["tokens", "show", &id, "-o", "json"])
        .await?
        .ok()?;
    let listed = fleet.dotmac(&["tokens", "list"]).await?.ok()?;
    ensure!(
        listed.out.contains(&id) && !listed.out.contains(text.trim()),
        "{}",
        listed.out
    );
    ensure!(
        !shown.out.contains("digest") && !shown.out.contains(text.trim()),
        "{}",
        shown.out
    );
    fleet.dotmac(&["tokens", "delete", &id]).await?.ok()?;
    for node in 1..=3 {
        until(
            "no controller takes it any more",
            Duration::from_secs(1),
            async || {
                let api = fleet
                    .api()?
                    .with_token(Some(text.trim().to_owned()))
                    .of_node(node);
                let answer = api
                    .ask(reqwest::Method::GET, "/api/v1/whoami", None, None)
                    .await?;
                Ok((answer.status == 401).then_some(()))
            },
        )
        .await?;
    }
    fleet.dotmac(&as_auditor(&["whoami"])).await?.with_code(4)?;
    Ok(())
}

/// Every verb of tenants and regions.
pub(crate) async fn tenants_and_regions_have_their_verbs(fleet: Arc<Fleet>) -> Result<()> {
    let (ran, tenant) = done(&fleet, &["tenants", "create", "--name", "Noun ISP"]).await?;
    told(
        &ran,
        &["create tenant Noun ISP:", "+ tenant_name: Noun ISP"],
    )?;
    let id = deployment::id(&tenant)?;
    let (ran, renamed) = done(&fleet, &["tenants", "update", &id, "--name", "Verb ISP"]).await?;
    told(&ran, &["~ tenant_name: Noun ISP -> Verb ISP"])?;
    ensure!(
        renamed["tenant_name"] == "Verb ISP" && renamed["id"] == id.as_str(),
        "{renamed}"
    );
    told(
        &fleet.dotmac(&["tenants", "show", &id]).await?.ok()?,
        &["Verb ISP"],
    )?;
    told(&fleet.dotmac(&["tenants", "list"]).await?.ok()?, &[&id])?;
    let (_, gone) = done(&fleet, &["tenants", "delete", &id]).await?;
    ensure!(gone["status"] == "cancelled", "{gone}");

    let (_, region) = done(
        &fleet,
        &["regions", "create", "moon-1", "--description", "far away"],
    )
    .await?;
    ensure!(
        region["id"] == "moon-1" && region["agents"]["total"] == 0,
        "{region}"
    );
    let (ran, closed) = done(
        &fleet,
        &[
            "regions",
            "update",
            "moon-1",
            "--accepts-deployments",
            "false",
        ],
    )
    .await?;
    told(&ran, &["~ accepts_deployments: true -> false"])?;
    ensure!(closed["accepts_deployments"] == false, "{closed}");
    fleet
        .dotmac(&[
            "deployments",
            "create",
            "--name",
            "Moon ISP",
            "--region",
            "moon-1",
        ])
        .await?
        .with_code(4)?;
    told(
        &fleet.dotmac(&["regions", "list"]).await?.ok()?,
        &["moon-1", "yes, default"],
    )?;
    told(
        &fleet.dotmac(&["regions", "show", "do-fra1"]).await?.ok()?,
        &["1/1 connected"],
    )?;
    Ok(())
}

/// Every verb of agents and their tokens, and what can be ordered.
pub(crate) async fn agents_have_their_verbs(fleet: Arc<Fleet>) -> Result<()> {
    let agents = fleet
        .dotmac_json(&["agents", "list", "--region", "do-fra1"])
        .await?;
    let agent = deployment::id(&agents["items"][0])?;
    ensure!(
        agents["items"].as_array().map(Vec::len) == Some(1),
        "{agents}"
    );
    told(
        &fleet.dotmac(&["agents", "show", &agent]).await?.ok()?,
        &["do-fra1", "connected"],
    )?;
    let token = fleet
        .dotmac_json(&["agents", "token", "--region", "do-fra1"])
        .await?;
    let token = deployment::id(&token)?;
    told(
        &fleet.dotmac(&["agents", "tokens", "list"]).await?.ok()?,
        &[&token],
    )?;
    fleet
        .dotmac(&["agents", "tokens", "delete", &token])
        .await?
        .ok()?;
    let revoked = ["agents", "tokens", "list", "--status", "revoked"];
    told(&fleet.dotmac(&revoked).await?.ok()?, &[&token])?;
    // One that keeps something is not shut out.
    fleet.deploy("Kept ISP", "do-fra1").await?;
    fleet
        .dotmac(&["agents", "delete", &agent])
        .await?
        .with_code(4)?;

    told(
        &fleet.dotmac(&["tiers"]).await?.ok()?,
        &["micro", "250m to 1000m", "xlarge", "professional"],
    )?;
    told(&fleet.dotmac(&["whoami"]).await?.ok()?, &["platform_admin"])?;
    Ok(())
}
