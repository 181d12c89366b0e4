//! Kills all controllers at once and keeps them away for a while: instances run on, one that crashes meanwhile is
//! started again, licensed from its agent's copy; afterwards nothing else restarts and what happened arrives once.

use std::time::Duration;

use super::{
    instance::started_again,
    scene::{Scene, Verdict, restarts},
};
use crate::{
    cli::{deployments::fetch, failure::Failure, view},
    local::{hold::Hold, member::Member},
};

/// How long all controllers stay away at least.
const AWAY: Duration = Duration::from_secs(3);

pub(super) async fn run(scene: &Scene<'_>) -> Result<Verdict, Failure> {
    let (slot, deployment) = scene.an_instance().await?;
    let (id, before) = (view::text(&deployment, "id"), restarts(&deployment));
    let controllers: Vec<_> = Member::present(&scene.layout)
        .into_iter()
        .filter(Member::is_controller)
        .collect();
    let names: Vec<_> = controllers
        .iter()
        .map(|member| member.name.clone())
        .collect();
    let hold = Hold::take(&scene.layout, &names)?;
    let mut identities = Vec::new();
    for member in &controllers {
        identities.push(scene.running(member)?);
    }
    for (member, identity) in controllers.iter().zip(&identities) {
        scene.kill(&member.name, identity)?;
    }
    scene
        .timeline
        .begin(&format!("kill -9 all {} controllers", controllers.len()));
    let child = slot
        .child
        .clone()
        .ok_or_else(|| Failure::Failed(format!("{id} has just ended")))?;
    scene.kill(&id, &child)?;
    scene.timeline.mark(&format!(
        "kill -9 the process of {id} (pid {}) while they are away",
        child.pid
    ));
    started_again(scene, &slot).await?;
    let address = view::items(&deployment, "components")
        .iter()
        .map(|component| view::text(component, "address"));
    // The demo program ends at once without a valid licence; of others nothing is known.
    let is_demo = deployment["release"]["name"] == "demo-isp";
    let how = if is_demo {
        ": licensed by its agent alone"
    } else {
        ""
    };
    for address in address.filter(|address| !address.is_empty()) {
        let answers = async || tokio::net::TcpStream::connect(&address).await.ok();
        scene.until("an answer of the instance", answers).await?;
        scene
            .timeline
            .mark(&format!("it answers on {address}{how}"));
    }
    let away = AWAY.saturating_sub(Duration::from_millis(scene.timeline.now_ms()));
    tokio::time::sleep(away).await;
    drop(hold);
    scene.timeline.mark("the controllers may come back");
    for (member, identity) in controllers.iter().zip(&identities) {
        scene.restarted(member, identity).await?;
    }
    scene.writes_again().await?;
    let counted = async || {
        let now = fetch(&scene.client, &id).await.ok()?;
        (now["status"] == "active" && restarts(&now) > before).then(|| restarts(&now) - before)
    };
    let restarts = scene.until("that the restart is known", counted).await?;
    scene
        .timeline
        .mark("the restart meanwhile is known to the controllers");
    scene.all_active().await?;
    let lines = vec![format!("restarts that arrived: {restarts} (1 happened)")];
    Ok(Verdict {
        lines,
        instances_lost: scene.instances_lost(Some(&slot)),
    })
}
