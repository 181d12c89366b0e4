//! The pages about errors (`docs/errors/CODE.md`), inside of the programs: the API serves them, the CLI prints them, and
//! neither needs the network for it.

macro_rules! pages {
    ($($code:literal)*) => {
        /// Codes and pages.
        const PAGES: &[(&str, &str)] =
            &[$(($code, include_str!(concat!("../../docs/errors/", $code, ".md")))),*];
    };
}

pages! {
    "agent-disconnected" "already-exists" "attestations" "backup-target" "body-timed-out" "budget-exhausted"
    "domain-in-use" "forbidden" "head-timed-out" "head-too-large" "idempotency-key-reused" "internal" "invalid" "join-token-refused"
    "limit-reached" "malformed" "method-not-allowed" "no-agent" "no-such-path" "not-found" "not-founded"
    "out-of-order" "overloaded" "precondition-failed" "rate-limited" "refused-by-peer" "storage" "timed-out"
    "token-ended" "token-in-query" "too-large" "unauthenticated" "unavailable" "unknown-release"
    "unsupported-media-type" "wrong-state"
}

/// The page about an error, in Markdown.
pub(crate) fn page(code: &str) -> Option<&'static str> {
    PAGES
        .iter()
        .find(|(one, _)| *one == code)
        .map(|(_, page)| *page)
}

/// Every code that has a page.
pub(crate) fn codes() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|(code, _)| *code)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{PAGES, codes};

    #[test]
    fn every_page_of_the_folder_is_inside() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(files, codes().map(|code| format!("{code}.md")).collect());
    }

    #[test]
    fn every_page_says_why_shows_an_answer_and_says_what_to_do() {
        for (code, page) in PAGES {
            assert!(page.starts_with(&format!("# {code}\n")), "{code}");
            for heading in ["## Why it happens\n", "## Example\n", "## What to do\n"] {
                assert!(page.contains(heading), "{code} lacks {heading}");
            }
            assert!(page.lines().count() < 60, "{code} is long");
        }
    }
}
