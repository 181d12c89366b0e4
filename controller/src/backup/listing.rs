//! Which backups there are. One counts as whole here when its manifest is signed and every part is there with its size;
//! what is in the parts is for [`super::read`]. It changes nothing at the target.

use dotmac_runtime::causes;
use futures::{StreamExt as _, stream};

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
    let listed = looks.buffered(LOOKS_MAX).collect::<Vec<_>>().await;
    Ok(listed.into_iter().flatten().collect())
}

/// One backup; `None` when nothing lies under its name. What the target refuses of it is its own failure, and hides no
/// other.
async fn look(target: &Target, origin: Option<&Origin>, name: String) -> Option<Listed> {
    let own = read::manifest(target, &name).await;
    let own = own.and_then(|manifest| match origin {
        Some(origin) => origin.check(manifest),
        None => Ok(manifest),
    });
    let mut manifest = match own {
        Ok(manifest) => with_parts(target, manifest).await,
        Err(error) => Err(error),
    };
    if matches!(manifest, Err(ReadError::Unfinished(_))) {
        match target.is_empty(&name).await {
            Ok(true) => return None,
            Ok(false) => {}
            Err(error) => manifest = Err(error.into()),
        }
    }
    let is_proven = origin.is_some() && manifest.is_ok();
    Some(Listed {
        name,
        manifest,
        is_proven,
    })
}

/// The manifest, when every part that it names lies at the target with its size.
pub(super) async fn with_parts(target: &Target, manifest: Manifest) -> Result<Manifest, ReadError> {
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

#[cfg(test)]
mod tests {
    use super::{ReadError, list};
    use crate::backup::target::fake::{Fake, Reply};

    #[tokio::test]
    async fn a_folder_that_cannot_be_asked_hides_no_other_backup() {
        const BROKEN: &str = "20261123T165400Z-00a1f9";
        const OTHER: &str = "20261123T165401Z-00a1f9";
        let folder = |name| format!("<CommonPrefixes><Prefix>p/{name}/</Prefix></CommonPrefixes>");
        let all = format!("{}{}", folder(BROKEN), folder(OTHER));
        let part = format!(
            "<Contents><Key>p/{OTHER}/state</Key><LastModified>2026-11-23T16:54:00Z</LastModified>\
             <Size>1</Size></Contents>"
        );
        let page = |inner: &str| Reply::of(format!("<ListBucketResult>{inner}</ListBucketResult>"));
        let fake = Fake::start(move |line| {
            let is_about = |name| line.contains(name);
            match line.contains("list-type=2") {
                false => Reply::missing(),
                true if is_about(BROKEN) => Reply::of("no list"),
                true if is_about(OTHER) => page(&part),
                true => page(&all),
            }
        })
        .await;
        let listed = list(&fake.target, None).await.unwrap();
        assert_eq!(listed.len(), 2);
        assert!(
            matches!(listed[0].manifest, Err(ReadError::Target(_))),
            "{listed:?}"
        );
        assert!(
            matches!(listed[1].manifest, Err(ReadError::Unfinished(_))),
            "{listed:?}"
        );
    }
}
