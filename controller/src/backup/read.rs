//! Reads backups: whether one is whole, and, with an identity, what is in it. Every part is checked by
//! name, length and SHA-256; with the key the State's digest and every chain of facts are computed anew. It changes
//! nothing at the target.
//! Longer than 400 lines: most of it names what can be wrong with a backup.

mod contents;

use std::io::{self, Read};

use bytes::Bytes;
use dotmac_domain::{State, audit::Fact};
use dotmac_protocol::{codec::Format as _, digest::Digest, ids::ClusterId};
use dotmac_runtime::sealed_stream::SealedReader;
use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::sync::mpsc;

use self::contents::{Chains, differing, read_heads, read_state};
use super::{
    manifest::{MANIFEST, Manifest, ManifestError, Part},
    recipient::{BackupKey, Identity, KeyError},
    target::{Target, TargetError},
    write::{HEADS, Head, LEDGER, STATE},
};

/// Pieces that wait to be read at most; the target waits then.
const PIECES_MAX: usize = 4;

/// Why a backup does not count.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The target cannot be asked.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// There is no such backup.
    #[error("there is no backup {name} at {target}")]
    Missing {
        /// Its name.
        name: String,
        /// Where.
        target: String,
    },
    /// It was never finished.
    #[error("backup {0} is unfinished: it has no {MANIFEST}")]
    Unfinished(String),
    /// Its manifest does not count.
    #[error("{MANIFEST} of backup {name} is refused")]
    Manifest {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// It is of another cluster, or nobody of this one made it.
    #[error(
        "backup {name} is foreign: it is of a cluster named {cluster} whose trust roots are not of this cluster's history"
    )]
    Foreign {
        /// Its name.
        name: String,
        /// What its cluster calls itself.
        cluster: ClusterId,
    },
    /// The identity does not open it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A part is missing.
    #[error("part {part} of backup {name} is missing")]
    PartMissing {
        /// Which backup.
        name: String,
        /// Which part.
        part: String,
    },
    /// A part is cut off or too long.
    #[error("part {part} of backup {name} has {found} bytes, the manifest says {expected}")]
    Length {
        /// Which backup.
        name: String,
        /// Which part.
        part: String,
        /// Its bytes.
        found: u64,
        /// What they should be.
        expected: u64,
    },
    /// A part was changed.
    #[error(
        "part {part} of backup {name} was changed: its bytes have {found}, the manifest says {expected}"
    )]
    Changed {
        /// Which backup.
        name: String,
        /// Which part.
        part: String,
        /// Digest of its bytes.
        found: Digest,
        /// What it should be.
        expected: Digest,
    },
    /// A part opens, and is not what it should be.
    #[error("part {part} of backup {name} is not what it should be: {detail}")]
    Content {
        /// Which backup.
        name: String,
        /// Which part.
        part: String,
        /// What is wrong.
        detail: String,
    },
    /// The program stops.
    #[error("the work was interrupted")]
    Interrupted,
}

/// A backup that was opened.
#[derive(Debug)]
pub struct Opened {
    /// What it is.
    pub manifest: Manifest,
    /// Digest of the manifest's file.
    pub manifest_digest: Digest,
    /// The State in it.
    pub state: State,
}

/// The manifest of one backup.
///
/// # Errors
/// When there is none, or it does not count.
pub async fn manifest(target: &Target, name: &str) -> Result<Manifest, ReadError> {
    let read = manifest_and_digest(target, name).await;
    read.map(|(manifest, _)| manifest)
}

/// The manifest of one backup, and the digest of its file.
async fn manifest_and_digest(target: &Target, name: &str) -> Result<(Manifest, Digest), ReadError> {
    if !dotmac_domain::backups::is_name(name) {
        let (name, target) = (name.chars().take(80).collect(), target.to_string());
        return Err(ReadError::Missing { name, target });
    }
    match target.read(name, MANIFEST).await {
        Ok(file) => match Manifest::of_file(&file, name) {
            Ok(manifest) => Ok((manifest, Digest::of(&file))),
            Err(source) => Err(ReadError::Manifest {
                name: name.to_owned(),
                source,
            }),
        },
        Err(error) if error.is_missing() => {
            if target.names().await?.iter().any(|one| one == name) {
                return Err(ReadError::Unfinished(name.to_owned()));
            }
            let (name, target) = (name.to_owned(), target.to_string());
            Err(ReadError::Missing { name, target })
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a backup is whole: every part is there with its length and checksum, in the form that is known. What is sealed
/// in the parts is not seen; [`open`] does that.
///
/// # Errors
/// What is wrong, by the part's name.
pub async fn verify(target: &Target, name: &str) -> Result<Manifest, ReadError> {
    let manifest = manifest(target, name).await?;
    check_form(&manifest)?;
    let reading = Reading {
        target,
        manifest: &manifest,
    };
    for part in &manifest.parts {
        reading
            .part(part, |pieces| io::copy(pieces, &mut io::sink()).map(|_| ()))
            .await?;
    }
    Ok(manifest)
}

/// A backup whose State is proven, and whose facts are still to be read.
#[derive(Debug)]
pub struct Begun {
    /// What it is.
    pub manifest: Manifest,
    /// Digest of the manifest's file.
    pub manifest_digest: Digest,
    /// The State in it.
    pub state: State,
    target: Target,
    key: BackupKey,
    heads: Vec<Head>,
}

/// Opens a backup with an identity and proves all of it; `facts` is shown every fact in the order of the streams, a
/// few hundred at a time.
///
/// # Errors
/// What is wrong, by the part's name.
pub async fn open<F>(
    target: &Target,
    name: &str,
    identity: &Identity,
    facts: F,
) -> Result<Opened, ReadError>
where
    F: FnMut(Vec<Fact>) -> io::Result<()> + Send + 'static,
{
    begin(target, name, identity).await?.facts(facts).await
}

/// Opens a backup with an identity and proves its State. [`Begun::facts`] does the rest.
///
/// # Errors
/// What is wrong, by the part's name.
pub async fn begin(target: &Target, name: &str, identity: &Identity) -> Result<Begun, ReadError> {
    let (manifest, manifest_digest) = manifest_and_digest(target, name).await?;
    check_form(&manifest)?;
    let key = identity.open(name, &manifest.keys)?;
    let reading = Reading {
        target,
        manifest: &manifest,
    };
    let (state, digest) = reading.sealed(&key, STATE, read_state).await?;
    if digest != manifest.state_digest {
        let detail = format!(
            "its state has digest {digest}, the manifest says {}",
            manifest.state_digest
        );
        return Err(reading.content(STATE, detail));
    }
    if state.trust.as_ref() != manifest.trust().ok().as_ref() {
        let detail = "its trust root is not the manifest's".to_owned();
        return Err(reading.content(STATE, detail));
    }
    let expected = manifest.heads_digest;
    let heads = reading
        .sealed(&key, HEADS, move |body| read_heads(body, expected))
        .await?;
    if let Some(stream) = differing(&state, &heads) {
        let detail = format!("the state knows another end of stream {stream}");
        return Err(reading.content(HEADS, detail));
    }
    Ok(Begun {
        manifest,
        manifest_digest,
        state,
        target: target.clone(),
        key,
        heads,
    })
}

impl Begun {
    /// Reads and proves every fact, and shows them to `facts` as [`open`] does.
    ///
    /// # Errors
    /// What is wrong, by the part's name.
    pub async fn facts<F>(self, facts: F) -> Result<Opened, ReadError>
    where
        F: FnMut(Vec<Fact>) -> io::Result<()> + Send + 'static,
    {
        let Self {
            manifest,
            manifest_digest,
            state,
            target,
            key,
            heads,
        } = self;
        let reading = Reading {
            target: &target,
            manifest: &manifest,
        };
        let mut chains = Chains::new(&state, heads, facts);
        let ledgers = manifest
            .parts
            .iter()
            .filter(|part| part.name.starts_with(LEDGER));
        for part in ledgers {
            chains = reading
                .sealed(&key, &part.name, move |body| chains.take(body))
                .await?;
        }
        if let Err(detail) = chains.check_end(manifest.facts) {
            return Err(reading.content(LEDGER, detail));
        }
        Ok(Opened {
            manifest,
            manifest_digest,
            state,
        })
    }
}

/// Whether the parts are those of this form, in its order.
fn check_form(manifest: &Manifest) -> Result<(), ReadError> {
    let names: Vec<&str> = manifest
        .parts
        .iter()
        .map(|part| part.name.as_str())
        .collect();
    let ledgers = names.len().saturating_sub(2);
    let numbered = (1..=ledgers).map(|number| format!("{LEDGER}{number:06}"));
    let expected: Vec<String> = [STATE.to_owned()]
        .into_iter()
        .chain(numbered)
        .chain([HEADS.to_owned()])
        .collect();
    if ledgers == 0 || names != expected {
        return Err(ReadError::Manifest {
            name: manifest.name.clone(),
            source: ManifestError::Form(format!("its parts are {}", names.join(", "))),
        });
    }
    if manifest.state_version != State::VERSION {
        return Err(ReadError::Manifest {
            name: manifest.name.clone(),
            source: ManifestError::Form(format!(
                "its state has form {}, this program knows {}",
                manifest.state_version,
                State::VERSION
            )),
        });
    }
    Ok(())
}

struct Reading<'a> {
    target: &'a Target,
    manifest: &'a Manifest,
}

impl Reading<'_> {
    /// Opens a sealed part and gives it to `body`, which must read it to its end.
    async fn sealed<T: Send + 'static>(
        &self,
        key: &BackupKey,
        part: &str,
        body: impl FnOnce(&mut dyn Read) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let key = key.of_part(part);
        let found = self.manifest.parts.iter().find(|one| one.name == part);
        let part = found.ok_or_else(|| self.missing(part))?;
        self.part(part, move |pieces| {
            let mut opened = SealedReader::new(pieces, &key);
            let value = body(&mut opened)?;
            match opened.read(&mut [0])? {
                0 => Ok(value),
                _ => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "bytes are left over",
                )),
            }
        })
        .await
    }

    /// Reads a part; `body` runs on a thread of its own. A wrong checksum counts before whatever `body` says.
    async fn part<T: Send + 'static>(
        &self,
        part: &Part,
        body: impl FnOnce(&mut Incoming) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let name = &self.manifest.name;
        let mut stream = match self.target.stream(name, &part.name).await {
            Ok(stream) => stream,
            Err(error) if error.is_missing() => return Err(self.missing(&part.name)),
            Err(error) => return Err(error.into()),
        };
        let (sender, pieces) = mpsc::channel::<Bytes>(PIECES_MAX);
        let taking = tokio::task::spawn_blocking(move || {
            let mut incoming = Incoming::new(pieces);
            let value = body(&mut incoming);
            incoming.drain();
            (value, incoming.bytes, incoming.hasher)
        });
        let mut broken = None;
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => {
                    if sender.send(piece).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        drop(sender);
        let taken = taking.await.map_err(|_| ReadError::Interrupted)?;
        if let Some(error) = broken {
            return Err(error.into());
        }
        let (value, found, hasher) = taken;
        let (name, what) = (name.clone(), part.name.clone());
        if found != part.bytes {
            let expected = part.bytes;
            return Err(ReadError::Length {
                name,
                part: what,
                found,
                expected,
            });
        }
        let found = Digest::from_bytes(hasher.finalize().into());
        if found != part.sha256 {
            let expected = part.sha256;
            return Err(ReadError::Changed {
                name,
                part: what,
                found,
                expected,
            });
        }
        value.map_err(|error| self.content(&what, error.to_string()))
    }

    fn missing(&self, part: &str) -> ReadError {
        ReadError::PartMissing {
            name: self.manifest.name.clone(),
            part: part.to_owned(),
        }
    }

    fn content(&self, part: &str, detail: String) -> ReadError {
        ReadError::Content {
            name: self.manifest.name.clone(),
            part: part.to_owned(),
            detail,
        }
    }
}

/// What comes from the target, counted and hashed.
struct Incoming {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
    hasher: Sha256,
    bytes: u64,
}

impl Incoming {
    fn new(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self {
            pieces,
            piece: Bytes::new(),
            hasher: Sha256::new(),
            bytes: 0,
        }
    }

    /// Counts what nobody read.
    fn drain(&mut self) {
        let mut rest = [0; 8192];
        while self.read(&mut rest).is_ok_and(|read| read > 0) {}
    }
}

impl Read for Incoming {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let taken = self.piece.split_to(out.len().min(self.piece.len()));
        out[..taken.len()].copy_from_slice(&taken);
        self.hasher.update(&taken);
        self.bytes += u64::try_from(taken.len()).unwrap_or(u64::MAX);
        Ok(taken.len())
    }
}
