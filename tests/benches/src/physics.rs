//! What the machine itself needs for the parts that no program can leave out: bringing bytes to the disk, signing,
//! checking a signature.

use std::{
    fs::File,
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
};

use anyhow::Result;
use ed25519_dalek::{Signer as _, SigningKey};
use tokio::time::Instant;

use crate::samples::{Samples, rounded};

/// Bytes written before each sync: about one entry of the log.
const BLOCK: usize = 4096;
/// Blocks of the file; it is allocated before and written over, as a log is.
const BLOCKS: u64 = 256;
/// Syncs, and signatures.
const ROUNDS: u64 = 400;

/// Milliseconds of `fdatasync` of one written block on the disk that holds `directory`: p50 and p99.
///
/// # Errors
/// When the disk cannot be written.
pub(crate) fn sync_ms(directory: &Path) -> Result<(f64, f64)> {
    let path = directory.join("sync.probe");
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)?;
    for _ in 0..BLOCKS {
        file.write_all(&[1; BLOCK])?;
    }
    file.sync_all()?;
    let mut samples = Samples::default();
    for round in 0..ROUNDS {
        file.seek(SeekFrom::Start(round % BLOCKS * BLOCK as u64))?;
        file.write_all(&[2; BLOCK])?;
        let started = Instant::now();
        file.sync_data()?;
        samples.take(started.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok((
        rounded(samples.percentile(50)),
        rounded(samples.percentile(99)),
    ))
}

/// Milliseconds of one Ed25519 signature, and of checking one.
pub(crate) fn signature_ms() -> (f64, f64) {
    let key = SigningKey::from_bytes(&[7; 32]);
    let message = [3; 128];
    let (mut signing, mut checking) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let signature = key.sign(&message);
        signing.take(started.elapsed());
        let started = Instant::now();
        let is_good = key
            .verifying_key()
            .verify_strict(&message, &signature)
            .is_ok();
        checking.take(started.elapsed());
        assert!(is_good, "a signature just made is good");
    }
    (signing.percentile(50), checking.percentile(50))
}
