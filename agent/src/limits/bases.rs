//! Where the groups of one agent are or ever were: an agent, and whoever stops its instances, may be started in
//! another group than the agent before it. It touches directories of this agent's own name only, and deletes empty
//! ones only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use dotmac_protocol::digest::Digest;
use dotmac_runtime::{disk::write_atomic, process::ProcessIdentity};

use super::ROOT;

/// In the agent's data directory: the directories that hold its groups, as JSON.
const FILE: &str = "groups.json";
/// Directories that are remembered at most; one that is gone is forgotten.
const BASES_MAX: usize = 64;
/// Groups that a copy made below its own and that are looked through at most.
const NESTED_MAX: usize = 1_024;
const REMOVE_TRIES_MAX: usize = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// The directories below which an agent has one group per slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bases {
    name: String,
    directories: BTreeSet<PathBuf>,
}

impl Bases {
    /// Those of earlier agents on this data directory that are still there.
    pub(crate) fn recall(data_dir: &Path) -> Self {
        let name = name(data_dir);
        let kept = fs::read(data_dir.join(FILE)).ok();
        let kept: Vec<PathBuf> = kept
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let own = kept
            .into_iter()
            .filter(|base| is_base(base, &name) && (base.exists() || leaf(base).exists()));
        Self {
            directories: own.take(BASES_MAX).collect(),
            name,
        }
    }

    /// Adds those that are used from now on, on disk too: before a group is made in them.
    pub(super) fn remember<'a>(
        &mut self,
        data_dir: &Path,
        current: impl Iterator<Item = &'a Path>,
    ) -> io::Result<()> {
        self.add(current);
        let bytes = serde_json::to_vec(&self.directories)?;
        write_atomic(&data_dir.join(FILE), &bytes, 0o600)
    }

    pub(super) fn add<'a>(&mut self, directories: impl Iterator<Item = &'a Path>) {
        let own = directories.filter(|base| is_base(base, &self.name));
        let own: Vec<PathBuf> = own.map(Path::to_owned).collect();
        self.directories.extend(own);
    }

    /// The groups of one slot, by its name below the bases.
    pub(crate) fn slot(&self, slot: &str) -> Vec<PathBuf> {
        let groups = self.directories.iter().map(|base| base.join(slot));
        groups.filter(|group| group.is_dir()).collect()
    }

    /// The groups of all slots, by their names below the bases.
    pub(crate) fn slots(&self) -> BTreeMap<String, Vec<PathBuf>> {
        let mut slots = BTreeMap::<String, Vec<PathBuf>>::new();
        for group in self.directories.iter().flat_map(|base| below(base)) {
            if let Some(slot) = group.file_name().and_then(|slot| slot.to_str()) {
                slots.entry(slot.to_owned()).or_default().push(group);
            }
        }
        slots
    }

    /// Removes the bases in which no slot is left.
    pub(crate) fn remove_empty(&self) {
        for base in &self.directories {
            remove_when_empty(base);
        }
    }

    /// Removes the groups that the agent itself was in, when it runs no more.
    pub(crate) fn remove_leaves(&self) {
        for base in &self.directories {
            remove_when_empty(&leaf(base));
        }
    }
}

/// Two agents on one host have two names.
pub(super) fn name(data_dir: &Path) -> String {
    let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let id = Digest::of(data_dir.as_os_str().as_encoded_bytes()).hex();
    format!("dotmac-{}", &id[..12])
}

/// What runs in groups and in those below them.
pub(crate) fn members(groups: &[PathBuf]) -> Vec<ProcessIdentity> {
    let found = pids(groups).into_iter().filter_map(ProcessIdentity::of);
    let mut found: Vec<ProcessIdentity> = found.collect();
    // A pid that went to somebody else since it was read is in no group of ours any more.
    let still = pids(groups);
    found.retain(|process| still.contains(&process.pid));
    found
}

/// Removes groups in which nothing runs any more, with those below them; others stay.
pub(crate) fn remove(groups: &[PathBuf]) {
    for group in groups {
        for directory in tree(group).iter().rev() {
            remove_when_empty(directory);
        }
    }
}

/// The kernel lets go of processes and groups a little after they are gone.
fn remove_when_empty(directory: &Path) {
    for _ in 0..REMOVE_TRIES_MAX {
        let busy = fs::remove_dir(directory)
            .is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy);
        if !busy || below(directory).next().is_some() || !pids_in(directory).is_empty() {
            return;
        }
        thread::sleep(REMOVE_PAUSE);
    }
}

fn is_base(directory: &Path, name: &str) -> bool {
    directory.starts_with(ROOT) && directory.file_name().is_some_and(|file| file == name)
}

/// Where an agent went in version 2 so that the group it was started in may have inner groups.
fn leaf(base: &Path) -> PathBuf {
    let mut leaf = base.as_os_str().to_owned();
    leaf.push("-agent");
    leaf.into()
}

/// A group and those below it, each behind the one it is in.
fn tree(group: &Path) -> Vec<PathBuf> {
    let mut found = vec![group.to_owned()];
    let mut next = 0;
    while let Some(group) = found.get(next).cloned() {
        let room = NESTED_MAX.saturating_sub(found.len());
        found.extend(below(&group).take(room));
        next += 1;
    }
    found
}

fn below(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

fn pids(groups: &[PathBuf]) -> BTreeSet<u32> {
    let all = groups.iter().flat_map(|group| tree(group));
    all.flat_map(|group| pids_in(&group)).collect()
}

/// Processes that this one cannot see have the number 0 here.
fn pids_in(group: &Path) -> Vec<u32> {
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let pids = listed.lines().filter_map(|line| line.parse().ok());
    pids.filter(|pid| *pid != 0 && *pid != std::process::id())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Bases, FILE, name};

    #[test]
    fn directories_of_others_are_never_taken_for_its_own() {
        let data = tempfile::tempdir().unwrap();
        let own = name(data.path());
        let other = name(Path::new("/somewhere/else"));
        let kept: Vec<PathBuf> = vec![
            data.path().join(&own),
            format!("/sys/fs/cgroup/{other}").into(),
            "/sys/fs/cgroup".into(),
        ];
        std::fs::create_dir(&kept[0]).unwrap();
        std::fs::write(data.path().join(FILE), serde_json::to_vec(&kept).unwrap()).unwrap();
        let mut bases = Bases::recall(data.path());
        bases.add(kept.iter().map(PathBuf::as_path));
        assert_eq!(bases.directories.len(), 0, "{bases:?}");
        let good = PathBuf::from(format!("/sys/fs/cgroup/memory/{own}"));
        bases.add([good.as_path()].into_iter());
        assert!(bases.directories.contains(&good));
    }
}
