//! `dotmac cluster status`: leader, trust, rules, and every controller in a line.

use clap::Args;
use serde_json::Value;

use super::PATH;
use crate::cli::{failure::Failure, find::Context, view};

/// The columns, and the field that each shows; two are put together.
const COLUMNS: [(&str, &str); 12] = [
    ("id", "id"),
    ("state", "state"),
    ("standing", "standing"),
    ("address", "address"),
    ("link", "link_address"),
    ("pid", "pid"),
    ("applied", "applied"),
    ("behind", "behind"),
    ("signing", "signing"),
    ("incarnation", "incarnation"),
    ("software", "software"),
    ("rules", "rules_supported"),
];

#[derive(Args)]
pub(crate) struct Status {
    /// Also show the digest of each controller's State: those that have applied as much must agree
    #[arg(long)]
    digests: bool,
}

impl Status {
    pub(super) async fn run(&self, context: &Context) -> Result<(), Failure> {
        let path = match self.digests {
            true => format!("{PATH}?digests=true"),
            false => PATH.to_owned(),
        };
        show(context, &context.client()?.get(&path).await?)
    }
}

fn show(context: &Context, status: &Value) -> Result<(), Failure> {
    if !status["nodes"].is_array() {
        return Err(Failure::foreign(PATH, "it names no controllers"));
    }
    if context.output.is_data() {
        return context.output.data(status);
    }
    let nodes = view::items(status, "nodes");
    for line in above(status, nodes) {
        context.output.line(&line)?;
    }
    let mut titles = COLUMNS.map(|(title, _)| title).to_vec();
    let mut rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    if nodes.iter().any(|node| !node["state_digest"].is_null()) {
        titles.push("state digest");
        for (row, node) in rows.iter_mut().zip(nodes) {
            row.push(view::text(node, "state_digest"));
        }
    }
    context.output.table(&titles, rows, "no nodes")?;
    let unfinished = &status["unfinished"];
    if unfinished.is_object() {
        let (node, waits_for) = (
            view::text(unfinished, "controller"),
            view::text(unfinished, "waits_for"),
        );
        let line = format!("the change of controller {node} is not finished: {waits_for}");
        context.output.line(&line)?;
    }
    Ok(())
}

fn above(status: &Value, nodes: &[Value]) -> Vec<String> {
    let text = |name: &str| view::text(status, name);
    let leader = match text("leader") {
        none if none.is_empty() => {
            "none: an election is going on, or a majority is down".to_owned()
        }
        leader => leader,
    };
    let rules = &status["rules"];
    let since = match view::time(rules, "since") {
        none if none.is_empty() => String::new(),
        time => format!(" since {time}"),
    };
    let mut lines = vec![
        format!(
            "leader {leader}, term {}, epoch {}, trust root {}",
            text("term"),
            text("epoch"),
            text("trust_version")
        ),
        format!("rules {}{since}", view::text(rules, "rules")),
    ];
    lines.extend(Some(text("rules_next")).filter(|next| !next.is_empty()));
    let slow = nodes.iter().filter(|node| !node["slow_disk"].is_null());
    lines.extend(slow.map(|node| {
        let (id, why) = (view::text(node, "id"), view::text(node, "slow_disk"));
        format!("controller {id} is slow: {why}")
    }));
    lines
}

fn row(node: &Value) -> Vec<String> {
    let cell = |(title, field): (&str, &str)| match title {
        "standing" if node["signs"] == true => "signer".to_owned(),
        // Enough to tell two lives of a disk apart.
        "incarnation" => view::text(node, field).chars().take(8).collect(),
        _ => view::text(node, field),
    };
    COLUMNS.map(cell).into()
}
