//! Runs stories: groups share a fleet, two groups run at a time, and a story that measures time runs while no other
//! does. It takes a filter like any test program, and ends with 1 when a story failed.

use std::{
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, anyhow};
use futures::future::{BoxFuture, join_all};
use tokio::{
    sync::{RwLock, Semaphore},
    time::Instant,
};

use crate::{fleet::Fleet, programs};

/// Groups that run at a time.
const GROUPS_AT_ONCE: usize = 2;
/// Longest run of one story.
const STORY_WITHIN: Duration = Duration::from_secs(300);

/// A story that cannot be told here, and why. In CI (CI=true) it fails instead.
#[derive(Debug)]
pub struct Skipped(String);

impl std::fmt::Display for Skipped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// Ends a story that lacks something which the product itself does not need.
///
/// # Errors
/// Always; in CI with a failure.
pub fn skip<T>(why: String) -> Result<T> {
    match std::env::var("CI").as_deref() {
        Ok("true" | "1") => Err(anyhow!("{why}; in CI this is a failure")),
        _ => Err(Skipped(why).into()),
    }
}

/// A peer that a story needs; without it the story ends as [`skip`] has it.
///
/// # Errors
/// When it is missing.
pub fn peer(name: &str) -> Result<PathBuf> {
    programs::peer(name).or_else(|error| skip(error.to_string()))
}

/// Leaves a story to a longer suite, which makes what it needs first; in CI, too.
///
/// # Errors
/// Always: with what the runner takes for a story that was not run.
pub fn leave<T>(why: String) -> Result<T> {
    Err(Skipped(why).into())
}

/// What a story needs.
#[derive(Debug, Clone, Copy)]
pub enum Run {
    /// The fleet of its group.
    Fleet(fn(Arc<Fleet>) -> BoxFuture<'static, Result<()>>),
    /// Nothing but the programs.
    Alone(fn() -> BoxFuture<'static, Result<()>>),
}

/// One story.
#[derive(Debug, Clone, Copy)]
pub struct Story {
    /// Its claim.
    pub name: &'static str,
    /// Whether it measures time, so that nothing else may run meanwhile.
    pub is_timed: bool,
    /// The story itself.
    pub run: Run,
}

/// Stories that are told one after the other.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name, which is its module's.
    pub name: &'static str,
    /// In this order.
    pub stories: Vec<Story>,
}

/// A group of stories by their functions: `group!(NAME: story, timed story, alone story, …)`.
#[macro_export]
macro_rules! group {
    ($group:ident: $($kind:ident $story:ident),+ $(,)?) => {
        $crate::runner::Group {
            name: stringify!($group),
            stories: vec![$($crate::story!($kind $group $story)),+],
        }
    };
}

/// One story by its function and kind (`calm`, `timed` or `alone`).
#[macro_export]
macro_rules! story {
    (calm $group:ident $story:ident) => {
        $crate::runner::Story {
            name: stringify!($story),
            is_timed: false,
            run: $crate::runner::Run::Fleet(|fleet| Box::pin($group::$story(fleet))),
        }
    };
    (timed $group:ident $story:ident) => {
        $crate::runner::Story {
            is_timed: true,
            ..$crate::story!(calm $group $story)
        }
    };
    (alone $group:ident $story:ident) => {
        $crate::runner::Story {
            name: stringify!($story),
            is_timed: false,
            run: $crate::runner::Run::Alone(|| Box::pin($group::$story())),
        }
    };
}

#[derive(Debug, Default)]
struct Arguments {
    filters: Vec<String>,
    skipped: Vec<String>,
    is_exact: bool,
    lists: bool,
}

struct Stage {
    turns: Semaphore,
    quiet: Arc<RwLock<()>>,
    failures: Mutex<Vec<(String, String)>>,
    passed: Mutex<usize>,
}

/// Runs what the arguments of this program select.
#[must_use]
pub fn main(groups: Vec<Group>) -> ExitCode {
    let arguments = Arguments::read(std::env::args().skip(1));
    let groups = arguments.select(groups);
    let count: usize = groups.iter().map(|group| group.stories.len()).sum();
    if arguments.lists {
        for group in &groups {
            for story in &group.stories {
                say(&format!("{}::{}: test", group.name, story.name));
            }
        }
        return ExitCode::SUCCESS;
    }
    say(&format!("\nrunning {count} stories"));
    let stage = Stage {
        turns: Semaphore::new(GROUPS_AT_ONCE),
        quiet: Arc::default(),
        failures: Mutex::default(),
        passed: Mutex::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        say("the runtime cannot start");
        return ExitCode::FAILURE;
    };
    let started = runtime.block_on(async {
        let started = Instant::now();
        join_all(groups.into_iter().map(|group| stage.group(group))).await;
        started.elapsed()
    });
    stage.sum_up(started)
}

impl Stage {
    async fn group(&self, group: Group) {
        let Ok(_turn) = self.turns.acquire().await else {
            return;
        };
        let needs_fleet = group
            .stories
            .iter()
            .any(|story| matches!(story.run, Run::Fleet(_)));
        let fleet = if needs_fleet {
            match Fleet::start(group.name).await {
                Ok(fleet) => Some(Arc::new(fleet)),
                Err(error) => {
                    self.note(group.name, "the_fleet_starts", Duration::ZERO, Err(error));
                    return;
                }
            }
        } else {
            None
        };
        for story in &group.stories {
            self.story(group.name, story, fleet.clone()).await;
        }
        let Some(fleet) = fleet else { return };
        let started = Instant::now();
        let down = fleet
            .down()
            .await
            .map_err(|error| error.context(fleet.tails()));
        self.note(
            group.name,
            "down_leaves_no_process",
            started.elapsed(),
            down,
        );
    }

    async fn story(&self, group: &str, story: &Story, fleet: Option<Arc<Fleet>>) {
        let quiet = Arc::clone(&self.quiet);
        let (alone, among) = if story.is_timed {
            (Some(quiet.write_owned().await), None)
        } else {
            (None, Some(quiet.read_owned().await))
        };
        let started = Instant::now();
        let future = match (story.run, fleet.clone()) {
            (Run::Fleet(run), Some(fleet)) => run(fleet),
            (Run::Alone(run), _) => run(),
            (Run::Fleet(_), None) => return,
        };
        let result = match tokio::time::timeout(STORY_WITHIN, tokio::spawn(future)).await {
            Err(_) => Err(anyhow!("it did not end within {STORY_WITHIN:?}")),
            Ok(Err(panic)) => Err(anyhow!("{panic}")),
            Ok(Ok(result)) => result,
        };
        let result = result.map_err(|error| {
            let Some(fleet) = &fleet else { return error };
            // The logs once a fleet, when they are fresh.
            let tails = if fleet.keep() {
                fleet.tails()
            } else {
                String::new()
            };
            anyhow!("{error:#}\n{tails}")
        });
        self.note(group, story.name, started.elapsed(), result);
        drop((alone, among));
    }

    fn note(&self, group: &str, story: &str, took: Duration, result: Result<()>) {
        let name = format!("{group}::{story}");
        let seconds = took.as_secs_f32();
        match result {
            Ok(()) => {
                say(&format!("test {name} ... ok ({seconds:.1} s)"));
                *self.passed.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            }
            Err(error) if error.is::<Skipped>() => {
                say(&format!("test {name} ... ignored, {error}"));
            }
            Err(error) => {
                say(&format!("test {name} ... FAILED ({seconds:.1} s)"));
                let failure = (name, format!("{error:#}"));
                self.failures
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(failure);
            }
        }
    }

    fn sum_up(self, took: Duration) -> ExitCode {
        let failures = self
            .failures
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let passed = self
            .passed
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        for (name, failure) in &failures {
            say(&format!("\n---- {name} ----\n{failure}"));
        }
        let word = if failures.is_empty() { "ok" } else { "FAILED" };
        let seconds = took.as_secs_f32();
        say(&format!(
            "\ntest result: {word}. {passed} passed; {} failed; finished in {seconds:.1} s\n",
            failures.len()
        ));
        if failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    /// Arguments that other test programs know and that mean nothing here are passed over.
    fn read(mut words: impl Iterator<Item = String>) -> Self {
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--exact" => arguments.is_exact = true,
                "--list" => arguments.lists = true,
                "--skip" => arguments.skipped.extend(words.next()),
                "--test-threads" | "--format" | "--color" => drop(words.next()),
                other if other.starts_with('-') => {}
                _ => arguments.filters.push(word),
            }
        }
        arguments
    }

    fn select(&self, groups: Vec<Group>) -> Vec<Group> {
        let wanted = |name: &str| {
            let fits = |filter: &String| {
                if self.is_exact {
                    name == filter
                } else {
                    name.contains(filter)
                }
            };
            (self.filters.is_empty() || self.filters.iter().any(fits))
                && !self.skipped.iter().any(fits)
        };
        let groups = groups.into_iter().map(|mut group| {
            group
                .stories
                .retain(|story| wanted(&format!("{}::{}", group.name, story.name)));
            group
        });
        groups.filter(|group| !group.stories.is_empty()).collect()
    }
}

/// Writes a line at once. A reader that went away is no reason to end.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
