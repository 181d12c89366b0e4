//! Writes one backup: the State of one log index and the facts up to exactly that mark, sealed while they are written,
//! with a few pieces in memory. Nothing waits for it: reads share the State's structure, and a piece that the target
//! does not take yet holds up this backup alone. Without its manifest, written last, there is no backup.

mod facts;

use std::{
    io::{self, Write},
    sync::Arc,
};

use bytes::Bytes;
use dotmac_domain::{State, state::RULES_VERSION};
use dotmac_protocol::{
    codec::{self, Format as _},
    digest::Digest,
    ids::NodeId,
    trust::SignedTrustRoot,
};
use dotmac_runtime::{entropy::Entropy, sealed_stream::SealedWriter};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use self::facts::Facts;
use super::{
    listing,
    manifest::{FORMAT, MANIFEST, Manifest, Part},
    read::ReadError,
    recipient::{BackupKey, KeyError, Recipient},
    target::{Target, TargetError},
};
use crate::{
    log::{Log, Moment},
    raft::state_machine::write_state,
};

/// Bytes that are handed to the target at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that wait for the target at most; the producer waits then.
const PIECES_MAX: usize = 4;
/// The part with the State.
pub(super) const STATE: &str = "state";
/// The part with the ends of all streams.
pub(super) const HEADS: &str = "heads";
/// How the parts with facts begin.
pub(super) const LEDGER: &str = "ledger-";
/// The domain of a State's digest.
pub(super) const STATE_DOMAIN: &[u8] = b"dotmac/state/v1\0";

/// Why a backup was not made.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The target does not take it.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A recipient is of no use.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A part cannot be produced.
    #[error("part {part} cannot be made")]
    Part {
        /// Which one.
        part: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The target took it, and does not have it.
    #[error("backup target {target} took backup {name} and does not keep it as it was sent")]
    NotKept {
        /// Its address.
        target: String,
        /// Which backup.
        name: String,
        /// What is wrong.
        #[source]
        source: Box<ReadError>,
    },
    /// The program stops.
    #[error("the work was interrupted")]
    Interrupted,
    /// The cluster has not begun.
    #[error("the cluster is not founded yet")]
    NotFounded,
}

/// What a backup is made of.
pub struct Order {
    /// Its name.
    pub name: String,
    /// Who can open it.
    pub recipients: Vec<Recipient>,
    /// What it holds.
    pub moment: Moment,
    /// The chain of trust roots.
    pub trust_roots: Vec<SignedTrustRoot>,
    /// Who makes it.
    pub node: NodeId,
    /// Signs the manifest.
    pub key: SigningKey,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Order({})", self.name)
    }
}

/// The end of one stream, a line of the part `heads`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) stream: String,
    /// The first fact that is in the backup; one behind the last when none is.
    pub(super) first: u64,
    pub(super) last: u64,
    #[serde(with = "super::manifest::as_text")]
    pub(super) digest: Digest,
}

/// Makes a backup; `written` follows the bytes. What was begun and not finished is left behind without a manifest.
///
/// # Errors
/// When it is not whole; then it does not count.
pub async fn create(
    target: &Target,
    order: Order,
    log: Arc<dyn Log>,
    entropy: &Entropy,
    written: &watch::Sender<u64>,
) -> Result<Manifest, WriteError> {
    let state = Arc::clone(&order.moment.state);
    let (genesis, trust) = match (&state.genesis, &state.trust) {
        (Some(genesis), Some(trust)) => (genesis, trust),
        _ => return Err(WriteError::NotFounded),
    };
    let key = BackupKey::generate(entropy);
    let keys = key.sealed_to(&order.recipients, &order.name, entropy)?;
    let mut writing = Writing {
        target,
        name: &order.name,
        key: &key,
        written,
        parts: Vec::new(),
    };
    let whole = Arc::clone(&state);
    let state_digest = writing
        .part(STATE.into(), move |out| state_part(&whole, out))
        .await?;
    let mut facts = Facts::new(Arc::clone(&state), log);
    for number in 1_u32.. {
        let part = format!("{LEDGER}{number:06}");
        facts = writing.part(part, move |out| facts.fill(out)).await?;
        if facts.is_done() {
            break;
        }
    }
    let (streams, count) = (facts.heads.len(), facts.count);
    let lines = facts.lines();
    let heads_digest = Digest::of(&lines);
    writing
        .part(HEADS.into(), move |out| out.write_all(&lines))
        .await?;
    let manifest = Manifest {
        format: FORMAT,
        name: order.name.clone(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: genesis.cluster.clone(),
        node: order.node,
        at: state.now,
        index: order.moment.index,
        term: order.moment.term,
        epoch: trust.epoch,
        trust_version: trust.version,
        trust_roots: order.trust_roots.iter().map(in_hex).collect(),
        state_version: State::VERSION,
        rules: state.rules.max(RULES_VERSION),
        state_digest,
        streams: u64::try_from(streams).unwrap_or(u64::MAX),
        facts: count,
        heads_digest,
        parts: writing.parts,
        keys,
    };
    let file = Bytes::from(manifest.to_file(&order.key));
    target.write(&order.name, MANIFEST, file.clone()).await?;
    let kept = kept(target, manifest, &file).await;
    kept.map_err(|source| WriteError::NotKept {
        target: target.to_string(),
        name: order.name,
        source: Box::new(source),
    })
}

/// The manifest, when the target has it as it was sent, and every part with its size: not every store that says yes has
/// kept what it took.
async fn kept(target: &Target, manifest: Manifest, file: &Bytes) -> Result<Manifest, ReadError> {
    let found = target.read(&manifest.name, MANIFEST).await?;
    if found != *file {
        return Err(ReadError::Changed {
            name: manifest.name,
            part: MANIFEST.to_owned(),
            found: Digest::of(&found),
            expected: Digest::of(file),
        });
    }
    listing::with_parts(target, manifest).await
}

fn in_hex(signed: &SignedTrustRoot) -> String {
    hex::encode(codec::encode(signed).expect("a trust root that was decoded can be encoded"))
}

/// A backup under way.
struct Writing<'a> {
    target: &'a Target,
    name: &'a str,
    key: &'a BackupKey,
    written: &'a watch::Sender<u64>,
    parts: Vec<Part>,
}

impl Writing<'_> {
    /// Writes one part; `body` runs on a thread of its own and waits for the target.
    async fn part<T: Send + 'static>(
        &mut self,
        part: String,
        body: impl FnOnce(&mut dyn Write) -> io::Result<T> + Send + 'static,
    ) -> Result<T, WriteError> {
        let mut upload = self.target.upload(self.name, &part).await?;
        let (sender, mut pieces) = mpsc::channel::<Bytes>(PIECES_MAX);
        let key = self.key.of_part(&part);
        let producing = tokio::task::spawn_blocking(move || {
            let mut sealed = SealedWriter::new(Outgoing::new(sender), &key);
            let made = body(&mut sealed)?;
            let (bytes, digest) = sealed.finish()?.end()?;
            Ok::<_, io::Error>((made, bytes, digest))
        });
        let mut sent = Ok(());
        while let Some(piece) = pieces.recv().await {
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            sent = upload.write(piece).await;
            if sent.is_err() {
                break;
            }
            self.written.send_modify(|bytes| *bytes += length);
        }
        // Whoever still produces learns by this that nobody takes it.
        drop(pieces);
        let produced = producing.await.map_err(|_| WriteError::Interrupted);
        if let Err(error) = sent {
            upload.abort().await;
            return Err(error.into());
        }
        let (made, bytes, sha256) = match produced {
            Ok(Ok(made)) => made,
            Ok(Err(source)) => {
                upload.abort().await;
                return Err(WriteError::Part { part, source });
            }
            Err(error) => {
                upload.abort().await;
                return Err(error);
            }
        };
        upload.finish().await?;
        self.parts.push(Part {
            name: part,
            bytes,
            sha256,
        });
        Ok(made)
    }
}

/// Writes the State's encoded form and gives its digest.
fn state_part(state: &State, out: &mut dyn Write) -> io::Result<Digest> {
    let hasher = Sha256::new_with_prefix(STATE_DOMAIN);
    let mut tee = Tee { out, hasher };
    write_state(state, &mut tee)?;
    Ok(Digest::from_bytes(tee.hasher.finalize().into()))
}

/// Hashes what passes.
pub(super) struct Tee<W> {
    pub(super) out: W,
    pub(super) hasher: Sha256,
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<R: io::Read> io::Read for Tee<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.out.read(bytes)?;
        self.hasher.update(&bytes[..read]);
        Ok(read)
    }
}

/// Collects pieces, counts and hashes them, and sends them on.
struct Outgoing {
    sender: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
    hasher: Sha256,
    bytes: u64,
}

impl Outgoing {
    fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self {
            sender,
            piece: Vec::with_capacity(PIECE_BYTES),
            hasher: Sha256::new(),
            bytes: 0,
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        self.hasher.update(&piece);
        self.bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let sent = self.sender.blocking_send(Bytes::from(piece));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    fn end(mut self) -> io::Result<(u64, Digest)> {
        if !self.piece.is_empty() {
            self.send()?;
        }
        Ok((
            self.bytes,
            Digest::from_bytes(self.hasher.finalize().into()),
        ))
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
