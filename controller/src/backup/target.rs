//! Where backups lie: a directory, or a bucket of an S3-compatible store. A backup is a folder `NAME/` of parts. It knows
//! names and bytes, never what is in them, and says no word of the credentials.
//! Longer than 400 lines: every question has two answers, that of a directory and that of a bucket.

#[cfg(test)]
pub(crate) mod fake;
mod folder;
mod pages;
mod s3;
mod sieve;

use std::{collections::BTreeMap, fmt, fs, io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use dotmac_domain::backups;
use futures::{StreamExt as _, stream::BoxStream};
use object_store::{
    ObjectStore, ObjectStoreExt as _, WriteMultipart, aws::AmazonS3, local::LocalFileSystem,
    path::Path,
};
use thiserror::Error;

use pages::{Depth, PAGES_MAX};
use s3::Bucket;

/// Bytes of a small file, such as a manifest, at most.
pub const SMALL_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Pieces of one part (5 MiB each) that are under way to the store at most; the writer waits then.
const PIECES_UNDER_WAY_MAX: usize = 2;

/// How a store is reached, besides its address.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// `http://` or `https://` address of a store that is not Amazon's.
    pub endpoint: Option<String>,
    /// Region; many stores take any.
    pub region: Option<String>,
    /// The access key; without one the environment's `AWS_ACCESS_KEY_ID`, or what else it asks for.
    pub access_key_id: Option<String>,
    /// Its secret; without one the environment's `AWS_SECRET_ACCESS_KEY`, or what else it asks for.
    pub secret_access_key: Option<String>,
}

impl fmt::Debug for Reach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Reach({:?}, {:?})", self.endpoint, self.region)
    }
}

/// Why a target cannot be used.
#[derive(Debug, Error)]
pub enum TargetError {
    /// The address is none.
    #[error("backup target {found:?} is not allowed: file:///DIRECTORY or s3://BUCKET/PREFIX")]
    Address {
        /// What was given.
        found: String,
    },
    /// The directory is not there.
    #[error("backup target {} is no directory that can be used", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There are no credentials for the store.
    #[error("backup target {target} cannot be reached: {missing}")]
    Credentials {
        /// Its address.
        target: String,
        /// Which, and what to do.
        missing: String,
    },
    /// The store does not do what was asked.
    #[error("backup target {target} cannot {action} {what}: {said}")]
    Store {
        /// Its address.
        target: String,
        /// What was tried.
        action: &'static str,
        /// With what.
        what: String,
        /// What the store said.
        said: String,
        /// Whether it said that there is no such thing.
        is_missing: bool,
    },
    /// A small file is too large.
    #[error("{what} at backup target {target} is larger than {SMALL_BYTES_MAX} bytes")]
    TooLarge {
        /// Its address.
        target: String,
        /// Which file.
        what: String,
    },
    /// A list does not end.
    #[error(
        "backup target {target} has no end of its list of {what} after {PAGES_MAX} pages: remove what is no backup \
         there, or use another prefix"
    )]
    Endless {
        /// Its address.
        target: String,
        /// What was listed.
        what: String,
    },
}

impl TargetError {
    /// Whether there simply is no such thing.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::Store {
                is_missing: true,
                ..
            }
        )
    }
}

/// A place for backups; clones share it.
#[derive(Debug, Clone)]
pub struct Target {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    shown: String,
    place: Place,
}

/// What kind of place it is.
#[derive(Debug, Clone)]
enum Place {
    Directory(PathBuf),
    Bucket(Bucket, Arc<AmazonS3>),
}

/// One part on its way to the target. It is not there before [`Upload::finish`].
#[derive(Debug)]
pub struct Upload {
    writer: WriteMultipart,
    target: Target,
    name: String,
    part: String,
}

impl Target {
    /// Opens a target; nothing is asked of a store yet.
    ///
    /// # Errors
    /// When the address is none, or the directory is not there.
    pub fn open(address: &str, reach: &Reach) -> Result<Self, TargetError> {
        let wrong = || TargetError::Address {
            found: address.to_owned(),
        };
        let shown = address.to_owned();
        if let Some(path) = address.strip_prefix("file://") {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                return Err(wrong());
            }
            let listed = fs::read_dir(&path);
            listed.map_err(|source| TargetError::Directory {
                path: path.clone(),
                source,
            })?;
            let store = LocalFileSystem::new_with_prefix(&path).map_err(|_| wrong())?;
            let store = Arc::new(store.with_fsync(true).with_automatic_cleanup(true));
            return Ok(Self {
                store,
                prefix: Path::default(),
                shown,
                place: Place::Directory(path),
            });
        }
        let (bucket, prefix) = address
            .strip_prefix("s3://")
            .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
            .filter(|(bucket, _)| !bucket.is_empty())
            .ok_or_else(wrong)?;
        let bucket = Bucket::of(bucket, reach, |name| std::env::var(name).ok());
        let bucket = bucket.map_err(|missing| TargetError::Credentials {
            target: shown.clone(),
            missing,
        })?;
        let store = bucket.open(reach).map_err(|error| TargetError::Store {
            target: shown.clone(),
            action: "be reached with",
            what: format!("{reach:?}"),
            said: bucket.said(&error),
            is_missing: false,
        })?;
        let store = Arc::new(store);
        Ok(Self {
            store: Arc::<AmazonS3>::clone(&store),
            prefix: Path::from(prefix.trim_matches('/')),
            shown,
            place: Place::Bucket(bucket, store),
        })
    }

    /// The names of all backups, whole ones and others, the oldest first.
    ///
    /// # Errors
    /// When the target cannot be asked.
    pub async fn names(&self) -> Result<Vec<String>, TargetError> {
        let mut names = match &self.place {
            Place::Directory(root) => self.folders(root).await?,
            Place::Bucket(_, store) => {
                let all = (&self.prefix, Depth::Flat);
                let listed = self.pages(store, all, "backups").await?;
                let names = listed.common_prefixes.iter().filter_map(Path::filename);
                names.map(ToOwned::to_owned).collect()
            }
        };
        names.retain(|name| backups::is_name(name));
        names.sort();
        Ok(names)
    }

    /// A small file of a backup, whole.
    ///
    /// # Errors
    /// When it is not there, too large, or the target cannot be asked.
    pub async fn read(&self, name: &str, part: &str) -> Result<Bytes, TargetError> {
        let what = format!("{name}/{part}");
        self.check_file(name, part).await?;
        let failed = |error| self.error("read", &what, error);
        let found = self
            .store
            .get(&self.path(name, part))
            .await
            .map_err(failed)?;
        if found.meta.size > SMALL_BYTES_MAX {
            let target = self.shown.clone();
            return Err(TargetError::TooLarge { target, what });
        }
        found.bytes().await.map_err(failed)
    }

    /// Writes a small file of a backup; it is there whole or not at all.
    ///
    /// # Errors
    /// When the target does not take it.
    pub async fn write(&self, name: &str, part: &str, bytes: Bytes) -> Result<(), TargetError> {
        self.make_folder(name).await?;
        let put = self.store.put(&self.path(name, part), bytes.into()).await;
        put.map_err(|error| self.error("write", &format!("{name}/{part}"), error))?;
        self.narrow(name, part).await
    }

    /// A part of a backup, piece by piece.
    ///
    /// # Errors
    /// When it is not there, or the target cannot be asked.
    pub async fn stream(
        &self,
        name: &str,
        part: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        let what = format!("{name}/{part}");
        self.check_file(name, part).await?;
        let found = self.store.get(&self.path(name, part)).await;
        let found = found.map_err(|error| self.error("read", &what, error))?;
        let target = self.clone();
        let pieces = found.into_stream();
        Ok(pieces
            .map(move |piece| piece.map_err(|error| target.error("read", &what, error)))
            .boxed())
    }

    /// Begins to write a part of a backup.
    ///
    /// # Errors
    /// When the target does not take it.
    pub async fn upload(&self, name: &str, part: &str) -> Result<Upload, TargetError> {
        self.make_folder(name).await?;
        let begun = self.store.put_multipart(&self.path(name, part)).await;
        let failed = |error| self.error("write", &format!("{name}/{part}"), error);
        Ok(Upload {
            writer: WriteMultipart::new(begun.map_err(failed)?),
            target: self.clone(),
            name: name.to_owned(),
            part: part.to_owned(),
        })
    }

    /// Removes a backup: `first` (what makes it count) before everything else, so that one that is half removed is none.
    ///
    /// # Errors
    /// When the target does not do it; what is left is removed the next time.
    pub async fn remove(&self, name: &str, first: &str) -> Result<(), TargetError> {
        let store = match &self.place {
            Place::Directory(root) => return self.remove_folder(root, name, first).await,
            Place::Bucket(_, store) => store,
        };
        let failed = |error| self.error("remove", name, error);
        let is_gone =
            |error: &object_store::Error| matches!(error, object_store::Error::NotFound { .. });
        match self.store.delete(&self.path(name, first)).await {
            Err(error) if !is_gone(&error) => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let folder = self.prefix.clone().join(name);
        let parts = self.pages(store, (&folder, Depth::Deep), name).await?;
        for part in parts.objects {
            match self.store.delete(&part.location).await {
                Err(error) if !is_gone(&error) => return Err(failed(error)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// What lies in the folder of a backup: names and bytes.
    ///
    /// # Errors
    /// When the target cannot be asked.
    pub async fn sizes(&self, name: &str) -> Result<BTreeMap<String, u64>, TargetError> {
        let store = match &self.place {
            Place::Directory(root) => return self.files(root, name).await,
            Place::Bucket(_, store) => store,
        };
        let folder = self.prefix.clone().join(name);
        let parts = self.pages(store, (&folder, Depth::Flat), name).await?;
        let named = parts.objects.into_iter().filter_map(|part| {
            let name = part.location.filename().map(ToOwned::to_owned);
            name.map(|name| (name, part.size))
        });
        Ok(named.collect())
    }

    /// Whether nothing lies in a folder: some stores go on naming one whose files were removed.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn is_empty(&self, name: &str) -> Result<bool, TargetError> {
        let Place::Bucket(_, store) = &self.place else {
            return Ok(self.sizes(name).await?.is_empty());
        };
        let folder = self.prefix.clone().join(name);
        let found = self.pages(store, (&folder, Depth::Deep), name).await?;
        Ok(found.objects.is_empty())
    }

    fn path(&self, name: &str, part: &str) -> Path {
        self.prefix.clone().join(name).join(part)
    }

    fn error(&self, action: &'static str, what: &str, error: object_store::Error) -> TargetError {
        let is_missing = matches!(error, object_store::Error::NotFound { .. });
        let (said, is_missing) = match &self.place {
            Place::Directory(_) => (error.to_string(), is_missing),
            Place::Bucket(bucket, _) => (
                bucket.said(&error),
                is_missing && !Bucket::is_missing(&error),
            ),
        };
        TargetError::Store {
            target: self.shown.clone(),
            action,
            what: what.to_owned(),
            said,
            is_missing,
        }
    }
}

/// Shows the address, which holds no secret.
impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

impl Upload {
    /// Sends bytes; waits while too many are under way.
    ///
    /// # Errors
    /// When the target does not take them.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), TargetError> {
        let waited = self.writer.wait_for_capacity(PIECES_UNDER_WAY_MAX).await;
        waited.map_err(|error| self.target.error("write", &self.what(), error))?;
        self.writer.put(bytes);
        Ok(())
    }

    /// Ends the part: now it is there.
    ///
    /// # Errors
    /// When the target did not take all of it.
    pub async fn finish(self) -> Result<(), TargetError> {
        let what = self.what();
        let Self {
            writer,
            target,
            name,
            part,
        } = self;
        let finished = writer.finish().await;
        finished.map_err(|error| target.error("write", &what, error))?;
        target.narrow(&name, &part).await
    }

    /// Gives the part up; the target forgets what it has of it.
    pub async fn abort(self) {
        let what = self.what();
        if let Err(error) = self.writer.abort().await {
            tracing::debug!(%error, path = what, "an unfinished part stays at the target");
        }
    }

    fn what(&self) -> String {
        format!("{}/{}", self.name, self.part)
    }
}
