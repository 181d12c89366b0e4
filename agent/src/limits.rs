//! Whether and how a tier's limits hold on this host: control groups, version 2 or 1, where this user may make some.
//! It never pretends: where the kernel does not enforce a limit, the reason is the answer. Storage is not limited here.

pub(crate) mod bases;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use dotmac_protocol::{record::Limits, release::Share, unit::Resources};

use self::bases::{Bases, name};
use crate::shim::files::Group;

const ROOT: &str = "/sys/fs/cgroup";
const PERIOD_US: u64 = 100_000;

/// What one copy of a component may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Guaranteed thousandths of a cpu: its weight against others.
    pub cpu_request_millis: u64,
    /// Thousandths of a cpu at most.
    pub cpu_limit_millis: u64,
    /// Memory in bytes at most.
    pub memory_limit_bytes: u64,
}

impl Caps {
    /// A component's share of what its tier grants to each copy of the instance.
    #[must_use]
    pub fn of(resources: &Resources, share: Option<Share>) -> Self {
        let percent = |total: u64, percent: u8| total.saturating_mul(u64::from(percent)) / 100;
        let (cpu, memory) = share.map_or((100, 100), |share| {
            (share.cpu_percent, share.memory_percent)
        });
        Self {
            cpu_request_millis: percent(resources.cpu_request_millis.into(), cpu),
            cpu_limit_millis: percent(resources.cpu_limit_millis.into(), cpu),
            memory_limit_bytes: percent(resources.memory_limit_bytes, memory),
        }
    }
}

/// The control groups of one agent.
#[derive(Debug)]
pub struct ControlGroups {
    hierarchy: Result<Hierarchy, String>,
    bases: Bases,
}

#[derive(Debug)]
struct Hierarchy {
    by: &'static str,
    version: Version,
    /// One directory per controller (one for all in version 2); groups are made below.
    bases: Vec<Base>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

#[derive(Debug)]
struct Base {
    directory: PathBuf,
    /// `cgroup.procs` of the group that the agent itself is in.
    leave: PathBuf,
}

impl ControlGroups {
    /// Finds out what this host allows, for the agent that keeps its data in `data_dir`.
    #[must_use]
    pub fn detect(data_dir: &Path) -> Self {
        let name = name(data_dir);
        let hierarchy = detect_two(&name).or_else(|two| {
            detect_one(&name).map_err(|one| format!("cgroup v2: {two}; cgroup v1: {one}"))
        });
        let mut bases = Bases::recall(data_dir);
        let current = hierarchy.iter().flat_map(|hierarchy| &hierarchy.bases);
        let current = current.map(|base| base.directory.as_path());
        if let Err(error) = bases.remember(data_dir, current) {
            tracing::warn!(%error, "the places of the control groups cannot be remembered");
        }
        Self { hierarchy, bases }
    }

    /// Makes the group of one slot with its limits. The child is started in the groups given back.
    #[must_use]
    pub fn prepare(&self, slot: &str, caps: Caps) -> (Vec<Group>, Limits) {
        let made = self
            .hierarchy
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|hierarchy| {
                hierarchy
                    .prepare(slot, caps)
                    .map(|groups| (groups, hierarchy.by))
            });
        match made {
            Ok((groups, by)) => (groups, Limits::Enforced { by: by.to_owned() }),
            Err(reason) => (Vec::new(), Limits::NotEnforced { reason }),
        }
    }

    /// Where the groups are, of earlier agents on the same data too.
    pub(crate) fn bases(&self) -> &Bases {
        &self.bases
    }
}

/// Every place where an agent that does not run has or had groups: those it remembered, and where it would make them
/// if this process were it.
pub(crate) fn places(data_dir: &Path) -> Bases {
    let mut bases = Bases::recall(data_dir);
    let name = name(data_dir);
    for controller in ["", "cpu", "memory"] {
        let mount = Path::new(ROOT).join(controller);
        if let Ok(mut own) = own_group(&mount, controller) {
            leave_leaf(&mut own, &name);
            bases.add([own.join(&name).as_path()].into_iter());
        }
    }
    bases
}

impl Hierarchy {
    fn make_group(&self, base: &Base, group: &Path) -> Result<(), String> {
        make(&base.directory)?;
        if self.version == Version::Two {
            write(
                &base.directory.join("cgroup.subtree_control"),
                "+cpu +memory",
            )?;
        }
        make(group)
    }

    fn prepare(&self, slot: &str, caps: Caps) -> Result<Vec<Group>, String> {
        let quota = caps.cpu_limit_millis.max(10) * PERIOD_US / 1_000;
        let memory = caps.memory_limit_bytes.max(4 * 1024 * 1024);
        let mut groups = Vec::new();
        for (number, base) in self.bases.iter().enumerate() {
            let group = base.directory.join(slot);
            // Twice: another unit's release may remove the empty base in between.
            self.make_group(base, &group)
                .or_else(|_| self.make_group(base, &group))?;
            let settings = match (self.version, number) {
                (Version::Two, _) => vec![
                    ("cpu.max", format!("{quota} {PERIOD_US}")),
                    ("cpu.weight", weight(caps.cpu_request_millis)),
                    ("memory.max", memory.to_string()),
                ],
                (Version::One, 0) => vec![
                    ("cpu.cfs_period_us", PERIOD_US.to_string()),
                    ("cpu.cfs_quota_us", quota.to_string()),
                    ("cpu.shares", shares(caps.cpu_request_millis)),
                ],
                (Version::One, _) => vec![("memory.limit_in_bytes", memory.to_string())],
            };
            for (file, value) in settings {
                write(&group.join(file), &value)?;
            }
            groups.push(Group {
                enter: group.join("cgroup.procs"),
                leave: base.leave.clone(),
            });
        }
        Ok(groups)
    }
}

/// Version 2: one tree for all controllers. Where the agent's own group may not have inner processes, the agent moves
/// into a leaf of it, as a service with a delegated group should.
fn detect_two(name: &str) -> Result<Hierarchy, String> {
    let root = Path::new(ROOT);
    if !root.join("cgroup.controllers").exists() {
        return Err("it is not mounted as the only hierarchy".into());
    }
    let mut own = own_group(root, "")?;
    let leaf = leave_leaf(&mut own, name);
    let control = own.join("cgroup.subtree_control");
    if write(&control, "+cpu +memory").is_err() {
        let leaf = own.join(&leaf);
        make(&leaf)?;
        write(&leaf.join("cgroup.procs"), &std::process::id().to_string())?;
        write(&control, "+cpu +memory")?;
    }
    let directory = own.join(name);
    make(&directory)?;
    write(&directory.join("cgroup.subtree_control"), "+cpu +memory")?;
    // It could be made, and is made again when it is needed; one in use stays.
    drop(fs::remove_dir(&directory));
    let leave = own_group(root, "")?.join("cgroup.procs");
    Ok(Hierarchy {
        by: "cgroup v2 (cpu and memory)",
        version: Version::Two,
        bases: vec![Base { directory, leave }],
    })
}

/// Goes from the leaf that an agent made for itself to the group it was started in; gives the leaf's name.
fn leave_leaf(own: &mut PathBuf, name: &str) -> String {
    let leaf = format!("{name}-agent");
    if own.file_name().is_some_and(|file| file == leaf.as_str()) {
        own.pop();
    }
    leaf
}

/// Version 1: a tree per controller.
fn detect_one(name: &str) -> Result<Hierarchy, String> {
    let base = |controller: &str| {
        let mount = Path::new(ROOT).join(controller);
        if !mount.join("cgroup.procs").exists() {
            return Err(format!("controller {controller} is not mounted"));
        }
        let own = own_group(&mount, controller)?;
        let directory = own.join(name);
        make(&directory)?;
        // It could be made, and is made again when it is needed; one in use stays.
        drop(fs::remove_dir(&directory));
        let leave = own.join("cgroup.procs");
        Ok(Base { directory, leave })
    };
    Ok(Hierarchy {
        by: "cgroup v1 (cpu and memory)",
        version: Version::One,
        bases: vec![base("cpu")?, base("memory")?],
    })
}

/// The group this process is in; the root of the mount where a container hides what is above.
fn own_group(mount: &Path, controller: &str) -> Result<PathBuf, String> {
    let table = fs::read_to_string("/proc/self/cgroup")
        .map_err(|error| format!("/proc/self/cgroup cannot be read: {error}"))?;
    let path = group_of(&table, controller)
        .ok_or_else(|| format!("this process is in no group of {controller:?}"))?;
    let own = mount.join(path.trim_start_matches('/'));
    Ok(if own.exists() { own } else { mount.to_owned() })
}

/// The path in a line `number:controllers:path`; version 2 has no controllers there.
fn group_of<'a>(table: &'a str, controller: &str) -> Option<&'a str> {
    table.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        controllers
            .split(',')
            .any(|one| one == controller)
            .then_some(path)
    })
}

fn make(directory: &Path) -> Result<(), String> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("{} cannot be made: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn write(file: &Path, value: &str) -> Result<(), String> {
    fs::write(file, value).map_err(|error| format!("{} cannot be set: {error}", file.display()))
}

/// Version 1 gives a cpu 1024 shares.
fn shares(millis: u64) -> String {
    (millis.saturating_mul(1_024) / 1_000)
        .clamp(2, 262_144)
        .to_string()
}

/// Version 2 gives a cpu the weight 100.
fn weight(millis: u64) -> String {
    (millis / 10).clamp(1, 10_000).to_string()
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::{release::Share, unit::Resources};

    use super::{Caps, group_of};

    #[test]
    fn a_component_gets_its_share_of_the_tier() {
        let tier = Resources {
            cpu_request_millis: 250,
            memory_request_bytes: 512 << 20,
            cpu_limit_millis: 1_000,
            memory_limit_bytes: 2 << 30,
            storage_bytes: 10 << 30,
        };
        let whole = Caps {
            cpu_request_millis: 250,
            cpu_limit_millis: 1_000,
            memory_limit_bytes: 2 << 30,
        };
        assert_eq!(Caps::of(&tier, None), whole);
        let half = Share {
            cpu_percent: 50,
            memory_percent: 25,
        };
        let caps = Caps::of(&tier, Some(half));
        assert_eq!(
            (caps.cpu_limit_millis, caps.memory_limit_bytes),
            (500, 512 << 20)
        );
    }

    #[test]
    fn the_own_group_is_found_in_both_versions() {
        let mixed = "4:memory:/a/b\n2:cpu,cpuacct:/c\n0::/d:e\n";
        assert_eq!(group_of(mixed, "memory"), Some("/a/b"));
        assert_eq!(group_of(mixed, "cpu"), Some("/c"));
        assert_eq!(group_of(mixed, ""), Some("/d:e"));
        assert_eq!(group_of(mixed, "pids"), None);
    }
}
