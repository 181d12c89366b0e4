//! Keeps the supervisor from starting some processes for a while, as long as the holder lives: a demonstration that
//! is interrupted never leaves a fleet without its controllers.

use dotmac_runtime::process::ProcessIdentity;

use super::{layout::Layout, pids::PidFile};
use crate::cli::failure::Failure;

/// A hold on some processes; dropping it lets them start.
#[derive(Debug)]
pub(crate) struct Hold {
    files: Vec<PidFile>,
}

impl Hold {
    /// Holds these processes in the name of this one.
    pub(crate) fn take(layout: &Layout, names: &[String]) -> Result<Self, Failure> {
        let mut hold = Self { files: Vec::new() };
        for name in names {
            let file = file(layout, name);
            file.note(&ProcessIdentity::own())?;
            hold.files.push(file);
        }
        Ok(hold)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for file in &self.files {
            file.forget();
        }
    }
}

/// Whether somebody who lives holds this process.
pub(crate) fn is_held(layout: &Layout, name: &str) -> bool {
    file(layout, name).running().is_some()
}

fn file(layout: &Layout, name: &str) -> PidFile {
    PidFile::new(layout, &format!("{name}.hold"))
}

#[cfg(test)]
mod tests {
    use dotmac_runtime::process::ProcessIdentity;

    use super::{Hold, file, is_held};
    use crate::local::layout::Layout;

    #[test]
    fn a_hold_ends_with_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("home"));
        layout.prepare().unwrap();
        let hold = Hold::take(&layout, &["controller-1".into()]).unwrap();
        assert!(is_held(&layout, "controller-1") && !is_held(&layout, "controller-2"));
        drop(hold);
        assert!(!is_held(&layout, "controller-1"));
        let dead = ProcessIdentity {
            start_ticks: 1,
            ..ProcessIdentity::own()
        };
        file(&layout, "controller-1").note(&dead).unwrap();
        assert!(!is_held(&layout, "controller-1"));
    }
}
