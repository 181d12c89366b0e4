//! A target that is a directory. What lies in it belongs to its owner alone, folders and files. It is read name by name, so
//! that what has an odd name is passed over, and hides nothing else.

use std::{collections::BTreeMap, fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use dotmac_runtime::disk::create_private_dir;

use super::{Place, Target, TargetError};

impl Target {
    /// In a directory, the folder of a backup is its owner's alone (0700).
    pub(super) async fn make_folder(&self, name: &str) -> Result<(), TargetError> {
        let Place::Directory(root) = &self.place else {
            return Ok(());
        };
        let folder = root.join(name);
        let made = tokio::task::spawn_blocking(move || create_private_dir(&folder)).await;
        self.on_disk(name, made)
    }

    /// In a directory, a part is its owner's alone (0600).
    pub(super) async fn narrow(&self, name: &str, part: &str) -> Result<(), TargetError> {
        let Place::Directory(root) = &self.place else {
            return Ok(());
        };
        let (path, what) = (root.join(name).join(part), format!("{name}/{part}"));
        let own = fs::Permissions::from_mode(0o600);
        let set = tokio::task::spawn_blocking(move || fs::set_permissions(path, own)).await;
        self.on_disk(&what, set)
    }

    /// The names of all folders in a directory; of those that no backup can have none is told.
    pub(super) async fn folders(&self, root: &Path) -> Result<Vec<String>, TargetError> {
        let root = root.to_owned();
        let found = tokio::task::spawn_blocking(move || {
            let all = entries(&root)?;
            let folders = all.into_iter().filter(|(_, found)| found.is_dir());
            Ok(folders.map(|(name, _)| name).collect())
        });
        self.done("list", "backups", found.await)
    }

    /// What lies in the folder of a backup: names and bytes; nothing when there is no such folder.
    pub(super) async fn files(
        &self,
        root: &Path,
        name: &str,
    ) -> Result<BTreeMap<String, u64>, TargetError> {
        let folder = root.join(name);
        let found = tokio::task::spawn_blocking(move || {
            let all = match entries(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                all => all?,
            };
            let files = all.into_iter().filter(|(_, found)| found.is_file());
            Ok(files.map(|(name, found)| (name, found.len())).collect())
        });
        self.done("list", name, found.await)
    }

    /// In a directory, only a regular file is opened: a pipe without a writer would hold the reader for ever. What is not
    /// there is for the reader to tell.
    pub(super) async fn check_file(&self, name: &str, part: &str) -> Result<(), TargetError> {
        let Place::Directory(root) = &self.place else {
            return Ok(());
        };
        let (path, what) = (root.join(name).join(part), format!("{name}/{part}"));
        let found = tokio::task::spawn_blocking(move || match fs::metadata(path) {
            Ok(found) if !found.is_file() => Err(io::Error::other("it is no regular file")),
            Ok(_) | Err(_) => Ok(()),
        });
        self.done("read", &what, found.await)
    }

    /// Removes the folder of a backup with all that lies in it, `first` before everything else.
    pub(super) async fn remove_folder(
        &self,
        root: &Path,
        name: &str,
        first: &str,
    ) -> Result<(), TargetError> {
        let (folder, first) = (root.join(name), root.join(name).join(first));
        let removed = tokio::task::spawn_blocking(move || {
            for removed in [fs::remove_file(first), fs::remove_dir_all(folder)] {
                match removed {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            Ok(())
        });
        self.done("remove", name, removed.await)
    }

    fn on_disk(
        &self,
        what: &str,
        done: Result<io::Result<()>, tokio::task::JoinError>,
    ) -> Result<(), TargetError> {
        self.done("write", what, done)
    }

    fn done<T>(
        &self,
        action: &'static str,
        what: &str,
        done: Result<io::Result<T>, tokio::task::JoinError>,
    ) -> Result<T, TargetError> {
        let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
        done.map_err(|error| TargetError::Store {
            target: self.shown.clone(),
            action,
            what: what.to_owned(),
            said: error.to_string(),
            is_missing: false,
        })
    }
}

/// What lies in a directory; what has a name that is no text, or is gone again, is passed over.
fn entries(directory: &Path) -> io::Result<Vec<(String, fs::Metadata)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let found = fs::metadata(entry.path());
        if let (Ok(name), Ok(found)) = (entry.file_name().into_string(), found) {
            all.push((name, found));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap, ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, time::Duration,
    };

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::Target;
    use crate::backup::target::Reach;

    /// An escape sequence, no text at all, a slash in disguise, a file where a folder belongs.
    const ODD: [&[u8]; 5] = [
        b"20261123T2347\x1b[31mZ",
        b"\xff\xfe",
        b"a%2fb",
        b"#1",
        b"lost+found\n",
    ];

    #[tokio::test]
    async fn an_impossible_name_hides_no_backup_and_stays_when_one_is_removed() {
        const NAME: &str = "20261123T165400Z-00a1f9";
        let folder = tempfile::tempdir().unwrap();
        let address = format!("file://{}", folder.path().display());
        let target = Target::open(&address, &Reach::default()).unwrap();
        let put = target.write(NAME, "state", "abc".into());
        put.await.unwrap();
        for odd in ODD {
            fs::create_dir(folder.path().join(OsStr::from_bytes(odd))).unwrap();
            fs::write(folder.path().join(NAME).join(OsStr::from_bytes(odd)), "").unwrap();
        }
        fs::write(folder.path().join("20261123T165401Z-00a1f9"), "").unwrap();
        assert_eq!(target.names().await.unwrap(), [NAME]);
        let sizes: BTreeMap<_, _> = target.sizes(NAME).await.unwrap();
        assert_eq!(sizes.get("state"), Some(&3));
        assert!(!target.is_empty(NAME).await.unwrap());
        target.remove(NAME, "manifest.json").await.unwrap();
        target.remove(NAME, "manifest.json").await.unwrap();
        assert!(target.names().await.unwrap().is_empty());
        assert!(target.is_empty(NAME).await.unwrap());
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, ODD.len() + 1);
    }

    #[tokio::test]
    async fn a_pipe_in_place_of_a_file_is_refused_and_not_waited_for() {
        const NAME: &str = "20261123T165400Z-00a1f9";
        let folder = tempfile::tempdir().unwrap();
        let address = format!("file://{}", folder.path().display());
        let target = Target::open(&address, &Reach::default()).unwrap();
        fs::create_dir(folder.path().join(NAME)).unwrap();
        let pipe = folder.path().join(NAME).join("manifest.json");
        let own = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, &pipe, FileType::Fifo, own, 0).unwrap();
        let soon = Duration::from_secs(20);
        let read = tokio::time::timeout(soon, target.read(NAME, "manifest.json")).await;
        // Whoever waits for a writer gets one, so that the test ends.
        let writer = fs::OpenOptions::new().read(true).write(true).open(&pipe);
        let refused = read.unwrap().unwrap_err();
        assert!(refused.to_string().contains("no regular file"), "{refused}");
        assert!(!refused.is_missing());
        assert!(target.stream(NAME, "manifest.json").await.is_err());
        drop(writer);
        fs::remove_file(&pipe).unwrap();
        assert!(
            target
                .read(NAME, "manifest.json")
                .await
                .unwrap_err()
                .is_missing()
        );
    }
}
