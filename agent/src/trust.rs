//! The trust root on the agent's disk: pinned once by the digest in a join token, then followed version by version.
//! It refuses to go back, to skip a version, or to replace the pinned one by another lineage.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use dotmac_protocol::{
    codec::{self, DecodeError},
    digest::Digest,
    ids::TrustVersion,
    trust::{SignedTrustRoot, TrustError, TrustRoot},
};
use dotmac_runtime::disk;
use thiserror::Error;

/// Trust roots that one message may carry at most.
pub const TRUST_ROOTS_MAX: usize = 64;

const EXTENSION: &str = "root";

/// The trust root this agent goes by, and those before it since the pinned one (orders in the journal were signed
/// under them). New versions are signed by the offline root role, so there are few.
#[derive(Debug)]
pub struct TrustStore {
    directory: PathBuf,
    current: Arc<TrustRoot>,
    older: BTreeMap<TrustVersion, Arc<TrustRoot>>,
}

/// Why the trust root on disk is not what was asked for.
#[derive(Debug, Error)]
pub enum TrustStoreError {
    /// The disk fails.
    #[error("the trust root in {} cannot be kept", directory.display())]
    Disk {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file on disk is damaged.
    #[error("the trust root {} is damaged", file.display())]
    Damaged {
        file: PathBuf,
        #[source]
        source: DecodeError,
    },
    /// A document is refused.
    #[error("a trust root is refused")]
    Refused(#[from] TrustError),
    /// A message carries none, or too many.
    #[error("{found} trust roots in one message; 1 to {TRUST_ROOTS_MAX} are allowed")]
    Count { found: usize },
}

impl TrustStore {
    /// Reads what an agent pinned and followed; `None` when it did not pin yet.
    ///
    /// # Errors
    /// When the disk fails or the documents there are not one sound chain.
    pub fn open(directory: &Path) -> Result<Option<Self>, TrustStoreError> {
        let mut store: Option<Self> = None;
        for file in files(directory).map_err(|source| disk_error(directory, source))? {
            let bytes = std::fs::read(&file).map_err(|source| disk_error(directory, source))?;
            let signed: SignedTrustRoot = codec::decode(&bytes)
                .map_err(|source| TrustStoreError::Damaged { file, source })?;
            match &mut store {
                None => store = Some(Self::of(directory, signed.self_signed()?)),
                Some(store) => store.replace(signed.follow(&store.current)?),
            }
        }
        Ok(store)
    }

    /// Pins the first of `documents`, which a join token names by its digest, and follows the others. For agents that
    /// are not admitted yet: what was pinned before is replaced. Nothing changes when any of them is refused.
    ///
    /// # Errors
    /// When a document is refused or the disk fails.
    pub fn pin(
        directory: &Path,
        expected: Digest,
        documents: &[SignedTrustRoot],
    ) -> Result<Self, TrustStoreError> {
        let found = documents.len();
        let first = documents
            .first()
            .filter(|_| found <= TRUST_ROOTS_MAX)
            .ok_or(TrustStoreError::Count { found })?;
        let mut store = Self::of(directory, first.pin(expected)?);
        for document in &documents[1..] {
            store.replace(document.follow(&store.current)?);
        }
        disk::create_private_dir(directory).map_err(|source| disk_error(directory, source))?;
        // An enrolment that did not come to its end may have pinned another lineage.
        for stale in files(directory).map_err(|source| disk_error(directory, source))? {
            std::fs::remove_file(&stale).map_err(|source| disk_error(directory, source))?;
        }
        let versions = store.older.keys().copied().chain([store.current.version]);
        for (version, document) in versions.zip(documents) {
            write(directory, version, document)?;
        }
        Ok(store)
    }

    /// The trust root in force.
    #[must_use]
    pub fn current(&self) -> Arc<TrustRoot> {
        Arc::clone(&self.current)
    }

    /// The trust root of one version, if this agent went by it.
    #[must_use]
    pub fn version(&self, version: TrustVersion) -> Option<&TrustRoot> {
        let current = (self.current.version == version).then_some(&self.current);
        current
            .or_else(|| self.older.get(&version))
            .map(AsRef::as_ref)
    }

    /// Follows to newer versions, in order; those that are not newer are passed over. Each is on disk before it
    /// counts. Says whether anything changed.
    ///
    /// # Errors
    /// When one is refused (those before it stay in force) or the disk fails.
    pub fn follow(&mut self, documents: &[SignedTrustRoot]) -> Result<bool, TrustStoreError> {
        if documents.len() > TRUST_ROOTS_MAX {
            let found = documents.len();
            return Err(TrustStoreError::Count { found });
        }
        let mut changed = false;
        for document in documents {
            let claimed: TrustRoot = codec::decode(&document.body).map_err(TrustError::from)?;
            if claimed.version <= self.current.version {
                continue;
            }
            let next = document.follow(&self.current)?;
            write(&self.directory, next.version, document)?;
            self.replace(next);
            changed = true;
        }
        Ok(changed)
    }

    fn of(directory: &Path, trust: TrustRoot) -> Self {
        Self {
            directory: directory.to_owned(),
            current: Arc::new(trust),
            older: BTreeMap::new(),
        }
    }

    fn replace(&mut self, next: TrustRoot) {
        let before = std::mem::replace(&mut self.current, Arc::new(next));
        self.older.insert(before.version, before);
    }
}

/// The files of trust roots, oldest first: their names are numbers of one width.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let listing = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing?,
    };
    let mut files = Vec::new();
    for file in listing {
        let file = file?.path();
        if file.extension().is_some_and(|found| found == EXTENSION) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn write(
    directory: &Path,
    version: TrustVersion,
    document: &SignedTrustRoot,
) -> Result<(), TrustStoreError> {
    let bytes = codec::encode(document).expect("a document that was decoded can be encoded");
    let file = directory.join(format!("{:020}.{EXTENSION}", version.0));
    disk::write_atomic(&file, &bytes, 0o600).map_err(|source| disk_error(directory, source))
}

fn disk_error(directory: &Path, source: io::Error) -> TrustStoreError {
    TrustStoreError::Disk {
        directory: directory.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::{digest::Digest, ids::TrustVersion, trust::TrustError};

    use super::{TrustStore, TrustStoreError};
    use crate::fixture::{sign_trust, trust_root};

    #[test]
    fn the_pinned_root_survives_a_restart_and_follows_in_order() {
        let directory = tempfile::tempdir().unwrap();
        assert!(TrustStore::open(directory.path()).unwrap().is_none());
        let [first, second, third] =
            [1, 2, 3].map(|version| sign_trust(&trust_root(version), &[10]));
        TrustStore::pin(
            directory.path(),
            first.digest(),
            std::slice::from_ref(&first),
        )
        .unwrap();
        let mut store = TrustStore::open(directory.path()).unwrap().unwrap();
        assert!(matches!(
            store.follow(std::slice::from_ref(&third)),
            Err(TrustStoreError::Refused(TrustError::Version { .. }))
        ));
        assert!(store.follow(&[first.clone(), second, third]).unwrap());
        assert!(!store.follow(&[first]).unwrap());
        let reopened = TrustStore::open(directory.path()).unwrap().unwrap();
        assert_eq!(reopened.current().version, TrustVersion(3));
        assert_eq!(reopened.current(), store.current());
    }

    #[test]
    fn a_root_that_the_token_does_not_name_is_not_pinned() {
        let directory = tempfile::tempdir().unwrap();
        let first = sign_trust(&trust_root(1), &[10]);
        let other = Digest::of(b"another document");
        assert!(matches!(
            TrustStore::pin(directory.path(), other, &[first]),
            Err(TrustStoreError::Refused(TrustError::Pin))
        ));
        assert!(TrustStore::open(directory.path()).unwrap().is_none());
    }

    #[test]
    fn a_successor_that_the_pinned_root_keys_did_not_sign_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = sign_trust(&trust_root(1), &[10]);
        let mut store = TrustStore::pin(directory.path(), first.digest(), &[first]).unwrap();
        let forged = sign_trust(&trust_root(2), &[1, 2, 3]);
        assert!(matches!(
            store.follow(&[forged]),
            Err(TrustStoreError::Refused(TrustError::Signatures { .. }))
        ));
        assert_eq!(store.current().version, TrustVersion(1));
    }
}
