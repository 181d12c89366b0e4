//! `dotmac events`: what changes, one line each, until somebody stops it. A controller that goes away is not noticed.

use clap::Args;
use serde_json::{Value, json};

use super::{
    client::{Follow, Told, encode},
    failure::Failure,
    find::Context,
    view,
};

#[derive(Args)]
pub(crate) struct Events {
    /// Only what belongs to this tenant
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Only this deployment
    #[arg(long, value_name = "ID")]
    deployment: Option<String>,
    /// Only these: deployment, tenant, region, agent, release, token, cluster
    #[arg(long, value_delimiter = ',', value_name = "TYPE,…")]
    types: Vec<String>,
    /// Begin with everything as it is now
    #[arg(long)]
    now: bool,
}

impl Events {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let mut follow = Follow::new(&client, &self.query());
        let mut is_told = self.now;
        loop {
            match follow.next().await? {
                Told::Synced => is_told = true,
                told if is_told => tell(context, &told)?,
                Told::Is(_) | Told::Gone(_) => {}
            }
        }
    }

    fn query(&self) -> String {
        let types = (!self.types.is_empty()).then(|| self.types.join(","));
        let parameters = [
            ("tenant_id", &self.tenant),
            ("deployment", &self.deployment),
            ("types", &types),
        ];
        let given = parameters
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_deref()?))));
        given.collect::<Vec<_>>().join("&")
    }
}

/// One line: when, what, which, and how it is; for programs all of it.
fn tell(context: &Context, told: &Told) -> Result<(), Failure> {
    let (entity, is_gone) = match told {
        Told::Is(entity) => (entity, false),
        Told::Gone(entity) => (entity, true),
        Told::Synced => return Ok(()),
    };
    let now = json!({"at": context.clock.now().0});
    if context.output.is_data() {
        let event = match is_gone {
            true => format!("{}.gone", entity.kind),
            false => entity.kind.clone(),
        };
        let record = json!({"id": entity.id, "event": event, "data": entity.data});
        return context.output.record(&record);
    }
    let how = if is_gone {
        "gone".to_owned()
    } else {
        summary(&entity.kind, &entity.data)
    };
    let at = view::time(&now, "at");
    let (kind, id) = (&entity.kind, &entity.id);
    context
        .output
        .line(&format!("{at}  {kind:10}  {id}  {how}"))
}

/// How an entity is, in a few words.
fn summary(kind: &str, data: &Value) -> String {
    let text = |name: &str| view::text(data, name);
    let words = match kind {
        "deployment" => vec![
            text("status"),
            format!("{}/{} ready", text("ready_pods"), text("pod_count")),
            view::text(&data["waiting"], "reason"),
        ],
        "agent" => vec![text("status"), text("region")],
        "tenant" => vec![text("status"), text("tenant_name")],
        "region" => {
            let agents = &data["agents"];
            let (here, all) = (view::text(agents, "connected"), view::text(agents, "total"));
            vec![
                format!("{here}/{all} agents"),
                format!("{} deployments", text("deployments")),
            ]
        }
        "release" if text("retired") == "true" => vec!["retired".to_owned()],
        "release" => vec![text("channel"), text("description")],
        "token" => vec![text("name"), text("role"), text("status")],
        "cluster" => vec![cluster(data)],
        _ => vec![text("status")],
    };
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.join("  ")
}

fn cluster(data: &Value) -> String {
    let leader = match view::text(data, "leader") {
        leader if leader.is_empty() => "no leader".to_owned(),
        leader => format!("leader {leader}"),
    };
    let away = view::items(data, "controllers").iter();
    let away = away.filter(|one| one["connected"] == false);
    let away: Vec<String> = away.map(|one| view::text(one, "id")).collect();
    match away.is_empty() {
        true => leader,
        false => format!("{leader}, not connected: {}", away.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::summary;

    #[test]
    fn a_line_says_what_matters_of_each_type() {
        let deployment = json!({"status": "provisioning", "ready_pods": 0, "pod_count": 2,
            "waiting": {"reason": "no agent is connected"}});
        assert_eq!(
            summary("deployment", &deployment),
            "provisioning  0/2 ready  no agent is connected"
        );
        let cluster = json!({"leader": null, "controllers": [
            {"id": 1, "connected": true}, {"id": 2, "connected": false}]});
        assert_eq!(summary("cluster", &cluster), "no leader, not connected: 2");
        let region = json!({"agents": {"connected": 1, "total": 2}, "deployments": 3});
        assert_eq!(summary("region", &region), "1/2 agents  3 deployments");
    }
}
