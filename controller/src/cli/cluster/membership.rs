//! `dotmac cluster add-node|promote|remove-node|replace-node`: one controller comes or goes, in steps that each are safe
//! by themselves. Every step first looks whether it is done already, so that a command that was interrupted goes on when
//! it is given again.

mod work;

use std::path::PathBuf;

use clap::Args;
use dotmac_domain::command::NodeCard;
use dotmac_protocol::ids::NodeId;

use self::work::Work;
use super::explain;
use crate::{
    bootstrap,
    cli::{failure::Failure, find::Context, plan::Consent},
};

#[derive(Args)]
pub(crate) struct AddNode {
    /// Card of the new controller, as `dotmac-controller init` wrote it
    #[arg(long, value_name = "FILE")]
    card: PathBuf,
    /// Where the file goes that its configuration names as `genesis`
    #[arg(long, value_name = "FILE")]
    join_file: PathBuf,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
pub(crate) struct Promote {
    /// Number of the controller
    node: u64,
    /// The key that signs trust roots
    #[arg(long, value_name = "FILE")]
    root_key_file: PathBuf,
    /// Its card: the key that is signed must be the one in it
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
    /// Wait until it has caught up instead of refusing
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
pub(crate) struct RemoveNode {
    /// Number of the controller
    node: u64,
    /// The key that signs trust roots
    #[arg(long, value_name = "FILE")]
    root_key_file: PathBuf,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
pub(crate) struct ReplaceNode {
    /// Number of the controller that goes
    node: u64,
    /// Card of the one that comes
    #[arg(long, value_name = "FILE")]
    card: PathBuf,
    /// Where the file goes that the new one's configuration names as `genesis`
    #[arg(long, value_name = "FILE")]
    join_file: PathBuf,
    /// The key that signs trust roots
    #[arg(long, value_name = "FILE")]
    root_key_file: PathBuf,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args, Clone, Copy)]
struct Patience {
    /// Seconds that one step may take; afterwards the same command goes on
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
}

impl AddNode {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let card = read_card(&self.card)?;
        let node = card.node;
        let steps = [format!(
            "admit controller {node}, which learns and has no vote"
        )];
        if !agreed(context, &steps, self.consent)? {
            return Ok(());
        }
        let work = Work::new(context, Patience { timeout: 0 })?;
        work.admit(&card, &self.join_file).await?;
        context.output.note(&format!(
            "next: start controller {node} with `genesis = {:?}`, then dotmac cluster promote {node} --root-key-file FILE --wait",
            self.join_file.display()
        ));
        work.show(node).await
    }
}

impl Promote {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let node = NodeId(self.node);
        let card = self.card.as_deref().map(read_card).transpose()?;
        let steps = [
            format!("let controller {node} vote"),
            format!(
                "sign a trust root with its key, by {}",
                self.root_key_file.display()
            ),
        ];
        if !agreed(context, &steps, self.consent)? {
            return Ok(());
        }
        let work = Work::new(context, self.patience)?;
        if self.wait {
            work.caught_up(node).await?;
        }
        work.promote(node, card.as_ref(), &self.root_key_file)
            .await?;
        work.show(node).await
    }
}

impl RemoveNode {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let node = NodeId(self.node);
        let steps = [
            format!("sign a trust root without controller {node}"),
            format!("take its vote, and never use number {node} again"),
        ];
        if !agreed(context, &steps, self.consent)? {
            return Ok(());
        }
        let work = Work::new(context, self.patience)?;
        work.remove(node, &self.root_key_file).await?;
        work.show(node).await
    }
}

impl ReplaceNode {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (gone, card) = (NodeId(self.node), read_card(&self.card)?);
        let node = card.node;
        if node == gone {
            let text = format!(
                "the card is that of controller {gone} itself: a number is never used twice"
            );
            return Err(Failure::Usage(text));
        }
        let steps = [
            format!("admit controller {node}, which learns"),
            "let it vote, and sign a trust root with its key".to_owned(),
            format!("sign a trust root without controller {gone}, and take its vote"),
        ];
        if !agreed(context, &steps, self.consent)? {
            return Ok(());
        }
        let work = Work::new(context, self.patience)?;
        work.admit(&card, &self.join_file).await?;
        work.caught_up(node).await?;
        work.promote(node, Some(&card), &self.root_key_file).await?;
        work.remove(gone, &self.root_key_file).await?;
        work.show(node).await
    }
}

fn read_card(path: &std::path::Path) -> Result<NodeCard, Failure> {
    bootstrap::read_card(path).map_err(|error| explain(&error))
}

/// Shows what is about to be done, and asks at a terminal; `false` when it is only to be shown.
fn agreed(context: &Context, steps: &[String], consent: Consent) -> Result<bool, Failure> {
    for step in steps {
        context.output.note(&format!("  {step}"));
    }
    if consent.dry_run {
        return Ok(false);
    }
    consent.ask(None)?;
    Ok(true)
}
