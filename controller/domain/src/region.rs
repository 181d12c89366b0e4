//! Regions: where workloads may run. The first ones come with the genesis; none ever goes, because agents and
//! deployments are named after it.

use dotmac_protocol::{ids::RegionId, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    access::Permission,
    command::{Genesis, UpdateRegion},
    envelope::Envelope,
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
    tenancy::expect_revision,
};

/// Regions at most.
pub const REGIONS_MAX: usize = 1_000;
/// Characters of a region's description at most.
pub const REGION_DESCRIPTION_CHARS_MAX: usize = 200;

/// A region as the State keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// For people.
    pub description: String,
    /// Whether new deployments may be placed there; those that are there stay.
    pub accepts_deployments: bool,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was changed.
    pub updated_at: Timestamp,
    /// Counts what persons decided about it, from 1.
    pub revision: u64,
}

impl State {
    /// The regions that the genesis names.
    pub(crate) fn seed_regions(&mut self, genesis: &Genesis) {
        for name in &genesis.regions {
            let region = Region::new(String::new(), genesis.created_at);
            self.regions.insert_mut(name.clone(), region);
        }
    }

    /// A region that exists, or a rejection that lists them.
    pub(crate) fn check_region(&self, region: &RegionId) -> Result<&Region, Rejection> {
        let unknown = || Rejection::field("region", region, self.regions_in_words(|_| true));
        self.regions.get(region).ok_or_else(unknown)
    }

    /// A region that takes new deployments, or a rejection that lists those that do.
    pub(crate) fn check_open_region(&self, region: &RegionId) -> Result<(), Rejection> {
        let is_open = |one: &Region| one.accepts_deployments;
        if self.regions.get(region).is_some_and(is_open) {
            return Ok(());
        }
        let allowed = self.regions_in_words(is_open);
        Err(Rejection::field("region", region, allowed))
    }

    fn regions_in_words(&self, counts: impl Fn(&Region) -> bool) -> String {
        let regions = self.regions.iter().filter(|(_, region)| counts(region));
        let names: Vec<&str> = regions.map(|(name, _)| name.as_str()).collect();
        match names.as_slice() {
            [] => "no region takes deployments now".to_owned(),
            names => format!("one of {}", names.join(", ")),
        }
    }

    pub(crate) fn create_region(
        &mut self,
        envelope: &Envelope,
        name: &RegionId,
        description: &str,
        now: Timestamp,
    ) -> Reply {
        self.require(&envelope.actor, Permission::RegionWrite, None)?;
        check_description(description)?;
        if self.regions.contains_key(name) {
            let detail = format!("region {name} exists already");
            return Err(Rejection::new(Code::AlreadyExists, detail));
        }
        if self.regions.size() >= REGIONS_MAX {
            let detail = format!("there are {REGIONS_MAX} regions already, the most there can be");
            return Err(Rejection::new(Code::LimitReached, detail));
        }
        let region = Region::new(description.to_owned(), now);
        self.regions.insert_mut(name.clone(), region);
        Ok(Accepted::Done)
    }

    pub(crate) fn update_region(
        &mut self,
        envelope: &Envelope,
        update: &UpdateRegion,
        now: Timestamp,
    ) -> Reply {
        let name = &update.region;
        self.require(&envelope.actor, Permission::RegionWrite, None)?;
        let Some(before) = self.regions.get(name) else {
            return Err(Rejection::not_found("region", name));
        };
        expect_revision(envelope, "region", before.revision)?;
        let description = update.description.as_ref().unwrap_or(&before.description);
        check_description(description)?;
        let accepts = update.accepts_deployments;
        let after = Region {
            description: description.clone(),
            accepts_deployments: accepts.unwrap_or(before.accepts_deployments),
            ..before.clone()
        };
        if after == *before {
            return Ok(Accepted::Done);
        }
        let after = Region {
            updated_at: now,
            revision: before.revision.saturating_add(1),
            ..after
        };
        self.regions.insert_mut(name.clone(), after);
        Ok(Accepted::Done)
    }
}

impl Region {
    fn new(description: String, now: Timestamp) -> Self {
        Self {
            description,
            accepts_deployments: true,
            created_at: now,
            updated_at: now,
            revision: 1,
        }
    }
}

fn check_description(text: &str) -> Result<(), Rejection> {
    let is_short = text.chars().count() <= REGION_DESCRIPTION_CHARS_MAX;
    if is_short && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let allowed =
        format!("at most {REGION_DESCRIPTION_CHARS_MAX} characters, no control characters");
    Err(Rejection::field("description", text, allowed))
}
