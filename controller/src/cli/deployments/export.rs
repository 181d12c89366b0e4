//! Deployments as a file for `dotmac apply`: everything that may be asked for, and nothing that the cluster only tells.

use clap::Args;
use serde_json::Value;

use super::{PATH, fetch};
use crate::cli::{
    apply::exported,
    client::Client,
    failure::Failure,
    find::Context,
    list::Paging,
    output::{Format, Output},
    view,
};

#[derive(Args)]
pub(crate) struct Export {
    /// Deployments or tenants [default: all]
    ids: Vec<String>,
    #[command(flatten)]
    paging: Paging,
}

impl Export {
    pub(super) async fn run(self, context: &Context, client: &Client) -> Result<(), Failure> {
        let deployments = if self.ids.is_empty() {
            self.paging.read(client, PATH, &[]).await?.items
        } else {
            let mut found = Vec::new();
            for id in &self.ids {
                found.push(fetch(client, id).await?);
            }
            found
        };
        for deployment in &deployments {
            let sealed = view::items(deployment, "credentials")
                .iter()
                .filter_map(Value::as_str);
            let sealed: Vec<&str> = sealed.collect();
            if !sealed.is_empty() {
                let (id, sealed) = (view::text(deployment, "id"), sealed.join(", "));
                let remark =
                    format!("{id}: not in the file, because nobody can read them: {sealed}");
                context.output.note(&remark);
            }
        }
        let is_leaving = |one: &&Value| view::text(one, "status").starts_with("destroy");
        let kept = deployments.iter().filter(|one| !is_leaving(one));
        let file: Value = kept.map(exported).collect();
        let output = match context.output.is_data() {
            true => context.output,
            false => Output::new(Format::Yaml),
        };
        output.data(&file)
    }
}
