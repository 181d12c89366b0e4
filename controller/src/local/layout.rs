//! Where a local fleet keeps what: every path below DOTMAC_HOME, the settings it was made with, and the version of
//! its data. It refuses data that a newer version wrote.

use std::path::{Path, PathBuf};

use dotmac_runtime::{disk, telemetry::Endpoint};
use serde::{Deserialize, Serialize};

use super::ports::{BASE_DEFAULT, CONTROLLERS, Ports, REGIONS};
use crate::cli::failure::Failure;

/// Version of the data below DOTMAC_HOME that this program writes; it reads this one and earlier ones.
const DATA_VERSION: u32 = 1;

/// Paths of one local fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    home: PathBuf,
}

/// What a fleet was made with; kept in `fleet.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Every port follows from it.
    pub(crate) port_base: u16,
    /// Milliseconds between the deletion of a deployment and its removal.
    pub(crate) grace_ms: u64,
    /// Where its processes send their spans; asked for anew at every start.
    #[serde(skip)]
    pub(crate) otlp_endpoint: Option<Endpoint>,
}

impl Settings {
    /// The ports.
    pub(crate) fn ports(&self) -> Ports {
        Ports::from_base(self.port_base).expect("checked when it was read or chosen")
    }
}

impl Layout {
    /// A fleet in this directory; a relative one is below the working directory.
    pub(crate) fn new(home: PathBuf) -> Self {
        let home = std::path::absolute(&home).unwrap_or(home);
        Self { home }
    }

    /// DOTMAC_HOME.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The token of the first operator.
    pub(crate) fn admin_token(&self) -> PathBuf {
        self.home.join("admin.token")
    }

    /// The key that signs trust roots.
    pub(crate) fn root_key(&self) -> PathBuf {
        self.home.join("keys/root.key")
    }

    /// The key that approves the most dangerous verbs.
    pub(crate) fn approver_key(&self) -> PathBuf {
        self.home.join("keys/approver.key")
    }

    /// Where backups go.
    pub(crate) fn backups(&self) -> PathBuf {
        self.home.join("backups")
    }

    /// The key that opens them.
    pub(crate) fn backup_identity(&self) -> PathBuf {
        self.home.join("keys/backup.identity")
    }

    /// What all controllers start from.
    pub(crate) fn genesis(&self) -> PathBuf {
        self.home.join("genesis.json")
    }

    /// An installed program.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.home.join("bin").join(name)
    }

    /// Directory of one process.
    pub(crate) fn process(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Who runs: a file per process.
    pub(crate) fn run(&self) -> PathBuf {
        self.home.join("run")
    }

    /// Names of the controllers, in order.
    pub(crate) fn controllers() -> impl Iterator<Item = (u16, String)> {
        (1..=CONTROLLERS).map(|node| (node, format!("controller-{node}")))
    }

    /// Names of the agents with their places in the port plan.
    pub(crate) fn agents() -> impl Iterator<Item = (u16, &'static str)> {
        (0..).zip(REGIONS)
    }

    /// What a fleet leaves in its home and `down --purge` deletes.
    pub(crate) fn entries() -> Vec<String> {
        let fixed = [
            "admin.token",
            "backups",
            "bin",
            "genesis.json",
            "keys",
            "run",
            "supervisor",
        ];
        let marks = ["fleet.json", "version"];
        let processes = Self::controllers()
            .map(|(_, name)| name)
            .chain(Self::agents().map(|(_, name)| name.to_owned()));
        fixed
            .map(str::to_owned)
            .into_iter()
            .chain(processes)
            .chain(marks.map(str::to_owned))
            .collect()
    }

    /// Whether a fleet was made here.
    pub(crate) fn exists(&self) -> bool {
        self.home.join("fleet.json").is_file()
    }

    /// What the fleet was made with.
    ///
    /// # Errors
    /// When there is none, its data is of a newer version, or the file is damaged.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        self.check_version()?;
        let path = self.home.join("fleet.json");
        let text = std::fs::read(&path).map_err(|cause| Failure::io("read", &path, &cause))?;
        let settings: Settings = serde_json::from_slice(&text)
            .map_err(|cause| Failure::Failed(format!("{} is damaged: {cause}", path.display())))?;
        match Ports::from_base(settings.port_base) {
            Some(_) => Ok(settings),
            None => Err(Failure::Failed(format!(
                "{} names an impossible port base",
                path.display()
            ))),
        }
    }

    /// The settings of the fleet that exists, or those for a new one.
    ///
    /// # Errors
    /// As for [`Layout::settings`], and when the variables disagree with a fleet that exists.
    pub(crate) fn settings_or(
        &self,
        port_base: Option<u16>,
        grace_ms: u64,
    ) -> Result<Settings, Failure> {
        self.check_version()?;
        if self.exists() {
            let settings = self.settings()?;
            return match port_base {
                Some(asked) if asked != settings.port_base => Err(Failure::Usage(format!(
                    "DOTMAC_PORT_BASE={asked}, but the fleet in {} was made with {} and keeps its ports: \
                     name another directory with DOTMAC_HOME",
                    self.home.display(),
                    settings.port_base
                ))),
                _ => Ok(settings),
            };
        }
        let port_base = port_base.unwrap_or(BASE_DEFAULT);
        match Ports::from_base(port_base) {
            Some(_) => Ok(Settings {
                port_base,
                grace_ms,
                otlp_endpoint: None,
            }),
            None => Err(Failure::Usage(format!(
                "DOTMAC_PORT_BASE={port_base} is not within 1024 to 64935"
            ))),
        }
    }

    /// Makes the home and writes the settings; from then on the fleet exists.
    pub(crate) fn keep(&self, settings: &Settings) -> Result<(), Failure> {
        let text = serde_json::to_vec(settings).expect("two numbers");
        self.write("version", format!("{DATA_VERSION}\n").as_bytes(), 0o644)?;
        self.write("fleet.json", &text, 0o644)
    }

    /// Makes the home, private, and finds out whether it can be written.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        let advice = |cause: &std::io::Error| match Failure::io("write in", &self.home, cause) {
            Failure::Failed(line) => {
                Failure::Failed(format!("{line}: DOTMAC_HOME names another directory"))
            }
            other => other,
        };
        disk::create_private_dir(&self.home).map_err(|cause| advice(&cause))?;
        disk::create_private_dir(&self.run()).map_err(|cause| advice(&cause))?;
        let probe = self.run().join("probe");
        disk::write_atomic(&probe, b"probe", 0o600).map_err(|cause| advice(&cause))?;
        std::fs::remove_file(&probe).map_err(|cause| advice(&cause))
    }

    /// Writes a file below the home.
    pub(crate) fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), Failure> {
        let path = self.home.join(name);
        disk::write_atomic(&path, bytes, mode).map_err(|cause| Failure::io("write", &path, &cause))
    }

    fn check_version(&self) -> Result<(), Failure> {
        let path = self.home.join("version");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(Failure::io("read", &path, &cause)),
        };
        match text.trim().parse::<u32>() {
            Ok(found) if found <= DATA_VERSION => Ok(()),
            Ok(found) => Err(Failure::Failed(format!(
                "the data in {} is of version {found}, this program knows {DATA_VERSION}: use the newer program",
                self.home.display()
            ))),
            Err(_) => Err(Failure::Failed(format!(
                "{} is damaged: it holds no version",
                path.display()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Layout, Settings};

    fn made() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("home"));
        layout.prepare().unwrap();
        layout
            .keep(&Settings {
                port_base: 9000,
                grace_ms: 1,
                otlp_endpoint: None,
            })
            .unwrap();
        (directory, layout)
    }

    #[test]
    fn a_fleet_keeps_its_ports_and_refuses_others() {
        let (_directory, layout) = made();
        let kept = layout.settings_or(None, 5).unwrap();
        assert_eq!(
            kept,
            Settings {
                port_base: 9000,
                grace_ms: 1,
                otlp_endpoint: None,
            }
        );
        assert!(layout.settings_or(Some(9000), 5).is_ok());
        let refused = layout.settings_or(Some(8000), 5).unwrap_err().to_string();
        assert!(refused.contains("was made with 9000"), "{refused}");
    }

    #[test]
    fn data_of_a_newer_version_is_refused_in_one_line() {
        let (_directory, layout) = made();
        layout.write("version", b"2\n", 0o644).unwrap();
        let refused = layout.settings().unwrap_err().to_string();
        assert!(
            refused.contains("is of version 2, this program knows 1"),
            "{refused}"
        );
        assert!(!refused.contains('\n'));
    }
}
