//! The little Markdown that our own pages use, as HTML: headings, paragraphs, lists, code, emphasis, links. Everything
//! is escaped; there is no way through for HTML.

/// Text as HTML shows it.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A page.
pub(super) fn to_html(text: &str) -> String {
    let mut html = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(heading) = heading(line) {
            html.push_str(&heading);
        } else if line.starts_with("```") {
            let code: Vec<&str> = lines
                .by_ref()
                .take_while(|line| !line.starts_with("```"))
                .collect();
            html.push_str(&code_block(&code));
        } else if is_code(line) {
            let mut code = vec![&line[4..]];
            while let Some(next) = lines.next_if(|next| is_code(next)) {
                code.push(&next[4..]);
            }
            html.push_str(&code_block(&code));
        } else if let Some((tag, _)) = item(line) {
            let mut items = Vec::new();
            let mut next = Some(line);
            while let Some(line) = next {
                let mut text = item(line).map_or(line, |(_, text)| text).to_owned();
                while let Some(more) =
                    lines.next_if(|more| more.starts_with("  ") && !more.trim().is_empty())
                {
                    text.push(' ');
                    text.push_str(more.trim());
                }
                items.push(format!("<li>{}</li>", inline(&text)));
                next = lines.next_if(|line| item(line).is_some_and(|(other, _)| other == tag));
            }
            html.push_str(&format!("<{tag}>{}</{tag}>\n", items.concat()));
        } else if !line.trim().is_empty() {
            let mut text = line.to_owned();
            while let Some(next) = lines.next_if(|next| continues(next)) {
                text.push(' ');
                text.push_str(next.trim());
            }
            html.push_str(&format!("<p>{}</p>\n", inline(&text)));
        }
    }
    html
}

fn heading(line: &str) -> Option<String> {
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    let text = text
        .strip_prefix(' ')
        .filter(|_| (1..=4).contains(&level))?;
    Some(format!("<h{level}>{}</h{level}>\n", inline(text)))
}

fn is_code(line: &str) -> bool {
    line.starts_with("    ") && !line.trim().is_empty()
}

fn item(line: &str) -> Option<(&'static str, &str)> {
    if let Some(text) = line.strip_prefix("- ").or_else(|| line.strip_prefix("* ")) {
        return Some(("ul", text));
    }
    let (number, text) = line.split_once(". ")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(("ol", text))
}

/// Whether a line goes on with the paragraph before it.
fn continues(line: &str) -> bool {
    !line.trim().is_empty()
        && heading(line).is_none()
        && item(line).is_none()
        && !line.starts_with("```")
}

fn code_block(lines: &[&str]) -> String {
    format!("<pre><code>{}</code></pre>\n", escape(&lines.join("\n")))
}

/// `code`, **strong** and [links](to) within a line; the rest as it stands.
pub(super) fn inline(text: &str) -> String {
    let mut html = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        html.push_str(&escape(&rest[..at]));
        rest = &rest[at..];
        let (made, taken) = marked(rest).unwrap_or_else(|| (escape(&rest[..1]), 1));
        html.push_str(&made);
        rest = &rest[taken..];
    }
    html.push_str(&escape(rest));
    html
}

/// What begins here, and how many bytes it takes.
fn marked(text: &str) -> Option<(String, usize)> {
    if let Some(code) = text.strip_prefix('`') {
        let end = code.find('`')?;
        return Some((format!("<code>{}</code>", escape(&code[..end])), end + 2));
    }
    if let Some(strong) = text.strip_prefix("**") {
        let end = strong.find("**")?;
        return Some((
            format!("<strong>{}</strong>", escape(&strong[..end])),
            end + 4,
        ));
    }
    let (label, link) = text.strip_prefix('[')?.split_once("](")?;
    let end = link.find(')')?;
    let to = &link[..end];
    let is_safe = ["/", "#", "https://", "http://"]
        .iter()
        .any(|start| to.starts_with(start));
    let taken = label.len() + end + 4;
    let label = escape(label);
    let made = if is_safe {
        format!("<a href=\"{}\">{label}</a>", escape(to))
    } else {
        label
    };
    Some((made, taken))
}

#[cfg(test)]
mod tests {
    use super::{inline, to_html};

    #[test]
    fn a_page_becomes_html() {
        let text = "# A *title*\n\nOne\ntwo `a<b` and **so**.\n\n- first\n  goes on\n- second\n\n1. one\n\n    dotmac x\n\n```sh\n<&>\n```\n";
        let html = "<h1>A *title*</h1>\n<p>One two <code>a&lt;b</code> and <strong>so</strong>.</p>\n\
                    <ul><li>first goes on</li><li>second</li></ul>\n<ol><li>one</li></ol>\n\
                    <pre><code>dotmac x</code></pre>\n<pre><code>&lt;&amp;&gt;</code></pre>\n";
        assert_eq!(to_html(text), html);
    }

    #[test]
    fn nothing_gets_through_as_html() {
        assert_eq!(inline("<script>'x'"), "&lt;script&gt;&#39;x&#39;");
        assert_eq!(inline("[a](/b)"), "<a href=\"/b\">a</a>");
        assert_eq!(inline("[a](javascript:x)"), "a");
        assert_eq!(inline("`open [ and ** é"), "`open [ and ** é");
    }
}
