//! What a run has seen, summed up over its phases, and whether that is good.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result};
use dotmac_tests::programs;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Milliseconds within which writes go on after a leader was killed, 99 times of 100.
const FAILOVER_P99_MAX_MS: u64 = 3_000;

/// Counts of one phase or of the whole run.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Tally {
    pub(crate) power_cuts: u64,
    /// Bytes that were written and not on the disk when the power was cut.
    pub(crate) unsynced_bytes: u64,
    /// Power cuts in which bytes of the database itself were lost, not only of the mark beside it.
    pub(crate) cuts_within_a_commit: u64,
    pub(crate) kills: u64,
    pub(crate) partitions: u64,
    /// Packets that the partitions dropped.
    pub(crate) packets_dropped: u64,
    pub(crate) disk_faults: u64,
    pub(crate) bit_flips: u64,
    /// Bit flips after which the controller refused to run, or to tell what was damaged.
    pub(crate) flips_refused: u64,
    /// In which words, and how often.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Bit flips that the controller made good by itself.
    pub(crate) flips_healed: u64,
    /// Faults that did not happen, or that nothing depended on; each was repeated until one with effect was found.
    pub(crate) faults_without_effect: u64,
    /// Requests for changes that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Acknowledged, and not in the audit afterwards.
    pub(crate) lost: u64,
    /// Acknowledged, and more than once in the audit.
    pub(crate) doubled: u64,
    pub(crate) silent_corruptions: u64,
    /// Times that a controller followed a leader before one that it had followed already.
    pub(crate) double_votes: u64,
    /// Comparisons of three controllers' States at one index.
    pub(crate) digests_compared: u64,
    pub(crate) digests_unequal: u64,
    /// Processes that ended by themselves without a fault that explains it, or did not become ready.
    pub(crate) crashes: u64,
    pub(crate) operations: u64,
    pub(crate) histories: u64,
    pub(crate) histories_not_linearizable: u64,
    pub(crate) histories_undecided: u64,
    pub(crate) failovers_ms: Vec<u64>,
    pub(crate) seconds: u64,
    /// What went wrong, in words.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// Adds another phase.
    pub(crate) fn add(&mut self, other: Self) {
        let sums = [
            (&mut self.power_cuts, other.power_cuts),
            (&mut self.unsynced_bytes, other.unsynced_bytes),
            (&mut self.cuts_within_a_commit, other.cuts_within_a_commit),
            (&mut self.kills, other.kills),
            (&mut self.partitions, other.partitions),
            (&mut self.packets_dropped, other.packets_dropped),
            (&mut self.disk_faults, other.disk_faults),
            (&mut self.bit_flips, other.bit_flips),
            (&mut self.flips_refused, other.flips_refused),
            (&mut self.flips_healed, other.flips_healed),
            (&mut self.faults_without_effect, other.faults_without_effect),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.lost, other.lost),
            (&mut self.doubled, other.doubled),
            (&mut self.silent_corruptions, other.silent_corruptions),
            (&mut self.double_votes, other.double_votes),
            (&mut self.digests_compared, other.digests_compared),
            (&mut self.digests_unequal, other.digests_unequal),
            (&mut self.crashes, other.crashes),
            (&mut self.operations, other.operations),
            (&mut self.histories, other.histories),
            (
                &mut self.histories_not_linearizable,
                other.histories_not_linearizable,
            ),
            (&mut self.histories_undecided, other.histories_undecided),
            (&mut self.seconds, other.seconds),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
        for (words, count) in other.refusals {
            *self.refusals.entry(words).or_default() += count;
        }
        self.failovers_ms.extend(other.failovers_ms);
        self.failures.extend(other.failures);
    }

    /// Notes what went wrong.
    pub(crate) fn fail(&mut self, failure: impl Into<String>) {
        let failure = failure.into();
        crate::tell(&format!("FAILED: {failure}"));
        self.failures.push(failure);
    }

    /// Fails if fewer faults of a kind happened, and had an effect, than were asked for.
    pub(crate) fn expect(&mut self, faults: &str, asked: u64) {
        let happened = match faults {
            "power cuts" => self.power_cuts,
            "kills" => self.kills,
            "partitions" => self.partitions,
            "disk faults" => self.disk_faults,
            _ => self.bit_flips,
        };
        if happened < asked {
            self.fail(format!("{happened} {faults} of {asked} happened"));
        }
    }

    /// Notes how long a phase took.
    pub(crate) fn took(&mut self, elapsed: Duration) {
        self.seconds += elapsed.as_secs();
    }

    /// The time within which 99 of 100 failovers were over.
    fn failover_p99_ms(&self) -> Option<u64> {
        let mut all = self.failovers_ms.clone();
        all.sort_unstable();
        let place = (all.len() * 99).div_ceil(100).checked_sub(1)?;
        all.get(place).copied()
    }

    /// Everything that is not as it must be.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let zeros = [
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("silent_corruptions", self.silent_corruptions),
            ("double_votes", self.double_votes),
            ("digests_unequal", self.digests_unequal),
            ("crashes", self.crashes),
            (
                "histories_not_linearizable",
                self.histories_not_linearizable,
            ),
            ("histories_undecided", self.histories_undecided),
        ];
        let mut wrong: Vec<String> = zeros
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} is {count}"))
            .collect();
        if let Some(p99) = self
            .failover_p99_ms()
            .filter(|p99| *p99 >= FAILOVER_P99_MAX_MS)
        {
            wrong.push(format!("failover_p99_ms is {p99}"));
        }
        wrong.extend(self.failures.iter().cloned());
        wrong
    }

    /// One line of JSON, in `target/bench/chaos.json` too.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self) -> Result<String> {
        let mut line = serde_json::to_value(self)?;
        let members = line.as_object_mut().context("a tally is an object")?;
        members.remove("failovers_ms");
        members.insert("failovers".into(), json!(self.failovers_ms.len()));
        members.insert("failover_p99_ms".into(), json!(self.failover_p99_ms()));
        let longest = self.failovers_ms.iter().max();
        members.insert("failover_max_ms".into(), json!(longest));
        members.insert("passed".into(), Value::Bool(self.wrong().is_empty()));
        let target = programs::directory()?;
        let folder = target
            .parent()
            .context("no target directory")?
            .join("bench");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("chaos.json"), format!("{line}\n"))?;
        Ok(line.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn a_run_passes_only_if_nothing_was_lost_and_writes_went_on_in_time() {
        let good = || Tally {
            failovers_ms: vec![2_999; 100],
            ..Tally::default()
        };
        assert!(good().wrong().is_empty());
        let mut idle = Tally { kills: 9, ..good() };
        idle.expect("kills", 9);
        assert!(idle.wrong().is_empty());
        idle.expect("kills", 10);
        assert_eq!(idle.wrong(), ["9 kills of 10 happened"]);
        let mut slow = good();
        slow.failovers_ms.extend([3_000, 3_000]);
        assert_eq!(slow.wrong(), ["failover_p99_ms is 3000"]);
        let mut all = good();
        all.add(Tally {
            lost: 1,
            histories_undecided: 2,
            failures: vec!["a word".into()],
            ..Tally::default()
        });
        assert_eq!(
            all.wrong(),
            ["lost is 1", "histories_undecided is 2", "a word"]
        );
    }
}
