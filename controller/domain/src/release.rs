//! Releases: named, immutable versions of what an instance consists of.

use dotmac_protocol::{
    digest::Digest,
    ids::{ReleaseName, ReleaseVersion},
    release::Manifest,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    access::Permission,
    envelope::{Envelope, Warrant},
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
    tenancy::expect_revision,
};

/// Name and version of a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReleaseKey {
    /// The line of releases.
    pub name: ReleaseName,
    /// The version.
    pub version: ReleaseVersion,
}

impl std::fmt::Display for ReleaseKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.name, self.version)
    }
}

/// A release as the State keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Canonical JSON of its manifest.
    pub manifest: Vec<u8>,
    /// Content digest.
    pub digest: Digest,
    /// The channel it was added to.
    pub channel: Option<String>,
    /// For people.
    pub description: String,
    /// Whether new deployments may choose it.
    pub retired: bool,
    /// When it was added.
    pub added_at: Timestamp,
    /// Who vouches for it.
    pub warrant: Warrant,
}

impl Release {
    /// Counts what persons decided about it: 1 as it was added, 2 once it is retired.
    #[must_use]
    pub fn revision(&self) -> u64 {
        1 + u64::from(self.retired)
    }
}

impl State {
    pub(crate) fn add_release(
        &mut self,
        envelope: &Envelope,
        manifest: &[u8],
        now: Timestamp,
    ) -> Reply {
        self.require(&envelope.actor, Permission::ReleaseWrite, None)?;
        let manifest = Manifest::parse(manifest)
            .map_err(|error| Rejection::field(&error.field, &error.found, error.allowed.clone()))?;
        let key = ReleaseKey {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
        };
        let digest = manifest.digest();
        if let Some(known) = self.releases.get(&key) {
            if known.digest == digest {
                return Ok(Accepted::Done);
            }
            let detail = format!(
                "release {key} exists with digest {}; a release never changes: add a new version",
                known.digest
            );
            return Err(Rejection::new(Code::AlreadyExists, detail));
        }
        let channel = manifest.channel.as_ref().map(ToString::to_string);
        if let Some(channel) = &channel {
            self.channels.insert_mut(channel.clone(), key.clone());
        }
        let release = Release {
            manifest: manifest.canonical(),
            digest,
            channel,
            description: manifest.description,
            retired: false,
            added_at: now,
            warrant: Warrant::of(envelope, now),
        };
        self.releases.insert_mut(key, release);
        Ok(Accepted::Done)
    }

    pub(crate) fn retire_release(
        &mut self,
        envelope: &Envelope,
        name: &ReleaseName,
        version: &ReleaseVersion,
    ) -> Reply {
        self.require(&envelope.actor, Permission::ReleaseWrite, None)?;
        let key = ReleaseKey {
            name: name.clone(),
            version: version.clone(),
        };
        let Some(release) = self.releases.get(&key) else {
            return Err(Rejection::not_found("release", &key));
        };
        expect_revision(envelope, "release", release.revision())?;
        let channel = release.channel.clone();
        let retired = Release {
            retired: true,
            ..release.clone()
        };
        self.releases.insert_mut(key.clone(), retired);
        if let Some(channel) = channel.filter(|channel| self.channels.get(channel) == Some(&key)) {
            self.choose_default(&channel);
        }
        Ok(Accepted::Done)
    }

    /// The default of a channel becomes the release that was added to it last and is not retired; none, if all are.
    fn choose_default(&mut self, channel: &str) {
        let mut candidates: Vec<(&ReleaseKey, &Release)> = self
            .releases
            .iter()
            .filter(|(_, one)| one.channel.as_deref() == Some(channel) && !one.retired)
            .collect();
        candidates.sort_by_key(|(_, one)| one.added_at);
        match candidates.last().map(|(key, _)| (*key).clone()) {
            Some(key) => self.channels.insert_mut(channel.to_owned(), key),
            None => {
                self.channels.remove_mut(channel);
            }
        }
    }

    /// The release that an `image_tag` names (`VERSION` in any line, or `NAME:VERSION`), or the default channel's.
    pub fn choose_release(&self, image_tag: Option<&str>) -> Result<ReleaseKey, Rejection> {
        let refuse = |found: &str, allowed: String| Rejection {
            code: Code::UnknownRelease,
            ..Rejection::field("image_tag", found, allowed)
        };
        let Some(tag) = image_tag else {
            let channel = self
                .genesis
                .as_ref()
                .map_or("", |genesis| &genesis.default_channel);
            return self
                .channels
                .get(channel)
                .filter(|key| self.releases.get(key).is_some_and(|release| !release.retired))
                .cloned()
                .ok_or_else(|| {
                    let detail = format!(
                        "channel {channel:?} has no release to choose when none is named: name one as image_tag, \
                         or add one with `dotmac releases add`"
                    );
                    Rejection {
                        detail: detail.clone(),
                        ..refuse("", detail)
                    }
                });
        };
        let (name, version) = match tag.split_once(':') {
            Some((name, version)) => (Some(name), version),
            None => (None, tag),
        };
        let matches: Vec<&ReleaseKey> = self
            .releases
            .iter()
            .filter(|(key, release)| {
                !release.retired
                    && key.version.as_str() == version
                    && name.is_none_or(|name| key.name.as_str() == name)
            })
            .map(|(key, _)| key)
            .collect();
        match matches[..] {
            [key] => Ok(key.clone()),
            [] => {
                let names: Vec<String> = self
                    .releases
                    .iter()
                    .filter(|(_, release)| !release.retired)
                    .take(20)
                    .map(|(key, _)| key.to_string())
                    .collect();
                Err(refuse(
                    tag,
                    format!("one of the releases {}", names.join(", ")),
                ))
            }
            _ => Err(refuse(
                tag,
                "several releases have this version: write NAME:VERSION".into(),
            )),
        }
    }
}
