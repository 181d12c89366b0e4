//! `make mutants`: switches off one guard at a time in a copy of the source and shows that the test of its law then
//! fails. A guard that no test misses, or that is no longer where this says, fails the run. It never touches the
//! checkout.
//! Longer than 400 lines: most of it is the table of guards.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

use anyhow::{Context as _, Result, bail, ensure};

/// One guard and the test that must notice when it is gone.
struct Mutant {
    /// What is switched off.
    name: &'static str,
    /// Where and how; more than one edit where a second guard stands behind the first.
    edits: &'static [Edit],
    /// Package and target of the test.
    target: &'static [&'static str],
    /// The test.
    test: &'static str,
}

/// One guard's text.
struct Edit {
    /// Below which folder it is, wherever.
    folder: &'static str,
    /// The guard; spaces and line breaks do not count.
    guard: &'static str,
    /// What stands in its place.
    instead: &'static str,
}

/// Targets of tests.
const DOMAIN: &[&str] = &["-p", "dotmac-domain", "--test", "domain"];
const PROTOCOL: &[&str] = &["-p", "dotmac-protocol", "--test", "protocol"];
const CONTROLLER: &[&str] = &["-p", "dotmac-controller", "--lib"];
const AGENT: &[&str] = &["-p", "dotmac-agent", "--lib"];
const SIMULATION: &[&str] = &["-p", "dotmac-tests", "--test", "simulation"];

/// All of them, by law.
const MUTANTS: [Mutant; 29] = [
    Mutant {
        name: "law 1: the database file is synced before a write is acknowledged",
        edits: &[Edit {
            folder: "controller/src/storage",
            guard: "self.disk.sync_data(&self.database_path).map_err(sync_error)?;",
            instead: "",
        }],
        target: CONTROLLER,
        test: "law_1_acknowledged_writes_survive_power_cuts",
    },
    Mutant {
        name: "law 2: a tombstone waits for the end of the grace time",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: "let is_due = deployment.delete_after.is_some_and(|due| due <= now);",
            instead: "let is_due = deployment.delete_after.is_some();",
        }],
        target: DOMAIN,
        test: "law_2_a_tombstone_comes_only_after_the_grace_time",
    },
    Mutant {
        name: "law 3: as many controllers sign as the trust root says",
        edits: &[Edit {
            folder: "protocol/src",
            guard: "if found < usize::from(self.threshold.max(1)) {",
            instead: "if found < 1 {",
        }],
        target: PROTOCOL,
        test: "law_3_one_controller_is_not_obeyed",
    },
    Mutant {
        name: "law 3: the payload is the one that was signed",
        edits: &[Edit {
            folder: "protocol/src",
            guard: "if Digest::of(&self.payload) != leaf.payload {",
            instead: "if false {",
        }],
        target: PROTOCOL,
        test: "law_3_a_changed_payload_is_not_obeyed",
    },
    Mutant {
        name: "law 3: a signer checks that somebody asked",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: "check_evidence(state, warrant).and_then(|()| check_token(state, warrant, Some(action)))",
            instead: "check_token(state, warrant, Some(action))",
        }],
        target: DOMAIN,
        test: "law_3_one_controller_cannot_command_the_fleet_with_a_request_nobody_made",
    },
    Mutant {
        name: "law 3: a trust root follows only if the root key signed it",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: "let next = signed.follow(trust).map_err(",
            instead: "let next = codec::decode::<TrustRoot>(&signed.body).map_err(",
        }],
        target: DOMAIN,
        test: "law_3_a_trust_root_follows_only_in_order_signed_by_the_root_key_and_for_a_strict_majority",
    },
    Mutant {
        name: "law 3: a token that has ended asks for nothing more",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: "self.require_live(&envelope.actor)?;",
            instead: "",
        }],
        target: DOMAIN,
        test: "law_3_an_ended_token_asks_for_nothing_more_and_says_so",
    },
    Mutant {
        name: "law 3: a signer follows no warrant of a token that had ended",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: "if !token.counted_at(warrant.at) {",
            instead: "if false {",
        }],
        target: DOMAIN,
        test: "law_3_a_signer_does_not_believe_a_warrant_of_an_ended_token",
    },
    Mutant {
        name: "law 3: an agent takes no older sequence",
        edits: &[Edit {
            folder: "protocol/src",
            guard: "if leaf.sequence <= held_sequence {",
            instead: "if false {",
        }],
        target: PROTOCOL,
        test: "only_what_is_newer_is_taken",
    },
    Mutant {
        name: "law 3: an agent takes no older generation",
        edits: &[Edit {
            folder: "protocol/src",
            guard: "if leaf.generation < held.generation {",
            instead: "if false {",
        }],
        target: PROTOCOL,
        test: "only_what_is_newer_is_taken",
    },
    Mutant {
        name: "law 3: a change of what a deployment is counts only when it is proven",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: ".and_then(|()| self.require_proof(envelope, now))",
            instead: "",
        }],
        target: DOMAIN,
        test: "law_3_a_forged_change_is_refused_and_carried_along_by_none",
    },
    Mutant {
        name: "If-Match: a change of another revision than the asker saw is refused",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: "Some(expected) if expected != revision => {",
            instead: "Some(expected) if expected > revision + 1_000 => {",
        }],
        target: DOMAIN,
        test: "a_change_of_another_revision_than_the_asker_saw_is_refused",
    },
    Mutant {
        name: "law 4: an instance asks for its own tenant alone",
        edits: &[Edit {
            folder: "agent/src/instance_api",
            guard: "if tenant == self.wanted.tenant.as_str() {",
            instead: "if !tenant.is_empty() {",
        }],
        target: AGENT,
        test: "law_4_a_tenant_is_who_its_secret_belongs_to_whatever_it_claims",
    },
    Mutant {
        name: "law 4: an instance's token is taken once",
        edits: &[Edit {
            folder: "agent/src/instance_api",
            guard: "if used.is_known(token) {",
            instead: "if false {",
        }],
        target: AGENT,
        test: "a_token_is_used_once_and_not_again_after_a_restart",
    },
    Mutant {
        name: "law 5: a clock that is set back extends no licence",
        edits: &[Edit {
            folder: "agent/src",
            guard: "mark.at = passed.max(self.clock.now());",
            instead: "mark.at = self.clock.now();",
        }],
        target: AGENT,
        test: "a_clock_set_back_extends_nothing_not_even_over_restarts",
    },
    Mutant {
        name: "law 6: the State's clock never goes back",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: "let now = self.now.max(envelope.at);",
            instead: "let now = envelope.at;",
        }],
        target: DOMAIN,
        test: "law_6_a_clock_that_jumps_back_moves_nothing_back",
    },
    Mutant {
        name: "upgrade: what is written is what the programs of the rules in force read",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: "0 | 1 => Written::V1(Box::new(v1::State::of(self))),",
            instead: "u16::MAX => Written::V1(Box::new(v1::State::of(self))),",
        }],
        target: DOMAIN,
        test: "a_cluster_of_before_is_written_as_before_until_its_rules_are_raised",
    },
    Mutant {
        name: "law 1: a full disk confirms no entry that it does not keep",
        edits: &[Edit {
            folder: "controller/src/raft",
            guard: "PeerReply::Append(AppendEntriesResponse::PartialSuccess(known))",
            instead: "PeerReply::Append(AppendEntriesResponse::Success)",
        }],
        target: CONTROLLER,
        test: "a_full_disk_keeps_nothing_confirms_nothing_and_takes_no_leader_down",
    },
    Mutant {
        name: "law 7: a stranger's deployment is as one that does not exist",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: ".get(id).filter(|one| self.may(actor, Permission::DeploymentRead, Some(&one.tenant)))",
            instead: ".get(id).filter(|_| self.rules > 0 || actor == &crate::envelope::Actor::Founder)",
        }],
        target: DOMAIN,
        test: "law_7_foreign_equals_unknown",
    },
    Mutant {
        name: "law 7: a stranger's tenant is as one that does not exist",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: ".filter(|_| self.may(actor, Permission::TenantRead, Some(id)))",
            instead: ".filter(|_| self.rules > 0 || actor == &Actor::Founder)",
        }],
        target: DOMAIN,
        test: "law_7_a_foreign_tenant_equals_an_unknown_one_whatever_is_asked_of_it",
    },
    Mutant {
        name: "law 8: a record that is known already is skipped, and one out of its place refused",
        edits: &[
            Edit {
                folder: "controller/domain/src",
                guard: "if sequence_of(signed).is_some_and(|sequence| sequence <= head.sequence) {",
                instead: "if sequence_of(signed).is_none() {",
            },
            Edit {
                folder: "protocol/src",
                guard: "if !follows || record.previous != head.digest {",
                instead: "if !follows && record.sequence == 0 {",
            },
        ],
        target: DOMAIN,
        test: "law_8_every_fact_once_however_batches_repeat_overlap_and_swap",
    },
    Mutant {
        name: "law 8: a request that was answered is not applied again",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: "&& is_retriable(envelope) {",
            instead: "&& is_retriable(envelope) && self.rules == 0 {",
        }],
        target: DOMAIN,
        test: "law_8_a_request_that_is_sent_again_gets_its_first_answer_and_changes_nothing",
    },
    Mutant {
        name: "law 8: what an instance reports again does not count again",
        edits: &[Edit {
            folder: "agent/src/reports",
            guard: "!kept.memory.knows(report) && ",
            instead: "",
        }],
        target: AGENT,
        test: "law_8_a_report_counts_once_however_often_it_comes_and_the_agent_restarts",
    },
    Mutant {
        name: "simulation: sync off",
        edits: &[Edit {
            folder: "controller/src/storage",
            guard: "self.disk.sync_data(&self.database_path).map_err(sync_error)?;",
            instead: "",
        }],
        target: SIMULATION,
        test: "a_hundred_seeds_keep_acknowledged_is_durable",
    },
    Mutant {
        name: "simulation: votes not on disk",
        edits: &[Edit {
            folder: "controller/src/raft",
            guard: "self.write(batch).await?; self.lock().vote = Some(*vote);",
            instead: "drop(batch); self.lock().vote = Some(*vote);",
        }],
        target: SIMULATION,
        test: "a_hundred_seeds_keep_votes_never_go_back",
    },
    Mutant {
        name: "simulation: fencing off",
        edits: &[Edit {
            folder: "controller/src/raft",
            guard: "Some(_) => Err(LivesError::Reborn { node }),",
            instead: "Some(_) => Ok(true),",
        }],
        target: SIMULATION,
        test: "a_hundred_seeds_keep_acknowledged_is_durable",
    },
    Mutant {
        name: "simulation: generation check off",
        edits: &[
            Edit {
                folder: "protocol/src",
                guard: "if leaf.sequence <= held_sequence {",
                instead: "if false {",
            },
            Edit {
                folder: "protocol/src",
                guard: "if leaf.generation < held.generation {",
                instead: "if false {",
            },
        ],
        target: SIMULATION,
        test: "a_hundred_seeds_keep_an_agent_never_goes_back",
    },
    Mutant {
        name: "simulation: max(now, at) off",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: "let now = self.now.max(envelope.at);",
            instead: "let now = envelope.at;",
        }],
        target: SIMULATION,
        test: "a_hundred_seeds_keep_time_never_goes_back",
    },
    Mutant {
        name: "simulation: dedup off",
        edits: &[Edit {
            folder: "controller/domain/src",
            guard: "&& is_retriable(envelope) {",
            instead: "&& is_retriable(envelope) && self.rules == 0 {",
        }],
        target: SIMULATION,
        test: "a_hundred_seeds_keep_every_fact_once",
    },
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("mutants: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the checkout has no path")?;
    let own = std::env::current_exe()?;
    let build = own
        .ancestors()
        .nth(2)
        .context("this program lies nowhere")?;
    // A folder and a target of its own: what is built without a guard must never be taken for the product.
    let tree = build.join("mutants/tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    copy(checkout, &tree)?;
    let chosen: Vec<&Mutant> = MUTANTS
        .iter()
        .filter(|mutant| mutant.name.contains(&filter))
        .collect();
    ensure!(!chosen.is_empty(), "no guard is called {filter:?}");
    let bench = Bench {
        tree,
        build: build.join("mutants/target"),
    };
    for mutant in &chosen {
        // A test that fails anyway would notice nothing.
        let sound = bench.test(mutant)?;
        ensure!(
            is_pass(&sound),
            "{} fails with the guard in place:\n{}",
            mutant.test,
            tail(&sound)
        );
    }
    let mut survivors = Vec::new();
    for mutant in &chosen {
        let noticed = bench.without(mutant)?;
        let word = if noticed { "noticed" } else { "SURVIVED" };
        say(&format!("{word:>9}  {}  ({})", mutant.name, mutant.test));
        if !noticed {
            survivors.push(mutant.name);
        }
    }
    if survivors.is_empty() {
        say(&format!(
            "{} guards switched off, each noticed by its law's test",
            chosen.len()
        ));
        return Ok(());
    }
    bail!("no test misses: {}", survivors.join("; "))
}

/// The copied source and where it is built.
struct Bench {
    tree: PathBuf,
    build: PathBuf,
}

impl Bench {
    /// Whether the test notices that the guard is gone.
    fn without(&self, mutant: &Mutant) -> Result<bool> {
        let mut sound = Vec::new();
        for edit in mutant.edits {
            let path = find(&self.tree, edit)?;
            let text = fs::read_to_string(&path)?;
            let changed = replace(&text, edit.guard, edit.instead).context("it was found")?;
            fs::write(&path, changed)?;
            sound.push((path, text));
        }
        let tested = self.compile(mutant).and_then(|()| self.test(mutant));
        for (path, text) in sound.into_iter().rev() {
            fs::write(&path, text)?;
        }
        Ok(!is_pass(&tested?))
    }

    fn compile(&self, mutant: &Mutant) -> Result<()> {
        let built = self.cargo(mutant, &["--no-run"])?;
        ensure!(
            built.status.success(),
            "{}: without it this does not compile:\n{}",
            mutant.name,
            tail(&built)
        );
        Ok(())
    }

    fn test(&self, mutant: &Mutant) -> Result<Output> {
        self.cargo(mutant, &["--", mutant.test])
    }

    fn cargo(&self, mutant: &Mutant, arguments: &[&str]) -> Result<Output> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Command::new(cargo)
            .args(["test", "--locked", "--offline"])
            .args(mutant.target)
            .args(arguments)
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.build)
            .output()
            .context("cargo cannot be started")
    }
}

/// The test ran, and passed.
fn is_pass(output: &Output) -> bool {
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success() && text.contains("test result: ok. 1 passed")
}

fn tail(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// The one file of the folder that holds the guard.
fn find(tree: &Path, edit: &Edit) -> Result<PathBuf> {
    let mut holders = Vec::new();
    let mut open = vec![tree.join(edit.folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && replace(&fs::read_to_string(&path)?, edit.guard, edit.instead).is_some()
            {
                holders.push(path);
            }
        }
    }
    match holders.as_slice() {
        [one] => Ok(one.clone()),
        other => bail!(
            "the guard `{}` is in {} files of {}",
            edit.guard,
            other.len(),
            edit.folder
        ),
    }
}

/// Replaces the one place that reads like `guard` when blanks do not count.
fn replace(text: &str, guard: &str, instead: &str) -> Option<String> {
    let solid: Vec<(usize, char)> = text
        .char_indices()
        .filter(|(_, one)| !one.is_whitespace())
        .collect();
    let guard: Vec<char> = guard.chars().filter(|one| !one.is_whitespace()).collect();
    let mut places = (0..solid.len().saturating_sub(guard.len())).filter(|start| {
        guard
            .iter()
            .zip(&solid[*start..])
            .all(|(one, (_, other))| one == other)
    });
    let (place, None) = (places.next()?, places.next()) else {
        return None;
    };
    let (from, to) = (solid[place].0, solid[place + guard.len()].0);
    Some(format!("{}{instead} {}", &text[..from], &text[to..]))
}

/// Copies the source, without what is built from it or kept beside it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_source = name
            .to_str()
            .is_some_and(|name| !name.starts_with('.') && name != "target");
        if !is_source && name != ".cargo" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(&name))?;
        } else {
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}

/// Writes a line at once.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::{MUTANTS, find, replace};

    #[test]
    fn a_guard_is_found_however_it_is_laid_out_and_only_if_it_is_the_only_one() {
        let text = "fn a() {\n    if one\n        < two {\n        b();\n    }\n}\n";
        let changed = replace(text, "if one < two {", "if false {").unwrap();
        assert!(changed.contains("if false { b();"), "{changed}");
        assert_eq!(replace(text, "if one > two {", ""), None);
        assert_eq!(replace("a(); a(); b();", "a();", ""), None);
    }

    #[test]
    fn every_guard_is_where_the_list_says() {
        let checkout = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap();
        for mutant in &MUTANTS {
            for edit in mutant.edits {
                find(checkout, edit).unwrap();
            }
        }
    }
}
