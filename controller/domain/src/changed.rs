//! Which entities an apply changed, for whoever shows them: noted by the maps that hold them, so that no command can
//! forget it. Hints only: they say where to look, never what is there.

use std::{collections::BTreeSet, ops::Deref};

use dotmac_protocol::ids::{
    AgentId, DeploymentId, Epoch, NodeId, RegionId, TenantId, TokenId, TrustVersion,
};
use serde::{Deserialize, Serialize};

use crate::{
    cluster::Standing,
    release::ReleaseKey,
    state::{Map, State},
};

/// One entity whose value may differ from before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// The cluster as a whole: its genesis, rules, trust root or controllers.
    Cluster,
    /// A region.
    Region(RegionId),
    /// A release.
    Release(ReleaseKey),
    /// An agent.
    Agent(AgentId),
    /// A tenant.
    Tenant(TenantId),
    /// A deployment.
    Deployment(DeploymentId),
    /// An access token.
    Token(TokenId),
}

/// A map of entities that notes which of them were put or removed, until they are taken. What is noted is no part of
/// its value: it is neither compared nor written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    transparent,
    bound(
        serialize = "K: Ord + Clone + Serialize, V: Serialize",
        deserialize = "K: Ord + Clone + Deserialize<'de>, V: Deserialize<'de>"
    )
)]
pub struct Entities<K: Ord + Clone, V> {
    map: Map<K, V>,
    #[serde(skip)]
    touched: BTreeSet<K>,
}

impl<K: Ord + Clone, V> Entities<K, V> {
    /// Puts an entity in the place of the one with the same key.
    pub fn insert_mut(&mut self, key: K, value: V) {
        self.touched.insert(key.clone());
        self.map.insert_mut(key, value);
    }

    /// Removes an entity; says whether it was there.
    pub fn remove_mut(&mut self, key: &K) -> bool {
        let was_there = self.map.remove_mut(key);
        if was_there {
            self.touched.insert(key.clone());
        }
        was_there
    }

    /// Notes an entity that looks different although its value stayed: it is shown with something that is kept elsewhere.
    pub(crate) fn note(&mut self, key: &K) {
        if self.map.contains_key(key) {
            self.touched.insert(key.clone());
        }
    }

    /// The keys noted since this was asked last, in order.
    fn take_touched(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.touched)
    }
}

impl<K: Ord + Clone, V> Default for Entities<K, V> {
    fn default() -> Self {
        Self {
            map: Map::default(),
            touched: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone, V: PartialEq> PartialEq for Entities<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.map == other.map
    }
}

impl<K: Ord + Clone, V: Eq> Eq for Entities<K, V> {}

impl<K: Ord + Clone, V> Deref for Entities<K, V> {
    type Target = Map<K, V>;

    fn deref(&self) -> &Map<K, V> {
        &self.map
    }
}

impl<'a, K: Ord + Clone, V> IntoIterator for &'a Entities<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = <&'a Map<K, V> as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        (&self.map).into_iter()
    }
}

/// What makes up [`Changed::Cluster`], to be compared before and after.
type ClusterMark = (
    u16,
    bool,
    Option<(TrustVersion, Epoch)>,
    Vec<(NodeId, Standing)>,
);

impl State {
    /// What the cluster as a whole looks like now.
    pub(crate) fn cluster_mark(&self) -> ClusterMark {
        let trust = self.trust.as_ref();
        let versions = trust.map(|trust| (trust.version, trust.epoch));
        let standings = self.controllers.iter();
        let standings = standings.map(|(node, one)| (*node, one.standing)).collect();
        (self.rules, self.genesis.is_some(), versions, standings)
    }

    /// Everything that changed since this was asked last; `before` is the cluster's mark of then.
    pub(crate) fn take_changed(&mut self, before: ClusterMark) -> BTreeSet<Changed> {
        let mut changed = BTreeSet::new();
        changed.extend((self.cluster_mark() != before).then_some(Changed::Cluster));
        changed.extend(mapped(self.releases.take_touched(), Changed::Release));
        changed.extend(mapped(self.regions.take_touched(), Changed::Region));
        changed.extend(mapped(self.agents.take_touched(), Changed::Agent));
        let revoked = self.revoked_agents.take_touched();
        changed.extend(mapped(revoked, Changed::Agent));
        changed.extend(mapped(self.tenants.take_touched(), Changed::Tenant));
        changed.extend(mapped(self.deployments.take_touched(), Changed::Deployment));
        changed.extend(mapped(self.tokens.take_touched(), Changed::Token));
        changed
    }
}

fn mapped<K>(keys: BTreeSet<K>, change: impl Fn(K) -> Changed) -> impl Iterator<Item = Changed> {
    keys.into_iter().map(change)
}
