//! Backups of several clusters at one target, all of one name: each counts its own, and removes no other's.

use std::{fs, sync::Arc};

use dotmac_domain::{backups::Made, command::Genesis, recovery};
use dotmac_protocol::{
    codec,
    keys::{PublicKey, Signature},
    time::Timestamp,
    trust::{Role, SignedTrustRoot, TRUST_ROOT_DOMAIN, TrustRoot},
};
use dotmac_runtime::clock::Clock;
use ed25519_dalek::SigningKey;

use super::{
    backups::{NAME, SECOND, Stage},
    restores::{self, new_card},
};
use crate::{
    backup::{
        Settings, keeper,
        listing::{self, Listed},
        manifest::Manifest,
        origin::Origin,
        read::ReadError,
        retention::Retention,
        target::Reach,
        write::WriteError,
    },
    bootstrap::Beginning,
    log::Log,
    node::{Node, NodeParts},
};

const THIRD: &str = "20261123T165402Z-00a1f9";
const YEAR_MS: u64 = 365 * 24 * 3_600_000;
const ONE: Retention = Retention {
    last: 1,
    daily: 0,
    weekly: 0,
};

impl Stage {
    /// A controller of the stage's State whose configuration names its target.
    fn node_with_target(&self) -> Arc<Node> {
        let own = &self.world.node;
        let settings = Settings {
            target: self.target.to_string(),
            reach: Reach::default(),
            recipients: vec![self.identity.recipient()],
            schedule: None,
            retention: ONE,
        };
        Arc::new(Node::new(NodeParts {
            card: own.card.clone(),
            genesis: Arc::clone(&own.genesis),
            founding_rules: dotmac_domain::rules::RULES_VERSION,
            clock: own.clock.clone(),
            entropy: own.entropy.clone(),
            log: Arc::clone(&self.world.log) as Arc<dyn Log>,
            signing_key: own.signing_key.clone(),
            traces: crate::traces::Traces::default(),
            metrics: crate::metrics::Metrics::new(&Clock::system()),
            backup: Some(settings),
        }))
    }

    /// A backup by somebody who made a trust root of his own for a cluster of this name; his clock is a year ahead.
    async fn forge(&self, name: &str) -> Result<Manifest, WriteError> {
        let own = SigningKey::from_bytes(&[77; 32]);
        let role = |keys: Vec<PublicKey>| Role { threshold: 1, keys };
        let state = self.world.node.state();
        let before = state.trust.clone().unwrap();
        let mut roots = before.root.keys.clone();
        roots.push(PublicKey::of(&own));
        let trust = TrustRoot {
            root: role(roots),
            controller: role(vec![PublicKey::of(&own)]),
            timestamp: role(vec![PublicKey::of(&own)]),
            controllers: Vec::new(),
            ..before
        };
        let body = codec::encode(&trust).unwrap();
        let signatures = vec![Signature::make(&own, TRUST_ROOT_DOMAIN, &body)];
        self.back_up_as(name, |order| {
            let mut state = (*order.moment.state).clone();
            state.trust = Some(trust);
            state.now = state.now.plus_millis(YEAR_MS);
            order.moment.state = Arc::new(state);
            order.moment.index += 1_000;
            order.trust_roots = vec![SignedTrustRoot { body, signatures }];
            order.key = own;
        })
        .await
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

fn origin_of(node: &Node) -> Origin {
    Origin::of_state(&node.state(), &node.genesis)
}

fn is_foreign(one: &Listed) -> bool {
    matches!(one.manifest, Err(ReadError::Foreign { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_the_same_name_is_foreign_and_neither_loses_nor_removes_a_backup() {
    let stage = Stage::new().await;
    let node = stage.node_with_target();
    stage.back_up(NAME).await.unwrap();
    stage.back_up(SECOND).await.unwrap();
    stage.forge(THIRD).await.unwrap();
    // Its manifest is signed by the controller that its own trust root names.
    let listed = listing::list(&stage.target, None).await.unwrap();
    assert!(
        listed
            .iter()
            .all(|one| one.manifest.is_ok() && !one.is_proven)
    );
    let listed = listing::list(&stage.target, Some(&origin_of(&node))).await;
    let listed = listed.unwrap();
    assert_eq!(
        listed.iter().map(is_foreign).collect::<Vec<_>>(),
        [false, false, true]
    );
    assert!(listed[0].is_proven && !listed[2].is_proven);
    let refused = node.shelf.verify(&node, THIRD).await.unwrap_err();
    let said = format!("{refused:?}");
    assert!(
        said.contains("foreign") && said.contains("history"),
        "{said}"
    );
    node.shelf.verify(&node, SECOND).await.unwrap();
    keeper::tidy(&node, SECOND).await.unwrap();
    assert_eq!(stage.names(), [SECOND, THIRD]);
    stage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_keeps_the_one_just_made_and_the_newest_state_whatever_the_clocks_say() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    stage.back_up(SECOND).await.unwrap();
    let ahead = stage.back_up_as(THIRD, |order| {
        let mut state = (*order.moment.state).clone();
        state.now = state.now.plus_millis(YEAR_MS);
        order.moment.state = Arc::new(state);
        order.moment.index -= 1;
    });
    ahead.await.unwrap();
    let origin = origin_of(&stage.world.node);
    let all = listing::list(&stage.target, Some(&origin)).await.unwrap();
    let going = |made| keeper::going(&all, (made, &ONE), Timestamp(0));
    assert!(going(NAME).is_empty());
    assert_eq!(going(SECOND), [NAME]);
    stage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_the_backups_of_before_are_still_the_clusters() {
    let stage = Stage::new().await;
    stage.back_up(NAME).await.unwrap();
    let founding = (*stage.world.node.genesis).clone();
    let genesis = restores::plan(&stage, vec![new_card(1)], None)
        .await
        .unwrap();
    let how = recovery::Restore {
        backup: NAME.to_owned(),
        index: 1,
        bytes: 1,
        at: genesis.created_at,
        genesis: genesis.clone(),
    };
    let before = stage.world.node.state();
    let (mut state, _) = (*before).clone().restored(&how).unwrap();
    // The facts of the restore are in no ledger here.
    state.streams = before.streams.clone();
    let state = Arc::new(state);
    let later = stage.back_up_as(SECOND, |order| {
        order.trust_roots = state.newest_trust_roots(256);
        order.moment.state = Arc::clone(&state);
        order.key = SigningKey::from_bytes(&[41; 32]);
    });
    later.await.unwrap();
    stage.forge(THIRD).await.unwrap();
    let of_file = |genesis: Genesis| {
        Origin::of_beginning(&Beginning {
            rules: 2,
            trust_roots: vec![genesis.trust_root.self_signed().unwrap()],
            members: Vec::new(),
            founds: false,
            backup: None,
            genesis,
        })
    };
    let pins = [
        Origin::of_state(&state, &genesis),
        of_file(genesis),
        of_file(founding),
        Origin::of_root_key(PublicKey::of(&SigningKey::from_bytes(&[2; 32]))),
    ];
    for pin in pins {
        let listed = listing::list(&stage.target, Some(&pin)).await.unwrap();
        let foreign: Vec<bool> = listed.iter().map(is_foreign).collect();
        assert_eq!(foreign, [false, false, true], "{pin:?}");
    }
    stage.world.stop().await;
}

/// A trust root that names the genuine root key beside another one is signed by the other alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_signs_nothing_that_goes_on_from_a_foreign_backup() {
    let stage = Stage::new().await;
    stage.forge(NAME).await.unwrap();
    let refused = restores::plan(&stage, vec![new_card(1)], Some(1)).await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("is foreign"), "{said}");
    stage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_holds_the_backup_that_the_state_knows_to_be_made() {
    let stage = Stage::new().await;
    let node = stage.node_with_target();
    // The clock stands still: one look counts as long as nothing was made.
    let listed = async || {
        let listed = node.shelf.list(&node, &node.state()).await.unwrap();
        listed
            .iter()
            .map(|one| one.name.clone())
            .collect::<Vec<_>>()
    };
    for name in [NAME, SECOND] {
        let before = listed().await;
        stage.back_up(name).await.unwrap();
        assert_eq!(listed().await, before);
        stage.world.log.change(|state| {
            state.backups.good = Some(Made {
                name: name.to_owned(),
                at: state.now,
                index: 1,
                bytes: 1,
                took_ms: 1,
            });
        });
        assert_eq!(listed().await.last().map(String::as_str), Some(name));
    }
    stage.world.stop().await;
}
