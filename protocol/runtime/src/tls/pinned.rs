//! The issuers that count, and for which controller: taken from the trust root, replaced when a new one is accepted.

use std::{
    collections::BTreeMap,
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
pub struct PinnedIssuers(Arc<RwLock<Arc<Set>>>);

#[derive(Debug)]
struct Set {
    cluster: ClusterId,
    nodes: BTreeMap<Digest, NodeId>,
}

impl PinnedIssuers {
    /// The issuers that a trust root names.
    #[must_use]
    pub fn of(trust: &TrustRoot) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(Set::of(trust)))))
    }

    /// Takes the issuers of a newer trust root instead.
    pub fn replace(&self, trust: &TrustRoot) {
        let next = Arc::new(Set::of(trust));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// Which controller issues with the certificate of this digest; `None` when it is not pinned.
    #[must_use]
    pub fn node(&self, issuer: &Digest) -> Option<NodeId> {
        self.set().nodes.get(issuer).copied()
    }

    /// Whether this issuer may vouch for this name: any controller for agents, for a controller only itself.
    #[must_use]
    pub fn may_vouch(&self, issuer: &Digest, name: &SpiffeName) -> bool {
        let set = self.set();
        let Some(issuing) = set.nodes.get(issuer) else {
            return false;
        };
        let fits = match &name.name {
            PeerName::Controller { node, .. } => node == issuing,
            PeerName::Agent(_) => true,
        };
        fits && name.cluster == set.cluster
    }

    fn set(&self) -> Arc<Set> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Set {
    fn of(trust: &TrustRoot) -> Self {
        let nodes = trust
            .controllers
            .iter()
            .map(|controller| (controller.issuer, controller.node));
        Self {
            cluster: trust.cluster.clone(),
            nodes: nodes.collect(),
        }
    }
}
