//! How one value lies in the database: cut into chunks of at most 8 KiB, each with its own checksum.
//!
//! A chunk is `crc32 | stamp | chunks | payload`; its key is the value's key and the chunk's number. The checksum
//! covers the key too, so that a chunk in another's place is noticed; the stamp is that of the commit, so that a
//! reader never joins chunks of two commits.

use super::ReadError;

/// Bytes of one stored chunk at most. Leaves of 17 chunks must stay far below the size at which the database
/// would put them in files of their own, which it never syncs.
const CHUNK_BYTES_MAX: usize = 8 * 1024;
const HEADER_BYTES: usize = 4 + 8 + 2;
/// Bytes of a value in one chunk, with room for the key in the leaf.
const PAYLOAD_BYTES_MAX: usize = CHUNK_BYTES_MAX - 256;

/// Bytes of a key at most.
pub const KEY_BYTES_MAX: usize = 128;
/// Bytes of a value at most.
pub const VALUE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A chunk that passed its checksum.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    pub(super) stamp: u64,
    pub(super) chunks: u16,
    pub(super) payload: &'a [u8],
}

/// The stored key of one chunk.
pub(super) fn chunk_key(key: &[u8], number: u16) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 2);
    stored.extend_from_slice(key);
    stored.extend_from_slice(&number.to_be_bytes());
    stored
}

/// Splits a stored key into the value's key and the chunk's number.
pub(super) fn split_key(stored: &[u8]) -> Option<(&[u8], u16)> {
    let (key, number) = stored.split_last_chunk::<2>()?;
    Some((key, u16::from_be_bytes(*number)))
}

/// Number of chunks of a value.
pub(super) fn chunks_of(value: &[u8]) -> u16 {
    let chunks = value.len().div_ceil(PAYLOAD_BYTES_MAX).max(1);
    u16::try_from(chunks).expect("a value is limited to 2 MiB")
}

/// The stored form of chunk `number` of a value.
pub(super) fn encode_chunk(key: &[u8], value: &[u8], number: u16, stamp: u64) -> Vec<u8> {
    let start = usize::from(number) * PAYLOAD_BYTES_MAX;
    let end = (start + PAYLOAD_BYTES_MAX).min(value.len());
    let mut stored = Vec::with_capacity(HEADER_BYTES + end - start);
    stored.extend_from_slice(&[0; 4]);
    stored.extend_from_slice(&stamp.to_le_bytes());
    stored.extend_from_slice(&chunks_of(value).to_le_bytes());
    stored.extend_from_slice(&value[start..end]);
    let crc = checksum(key, number, &stored[4..]);
    stored[..4].copy_from_slice(&crc.to_le_bytes());
    stored
}

/// Checks and opens a stored chunk.
pub(super) fn decode_chunk<'a>(
    key: &[u8],
    number: u16,
    stored: &'a [u8],
) -> Result<Chunk<'a>, ReadError> {
    let corrupt = || ReadError::Corrupt {
        key: hex::encode(key),
    };
    let (crc, body) = stored.split_first_chunk::<4>().ok_or_else(corrupt)?;
    if u32::from_le_bytes(*crc) != checksum(key, number, body) {
        return Err(corrupt());
    }
    let (stamp, rest) = body.split_first_chunk::<8>().ok_or_else(corrupt)?;
    let (chunks, payload) = rest.split_first_chunk::<2>().ok_or_else(corrupt)?;
    Ok(Chunk {
        stamp: u64::from_le_bytes(*stamp),
        chunks: u16::from_le_bytes(*chunks),
        payload,
    })
}

fn checksum(key: &[u8], number: u16, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&number.to_be_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_BYTES_MAX, VALUE_BYTES_MAX, chunks_of, decode_chunk, encode_chunk};

    #[test]
    fn every_chunk_of_the_largest_value_fits() {
        let value = vec![7; VALUE_BYTES_MAX];
        let chunks = chunks_of(&value);
        let mut joined = Vec::new();
        for number in 0..chunks {
            let stored = encode_chunk(b"key", &value, number, 9);
            assert!(stored.len() <= CHUNK_BYTES_MAX);
            let chunk = decode_chunk(b"key", number, &stored).unwrap();
            assert_eq!((chunk.stamp, chunk.chunks), (9, chunks));
            joined.extend_from_slice(chunk.payload);
        }
        assert_eq!(joined, value);
    }

    #[test]
    fn a_chunk_with_any_bit_changed_or_in_anothers_place_is_refused() {
        let stored = encode_chunk(b"key", b"some value", 0, 3);
        assert!(decode_chunk(b"key", 0, &stored).is_ok());
        for bit in 0..stored.len() * 8 {
            let mut changed = stored.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_chunk(b"key", 0, &changed).is_err(), "bit {bit}");
        }
        assert!(decode_chunk(b"kez", 0, &stored).is_err());
        assert!(decode_chunk(b"key", 1, &stored).is_err());
        assert!(decode_chunk(b"key", 0, &stored[..8]).is_err());
    }
}
