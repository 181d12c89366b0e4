//! What lies in a target that is a directory belongs to its owner alone, folders and files.

use std::{fs, io, os::unix::fs::PermissionsExt as _};

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

    fn on_disk(
        &self,
        what: &str,
        done: Result<io::Result<()>, tokio::task::JoinError>,
    ) -> Result<(), TargetError> {
        let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
        done.map_err(|error| TargetError::Store {
            target: self.shown.clone(),
            action: "write",
            what: what.to_owned(),
            said: error.to_string(),
            is_missing: false,
        })
    }
}
