//! What of a followed output was shown already, so that a stream that goes on through another controller repeats as
//! little as can be told. It keeps digests, never text, and asks nobody.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hasher as _},
};

/// Lines remembered of each copy at most, and lines of the past that are asked for once more.
pub(super) const LINES_MAX: usize = 1_000;
/// Copies whose lines are told apart at most.
const COPIES_MAX: usize = 256;

/// The last lines that were shown, copy by copy: the order is certain only within one.
#[derive(Debug, Default)]
pub(super) struct Seen {
    copies: BTreeMap<String, Copy>,
}

/// The end of what one copy wrote.
#[derive(Debug, Default)]
struct Copy {
    lines: VecDeque<u64>,
    /// Of a line whose end has not come yet.
    begun: DefaultHasher,
}

/// What of a past that was told once more is new.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    /// Lines that were not shown yet.
    pub(super) text: String,
    /// Whether it is certain that nothing is repeated and nothing is missing.
    pub(super) is_certain: bool,
}

impl Seen {
    /// Whether nothing was shown so far.
    pub(super) fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// Remembers what is shown.
    pub(super) fn note(&mut self, text: &str) {
        for line in text.split_inclusive('\n') {
            let (copy, written) = split(line);
            let known = self.copies.len() < COPIES_MAX || self.copies.contains_key(copy);
            let copy = if known { copy } else { "" };
            let copy = self.copies.entry(copy.to_owned()).or_default();
            copy.begun.write(written.trim_end_matches('\n').as_bytes());
            if line.ends_with('\n') {
                copy.lines
                    .push_back(std::mem::take(&mut copy.begun).finish());
                if copy.lines.len() > LINES_MAX {
                    copy.lines.pop_front();
                }
            }
        }
    }

    /// The lines of a past that come after those that were shown. A line that was shown in part comes whole once more.
    pub(super) fn news(&mut self, past: &str) -> News {
        for copy in self.copies.values_mut() {
            copy.begun = DefaultHasher::new();
        }
        let mut told: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in past.split_inclusive('\n') {
            told.entry(split(line).0).or_default().push(line);
        }
        let (mut text, mut is_certain) = (String::new(), true);
        for (name, lines) in told {
            // What was not there before is new.
            let Some(copy) = self.copies.get(name) else {
                text.extend(lines);
                continue;
            };
            let digests: Vec<u64> = lines.iter().map(|line| digest(split(line).1)).collect();
            let shown: Vec<u64> = copy.lines.iter().copied().collect();
            let (known, is_sure) = known(&shown, &digests);
            is_certain &= is_sure;
            text.extend(lines[known..].iter().copied());
        }
        News { text, is_certain }
    }
}

/// The copy that wrote a line, where several do (`web.0 | text`), and what it wrote.
fn split(line: &str) -> (&str, &str) {
    let is_copy = |name: &str| {
        let number = name.rsplit_once('.').map(|(_, number)| number);
        !name.contains(' ') && number.is_some_and(|number| number.parse::<u16>().is_ok())
    };
    match line.split_once(" | ") {
        Some((name, written)) if is_copy(name) => (name, written),
        _ => ("", line),
    }
}

fn digest(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(line.trim_end_matches('\n').as_bytes());
    hasher.finish()
}

/// How many of the `told` lines were shown, and whether only that is possible: the last shown lines are looked for in
/// them, as many as there are. Where lines are so alike that several places fit, the last one counts.
fn known(shown: &[u64], told: &[u64]) -> (usize, bool) {
    let common = |end: usize| {
        let pairs = shown.iter().rev().zip(told[..end].iter().rev());
        pairs.take_while(|(left, right)| left == right).count()
    };
    let fits = |end: &usize| *end > 0 && common(*end) == shown.len().min(*end);
    let best = (0..=told.len()).filter(fits).map(common).max();
    let Some(best) = best else {
        return (0, shown.is_empty() && told.is_empty());
    };
    let mut places = (0..=told.len()).filter(|end| fits(end) && common(*end) == best);
    let last = places.next_back().unwrap_or_default();
    (last, places.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::{News, Seen};

    fn after(shown: &str, past: &str) -> News {
        let mut seen = Seen::default();
        seen.note(shown);
        seen.news(past)
    }

    fn news(text: &str, is_certain: bool) -> News {
        let text = text.to_owned();
        News { text, is_certain }
    }

    #[test]
    fn what_was_shown_is_not_shown_again_and_what_came_meanwhile_is() {
        assert_eq!(after("b\nc\n", "a\nb\nc\nd\n"), news("d\n", true));
        assert_eq!(after("a\nb\nc\n", "b\nc\n"), news("", true));
        assert_eq!(after("b\nc", "a\nb\nc\n"), news("c\n", true));
        // The line came in two pieces.
        let mut seen = Seen::default();
        seen.note("a\nb");
        seen.note("c\n");
        assert_eq!(seen.news("a\nbc\nd\n"), news("d\n", true));
    }

    #[test]
    fn copies_are_told_apart_because_their_order_may_differ() {
        let past = "web.0 | a\nweb.0 | b\nweb.1 | a\nweb.1 | c\nweb.2 | d\n";
        let expected = news("web.0 | b\nweb.1 | c\nweb.2 | d\n", true);
        assert_eq!(after("web.1 | a\nweb.0 | a\n", past), expected);
    }

    #[test]
    fn what_cannot_be_told_is_said() {
        assert_eq!(after("a\n", "b\nc\n"), news("b\nc\n", false));
        assert_eq!(after("x\nx\n", "x\nx\nx\n"), news("", false));
    }
}
