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

use dotmac_domain::{
    command::{Genesis, NodeCard},
    recovery,
    tenancy::Deployment,
};
use dotmac_protocol::{
    digest::Digest,
    ids::NodeId,
    keys::PublicKey,
    record::{ComponentHealth, HealthStatus},
};
use dotmac_runtime::{
    causes,
    disk::{Disk, SystemDisk},
};
use ed25519_dalek::SigningKey;

use super::backups::{NAME, Stage};
use crate::{
    api::DEPLOYMENTS,
    backup::{
        manifest::MANIFEST,
        restore::{self, CannotRestore, New},
    },
    bootstrap::{self, PlannedBackup},
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

pub(super) fn new_card(node: u64) -> NodeCard {
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

pub(super) async fn plan(
    stage: &Stage,
    cards: Vec<NodeCard>,
    controllers: Option<usize>,
) -> Result<Genesis, CannotRestore> {
    let folder = tempfile::tempdir().unwrap();
    let new = New {
        cards,
        controllers,
        root_key: &root_key(folder.path()),
    };
    let planned = restore::plan(&stage.target, NAME, &stage.identity, new);
    planned.await.map(|(_, genesis, _)| genesis)
}

/// The backup that lies under the name, as a genesis made for it names it.
fn planned(stage: &Stage) -> PlannedBackup {
    PlannedBackup {
        name: NAME.to_owned(),
        manifest: Digest::of(&fs::read(stage.part(NAME, MANIFEST)).unwrap()),
    }
}

async fn restore(stage: &Stage, genesis: &Genesis, data: &Path, disk: Arc<dyn Disk>) -> String {
    restore_as(stage, (genesis, &planned(stage)), data, disk).await
}

async fn restore_as(
    stage: &Stage,
    (genesis, planned): (&Genesis, &PlannedBackup),
    data: &Path,
    disk: Arc<dyn Disk>,
) -> String {
    let whose = (genesis, NodeId(1), data);
    let restored = restore::restore(&stage.target, planned, &stage.identity, whose, disk);
    restored.await.map_or_else(
        |error| causes::in_full(&error),
        |manifest| format!("restored {}", manifest.name),
    )
}

/// A data directory as `dotmac-controller init` leaves it.
fn data_dir() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("keys")).unwrap();
    data
}

/// Whether nothing was restored there.
fn is_empty(data: &Path) -> bool {
    let mut entries = fs::read_dir(data).unwrap();
    entries.all(|entry| entry.unwrap().file_name() == "keys")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genesis_that_does_not_fit_is_refused_before_anything_is_written() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    let data = data_dir();
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

/// Controllers that begin with different backups would differ without anybody noticing.
#[tokio::test(flavor = "multi_thread")]
async fn a_genesis_is_for_the_one_backup_that_its_file_names() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let new = New {
        cards: vec![new_card(1)],
        controllers: None,
        root_key: &root_key(folder.path()),
    };
    let made = restore::plan(&stage.target, NAME, &stage.identity, new).await;
    let (_, genesis, backup) = made.unwrap();
    assert_eq!(backup, planned(&stage));
    let path = folder.path().join("genesis.json");
    bootstrap::write_genesis(&path, &genesis, Some(backup.clone())).unwrap();
    let read = bootstrap::read_beginning(&path).unwrap();
    assert_eq!(
        (read.genesis, read.backup),
        (genesis.clone(), Some(backup.clone()))
    );
    assert!(!read.founds);
    bootstrap::write_genesis(&path, &genesis, None).unwrap();
    assert_eq!(bootstrap::read_beginning(&path).unwrap().backup, None);
    // Another backup of the same State under the same name: its trust root and its epoch fit as well.
    stage.back_up(NAME).await.unwrap();
    let data = data_dir();
    let own = (&genesis, &backup);
    let said = restore_as(&stage, own, data.path(), SystemDisk::shared()).await;
    for part in [backup.to_string(), planned(&stage).to_string()] {
        assert!(said.contains(&part), "{said}");
    }
    assert!(is_empty(data.path()));
    stage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genesis_that_is_planned_again_is_the_same() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    let cards = [new_card(1), new_card(2), new_card(3)];
    let first = plan(&stage, cards.to_vec(), Some(3)).await.unwrap();
    stage.world.clock.advance_millis(60_000);
    let cards = cards.into_iter().rev().collect();
    assert_eq!(plan(&stage, cards, Some(3)).await.unwrap(), first);
    stage.world.stop().await;
}

/// Its promises are forgotten with its store, also when all others are lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_has_served_is_not_restored_under_its_old_keys() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    let genesis = plan(&stage, vec![new_card(1)], None).await.unwrap();
    let data = data_dir();
    let mark = bootstrap::store_mark(data.path());
    fs::write(mark.path(), format!("{}\n", "ab".repeat(16))).unwrap();
    let said = restore(&stage, &genesis, data.path(), SystemDisk::shared()).await;
    assert!(said.contains("it has served"), "{said}");
    assert!(is_empty(data.path()));
    // A restored store that never served, as after one whose disk was lost before its start.
    mark.expect_restored(&SystemDisk).unwrap();
    let said = restore(&stage, &genesis, data.path(), SystemDisk::shared()).await;
    assert_eq!(said, format!("restored {NAME}"));
    stage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_at_any_sync_is_told_with_its_path_and_leaves_nothing() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    let genesis = plan(&stage, vec![new_card(1)], None).await.unwrap();
    let data = data_dir();
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
        let place = data.path().display().to_string();
        for part in [place.as_str(), "no storage space", "nothing of it is left"] {
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

#[tokio::test(flavor = "multi_thread")]
async fn cards_that_are_doubled_or_too_few_are_refused_with_their_numbers() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    let two = || vec![new_card(1), new_card(2)];
    let refused = async |cards, said| plan(&stage, cards, said).await.unwrap_err().to_string();
    let double = refused(vec![new_card(1), new_card(2), new_card(1)], None).await;
    assert!(
        double.contains("card 1 and card 3") && double.contains("number 1"),
        "{double}"
    );
    // The cluster of the tests has one controller that signs.
    let count = refused(two(), None).await;
    for part in [
        "2 cards",
        "has 1 controllers",
        "--controllers 2",
        "may lose 0",
    ] {
        assert!(count.contains(part), "{count}");
    }
    let said = refused(two(), Some(3)).await;
    assert!(
        said.contains("2 cards") && said.contains("says 3"),
        "{said}"
    );
    assert!(refused(Vec::new(), None).await.contains("1 to 7"));
    let genesis = plan(&stage, two(), Some(2)).await.unwrap();
    assert_eq!(genesis.nodes.len(), 2);
    stage.world.stop().await;
}

/// What an agent said before the backup is not told as how its instances are.
#[tokio::test(flavor = "multi_thread")]
async fn until_an_agent_has_told_after_a_restore_its_instances_are_unknown() {
    let stage = Stage::new().await;
    let state = stage.world.node.state();
    let id = state.deployments.keys().next().unwrap().clone();
    let path = format!("{DEPLOYMENTS}/{id}");
    let show = async || stage.world.get(&path).await.json();
    stage.world.log.change(|state| {
        let one = state.deployments.get(&id).unwrap().clone();
        let components = vec![ComponentHealth {
            name: "web".parse().unwrap(),
            desired: 1,
            ready: 1,
            pids: Vec::new(),
            restarts: 0,
            address: None,
        }];
        let seen = Deployment {
            health: HealthStatus::Healthy,
            observed_generation: one.generation,
            components,
            ..one
        };
        state.deployments.insert_mut(id.clone(), seen);
    });
    let shown = |one: &serde_json::Value| {
        (
            one["health_status"].as_str().unwrap().to_owned(),
            one["ready_pods"].as_u64(),
            one["health_reason"]
                .as_str()
                .unwrap()
                .contains("has not told yet"),
        )
    };
    assert_eq!(shown(&show().await), ("healthy".into(), Some(1), false));
    stage.back_up(NAME).await.unwrap();
    let genesis = plan(&stage, vec![new_card(1)], None).await.unwrap();
    stage.world.log.change(|state| {
        let how = recovery::Restore {
            backup: NAME.to_owned(),
            index: 1,
            bytes: 1,
            at: genesis.created_at,
            genesis: genesis.clone(),
        };
        *state = state.clone().restored(&how).unwrap().0;
    });
    assert_eq!(shown(&show().await), ("unknown".into(), Some(0), true));
    stage.world.stop().await;
}
