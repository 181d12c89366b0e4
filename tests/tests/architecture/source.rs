//! What may be named where, and how files and folders look.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::checkout;

/// Lines of a file without a stated reason at most.
const LINES_MAX: usize = 400;
/// How a longer file states its reason, in the text at its top.
const REASON: &str = "Longer than 400 lines:";
/// Folders at the top, besides hidden ones and what a build or a fleet leaves.
const FOLDERS: [&str; 8] = [
    "agent",
    "config",
    "controller",
    "deploy",
    "docs",
    "opentofu",
    "protocol",
    "tests",
];

/// A source file: its path from the root of the checkout, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The text without its comments.
    fn code(&self) -> String {
        let lines = self
            .text
            .lines()
            .map(|line| line.split("//").next().unwrap_or(""));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn is_within(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// The lines at its top that describe it.
    fn header(&self) -> String {
        let lines = self.text.lines().take_while(|line| line.starts_with("//!"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        collect(&checkout(), &checkout().join(folder), &mut found);
    }
    assert!(
        found.len() > 100,
        "only {} source files were found",
        found.len()
    );
    found
}

/// Path and text, without comments, of every file that is part of a program.
pub(super) fn programs() -> Vec<(String, String)> {
    let product = ["agent/", "controller/", "protocol/"];
    let sources = sources().into_iter();
    let ours = sources.filter(|one| one.is_within(&product));
    ours.map(|one| (one.path.clone(), one.code())).collect()
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            found.push(Source { path, text });
        }
    }
}

/// Whether a word stands in a code by itself, not as a part of a longer name.
fn names(code: &str, word: &str) -> bool {
    let is_part = |one: Option<char>| one.is_some_and(|one| one.is_alphanumeric() || one == '_');
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let behind = code[start + word.len()..].chars().next();
        !is_part(before) && !is_part(behind)
    })
}

/// Files of the product that name a word outside the folders or files where it belongs.
fn strangers(word: &str, home: &[&str]) -> Vec<String> {
    let product = ["agent/", "controller/", "protocol/"];
    let sources = sources();
    let at_home = sources.iter().filter(|one| one.is_within(home));
    assert!(
        at_home.into_iter().any(|one| names(&one.code(), word)),
        "nobody names {word} any more"
    );
    let others = sources
        .iter()
        .filter(|one| one.is_within(&product) && !one.is_within(home));
    others
        .filter(|one| names(&one.code(), word))
        .map(|one| one.path.clone())
        .collect()
}

#[test]
fn the_store_is_named_in_one_folder() {
    assert_eq!(
        strangers("sled", &["controller/src/storage"]),
        Vec::<String>::new()
    );
}

#[test]
fn raft_is_named_in_one_folder() {
    assert_eq!(
        strangers("openraft", &["controller/src/raft"]),
        Vec::<String>::new()
    );
}

#[test]
fn the_clock_is_read_in_one_file_and_randomness_made_in_another() {
    let clock = "protocol/runtime/src/clock.rs";
    assert_eq!(strangers("SystemTime", &[clock]), Vec::<String>::new());
    assert_eq!(
        strangers("getrandom", &["protocol/runtime/src/entropy.rs"]),
        Vec::<String>::new()
    );
    // Deadlines are tokio's, which a simulation can move; the standard library's moment is nowhere.
    let mut wrong = Vec::new();
    for source in sources()
        .iter()
        .filter(|one| one.is_within(&["agent/", "controller/", "protocol/"]))
    {
        let code = source.code();
        let imports = code
            .split("use std")
            .skip(1)
            .filter_map(|text| text.split(';').next());
        if imports.into_iter().any(|text| names(text, "Instant"))
            || code.contains("std::time::Instant")
        {
            wrong.push(source.path.clone());
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_pure_crates_name_no_clock_no_file_no_socket_and_no_unordered_map() {
    let pure = ["protocol/src", "controller/domain/src"];
    let banned = [
        "std::fs",
        "std::net",
        "std::process",
        "std::thread",
        "std::env",
        "std::io",
        "HashMap",
        "HashSet",
    ];
    let sources = sources();
    for source in sources.iter().filter(|one| one.is_within(&pure)) {
        let code = source.code();
        let found: Vec<_> = banned.iter().filter(|word| code.contains(**word)).collect();
        assert!(found.is_empty(), "{} names {found:?}", source.path);
    }
}

#[test]
fn the_house_has_the_rooms_of_the_design() {
    let entries = fs::read_dir(checkout())
        .unwrap()
        .map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let names = folders.map(|entry| entry.file_name().into_string().unwrap());
    let found: BTreeSet<String> = names
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    assert_eq!(found, FOLDERS.iter().map(ToString::to_string).collect());
}

#[test]
fn every_file_begins_with_what_it_is() {
    let silent = sources().into_iter().filter(|one| {
        let first = one.text.lines().next().unwrap_or("");
        first
            .strip_prefix("//! ")
            .is_none_or(|text| text.len() < 20)
    });
    let silent: Vec<String> = silent.map(|one| one.path).collect();
    assert_eq!(
        silent,
        Vec::<String>::new(),
        "the first line says what the file is, after `//! `"
    );
}

#[test]
fn no_file_is_long_without_a_reason() {
    let long = sources().into_iter().filter_map(|one| {
        let lines = one.text.lines().count();
        let has_reason = one.header().contains(REASON);
        (lines > LINES_MAX && !has_reason).then(|| format!("{} has {lines} lines", one.path))
    });
    let long: Vec<String> = long.collect();
    assert_eq!(
        long,
        Vec::<String>::new(),
        "split it, or say `{REASON} why` at its top"
    );
}

#[test]
fn modules_are_named_and_never_mod() {
    let unnamed = sources()
        .into_iter()
        .filter(|one| one.path.ends_with("/mod.rs"));
    assert_eq!(
        unnamed.map(|one| one.path).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}

#[test]
fn names_are_found_as_words_and_not_inside_comments() {
    assert!(names("use sled::Db;", "sled") && names("sled", "sled"));
    assert!(!names("called_sled_x and assembled", "sled"));
    let source = Source {
        path: String::new(),
        text: "let a = 1; // sled\n//! sled".into(),
    };
    assert!(!names(&source.code(), "sled"));
}
