//! Keeps processes down, by the means that the supervisor of a local fleet offers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use dotmac_runtime::process::ProcessIdentity;

/// Keeps the supervisor from starting some processes as long as it lives.
#[derive(Debug)]
pub struct Hold {
    files: Vec<PathBuf>,
}

impl Hold {
    /// Holds processes of the fleet in this home, in the name of this program.
    ///
    /// # Errors
    /// When it cannot be noted.
    pub fn take(home: &Path, names: &[&str]) -> Result<Self> {
        let own = serde_json::to_vec(&ProcessIdentity::own())?;
        let mut hold = Self { files: Vec::new() };
        for name in names {
            let file = home.join("run").join(format!("{name}.hold.pid"));
            fs::write(&file, &own)?;
            hold.files.push(file);
        }
        Ok(hold)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}
