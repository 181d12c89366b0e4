//! What the head of a request must look like before anything else reads it. It is stricter than the standard wherever
//! two readers could understand a head differently: what has two meanings is refused, never guessed at.

use crate::api::problem::{HEAD_TOO_LARGE, Kind, MALFORMED, METHOD_NOT_ALLOWED};

/// Bytes of a request's head at most, with the empty line that ends it.
pub(super) const HEAD_MAX: usize = 64 * 1024;
/// Headers of a request at most.
pub(super) const HEADERS_MAX: usize = 64;
/// Bytes of a request's address at most.
const TARGET_MAX: usize = 8 * 1024;
/// Digits of a Content-Length at most: no number of so many overflows.
const LENGTH_DIGITS_MAX: usize = 18;

/// Why a head is not read, without a word of what it says.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Refusal {
    /// Which problem the client is told.
    pub(in crate::api) kind: &'static Kind,
    /// What is wrong.
    pub(in crate::api) detail: &'static str,
}

/// What comes after a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// A body of so many bytes; 0 when there is none.
    Bytes(u64),
    /// A body in chunks.
    Chunked,
}

/// Checks a whole head: every line ends with CR LF, and the last one is empty.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn check(head: &[u8]) -> Result<Length, Refusal> {
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty());
    let Some(first) = lines.next() else {
        return malformed("the request line is missing");
    };
    let is_1_1 = check_request_line(first)?;
    let mut framing = FramingHeaders::default();
    for (count, line) in lines.enumerate() {
        if count == HEADERS_MAX {
            let detail = "a request has at most 64 headers";
            return Err(refusal(&HEAD_TOO_LARGE, detail));
        }
        let (name, value) = split_header(line)?;
        framing.note(name, value)?;
    }
    framing.length(is_1_1)
}

/// Checks `METHOD /address HTTP/1.x`, and tells whether it is HTTP/1.1.
fn check_request_line(line: &[u8]) -> Result<bool, Refusal> {
    let parts: Vec<&[u8]> = line.splitn(4, |byte| *byte == b' ').collect();
    let &[method, target, version] = parts.as_slice() else {
        return malformed("the request line is not `METHOD /address HTTP/1.1`");
    };
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return malformed("the method is not a word");
    }
    let is_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return malformed("only HTTP/1.1 and HTTP/1.0 are spoken here"),
    };
    if method == b"CONNECT" {
        let detail = "CONNECT is not possible here";
        return Err(refusal(&METHOD_NOT_ALLOWED, detail));
    }
    if target.len() > TARGET_MAX {
        let detail = "an address has at most 8192 bytes";
        return Err(refusal(&HEAD_TOO_LARGE, detail));
    }
    let is_all = target == b"*" && method == b"OPTIONS";
    if target.first() != Some(&b'/') && !is_all {
        return malformed("the address must begin with a `/`: no scheme, no host, no user");
    }
    if !target.iter().copied().all(is_in_target) {
        return malformed("the address has a character that must be percent-encoded");
    }
    Ok(is_1_1)
}

fn split_header(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return malformed("a header is continued on a second line");
    }
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return malformed("a header has no colon");
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return malformed("the name of a header is not a word");
    }
    let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if !value.iter().all(is_text) {
        return malformed("a header has a control character");
    }
    Ok((name, value.trim_ascii()))
}

/// The headers that decide where a request ends, and for whom it is.
#[derive(Debug, Default)]
struct FramingHeaders {
    host: bool,
    length: Option<u64>,
    chunked: bool,
}

impl FramingHeaders {
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        if is(b"host") {
            if std::mem::replace(&mut self.host, true) {
                return malformed("the header Host is given more than once");
            }
            if value.is_empty() || !value.iter().copied().all(is_in_host) {
                return malformed("the header Host names no host");
            }
        } else if is(b"content-length") {
            if self.length.is_some() {
                return malformed("the header Content-Length is given more than once");
            }
            self.length = Some(number(value)?);
        } else if is(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return malformed("the only Transfer-Encoding taken is `chunked`, once");
            }
            self.chunked = true;
        } else if is(b"expect") && !value.eq_ignore_ascii_case(b"100-continue") {
            return malformed("the only expectation met is `100-continue`");
        }
        Ok(())
    }

    fn length(&self, is_1_1: bool) -> Result<Length, Refusal> {
        if is_1_1 && !self.host {
            return malformed("the header Host is missing");
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => {
                malformed("Content-Length and Transfer-Encoding contradict each other")
            }
            (true, None) if !is_1_1 => malformed("HTTP/1.0 knows no Transfer-Encoding"),
            (true, None) => Ok(Length::Chunked),
            (false, length) => Ok(Length::Bytes(length.unwrap_or(0))),
        }
    }
}

fn number(digits: &[u8]) -> Result<u64, Refusal> {
    let fits = (1..=LENGTH_DIGITS_MAX).contains(&digits.len());
    if !fits || !digits.iter().all(u8::is_ascii_digit) {
        return malformed("the header Content-Length is no number of bytes");
    }
    let add = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
    Ok(digits.iter().fold(0, add))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What RFC 3986 allows in a path or a query, and the brackets that many clients leave as they are.
fn is_in_target(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%[]".contains(&byte)
}

fn is_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(&byte)
}

fn refusal(kind: &'static Kind, detail: &'static str) -> Refusal {
    Refusal { kind, detail }
}

/// A refusal of kind `malformed`.
pub(super) fn malformed<T>(detail: &'static str) -> Result<T, Refusal> {
    Err(refusal(&MALFORMED, detail))
}

#[cfg(test)]
mod tests {
    use super::{HEADERS_MAX, Length, check};

    fn read(head: &str) -> Result<Length, &'static str> {
        check(head.as_bytes()).map_err(|refusal| refusal.detail)
    }

    fn with(headers: &str) -> Result<Length, &'static str> {
        read(&format!("POST /x HTTP/1.1\r\nHost: h\r\n{headers}\r\n"))
    }

    #[test]
    fn what_clients_send_is_taken() {
        assert_eq!(with(""), Ok(Length::Bytes(0)));
        assert_eq!(with("Content-Length: 12\r\n"), Ok(Length::Bytes(12)));
        assert_eq!(with("transfer-encoding: Chunked\r\n"), Ok(Length::Chunked));
        assert_eq!(with("Expect: 100-continue\r\n"), Ok(Length::Bytes(0)));
        assert_eq!(
            with("X-Name: caf\u{e9}\tx\r\nEmpty:\r\n"),
            Ok(Length::Bytes(0))
        );
        let address = "/a/b-_.~%20?x=[1]&y=a+b;c,d:@!$'()*";
        let head = format!("GET {address} HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n");
        assert_eq!(read(&head), Ok(Length::Bytes(0)));
        assert_eq!(read("GET / HTTP/1.0\r\n\r\n"), Ok(Length::Bytes(0)));
        assert_eq!(
            read("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"),
            Ok(Length::Bytes(0))
        );
    }

    #[test]
    fn whatever_could_end_a_request_at_two_places_is_refused() {
        for headers in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 9999999999999999999\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding\t: chunked\r\n",
            "X: y\r\n Transfer-Encoding: chunked\r\n",
            "X: y\r\n\tfolded\r\n",
        ] {
            assert!(with(headers).is_err(), "{headers:?}");
        }
        assert!(read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn a_request_is_for_one_host_and_one_address_on_it() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET https://token@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a#token HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(read(head).is_err(), "{head:?}");
        }
    }

    #[test]
    fn what_is_no_http_1_head_is_refused() {
        for head in [
            "\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \u{1b}[2J\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n",
        ] {
            assert!(read(head).is_err(), "{head:?}");
        }
        let too_many = "X: y\r\n".repeat(HEADERS_MAX);
        assert_eq!(with(&too_many), Err("a request has at most 64 headers"));
        assert!(with(&"X: y\r\n".repeat(HEADERS_MAX - 1)).is_ok());
    }
}
