//! Whether somebody agrees to a plan. Only a person at a terminal is asked; a script has agreed by calling.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use clap::Args;

use crate::cli::failure::Failure;

/// What somebody is told who said no.
pub(crate) const DECLINED: &str = "nothing was changed";
/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: u64 = 1024;

/// How a change is agreed to.
#[derive(Args, Debug, Clone, Copy, Default)]
pub(crate) struct Consent {
    /// Do not ask before the change
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Show what would change, and change nothing (exit code 8 when nothing would)
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Consent {
    /// Asks, if somebody is there to answer. `typed` has to be typed word by word.
    ///
    /// # Errors
    /// When the answer is no.
    pub(crate) fn ask(self, typed: Option<&str>) -> Result<(), Failure> {
        if self.yes || !is_somebody_there() {
            return Ok(());
        }
        let question = match typed {
            Some(name) => format!("Type {name} to go on: "),
            None => "Go on? [y/N] ".to_owned(),
        };
        let mut terminal = io::stderr().lock();
        let asked = write!(terminal, "{question}").and_then(|()| terminal.flush());
        let mut answer = String::new();
        let read = asked.and_then(|()| {
            let mut input = io::stdin().lock().take(ANSWER_BYTES_MAX);
            input.read_line(&mut answer)
        });
        read.map_err(|cause| Failure::Failed(format!("the terminal cannot be read: {cause}")))?;
        if is_yes(&answer, typed) {
            return Ok(());
        }
        Err(Failure::Failed(DECLINED.into()))
    }
}

/// Whether remarks may be coloured: somebody looks at them and did not forbid it.
pub(super) fn is_coloured() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|kind| kind == "dumb");
    io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

fn is_somebody_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn is_yes(answer: &str, typed: Option<&str>) -> bool {
    let answer = answer.trim();
    match typed {
        Some(name) => answer == name,
        None => answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes"),
    }
}

#[cfg(test)]
mod tests {
    use super::is_yes;

    #[test]
    fn only_a_clear_yes_is_one() {
        assert!(is_yes("y\n", None) && is_yes(" YES \n", None));
        assert!(!is_yes("", None) && !is_yes("\n", None) && !is_yes("yeah\n", None));
    }

    #[test]
    fn what_has_to_be_typed_is_typed_in_full() {
        assert!(is_yes("demo-isp-0190a1b2\n", Some("demo-isp-0190a1b2")));
        for wrong in ["y", "demo-isp", "", "DEMO-ISP-0190A1B2"] {
            assert!(!is_yes(wrong, Some("demo-isp-0190a1b2")), "{wrong}");
        }
    }
}
