//! `dotmac man`: the manual pages, made from what `--help` says, so that both say the same.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_mangen::Man as Page;
use dotmac_runtime::disk;

use super::{failure::Failure, find::Context};

#[derive(Args)]
pub(crate) struct Man {
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "words")]
    dir: Option<PathBuf>,
    /// The command whose page is printed, such as `deployments create` [default: dotmac itself]
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
}

impl Man {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let pages = pages()?;
        let Some(dir) = self.dir else {
            let name = [&["dotmac".to_owned()], self.words.as_slice()]
                .concat()
                .join("-");
            let page = pages.iter().find(|(page, _)| *page == name);
            let missing = || {
                Failure::Usage(format!(
                    "there is no command {}; `dotmac --help` lists them",
                    name.replace('-', " ")
                ))
            };
            return context.output.text(&page.ok_or_else(missing)?.1);
        };
        std::fs::create_dir_all(&dir).map_err(|cause| Failure::io("make", &dir, &cause))?;
        for (name, text) in &pages {
            let file = dir.join(format!("{name}.1"));
            disk::write_atomic(&file, text.as_bytes(), 0o644)
                .map_err(|cause| Failure::io("write", &file, &cause))?;
        }
        context.output.note(&format!(
            "{} pages in {}; read one with: man -l {}/dotmac.1",
            pages.len(),
            dir.display(),
            dir.display()
        ));
        Ok(())
    }
}

/// Names and texts of all pages.
fn pages() -> Result<Vec<(String, String)>, Failure> {
    let mut command = super::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, "dotmac".into(), &mut pages)?;
    Ok(pages)
}

fn collect(
    command: &Command,
    name: String,
    pages: &mut Vec<(String, String)>,
) -> Result<(), Failure> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        collect(sub, format!("{name}-{}", sub.get_name()), pages)?;
    }
    let mut text = Vec::new();
    let page = Page::new(command.clone())
        .title(name.to_uppercase())
        .manual("DotMac");
    page.render(&mut text)
        .map_err(|cause| Failure::Failed(format!("the page {name} cannot be written: {cause}")))?;
    pages.push((name, String::from_utf8_lossy(&text).into_owned()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::pages;

    /// Every command and option that people see, with the path to it.
    fn texts(command: &Command, path: &str, found: &mut Vec<(String, String)>) {
        let about = command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        found.push((path.to_owned(), about));
        for argument in command.get_arguments().filter(|one| !one.is_hide_set()) {
            let help = argument
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            found.push((format!("{path} {}", argument.get_id()), help));
            for value in argument.get_possible_values() {
                // What is a word of the domain says itself what it is.
                assert!(!value.get_name().is_empty(), "{path}");
            }
        }
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            texts(sub, &format!("{path} {}", sub.get_name()), found);
        }
    }

    #[test]
    fn every_command_and_option_says_what_it_is_for() {
        let mut found = Vec::new();
        texts(&crate::cli::command(), "dotmac", &mut found);
        assert!(found.len() > 60, "{}", found.len());
        let silent: Vec<_> = found
            .iter()
            .filter(|(_, help)| help.trim().len() < 8)
            .collect();
        assert!(silent.is_empty(), "{silent:?}");
    }

    #[test]
    fn every_command_has_a_page_with_a_synopsis_and_the_exit_codes_are_in_the_first() {
        let pages = pages().unwrap();
        let page = |name: &str| {
            pages
                .iter()
                .find(|(page, _)| page == name)
                .map(|(_, text)| text.as_str())
        };
        assert!(pages.len() > 25, "{}", pages.len());
        for (name, text) in &pages {
            assert!(
                text.contains(".SH SYNOPSIS") && text.contains(".SH NAME"),
                "{name}"
            );
        }
        assert!(
            page("dotmac")
                .unwrap()
                .contains("no such thing, or not yours")
        );
        assert!(
            page("dotmac-deployments-create")
                .unwrap()
                .contains("deployments create")
        );
        assert!(
            page("dotmac-local-supervise").is_none(),
            "hidden commands have no page"
        );
    }
}
