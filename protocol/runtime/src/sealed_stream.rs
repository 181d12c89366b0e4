//! A long message in sealed pieces (ChaCha20-Poly1305, the STREAM construction): written and read with one piece in
//! memory. A piece that is changed, moved, left out or added, and an end that is missing, is refused; what comes before
//! the first wrong piece was really written.

use std::io::{self, Read, Write};

use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, aead::Aead as _};
use dotmac_protocol::digest::Digest;
use zeroize::Zeroizing;

/// Bytes of clear text in one piece.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Bytes that sealing adds to a piece.
pub const TAG_BYTES: usize = 16;

/// The key of one stream, made for it alone: nonces count from zero.
#[derive(Clone)]
pub struct StreamKey(Zeroizing<[u8; 32]>);

impl StreamKey {
    /// The key of the stream `name` under a secret that many streams share.
    #[must_use]
    pub fn derive(secret: &[u8; 32], name: &str) -> Self {
        let message = Zeroizing::new([secret.as_slice(), name.as_bytes()].concat());
        let derived = Digest::tagged("dotmac/sealed-stream/v1", &message);
        Self(Zeroizing::new(*derived.as_bytes()))
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new((&*self.0).into())
    }
}

impl std::fmt::Debug for StreamKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StreamKey")
    }
}

/// Seals what is written. Nothing counts before [`SealedWriter::finish`].
#[allow(missing_debug_implementations, reason = "it holds clear text")]
pub struct SealedWriter<W> {
    inner: W,
    cipher: ChaCha20Poly1305,
    piece: Zeroizing<Vec<u8>>,
    number: u64,
}

impl<W: Write> SealedWriter<W> {
    /// Seals into `inner`.
    #[must_use]
    pub fn new(inner: W, key: &StreamKey) -> Self {
        Self {
            inner,
            cipher: key.cipher(),
            piece: Zeroizing::new(Vec::with_capacity(PIECE_BYTES)),
            number: 0,
        }
    }

    /// Writes the last piece and gives back what was written to.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.inner)
    }

    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        let nonce = nonce(self.number, is_last);
        let sealed = self
            .cipher
            .encrypt((&nonce).into(), self.piece.as_slice())
            .map_err(|_| io::Error::other("a piece cannot be sealed"))?;
        self.inner.write_all(&sealed)?;
        self.piece.clear();
        self.number += 1;
        Ok(())
    }
}

impl<W: Write> Write for SealedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full piece waits until more comes, for the last one is sealed as such.
        if self.piece.len() == PIECE_BYTES && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Opens what was sealed; the end is reported only after the last piece was proven to be it.
#[allow(missing_debug_implementations, reason = "it holds clear text")]
pub struct SealedReader<R> {
    inner: R,
    cipher: ChaCha20Poly1305,
    piece: Zeroizing<Vec<u8>>,
    taken: usize,
    number: u64,
    is_over: bool,
}

impl<R: Read> SealedReader<R> {
    /// Opens what `inner` gives.
    #[must_use]
    pub fn new(inner: R, key: &StreamKey) -> Self {
        Self {
            inner,
            cipher: key.cipher(),
            piece: Zeroizing::new(Vec::new()),
            taken: 0,
            number: 0,
            is_over: false,
        }
    }

    /// Opens the next piece. A whole one may be the last one, too.
    fn open(&mut self) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(PIECE_BYTES + TAG_BYTES);
        let most = u64::try_from(PIECE_BYTES + TAG_BYTES).expect("a small constant");
        self.inner.by_ref().take(most).read_to_end(&mut sealed)?;
        let is_whole = sealed.len() == PIECE_BYTES + TAG_BYTES;
        let middle = is_whole.then(|| self.try_open(&sealed, false)).flatten();
        let (piece, is_last) = match middle {
            Some(piece) => (piece, false),
            None => match self.try_open(&sealed, true) {
                Some(piece) => (piece, true),
                None => {
                    let number = self.number;
                    let what =
                        format!("sealed piece {number} was changed, cut off or belongs elsewhere");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            },
        };
        if is_last && self.inner.read(&mut [0])? != 0 {
            let what = "something follows the last sealed piece";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        (self.piece, self.taken, self.is_over) = (Zeroizing::new(piece), 0, is_last);
        self.number += 1;
        Ok(())
    }

    fn try_open(&self, sealed: &[u8], is_last: bool) -> Option<Vec<u8>> {
        let nonce = nonce(self.number, is_last);
        self.cipher.decrypt((&nonce).into(), sealed).ok()
    }
}

impl<R: Read> Read for SealedReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() {
            if self.is_over || out.is_empty() {
                return Ok(0);
            }
            self.open()?;
        }
        let given = out.len().min(self.piece.len() - self.taken);
        out[..given].copy_from_slice(&self.piece[self.taken..self.taken + given]);
        self.taken += given;
        Ok(given)
    }
}

fn nonce(number: u64, is_last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(is_last);
    nonce
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::{PIECE_BYTES, SealedReader, SealedWriter, StreamKey, TAG_BYTES};

    fn seal(clear: &[u8], key: &StreamKey) -> Vec<u8> {
        let mut writer = SealedWriter::new(Vec::new(), key);
        writer.write_all(clear).unwrap();
        writer.finish().unwrap()
    }

    fn open(sealed: &[u8], key: &StreamKey) -> std::io::Result<Vec<u8>> {
        let mut clear = Vec::new();
        SealedReader::new(sealed, key).read_to_end(&mut clear)?;
        Ok(clear)
    }

    #[test]
    fn what_was_sealed_opens_whatever_its_length() {
        let key = StreamKey::derive(&[7; 32], "state");
        for length in [
            0,
            1,
            PIECE_BYTES - 1,
            PIECE_BYTES,
            PIECE_BYTES + 1,
            3 * PIECE_BYTES,
        ] {
            let clear: Vec<u8> = (0..length)
                .map(|one| u8::try_from(one % 251).unwrap())
                .collect();
            assert_eq!(open(&seal(&clear, &key), &key).unwrap(), clear, "{length}");
        }
    }

    #[test]
    fn what_is_changed_moved_cut_or_added_is_refused() {
        let key = StreamKey::derive(&[7; 32], "state");
        let clear = vec![9; 2 * PIECE_BYTES + 10];
        let sealed = seal(&clear, &key);
        let piece = PIECE_BYTES + TAG_BYTES;
        let swapped = [
            &sealed[piece..2 * piece],
            &sealed[..piece],
            &sealed[2 * piece..],
        ]
        .concat();
        let mut changed = sealed.clone();
        changed[piece + 5] ^= 1;
        let added = [&sealed[..], b"x"].concat();
        for wrong in [
            swapped,
            changed,
            sealed[..2 * piece].to_vec(),
            Vec::new(),
            added,
        ] {
            assert!(open(&wrong, &key).is_err(), "{}", wrong.len());
        }
        assert!(open(&sealed, &StreamKey::derive(&[7; 32], "ledger")).is_err());
        assert!(open(&sealed, &StreamKey::derive(&[8; 32], "state")).is_err());
    }
}
