//! What counts as healthy, degraded and unhealthy.

use std::collections::BTreeMap;

use dotmac_domain::state::State;
use dotmac_protocol::{ids::NodeId, time::Timestamp};
use serde_json::json;

use super::{Found, Noticed, shown};
use crate::peers::NodeStatus;

fn status(node: u64) -> NodeStatus {
    NodeStatus {
        node: NodeId(node),
        pid: 1,
        applied: 9,
        term: 2,
        leader: Some(NodeId(1)),
        now: Timestamp(100_000),
        agents: 0,
        refusals: Vec::new(),
        storage: None,
    }
}

fn found(statuses: Vec<NodeStatus>) -> Found {
    Found {
        controllers: (1..=3).map(NodeId).collect(),
        signers: (1..=3).map(NodeId).collect(),
        statuses: statuses.into_iter().map(|one| (one.node, one)).collect(),
        descriptions: BTreeMap::new(),
        threshold: 2,
        now: Timestamp(100_000),
    }
}

/// Status and the subjects of the reasons.
fn told(found: &Found) -> (String, Vec<String>) {
    let shown = shown(&State::default(), found, &Noticed::default(), NodeId(1));
    let reasons = shown["reasons"].as_array().unwrap().iter();
    let subjects = reasons.map(|one| {
        for member in ["reason", "since", "who"] {
            assert!(!one[member].as_str().unwrap().is_empty(), "{one}");
        }
        one["about"].as_str().unwrap().to_owned()
    });
    let subjects = subjects.collect();
    (shown["status"].as_str().unwrap().to_owned(), subjects)
}

#[test]
fn three_controllers_that_answer_are_healthy() {
    let all = found(vec![status(1), status(2), status(3)]);
    assert_eq!(told(&all), ("healthy".into(), vec![]));
    let shown = shown(&State::default(), &all, &Noticed::default(), NodeId(1));
    assert_eq!(
        shown["quorum"],
        json!({"controllers": 3, "reachable": 3, "needed": 2})
    );
    assert_eq!((&shown["leader"], &shown["term"]), (&json!(1), &json!(2)));
}

#[test]
fn how_far_each_controller_is_behind_is_told_of_those_that_answer() {
    let late = NodeStatus {
        applied: 4,
        ..status(2)
    };
    let two = found(vec![status(1), late]);
    let shown = shown(&State::default(), &two, &Noticed::default(), NodeId(1));
    let controllers = shown["controllers"].as_array().unwrap().iter();
    let behind: Vec<_> = controllers.map(|one| one["behind"].clone()).collect();
    assert_eq!(behind, [json!(0), json!(5), json!(null)]);
}

#[test]
fn one_controller_away_is_degraded_two_are_unhealthy() {
    let two = found(vec![status(1), status(2)]);
    assert_eq!(told(&two), ("degraded".into(), vec!["quorum".into()]));
    let alone = NodeStatus {
        leader: None,
        ..status(1)
    };
    let (word, about) = told(&found(vec![alone]));
    assert_eq!(word, "unhealthy");
    assert_eq!(about, ["quorum", "quorum", "leader", "signing"]);
}

#[test]
fn a_refusal_a_full_disk_and_a_wrong_clock_are_told_apart() {
    let refuses = NodeStatus {
        refusals: vec!["wave 7".into()],
        ..status(2)
    };
    let full = NodeStatus {
        storage: Some("the disk is full".into()),
        ..status(3)
    };
    let late = NodeStatus {
        now: Timestamp(97_000),
        ..status(3)
    };
    for (one, about) in [
        (refuses.clone(), "signing"),
        (full.clone(), "storage"),
        (late, "clock"),
    ] {
        let others = [status(1), status(2), status(3)];
        let mut all: Vec<_> = others
            .into_iter()
            .filter(|other| other.node != one.node)
            .collect();
        all.push(one);
        assert_eq!(told(&found(all)), ("degraded".into(), vec![about.into()]));
    }
    // One that signs and one whose disk takes writes are too few of either.
    let other = NodeStatus {
        refusals: vec!["wave 7".into()],
        ..full
    };
    let worse = NodeStatus {
        storage: Some("full".into()),
        ..refuses
    };
    let (word, about) = told(&found(vec![status(1), worse, other]));
    assert_eq!(word, "unhealthy");
    assert!(about.contains(&"signing".to_owned()) && about.contains(&"storage".to_owned()));
}

#[test]
fn a_full_leader_is_unhealthy_because_no_write_succeeds_anywhere() {
    let full = |node| NodeStatus {
        storage: Some("the disk has 5 bytes left".into()),
        ..status(node)
    };
    let told_of = |full: NodeStatus| {
        let mut all = found((1..=3).map(status).collect());
        all.statuses.insert(full.node, full);
        let shown = shown(&State::default(), &all, &Noticed::default(), NodeId(2));
        let controllers = shown["controllers"].as_array().unwrap().iter();
        let taking: Vec<_> = controllers.map(|one| one["takes_writes"].clone()).collect();
        (shown["status"].clone(), shown["reasons"][0].clone(), taking)
    };
    let (word, reason, taking) = told_of(full(1));
    assert_eq!((word, taking), (json!("unhealthy"), vec![json!(false); 3]));
    let why = "controller 1 takes no writes: the disk has 5 bytes left; it leads, so no write succeeds anywhere";
    assert_eq!(reason["reason"], why);
    let who = "whoever runs controller 1: free its disk, or stop it so that another one leads";
    assert_eq!(reason["who"], who);
    let (word, _, taking) = told_of(full(3));
    assert_eq!(
        (word, taking),
        (
            json!("degraded"),
            vec![json!(true), json!(true), json!(false)]
        )
    );
}
