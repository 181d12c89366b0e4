//! What the cluster says of its controllers, and what there is to do by that, in words. Every number and every card is
//! checked here, before anything is shown or changed. It asks nobody and leaves nothing changed.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use dotmac_domain::command::NodeCard;
use dotmac_protocol::{digest::Digest, ids::NodeId};
use serde_json::Value;

use crate::{
    bootstrap,
    cli::{failure::Failure, view},
};

/// The controllers that there are and were, as the API lists them.
pub(super) struct Known(pub(super) Vec<Value>);

/// What is to be done, in its order; nothing when all of it is done.
pub(super) type Steps = Vec<String>;

impl Known {
    pub(super) fn find(&self, node: NodeId) -> Option<&Value> {
        self.0.iter().find(|one| one["id"] == node.0)
    }

    /// The controller with this number, be it one that left.
    ///
    /// # Errors
    /// When there is and was none, with those that there are.
    pub(super) fn require(&self, node: NodeId) -> Result<&Value, Failure> {
        let there_are = || {
            let present = self.0.iter().filter(|one| one["standing"] != "retired");
            let numbers: Vec<String> = present.map(|one| view::text(one, "id")).collect();
            numbers.join(", ")
        };
        self.find(node).ok_or_else(|| {
            let numbers = there_are();
            Failure::Usage(format!(
                "there is no controller {node}: the numbers are {numbers} (`dotmac cluster status`)"
            ))
        })
    }

    /// What lets the controller of a card learn: its admission, and the file that it starts from.
    ///
    /// # Errors
    /// When its number belongs to another card or to one that left, another file is in the place of its own, or none can
    /// be written there.
    pub(super) fn joining(&self, card: &NodeCard, join_file: &Path) -> Result<Steps, Failure> {
        let node = card.node;
        let is_admitted = match self.find(node) {
            None => false,
            Some(known) => {
                require_present(known)?;
                require_same(known, card)?;
                true
            }
        };
        let is_written = is_written(join_file, card)?;
        if !is_written {
            require_writable(join_file)?;
        }
        let admit = format!("admit controller {node}, which learns and has no vote");
        let write = format!("write what it starts from to {}", join_file.display());
        let steps = [
            (!is_admitted).then_some(admit),
            (!is_written).then_some(write),
        ];
        Ok(steps.into_iter().flatten().collect())
    }

    /// What gives a controller its vote and its place in the trust root; one that is not known yet needs all of it.
    ///
    /// # Errors
    /// When it is about to leave or has left.
    pub(super) fn promotion(&self, node: NodeId, root_key: &Path) -> Result<Steps, Failure> {
        let known = self.find(node);
        known.map_or(Ok(()), require_present)?;
        let votes = known.is_some_and(|one| one["standing"] == "voter");
        let signs = known.is_some_and(|one| one["signs"] == true);
        let vote = format!("let controller {node} vote");
        let sign = format!("sign a trust root with its key, by {}", root_key.display());
        let steps = [(!votes).then_some(vote), (!signs).then_some(sign)];
        Ok(steps.into_iter().flatten().collect())
    }

    /// What takes a controller's key, its vote and its number.
    ///
    /// # Errors
    /// When there is and was no such controller.
    pub(super) fn removal(&self, node: NodeId, root_key: &Path) -> Result<Steps, Failure> {
        let known = self.require(node)?;
        if known["standing"] == "retired" {
            return Ok(Steps::new());
        }
        let by = root_key.display();
        let sign = format!("sign a trust root without controller {node}, by {by}");
        let take = format!("take its vote, and never use number {node} again");
        let steps = [(known["signs"] == true).then_some(sign), Some(take)];
        Ok(steps.into_iter().flatten().collect())
    }

    /// That another one votes when a controller is gone.
    ///
    /// # Errors
    /// When it is the last one: it stays.
    pub(super) fn require_another(&self, node: NodeId) -> Result<(), Failure> {
        let votes = |one: &&Value| one["standing"] == "voter" || one["standing"] == "joining";
        let mut voters = self.0.iter().filter(votes).map(|one| &one["id"]);
        if voters.next() != Some(&node.0.into()) || voters.next().is_some() {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "controller {node} is the last one that votes, and the last one stays: put another one in its place with \
             `dotmac cluster replace-node {node}`"
        )))
    }
}

/// That a controller neither left nor is about to.
fn require_present(known: &Value) -> Result<(), Failure> {
    let node = view::text(known, "id");
    match view::text(known, "standing").as_str() {
        "retired" => Err(Failure::Usage(format!(
            "controller {node} has left, and number {node} is never used again: a new controller needs a number that none \
             has or had, and an empty disk"
        ))),
        "leaving" => Err(Failure::Usage(format!(
            "controller {node} is about to leave: `dotmac cluster remove-node {node}` finishes that"
        ))),
        _ => Ok(()),
    }
}

/// That a card is in every field the one that a controller was admitted with.
///
/// # Errors
/// With each field that differs and both its values.
pub(super) fn require_same(known: &Value, card: &NodeCard) -> Result<(), Failure> {
    let fields = [
        ("node", "id", card.node.to_string()),
        ("incarnation", "incarnation", card.incarnation.to_string()),
        ("link_address", "link_address", card.link_address.clone()),
        ("api_address", "address", card.api_address.clone()),
        (
            "signing_key",
            "signing_key",
            hex::encode(card.signing_key.0),
        ),
        ("issuer", "issuer", Digest::of(&card.issuer).to_string()),
    ];
    let differing = fields.into_iter().filter_map(|(field, shown, in_card)| {
        let in_cluster = view::text(known, shown);
        (in_cluster != in_card)
            .then(|| format!("\n  {field}: {in_cluster} in the cluster, {in_card} in the card"))
    });
    let differing: String = differing.collect();
    if differing.is_empty() {
        return Ok(());
    }
    let node = view::text(known, "id");
    Err(Failure::Usage(format!(
        "the card is not the one that controller {node} was admitted with:{differing}\n  next: give the card that it was \
         admitted with, or admit this one under a number that none has or had"
    )))
}

/// Whether the file is there and lets this very controller join: then an earlier try wrote it, and it stays as it is.
///
/// # Errors
/// When something else is in its place: nothing is ever written over.
pub(super) fn is_written(join_file: &Path, card: &NodeCard) -> Result<bool, Failure> {
    let (shown, node) = (join_file.display(), card.node);
    if join_file.symlink_metadata().is_err() {
        return Ok(false);
    }
    let is_own = bootstrap::read_beginning(join_file)
        .is_ok_and(|beginning| !beginning.founds && beginning.members.contains(card));
    if is_own {
        return Ok(true);
    }
    Err(Failure::Usage(format!(
        "--join-file: {shown} exists and is not what lets controller {node} join: name a file that does not exist"
    )))
}

/// That a file can be made there: another one is made beside it, and removed.
///
/// # Errors
/// With the cause: afterwards it would be too late, the controller would be admitted already.
fn require_writable(join_file: &Path) -> Result<(), Failure> {
    let mut name = join_file.as_os_str().to_owned();
    name.push(".probe");
    let probe = Path::new(&name);
    let made = File::options().write(true).create_new(true).open(probe);
    match made.and_then(|_| fs::remove_file(probe)) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
            let shown = join_file.display();
            Err(Failure::Usage(format!(
                "--join-file: {shown} cannot be written: {cause}: name a file in a directory that exists and takes new files"
            )))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
