//! Kills an agent without warning: its instances run on with the same pids, and it finds them again by itself.

use std::time::Duration;

use dotmac_runtime::process::ProcessIdentity;

use super::scene::{Scene, Verdict};
use crate::{
    cli::{Client, deployments, failure::Failure, view},
    local::slots,
};

/// How long one controller may take to pass an answer on.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);

pub(super) async fn run(scene: &Scene<'_>) -> Result<Verdict, Failure> {
    let (_, deployment) = scene.an_instance().await?;
    let member = scene.member(&view::text(&deployment, "region"))?;
    let identity = scene.running(&member)?;
    let own = slots::of_agent(&member.data());
    let children: Vec<ProcessIdentity> = own.iter().filter_map(|slot| slot.child.clone()).collect();
    scene.kill(&member.name, &identity)?;
    scene.timeline.begin(&format!(
        "kill -9 the agent of {} (pid {}), {} instance processes under it",
        member.name,
        identity.pid,
        children.len()
    ));
    scene.restarted(&member, &identity).await?;
    // Only a live session can answer a live question; what the cluster believes of the agent would prove nothing.
    let id = view::text(&deployment, "id");
    let question = format!(
        "{}/logs?lines=1&follow=false&seal_to={}",
        deployments::path_of(&id),
        hex::encode(dotmac_runtime::seal::SealKey::generate(&scene.context.entropy).public())
    );
    let mut controllers = Vec::new();
    for server in scene.client.servers() {
        controllers.push(scene.context.client_once(server)?);
    }
    // One that still takes the dead session for a live one gives no answer; then the next is asked.
    let answers = async || {
        for controller in &controllers {
            let asked = tokio::time::timeout(ANSWER_PATIENCE, answer(controller, &question)).await;
            if let Ok(Some(())) = asked {
                return Some(());
            }
        }
        None
    };
    scene.until("an answer of the agent", answers).await?;
    scene
        .timeline
        .mark("the agent answers through a controller again");
    scene.all_active().await?;
    let kept = children.iter().filter(|child| child.is_alive()).count();
    let lines = vec![format!(
        "{kept} of {} instance processes kept pid and start time",
        children.len()
    )];
    Ok(Verdict {
        lines,
        instances_lost: scene.instances_lost(None),
    })
}

/// Whether the agent itself answers a question that is put to this controller.
async fn answer(controller: &Client, question: &str) -> Option<()> {
    let mut lines = controller.lines(question, &[]).await.ok()?;
    let mut is_sealed = false;
    while let Some(line) = lines.next().await.ok()? {
        is_sealed |= line.windows(12).any(|part| part == b"\"ciphertext\"");
    }
    is_sealed.then_some(())
}
