//! What the CLI writes: tables or JSON to standard output, remarks to standard error. Text from a server never
//! reaches a terminal with control characters in it.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde_json::Value;

use super::failure::Failure;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// As the API answered, for programs.
    Json,
}

/// Writes results and remarks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    /// Writes in this format.
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether programs read the result.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Whether somebody looks at the remarks as they come.
    pub(crate) fn is_watched(self) -> bool {
        io::stderr().is_terminal()
    }

    /// One line of the result.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        written(writeln!(io::stdout().lock(), "{text}"))
    }

    /// A JSON result.
    pub(crate) fn json(self, value: &Value) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(Failure::answer)?;
        self.line(&text)
    }

    /// The rows of a table; `empty` when there are none.
    pub(crate) fn table(
        self,
        header: &[&str],
        rows: Vec<Vec<String>>,
        empty: &str,
    ) -> Result<(), Failure> {
        if rows.is_empty() {
            return self.line(empty);
        }
        self.line(&render(header, rows))
    }

    /// A remark on the way; lost when nobody can read it.
    pub(crate) fn note(self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Text without control characters, so that nobody's name can move the cursor or hide a line.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|letter| !is_control(*letter)).collect()
}

/// Like [`clean`], for output of several lines: line ends and tabs stay.
pub(crate) fn clean_lines(text: &str) -> String {
    text.chars()
        .filter(|letter| matches!(letter, '\n' | '\t') || !is_control(*letter))
        .collect()
}

/// Milliseconds as people read them.
pub(crate) fn duration(millis: u64) -> String {
    match millis {
        0..10_000 => format!("{millis} ms"),
        10_000..120_000 => format!("{} s", millis / 1000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} days", millis / 86_400_000),
    }
}

/// Bytes as people read them.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", count / 1024),
        1_048_576..1_073_741_824 => format!("{} MiB", count / 1_048_576),
        _ => format!("{}.{} GiB", count >> 30, ((count % (1 << 30)) * 10) >> 30),
    }
}

/// A table as text.
fn render(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(
        header
            .iter()
            .map(|name| name.to_uppercase())
            .collect::<Vec<_>>(),
    );
    for row in rows {
        table.add_row(row.iter().map(|cell| clean_lines(cell)).collect::<Vec<_>>());
    }
    table.trim_fmt()
}

/// Control characters, and the marks that reorder text.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A reader that went away (`| head`) is no failure.
fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write the result: {cause}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, clean, clean_lines, duration, render};

    #[test]
    fn no_control_character_of_a_server_reaches_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\u{7}\r\n\u{9b}2J\u{202e}c"), "a[31mb2Jc");
        assert_eq!(clean_lines("a\tb\r\nc\u{1b}"), "a\tb\nc");
        let table = render(&["name"], vec![vec!["x\u{1b}[2Jy".into()]]);
        assert!(!table.contains('\u{1b}'), "{table:?}");
    }

    #[test]
    fn a_table_lines_up_its_columns() {
        let rows = vec![
            vec!["1".into(), "leader".into()],
            vec!["22".into(), "follower".into()],
        ];
        assert_eq!(
            render(&["id", "state"], rows),
            " ID  STATE\n 1   leader\n 22  follower"
        );
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(
            [bytes(0), bytes(2048), bytes(5 << 20), bytes(3 << 29)],
            ["0 B", "2 KiB", "5 MiB", "1.5 GiB"]
        );
        assert_eq!(
            [duration(9_999), duration(10_000), duration(180_000)],
            ["9999 ms", "10 s", "3 min"]
        );
    }
}
