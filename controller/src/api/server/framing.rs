//! Where one request of a connection ends and the next begins. Nothing of a head goes on before the whole head was
//! checked; what is refused is replaced by a harmless request that the API answers with the problem, so that the
//! refusal has its place behind the answers to what came before. It does no IO and knows no clock.

use bytes::BytesMut;
use thiserror::Error;

use super::head::{self, HEAD_MAX, Length, Refusal};
use crate::api::problem::HEAD_TOO_LARGE;

/// What goes on instead of a head that is refused. Nothing follows it.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// Hexadecimal digits of a chunk's length at most.
const CHUNK_DIGITS_MAX: u8 = 8;
/// Bytes of the buffer for heads that stay allocated between requests.
const KEPT_BYTES: usize = 4096;

/// A body in chunks whose chunks cannot be read, or do more than carry bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the chunks of the body cannot be read")]
pub(super) struct BrokenChunk;

/// What a connection's next bytes will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The first byte of a request.
    Request,
    /// The rest of a head.
    Head,
    /// A part of a body.
    Body,
    /// Nothing any more: what still comes is thrown away.
    Nothing,
}

/// The bytes of one connection, cut into requests.
#[derive(Debug, Default)]
pub(super) struct Framing {
    phase: Phase,
    head: Vec<u8>,
    heads: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Between,
    Head,
    Body(u64),
    Chunks(Chunks),
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunks {
    Size { digits: u8, size: u64 },
    SizeEnd(u64),
    Data(u64),
    DataReturn,
    DataEnd,
    LastReturn,
    LastEnd,
}

impl Framing {
    /// Takes the next bytes, and adds to `out` what may go on. A refusal comes at most once, and is the last request.
    ///
    /// # Errors
    /// When a body cannot be read any further.
    pub(super) fn push(
        &mut self,
        mut input: &[u8],
        out: &mut BytesMut,
    ) -> Result<Option<Refusal>, BrokenChunk> {
        while let Some(&byte) = input.first() {
            match self.phase {
                // An empty line before a request has no meaning, and goes nowhere.
                Phase::Between if matches!(byte, b'\r' | b'\n') => input = &input[1..],
                Phase::Between => self.phase = Phase::Head,
                Phase::Head => {
                    input = &input[1..];
                    if let Err(refusal) = self.push_head(byte, out) {
                        return Ok(Some(self.refuse(refusal, out)));
                    }
                }
                Phase::Body(left) => {
                    let taken = pass(&mut input, left, out);
                    self.phase = Phase::after_body(left - taken);
                }
                Phase::Chunks(Chunks::Data(left)) => {
                    let taken = pass(&mut input, left, out);
                    self.phase = match left - taken {
                        0 => Phase::Chunks(Chunks::DataReturn),
                        left => Phase::Chunks(Chunks::Data(left)),
                    };
                }
                Phase::Chunks(chunks) => {
                    self.phase = chunks.step(byte)?;
                    pass(&mut input, 1, out);
                }
                Phase::Over => break,
            }
        }
        Ok(None)
    }

    /// Ends the requests of this connection with a refusal.
    pub(super) fn refuse(&mut self, refusal: Refusal, out: &mut BytesMut) -> Refusal {
        out.extend_from_slice(STAND_IN);
        self.heads += 1;
        self.head = Vec::new();
        self.phase = Phase::Over;
        refusal
    }

    /// What comes next.
    pub(super) fn awaited(&self) -> Awaited {
        match self.phase {
            Phase::Between => Awaited::Request,
            Phase::Head => Awaited::Head,
            Phase::Body(_) | Phase::Chunks(_) => Awaited::Body,
            Phase::Over => Awaited::Nothing,
        }
    }

    /// How many requests went on, the stand-in included.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    fn push_head(&mut self, byte: u8, out: &mut BytesMut) -> Result<(), Refusal> {
        let before = self.head.last().copied();
        if (byte == b'\n') != (before == Some(b'\r')) {
            return head::malformed("a line of the head does not end with CR LF");
        }
        if self.head.len() == HEAD_MAX {
            let detail = "a request's head has at most 65536 bytes";
            let kind = &HEAD_TOO_LARGE;
            return Err(Refusal { kind, detail });
        }
        self.head.push(byte);
        if byte == b'\n' && self.head.ends_with(b"\r\n\r\n") {
            let length = head::check(&self.head)?;
            out.extend_from_slice(&self.head);
            self.heads += 1;
            self.head.clear();
            self.head.shrink_to(KEPT_BYTES);
            self.phase = match length {
                Length::Bytes(bytes) => Phase::after_body(bytes),
                Length::Chunked => Phase::Chunks(Chunks::START),
            };
        }
        Ok(())
    }
}

impl Phase {
    fn after_body(left: u64) -> Self {
        if left == 0 {
            Self::Between
        } else {
            Self::Body(left)
        }
    }
}

impl Chunks {
    const START: Self = Self::Size { digits: 0, size: 0 };

    /// What a byte that is no data leads to. Extensions of chunks and trailers are refused: nothing here reads them.
    fn step(self, byte: u8) -> Result<Phase, BrokenChunk> {
        let next = match (self, byte) {
            (Self::Size { digits: 1.., size }, b'\r') => Self::SizeEnd(size),
            (Self::Size { digits, size }, byte) if digits < CHUNK_DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).ok_or(BrokenChunk)?;
                Self::Size {
                    digits: digits + 1,
                    size: size * 16 + u64::from(digit),
                }
            }
            (Self::SizeEnd(0), b'\n') => Self::LastReturn,
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataReturn, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::START,
            (Self::LastReturn, b'\r') => Self::LastEnd,
            (Self::LastEnd, b'\n') => return Ok(Phase::Between),
            _ => return Err(BrokenChunk),
        };
        Ok(Phase::Chunks(next))
    }
}

/// Passes at most `most` bytes on, and tells how many.
fn pass(input: &mut &[u8], most: u64, out: &mut BytesMut) -> u64 {
    let count = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at(count);
    out.extend_from_slice(taken);
    *input = rest;
    count as u64
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::{Awaited, BrokenChunk, Framing, STAND_IN};
    use crate::api::server::head::HEAD_MAX;

    const HEAD: &str = "POST /a HTTP/1.1\r\nHost: h\r\n";

    /// What goes on of a text that comes in pieces of so many bytes, and whether something was refused.
    fn run(text: &str, piece: usize) -> (Result<bool, BrokenChunk>, String, Framing) {
        let (mut framing, mut out) = (Framing::default(), BytesMut::new());
        let mut refused = Ok(false);
        for piece in text.as_bytes().chunks(piece) {
            match framing.push(piece, &mut out) {
                Ok(refusal) => refused = refused.map(|before| before || refusal.is_some()),
                Err(error) => refused = Err(error),
            }
        }
        (refused, String::from_utf8(out.to_vec()).unwrap(), framing)
    }

    #[test]
    fn requests_go_on_as_they_came_however_they_are_cut() {
        let text = format!(
            "{HEAD}Content-Length: 5\r\n\r\nhello{HEAD}Transfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n{HEAD}\r\n"
        );
        for piece in [1, 2, 3, 7, 1000] {
            let (refused, out, framing) = run(&text, piece);
            assert_eq!(
                (refused, out.as_str()),
                (Ok(false), text.as_str()),
                "{piece}"
            );
            assert_eq!((framing.heads(), framing.awaited()), (3, Awaited::Request));
        }
    }

    #[test]
    fn what_follows_a_body_is_a_head_again_and_checked_as_one() {
        let smuggled = "GET /other HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        for piece in [1, 1000] {
            let text = format!("{HEAD}Content-Length: 2\r\n\r\nhi{smuggled}");
            let (refused, out, framing) = run(&text, piece);
            assert_eq!(refused, Ok(true));
            let expected = format!("{HEAD}Content-Length: 2\r\n\r\nhi");
            assert_eq!(out.as_bytes(), [expected.as_bytes(), STAND_IN].concat());
            assert_eq!((framing.heads(), framing.awaited()), (2, Awaited::Nothing));
        }
    }

    #[test]
    fn nothing_follows_a_refusal() {
        let text = format!("GET / HTTP/1.1\nHost: h\n\n{HEAD}\r\n");
        let (refused, out, _) = run(&text, 5);
        assert_eq!((refused, out.as_bytes()), (Ok(true), STAND_IN));
        for bare in [
            "GET / HTTP/1.1\rHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
        ] {
            assert_eq!(run(bare, 3).0, Ok(true), "{bare:?}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused_at_its_limit() {
        let text = format!("{HEAD}X: {}", "x".repeat(HEAD_MAX));
        let (refused, out, _) = run(&text, 4096);
        assert_eq!((refused, out.as_bytes()), (Ok(true), STAND_IN));
    }

    #[test]
    fn chunks_carry_bytes_and_nothing_else() {
        for chunks in [
            "3;name=value\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            "\r\nabc\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "-3\r\nabc\r\n0\r\n\r\n",
            "3\nabc\n0\n\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "000000003\r\nabc\r\n0\r\n\r\n",
            "3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
        ] {
            let text = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{chunks}");
            assert_eq!(run(&text, 1).0, Err(BrokenChunk), "{chunks:?}");
        }
    }
}
