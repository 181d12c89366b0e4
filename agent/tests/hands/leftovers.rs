//! What a copy leaves behind when its shim is killed: processes that made sessions of their own, and control groups.

#![allow(clippy::print_stdout, reason = "a test that is skipped says why")]

use std::{
    collections::BTreeSet, fs, os::unix::process::ExitStatusExt as _, path::PathBuf,
    process::Command, time::Duration,
};

use dotmac_agent::driver::process::stop_all::stop_all;
use dotmac_protocol::record::{HealthStatus, Limits, Outcome};
use dotmac_runtime::process::{ProcessIdentity, Signal};
use serde_json::json;

use super::fleet::{Fleet, until};

/// The copy's processes, of which one is the leader of a session of its own, and their control groups.
struct Family {
    processes: Vec<ProcessIdentity>,
    groups: BTreeSet<PathBuf>,
}

impl Family {
    /// Starts one; `None` on a host on which this user can make no groups.
    async fn start(fleet: &mut Fleet) -> Option<Self> {
        fleet.keep(
            1,
            json!({"web": {"run": {"command": ["sh", "-c", "setsid sleep 86399 & exec sleep 86399"]}}}),
        );
        fleet.start();
        fleet.until_health(HealthStatus::Healthy).await;
        if let Limits::NotEnforced { reason } = fleet.until_applied(1).await {
            println!("skipped: control groups are needed, and {reason}");
            return None;
        }
        let leads = |process: &ProcessIdentity| {
            stat_field(process.pid, 3).is_some_and(|session| session == process.pid.to_string())
        };
        let is_there = || {
            let all = processes(fleet);
            all.len() == 2 && all.iter().filter(|process| leads(process)).count() == 1
        };
        until("a process with its own session", is_there).await;
        let processes = processes(fleet);
        let groups: BTreeSet<_> = processes.iter().flat_map(groups).collect();
        assert!(!groups.is_empty());
        Some(Self { processes, groups })
    }

    fn is_gone(&self) -> bool {
        !self.processes.iter().any(ProcessIdentity::is_alive)
    }

    /// The group of the slot and that of the agent.
    fn has_no_groups(&self) -> bool {
        let mut all = self.groups.iter();
        all.all(|group| !group.exists() && !group.parent().unwrap().exists())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_their_own_do_not_outlive_a_killed_shim() {
    let mut fleet = Fleet::new();
    let Some(first) = Family::start(&mut fleet).await else {
        return;
    };
    fleet.mark();
    fleet.shim("web.0").send_signal(Signal::KILL).unwrap();
    fleet.until_audit("instance.exited").await;
    assert!(first.is_gone(), "before the end is told");
    fleet.until_health(HealthStatus::Healthy).await;
    until("the new ones run", || processes(&fleet).len() == 2).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_after_a_killed_shim_leaves_no_process_and_no_group() {
    let mut fleet = Fleet::new();
    let Some(family) = Family::start(&mut fleet).await else {
        return;
    };
    fleet.kill_agent().await;
    let shim = fleet.shim("web.0");
    shim.send_signal(Signal::KILL).unwrap();
    until("the shim is gone", || !shim.is_alive()).await;
    assert!(!family.is_gone(), "nothing ends it yet");
    fleet.remove(2);
    fleet.start();
    fleet.until_outcome(&Outcome::Removed).await;
    assert!(family.is_gone() && processes(&fleet).is_empty());
    assert!(family.has_no_groups());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_record_hides_is_removed_with_its_unit() {
    let mut fleet = Fleet::new();
    let Some(family) = Family::start(&mut fleet).await else {
        return;
    };
    fleet.kill_agent().await;
    let shim = fleet.shim("web.0");
    shim.send_signal(Signal::KILL).unwrap();
    until("the shim is gone", || !shim.is_alive()).await;
    fs::remove_dir_all(fleet.unit_dir()).unwrap();
    fleet.remove(2);
    fleet.start();
    fleet.until_outcome(&Outcome::Removed).await;
    assert!(family.is_gone() && family.has_no_groups());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_the_product_ends_what_lost_its_shim_and_leaves_no_group() {
    let mut fleet = Fleet::new();
    let Some(family) = Family::start(&mut fleet).await else {
        return;
    };
    fleet.kill_agent().await;
    let shim = fleet.shim("web.0");
    shim.send_signal(Signal::KILL).unwrap();
    until("the shim is gone", || !shim.is_alive()).await;
    let stopped = stop_all(fleet.data_dir(), Duration::from_secs(10));
    let [one] = stopped.as_slice() else {
        panic!("{stopped:?}")
    };
    assert_eq!((one.slot.as_str(), one.killed), ("web.0", true));
    assert!(family.is_gone() && family.has_no_groups());
    assert_eq!(stop_all(fleet.data_dir(), Duration::ZERO), []);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_an_earlier_agent_made_elsewhere_are_emptied_and_removed_too() {
    let mut fleet = Fleet::new();
    let Some(family) = Family::start(&mut fleet).await else {
        return;
    };
    fleet.kill_agent().await;
    let file = fleet.data_dir().join("groups.json");
    let mut bases: Vec<PathBuf> = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let name = bases[0].file_name().unwrap().to_owned();
    let mut strays = Vec::new();
    // Both versions of control groups, where this host has them.
    for mount in ["", "memory", "unified"] {
        let mount = PathBuf::from("/sys/fs/cgroup").join(mount);
        let elsewhere = mount.join(format!("elsewhere-{}", name.display()));
        if !mount.join("cgroup.procs").exists() || fs::create_dir(&elsewhere).is_err() {
            continue;
        }
        let nested = elsewhere.join(&name).join("gone-isp-0190a1b2.web.0/nested");
        fs::create_dir_all(&nested).unwrap();
        let stray = Command::new("sleep").arg("86399").spawn().unwrap();
        fs::write(nested.join("cgroup.procs"), stray.id().to_string()).unwrap();
        bases.push(elsewhere.join(&name));
        strays.push((elsewhere, stray));
    }
    assert!(!strays.is_empty());
    fs::write(&file, serde_json::to_vec(&bases).unwrap()).unwrap();

    let stopped = stop_all(fleet.data_dir(), Duration::ZERO);
    assert!(family.is_gone() && family.has_no_groups());
    for (elsewhere, mut stray) in strays {
        assert_eq!(stray.try_wait().unwrap().unwrap().signal(), Some(9));
        assert!(!elsewhere.join(&name).exists(), "{}", elsewhere.display());
        fs::remove_dir(elsewhere).expect("what is not the agent's is left alone");
    }
    let told: Vec<_> = stopped.iter().map(|one| (&*one.unit, one.killed)).collect();
    let expected = [("demo-isp-0190a1b2", true), ("gone-isp-0190a1b2", true)];
    assert_eq!(told, expected);
    fleet.end().await;
}

/// What works in a directory of the fleet, as every copy and all its descendants do unless they go elsewhere.
fn processes(fleet: &Fleet) -> Vec<ProcessIdentity> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let found = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let directory = fs::read_link(entry.path().join("cwd")).ok()?;
        let is_ours = directory.starts_with(fleet.data_dir());
        is_ours.then(|| ProcessIdentity::of(pid)).flatten()
    });
    found.collect()
}

/// The control groups of the product that a process is in.
fn groups(process: &ProcessIdentity) -> Vec<PathBuf> {
    let table = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap();
    let groups = table.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controller, path) = (parts.next()?, parts.next()?);
        let group = format!("/sys/fs/cgroup/{controller}/{path}");
        (path.contains("/dotmac-") && fs::exists(&group).unwrap()).then(|| group.into())
    });
    groups.collect()
}

/// A field of `/proc/PID/stat`, counted behind the name.
fn stat_field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields
        .split_ascii_whitespace()
        .nth(number)
        .map(str::to_owned)
}
