//! What an order comes to for the process driver: the manifest read and checked, and a fingerprint of everything that
//! a running process was started with.

use std::sync::Arc;

use dotmac_protocol::{
    digest::Digest,
    ids::{Generation, PartName},
    release::{Component, ComponentKind, Manifest, ManifestError},
    unit::{Instance, RunState},
};
use thiserror::Error;

use crate::{
    driver::SlotName,
    unit::{Order, Wanted},
};

/// The domain of fingerprints.
const FINGERPRINT_DOMAIN: &str = "dotmac/fingerprint/v1";

/// What a unit should come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// It runs.
    Keep(Box<Target>),
    /// It is kept, and nothing of it runs.
    Suspend(Box<Target>),
    /// It is gone.
    Remove,
}

/// What should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Of which generation.
    pub generation: Generation,
    /// Of everything a process is started with. A new generation with the same one (another licence, other features,
    /// more copies) restarts nothing: the instance hears of it through its platform API.
    pub fingerprint: Digest,
    /// The release.
    pub manifest: Manifest,
    /// Its components, each behind those it is `after`.
    pub order: Vec<PartName>,
    /// The whole order.
    pub instance: Arc<Instance>,
}

/// Why an order cannot be carried out by anybody.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GoalError {
    /// The manifest is none.
    #[error("the release manifest is not valid: {0}")]
    Manifest(#[from] ManifestError),
    /// The manifest is not the one that was ordered.
    #[error("the release manifest has digest {found}, ordered is {ordered}")]
    Digest { found: Digest, ordered: Digest },
}

impl Goal {
    /// Reads an order.
    ///
    /// # Errors
    /// When its manifest does not hold.
    pub fn of(wanted: &Wanted) -> Result<Self, GoalError> {
        let Order::Keep(instance) = &wanted.order else {
            return Ok(Self::Remove);
        };
        let manifest = Manifest::parse(&instance.manifest)?;
        let (found, ordered) = (manifest.digest(), instance.release);
        if found != ordered {
            return Err(GoalError::Digest { found, ordered });
        }
        let order = manifest.start_order()?.into_iter().cloned().collect();
        let target = Box::new(Target {
            generation: wanted.generation,
            fingerprint: fingerprint(instance),
            manifest,
            order,
            instance: Arc::clone(instance),
        });
        Ok(match instance.run {
            RunState::Running => Self::Keep(target),
            RunState::Suspended => Self::Suspend(target),
        })
    }

    /// What should run or stand by, if anything.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Keep(target) | Self::Suspend(target) => Some(target),
            Self::Remove => None,
        }
    }
}

impl Target {
    /// A component by name.
    #[must_use]
    pub fn component(&self, name: &PartName) -> Option<&Component> {
        self.manifest.components.get(name)
    }

    /// Whether a component comes after another, at whatever remove.
    #[must_use]
    pub fn needs(&self, name: &PartName, other: &PartName) -> bool {
        let mut after = self.component(name).into_iter().flat_map(|one| &one.after);
        after.any(|direct| direct == other || self.needs(direct, other))
    }

    /// How many copies of a component there should be: one of a task.
    #[must_use]
    pub fn copies(&self, component: &Component) -> u16 {
        match component.kind {
            ComponentKind::Task => 1,
            ComponentKind::Service => self.instance.replicas,
        }
    }

    /// The slots of a component, in order.
    pub fn slots<'a>(&self, name: &'a PartName) -> impl Iterator<Item = SlotName> + use<'a> {
        let copies = self
            .component(name)
            .map_or(0, |component| self.copies(component));
        (0..copies).map(|replica| SlotName {
            component: name.clone(),
            replica,
        })
    }

    /// Whether a slot should exist.
    #[must_use]
    pub fn wants(&self, slot: &SlotName) -> bool {
        let component = self.component(&slot.component);
        component.is_some_and(|component| slot.replica < self.copies(component))
    }
}

/// Not in it: what the instance gets through its platform API, and how many copies there are.
fn fingerprint(instance: &Instance) -> Digest {
    let for_environment = |name: &str| !name.starts_with("config.");
    let credentials: Vec<_> = instance
        .credentials
        .iter()
        .filter(|credential| for_environment(&credential.name))
        .map(|credential| (&credential.name, hex::encode(&credential.sealed.ciphertext)))
        .collect();
    let parts = (
        &instance.tenant,
        &instance.tenant_name,
        &instance.deployment,
        &instance.environment,
        &instance.region,
        instance.release,
        instance.resources,
        instance.restarts,
        credentials,
    );
    let bytes = serde_json::to_vec(&parts).expect("names, numbers and digests have a JSON form");
    Digest::tagged(FINGERPRINT_DOMAIN, &bytes)
}
