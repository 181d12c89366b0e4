//! Tables that fit where they are read. Columns stand in the order of their importance: where they do not fit, long
//! cells are cut, and then the last columns left out. The first column, the id, is never cut. Nothing is ever wrapped.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::text::clean_line;

/// Between two columns.
const GAP: &str = "  ";
/// Characters that a cut column keeps at least.
const CUT_CHARACTERS_MIN: usize = 16;
/// Headings of columns whose words have a colour.
const COLOURED: [&str; 4] = ["status", "state", "health", "result"];

/// A table as text without a line end, and the headings that had no room.
pub(super) struct Rendered {
    pub(super) text: String,
    pub(super) left_out: Vec<String>,
}

/// Writes a table; `characters_max` is the width of the terminal, if it is one.
pub(super) fn render(
    header: &[&str],
    rows: &[Vec<String>],
    characters_max: Option<usize>,
    has_colour: bool,
) -> Rendered {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| clean_line(cell)).collect())
        .collect();
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, name)| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.width())
                .max()
                .unwrap_or_default()
                .max(name.width())
        })
        .collect();
    let widths = characters_max.map_or_else(|| widths.clone(), |max| fit(&widths, max));
    let headings: Vec<String> = header.iter().map(|name| name.to_uppercase()).collect();
    let mut lines = vec![line(&headings, &widths, &|_, _| None)];
    let paint = |column: usize, cell: &str| {
        let is_coloured = has_colour && COLOURED.contains(&header[column]);
        colour(cell).filter(|_| is_coloured)
    };
    lines.extend(rows.iter().map(|row| line(row, &widths, &paint)));
    let left_out = header[widths.len()..]
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    let text = lines.join("\n");
    Rendered { text, left_out }
}

/// A text in lines of so many characters at most; only a word that is longer is not cut.
pub(super) fn wrapped(text: &str, characters_max: usize) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        if width > 0 && width + 1 + word.width() > characters_max {
            lines.push('\n');
            width = 0;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += word.width();
    }
    lines
}

/// A text of our own in the colour of a word that says how something is.
pub(super) fn painted(text: &str, word: &str, has_colour: bool) -> String {
    match colour(word).filter(|_| has_colour) {
        Some(colour) => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
        None => text.to_owned(),
    }
}

/// Widths of the columns that fit; those behind them are left out.
fn fit(widths: &[usize], characters_max: usize) -> Vec<usize> {
    for kept in (1..=widths.len()).rev() {
        let mut widths = widths[..kept].to_vec();
        let total =
            |widths: &[usize]| widths.iter().sum::<usize>() + GAP.len() * (widths.len() - 1);
        while total(&widths) > characters_max {
            let longest = widths.iter_mut().skip(1).max();
            match longest.filter(|width| **width > CUT_CHARACTERS_MIN) {
                Some(width) => *width -= 1,
                None => break,
            }
        }
        if total(&widths) <= characters_max || kept == 1 {
            return widths;
        }
    }
    Vec::new()
}

fn line(
    cells: &[String],
    widths: &[usize],
    paint: &dyn Fn(usize, &str) -> Option<&'static str>,
) -> String {
    let mut line = String::new();
    for (column, width) in widths.iter().enumerate() {
        let cell = cells.get(column).map_or("", String::as_str);
        let shown = cut(cell, *width);
        let padding = width.saturating_sub(shown.width());
        match paint(column, cell) {
            Some(colour) => line.push_str(&format!("\u{1b}[{colour}m{shown}\u{1b}[0m")),
            None => line.push_str(&shown),
        }
        if column + 1 < widths.len() {
            line.push_str(&" ".repeat(padding));
            line.push_str(GAP);
        }
    }
    line.trim_end().to_owned()
}

/// A cell in so many characters, its end replaced by a mark where it is longer.
fn cut(cell: &str, characters_max: usize) -> String {
    if cell.width() <= characters_max {
        return cell.to_owned();
    }
    let mut kept = String::new();
    let mut width = 1;
    for letter in cell.chars() {
        width += letter.width().unwrap_or_default();
        if width > characters_max {
            break;
        }
        kept.push(letter);
    }
    kept.push('…');
    kept
}

/// Terminal colours of the words that say how something is.
fn colour(word: &str) -> Option<&'static str> {
    match word {
        "active" | "healthy" | "connected" | "running" | "leader" | "follower" | "ok" => Some("32"),
        "provisioning" | "degraded" | "upgrading" | "rolling_back" | "suspended" | "destroying"
        | "pending" | "ending" | "warn" => Some("33"),
        "failed" | "unhealthy" | "disconnected" | "unreachable" | "gone" | "revoked" | "fail" => {
            Some("31")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr as _;

    use super::{cut, fit, render, wrapped};

    #[test]
    fn a_remark_is_no_wider_than_the_terminal() {
        let remark = "no room for tier, domain, age, name: -o json shows everything";
        let expected = "no room for tier, domain, age, name: -o\njson shows everything";
        assert_eq!(wrapped(remark, 40), expected);
        assert_eq!(wrapped(remark, 80), remark);
        assert_eq!(wrapped("incompressible x", 4), "incompressible\nx");
    }

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        vec![
            row([
                "demo-isp-0190a1b2",
                "active",
                "A very long name of an internet service provider",
                "do-fra1",
            ]),
            row(["x-1", "failed", "", "byov-lagos"]),
        ]
    }

    const HEADER: [&str; 4] = ["id", "status", "name", "region"];

    #[test]
    fn a_piped_table_has_every_column_whole_and_no_colour() {
        let table = render(&HEADER, &rows(), None, false);
        let expected = "ID                 STATUS  NAME                                            REGION\n\
            demo-isp-0190a1b2  active  A very long name of an internet service provider  do-fra1\n\
            x-1                failed                                                    byov-lagos";
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeeze(&table.text), squeeze(expected));
        assert!(table.left_out.is_empty() && !table.text.contains('\u{1b}'));
    }

    #[test]
    fn a_terminal_gets_no_line_longer_than_it_is_wide_and_always_the_whole_id() {
        for width in 17..120 {
            let table = render(&HEADER, &rows(), Some(width), false);
            for line in table.text.lines() {
                assert!(line.width() <= width, "{width}: {line}");
            }
            assert!(table.text.contains("demo-isp-0190a1b2"), "{width}");
            assert_eq!(table.text.lines().count(), 3);
        }
        let narrow = render(&HEADER, &rows(), Some(40), false);
        assert_eq!(narrow.left_out, ["name", "region"]);
    }

    #[test]
    fn long_cells_are_cut_before_a_column_is_left_out() {
        assert_eq!(fit(&[17, 6, 48, 10], 100), [17, 6, 48, 10]);
        assert_eq!(fit(&[17, 6, 48, 10], 60), [17, 6, 21, 10]);
        assert_eq!(fit(&[17, 6, 48, 10], 50), [17, 6, 23]);
        assert_eq!(fit(&[40, 6], 10), [40]);
        assert_eq!(cut("日本語です", 5), "日本…");
    }

    #[test]
    fn a_cell_of_many_lines_is_one_line_cut_on_a_terminal_and_whole_elsewhere() {
        let detail = "a line of output\n".repeat(53);
        let rows = vec![vec!["demo-isp".to_owned(), detail]];
        let shown = |width| render(&["id", "detail"], &rows, width, false).text;
        let piped = shown(None);
        let cell = vec!["a line of output"; 53].join(" | ");
        assert!(piped.ends_with(&format!("demo-isp  {cell}")), "{piped}");
        let terminal = shown(Some(80));
        let row = terminal.lines().nth(1).unwrap();
        assert_eq!((terminal.lines().count(), row.width()), (2, 80), "{row}");
        assert!(row.ends_with('…'), "{row}");
    }

    #[test]
    fn colour_is_ours_and_nobody_elses() {
        let rows = vec![vec![
            "\u{1b}[2Jx\n\u{1b}]0;y\u{7}".to_owned(),
            "active".to_owned(),
        ]];
        let table = render(&["id", "status"], &rows, Some(80), true);
        assert_eq!(table.text.matches('\u{1b}').count(), 2);
        assert!(table.text.contains("\u{1b}[32mactive\u{1b}[0m"));
        assert_eq!(table.text.lines().count(), 2);
    }
}
