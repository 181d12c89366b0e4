//! A log writer that never fails: what cannot be written is lost, and a full disk delays nothing (law 12). It refuses to
//! report an error, because whoever would report it writes to the same disk, under the same lock.

use std::io::{self, Write};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Lossy<W> {
    inner: W,
    /// Whether the last line may have been written in part.
    is_torn: bool,
}

impl<W: Write> Lossy<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            is_torn: false,
        }
    }
}

impl<W: Write> Write for Lossy<W> {
    /// Takes a whole line, written or not. A line behind a torn one begins on a line of its own.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mended = if self.is_torn {
            self.inner.write_all(b"\n")
        } else {
            Ok(())
        };
        self.is_torn = mended.and_then(|()| self.inner.write_all(line)).is_err();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // As with a write: nobody could do anything about it.
        let _ = self.inner.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::Lossy;

    /// A disk that takes `room` bytes.
    struct Full {
        text: Vec<u8>,
        room: usize,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.room - self.text.len());
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.text.extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_fails_nobody() {
        let mut log = Lossy::new(Full {
            text: vec![],
            room: 6,
        });
        for line in ["one\n", "two\n", "three\n"] {
            assert_eq!(log.write(line.as_bytes()).unwrap(), line.len());
            log.flush().unwrap();
        }
        log.inner.room = 100;
        log.write_all(b"four\n").unwrap();
        log.write_all(b"five\n").unwrap();
        assert_eq!(
            String::from_utf8_lossy(&log.inner.text),
            "one\ntw\nfour\nfive\n"
        );
    }
}
