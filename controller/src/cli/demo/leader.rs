//! Kills the leading controller without warning, while writes go on through the others.

use serde_json::Value;

use super::scene::{Scene, Verdict};
use crate::{
    cli::{cluster, failure::Failure, view},
    local::hold::Hold,
};

pub(super) async fn run(scene: &Scene<'_>) -> Result<Verdict, Failure> {
    let status: Value = scene.client.get(cluster::PATH).await?;
    let old = view::text(&status, "leader");
    let member = scene.member(&format!("controller-{old}"))?;
    let identity = scene.running(&member)?;
    // Otherwise it is back before the others have noticed, and may lead again.
    let hold = Hold::take(&scene.layout, std::slice::from_ref(&member.name))?;
    scene.kill(&member.name, &identity)?;
    scene.timeline.begin(&format!(
        "kill -9 {} (pid {}), the leader",
        member.name, identity.pid
    ));

    let new_leader = async {
        let elected = async || {
            let status: Value = scene.client.get(cluster::PATH).await.ok()?;
            let leader = view::text(&status, "leader");
            (!leader.is_empty() && leader != old).then_some(leader)
        };
        let leader = scene.until("a new leader", elected).await?;
        scene.timeline.mark(&format!(
            "cluster status names controller-{leader} the leader"
        ));
        Ok::<_, Failure>(leader)
    };
    let (leader, writes) = tokio::join!(new_leader, scene.writes_again());
    let leader = leader?;
    writes?;
    drop(hold);
    scene
        .timeline
        .mark(&format!("{} may come back", member.name));
    scene.restarted(&member, &identity).await?;
    let caught_up = async || {
        let status: Value = scene.client.get(cluster::PATH).await.ok()?;
        let node = |id: &str| {
            view::items(&status, "nodes")
                .iter()
                .find(|node| view::text(node, "id") == id)
        };
        let (back, leads) = (node(&old)?, node(&view::text(&status, "leader"))?);
        let caught_up = back["applied"].as_u64()? + 50 >= leads["applied"].as_u64()?;
        (back["state"] == "follower" && caught_up).then_some(())
    };
    scene
        .until("that the old leader follows", caught_up)
        .await?;
    scene
        .timeline
        .mark(&format!("{} follows and has caught up", member.name));
    scene.all_active().await?;
    let lines = vec![format!(
        "leader before: controller-{old}, after: controller-{leader}"
    )];
    Ok(Verdict {
        lines,
        instances_lost: scene.instances_lost(None),
    })
}
