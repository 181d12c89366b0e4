//! Files of deployments: applied, applied again, wrong, and applied by somebody who was interrupted.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::{deployment, fleet::Fleet, wait::until};
use serde_json::{Value, json};

use super::cli::{done, everything, pids, told};

/// A file of deployments: made, changed, left alone, and never the reason why something is gone.
pub(crate) async fn a_file_is_applied_once_and_then_there_is_nothing_to_do(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let bystander = fleet.deploy("Bystander", "do-fra1").await?;
    let (file, secret) = (
        fleet.home().join("isps.yaml"),
        fleet.home().join("database-url"),
    );
    fs::write(&secret, "postgres://user:canary-in-a-file@db.example/isp\n")?;
    let text = format!(
        "tenant_name: File ISP\nregion: do-fra1\nreplicas: 2\nfeatures: {{billing: true}}\n\
         database_url: {{from_file: {}}}\n---\n\
         tenant_name: File ISP\nenvironment: staging\nregion: byov-lagos\nstate: suspended\n",
        secret.display()
    );
    fs::write(&file, &text)?;
    let file = file.to_str().context("a path")?;
    let apply = ["apply", "-f", file, "--wait"];

    told(
        &fleet.dotmac(&["diff", "-f", file]).await?.with_code(1)?,
        &["create File ISP (production):", "+ replicas: 2"],
    )?;
    let (ran, first) = done(&fleet, &apply).await?;
    ensure!(actions(&first) == ["created", "created"], "{first}");
    ensure!(
        !format!("{}{}", ran.out, ran.err).contains("canary"),
        "a secret was shown"
    );
    let id = deployment::text(&first["items"][0], "id").to_owned();
    ensure!(
        deployment::text(&first["items"][1], "id") == format!("{id}-staging"),
        "another tenant: {first}"
    );
    let (shown, staging) = (
        fleet.deployment(&id).await?,
        fleet.deployment(&format!("{id}-staging")).await?,
    );
    ensure!(
        shown["ready_pods"] == 2 && shown["credentials"] == json!(["database.url"]),
        "{shown}"
    );
    ensure!(
        staging["status"] == "suspended" && pids(&staging).is_empty(),
        "{staging}"
    );

    let before = everything(&fleet).await?;
    let (_, second) = done(&fleet, &apply).await?;
    ensure!(actions(&second) == ["unchanged", "unchanged"], "{second}");
    fleet.dotmac(&["diff", "-f", file]).await?.ok()?;
    fleet
        .dotmac(&["apply", "-f", file, "--dry-run"])
        .await?
        .with_code(8)?;
    ensure!(
        everything(&fleet).await? == before,
        "a second apply changed something"
    );

    export_says_the_same(&fleet, &id).await?;
    what_is_left_out_stays(&fleet, &text, file, &id).await?;
    ensure!(
        fleet.deployment(&bystander).await?["status"] == "active",
        "the bystander was touched"
    );
    Ok(())
}

async fn export_says_the_same(fleet: &Fleet, id: &str) -> Result<()> {
    // An export is a file as well, and says the same.
    let exported = fleet
        .dotmac(&["deployments", "export", id, &format!("{id}-staging")])
        .await?
        .ok()?;
    let export = fleet.home().join("export.yaml");
    fs::write(&export, exported.out)?;
    fleet
        .dotmac(&["diff", "-f", export.to_str().context("a path")?])
        .await?
        .ok()?;
    Ok(())
}

async fn what_is_left_out_stays(fleet: &Fleet, text: &str, file: &str, id: &str) -> Result<()> {
    let apply = ["apply", "-f", file, "--wait"];
    // One item less, one changed: the one that is gone from the file stays as it is (law 2).
    let edited = text.split("---\n").next().context("the first document")?;
    fs::write(
        file,
        edited.replace(
            "replicas: 2",
            "replicas: 1\nresource_tier: medium\ndomain_name: file.example",
        ),
    )?;
    let (_, third) = done(fleet, &apply).await?;
    ensure!(actions(&third) == ["changed"], "{third}");
    let shown = fleet.deployment(id).await?;
    ensure!(
        shown["replicas"] == 1
            && shown["resource_tier"] == "medium"
            && shown["domain_name"] == "file.example",
        "{shown}"
    );
    let staging = fleet.deployment(&format!("{id}-staging")).await?;
    ensure!(
        staging["status"] == "suspended",
        "what the file does not name was touched: {staging}"
    );
    Ok(())
}

/// A file in which anything is wrong changes nothing at all, and says where it is wrong.
pub(crate) async fn a_file_with_anything_wrong_in_it_changes_nothing(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let before = everything(&fleet).await?;
    let path = fleet.home().join("wrong.yaml");
    let file = path.to_str().context("a path")?;
    let good = "tenant_name: Good ISP\n---\n";
    let wrong = [
        (
            "tenant_name: Bad ISP\nresource_teir: small\n",
            2,
            "wrong.yaml:4: unknown field `resource_teir`; did you mean `resource_tier`?",
        ),
        (
            "tenant_name: Bad ISP\n  region: do-fra1\n",
            2,
            "wrong.yaml:4: ",
        ),
        (
            "tenant_name: Good ISP\n",
            2,
            "wrong.yaml:3: Good ISP (production) is already in line 1",
        ),
        (
            "id: nobody-00000000\n",
            2,
            "there is no deployment nobody-00000000",
        ),
        (
            "tenant_name: Bad ISP\nregion: mars\n",
            4,
            "wrong.yaml:4: Bad ISP (production)",
        ),
        (
            "tenant_name: Bad ISP\nregion: do-fra1\ndomain_name: not..a.name\n",
            4,
            "wrong.yaml:5: Bad ISP (production)",
        ),
        ("tenant_id: nobody-00000000\n", 3, "nothing was changed"),
    ];
    for (text, code, words) in wrong {
        fs::write(&path, format!("{good}{text}"))?;
        told(
            &fleet
                .dotmac(&["apply", "-f", file, "--wait"])
                .await?
                .with_code(code)?,
            &[words],
        )?;
    }
    fleet
        .dotmac(&["apply", "-f", "/nowhere.yaml"])
        .await?
        .with_code(1)?;
    // Two tenants of one name: nobody guesses which one is meant.
    let twins = [
        fleet.create(&json!({"tenant_name": "Twin"})).await?,
        fleet.create(&json!({"tenant_name": "Twin"})).await?,
    ];
    fs::write(&path, "tenant_name: Twin\nreplicas: 2\n")?;
    told(
        &fleet.dotmac(&["apply", "-f", file]).await?.with_code(2)?,
        &["wrong.yaml:1: ", &twins[0], &twins[1]],
    )?;
    let after = everything(&fleet).await?;
    let made: Vec<&String> = after
        .difference(&before)
        .filter(|one| !one.contains("twin-"))
        .collect();
    ensure!(made.is_empty(), "a wrong file changed {made:?}");
    Ok(())
}

/// An apply that is killed half-way is simply run again: everything is there once.
pub(crate) async fn an_apply_that_was_killed_is_run_again_and_doubles_nothing(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let path = fleet.home().join("many.json");
    let items: Vec<Value> = (0..6)
        .map(|place| json!({"tenant_name": format!("Many {place}"), "region": "byov-lagos"}))
        .collect();
    fs::write(&path, json!(items).to_string())?;
    let apply = ["apply", "-f", path.to_str().context("a path")?, "--wait"];
    let made = async || {
        let list = fleet.dotmac_json(&["deployments", "list"]).await?;
        let items = list["items"].as_array().context("no items")?;
        let names = items
            .iter()
            .map(|one| deployment::text(one, "tenant_name").to_owned());
        anyhow::Ok(
            names
                .filter(|name| name.starts_with("Many "))
                .collect::<Vec<_>>(),
        )
    };
    let half_way = until(
        "the first two are there",
        Duration::from_secs(20),
        async || Ok((made().await?.len() >= 2).then_some(())),
    );
    // Whichever ends first: what is dropped is killed.
    tokio::select! {
        seen = half_way => seen?,
        ran = fleet.dotmac(&apply) => drop(ran?.ok()?),
    }
    let left = 6 - made().await?.len();
    ensure!(left > 0, "it was killed too late to show anything");
    let (_, report) = done(&fleet, &apply).await?;
    let created = actions(&report)
        .iter()
        .filter(|action| **action == "created")
        .count();
    ensure!(
        created <= left,
        "{created} were made anew, {left} were missing: {report}"
    );
    let mut names = made().await?;
    names.sort_unstable();
    names.dedup();
    ensure!(names.len() == 6 && made().await?.len() == 6, "{names:?}");
    Ok(())
}

fn actions(report: &Value) -> Vec<&str> {
    let items = report["items"].as_array().into_iter().flatten();
    items.map(|item| deployment::text(item, "action")).collect()
}
