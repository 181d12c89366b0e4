//! What of a deployment is upgraded and rolled back together, and which of its versions proved to run. How many copies
//! there are, its licence and its host name are no part of a version.

use std::collections::BTreeMap;

use dotmac_protocol::{ids::Generation, time::Timestamp, unit::Resources};
use serde::{Deserialize, Serialize};

use super::Deployment;
use crate::release::ReleaseKey;

/// A version of a deployment that was healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The generation that was healthy with it first.
    pub generation: Generation,
    /// When.
    pub confirmed_at: Timestamp,
    /// What it consists of.
    pub release: ReleaseKey,
    /// Name of the resource tier.
    pub resource_tier: String,
    /// What the tier grants.
    pub resources: Resources,
    /// Replicas at most in that tier.
    pub tier_max_replicas: u16,
    /// Switches handed to the instance.
    pub features: BTreeMap<String, bool>,
}

impl Version {
    fn of(deployment: &Deployment, now: Timestamp) -> Self {
        Self {
            generation: deployment.generation,
            confirmed_at: now,
            release: deployment.release.clone(),
            resource_tier: deployment.resource_tier.clone(),
            resources: deployment.resources,
            tier_max_replicas: deployment.tier_max_replicas,
            features: deployment.features.clone(),
        }
    }

    /// Whether a deployment is of this version now.
    #[must_use]
    pub fn is_of(&self, deployment: &Deployment) -> bool {
        self.release == deployment.release
            && self.resource_tier == deployment.resource_tier
            && self.resources == deployment.resources
            && self.features == deployment.features
    }
}

impl Deployment {
    /// The version that a rollback brings back: the last confirmed one that is not the present one.
    #[must_use]
    pub fn rollback_target(&self) -> Option<&Version> {
        [&self.confirmed, &self.previous]
            .into_iter()
            .filter_map(Option::as_deref)
            .find(|version| !version.is_of(self))
    }

    /// The present version is healthy: from now on it is what others are rolled back to.
    pub(crate) fn confirm(&mut self, now: Timestamp) {
        let known = self.confirmed.as_deref();
        if known.is_some_and(|version| version.is_of(self)) {
            return;
        }
        let version = Version::of(self, now);
        self.previous = self.confirmed.replace(Box::new(version));
    }

    /// Becomes a version again. Copies stay as many as its tier allows.
    pub(super) fn become_version(&mut self, version: &Version) {
        self.release = version.release.clone();
        self.resource_tier.clone_from(&version.resource_tier);
        self.resources = version.resources;
        self.features = version.features.clone();
        self.set_tier_max(version.tier_max_replicas);
    }

    /// Another tier allows another number of copies. Bounds that were the old tier's follow it.
    pub(super) fn set_tier_max(&mut self, tier_max: u16) {
        let was_whole = self.max_replicas == self.tier_max_replicas;
        self.tier_max_replicas = tier_max;
        if was_whole {
            self.max_replicas = tier_max;
        }
        self.max_replicas = self.max_replicas.min(tier_max);
        self.min_replicas = self.min_replicas.min(self.max_replicas);
        self.replicas = self.replicas.clamp(self.min_replicas, self.max_replicas);
    }
}
