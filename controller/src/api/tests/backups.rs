//! Backups of a real State to a real directory: what is refused, by which name, and what the API tells of it.
//!
//! Longer than 400 lines: each way of lying that a target has, with its store.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex},
};

use dotmac_domain::{
    Command, State,
    audit::{Fact, Stream},
    retention::Retained,
};
use dotmac_protocol::{record::ChainHead, time::Timestamp};
use dotmac_runtime::{causes, disk::SystemDisk, entropy::Entropy};
use tokio::sync::watch;

use super::{changes::named, world::World};
use crate::{
    api::DEPLOYMENTS,
    backup::{
        keeper::going,
        listing,
        manifest::{MANIFEST, Manifest},
        read::{self, ReadError},
        recipient::Identity,
        retention::Retention,
        target::{
            Reach, Target, TargetError,
            fake::{Fake, Reply},
        },
        write::{self, Order},
    },
    log::Log,
    raft::restored::{Beginning, RestoredStore},
};

pub(super) const NAME: &str = "20261123T165400Z-00a1f9";
pub(super) const SECOND: &str = "20261123T165401Z-00a1f9";

/// A controller with some history, a directory for backups, and a key.
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) folder: tempfile::TempDir,
    pub(super) target: Target,
    pub(super) identity: Identity,
}

impl Stage {
    pub(super) async fn new() -> Self {
        let world = World::new().await;
        for name in ["One", "Two", "Three"] {
            world.post(DEPLOYMENTS, &named(name)).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let address = format!("file://{}", folder.path().display());
        let target = Target::open(&address, &Reach::default()).unwrap();
        let key = tempfile::tempdir().unwrap();
        let identity = Identity::create(&key.path().join("key"), &Entropy::seeded(9)).unwrap();
        Self {
            world,
            folder,
            target,
            identity,
        }
    }

    pub(super) async fn back_up(&self, name: &str) -> Result<Manifest, write::WriteError> {
        self.back_up_as(name, |_| ()).await
    }

    /// A backup that is made otherwise than a controller makes it.
    pub(super) async fn back_up_as(
        &self,
        name: &str,
        otherwise: impl FnOnce(&mut Order),
    ) -> Result<Manifest, write::WriteError> {
        self.back_up_to(&self.target, name, otherwise).await
    }

    async fn back_up_to(
        &self,
        target: &Target,
        name: &str,
        otherwise: impl FnOnce(&mut Order),
    ) -> Result<Manifest, write::WriteError> {
        let node = &self.world.node;
        let moment = node.log.moment();
        let mut order = Order {
            name: name.to_owned(),
            recipients: vec![self.identity.recipient()],
            trust_roots: moment.state.newest_trust_roots(256),
            moment,
            node: node.card.node,
            key: node.signing_key.clone(),
        };
        otherwise(&mut order);
        let log = Arc::clone(&self.world.log) as Arc<dyn Log>;
        let (written, _) = watch::channel(0);
        write::create(target, order, log, &node.entropy, &written).await
    }

    pub(super) fn part(&self, name: &str, part: &str) -> std::path::PathBuf {
        self.folder.path().join(name).join(part)
    }

    async fn open(&self) -> Result<read::Opened, ReadError> {
        read::open(&self.target, NAME, &self.identity, |_| Ok(())).await
    }

    /// What both checks say of the backup.
    async fn refusals(&self) -> [String; 2] {
        let without = read::verify(&self.target, NAME).await.unwrap_err();
        let with = self.open().await.unwrap_err();
        [causes::in_full(&without), causes::in_full(&with)]
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_holds_the_state_of_its_index_and_every_fact_while_more_is_written() {
    let stage = Stage::new().await;
    let before: State = (*stage.world.node.state()).clone();
    let moment = stage.world.node.log.moment();
    let manifest = stage.back_up(NAME).await.unwrap();
    stage.world.post(DEPLOYMENTS, &named("Later")).await;
    let opened = stage.open().await.unwrap();
    assert_eq!(opened.state, before);
    assert_eq!((manifest.index, manifest.term), (moment.index, moment.term));
    assert_eq!(manifest.state_digest, before.digest());
    let facts: u64 = before.streams.values().map(|head| head.sequence).sum();
    let streams = u64::try_from(before.streams.size()).unwrap();
    assert_eq!((manifest.facts, manifest.streams), (facts, streams));
    assert_eq!(read::verify(&stage.target, NAME).await.unwrap(), manifest);
    stage.world.stop().await;
}

/// A store that says yes to everything; of what it took it has what `keeps` leaves.
async fn forgetful(keeps: impl Fn(&str, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static) -> Fake {
    let kept: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::default();
    Fake::start_with(move |line, body| {
        let mut kept = kept.lock().unwrap();
        let words: Vec<&str> = line.split([' ', '?']).collect();
        let key = words[1].trim_start_matches("/b/");
        match words[0] {
            "POST" if line.contains("?uploads") => Reply::of(
                "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
            ),
            "POST" => Reply::of(
                "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>",
            ),
            "PUT" => {
                if let Some(body) = keeps(key, body) {
                    kept.insert(key.to_owned(), body);
                }
                Reply::of("")
            }
            _ if line.contains("list-type=2") => {
                let entries = kept.iter().map(|(key, body)| {
                    format!(
                        "<Contents><Key>{key}</Key><LastModified>2026-11-23T16:54:00Z</LastModified>\
                         <Size>{}</Size></Contents>",
                        body.len()
                    )
                });
                let entries = entries.collect::<String>();
                Reply::of(format!("<ListBucketResult>{entries}</ListBucketResult>"))
            }
            _ => kept.get(key).map_or_else(Reply::missing, |body| Reply::of(body.clone())),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_the_target_took_and_did_not_keep_is_not_made() {
    let stage = Stage::new().await;
    let honest = forgetful(|_, body| Some(body.to_vec())).await;
    let made = stage.back_up_to(&honest.target, NAME, |_| ()).await;
    assert_eq!(
        read::manifest(&honest.target, NAME).await.unwrap(),
        made.unwrap()
    );
    let nothing = forgetful(|_, _| None).await;
    let short = forgetful(|key, body| {
        let bytes = body.len() - usize::from(key.ends_with("/state"));
        Some(body[..bytes].to_vec())
    });
    let without = forgetful(|key, body| (!key.ends_with("/heads")).then(|| body.to_vec()));
    let other = forgetful(|key, body| {
        let is_manifest = key.ends_with(MANIFEST);
        Some(if is_manifest {
            b"{}".to_vec()
        } else {
            body.to_vec()
        })
    });
    for (store, why) in [
        (nothing, "cannot read 20261123T165400Z-00a1f9/manifest.json"),
        (
            short.await,
            "part state of backup 20261123T165400Z-00a1f9 has",
        ),
        (
            without.await,
            "part heads of backup 20261123T165400Z-00a1f9 is missing",
        ),
        (
            other.await,
            "part manifest.json of backup 20261123T165400Z-00a1f9 was changed",
        ),
    ] {
        let refused = stage
            .back_up_to(&store.target, NAME, |_| ())
            .await
            .unwrap_err();
        let said = causes::in_full(&refused);
        assert!(
            said.contains("does not keep it") && said.contains(why),
            "{said}"
        );
    }
    stage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_whose_oldest_facts_were_dropped_are_backed_up_and_restored() {
    let stage = Stage::new().await;
    let before = stage.world.node.state();
    let half = &Stream::Platform;
    let other = before.streams.iter().find(|(stream, _)| *stream != half);
    let (gone, end) = other.expect("every deployment is in its tenant's chain");
    let first = stage.world.log.facts(half, 0, 1).unwrap().remove(0);
    let (sequence, digest) = (first.sequence, first.link.digest());
    let dropped = [(half, ChainHead { sequence, digest }), (gone, *end)];
    stage.world.log.change(|state| {
        for (stream, dropped) in dropped {
            let marks = Vec::new();
            let retained = Retained { dropped, marks };
            state.retained.insert_mut(stream.clone(), retained);
        }
    });
    let manifest = stage.back_up(NAME).await.unwrap();
    let facts = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&facts);
    let take = move |some: Vec<Fact>| {
        taken.lock().unwrap().extend(some);
        Ok(())
    };
    let opened = read::open(&stage.target, NAME, &stage.identity, take).await;
    let state = opened.unwrap().state;
    let facts = std::mem::take(&mut *facts.lock().unwrap());
    assert_eq!(u64::try_from(facts.len()).unwrap(), manifest.facts);
    let of = |stream: &Stream| facts.iter().find(|fact| fact.stream == *stream);
    assert_eq!(of(half).map(|fact| fact.sequence), Some(sequence + 1));
    assert_eq!(of(gone), None);
    // A store that begins with them has all that its State knows.
    let folder = tempfile::tempdir().unwrap();
    let beginning = Beginning {
        directory: folder.path().join("store"),
        node: stage.world.node.card.node,
        members: vec![stage.world.node.card.clone()],
        term: 2,
        index: manifest.index + 1,
    };
    let store = RestoredStore::create(beginning, SystemDisk::shared());
    let store = store.await.unwrap();
    store.append(&facts).await.unwrap();
    store.finish(state).await.unwrap();
    store.close().await.unwrap();
    stage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_cut_swapped_or_missing_is_refused_by_its_name() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    stage.back_up(SECOND).await.unwrap();
    let (own, whole) = (stage.folder.path().join(NAME), tempfile::tempdir().unwrap());
    copy(&own, whole.path());
    for part in ["state", "ledger-000001", "heads"] {
        let path = stage.part(NAME, part);
        let bytes = fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        let other = if part == "heads" { "state" } else { "heads" };
        let cases = [
            (changed, "was changed"),
            (
                bytes[..bytes.len() - 1].to_vec(),
                "bytes, the manifest says",
            ),
            (fs::read(stage.part(SECOND, part)).unwrap(), "was changed"),
            (
                fs::read(stage.part(NAME, other)).unwrap(),
                "the manifest says",
            ),
        ];
        for (wrong, why) in cases {
            fs::write(&path, wrong).unwrap();
            for said in stage.refusals().await {
                assert!(
                    said.contains(&format!("part {part} of")) && said.contains(why),
                    "{said}"
                );
            }
        }
        fs::remove_file(&path).unwrap();
        for said in stage.refusals().await {
            assert!(
                said.contains(&format!("part {part} of")) && said.contains("missing"),
                "{said}"
            );
        }
        copy(whole.path(), &own);
    }
    stage.open().await.unwrap();
    stage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_counts_only_as_a_controller_signed_it_under_its_name() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    let path = stage.part(NAME, MANIFEST);
    let text = fs::read_to_string(&path).unwrap();
    for (from, to, why) in [
        ("\"format\":1", "\"format\":2", "format 2"),
        ("\"facts\":", "\"facts\":9", "not signed by a controller"),
        ("\"epoch\":1", "\"epoch\":7", "not those that it names"),
        (NAME, SECOND, "it is the manifest of backup"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replace(from, to)).unwrap();
        for said in stage.refusals().await {
            assert!(said.contains(why), "{said}");
        }
    }
    fs::remove_file(&path).unwrap();
    for said in stage.refusals().await {
        assert!(said.contains("unfinished"), "{said}");
    }
    let listed = listing::list(&stage.target, None).await.unwrap();
    assert!(matches!(listed[..], [ref one] if one.manifest.is_err()));
    stage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_opens_nothing_and_no_text_of_the_state_is_in_clear() {
    let stage = Stage::new().await;
    let made = stage.back_up(NAME).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stranger = Identity::create(&folder.path().join("key"), &Entropy::seeded(8)).unwrap();
    let opened = read::open(&stage.target, NAME, &stranger, |_| Ok(())).await;
    let said = opened.unwrap_err().to_string();
    assert!(
        said.contains("sealed to") && said.contains(&made.keys[0].to.to_string()),
        "{said}"
    );
    for entry in fs::read_dir(stage.folder.path().join(NAME)).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        for text in ["Three", "demo-isp", "deployment.created"] {
            assert!(
                !bytes
                    .windows(text.len())
                    .any(|part| part == text.as_bytes()),
                "{text}"
            );
        }
    }
    stage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_away_or_takes_nothing_is_a_clear_error_and_leaves_no_backup() {
    let stage = Stage::new().await;
    // A file where the backup's folder belongs: nothing can be written below it.
    fs::write(stage.folder.path().join(NAME), "in the way").unwrap();
    let said = causes::in_full(&stage.back_up(NAME).await.unwrap_err());
    assert!(
        said.contains("cannot write") && said.contains(NAME),
        "{said}"
    );
    fs::remove_file(stage.folder.path().join(NAME)).unwrap();
    assert!(listing::list(&stage.target, None).await.unwrap().is_empty());
    let gone = Target::open("file:///nowhere/at/all", &Reach::default()).unwrap_err();
    assert!(matches!(gone, TargetError::Directory { .. }), "{gone}");
    for wrong in ["ftp://x", "file://relative", "s3://", "/tmp"] {
        let error = Target::open(wrong, &Reach::default()).unwrap_err();
        assert!(matches!(error, TargetError::Address { .. }), "{wrong}");
    }
    stage.world.stop().await;
}

#[tokio::test]
async fn a_request_is_taken_once_and_told_until_it_is_answered() {
    let world = World::new().await;
    let refused = world
        .request("POST", "/api/v1/backups")
        .bearer_auth(super::world::ADMIN);
    let (status, code, _) = World::send(refused).await.problem();
    assert_eq!((status, code.as_str()), (409, "wrong-state"));
    world.command(Command::RequestBackup).await;
    let told = world.get("/api/v1/backups/status").await.json();
    assert!(
        told["asked"]["id"].is_string() && told["answered"].is_null(),
        "{told}"
    );
    assert_eq!(told["is_configured"], false);
    let (status, code, _) = world.get("/api/v1/backups?cursor=null").await.problem();
    assert_eq!((status, code.as_str()), (422, "invalid"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_without_a_part_is_listed_as_damaged_and_pushes_no_whole_one_out() {
    let stage = Stage::new().await;
    let names = [NAME, SECOND, "20261123T165402Z-00a1f9"];
    for name in names {
        stage.back_up(name).await.unwrap();
    }
    let retention = Retention {
        last: 1,
        daily: 0,
        weekly: 0,
    };
    let own = (names[2], &retention);
    let all = listing::list(&stage.target, None).await.unwrap();
    assert_eq!(going(&all, own, Timestamp(0)), names[..2]);
    fs::remove_file(stage.part(names[2], "heads")).unwrap();
    let state = stage.part(names[1], "state");
    let length = fs::metadata(&state).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&state).unwrap();
    file.set_len(length - 1).unwrap();
    let all = listing::list(&stage.target, None).await.unwrap();
    let problem = |place: usize| all[place].manifest.as_ref().unwrap_err().to_string();
    let cut = problem(1);
    assert!(
        cut.contains("part state") && cut.contains(&format!("has {} bytes", length - 1)),
        "{cut}"
    );
    let missing = problem(2);
    assert!(
        missing.contains("part heads") && missing.contains("missing"),
        "{missing}"
    );
    assert!(going(&all, own, Timestamp(0)).is_empty());
    stage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_in_a_directory_are_their_owners_alone() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = stage.folder.path().join(NAME);
    assert_eq!(mode(&folder), 0o700);
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    stage.world.stop().await;
}
