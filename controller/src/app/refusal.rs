//! Why a controller will not start, sorted by what helps: the exit code tells a service manager whether to try again, the
//! next command tells a person what to do. docs/operations/starting.md has the same table.

use std::{error::Error, io};

use crate::{
    bootstrap::BootstrapError,
    config::ConfigError,
    raft::{StartError, welcome::Unwelcome},
    storage::{
        directory::DirectoryError, engine::OpenError, ledger::LedgerError, snapshots::SnapshotError,
    },
};

use super::AppError;

/// What kind of reason keeps a controller from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// None of the others; worth another try.
    Other,
    /// A configuration, key or genesis file is wrong.
    Files,
    /// The data is of a newer program.
    Newer,
    /// The data or keys are not those of this controller of this cluster.
    Stranger,
    /// The other controllers know no such controller.
    Removed,
    /// What was acknowledged is not on the disk any more, or not readable.
    Damaged,
    /// Something is in the way at the moment: a port, another process, a full disk.
    InTheWay,
    /// The clock is impossible.
    Clock,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Other,
        Self::Files,
        Self::Newer,
        Self::Stranger,
        Self::Removed,
        Self::Damaged,
        Self::InTheWay,
        Self::Clock,
    ];

    /// Why the program ends with this error.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        if error.is::<ConfigError>() {
            return Self::Files;
        }
        match error.downcast_ref::<AppError>() {
            _ if is_full(error) => Self::InTheWay,
            Some(error) => of_app(error),
            None => match error.downcast_ref::<BootstrapError>() {
                Some(error) => of_bootstrap(error),
                None => Self::Other,
            },
        }
    }

    /// The program's exit code; 2 is left to wrong arguments.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Files => 3,
            Self::Newer => 4,
            Self::Stranger => 5,
            Self::Damaged => 6,
            Self::InTheWay => 7,
            Self::Clock => 8,
            Self::Removed => 9,
        }
    }

    /// Whether a service manager should start the program again by itself.
    #[must_use]
    pub fn is_tried_again(self) -> bool {
        matches!(self, Self::Other | Self::InTheWay | Self::Clock)
    }

    /// What to do next, as half a sentence.
    #[must_use]
    pub fn next(self) -> &'static str {
        match self {
            Self::Other => "look into its log: `dotmac logs controller-N`",
            Self::Files => "put the named file right and start it again",
            Self::Newer => {
                "install the newer program and start that: `dotmac cluster status` on another controller names it"
            }
            Self::Stranger => {
                "give it its own disk back, or replace the node: `dotmac cluster replace-node`"
            }
            Self::Removed => {
                "its work is done: take its service away; nothing needs its data once the cluster is well"
            }
            Self::Damaged => {
                "keep the disk for whoever looks into it, and replace the node (`dotmac cluster replace-node`), or go on from \
                 a backup with new controllers when all are lost (`dotmac backup plan`)"
            }
            Self::InTheWay => "remove what is in the way and start it again",
            Self::Clock => "set the clock (`timedatectl`) and start it again",
        }
    }
}

fn of_app(error: &AppError) -> Refusal {
    match error {
        AppError::Bootstrap(error) => of_bootstrap(error),
        AppError::Stranger { .. } | AppError::OtherCluster { .. } => Refusal::Stranger,
        AppError::Refused { by, .. } if by.values().all(|why| *why == Unwelcome::Unknown) => {
            Refusal::Removed
        }
        AppError::Refused { .. } => Refusal::Stranger,
        AppError::Clock { .. } => Refusal::Clock,
        AppError::Certificate(_)
        | AppError::Tls(_)
        | AppError::Backup(_)
        | AppError::NotRestored { .. } => Refusal::Files,
        AppError::Link(_) | AppError::Api { .. } => Refusal::InTheWay,
        AppError::Raft(error) => of_start(error),
        AppError::Telemetry(_) | AppError::Stopped(_) => Refusal::Other,
    }
}

fn of_bootstrap(error: &BootstrapError) -> Refusal {
    match error {
        BootstrapError::NewerRules { .. } => Refusal::Newer,
        BootstrapError::NoKeys { .. } => Refusal::Stranger,
        _ => Refusal::Files,
    }
}

fn of_start(error: &StartError) -> Refusal {
    match error {
        StartError::Directory(DirectoryError::Newer { .. }) => Refusal::Newer,
        StartError::Directory(DirectoryError::Foreign { .. }) | StartError::Wiped { .. } => {
            Refusal::Stranger
        }
        StartError::Directory(DirectoryError::Locked { .. } | DirectoryError::Io { .. })
        | StartError::NoRoom { .. }
        | StartError::Mark { .. }
        | StartError::Engine(OpenError::Io { .. })
        | StartError::Snapshots(SnapshotError::Io { .. }) => Refusal::InTheWay,
        StartError::Engine(_)
        | StartError::Ledger(LedgerError::Read(_) | LedgerError::Decode(_))
        | StartError::Log(_)
        | StartError::Snapshots(_)
        | StartError::State(_)
        | StartError::Gap { .. }
        | StartError::Raft(_)
        | StartError::Lives(_) => Refusal::Damaged,
        StartError::Ledger(_) | StartError::Interrupted => Refusal::Other,
    }
}

/// Whether the disk is full, wherever that was noticed.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        ) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io, path::PathBuf};

    use super::Refusal;
    use crate::{
        app::AppError,
        raft::StartError,
        storage::{directory::DirectoryError, engine::OpenError},
    };

    #[test]
    fn every_kind_has_a_code_of_its_own_and_a_next_step() {
        let codes: BTreeSet<u8> = Refusal::ALL.map(Refusal::exit_code).into();
        assert_eq!(codes.len(), Refusal::ALL.len());
        assert!(!codes.contains(&0) && !codes.contains(&2));
        let page = include_str!("../../../docs/operations/starting.md");
        let unit = include_str!("../../../deploy/systemd/dotmac-controller.service");
        let never = unit
            .lines()
            .find_map(|line| line.strip_prefix("RestartPreventExitStatus="))
            .unwrap();
        let never: BTreeSet<&str> = never.split(' ').collect();
        for one in Refusal::ALL {
            let row = format!("| {} | ", one.exit_code());
            assert!(page.contains(&row), "{one:?} has no row {row}");
            assert!(page.contains(one.next()), "{one:?}: {}", one.next());
            let is_prevented = never.contains(one.exit_code().to_string().as_str());
            assert_ne!(is_prevented, one.is_tried_again(), "{one:?}");
        }
    }

    #[test]
    fn a_full_disk_is_in_the_way_and_a_lost_write_is_damage() {
        let start = |error: StartError| Refusal::of(&AppError::Raft(error));
        let path = PathBuf::from("/data");
        let full = StartError::Engine(OpenError::Io {
            action: "sync",
            path: path.clone(),
            source: io::ErrorKind::StorageFull.into(),
        });
        assert_eq!(start(full), Refusal::InTheWay);
        let lost = StartError::Engine(OpenError::WentBack {
            path: path.clone(),
            found: 1,
            expected: 2,
        });
        assert_eq!(start(lost), Refusal::Damaged);
        let newer = StartError::Directory(DirectoryError::Newer {
            path,
            found: 9,
            known: 2,
        });
        assert_eq!(start(newer), Refusal::Newer);
    }
}
