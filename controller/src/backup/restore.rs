//! A cluster from a backup, on new machines: first a genesis that names the new controllers, signed by the offline root
//! key, with the next epoch; then on each of them a store that begins with the State of the backup. Nothing half
//! done stays: a store gets its name when it is whole.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use dotmac_domain::{
    audit::Fact,
    command::{Genesis, NodeCard},
    recovery::{self, RestoreError},
};
use dotmac_protocol::{
    ids::{Epoch, NodeId},
    keys::PublicKey,
    trust::majority,
};
use dotmac_runtime::{causes, disk::SharedDisk};
use thiserror::Error;
use tokio::runtime::Handle;

use super::{
    manifest::Manifest,
    origin::Origin,
    read::{self, Begun, Opened, ReadError},
    recipient::Identity,
    target::Target,
};
use crate::{
    bootstrap::{self, BootstrapError, PlannedBackup},
    raft::{
        StartError,
        restored::{self, Beginning, RestoredError, RestoredStore},
    },
    trust_root::{self, TrustRootError},
};

/// Name of the store while it is written, below the data directory.
const UNFINISHED: &str = "store.restoring";
/// Name of the store.
const STORE: &str = "store";

/// Controllers of a cluster at most.
const CONTROLLERS_MAX: usize = 7;

/// With what a cluster goes on.
#[derive(Debug)]
pub struct New<'a> {
    /// Cards of its controllers.
    pub cards: Vec<NodeCard>,
    /// How many that should be, when not as many as before.
    pub controllers: Option<usize>,
    /// The file with its root key.
    pub root_key: &'a Path,
}

/// Why nothing was restored.
#[derive(Debug, Error)]
pub enum CannotRestore {
    /// The backup does not count.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is another one than the genesis is for.
    #[error(
        "the genesis goes on from backup {planned}, and what lies there is backup {found}: every controller begins with \
         the same backup; for another one make a genesis with `dotmac backup plan`"
    )]
    Another {
        /// The one that the genesis names.
        planned: PlannedBackup,
        /// The one at the target.
        found: PlannedBackup,
    },
    /// The State does not go on.
    #[error("the backup does not fit the genesis")]
    State(#[from] RestoreError),
    /// The trust root cannot be signed.
    #[error(transparent)]
    Trust(#[from] TrustRootError),
    /// There is a store already, or it cannot be written.
    #[error(transparent)]
    Store(#[from] RestoredError),
    /// The store could not be written.
    #[error(
        "the store was not written, and nothing of it is left: mend what failed and restore again"
    )]
    Failed(#[source] Box<CannotRestore>),
    /// The store could not be written, nor what was begun removed.
    #[error(
        "the store was not written, and {} cannot be removed ({removal}): the next restore removes it",
        path.display()
    )]
    Left {
        /// What is left.
        path: PathBuf,
        /// Why.
        removal: io::Error,
        /// Why the store was not written.
        #[source]
        source: Box<CannotRestore>,
    },
    /// The file system refuses.
    #[error("{} cannot be used", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The controller has served with these keys.
    #[error(
        "the store of this controller is gone, and {} says that it has served: restored under its old number it would          forget what it acknowledged since. While other controllers run, replace it (`dotmac cluster replace-node`); when          all are lost, remove {} and its seal key on every machine, make new keys (`dotmac-controller init`) and plan          again (`dotmac backup plan`)",
        mark.display(), keys.display()
    )]
    Served {
        /// The file that notes it.
        mark: PathBuf,
        /// Its keys.
        keys: PathBuf,
    },
    /// The note of the store cannot be read.
    #[error(transparent)]
    Mark(#[from] StartError),
    /// The cards do not make a cluster.
    #[error(transparent)]
    Cards(#[from] BootstrapError),
    /// There are more or fewer cards than controllers.
    #[error(
        "{cards} cards are given and the cluster of the backup has {controllers} controllers: give one card of each new \
         controller, or say --controllers {cards} if it is to go on with {cards}, of which it may lose {losses}"
    )]
    Count {
        /// Cards given.
        cards: usize,
        /// Controllers before.
        controllers: usize,
        /// Controllers that may be lost with so many.
        losses: usize,
    },
    /// There are more or fewer cards than it was said.
    #[error("{cards} cards are given and --controllers says {said}: both must be the same")]
    Said {
        /// Cards given.
        cards: usize,
        /// Controllers as said.
        said: usize,
    },
    /// There are none, or too many.
    #[error("{0} cards are given: a cluster goes on with 1 to {CONTROLLERS_MAX} controllers")]
    Size(usize),
}

/// The genesis of a cluster that goes on from a backup, signed with the root key in a file, and the backup that it is
/// for. Opens and proves the whole backup on the way. The same backup and cards give the same genesis whenever it is made:
/// controllers whose genesis files differ in anything would differ for ever after.
///
/// # Errors
/// When the backup does not count, or the key is not its root key.
pub async fn plan(
    target: &Target,
    name: &str,
    identity: &Identity,
    new: New<'_>,
) -> Result<(Manifest, Genesis, PlannedBackup), CannotRestore> {
    let New {
        mut cards,
        controllers: said,
        root_key,
    } = new;
    if cards.is_empty() || cards.len() > CONTROLLERS_MAX {
        return Err(CannotRestore::Size(cards.len()));
    }
    bootstrap::check_distinct(&cards)?;
    cards.sort_by_key(|card| card.node);
    let Opened {
        manifest,
        manifest_digest,
        state,
    } = read::open(target, name, identity, |_| Ok(())).await?;
    let (Some(before), Some(trust)) = (state.genesis.clone(), state.trust.clone()) else {
        return Err(RestoreError::NotFounded.into());
    };
    // What is signed here counts for agents: it goes on with nothing that this key did not sign before.
    let key = PublicKey::of(&bootstrap::read_offline_key(root_key)?);
    let manifest = Origin::of_root_key(key).check(manifest)?;
    check_count(cards.len(), trust.controllers.len(), said)?;
    let controllers = cards.iter().map(trust_root::identity_of).collect();
    let epoch = Epoch(trust.epoch.0.saturating_add(1));
    let next = trust_root::next(&trust, controllers, epoch);
    let genesis = Genesis {
        created_at: manifest.at,
        trust_root: trust_root::sign(&trust, &next, root_key)?,
        nodes: cards,
        ..before
    };
    // What every controller will do is tried here first.
    state.restored(&how(&manifest, &genesis))?;
    let planned = PlannedBackup {
        name: manifest.name.clone(),
        manifest: manifest_digest,
    };
    Ok((manifest, genesis, planned))
}

/// A forgotten card is no smaller cluster: another number of controllers must be said.
fn check_count(cards: usize, controllers: usize, said: Option<usize>) -> Result<(), CannotRestore> {
    match said {
        Some(said) if said != cards => Err(CannotRestore::Said { cards, said }),
        None if cards != controllers => Err(CannotRestore::Count {
            cards,
            controllers,
            losses: cards - usize::from(majority(cards)),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Writes the store of one controller below its data directory, from the backup that its genesis is for.
///
/// # Errors
/// When there is a store already, the backup is another one or does not count, or the disk fails: then nothing is left.
pub async fn restore(
    target: &Target,
    planned: &PlannedBackup,
    identity: &Identity,
    (genesis, node, data_dir): (&Genesis, NodeId, &Path),
    disk: SharedDisk,
) -> Result<Manifest, CannotRestore> {
    let (store, unfinished) = (data_dir.join(STORE), data_dir.join(UNFINISHED));
    if store.exists() {
        return Err(RestoredError::Exists(store).into());
    }
    let mark = bootstrap::store_mark(data_dir);
    if mark.has_served()? {
        let keys = mark.path().with_file_name("");
        let mark = mark.path().to_owned();
        return Err(CannotRestore::Served { mark, keys });
    }
    // Whatever can be wrong with backup, identity and genesis is found before anything is written.
    let begun = read::begin(target, &planned.name, identity).await?;
    if begun.manifest_digest != planned.manifest {
        let (planned, manifest) = (planned.clone(), begun.manifest_digest);
        let name = begun.manifest.name;
        let found = PlannedBackup { name, manifest };
        return Err(CannotRestore::Another { planned, found });
    }
    begun
        .state
        .clone()
        .restored(&how(&begun.manifest, genesis))?;
    restored::check_room(data_dir, begun.manifest.bytes())?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CannotRestore::File { path, source }
    };
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(failed(&unfinished))?;
    }
    let written = write(begun, (genesis, node, &unfinished), disk.clone()).await;
    let manifest = match written {
        Ok(manifest) => manifest,
        Err(error) => return Err(without(unfinished, error)),
    };
    if let Err(source) = mark.expect_restored(disk.as_ref()) {
        let path = mark.path().to_owned();
        return Err(without(unfinished, CannotRestore::File { path, source }));
    }
    std::fs::rename(&unfinished, &store).map_err(failed(&store))?;
    disk.sync_dir(data_dir).map_err(failed(data_dir))?;
    Ok(manifest)
}

/// Removes a store that was begun, and says that nothing is left of it.
fn without(unfinished: PathBuf, error: CannotRestore) -> CannotRestore {
    let source = Box::new(error);
    match std::fs::remove_dir_all(&unfinished) {
        Err(removal) if removal.kind() != io::ErrorKind::NotFound => CannotRestore::Left {
            path: unfinished,
            removal,
            source,
        },
        Ok(()) | Err(_) => CannotRestore::Failed(source),
    }
}

/// Writes the store; when this returns, nothing is written any more.
async fn write(
    begun: Begun,
    (genesis, node, directory): (&Genesis, NodeId, &Path),
    disk: SharedDisk,
) -> Result<Manifest, CannotRestore> {
    let manifest = &begun.manifest;
    let beginning = Beginning {
        directory: directory.to_owned(),
        node,
        members: genesis.nodes.clone(),
        term: manifest.term.saturating_add(1),
        index: manifest.index.saturating_add(1),
    };
    let store = Arc::new(RestoredStore::create(beginning, disk).await?);
    let filled = fill(&store, begun, genesis).await;
    store.close().await?;
    filled
}

async fn fill(
    store: &Arc<RestoredStore>,
    begun: Begun,
    genesis: &Genesis,
) -> Result<Manifest, CannotRestore> {
    let (writing, handle) = (Arc::clone(store), Handle::current());
    let take = move |facts: Vec<Fact>| {
        let written = handle.block_on(writing.append(&facts));
        written.map_err(|error| io::Error::other(causes::in_full(&error)))
    };
    let Opened {
        manifest, state, ..
    } = begun.facts(take).await?;
    let (state, facts) = state.restored(&how(&manifest, genesis))?;
    store.append(&facts).await?;
    store.finish(state).await?;
    Ok(manifest)
}

fn how(manifest: &Manifest, genesis: &Genesis) -> recovery::Restore {
    recovery::Restore {
        backup: manifest.name.clone(),
        index: manifest.index,
        bytes: manifest.bytes(),
        at: genesis.created_at,
        genesis: genesis.clone(),
    }
}
