//! Which backups there are. One counts as whole here when its manifest is signed and every part is there with its size;
//! what is in the parts is for [`super::read`]. It changes nothing at the target.

use dotmac_runtime::causes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    latest::{Candidate, Condition},
    manifest::{MANIFEST, Manifest},
    origin::Origin,
    read::{self, ReadError},
    target::Target,
};

/// Backups that are looked at at the same time at most.
const LOOKS_MAX: usize = 8;

/// One backup in a list.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is, or why it does not count.
    pub manifest: Result<Manifest, ReadError>,
    /// Whether it is known whose it is.
    pub is_proven: bool,
}

impl Listed {
    /// What it is for the choice of the newest.
    #[must_use]
    pub fn candidate(&self) -> Candidate {
        let condition = match &self.manifest {
            Ok(manifest) => Condition::Whole {
                cluster: if self.is_proven {
                    manifest.cluster.to_string()
                } else {
                    manifest.claimed_cluster()
                },
                epoch: manifest.epoch.0,
                index: manifest.index,
            },
            Err(ReadError::Unfinished(_)) => Condition::Unfinished,
            Err(ReadError::Foreign { .. }) => Condition::Foreign,
            Err(error) => Condition::Damaged(causes::in_full(error)),
        };
        Candidate {
            name: self.name.clone(),
            condition,
        }
    }
}

/// All backups, the oldest first; unfinished, damaged and foreign ones with the reason. Without an origin none is
/// foreign, and of none it is known whose it is.
///
/// # Errors
/// When the target cannot be asked.
pub async fn list(target: &Target, origin: Option<&Origin>) -> Result<Vec<Listed>, ReadError> {
    let looks = stream::iter(target.names().await?).map(|name| look(target, origin, name));
    let listed = looks.buffered(LOOKS_MAX).try_collect::<Vec<_>>().await?;
    Ok(listed.into_iter().flatten().collect())
}

/// One backup; `None` when nothing lies under its name.
async fn look(
    target: &Target,
    origin: Option<&Origin>,
    name: String,
) -> Result<Option<Listed>, ReadError> {
    let own = read::manifest(target, &name).await;
    let own = own.and_then(|manifest| match origin {
        Some(origin) => origin.check(manifest),
        None => Ok(manifest),
    });
    let manifest = match own {
        Ok(manifest) => with_parts(target, manifest).await,
        Err(error) => Err(error),
    };
    if matches!(manifest, Err(ReadError::Unfinished(_))) && target.is_empty(&name).await? {
        return Ok(None);
    }
    let is_proven = origin.is_some() && manifest.is_ok();
    Ok(Some(Listed {
        name,
        manifest,
        is_proven,
    }))
}

/// The manifest, when every part that it names lies at the target with its size.
async fn with_parts(target: &Target, manifest: Manifest) -> Result<Manifest, ReadError> {
    let sizes = target.sizes(&manifest.name).await?;
    for part in &manifest.parts {
        let (name, what) = (manifest.name.clone(), part.name.clone());
        match sizes.get(&part.name) {
            Some(bytes) if *bytes == part.bytes => {}
            Some(bytes) => {
                return Err(ReadError::Length {
                    name,
                    part: what,
                    found: *bytes,
                    expected: part.bytes,
                });
            }
            // Who removes a backup takes the manifest first: then it is not damaged, but going.
            None if !sizes.contains_key(MANIFEST) => return Err(ReadError::Unfinished(name)),
            None => return Err(ReadError::PartMissing { name, part: what }),
        }
    }
    Ok(manifest)
}
