//! Reads a secret from a terminal without showing it. Whatever ends the reading, the terminal is as it was before.

use std::io::{self, Read as _, Write as _};

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

use crate::cli::failure::Failure;

/// Bytes of a secret at most.
const SECRET_BYTES_MAX: usize = 4096;
/// What keys send to a terminal that does not interpret them.
const INTERRUPT: u8 = 3;
const END: u8 = 4;
const BACKSPACE: [u8; 2] = [8, 127];
const KILL_LINE: u8 = 21;

/// A terminal that shows nothing, until this is dropped.
struct Silent {
    before: Termios,
}

impl Silent {
    fn new() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        // Not even an interrupt is obeyed by the terminal: it would end the process before the terminal is put right.
        silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Asks for a secret on the terminal that standard input is.
///
/// # Errors
/// When the terminal cannot be silenced, or the reading was interrupted.
pub(super) fn ask(question: &str) -> Result<String, Failure> {
    let failed =
        |cause: io::Error| Failure::Failed(format!("cannot read from the terminal: {cause}"));
    let silent = Silent::new().map_err(failed)?;
    let mut out = io::stderr().lock();
    write!(out, "{question}")
        .and_then(|()| out.flush())
        .map_err(failed)?;
    let secret = keys(io::stdin().lock().bytes());
    drop(silent);
    // The line break that was typed was not shown either.
    let _ = writeln!(out);
    secret.map_err(failed)
}

/// The line that these keys make.
fn keys(typed: impl Iterator<Item = io::Result<u8>>) -> io::Result<String> {
    let mut line: Vec<u8> = Vec::new();
    for key in typed {
        match key? {
            b'\r' | b'\n' | END => break,
            INTERRUPT => return Err(io::Error::other("interrupted")),
            KILL_LINE => line.clear(),
            key if BACKSPACE.contains(&key) => drop(line.pop()),
            _ if line.len() >= SECRET_BYTES_MAX => {
                return Err(io::Error::other("that is too long"));
            }
            key => line.push(key),
        }
    }
    String::from_utf8(line).map_err(|_| io::Error::other("that is no text"))
}

#[cfg(test)]
mod tests {
    use super::{SECRET_BYTES_MAX, keys};

    fn typed(text: &[u8]) -> Option<String> {
        keys(text.iter().map(|byte| Ok(*byte))).ok()
    }

    #[test]
    fn keys_make_a_line_and_corrections_count() {
        assert_eq!(typed(b"secret\rmore").as_deref(), Some("secret"));
        assert_eq!(typed(b"wrong\x15sex\x7fcret\n").as_deref(), Some("secret"));
        assert_eq!(typed(b"sec\x03ret\n"), None);
        assert_eq!(typed(b"\xff\n"), None);
        assert_eq!(typed(&vec![b'a'; SECRET_BYTES_MAX + 1]), None);
    }
}
