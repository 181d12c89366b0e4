//! Secret keys at rest: files of mode 0600 whose content is sealed with ChaCha20-Poly1305 under another file's key, which
//! may lie on another disk. It refuses files that anybody but their owner may read, and says no word of their content.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _,
    aead::{Aead as _, Payload},
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{disk, entropy::Entropy};

/// What a sealed file starts with: its kind and version.
const MAGIC: &[u8; 12] = b"dotmac-key-1";
const NONCE_BYTES: usize = 12;
/// Bytes of a key file at most.
pub const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why a key file cannot be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("key file {} cannot be read", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("key file {} cannot be written", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read or write it.
    #[error("key file {} has mode {mode:03o}: run chmod 600 on it", path.display())]
    Mode {
        /// Which one.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no such file, or too large.
    #[error("key file {} is not a {expected}", path.display())]
    Form {
        /// Which one.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// It was changed, renamed, or sealed with another key.
    #[error("key file {} does not open with the seal key {}", path.display(), seal_key_file.display())]
    Open {
        /// Which one.
        path: PathBuf,
        /// The key that was tried.
        seal_key_file: PathBuf,
    },
}

/// Makes the file with the key that other files are sealed with (64 hexadecimal digits), unless there is one already.
///
/// # Errors
/// When it cannot be made, or the one that exists is no such key or readable by others.
pub fn ensure_seal_key(path: &Path, entropy: &Entropy) -> Result<(), KeyFileError> {
    if path.exists() {
        return seal_key(path).map(drop);
    }
    let key = Zeroizing::new(entropy.bytes::<32>());
    let text = Zeroizing::new(format!("{}\n", hex::encode(key.as_slice())));
    disk::write_atomic(path, text.as_bytes(), 0o600).map_err(|source| KeyFileError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Seals `secret` under the key in `seal_key_file` and writes it to `path`, whole or not at all. The file's name is part
/// of the seal, so that one key file does not pass for another.
///
/// # Errors
/// When the seal key cannot be used, or `path` cannot be written.
pub fn write(
    path: &Path,
    seal_key_file: &Path,
    secret: &[u8],
    entropy: &Entropy,
) -> Result<(), KeyFileError> {
    let key = seal_key(seal_key_file)?;
    let nonce: [u8; NONCE_BYTES] = entropy.bytes();
    let payload = Payload {
        msg: secret,
        aad: &associated(path),
    };
    let sealed = ChaCha20Poly1305::new((&*key).into())
        .encrypt((&nonce).into(), payload)
        .expect("a short message can be sealed");
    let bytes = [MAGIC.as_slice(), &nonce, &sealed].concat();
    disk::write_atomic(path, &bytes, 0o600).map_err(|source| KeyFileError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Opens what [`write()`] wrote.
///
/// # Errors
/// When either file cannot be read or is open to others, or the seal does not hold.
pub fn read(path: &Path, seal_key_file: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let key = seal_key(seal_key_file)?;
    let bytes = read_private(path)?;
    let (nonce, sealed) = bytes
        .strip_prefix(MAGIC.as_slice())
        .and_then(|rest| rest.split_first_chunk::<NONCE_BYTES>())
        .ok_or_else(|| KeyFileError::Form {
            path: path.to_owned(),
            expected: "sealed key file of version 1",
        })?;
    let payload = Payload {
        msg: sealed,
        aad: &associated(path),
    };
    ChaCha20Poly1305::new((&*key).into())
        .decrypt(nonce.into(), payload)
        .map(Zeroizing::new)
        .map_err(|_| KeyFileError::Open {
            path: path.to_owned(),
            seal_key_file: seal_key_file.to_owned(),
        })
}

/// Reads a file that only its owner may read, such as one with a token.
///
/// # Errors
/// When it cannot be read, is open to others, or is larger than [`KEY_FILE_BYTES_MAX`].
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let unreadable = |source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(KeyFileError::Mode { path, mode });
    }
    if !metadata.is_file() || metadata.len() > KEY_FILE_BYTES_MAX {
        return Err(KeyFileError::Form {
            path: path.to_owned(),
            expected: "regular file of at most 64 KiB",
        });
    }
    let length = usize::try_from(metadata.len()).expect("the limit fits");
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    file.take(KEY_FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

fn seal_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let text = read_private(path)?;
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), key.as_mut_slice()).map_err(|_| {
        KeyFileError::Form {
            path: path.to_owned(),
            expected: "seal key of 64 hexadecimal digits",
        }
    })?;
    Ok(key)
}

fn associated(path: &Path) -> Vec<u8> {
    let name = path.file_name().unwrap_or_default();
    [MAGIC.as_slice(), &[0], name.as_encoded_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt as _,
        path::{Path, PathBuf},
    };

    use tempfile::TempDir;

    use super::{KeyFileError, ensure_seal_key, read, write};
    use crate::entropy::Entropy;

    fn files() -> (TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (seal, key) = (
            directory.path().join("seal.key"),
            directory.path().join("signing.key"),
        );
        ensure_seal_key(&seal, &Entropy::seeded(1)).unwrap();
        write(&key, &seal, b"the secret", &Entropy::seeded(2)).unwrap();
        (directory, seal, key)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_secret_comes_back_and_is_not_on_the_disk_in_clear() {
        let (directory, seal, key) = files();
        assert_eq!(read(&key, &seal).unwrap().as_slice(), b"the secret");
        for entry in fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
            assert!(
                !fs::read(path)
                    .unwrap()
                    .windows(10)
                    .any(|part| part == b"the secret")
            );
        }
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let (_directory, seal, key) = files();
        for wide in [&seal, &key] {
            for mode in [0o644, 0o640, 0o604, 0o620] {
                set_mode(wide, mode);
                let refused = read(&key, &seal);
                assert!(
                    matches!(&refused, Err(KeyFileError::Mode { path, mode: found })
                        if path == wide && *found == mode),
                    "{refused:?}"
                );
            }
            set_mode(wide, 0o600);
        }
        assert!(read(&key, &seal).is_ok());
    }

    #[test]
    fn another_seal_key_another_name_and_changed_bytes_are_refused() {
        let (directory, seal, key) = files();
        let other_seal = directory.path().join("other-seal.key");
        ensure_seal_key(&other_seal, &Entropy::seeded(9)).unwrap();
        assert!(matches!(
            read(&key, &other_seal),
            Err(KeyFileError::Open { .. })
        ));
        let renamed = directory.path().join("issuer.key");
        fs::copy(&key, &renamed).unwrap();
        assert!(matches!(
            read(&renamed, &seal),
            Err(KeyFileError::Open { .. })
        ));
        let mut bytes = fs::read(&key).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&key, bytes).unwrap();
        assert!(matches!(read(&key, &seal), Err(KeyFileError::Open { .. })));
    }

    #[test]
    fn an_existing_seal_key_is_kept() {
        let (_directory, seal, key) = files();
        ensure_seal_key(&seal, &Entropy::seeded(5)).unwrap();
        assert!(read(&key, &seal).is_ok());
    }
}
