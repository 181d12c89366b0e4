//! What the address of a request may look like before anything is looked up by it: one way to write each path, so that
//! whatever stands in front of the API and the API itself never read two different ones, and no token in it.

use std::borrow::Cow;

use axum::http::Uri;

use super::problem::{NO_SUCH_PATH, Problem, TOKEN_IN_QUERY};

/// How the text of an access token begins.
const TOKEN_START: &str = "dotmac_pat_";
/// Bytes of a path that logs show at most; the longest of ours has less than half.
const LOGGED_BYTES_MAX: usize = 512;
/// Parameters in which people try to pass a token.
const TOKEN_PARAMETERS: [&str; 6] = [
    "access_token",
    "api_key",
    "apikey",
    "authorization",
    "bearer",
    "token",
];

/// Checks an address; what it says goes on unchanged.
///
/// # Errors
/// Whoever passes a token in it is told to replace it; what can be read in two ways leads nowhere.
pub(super) fn check(uri: &Uri) -> Result<(), Problem> {
    let query = uri.query().unwrap_or_default();
    for pair in query.split('&') {
        let name = pair.split('=').next().unwrap_or(pair);
        let name = decode(name).unwrap_or_default().to_ascii_lowercase();
        if let Some(name) = TOKEN_PARAMETERS.iter().find(|known| **known == name) {
            let detail = format!("the address has a parameter {name}");
            return Err(Problem::new(&TOKEN_IN_QUERY, detail));
        }
    }
    if has_token(uri) {
        return Err(Problem::new(
            &TOKEN_IN_QUERY,
            "there is a token in the address",
        ));
    }
    if uri.path().strip_prefix('/').is_some_and(is_plain) || uri.path() == "*" {
        return Ok(());
    }
    Err(Problem::new(&NO_SUCH_PATH, "the address cannot be read"))
}

/// What logs may say of an address: its path, cut off at [`LOGGED_BYTES_MAX`], and nothing if somebody put a token into it.
pub(super) fn for_logs(uri: &Uri) -> &str {
    if has_token(uri) {
        "(withheld)"
    } else {
        let path = uri.path();
        let mut end = path.len().min(LOGGED_BYTES_MAX);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        &path[..end]
    }
}

/// Whether there is an access token anywhere in it.
fn has_token(uri: &Uri) -> bool {
    let text = uri.path_and_query().map_or("", |text| text.as_str());
    let holds = |text: &str| text.to_ascii_lowercase().contains(TOKEN_START);
    holds(text) || decode(text).is_some_and(|text| holds(&text))
}

/// Whether each part of a path is a name and nothing else; without the first slash.
fn is_plain(path: &str) -> bool {
    path.is_empty() || path.split('/').all(is_name)
}

fn is_name(part: &str) -> bool {
    let is_strange = |letter: char| letter.is_control() || matches!(letter, '/' | '\\' | ';');
    decode(part)
        .is_some_and(|name| !matches!(&*name, "" | "." | "..") && !name.contains(is_strange))
}

/// What percent-encoding stands for; `None` if it is broken or no UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut pieces = text.split('%');
    bytes.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).ok()?;
        bytes.extend_from_slice(&byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::{check, for_logs};

    fn status(address: &str) -> Option<u16> {
        use axum::response::IntoResponse as _;
        let problem = check(&address.parse().unwrap()).err()?;
        Some(problem.into_response().status().as_u16())
    }

    #[test]
    fn plain_addresses_pass() {
        for address in [
            "/",
            "/api/v1/x/demo-isp_1.2~a:b@c",
            "/a%20b/caf%C3%A9?q=%00&token_id=1&x=a/../b;c",
            "/a?tokens=1",
        ] {
            assert_eq!(status(address), None, "{address}");
        }
    }

    #[test]
    fn logs_know_a_path_without_its_query() {
        assert_eq!(for_logs(&"/a/b%20c?d=secret".parse().unwrap()), "/a/b%20c");
    }

    #[test]
    fn what_can_be_read_in_two_ways_leads_nowhere() {
        for path in [
            "//",
            "/a//b",
            "/a/",
            "/a/./b",
            "/a/../b",
            "/a/%2e%2E/b",
            "/%2e/b",
            "/a%2fb",
            "/a%5Cb",
            "/a%00",
            "/a%0d%0ab",
            "/a%1b[2J",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/a%ff",
            "/a%c0%ae%c0%ae/b",
            "/a%c0%af",
            "/a;x=1",
            "/a%3bx",
            "/a%c2%85",
        ] {
            assert_eq!(status(path), Some(404), "{path}");
        }
    }

    #[test]
    fn a_token_anywhere_in_the_address_is_refused_and_known_to_be_there() {
        for address in [
            "/a?access_token=x",
            "/a?b=c&ToKeN=x",
            "/a?%74oken=x",
            "/a?authorization",
        ] {
            assert_eq!(status(address), Some(401), "{address}");
        }
        for address in [
            "/a?x=dotmac_pat_0123",
            "/dotmac_pat_0123/b",
            "/a?x=DOTMAC%5fpat%5F0123",
        ] {
            assert_eq!(status(address), Some(401), "{address}");
            assert_eq!(
                for_logs(&address.parse().unwrap()),
                "(withheld)",
                "{address}"
            );
        }
    }
}
