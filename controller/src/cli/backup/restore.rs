//! `dotmac backup plan` and `restore`: a cluster from a backup, on new machines, without any controller that runs.

use std::path::{Path, PathBuf};

use clap::Args;
use dotmac_protocol::keys::PublicKey;
use dotmac_runtime::disk::SystemDisk;
use serde_json::json;

use super::{Place, failed, which};
use crate::{
    backup::{origin::Origin, recipient::Identity, restore},
    bootstrap::{self, PlannedBackup},
    cli::{failure::Failure, find::Context},
    config::Config,
};

#[derive(Args)]
pub(crate) struct Plan {
    /// Name of the backup, or `latest`
    name: String,
    #[command(flatten)]
    place: Place,
    /// File with the secret key that opens it
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// Card of a new controller, as `dotmac-controller init` writes it (once for each)
    #[arg(long = "card", required = true, value_name = "FILE")]
    cards: Vec<PathBuf>,
    /// How many controllers the cluster goes on with, when not as many as before
    #[arg(long, value_name = "COUNT")]
    controllers: Option<usize>,
    /// The offline key that signs trust roots
    #[arg(long, value_name = "FILE")]
    root_key_file: PathBuf,
    /// Where the genesis goes, which every new controller gets; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
pub(crate) struct Restore {
    /// Name of the backup, or `latest`: it has to be the one that the genesis is for, which is taken without it
    name: Option<String>,
    #[command(flatten)]
    place: Place,
    /// File with the secret key that opens it
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// Configuration of the controller that is restored; its `genesis` is what `plan` made
    #[arg(long, value_name = "FILE")]
    controller: PathBuf,
}

impl Plan {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        which::check(&self.name)?;
        if self.out.exists() {
            let path = self.out.display();
            return Err(Failure::Usage(format!("{path} exists: name another file")));
        }
        let target = self.place.open()?.ok_or_else(no_place)?;
        let root_key =
            bootstrap::read_offline_key(&self.root_key_file).map_err(|error| failed(&error))?;
        let origin = Origin::of_root_key(PublicKey::of(&root_key));
        let name = which::at_target(context, (&target, Some(&origin)), &self.name).await?;
        let identity = Identity::read(&self.identity).map_err(|error| failed(&error))?;
        let cards: Result<Vec<_>, _> = self
            .cards
            .iter()
            .map(|card| bootstrap::read_card(card))
            .collect();
        let cards = cards.map_err(|error| failed(&error))?;
        let new = restore::New {
            cards,
            controllers: self.controllers,
            root_key: &self.root_key_file,
        };
        let planned = restore::plan(&target, &name, &identity, new).await;
        let (manifest, genesis, backup) = planned.map_err(|error| failed(&error))?;
        bootstrap::write_genesis(&self.out, &genesis, Some(backup))
            .map_err(|error| failed(&error))?;
        if context.output.is_data() {
            return context.output.data(&json!({
                "id": manifest.name, "genesis": self.out.display().to_string(), "index": manifest.index,
                "epoch": manifest.epoch.0 + 1, "trust_version": manifest.trust_version.0 + 1,
            }));
        }
        let (epoch, version) = (manifest.epoch.0 + 1, manifest.trust_version.0 + 1);
        context.output.line(&format!(
            "cluster {} goes on from backup {} (index {}) in epoch {epoch} with trust root {version}",
            manifest.cluster, manifest.name, manifest.index
        ))?;
        context.output.line(&format!(
            "genesis {}  (to every new controller; then there: dotmac backup restore)",
            self.out.display(),
        ))
    }
}

impl Restore {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if let Some(name) = &self.name {
            which::check(name)?;
        }
        let target = self.place.open()?.ok_or_else(no_place)?;
        let config = Config::load(&self.controller).map_err(|error| failed(&error))?;
        let beginning =
            bootstrap::read_beginning(&config.genesis).map_err(|error| failed(&error))?;
        let (genesis, path) = (&beginning.genesis, &config.genesis);
        let planned = beginning.backup.as_ref().ok_or_else(|| not_planned(path))?;
        let keys = bootstrap::load_keys(&config).map_err(|error| failed(&error))?;
        let is_named = genesis
            .card(config.node)
            .is_some_and(|card| card.incarnation == keys.incarnation);
        if !is_named {
            return Err(Failure::Usage(format!(
                "{} does not name controller {} with the keys in {}: `dotmac backup plan` takes its card",
                path.display(),
                config.node,
                config.data_dir.display()
            )));
        }
        let identity = Identity::read(&self.identity).map_err(|error| failed(&error))?;
        if let Some(name) = &self.name {
            let origin = Origin::of_beginning(&beginning);
            let name = which::at_target(context, (&target, Some(&origin)), name).await?;
            check_is_planned(&name, planned, path)?;
        }
        let whose = (genesis, config.node, config.data_dir.as_path());
        let disk = std::sync::Arc::new(SystemDisk);
        let restored = restore::restore(&target, planned, &identity, whose, disk).await;
        let manifest = restored.map_err(|error| failed(&error))?;
        if context.output.is_data() {
            return context
                .output
                .data(&json!({"id": manifest.name, "node": config.node}));
        }
        context.output.line(&format!(
            "controller {} begins with backup {} of index {}: start it",
            config.node, manifest.name, manifest.index
        ))
    }
}

/// A genesis that is for no backup, of a cluster that begins or that this controller joins.
fn not_planned(path: &Path) -> Failure {
    Failure::Usage(format!(
        "{} names no backup: a cluster whose controllers are all lost goes on with the file that `dotmac backup plan` writes \
         (make it again if a program of before made it); in a cluster that lives `dotmac cluster replace-node` puts a new \
         controller in the place of a lost one",
        path.display()
    ))
}

/// Every controller begins with the one backup that the genesis is for.
fn check_is_planned(name: &str, planned: &PlannedBackup, path: &Path) -> Result<(), Failure> {
    if name == planned.name {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{} goes on from backup {}, and {name} is asked for: leave the name out, or make another genesis with `dotmac \
         backup plan {name}` for all controllers",
        path.display(),
        planned.name
    )))
}

fn no_place() -> Failure {
    Failure::Usage("name where the backup is: --target URL or --config FILE".to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dotmac_protocol::digest::Digest;

    use super::{Failure, PlannedBackup, check_is_planned, not_planned};

    #[test]
    fn another_backup_than_the_planned_one_is_refused_with_both_names() {
        let (own, other) = ("20261123T165400Z-00a1f9", "20261124T165400Z-00a1f9");
        let planned = PlannedBackup {
            name: own.to_owned(),
            manifest: Digest::of(b"manifest"),
        };
        let path = Path::new("/etc/dotmac/genesis.json");
        check_is_planned(own, &planned, path).unwrap();
        let refused = check_is_planned(other, &planned, path).unwrap_err();
        let said = refused.to_string();
        for part in [own, other, "genesis.json"] {
            assert!(said.contains(part), "{said}");
        }
        let none = not_planned(path);
        assert!(matches!(none, Failure::Usage(_)));
        let said = none.to_string();
        assert!(
            said.contains("backup plan") && said.contains("replace-node"),
            "{said}"
        );
    }
}
