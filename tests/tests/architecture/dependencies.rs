//! Who may depend on whom, as cargo resolves it: the arrows between our crates, and what the pure ones must not reach.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;

use crate::checkout;

/// Every member of the workspace and the members it may depend on, for tests as well.
const ARROWS: [(&str, &[&str]); 7] = [
    ("dotmac-protocol", &[]),
    ("dotmac-runtime", &["dotmac-protocol"]),
    ("dotmac-domain", &["dotmac-protocol"]),
    (
        "dotmac-controller",
        &["dotmac-domain", "dotmac-protocol", "dotmac-runtime"],
    ),
    ("dotmac-agent", &["dotmac-protocol", "dotmac-runtime"]),
    ("dotmac-demo-isp", &[]),
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
    "parking_lot",
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
    /// Packages that it is built with on this platform, by id, and whether for its tests alone.
    dependencies: Vec<(String, bool)>,
    is_macro: bool,
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
        let own = dependencies.filter(|(id, _)| self.members.contains(id));
        own.map(|(id, _)| self.packages[id].name.as_str()).collect()
    }

    /// Everything that is linked into a member, with the package that brought it.
    fn linked(&self, name: &str) -> BTreeMap<&str, &str> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![self.id(name)];
        while let Some(id) = waiting.pop() {
            let package = &self.packages[id];
            for (dependency, for_tests) in &package.dependencies {
                let target = &self.packages[dependency];
                // What runs while compiling is not part of the program.
                if *for_tests || target.is_macro || found.contains_key(target.name.as_str()) {
                    continue;
                }
                found.insert(target.name.as_str(), package.name.as_str());
                waiting.push(dependency);
            }
        }
        found
    }
}

fn resolved() -> &'static Resolved {
    static RESOLVED: OnceLock<Resolved> = OnceLock::new();
    RESOLVED.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--offline"])
            .args(["--filter-platform", "host-tuple"])
            .current_dir(checkout())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        read(&serde_json::from_slice(&output.stdout).unwrap())
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
        let package = &described[&id];
        let targets = list(&package["targets"]);
        let is_macro = targets
            .iter()
            .any(|target| target["kind"][0] == "proc-macro");
        let kinds = |dependency: &Value| {
            let kinds = list(&dependency["dep_kinds"]);
            kinds
                .iter()
                .map(|kind| kind["kind"].as_str().unwrap_or("normal").to_owned())
                .collect()
        };
        let dependencies = list(&node["deps"]).into_iter().filter_map(|dependency| {
            let kinds: BTreeSet<String> = kinds(&dependency);
            let is_for_building = kinds.iter().all(|kind| kind == "build");
            (!is_for_building).then(|| (text(&dependency["pkg"]), !kinds.contains("normal")))
        });
        let dependencies = dependencies.collect();
        (
            id,
            Package {
                name: text(&package["name"]),
                dependencies,
                is_macro,
            },
        )
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
    let resolved = resolved();
    for (one, other) in [
        ("dotmac-agent", "dotmac-controller"),
        ("dotmac-controller", "dotmac-agent"),
    ] {
        let linked = resolved.linked(one);
        assert!(!linked.contains_key(other), "{one} links {other}");
    }
    assert!(
        !resolved
            .linked("dotmac-agent")
            .contains_key("dotmac-domain")
    );
    for heavy in ["sled", "openraft"] {
        assert!(
            !resolved.linked("dotmac-agent").contains_key(heavy),
            "the agent links {heavy}"
        );
    }
}

#[test]
fn law_6_the_pure_crates_can_do_no_io_because_nothing_they_link_can() {
    for name in ["dotmac-protocol", "dotmac-domain"] {
        let linked = resolved().linked(name);
        assert!(
            linked.contains_key("serde"),
            "the graph of {name} was not read"
        );
        for impure in IMPURE {
            let by = linked.get(impure);
            assert_eq!(by, None, "{name} links {impure}");
        }
    }
}

#[test]
fn one_crate_alone_depends_on_the_store_and_on_raft() {
    let resolved = resolved();
    for engine in ["sled", "openraft"] {
        let direct = |id: &&String| {
            let dependencies = resolved.packages[*id].dependencies.iter();
            dependencies
                .into_iter()
                .any(|(id, _)| resolved.packages[id].name == engine)
        };
        let users: Vec<_> = resolved.members.iter().filter(direct).collect();
        let users: Vec<_> = users
            .iter()
            .map(|id| resolved.packages[*id].name.as_str())
            .collect();
        assert_eq!(users, ["dotmac-controller"], "{engine}");
    }
}

#[test]
fn the_check_of_what_is_linked_finds_what_is_linked() {
    // The programs that do talk to the world must be seen to do so, or the test above could not fail.
    let linked = resolved().linked("dotmac-agent");
    for expected in ["tokio", "quinn", "rustls", "getrandom"] {
        assert!(linked.contains_key(expected), "{expected}");
    }
    assert!(resolved().linked("dotmac-controller").contains_key("sled"));
}
