//! `dotmac backup plan` and `restore`: a cluster from a backup, on new machines, without any controller that runs.

use std::path::PathBuf;

use clap::Args;
use dotmac_protocol::keys::PublicKey;
use dotmac_runtime::disk::SystemDisk;
use serde_json::json;

use super::{Place, failed, which};
use crate::{
    backup::{origin::Origin, recipient::Identity, restore},
    bootstrap,
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
    /// Name of the backup, the one that `plan` named, or `latest`
    name: String,
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
        let planned = restore::plan(&target, &name, &identity, new, context.clock.now()).await;
        let (manifest, genesis) = planned.map_err(|error| failed(&error))?;
        bootstrap::write_genesis(&self.out, &genesis).map_err(|error| failed(&error))?;
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
            "genesis {}  (to every new controller; then there: dotmac backup restore {})",
            self.out.display(),
            manifest.name
        ))
    }
}

impl Restore {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        which::check(&self.name)?;
        let target = self.place.open()?.ok_or_else(no_place)?;
        let config = Config::load(&self.controller).map_err(|error| failed(&error))?;
        let beginning =
            bootstrap::read_beginning(&config.genesis).map_err(|error| failed(&error))?;
        let genesis = &beginning.genesis;
        let keys = bootstrap::load_keys(&config).map_err(|error| failed(&error))?;
        let is_named = genesis
            .card(config.node)
            .is_some_and(|card| card.incarnation == keys.incarnation);
        if !is_named {
            return Err(Failure::Usage(format!(
                "{} does not name controller {} with the keys in {}: `dotmac backup plan` takes its card",
                config.genesis.display(),
                config.node,
                config.data_dir.display()
            )));
        }
        let identity = Identity::read(&self.identity).map_err(|error| failed(&error))?;
        let origin = Origin::of_beginning(&beginning);
        let name = which::at_target(context, (&target, Some(&origin)), &self.name).await?;
        let whose = (genesis, config.node, config.data_dir.as_path());
        let disk = std::sync::Arc::new(SystemDisk);
        let restored = restore::restore(&target, &name, &identity, whose, disk).await;
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

fn no_place() -> Failure {
    Failure::Usage("name where the backup is: --target URL or --config FILE".to_owned())
}
