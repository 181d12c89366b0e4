//! Which backup `latest` means: of the whole ones the one with the newest State. Pure. It refuses to pass over a newer one
//! that is damaged, for that may be somebody's forgery, and to choose between clusters.

use std::collections::BTreeSet;

use thiserror::Error;

/// The word for the newest backup.
pub const LATEST: &str = "latest";

/// A backup at a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// How it is.
    pub condition: Condition,
}

/// How a backup is, as far as a list tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Its manifest is signed and every part is there.
    Whole {
        /// Whose it is.
        cluster: String,
        /// The epoch of its trust root.
        epoch: u64,
        /// Index of the last entry in it.
        index: u64,
    },
    /// It has no manifest: it is under way, or was given up.
    Unfinished,
    /// It is of another cluster.
    Foreign,
    /// It does not count, and why.
    Damaged(String),
}

/// Why there is no newest backup.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoLatest {
    /// None is whole, and none is damaged.
    #[error("there is no whole backup: dotmac backup create --wait makes one")]
    None,
    /// The newest one is damaged.
    #[error("the newest backup, {name}, does not count: {problem}; {}", next_of(next.as_deref()))]
    Damaged {
        /// Its name.
        name: String,
        /// Why it does not count.
        problem: String,
        /// The newest one that does.
        next: Option<String>,
    },
    /// They are of several clusters.
    #[error(
        "there are backups of clusters {}: name the one that is meant, or say whose it is with --genesis FILE",
        .0.join(", ")
    )]
    Clusters(Vec<String>),
}

fn next_of(next: Option<&str>) -> String {
    match next {
        Some(next) => format!("the newest one that is whole is {next}: name it, if it is meant"),
        None => "none that is whole is left".to_owned(),
    }
}

/// The name of the newest whole backup.
///
/// # Errors
/// When there is none, when a damaged one may be newer, or when they are of several clusters.
pub fn latest(candidates: &[Candidate]) -> Result<String, NoLatest> {
    let mut clusters = BTreeSet::new();
    // Clocks of leaders differ, and names tell the leader's: epoch and index say which State is newer.
    let mut newest: Option<(u64, u64, &str)> = None;
    for one in candidates {
        if let Condition::Whole {
            cluster,
            epoch,
            index,
        } = &one.condition
        {
            clusters.insert(cluster.clone());
            newest = newest.max(Some((*epoch, *index, &one.name)));
        }
    }
    if clusters.len() > 1 {
        return Err(NoLatest::Clusters(clusters.into_iter().collect()));
    }
    let next = newest.map(|(_, _, name)| name);
    let damaged = candidates.iter().filter_map(|one| match &one.condition {
        Condition::Damaged(problem) if next.is_none_or(|next| is_as_new(&one.name, next)) => {
            Some((&one.name, problem))
        }
        Condition::Damaged(_)
        | Condition::Unfinished
        | Condition::Foreign
        | Condition::Whole { .. } => None,
    });
    if let Some((name, problem)) = damaged.max() {
        return Err(NoLatest::Damaged {
            name: name.clone(),
            problem: problem.clone(),
            next: next.map(str::to_owned),
        });
    }
    next.map(str::to_owned).ok_or(NoLatest::None)
}

/// Whether a backup began in the same second as another, or later: more its name alone does not tell for certain.
fn is_as_new(name: &str, than: &str) -> bool {
    let second = |name: &str| name.split('-').next().unwrap_or_default().to_owned();
    second(name) >= second(than)
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Condition, NoLatest, latest};

    fn candidate(name: &str, condition: Condition) -> Candidate {
        let name = name.to_owned();
        Candidate { name, condition }
    }

    fn whole(name: &str, cluster: &str, epoch: u64, index: u64) -> Candidate {
        let cluster = cluster.to_owned();
        let condition = Condition::Whole {
            cluster,
            epoch,
            index,
        };
        candidate(name, condition)
    }

    #[test]
    fn the_newest_state_counts_and_not_the_name() {
        let mut all = vec![
            whole("20261123T165400Z-00000a", "a", 1, 12),
            whole("20261123T165400Z-00000f", "a", 1, 11),
            candidate("20261123T165500Z-000000", Condition::Unfinished),
            candidate("20991123T165500Z-000000", Condition::Foreign),
        ];
        assert_eq!(latest(&all).unwrap(), "20261123T165400Z-00000a");
        // A restore from an old backup goes on at a lower index.
        all.push(whole("20261124T165400Z-00000f", "a", 2, 5));
        assert_eq!(latest(&all).unwrap(), "20261124T165400Z-00000f");
        assert_eq!(latest(&all[2..4]), Err(NoLatest::None));
    }

    #[test]
    fn a_damaged_one_that_may_be_the_newest_is_named_with_the_next() {
        let damaged = |name| candidate(name, Condition::Damaged("forged".into()));
        let good = whole("20261123T165401Z-000000", "a", 1, 12);
        let older = damaged("20261123T165400Z-ffffff");
        assert_eq!(latest(&[older, good.clone()]).unwrap(), good.name);
        for name in ["20261123T165401Z-000000", "20261124T000000Z-000000"] {
            let said = latest(&[good.clone(), damaged(name)]).unwrap_err();
            let said = said.to_string();
            for part in [name, "forged", "whole is 20261123T165401Z-000000"] {
                assert!(said.contains(part), "{said}");
            }
        }
        let said = latest(&[damaged("20261124T000000Z-000000")]).unwrap_err();
        assert!(
            said.to_string().contains("none that is whole is left"),
            "{said}"
        );
    }

    #[test]
    fn nobody_chooses_between_clusters() {
        let all = [
            whole("20261123T165400Z-00000a", "a", 1, 12),
            whole("20261123T165401Z-00000a", "b", 1, 11),
        ];
        let expected = NoLatest::Clusters(vec!["a".into(), "b".into()]);
        assert_eq!(latest(&all), Err(expected));
    }
}
