//! The one door between bytes and values: versioned bincode with a size limit and no trailing bytes.
//!
//! Encoded form: one version byte, then bincode 2 (standard configuration, little endian, variable length
//! integers). It refuses oversized input before allocating, and input that is longer than its value.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// A stored, sent or signed type with its own version byte. Frozen once released: a change is a new version.
pub trait Format: Serialize + DeserializeOwned {
    /// Name for errors, such as `wave`.
    const KIND: &'static str;
    /// The version that [`encode`] writes and [`decode`] accepts.
    const VERSION: u8;
    /// Largest encoded form in bytes, the version byte included.
    const BYTES_MAX: usize;
}

/// Why bytes are not a value.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// The input exceeds [`Format::BYTES_MAX`].
    #[error("{kind} of {found} bytes exceeds the limit of {allowed}")]
    TooLarge {
        kind: &'static str,
        found: usize,
        allowed: usize,
    },
    /// The version byte is another one (or there is none).
    #[error("{kind} has version {found:?}, this program knows {expected}")]
    Version {
        kind: &'static str,
        found: Option<u8>,
        expected: u8,
    },
    /// The body does not parse.
    #[error("{kind} is malformed: {detail}")]
    Malformed { kind: &'static str, detail: String },
    /// Bytes are left over behind the value.
    #[error("{kind} has {extra} trailing bytes")]
    Trailing { kind: &'static str, extra: usize },
}

/// Why a value has no encoded form.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum EncodeError {
    /// The encoded value exceeds [`Format::BYTES_MAX`].
    #[error("{kind} would take {found} bytes, allowed are {allowed}")]
    TooLarge {
        kind: &'static str,
        found: usize,
        allowed: usize,
    },
    /// Serialization failed.
    #[error("{kind} cannot be encoded: {detail}")]
    Unencodable { kind: &'static str, detail: String },
}

/// Bytes that decoding a message may claim; snapshots, which are read from one's own disk, may claim more.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;
const SNAPSHOT_LIMIT: usize = 4 * 1024 * 1024 * 1024;

/// Encodes a value with its version byte, into exactly as many bytes as it takes: they are often kept.
///
/// # Errors
/// When it is larger than [`Format::BYTES_MAX`], or cannot be serialized.
pub fn encode<T: Format>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(encoded_len(value)?);
    bytes.push(T::VERSION);
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard())
        .map_err(unencodable::<T>)?;
    Ok(bytes)
}

/// The length of what [`encode`] would give, without making it.
///
/// # Errors
/// Those of [`encode`].
pub fn encoded_len<T: Format>(value: &T) -> Result<usize, EncodeError> {
    let mut size = bincode::enc::write::SizeWriter::default();
    bincode::serde::encode_into_writer(value, &mut size, bincode::config::standard())
        .map_err(unencodable::<T>)?;
    let found = size.bytes_written + 1;
    if found > T::BYTES_MAX {
        return Err(EncodeError::TooLarge {
            kind: T::KIND,
            found,
            allowed: T::BYTES_MAX,
        });
    }
    Ok(found)
}

fn unencodable<T: Format>(error: bincode::error::EncodeError) -> EncodeError {
    EncodeError::Unencodable {
        kind: T::KIND,
        detail: error.to_string(),
    }
}

/// Decodes a whole value; anything left over is an error.
pub fn decode<T: Format>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > T::BYTES_MAX {
        return Err(DecodeError::TooLarge {
            kind: T::KIND,
            found: bytes.len(),
            allowed: T::BYTES_MAX,
        });
    }
    let (version, body) = match bytes.split_first() {
        Some((version, body)) => (Some(*version), body),
        None => (None, bytes),
    };
    if version != Some(T::VERSION) {
        return Err(DecodeError::Version {
            kind: T::KIND,
            found: version,
            expected: T::VERSION,
        });
    }
    let standard = bincode::config::standard();
    let decoded = if T::BYTES_MAX <= MESSAGE_LIMIT {
        bincode::serde::decode_from_slice(body, standard.with_limit::<MESSAGE_LIMIT>())
    } else {
        bincode::serde::decode_from_slice(body, standard.with_limit::<SNAPSHOT_LIMIT>())
    };
    let (value, consumed): (T, usize) = decoded.map_err(|error| DecodeError::Malformed {
        kind: T::KIND,
        detail: error.to_string(),
    })?;
    match body.len() - consumed {
        0 => Ok(value),
        extra => Err(DecodeError::Trailing {
            kind: T::KIND,
            extra,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::{DecodeError, Format, decode, encode};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Probe {
        text: String,
        numbers: Vec<u64>,
    }

    impl Format for Probe {
        const KIND: &'static str = "probe";
        const VERSION: u8 = 3;
        const BYTES_MAX: usize = 64;
    }

    fn probe() -> Probe {
        Probe {
            text: "a".into(),
            numbers: vec![1, 300],
        }
    }

    #[test]
    fn a_value_survives_the_round_trip() {
        assert_eq!(decode::<Probe>(&encode(&probe()).unwrap()), Ok(probe()));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&probe()).unwrap();
        bytes.push(0);
        assert_eq!(
            decode::<Probe>(&bytes),
            Err(DecodeError::Trailing {
                kind: "probe",
                extra: 1
            })
        );
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let mut bytes = encode(&probe()).unwrap();
        bytes[0] = 9;
        assert_eq!(
            decode::<Probe>(&bytes),
            Err(DecodeError::Version {
                kind: "probe",
                found: Some(9),
                expected: 3
            })
        );
        assert!(matches!(
            decode::<Probe>(&[]),
            Err(DecodeError::Version { found: None, .. })
        ));
    }

    #[test]
    fn a_length_beyond_the_input_allocates_nothing() {
        // A string that claims 2^62 bytes.
        let bytes = [3, 253, 0, 0, 0, 0, 0, 0, 0, 64];
        assert!(matches!(
            decode::<Probe>(&bytes),
            Err(DecodeError::Malformed { .. })
        ));
    }

    #[test]
    fn a_value_over_its_limit_is_refused_both_ways() {
        let large = Probe {
            text: "x".repeat(100),
            numbers: vec![],
        };
        assert!(encode(&large).is_err());
        assert!(matches!(
            decode::<Probe>(&[3; 65]),
            Err(DecodeError::TooLarge { .. })
        ));
    }
}
