//! Restores of a real backup to a real directory: what does not fit is refused before anything is written, and a disk that
//! fails is told and leaves nothing.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dotmac_domain::command::{Genesis, NodeCard};
use dotmac_protocol::{ids::NodeId, keys::PublicKey};
use dotmac_runtime::{
    causes,
    disk::{Disk, SystemDisk},
};
use ed25519_dalek::SigningKey;

use super::backups::{NAME, Stage};
use crate::{
    backup::restore::{self, CannotRestore},
    raft::restored::{self, RestoredError},
};

/// A disk that takes so many syncs and no more.
#[derive(Debug)]
struct Failing {
    syncs_left: AtomicUsize,
}

impl Disk for Failing {
    fn sync_data(&self, path: &Path) -> io::Result<()> {
        let left = &self.syncs_left;
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        })
        .map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
        SystemDisk.sync_data(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        SystemDisk.sync_dir(path)
    }
}

fn new_card(node: u64) -> NodeCard {
    let seed = u8::try_from(node).unwrap() + 40;
    NodeCard {
        node: NodeId(node),
        incarnation: format!("{node:030x}ff").parse().unwrap(),
        link_address: format!("127.0.0.1:{}", 7100 + node),
        api_address: format!("127.0.0.1:{}", 8100 + node),
        signing_key: PublicKey::of(&SigningKey::from_bytes(&[seed; 32])),
        issuer: node.to_be_bytes().to_vec(),
    }
}

/// The file with the root key of the tests' cluster.
fn root_key(folder: &Path) -> PathBuf {
    let path = folder.join("root.key");
    fs::write(&path, hex::encode([2; 32])).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

async fn plan(stage: &Stage, cards: Vec<NodeCard>) -> Result<Genesis, CannotRestore> {
    let folder = tempfile::tempdir().unwrap();
    let new = (cards, root_key(folder.path()).as_path().to_owned());
    let now = stage.world.node.clock.now();
    let (target, identity) = (&stage.target, &stage.identity);
    let planned = restore::plan(target, NAME, identity, (new.0, &new.1), now);
    planned.await.map(|(_, genesis)| genesis)
}

async fn restore(stage: &Stage, genesis: &Genesis, data: &Path, disk: Arc<dyn Disk>) -> String {
    let whose = (genesis, NodeId(1), data);
    let restored = restore::restore(&stage.target, NAME, &stage.identity, whose, disk);
    restored.await.map_or_else(
        |error| causes::in_full(&error),
        |manifest| format!("restored {}", manifest.name),
    )
}

fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).unwrap().next().is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genesis_that_does_not_fit_is_refused_before_anything_is_written() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    let data = tempfile::tempdir().unwrap();
    // A disk that takes nothing: whatever is written would be told as its failure.
    let disk = Arc::new(Failing {
        syncs_left: AtomicUsize::new(0),
    });
    let old = (*stage.world.node.genesis).clone();
    let said = restore(&stage, &old, data.path(), disk).await;
    assert!(said.contains("does not fit the genesis"), "{said}");
    assert!(is_empty(data.path()));
    stage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_at_any_sync_is_told_with_its_path_and_leaves_nothing() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    let genesis = plan(&stage, vec![new_card(1)]).await.unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut failures = 0;
    for syncs in 0.. {
        let disk = Arc::new(Failing {
            syncs_left: AtomicUsize::new(syncs),
        });
        let said = restore(&stage, &genesis, data.path(), disk).await;
        if said == format!("restored {NAME}") {
            break;
        }
        failures += 1;
        for part in [
            "store.restoring",
            "no storage space",
            "nothing of it is left",
        ] {
            assert!(said.contains(part), "{syncs}: {said}");
        }
        assert!(is_empty(data.path()), "{syncs}: {said}");
    }
    assert!(
        failures > 2 && data.path().join("store").is_dir(),
        "{failures}"
    );
    stage.world.stop().await;
}

#[test]
fn a_directory_without_room_is_named_with_what_is_free_and_what_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let refused = restored::check_room(folder.path(), u64::MAX / 2).unwrap_err();
    assert!(matches!(refused, RestoredError::Room { .. }));
    let said = refused.to_string();
    let path = folder.path().display().to_string();
    assert!(said.contains(&path) && said.contains("make room"), "{said}");
    restored::check_room(folder.path(), 0).unwrap();
}
