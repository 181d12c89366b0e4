//! Our own Markdown pages as a terminal shows them: headings and lists as they are, without the marks of code.

/// A page without fences and backticks, code indented.
pub(super) fn plain(page: &str) -> String {
    let mut lines = Vec::new();
    let mut is_code = false;
    for line in page.trim_end().lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if is_code {
            lines.push(format!("    {line}"));
        } else {
            let heading = line.trim_start_matches('#');
            let text = if heading.len() < line.len() {
                heading.trim_start()
            } else {
                line
            };
            lines.push(text.replace('`', ""));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::plain;
    use crate::error_pages;

    #[test]
    fn a_page_reads_as_text() {
        assert_eq!(
            plain("# a\n\nSee `b`.\n\n```sh\ndotmac `c`\n```\n"),
            "a\n\nSee b.\n\n    dotmac `c`"
        );
        for code in error_pages::codes() {
            let text = plain(error_pages::page(code).unwrap());
            assert!(
                text.starts_with(code) && !text.contains("```") && !text.contains("\n#"),
                "{code}"
            );
        }
    }
}
