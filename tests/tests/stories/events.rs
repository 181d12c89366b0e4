//! Who watches what happens, through whichever controller.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use dotmac_tests::{
    api::DEPLOYMENTS,
    fleet::{CONTROLLERS, Fleet},
    wait::until,
    watch::{Event, Following, Watch},
};
use futures::{StreamExt as _, future::try_join_all, stream::FuturesUnordered};
use reqwest::Method;
use serde_json::{Value, json};

/// Watchers of the large story, over all controllers.
const WATCHERS: usize = 200;
/// Deployments that change meanwhile.
const DEPLOYMENTS_CHANGED: usize = 50;

/// Created, scaled, deleted: seen through a follower, and by a command whose controller is killed meanwhile.
pub(crate) async fn whoever_watches_a_follower_sees_all_and_outlives_his_controller(
    fleet: Arc<Fleet>,
) -> Result<()> {
    fleet.settled().await?;
    let (leader, _) = fleet.leader().await?;
    let follower = leader % 3 + 1;
    let api = fleet.api()?;
    let mut watch = Watch::open(&api.of_node(follower), "types=deployment,cluster").await?;
    watch.until(|event| event.kind == "synced").await?;
    let id = fleet
        .create(
            &json!({"tenant_name": "Watched ISP", "region": "do-fra1", "resource_tier": "small"}),
        )
        .await?;
    let active = watch
        .until(|event| is(event, &id, "status", "active"))
        .await?;
    let shown = api
        .of_node(follower)
        .get(&format!("{DEPLOYMENTS}/{id}"))
        .await?;
    ensure!(
        active.data["id"] == shown["id"] && active.id.parse::<u64>()? > 0,
        "{active:?}"
    );

    // The command asks this very controller first, and the others when it is gone.
    let nodes = [follower, follower % 3 + 1, (follower + 1) % 3 + 1];
    let servers = nodes.map(|node| format!("http://127.0.0.1:{}", fleet.port_base() + port(node)));
    let token = fleet.home().join("admin.token").display().to_string();
    let servers = servers.join(",");
    let arguments = [
        "--server",
        &servers,
        "--token-file",
        &token,
        "deployments",
        "watch",
        &id,
        "--until",
        "destroyed",
        "--timeout",
        "120",
    ];
    let mut command = Following::start(&fleet.home().join("bin/dotmac"), &arguments)?;
    command.until(&[&id, "active"]).await?;

    let scale = json!({"replicas": 2, "reason": "a story"});
    let path = format!("{DEPLOYMENTS}/{id}/scale");
    api.post(&path, &scale).await?.ok(202)?;
    let is_two = |event: &Event| event.data["replicas"] == 2 && event.data["ready_pods"] == 2;
    watch
        .until(|event| event.data["id"] == id.as_str() && is_two(event))
        .await?;
    command.until(&[&id, "2/2"]).await?;

    let hold = fleet.kill_and_hold(&[CONTROLLERS[follower - 1]]).await?;
    // Its own stream ends with it.
    while let Ok(Some(_)) = watch.next().await {}
    fleet.delete(&id).await?;
    command.until(&[&id, "destroying"]).await?;
    drop(hold);
    command.until(&[&id, "destroyed"]).await?;
    let status = command.end().await?;
    ensure!(
        status.code() == Some(0),
        "`deployments watch --until destroyed` ended with {status}"
    );

    // Reconnecting anywhere gives the current state, and then changes.
    let mut again = Watch::open(&api.of_node(leader), "types=deployment").await?;
    let first = again.until(|event| event.data["id"] == id.as_str()).await?;
    ensure!(first.data["status"] == "destroyed", "{first:?}");
    again.until(|event| event.kind == "synced").await?;
    fleet.settled().await
}

/// With a token of one tenant, whatever happens to the other.
pub(crate) async fn law_7_a_tenants_watcher_sees_nothing_of_another_tenant(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let (own, foreign) = (
        fleet.deploy("Own ISP", "do-fra1").await?,
        fleet.deploy("Foreign ISP", "aws-eu-west-1").await?,
    );
    let made = fleet
        .dotmac_json(&[
            "tokens",
            "create",
            "--name",
            "watcher",
            "--role",
            "tenant_admin",
            "--tenant",
            &own,
            "--yes",
        ])
        .await?;
    let token = made["token"].as_str().context("no token")?.to_owned();
    let api = fleet.api()?.with_token(Some(token));
    let mut watches = Vec::new();
    for node in 1..=3 {
        watches.push(Watch::open(&api.of_node(node), "").await?);
    }
    // First the foreign one changes, then the own one: whoever saw the second would have seen the first.
    fleet.crash(&foreign, 7).await?;
    fleet
        .until_told(&foreign, "instance.restarted", "", Duration::from_secs(20))
        .await?;
    fleet.delete(&own).await?;
    for watch in &mut watches {
        loop {
            let event = watch.next().await?.context("the stream ended")?;
            ensure!(!event.data.to_string().contains(&foreign), "{event:?}");
            let is_platform =
                ["agent", "release", "token", "cluster"].contains(&event.kind.as_str());
            ensure!(!is_platform, "{event:?}");
            if is(&event, &own, "status", "destroying") {
                break;
            }
        }
    }
    Ok(())
}

/// Two hundred people, fifty deployments: in the end all know the same.
pub(crate) async fn two_hundred_watchers_end_with_the_same_last_state(
    fleet: Arc<Fleet>,
) -> Result<()> {
    fleet.settled().await?;
    let api = fleet.api()?;
    // Without its agent nothing is started in this region, and all of it is shown all the same.
    let _hold = fleet.kill_and_hold(&["byov-lagos"]).await?;
    let watchers = (0..WATCHERS).map(|number| {
        let api = api.of_node(number % 3 + 1);
        async move { Watch::open(&api, "types=deployment").await }
    });
    let watchers = try_join_all(watchers).await?;
    let known: Vec<Known> = watchers.iter().map(|_| Known::default()).collect();
    let mut watching: FuturesUnordered<_> = watchers
        .into_iter()
        .zip(&known)
        .map(|(watch, known)| keep(watch, known))
        .collect();
    let changing = async {
        for number in 0..DEPLOYMENTS_CHANGED {
            let body = json!({"tenant_name": format!("Crowd {number}"), "region": "byov-lagos"});
            let id = fleet.create(&body).await?;
            fleet.delete(&id).await?;
            if number % 2 == 0 {
                let undelete = format!("{DEPLOYMENTS}/{id}/undelete");
                let undone = api.ask(Method::POST, &undelete, None, None).await?;
                undone.ok(200)?;
            }
        }
        let path = format!("{DEPLOYMENTS}?include=destroyed");
        until(
            "everybody knows what there is",
            Duration::from_secs(90),
            async || {
                let all = api.list(&path, "cursor").await?;
                let all: Deployments = all.into_iter().map(|one| (key(&one), one)).collect();
                ensure!(
                    all.len() >= DEPLOYMENTS_CHANGED,
                    "only {} are there",
                    all.len()
                );
                for known in &known {
                    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                    ensure!(*known == all, "{}", differences(&known, &all));
                }
                Ok(Some(()))
            },
        )
        .await
    };
    tokio::select! {
        changed = changing => changed,
        ended = watching.next() => match ended {
            Some(Err(error)) => Err(error),
            _ => bail!("a stream ended"),
        },
    }
}

/// Deployments by id, as somebody knows them.
type Deployments = BTreeMap<String, Value>;
/// What one watcher knows.
type Known = Mutex<Deployments>;

/// Keeps what a watcher knows for as long as its stream lasts.
async fn keep(mut watch: Watch, known: &Known) -> Result<()> {
    while let Some(event) = watch.next().await? {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        match event.kind.as_str() {
            "deployment" => {
                known.insert(key(&event.data), event.data);
            }
            "deployment.gone" => {
                known.remove(&key(&event.data));
            }
            "reset" => known.clear(),
            _ => {}
        }
    }
    Ok(())
}

fn differences(known: &Deployments, expected: &Deployments) -> String {
    let differ = expected
        .iter()
        .filter(|(id, one)| known.get(*id) != Some(one));
    let differ: Vec<String> = differ
        .take(3)
        .map(|(id, one)| {
            format!(
                "{id}: {:?} is {one}",
                known.get(id).map(ToString::to_string)
            )
        })
        .collect();
    differ.join("\n")
}

fn key(deployment: &Value) -> String {
    deployment["id"].as_str().unwrap_or_default().to_owned()
}

fn is(event: &Event, id: &str, member: &str, word: &str) -> bool {
    event.kind == "deployment" && event.data["id"] == id && event.data[member] == word
}

/// How far a controller's port is from the first.
fn port(node: usize) -> u16 {
    u16::try_from(node - 1).unwrap_or_default()
}
