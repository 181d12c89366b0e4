//! Controllers that come and go: three become five and three again while others write. Agents follow the trust root, what
//! runs goes on, nothing that was acknowledged is lost, and nothing is done that would lose the quorum. What cannot be
//! done is refused before anything is changed.
//!
//! Longer than 400 lines: it is one story with its steps.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::{
    api::Api,
    cli::{self, Ran},
    deployment,
    fleet::{ACTIVE_WITHIN, CONTROLLERS as CONTROLLERS_OF_FLEET, Fleet},
    programs,
    wait::until,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

const CONTROLLERS: &str = "/api/v1/cluster/controllers";
/// A controller that left hears it from the others for ten seconds, and ends.
const ENDED_WITHIN: Duration = Duration::from_secs(60);

/// A controller beside those of `make up`; killed when it is dropped.
struct Further<'a> {
    fleet: &'a Fleet,
    node: u16,
    process: Option<Child>,
}

impl<'a> Further<'a> {
    /// Its directory with a configuration; nothing runs.
    fn prepare(fleet: &'a Fleet, node: u16) -> Result<Self> {
        let further = Self {
            fleet,
            node,
            process: None,
        };
        let (api, link) = (fleet.port_base() + node - 1, fleet.port_base() + 9 + node);
        let text = format!(
            "node = {node}\ndata_dir = \"data\"\ngenesis = \"join.json\"\nseal_key_file = \"seal.key\"\n\n\
             [api]\nlisten = \"127.0.0.1:{api}\"\nstop_notice_ms = 100\n\n\
             [link]\nlisten = \"127.0.0.1:{link}\"\nadvertise = \"127.0.0.1:{link}\"\n\n\
             [log]\nbytes_max = 8388608\nkeep = 3\nfile = \"controller.log\"\n"
        );
        fs::create_dir_all(further.directory())?;
        fs::write(further.directory().join("controller.toml"), text)?;
        Ok(further)
    }

    fn directory(&self) -> PathBuf {
        self.fleet.home().join(format!("controller-{}", self.node))
    }

    fn file(&self, name: &str) -> String {
        self.directory().join(name).display().to_string()
    }

    async fn program(&self, verb: &str) -> Result<Ran> {
        let program = self.fleet.home().join("bin/dotmac-controller");
        let config = self.file("controller.toml");
        cli::run(&program, &[verb, "--config", &config], &[]).await
    }

    /// Makes its keys and its card.
    async fn init(&self) -> Result<()> {
        let made = self.program("init").await?.ok()?;
        fs::write(self.directory().join("card.json"), made.out)?;
        Ok(())
    }

    async fn add(&self) -> Result<Ran> {
        let (card, join) = (self.file("card.json"), self.file("join.json"));
        let add = [
            "cluster",
            "add-node",
            "--card",
            &card,
            "--join-file",
            &join,
            "--yes",
        ];
        self.fleet.dotmac(&add).await
    }

    fn start(&mut self) -> Result<()> {
        let child = Command::new(self.fleet.home().join("bin/dotmac-controller"))
            .args(["run", "--config", &self.file("controller.toml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.process = Some(child);
        Ok(())
    }

    async fn promote(&self) -> Result<Ran> {
        let (node, card, key) = (
            self.node.to_string(),
            self.file("card.json"),
            root_key(self.fleet),
        );
        let promote = [
            "cluster",
            "promote",
            &node,
            "--root-key-file",
            &key,
            "--card",
            &card,
            "--wait",
            "--yes",
        ];
        self.fleet.dotmac(&promote).await
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Further<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Who votes and signs now.
async fn signers(api: &Api) -> Result<Vec<u64>> {
    let status = api.get("/api/v1/cluster/status").await?;
    let nodes = status["nodes"].as_array().context("no nodes")?;
    let signs = nodes.iter().filter(|node| node["signs"] == true);
    Ok(signs.filter_map(|node| node["id"].as_u64()).collect())
}

pub(crate) async fn three_controllers_become_five_and_three_again_and_agents_obey_the_new_set()
-> Result<()> {
    let fleet = Arc::new(Fleet::start("membership").await?);
    let told = run(&fleet).await;
    if told.is_err() {
        fleet.keep();
    }
    told.with_context(|| fleet.tails())
}

async fn run(fleet: &Arc<Fleet>) -> Result<()> {
    fleet.settled().await?;
    let id = fleet.deploy("Staying ISP", "do-fra1").await?;
    let process = deployment::process(&fleet.deployment(&id).await?)?;
    let (stop, stopped) = watch::channel(false);
    let writers: Vec<_> = (0..2)
        .map(|number| tokio::spawn(write(Arc::clone(fleet), number, stopped.clone())))
        .collect();

    let [mut four, mut five] = [Further::prepare(fleet, 4)?, Further::prepare(fleet, 5)?];
    for further in [&four, &five] {
        further.init().await?;
    }
    check_refusals(fleet, &four).await?;
    check_cards(fleet, &four).await?;
    four.add().await?.ok()?;
    check_admitted(&four).await?;
    let second = five.add().await?;
    ensure!(
        second.code != 0 && second.err.contains("one change at a time"),
        "{second:?}"
    );
    four.start()?;
    four.promote().await?.ok()?;
    five.add().await?.ok()?;
    five.start()?;
    five.promote().await?.ok()?;
    let (node, key) = ("5".to_owned(), root_key(fleet));
    let again = [
        "cluster",
        "promote",
        &node,
        "--root-key-file",
        &key,
        "--yes",
    ];
    fleet.dotmac(&again).await?.ok()?;
    let first = fleet.api()?;
    ensure!(
        signers(&first).await? == [1, 2, 3, 4, 5],
        "not five that sign"
    );
    fleet.deploy("Five ISP", "do-fra1").await?;

    // A wiped disk is another controller: it neither starts nor is it admitted under the number it had.
    five.kill();
    fs::remove_dir_all(five.directory().join("data"))?;
    five.init().await?;
    let refused = five.program("run").await?;
    ensure!(
        refused.code != 0 && refused.err.contains("the disk was wiped"),
        "{refused:?}"
    );
    let refused = five.add().await?;
    ensure!(
        refused.code == 2 && refused.err.contains("\n  incarnation: "),
        "{refused:?}"
    );
    remove(fleet, 5).await?.ok()?;
    let again = remove(fleet, 5).await?.ok()?;
    ensure!(again.err.contains("nothing to do"), "{again:?}");

    let leader = first.get("/api/v1/cluster/status").await?["leader"].as_u64();
    let leader = leader.context("nobody leads")?;
    remove(fleet, leader).await?.ok()?;
    stop.send_replace(true);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await??);
    }
    ensure!(
        acknowledged.len() > 50,
        "only {} writes",
        acknowledged.len()
    );

    let left: Vec<u64> = (1..=4).filter(|node| *node != leader).collect();
    let original = left.iter().find(|node| **node != 4).copied();
    let api = api_of(fleet, original.context("none of the first three is left")?)?;
    ensure!(signers(&api).await? == left, "not the three that stay");
    check_written(&api, &acknowledged).await?;
    check_quorum(fleet, &left).await?;

    ensure!(process.is_alive(), "what ran was stopped");
    check_orders(&api).await?;
    let shown = api
        .get(&format!("{}/{id}", dotmac_tests::api::DEPLOYMENTS))
        .await?;
    ensure!(
        deployment::process(&shown)? == process,
        "it was restarted: {shown}"
    );
    check_left_out(fleet, leader).await?;
    check_upgrade(fleet, leader).await
}

/// Numbers that there are not, and a file that is there, before anything is changed.
async fn check_refusals(fleet: &Fleet, four: &Further<'_>) -> Result<()> {
    let (card, join, key) = (
        four.file("card.json"),
        four.file("join.json"),
        root_key(fleet),
    );
    let taken = four.file("controller.toml");
    let by_root = ["--root-key-file", key.as_str(), "--yes"];
    let promote = ["cluster", "promote", "9"];
    let remove = ["cluster", "remove-node", "0"];
    let replace = [
        "cluster",
        "replace-node",
        "9",
        "--card",
        &card,
        "--join-file",
        &join,
    ];
    let over = [
        "cluster",
        "replace-node",
        "2",
        "--card",
        &card,
        "--join-file",
        &taken,
    ];
    let none = |number| format!("there is no controller {number}: the numbers are 1, 2, 3");
    for (verb, why) in [
        (&promote[..], none(9)),
        (&remove[..], none(0)),
        (&replace[..], none(9)),
        (&over[..], format!("{taken} exists")),
    ] {
        let ran = fleet
            .dotmac(&[verb, &by_root].concat())
            .await?
            .with_code(2)?;
        ensure!(ran.err.contains(&why), "{ran:?}");
        let plan = ["vote", "sign", "admit"]
            .iter()
            .any(|word| ran.err.contains(word));
        ensure!(!plan, "a plan was shown: {ran:?}");
    }
    ensure!(fs::metadata(&join).is_err(), "{join} was written");
    ensure!(
        fs::read_to_string(&taken)?.starts_with("node = 4"),
        "{taken} was changed"
    );
    let promoted = fleet
        .dotmac(&[&["cluster", "promote", "1"][..], &by_root].concat())
        .await?
        .ok()?;
    ensure!(promoted.err.contains("nothing to do"), "{promoted:?}");
    let dry = [
        "cluster",
        "promote",
        "1",
        "--root-key-file",
        &key,
        "--dry-run",
    ];
    fleet.dotmac(&dry).await?.with_code(8)?;
    let listed = fleet.api()?.get(CONTROLLERS).await?;
    let count = listed["items"].as_array().map(Vec::len);
    ensure!(count == Some(3), "{listed}");
    Ok(())
}

/// Cards that would not be admitted and a file that cannot be written are refused without a plan, and admit nobody.
async fn check_cards(fleet: &Fleet, four: &Further<'_>) -> Result<()> {
    let (card, join, key) = (
        four.file("wrong.json"),
        four.file("join.json"),
        root_key(fleet),
    );
    let own = fs::read_to_string(four.file("card.json"))?;
    let listed = fleet.api()?.get(CONTROLLERS).await?;
    let first = &listed["items"][0];
    let wrong = [
        ("link_address", first["link_address"].clone()),
        ("api_address", "foo".into()),
        ("node", 0.into()),
        ("incarnation", first["incarnation"].clone()),
    ];
    let add = ["add-node"];
    let replace = ["replace-node", "2", "--root-key-file", &key];
    for (field, value) in wrong {
        let mut changed: Value = serde_json::from_str(&own)?;
        changed[field] = value;
        fs::write(&card, changed.to_string())?;
        for verb in [&add[..], &replace[..]] {
            for consent in ["--dry-run", "--yes"] {
                let words = ["--card", &card, "--join-file", &join, consent];
                let asked = [&["cluster"], verb, &words].concat();
                let ran = fleet.dotmac(&asked).await?.with_code(4)?;
                let names_it = ran.err.contains(&format!("\n  {field}: "));
                ensure!(names_it && !ran.err.contains("admit controller"), "{ran:?}");
            }
        }
    }
    let own = four.file("card.json");
    let nowhere = [
        "cluster",
        "add-node",
        "--card",
        &own,
        "--join-file",
        "/nonexistent/j.json",
        "--yes",
    ];
    let ran = fleet.dotmac(&nowhere).await?.with_code(2)?;
    let why = "--join-file: /nonexistent/j.json cannot be written";
    ensure!(
        ran.err.contains(why) && !ran.err.contains("admit"),
        "{ran:?}"
    );
    ensure!(
        fleet.api()?.get(CONTROLLERS).await? == listed,
        "somebody was admitted"
    );
    ensure!(fs::metadata(&join).is_err(), "{join} was written");
    Ok(())
}

/// Admitted once more: there is nothing to do, the file is kept, and another card under the number is refused.
async fn check_admitted(four: &Further<'_>) -> Result<()> {
    let join = four.directory().join("join.json");
    let before = fs::read_to_string(&join)?;
    let mode = fs::metadata(&join)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the mode of {} is {mode:o}", join.display());
    let again = four.add().await?.ok()?;
    ensure!(again.err.contains("nothing to do"), "{again:?}");
    ensure!(fs::read_to_string(&join)? == before, "it was written again");
    let card = four.directory().join("card.json");
    let own = fs::read_to_string(&card)?;
    let mut moved: Value = serde_json::from_str(&own)?;
    moved["api_address"] = "127.0.0.1:9".into();
    fs::write(&card, moved.to_string())?;
    let refused = four.add().await?.with_code(2)?;
    ensure!(
        refused.err.contains("\n  api_address: ")
            && refused.err.contains("127.0.0.1:9 in the card"),
        "{refused:?}"
    );
    Ok(fs::write(&card, own)?)
}

/// A controller that left ends by itself and is started no more; `make up` on the fleet that runs says so, and does not
/// list its address.
async fn check_left_out(fleet: &Fleet, gone: u64) -> Result<()> {
    let left = format!("controller-{gone}");
    let noted = fleet.home().join(&left).join("retired");
    until("it is noted as retired", ENDED_WITHIN, async || {
        Ok(noted.exists().then_some(()))
    })
    .await?;
    ensure!(fleet.process(&left).is_err(), "{left} runs");
    // What the supervisor noted the cluster says, too.
    fs::remove_file(&noted)?;
    let ran = fleet.dotmac(&["local", "up", "--detach"]).await?.ok()?;
    let said = ran.err.matches(&left_out(&left)).count();
    let address = format!(
        "http://127.0.0.1:{}",
        u64::from(fleet.port_base()) + gone - 1
    );
    ensure!(said == 1 && !ran.out.contains(&address), "{ran:?}");
    ensure!(ran.out.contains("already up: "), "{ran:?}");
    ensure!(noted.exists(), "{left} is not noted");
    Ok(())
}

fn left_out(left: &str) -> String {
    format!("{left} is no member of the cluster any more (retired): it is left out")
}

/// `make up` with new programs leaves out the controller that left, and upgrades the others.
async fn check_upgrade(fleet: &Fleet, gone: u64) -> Result<()> {
    let new = fleet.home().join("new");
    fs::create_dir_all(&new)?;
    for program in fs::read_dir(fleet.home().join("bin"))? {
        let program = program?;
        fs::copy(program.path(), new.join(program.file_name()))?;
    }
    programs::install_from(&new, fleet.home())?;
    let left = format!("controller-{gone}");
    let ran = fleet.dotmac(&["local", "up", "--detach"]).await?.ok()?;
    let line = left_out(&left);
    ensure!(ran.err.matches(&line).count() == 1, "{ran:?}");
    for name in CONTROLLERS_OF_FLEET {
        let is_restarted = ran.err.contains(&format!("{name} restarted in"));
        ensure!(is_restarted == (name != left), "{name}: {ran:?}");
    }
    ensure!(fleet.process(&left).is_err(), "{left} was started");
    let again = fleet.dotmac(&["local", "up", "--detach"]).await?.ok()?;
    ensure!(!again.err.contains("restart"), "{again:?}");
    // A fleet that starts anew finds it out again, and starts it no more once that is noted.
    let up_again = async || {
        fleet.dotmac(&["local", "down"]).await?.ok()?;
        fleet.dotmac(&["local", "up", "--detach"]).await?.ok()
    };
    fs::remove_file(fleet.home().join(&left).join("retired"))?;
    let found = up_again().await?;
    ensure!(found.err.contains(&line), "{found:?}");
    ensure!(found.err.contains("2 controllers are ready"), "{found:?}");
    up_again().await?;
    ensure!(fleet.process(&left).is_err(), "{left} was started");
    Ok(())
}

/// An agent takes orders that the new set signs.
async fn check_orders(api: &Api) -> Result<()> {
    let body = json!({"tenant_name": "Three ISP", "region": "do-fra1", "resource_tier": "small"});
    let created = api
        .post(dotmac_tests::api::DEPLOYMENTS, &body)
        .await?
        .ok(201)?;
    let new = deployment::id(&created)?;
    until("it is active by the new set", ACTIVE_WITHIN, async || {
        let shown = api
            .get(&format!("{}/{new}", dotmac_tests::api::DEPLOYMENTS))
            .await?;
        Ok((shown["status"] == "active").then_some(()))
    })
    .await
}

/// Of three that are left one is held down: to remove another one would lose the quorum.
async fn check_quorum(fleet: &Fleet, left: &[u64]) -> Result<()> {
    let originals: Vec<u64> = left.iter().copied().filter(|node| *node < 4).collect();
    let (held, other) = (originals[0], originals[1]);
    let name = format!("controller-{held}");
    let hold = fleet.kill_and_hold(&[&name]).await?;
    let refused = remove(fleet, other).await?;
    ensure!(refused.code != 0, "{refused:?}");
    let names = format!("no answer from controller {held}");
    ensure!(refused.err.contains(&names), "{refused:?}");
    let health = fleet.dotmac(&["cluster", "health"]).await?;
    let away = format!("quorum: controller {held} cannot be reached");
    ensure!(health.code != 0 && health.out.contains(&away), "{health:?}");
    drop(hold);
    let api = api_of(fleet, other)?;
    until("it is back", Duration::from_secs(30), async || {
        let status = api.get("/api/v1/cluster/status").await?;
        let nodes = status["nodes"].as_array().context("no nodes")?;
        Ok(nodes
            .iter()
            .all(|node| node["state"] != "unreachable")
            .then_some(()))
    })
    .await?;
    let listed = api.get(CONTROLLERS).await?;
    let voters = listed["items"].as_array().into_iter().flatten();
    let voters = voters.filter(|one| one["standing"] == "voter" && one["signs"] == true);
    ensure!(voters.count() == 3, "{listed}");
    Ok(())
}

/// Everything that was acknowledged is there, once.
async fn check_written(api: &Api, acknowledged: &[String]) -> Result<()> {
    let tokens = api.list("/api/v1/tokens?limit=1000", "cursor").await?;
    let found: Vec<&str> = tokens
        .iter()
        .filter_map(|token| token["id"].as_str())
        .collect();
    let unique: BTreeSet<&str> = found.iter().copied().collect();
    ensure!(unique.len() == found.len(), "a token is there twice");
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|id| !unique.contains(id.as_str()))
        .collect();
    ensure!(
        lost.is_empty(),
        "of {} writes were lost: {lost:?}",
        acknowledged.len()
    );
    Ok(())
}

async fn remove(fleet: &Fleet, node: u64) -> Result<Ran> {
    let (node, key) = (node.to_string(), root_key(fleet));
    let remove = [
        "cluster",
        "remove-node",
        &node,
        "--root-key-file",
        &key,
        "--yes",
    ];
    fleet.dotmac(&remove).await
}

fn root_key(fleet: &Fleet) -> String {
    fleet.home().join("keys/root.key").display().to_string()
}

/// A client of one controller, be it a further one.
fn api_of(fleet: &Fleet, node: u64) -> Result<Api> {
    let path = fleet.home().join("admin.token");
    let token = fs::read_to_string(path)?.trim().to_owned();
    let port = fleet.port_base() + u16::try_from(node)? - 1;
    Ok(Api::new(port, Some(token))?.of_node(1))
}

/// Makes tokens, one after the other, until it is stopped; asks whichever controller serves, with the same key until it
/// is answered.
async fn write(
    fleet: Arc<Fleet>,
    writer: u64,
    stopped: watch::Receiver<bool>,
) -> Result<Vec<String>> {
    let apis = (1..=5)
        .map(|node| api_of(&fleet, node))
        .collect::<Result<Vec<_>>>()?;
    let mut acknowledged = Vec::new();
    for number in 0_u64.. {
        let id = format!("{writer:04x}{number:012x}");
        let digest = dotmac_controller::node::bearer_digest(&format!("secret of {id}")).to_string();
        let body: Value =
            json!({"id": id, "secret_digest": digest, "name": "a writer's", "role": "auditor"});
        let key = format!("member-{id}");
        let mut turn = 0;
        loop {
            if *stopped.borrow() {
                return Ok(acknowledged);
            }
            let asked = apis[turn % apis.len()].ask(
                Method::POST,
                "/api/v1/tokens",
                Some(&body),
                Some(&key),
            );
            match asked.await {
                Ok(answer) if answer.status == 201 => {
                    acknowledged.push(id);
                    break;
                }
                Ok(answer) => ensure!(
                    answer.status >= 500 || answer.status == 429,
                    "a retried write was refused: {answer:?}"
                ),
                Err(_) => {}
            }
            turn += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(acknowledged)
}
