//! `dotmac completion SHELL`: what makes a shell complete nouns, verbs, options and their values. It asks no controller.

use clap::{Args, ValueEnum};
use clap_complete::Shell as Generator;

use super::{failure::Failure, find::Context};

/// How to use what is printed.
const HOW: &str = "Where it goes:
  bash  dotmac completion bash > ~/.local/share/bash-completion/completions/dotmac
  zsh   dotmac completion zsh  > a directory in $fpath, as _dotmac
  fish  dotmac completion fish > ~/.config/fish/completions/dotmac.fish";

#[derive(Args)]
#[command(after_help = HOW)]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Shells that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// GNU Bash with bash-completion
    Bash,
    /// Z shell
    Zsh,
    /// Fish
    Fish,
}

impl Completion {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        context.output.text(&script(self.shell))
    }
}

/// The script for a shell.
fn script(shell: Shell) -> String {
    let generator = match shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut super::command(), "dotmac", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::{Shell, script};

    #[test]
    fn every_shell_gets_a_script_that_knows_every_noun_and_the_formats() {
        let command = crate::cli::command();
        let nouns: Vec<&str> = command
            .get_subcommands()
            .filter(|noun| !noun.is_hide_set())
            .map(clap::Command::get_name)
            .collect();
        assert!(nouns.len() > 10, "{nouns:?}");
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for word in nouns.iter().chain(&["yaml", "undelete", "context"]) {
                assert!(script.contains(word), "{shell:?} does not know {word}");
            }
        }
    }
}
