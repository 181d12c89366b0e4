//! `dotmac cluster add-node|promote|remove-node|replace-node`: one controller comes or goes, in steps that each are safe
//! by themselves. What was asked is checked against the controllers that there are before any of it is shown or done.
//! Every step first looks whether it is done already, so that a command that was interrupted goes on when it is given
//! again.

mod known;
mod work;

use std::path::PathBuf;

use clap::Args;
use dotmac_protocol::ids::NodeId;

use self::{known::Steps, work::Work};
use super::{node_number, read_card};
use crate::cli::{failure::Failure, find::Context, plan::Consent};

#[derive(Args)]
pub(crate) struct AddNode {
    /// Card of the new controller, as `dotmac-controller init` wrote it
    #[arg(long, value_name = "FILE")]
    card: PathBuf,
    /// Where the file goes that its configuration names as `genesis`; a new one
    #[arg(long, value_name = "FILE")]
    join_file: PathBuf,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
pub(crate) struct Promote {
    /// Number of the controller
    #[arg(value_parser = node_number)]
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
    #[arg(value_parser = node_number)]
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
    #[arg(value_parser = node_number)]
    node: u64,
    /// Card of the one that comes
    #[arg(long, value_name = "FILE")]
    card: PathBuf,
    /// Where the file goes that the new one's configuration names as `genesis`; a new one
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
        let card = read_card("--card", &self.card)?;
        let node = card.node;
        let work = Work::new(context, Patience { timeout: 0 })?;
        let known = work.known().await?;
        let steps = known.joining(&card, &self.join_file)?;
        work.rehearse(&known, &card).await?;
        if is_agreed(context, &steps, self.consent)? {
            work.admit(&card, &self.join_file).await?;
        } else if self.consent.dry_run {
            return Ok(());
        }
        let signs = known.find(node).is_some_and(|one| one["signs"] == true);
        if !signs {
            context.output.note(&format!(
                "next: start controller {node} with `genesis = {:?}`, then dotmac cluster promote {node} --root-key-file \
                 FILE --wait",
                self.join_file.display()
            ));
        }
        work.show(node).await
    }
}

impl Promote {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let node = NodeId(self.node);
        let card = self.card.as_deref();
        let card = card.map(|card| read_card("--card", card)).transpose()?;
        let work = Work::new(context, self.patience)?;
        let known = work.known().await?;
        let admitted = known.require(node)?;
        if let Some(card) = &card {
            known::require_same(admitted, card)?;
        }
        let steps = known.promotion(node, &self.root_key_file)?;
        if is_agreed(context, &steps, self.consent)? {
            if self.wait {
                work.caught_up(node).await?;
            }
            let card = card.as_ref();
            work.promote(node, card, &self.root_key_file).await?;
        } else if self.consent.dry_run {
            return Ok(());
        }
        work.show(node).await
    }
}

impl RemoveNode {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let node = NodeId(self.node);
        let work = Work::new(context, self.patience)?;
        let known = work.known().await?;
        let steps = known.removal(node, &self.root_key_file)?;
        known.require_another(node)?;
        if is_agreed(context, &steps, self.consent)? {
            work.remove(node, &self.root_key_file).await?;
        } else if self.consent.dry_run {
            return Ok(());
        }
        work.show(node).await
    }
}

impl ReplaceNode {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (gone, card) = (NodeId(self.node), read_card("--card", &self.card)?);
        let (node, root_key) = (card.node, &self.root_key_file);
        if node == gone {
            let text = format!(
                "the card is that of controller {gone} itself: a number is never used twice"
            );
            return Err(Failure::Usage(text));
        }
        let work = Work::new(context, self.patience)?;
        let known = work.known().await?;
        let removal = known.removal(gone, root_key)?;
        let joining = known.joining(&card, &self.join_file)?;
        let promotion = known.promotion(node, root_key)?;
        work.rehearse(&known, &card).await?;
        let steps = [joining, promotion, removal].concat();
        if is_agreed(context, &steps, self.consent)? {
            work.admit(&card, &self.join_file).await?;
            work.caught_up(node).await?;
            work.promote(node, Some(&card), root_key).await?;
            work.remove(gone, root_key).await?;
        } else if self.consent.dry_run {
            return Ok(());
        }
        work.show(node).await
    }
}

/// Shows what is about to be done, and asks at a terminal; `false` when it is only to be shown, or when nothing is to be
/// done, which is said.
///
/// # Errors
/// A no at the terminal; [`Failure::Ended`] when it is only to be shown and nothing would be done.
fn is_agreed(context: &Context, steps: &Steps, consent: Consent) -> Result<bool, Failure> {
    if steps.is_empty() {
        context
            .output
            .note("nothing to do: all of it is done already");
        return match consent.dry_run {
            true => Err(Failure::Ended(8)),
            false => Ok(false),
        };
    }
    for step in steps {
        context.output.note(&format!("  {step}"));
    }
    if consent.dry_run {
        return Ok(false);
    }
    consent.ask(None)?;
    Ok(true)
}
