//! The issuers that count, and for what: taken from the trust root, and on controllers from their State, too. Replaced
//! whenever these change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
};

use dotmac_protocol::{
    digest::Digest,
    ids::{ClusterId, NodeId},
    trust::TrustRoot,
};

use crate::pki::{PeerName, SpiffeName};

/// See the module's text. Clones share one set; a change counts for the next handshake, live connections stay.
#[derive(Debug, Clone)]
pub struct PinnedIssuers(Arc<RwLock<Arc<Issuers>>>);

/// Which issuers may vouch for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuers {
    /// The cluster that names must be of.
    pub cluster: ClusterId,
    /// Each may vouch for this controller.
    pub controllers: BTreeMap<Digest, NodeId>,
    /// Each may vouch for agents.
    pub agents: BTreeSet<Digest>,
}

impl PinnedIssuers {
    /// These issuers.
    #[must_use]
    pub fn new(issuers: Issuers) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(issuers))))
    }

    /// The issuers that a trust root names.
    #[must_use]
    pub fn of(trust: &TrustRoot) -> Self {
        Self::new(Issuers::of(trust))
    }

    /// Takes the issuers of a newer trust root instead.
    pub fn replace(&self, trust: &TrustRoot) {
        self.replace_by(Issuers::of(trust));
    }

    /// Takes these issuers instead.
    pub fn replace_by(&self, issuers: Issuers) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(issuers);
    }

    /// Which controller issues with the certificate of this digest; `None` when it may vouch for none.
    #[must_use]
    pub fn node(&self, issuer: &Digest) -> Option<NodeId> {
        self.set().controllers.get(issuer).copied()
    }

    /// Whether the certificate of this digest may vouch for anybody.
    #[must_use]
    pub fn knows(&self, issuer: &Digest) -> bool {
        let set = self.set();
        set.controllers.contains_key(issuer) || set.agents.contains(issuer)
    }

    /// Whether this issuer may vouch for this name: for a controller only itself.
    #[must_use]
    pub fn may_vouch(&self, issuer: &Digest, name: &SpiffeName) -> bool {
        let set = self.set();
        let fits = match &name.name {
            PeerName::Controller { node, .. } => set.controllers.get(issuer) == Some(node),
            PeerName::Agent(_) => set.agents.contains(issuer),
        };
        fits && name.cluster == set.cluster
    }

    fn set(&self) -> Arc<Issuers> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Issuers {
    /// Those that a trust root names: any controller's for agents, for a controller only its own.
    #[must_use]
    pub fn of(trust: &TrustRoot) -> Self {
        let controllers = trust.controllers.iter();
        let controllers: BTreeMap<_, _> = controllers.map(|one| (one.issuer, one.node)).collect();
        Self {
            cluster: trust.cluster.clone(),
            agents: controllers.keys().copied().collect(),
            controllers,
        }
    }
}
