//! The example configurations: each parses as it stands, and names every key that its program knows.

use std::{collections::BTreeSet, fs, path::Path};

use crate::checkout;

/// Reads a configuration file as its program does; the error's text otherwise.
type Read = fn(&Path) -> Result<(), String>;

fn read_controller(path: &Path) -> Result<(), String> {
    let read = dotmac_controller::config::Config::load(path);
    read.map(|_| ()).map_err(|error| error.to_string())
}

fn read_agent(path: &Path) -> Result<(), String> {
    let read = dotmac_agent::config::Config::read(path);
    read.map(|_| ()).map_err(|error| error.to_string())
}

fn example(name: &str) -> String {
    fs::read_to_string(checkout().join("config").join(name)).unwrap()
}

/// The example with the keys that it shows as comments switched on.
fn switched_on(name: &str) -> Vec<String> {
    let is_key = |line: &str| line.starts_with("# ") && line.contains(" = ");
    let switch = |line: &str| {
        if is_key(line) {
            line[2..].to_owned()
        } else {
            line.to_owned()
        }
    };
    example(name).lines().map(switch).collect()
}

fn read_lines(read: Read, lines: &[String]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.toml");
    fs::write(&path, lines.join("\n")).unwrap();
    read(&path)
}

/// Keys of each section as they stand in a file; the section before the first header is "".
fn sections(lines: &[String]) -> Vec<(String, BTreeSet<String>)> {
    let mut sections = vec![(String::new(), BTreeSet::new())];
    for line in lines.iter().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            sections[0].1.insert(name.to_owned());
            sections.push((name.to_owned(), BTreeSet::new()));
        } else if let Some((key, _)) = line.split_once(" = ") {
            let (_, keys) = sections.last_mut().unwrap();
            keys.insert(key.to_owned());
        }
    }
    sections
}

/// Keys that the program itself names when it meets one that it does not know.
fn known_keys(error: &str) -> BTreeSet<String> {
    let (_, list) = error
        .split_once("expected ")
        .unwrap_or_else(|| panic!("not a list: {error}"));
    list.split('`')
        .skip(1)
        .step_by(2)
        .map(String::from)
        .collect()
}

fn check(name: &str, read: Read) {
    let lines = switched_on(name);
    read_lines(read, &lines).unwrap();
    let shown: Vec<String> = example(name).lines().map(String::from).collect();
    read_lines(read, &shown).unwrap();
    for (section, keys) in sections(&lines) {
        let mut wrong = lines.clone();
        let header = format!("[{section}]");
        let at = lines
            .iter()
            .position(|line| *line == header)
            .map_or(0, |at| at + 1);
        wrong.insert(at, "no_such_key = 1".into());
        let error = read_lines(read, &wrong).unwrap_err();
        assert!(error.contains("no_such_key"), "{error}");
        assert_eq!(
            known_keys(&error),
            keys,
            "keys of [{section}] in config/{name}"
        );
    }
}

#[test]
fn controller_toml_names_every_key_and_parses() {
    check("controller.toml", read_controller);
}

#[test]
fn agent_toml_names_every_key_and_parses() {
    check("agent.toml", read_agent);
}

#[test]
fn every_key_is_explained() {
    for name in ["controller.toml", "agent.toml"] {
        let lines: Vec<String> = example(name).lines().map(String::from).collect();
        for (at, line) in lines.iter().enumerate() {
            let key = line.trim_start_matches("# ");
            let is_key = key.contains(" = ") && !key.starts_with('`');
            if is_key {
                let before = &lines[at.saturating_sub(1)];
                assert!(before.starts_with("# "), "{name}: nothing explains {line}");
            }
        }
    }
}
