//! Kills an instance's process without warning: its agent starts it again, and everybody sees it degraded meanwhile.

use super::scene::{Scene, Verdict, restarts};
use crate::{
    cli::{deployments::fetch, failure::Failure, view},
    local::slots::{self, Slot},
};

pub(super) async fn run(scene: &Scene<'_>) -> Result<Verdict, Failure> {
    let (slot, deployment) = scene.an_instance().await?;
    let (id, before) = (view::text(&deployment, "id"), restarts(&deployment));
    let child = slot
        .child
        .clone()
        .ok_or_else(|| Failure::Failed(format!("{id} has just ended")))?;
    scene.kill(&id, &child)?;
    scene
        .timeline
        .begin(&format!("kill -9 the process of {id} (pid {})", child.pid));
    let degraded = async {
        // It may be well again before anybody looks; then there is no such line.
        let seen = async || {
            let now = fetch(&scene.client, &id).await.ok()?;
            let ill = now["status"] != "active" || now["health_status"] != "healthy";
            (ill || restarts(&now) > before).then_some(ill)
        };
        if scene.until("that the API shows it", seen).await? {
            scene.timeline.mark("the API shows it degraded");
        }
        Ok::<_, Failure>(())
    };
    let (seen, again) = tokio::join!(degraded, started_again(scene, &slot));
    seen?;
    again?;
    let healthy = async || {
        let now = fetch(&scene.client, &id).await.ok()?;
        let well = now["status"] == "active"
            && now["health_status"] == "healthy"
            && restarts(&now) > before;
        well.then(|| restarts(&now))
    };
    let after = scene.until("that it is healthy", healthy).await?;
    scene.timeline.mark("the API shows it healthy");
    let lines = vec![format!("restarts that the API counts: {}", after - before)];
    Ok(Verdict {
        lines,
        instances_lost: scene.instances_lost(Some(&slot)),
    })
}

/// Waits until an agent runs the program of a slot again.
pub(super) async fn started_again(scene: &Scene<'_>, slot: &Slot) -> Result<(), Failure> {
    let again = async || {
        let now = slots::running(&scene.layout)
            .into_iter()
            .find(|now| now.directory == slot.directory)?;
        now.child.filter(|child| Some(child) != slot.child.as_ref())
    };
    let child = scene.until("the restart of the instance", again).await?;
    scene.timeline.mark(&format!(
        "its agent has started it again as pid {}",
        child.pid
    ));
    Ok(())
}
