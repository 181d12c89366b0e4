//! Numbers and cards against a cluster whose controllers stand in every way.

use std::{fs, path::Path};

use dotmac_domain::command::NodeCard;
use dotmac_protocol::{digest::Digest, ids::NodeId, keys::PublicKey};
use serde_json::{Value, json};

use super::{Known, Steps, is_written};
use crate::cli::failure::Failure;

const ROOT_KEY: &str = "root.key";

fn card(node: u64) -> NodeCard {
    let byte = u8::try_from(node).unwrap();
    NodeCard {
        node: NodeId(node),
        incarnation: format!("{node:032x}").parse().unwrap(),
        link_address: format!("10.0.0.{node}:8010"),
        api_address: format!("10.0.0.{node}:8000"),
        signing_key: PublicKey([byte; 32]),
        issuer: vec![byte; 9],
    }
}

fn shown(node: u64, standing: &str, signs: bool) -> Value {
    let card = card(node);
    json!({
        "id": node, "incarnation": card.incarnation, "standing": standing, "signs": signs,
        "link_address": card.link_address, "address": card.api_address,
        "signing_key": hex::encode(card.signing_key.0), "issuer": Digest::of(&card.issuer).to_string(),
    })
}

/// Three that sign, one that learns, one that leaves, one that left.
fn known() -> Known {
    let signers = (1..=3).map(|node| shown(node, "voter", true));
    let others = [
        shown(4, "learner", false),
        shown(5, "leaving", false),
        shown(6, "retired", false),
    ];
    Known(signers.chain(others).collect())
}

fn refused<T>(result: Result<T, Failure>) -> String {
    match result {
        Err(failure @ Failure::Usage(_)) => failure.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

fn joining(card: &NodeCard) -> Result<Steps, Failure> {
    let directory = tempfile::tempdir().unwrap();
    known().joining(card, &directory.path().join("join.json"))
}

fn promotion(node: u64) -> Result<Steps, Failure> {
    known().promotion(NodeId(node), Path::new(ROOT_KEY))
}

fn removal(node: u64) -> Result<Steps, Failure> {
    known().removal(NodeId(node), Path::new(ROOT_KEY))
}

#[test]
fn a_number_that_no_controller_has_is_named_with_those_that_there_are() {
    for node in [0, 9] {
        let expected = format!(
            "there is no controller {node}: the numbers are 1, 2, 3, 4, 5 (`dotmac cluster status`)"
        );
        assert_eq!(refused(removal(node)), expected);
        assert_eq!(refused(known().require(NodeId(node)).cloned()), expected);
    }
}

#[test]
fn only_what_is_not_done_yet_is_planned() {
    assert_eq!(promotion(1).unwrap(), Steps::new());
    assert_eq!(removal(6).unwrap(), Steps::new());
    let sign = "sign a trust root with its key, by root.key".to_owned();
    let both = ["let controller 4 vote".to_owned(), sign.clone()];
    assert_eq!(promotion(4).unwrap(), both);
    let mut half = known();
    half.0[3]["standing"] = "voter".into();
    let steps = half.promotion(NodeId(4), Path::new(ROOT_KEY));
    assert_eq!(steps.unwrap(), [sign]);
    let last = "take its vote, and never use number 5 again".to_owned();
    assert_eq!(removal(5).unwrap(), [last]);
    assert_eq!(removal(2).unwrap().len(), 2);
    assert_eq!(joining(&card(7)).unwrap().len(), 2);
    let steps = joining(&card(4)).unwrap();
    assert!(steps.len() == 1 && steps[0].starts_with("write what it starts from to "));
}

#[test]
fn the_last_controller_stays() {
    let stay = |known: &Known, node| known.require_another(NodeId(node));
    assert!(stay(&known(), 1).is_ok() && stay(&known(), 4).is_ok());
    let left = [
        shown(1, "retired", false),
        shown(2, "voter", true),
        shown(4, "learner", false),
    ];
    let mut last = Known(left.into());
    let said = "controller 2 is the last one that votes, and the last one stays: put another one in its place with \
                `dotmac cluster replace-node 2`";
    assert_eq!(refused(stay(&last, 2)), said);
    assert!(stay(&last, 4).is_ok() && stay(&last, 1).is_ok());
    last.0[2]["standing"] = "joining".into();
    assert!(stay(&last, 2).is_ok());
}

#[test]
fn who_leaves_or_has_left_is_not_taken_back() {
    for result in [promotion(5), joining(&card(5))] {
        assert!(refused(result).contains("`dotmac cluster remove-node 5`"));
    }
    for result in [promotion(6), joining(&card(6))] {
        assert!(refused(result).contains("number 6 is never used again"));
    }
}

#[test]
fn a_card_that_differs_in_anything_is_refused_with_both_values() {
    assert!(joining(&card(4)).is_ok());
    let other = card(9);
    let own = card(4);
    let changed = [
        (
            "incarnation",
            NodeCard {
                incarnation: other.incarnation,
                ..own.clone()
            },
        ),
        (
            "link_address",
            NodeCard {
                link_address: other.link_address,
                ..own.clone()
            },
        ),
        (
            "api_address",
            NodeCard {
                api_address: other.api_address,
                ..own.clone()
            },
        ),
        (
            "signing_key",
            NodeCard {
                signing_key: other.signing_key,
                ..own.clone()
            },
        ),
        (
            "issuer",
            NodeCard {
                issuer: other.issuer,
                ..own.clone()
            },
        ),
    ];
    for (field, card) in changed {
        let said = refused(joining(&card));
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].contains("controller 4"), "{said}");
        assert!(lines[1].starts_with(&format!("  {field}: ")), "{said}");
        assert!(lines[2].starts_with("  next: "), "{said}");
    }
    let moved = NodeCard {
        link_address: "10.0.0.9:8010".into(),
        ..card(4)
    };
    let both = "link_address: 10.0.0.4:8010 in the cluster, 10.0.0.9:8010 in the card";
    assert!(refused(joining(&moved)).contains(both));
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_anything_is_planned() {
    let nowhere = Path::new("/nonexistent/join.json");
    for number in [4, 7] {
        let said = refused(known().joining(&card(number), nowhere));
        let start =
            "--join-file: /nonexistent/join.json cannot be written: No such file or directory";
        assert!(said.starts_with(start), "{said}");
        assert!(
            said.contains("name a file in a directory that exists"),
            "{said}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("join.json");
    assert!(known().joining(&card(7), &path).is_ok());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    let below = Path::new("/dev/null/join.json");
    assert!(refused(known().joining(&card(7), below)).contains("/dev/null/join.json"));
}

#[test]
fn a_file_that_is_there_is_not_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("join.json");
    assert!(!is_written(&path, &card(4)).unwrap());
    fs::write(&path, "my diary").unwrap();
    let said = refused(is_written(&path, &card(4)));
    assert!(said.contains(&path.display().to_string()), "{said}");
    assert!(said.contains("name a file that does not exist"), "{said}");
    assert!(refused(known().joining(&card(7), &path)).contains("--join-file"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "my diary");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/nonexistent", &path).unwrap();
    refused(is_written(&path, &card(4)));
}
