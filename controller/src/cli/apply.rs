//! `dotmac apply` and `dotmac diff`: a file says how deployments should be; what is missing is made, what differs is
//! changed, what is equal is left alone, and what the file does not name is never touched. The whole file is checked,
//! here and by the API, before the first change.
//!
//! ```text
//!   document (lines) -> item (fields) -> world (which one is meant) -> steps (what differs) -> work (ask, do, wait) -> report
//! ```

mod document;
mod fields;
mod item;
mod job;
mod present;
mod report;
mod secret;
mod steps;
mod work;
mod world;

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use self::{
    document::{FILE_BYTES_MAX, Fault},
    item::Item,
    work::Work,
    world::World,
};
use super::{
    client::Client, deployments::Patience, failure::Failure, find::Context, plan::Consent,
};

pub(crate) use self::present::exported;

/// A file with every field, explained.
const EXAMPLE: &str = include_str!("../../../config/deployments.example.yaml");

const APPLY_HELP: &str = "\
The file holds one deployment, several documents, or a list of them; YAML or JSON. A deployment is found by `id`, else by
`tenant_id` and `environment`, else by `tenant_name` and `environment` (production); several tenants of one name are an error.
Missing ones are created, differing ones changed, equal ones left alone, and those that the file does not name are never touched.
Nothing is changed while anything in the file is wrong. An item that fails does not stop the others; an unreachable cluster does.
The exit code is that of the worst item. Interrupted, it is simply run again: nothing is done twice.";

const DIFF_HELP: &str = "\
Exit codes: 0 nothing differs, 1 something differs, 2 it cannot be told, whatever the reason: it is said.";

/// Makes deployments what a file says.
#[derive(Args)]
#[command(after_help = APPLY_HELP)]
pub(crate) struct Apply {
    /// File of deployments; `-` reads standard input
    #[arg(short, long, value_name = "FILE", required_unless_present = "example")]
    file: Option<PathBuf>,
    /// Write a file with every field, explained, and do nothing else
    #[arg(long)]
    example: bool,
    /// What happens to deployments that the file does not name: nothing, ever
    #[arg(long, value_enum, default_value_t)]
    prune: Prune,
    /// Why, for the audit
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    consent: Consent,
}

/// Shows what `dotmac apply` would change.
#[derive(Args)]
#[command(after_help = DIFF_HELP)]
pub(crate) struct Diff {
    /// File of deployments; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

/// What happens to deployments that a file does not name.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Prune {
    /// Nothing: only a person removes a deployment
    #[default]
    Never,
}

impl Apply {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Prune::Never = self.prune;
        let Some(file) = self.file.filter(|_| !self.example) else {
            return context.output.line(EXAMPLE.trim_end());
        };
        let items = read(&file)?;
        let client = context.client()?;
        let how = (self.patience, self.reason);
        let mut work = prepare(context, &client, (&file, items), how).await?;
        let is_same = work.foresee().await?;
        work.show_plan();
        if self.consent.dry_run {
            work.report()?;
            return if is_same {
                Err(Failure::Ended(8))
            } else {
                Ok(())
            };
        }
        if !is_same {
            self.consent.ask(None)?;
        }
        work.carry_out().await;
        work.report()?;
        work.result()
    }
}

impl Diff {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.compare(context).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::Ended(1)),
            Err(failure) => Err(untold(failure)),
        }
    }

    /// Whether nothing differs.
    async fn compare(self, context: &Context) -> Result<bool, Failure> {
        let items = read(&self.file)?;
        let client = context.client()?;
        let patience = Patience {
            wait: false,
            timeout: 0,
        };
        let mut work = prepare(context, &client, (&self.file, items), (patience, None)).await?;
        let is_same = work.foresee().await?;
        work.show_differences()?;
        Ok(is_same)
    }
}

/// Why a difference cannot be told, with the only exit code that says so: 1 would say that something differs.
fn untold(failure: Failure) -> Failure {
    match failure {
        Failure::Ended(_) => Failure::Ended(2),
        other => Failure::Usage(other.to_string()),
    }
}

async fn prepare<'a>(
    context: &'a Context,
    client: &'a Client,
    (file, items): (&Path, Vec<Item>),
    how: (Patience, Option<String>),
) -> Result<Work<'a>, Failure> {
    let name = name(file);
    for remark in items.iter().flat_map(|item| &item.remarks) {
        let (line, what) = (remark.line, &remark.what);
        context.output.note(&format!("{name}:{line}: {what}"));
    }
    let world = World::read(client).await?;
    let work = Work::new(context, client, (name, world, items), how);
    work.map_err(|faults| told(file, &faults))
}

/// A file's name for people.
fn name(file: &Path) -> String {
    if file == Path::new("-") {
        return "standard input".into();
    }
    file.display().to_string()
}

/// The deployments of a file.
fn read(file: &Path) -> Result<Vec<Item>, Failure> {
    let text = read_text(file)?;
    let documents = document::read(&text).map_err(|fault| told(file, &[fault]))?;
    item::read(&documents).map_err(|faults| told(file, &faults))
}

fn read_text(file: &Path) -> Result<String, Failure> {
    let is_standard = file == Path::new("-");
    let mut text = String::new();
    let read = if is_standard {
        io::stdin()
            .lock()
            .take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)
    } else {
        fs::File::open(file)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
    };
    let bytes = read.map_err(|cause| Failure::io("read", file, &cause))?;
    if u64::try_from(bytes).is_ok_and(|bytes| bytes <= FILE_BYTES_MAX) {
        return Ok(text);
    }
    let file = file.display();
    Err(Failure::Usage(format!(
        "{file} has more than {FILE_BYTES_MAX} bytes"
    )))
}

/// What is wrong with a file, a line each.
fn told(file: &Path, faults: &[Fault]) -> Failure {
    let file = name(file);
    let lines: Vec<String> = faults
        .iter()
        .map(|fault| format!("  {file}:{}: {}", fault.line, fault.what))
        .collect();
    Failure::Usage(format!(
        "the file is not right, and nothing was changed:\n{}",
        lines.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::{EXAMPLE, document, fields::FIELDS, item, untold};
    use crate::cli::failure::{Failure, Problem};

    #[test]
    fn a_difference_that_cannot_be_told_always_has_the_same_exit_code_and_a_reason() {
        let problem = |status| {
            Failure::of(Problem {
                status,
                ..Problem::default()
            })
        };
        let unreachable = Failure::Unreachable {
            servers: "http://a".into(),
            waited_ms: 1,
            cause: "connection refused".into(),
        };
        for failure in [problem(401), problem(404), problem(500), unreachable] {
            let said = failure.to_string();
            let untold = untold(failure);
            assert_eq!((untold.code(), untold.to_string()), (2, said));
        }
        for code in [1, 4, 7] {
            assert_eq!(untold(Failure::Ended(code)).code(), 2);
        }
    }

    #[test]
    fn the_example_is_right_and_explains_every_field() {
        // The variable that a reader would set.
        let text = EXAMPLE.replace("from_env: DEMO_DATABASE_URL", "from_env: PATH");
        let items = item::read(&document::read(&text).unwrap()).unwrap();
        assert!(items.len() >= 2);
        for field in &FIELDS {
            assert!(
                EXAMPLE.contains(&format!("{}:", field.name)),
                "{} is missing",
                field.name
            );
        }
    }
}
