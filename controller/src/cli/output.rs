//! What the CLI writes: tables, JSON, YAML or ids to standard output, remarks to standard error. Text from a server
//! never reaches a terminal with control characters in it, and colour goes to terminals only.

mod table;
mod text;

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde_json::Value;

use super::failure::Failure;

pub(crate) use text::{bytes, clean, clean_line, clean_lines, duration};

/// Characters of a line on a terminal that does not say how wide it is.
const CHARACTERS_DEFAULT: usize = 80;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people, as wide as the terminal
    #[default]
    Table,
    /// As the API answered, for programs
    Json,
    /// The same as YAML
    Yaml,
    /// Ids only, one a line
    Name,
}

/// Writes results and remarks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    has_colour: bool,
    /// Characters of a line; none where no terminal reads the result.
    width: Option<usize>,
}

impl Output {
    /// Writes in this format to whatever is no terminal: whole tables without colour.
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            has_colour: false,
            width: None,
        }
    }

    /// Writes in this format to this process's standard output. Colour also needs that neither `--no-color` nor the
    /// variable NO_COLOR (of any value but none) forbids it.
    pub(crate) fn of_process(format: Format, no_color: bool) -> Self {
        let out = io::stdout();
        let is_terminal = out.is_terminal();
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let is_dumb = set("TERM").is_some_and(|terminal| terminal == "dumb");
        let width = || {
            let size = terminal_size::terminal_size_of(&out);
            size.map_or(CHARACTERS_DEFAULT, |(width, _)| usize::from(width.0).max(1))
        };
        Self {
            format,
            has_colour: is_terminal && !no_color && !is_dumb && set("NO_COLOR").is_none(),
            width: is_terminal.then(width),
        }
    }

    /// Whether programs read the result: it is then written with [`Output::data`].
    pub(crate) fn is_data(self) -> bool {
        self.format != Format::Table
    }

    /// Whether only ids are wanted.
    pub(crate) fn is_names(self) -> bool {
        self.format == Format::Name
    }

    /// Whether somebody looks at the remarks as they come.
    pub(crate) fn is_watched(self) -> bool {
        io::stderr().is_terminal()
    }

    /// Lines of the result, for people.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        write_line(&clean_lines(text))
    }

    /// A line that begins with how something is (`ok`, `warn`, `fail`), in its colour.
    pub(crate) fn verdict(self, word: &str, text: &str) -> Result<(), Failure> {
        let painted = table::painted(&format!("{word:<4}"), word, self.has_colour);
        write_line(&format!("{painted}  {}", clean_lines(text)))
    }

    /// A text of our own as it is, such as a script.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        write_line(text.trim_end())
    }

    /// A result for programs, in the form they asked for. Without such a wish it is JSON.
    pub(crate) fn data(self, value: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Yaml => write_line(&text::yaml(value)),
            Format::Name => text::ids(value).iter().try_for_each(|id| write_line(id)),
            Format::Json | Format::Table => write_line(&text::json(value)),
        }
    }

    /// One of many results that come one after the other: JSON in a line of its own.
    pub(crate) fn record(self, value: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Json | Format::Table => write_line(&text::json_line(value)),
            Format::Yaml => write_line(&format!("---\n{}", text::yaml(value))),
            Format::Name => self.data(value),
        }
    }

    /// Whether a terminal reads the result.
    pub(crate) fn is_terminal(self) -> bool {
        self.width.is_some()
    }

    /// The rows of a table, the most important columns first and the id in the first one; `empty` when there are none.
    pub(crate) fn table(
        self,
        header: &[&str],
        rows: Vec<Vec<String>>,
        empty: &str,
    ) -> Result<(), Failure> {
        if rows.is_empty() {
            return self.line(empty);
        }
        let table = table::render(header, &rows, self.width, self.has_colour);
        write_line(&table.text)?;
        if !table.left_out.is_empty() {
            let columns = table.left_out.join(", ");
            let remark = format!("no room for {columns}: -o json shows everything");
            self.note(&table::wrapped(
                &remark,
                self.width.unwrap_or(CHARACTERS_DEFAULT),
            ));
        }
        Ok(())
    }

    /// A remark on the way; lost when nobody can read it.
    pub(crate) fn note(self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", clean_lines(text));
    }
}

/// A reader that went away (`| head`) is no failure.
fn write_line(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write the result: {cause}")))
        }
        _ => Ok(()),
    }
}
