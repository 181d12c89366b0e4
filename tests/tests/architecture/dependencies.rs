//! Who may depend on whom, as cargo resolves it: the arrows between our crates, and what the pure ones must not reach.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;

use crate::checkout;

/// Every member of the workspace and the members it may depend on, for tests as well.
const ARROWS: [(&str, &[&str]); 9] = [
    ("dotmac-protocol", &[]),
    ("dotmac-runtime", &["dotmac-protocol"]),
    ("dotmac-domain", &["dotmac-protocol"]),
    (
        "dotmac-controller",
        &["dotmac-domain", "dotmac-protocol", "dotmac-runtime"],
    ),
    ("dotmac-agent", &["dotmac-protocol", "dotmac-runtime"]),
    ("demo-isp", &[]),
    (
        "dotmac-tests",
        &[
            "dotmac-agent",
            "dotmac-controller",
            "dotmac-domain",
            "dotmac-protocol",
            "dotmac-runtime",
        ],
    ),
    (
        "dotmac-benches",
        &[
            "dotmac-agent",
            "dotmac-controller",
            "dotmac-domain",
            "dotmac-protocol",
            "dotmac-runtime",
            "dotmac-tests",
        ],
    ),
    (
        "dotmac-chaos",
        &["dotmac-controller", "dotmac-runtime", "dotmac-tests"],
    ),
];

/// What brings files, sockets, clocks, threads, processes or randomness into a program.
const IMPURE: [&str; 40] = [
    "anyhow",
    "async-std",
    "aws-lc-rs",
    "axum",
    "chrono",
    "crossbeam-channel",
    "dirs",
    "fastrand",
    "futures",
    "futures-executor",
    "getrandom",
    "hyper",
    "inotify",
    "instant",
    "jiff",
    "libc",
    "memmap2",
    "mio",
    "nix",
    "notify",
    "openraft",
    "parking-lot",
    "polling",
    "quinn",
    "rand",
    "rayon",
    "reqwest",
    "ring",
    "rustix",
    "rustls",
    "signal-hook",
    "sled",
    "smol",
    "socket2",
    "tempfile",
    "time",
    "tokio",
    "tracing",
    "ureq",
    "uuid",
];

/// One package as cargo resolved it.
struct Package {
    name: String,
    /// Packages that it names itself, by id, for building and testing as well.
    dependencies: Vec<String>,
}

struct Resolved {
    packages: BTreeMap<String, Package>,
    members: BTreeSet<String>,
}

impl Resolved {
    fn id(&self, name: &str) -> &str {
        let mut members = self.members.iter();
        let found = members.find(|id| self.packages[*id].name == name);
        found.unwrap_or_else(|| panic!("there is no member {name}"))
    }

    /// Names of the members that a member depends on.
    fn arrows(&self, id: &str) -> BTreeSet<&str> {
        let dependencies = self.packages[id].dependencies.iter();
        let own = dependencies.filter(|id| self.members.contains(*id));
        own.map(|id| self.packages[id].name.as_str()).collect()
    }
}

/// Names of everything that is linked into a member when it is built with the features that it needs itself. (What
/// `cargo metadata` says has the features of the whole workspace in it.)
fn linked(name: &str) -> BTreeSet<String> {
    let edges = "normal,no-proc-macro";
    let arguments = [
        "tree",
        "--locked",
        "--offline",
        "--package",
        name,
        "--edges",
        edges,
        "--prefix",
        "none",
        "--format",
        "{lib}",
    ];
    let tree = cargo(&arguments);
    // Libraries are named as source code names them.
    tree.lines()
        .map(|line| line.trim().replace('_', "-"))
        .collect()
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(checkout())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn resolved() -> &'static Resolved {
    static RESOLVED: OnceLock<Resolved> = OnceLock::new();
    RESOLVED.get_or_init(|| {
        let metadata = cargo(&[
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
            "host-tuple",
        ]);
        read(&serde_json::from_str(&metadata).unwrap())
    })
}

fn read(metadata: &Value) -> Resolved {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let described = list(&metadata["packages"]);
    let described: BTreeMap<String, Value> = described
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let packages = list(&metadata["resolve"]["nodes"]).into_iter().map(|node| {
        let id = text(&node["id"]);
        let name = text(&described[&id]["name"]);
        let dependencies = list(&node["deps"]);
        let dependencies = dependencies
            .iter()
            .map(|dependency| text(&dependency["pkg"]))
            .collect();
        (id, Package { name, dependencies })
    });
    Resolved {
        packages: packages.collect(),
        members: list(&metadata["workspace_members"])
            .iter()
            .map(text)
            .collect(),
    }
}

#[test]
fn every_arrow_between_our_crates_is_one_of_the_design() {
    let resolved = resolved();
    let members: BTreeSet<&str> = resolved
        .members
        .iter()
        .map(|id| resolved.packages[id].name.as_str())
        .collect();
    assert_eq!(members, ARROWS.iter().map(|(name, _)| *name).collect());
    for (name, allowed) in ARROWS {
        let found = resolved.arrows(resolved.id(name));
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        let wrong: Vec<_> = found.difference(&allowed).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn agent_and_controller_never_see_each_other() {
    let agent = linked("dotmac-agent");
    for foreign in ["dotmac-controller", "dotmac-domain", "sled", "openraft"] {
        assert!(!agent.contains(foreign), "the agent links {foreign}");
    }
    assert!(!linked("dotmac-controller").contains("dotmac-agent"));
}

#[test]
fn law_6_the_pure_crates_can_do_no_io_because_nothing_they_link_can() {
    for name in ["dotmac-protocol", "dotmac-domain"] {
        let linked = linked(name);
        assert!(
            linked.contains("serde"),
            "what {name} links was not read: {linked:?}"
        );
        let impure: Vec<_> = IMPURE.iter().filter(|one| linked.contains(**one)).collect();
        assert!(impure.is_empty(), "{name} links {impure:?}");
    }
    // The programs that do talk to the world are seen to do so, or the above could not fail.
    let agent = linked("dotmac-agent");
    for impure in ["tokio", "quinn", "rustls", "getrandom", "socket2"] {
        assert!(agent.contains(impure), "{impure}");
    }
    assert!(linked("dotmac-controller").contains("sled"));
}

#[test]
fn one_crate_alone_depends_on_the_store_and_on_raft() {
    let resolved = resolved();
    for engine in ["sled", "openraft"] {
        let is_direct = |id: &&String| {
            let mut dependencies = resolved.packages[*id].dependencies.iter();
            dependencies.any(|id| resolved.packages[id].name == engine)
        };
        let users = resolved.members.iter().filter(is_direct);
        let users: Vec<_> = users
            .map(|id| resolved.packages[id].name.as_str())
            .collect();
        assert_eq!(users, ["dotmac-controller"], "{engine}");
    }
}
