//! `make down`: ends everything that runs, instances too, and says so count by count. With `--purge` it then lists
//! what it would delete, with sizes, and deletes it only when somebody at a terminal says yes.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    path::Path,
};

use super::{
    alive::{Alive, Ended, end_all},
    layout::Layout,
    up::{end_supervisor, told},
};
use crate::cli::{CliContext, failure::Failure, output::bytes};

/// Milliseconds for a supervisor to stop everything it looks after.
const SUPERVISOR_PATIENCE_MS: u64 = 60_000;

/// Stops the fleet, and deletes its data if that is asked for.
pub(crate) async fn run(context: &CliContext, purge: bool, yes: bool) -> Result<(), Failure> {
    let layout = context.home_or_new();
    if !layout.home().is_dir() {
        return context
            .output
            .line(&format!("there is no fleet in {}", layout.home().display()));
    }
    if layout.exists() {
        // Data of a newer version may have other ways to run; this program keeps its hands off.
        layout.settings()?;
    }
    if Alive::look(&layout).is_nothing() {
        context.output.line("nothing runs")?;
    } else {
        let ended = stop(context, &layout).await;
        told(context, ended)?;
    }
    if purge {
        delete(context, &layout, yes)
    } else {
        Ok(())
    }
}

/// Stops everything, whoever supervises it, and counts.
pub(super) async fn stop(context: &CliContext, layout: &Layout) -> Ended {
    let before = Alive::look(layout);
    context
        .output
        .note(&format!("stopping {}", before.describe()));
    end_supervisor(layout, SUPERVISOR_PATIENCE_MS).await;
    // What the supervisor did not stop, because it was killed or there was none.
    let rest = end_all(layout, |line| context.output.note(line)).await;
    Ended {
        controllers: before.controllers.len().max(rest.controllers),
        agents: before.agents.len().max(rest.agents),
        instances: before.slots.len().max(rest.instances),
        ..rest
    }
}

fn delete(context: &CliContext, layout: &Layout, yes: bool) -> Result<(), Failure> {
    let home = layout.home();
    let known = Layout::entries();
    let known: Vec<_> = known
        .iter()
        .map(|name| home.join(name))
        .filter(|path| path.exists())
        .collect();
    if known.is_empty() {
        return context.output.line(&format!(
            "there is nothing of a fleet in {}",
            home.display()
        ));
    }
    context
        .output
        .line(&format!("to be deleted in {}:", home.display()))?;
    for path in &known {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        context
            .output
            .line(&format!("  {:>10}  {name}", bytes(size(path))))?;
    }
    if !yes && !confirmed(context)? {
        return context.output.line("nothing was deleted");
    }
    for path in &known {
        let deleted = if path.is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        };
        deleted.map_err(|cause| Failure::io("delete", path, &cause))?;
    }
    match std::fs::remove_dir(home) {
        Ok(()) => context.output.line(&format!("deleted {}", home.display())),
        Err(_) => context.output.line(&format!(
            "deleted; {} holds other files and stays",
            home.display()
        )),
    }
}

/// Only somebody who can see the question can answer it.
fn confirmed(context: &CliContext) -> Result<bool, Failure> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Failure::Usage(
            "there is no terminal to ask at: add --yes to delete it".into(),
        ));
    }
    let mut out = std::io::stdout();
    let asked = write!(out, "Delete all of it? Type yes: ").and_then(|()| out.flush());
    asked.map_err(|cause| Failure::Failed(format!("cannot ask: {cause}")))?;
    let mut answer = String::new();
    input
        .lock()
        .read_line(&mut answer)
        .map_err(|cause| Failure::Failed(format!("cannot read: {cause}")))?;
    if answer.is_empty() {
        context.output.line("")?;
    }
    Ok(answer.trim() == "yes")
}

/// Bytes of a file, or of everything in a directory; links count nothing.
fn size(path: &Path) -> u64 {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return 0;
    };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn the_size_of_a_directory_is_that_of_its_files() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("a")).unwrap();
        std::fs::write(directory.path().join("a/b"), [0; 300]).unwrap();
        std::fs::write(directory.path().join("c"), [0; 5]).unwrap();
        std::os::unix::fs::symlink("/usr", directory.path().join("d")).unwrap();
        assert_eq!(size(directory.path()), 305 + 4);
    }
}
