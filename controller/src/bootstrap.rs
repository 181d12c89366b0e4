//! How a cluster begins: each controller makes its own keys and shows a card; `dotmac cluster create` turns the cards
//! into a trust root, signed by an offline key, and the genesis file that every controller starts from.
//!
//! Longer than 400 lines: the files of a cluster's beginning, written and read side by side.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use dotmac_domain::{
    command::{CreateToken, Genesis, NodeCard},
    rules::{RULES_OLDEST, RULES_VERSION},
};
use dotmac_protocol::{
    codec,
    ids::{ClusterId, Epoch, IncarnationId, NodeId, RegionId, TrustVersion},
    keys::{PublicKey, Signature},
    trust::{Role, SignedTrustRoot, TRUST_ROOT_DOMAIN, TrustRoot, majority},
};
use dotmac_runtime::{
    clock::Clock,
    disk,
    entropy::Entropy,
    keyfile::{self, KeyFileError},
    pki::{Issuer, PkiError},
};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{config::Config, raft::mark::StoreMark, trust_root};

mod genesis;

pub use genesis::{Beginning, Founding, PlannedBackup, read_beginning, write_genesis};

/// The folder of the keys, below the data directory.
const KEYS: &str = "keys";

/// Why a cluster cannot begin.
#[derive(Debug, Error)]
pub enum BootstrapError {
    /// A key cannot be kept or read.
    #[error("a key of this controller cannot be used")]
    Key(#[from] KeyFileError),
    /// A file cannot be written or read.
    #[error("{path} cannot be used")]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There are no keys at all.
    #[error(
        "there are no keys in {path}: a new controller makes them with `dotmac-controller init`; of one that had them, the \
         disk was wiped, and it cannot come back under this number"
    )]
    NoKeys {
        /// The folder of the keys.
        path: PathBuf,
    },
    /// A file is not what it should be.
    #[error("{path} is not {what}: {detail}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// A certificate cannot be used.
    #[error("the issuing certificate cannot be used")]
    Certificate(#[from] PkiError),
    /// The cluster begins with rules that this program does not know.
    #[error(
        "{path} begins with version {found} of the rules, and this program knows {RULES_OLDEST} to {RULES_VERSION}"
    )]
    NewerRules {
        /// Which file.
        path: PathBuf,
        /// The version that it begins with.
        found: u16,
    },
    /// The cards do not make a cluster.
    #[error("{0}")]
    Cards(String),
}

/// A controller's own keys.
pub struct Keys {
    /// Signs waves and attestations.
    pub signing: SigningKey,
    /// Issues certificates.
    pub issuer: Issuer,
    /// This life of the disk.
    pub incarnation: IncarnationId,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Keys(of {})", self.incarnation)
    }
}

/// A node card as a file: readable, and small enough to be copied by hand.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardFile {
    /// Its number.
    pub node: NodeId,
    /// This life of its disk.
    pub incarnation: IncarnationId,
    /// `host:port` (UDP).
    pub link_address: String,
    /// `host:port` (TCP).
    pub api_address: String,
    /// Hexadecimal Ed25519 key.
    pub signing_key: String,
    /// Hexadecimal DER certificate.
    pub issuer: String,
}

/// What a new cluster is to be.
#[derive(Debug, Clone)]
pub struct NewCluster {
    /// Its name.
    pub cluster: ClusterId,
    /// The controllers.
    pub cards: Vec<NodeCard>,
    /// The first access token, a `platform_admin`'s.
    pub admin: CreateToken,
    /// Where workloads may run.
    pub regions: Vec<RegionId>,
    /// The region of requests that name none.
    pub default_region: RegionId,
    /// Channel of the default release.
    pub default_channel: String,
    /// Milliseconds between a deletion and its tombstone.
    pub grace_ms: u64,
    /// Milliseconds in which a sealed intent may be accepted.
    pub window_ms: u64,
    /// Tombstones an hour at most, in the whole cluster.
    pub removals_per_hour: u32,
    /// Tombstones an hour at most for one tenant.
    pub removals_per_tenant_hour: u32,
}

/// Makes this controller's keys if it has none, and gives its card. Running it again changes nothing.
pub fn init(config: &Config, clock: &Clock, entropy: &Entropy) -> Result<NodeCard, BootstrapError> {
    let folder = key_folder(config);
    disk::create_private_dir(&config.data_dir).map_err(file_error(&config.data_dir))?;
    disk::create_private_dir(&folder).map_err(file_error(&folder))?;
    keyfile::ensure_seal_key(&config.seal_key_file, entropy)?;
    if !folder.join("incarnation").exists() {
        let signing = entropy.signing_key();
        let cluster: ClusterId = "dotmac".parse().expect("it is a label");
        let issuer = Issuer::create(&cluster, config.node, clock, entropy);
        let seal = &config.seal_key_file;
        keyfile::write(
            &folder.join("signing.key"),
            seal,
            &signing.to_bytes(),
            entropy,
        )?;
        keyfile::write(&folder.join("issuer.key"), seal, &issuer.secret(), entropy)?;
        let certificate = folder.join("issuer.der");
        write(&certificate, issuer.certificate(), 0o644)?;
        // Last, so that a crash before it starts over.
        write(
            &folder.join("incarnation"),
            entropy.hex(16).as_bytes(),
            0o600,
        )?;
    }
    let keys = load_keys(config)?;
    Ok(NodeCard {
        node: config.node,
        incarnation: keys.incarnation,
        link_address: config.link.advertise.clone(),
        api_address: config.api_address(),
        signing_key: PublicKey::of(&keys.signing),
        issuer: keys.issuer.certificate().to_vec(),
    })
}

/// Reads this controller's keys.
pub fn load_keys(config: &Config) -> Result<Keys, BootstrapError> {
    let folder = key_folder(config);
    let path = folder.join("incarnation");
    if !folder.exists() {
        return Err(BootstrapError::NoKeys { path: folder });
    }
    let incarnation = fs::read_to_string(&path).map_err(file_error(&path))?;
    let incarnation = incarnation
        .trim()
        .parse()
        .map_err(content(&path, "an incarnation"))?;
    let path = folder.join("signing.key");
    let secret = keyfile::read(&path, &config.seal_key_file)?;
    let secret: [u8; 32] = secret
        .as_slice()
        .try_into()
        .map_err(content(&path, "an Ed25519 key of 32 bytes"))?;
    let certificate = folder.join("issuer.der");
    let certificate = fs::read(&certificate).map_err(file_error(&certificate))?;
    let issuer = keyfile::read(&folder.join("issuer.key"), &config.seal_key_file)?;
    let issuer = Issuer::load(&issuer, certificate)?;
    Ok(Keys {
        signing: SigningKey::from_bytes(&secret),
        issuer,
        incarnation,
    })
}

/// Makes the trust root of a new cluster and its genesis. The root and approver keys are made if their files are
/// missing, and belong offline afterwards.
pub fn create(
    new: NewCluster,
    root_key: &Path,
    approver_key: &Path,
    clock: &Clock,
    entropy: &Entropy,
) -> Result<Genesis, BootstrapError> {
    check_cards(&new.cards)?;
    let root = offline_key(root_key, entropy)?;
    let approver = offline_key(approver_key, entropy)?;
    let keys: Vec<PublicKey> = new.cards.iter().map(|card| card.signing_key).collect();
    let majority = majority(keys.len());
    let single = |key: &SigningKey| Role {
        threshold: 1,
        keys: vec![PublicKey::of(key)],
    };
    let trust = TrustRoot {
        cluster: new.cluster.clone(),
        version: TrustVersion(1),
        epoch: Epoch(1),
        root: single(&root),
        approver: single(&approver),
        controller: Role {
            threshold: majority,
            keys: keys.clone(),
        },
        timestamp: Role {
            threshold: majority,
            keys,
        },
        controllers: new.cards.iter().map(trust_root::identity_of).collect(),
    };
    trust
        .validate()
        .map_err(|error| BootstrapError::Cards(error.to_string()))?;
    let body = codec::encode(&trust).map_err(|error| BootstrapError::Cards(error.to_string()))?;
    let signatures = vec![Signature::make(&root, TRUST_ROOT_DOMAIN, &body)];
    Ok(Genesis {
        cluster: new.cluster,
        created_at: clock.now(),
        trust_root: SignedTrustRoot { body, signatures },
        nodes: new.cards,
        admin: new.admin,
        regions: new.regions,
        default_region: new.default_region,
        default_channel: new.default_channel,
        grace_ms: new.grace_ms,
        window_ms: new.window_ms,
        removals_per_hour: new.removals_per_hour,
        removals_per_tenant_hour: new.removals_per_tenant_hour,
    })
}

fn check_cards(cards: &[NodeCard]) -> Result<(), BootstrapError> {
    let refuse = |text: &str| Err(BootstrapError::Cards(text.to_owned()));
    if cards.is_empty() || cards.len() > 7 {
        return refuse("a cluster begins with 1 to 7 controllers");
    }
    check_distinct(cards)
}

/// Whether each card is of another controller than those before it.
pub(crate) fn check_distinct(cards: &[NodeCard]) -> Result<(), BootstrapError> {
    for (place, card) in cards.iter().enumerate() {
        let shared = |other: &NodeCard| {
            let same = [
                (other.node == card.node, format!("number {}", card.node)),
                (
                    other.signing_key == card.signing_key,
                    "signing key".to_owned(),
                ),
                (
                    other.incarnation == card.incarnation,
                    format!("incarnation {}", card.incarnation),
                ),
                (
                    other.link_address == card.link_address,
                    format!("link address {}", card.link_address),
                ),
                (
                    other.api_address == card.api_address,
                    format!("API address {}", card.api_address),
                ),
            ];
            same.into_iter()
                .find_map(|(is_same, what)| is_same.then_some(what))
        };
        let mut before = cards[..place].iter().enumerate();
        let found = before.find_map(|(first, other)| Some((first, shared(other)?)));
        if let Some((first, what)) = found {
            return Err(BootstrapError::Cards(format!(
                "card {} and card {} have the same {what}: give one card of each controller",
                first + 1,
                place + 1
            )));
        }
    }
    Ok(())
}

impl From<NodeCard> for CardFile {
    fn from(card: NodeCard) -> Self {
        Self {
            node: card.node,
            incarnation: card.incarnation,
            link_address: card.link_address,
            api_address: card.api_address,
            signing_key: hex::encode(card.signing_key.0),
            issuer: hex::encode(card.issuer),
        }
    }
}

/// Reads a card file.
pub fn read_card(path: &Path) -> Result<NodeCard, BootstrapError> {
    let what = "a node card";
    let text = fs::read(path).map_err(file_error(path))?;
    let file: CardFile = serde_json::from_slice(&text).map_err(content(path, what))?;
    file.open(path)
}

/// A key that no controller holds; made if its file is missing.
fn offline_key(path: &Path, entropy: &Entropy) -> Result<SigningKey, BootstrapError> {
    if !path.exists() {
        let key = entropy.signing_key();
        write(path, hex::encode(key.to_bytes()).as_bytes(), 0o600)?;
    }
    read_offline_key(path)
}

/// Reads a key that no controller holds: 64 hexadecimal digits in a private file.
pub fn read_offline_key(path: &Path) -> Result<SigningKey, BootstrapError> {
    let text = keyfile::read_private(path)?;
    let mut secret = [0; 32];
    let digits = text.trim_ascii_end();
    hex::decode_to_slice(digits, &mut secret)
        .map_err(content(path, "a key of 64 hexadecimal digits"))?;
    Ok(SigningKey::from_bytes(&secret))
}

fn key_folder(config: &Config) -> PathBuf {
    config.data_dir.join(KEYS)
}

/// Where it is noted which store belongs to the keys below a data directory.
#[must_use]
pub fn store_mark(data_dir: &Path) -> StoreMark {
    StoreMark::at(data_dir.join(KEYS).join("store"))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), BootstrapError> {
    disk::write_atomic(path, bytes, mode).map_err(file_error(path))
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> BootstrapError {
    let path = path.to_owned();
    move |source| BootstrapError::File { path, source }
}

fn content<E: std::fmt::Display>(
    path: &Path,
    what: &'static str,
) -> impl FnOnce(E) -> BootstrapError {
    let path = path.to_owned();
    move |error| BootstrapError::Content {
        path,
        what,
        detail: error.to_string(),
    }
}
