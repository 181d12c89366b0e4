//! The genesis file: a summary for people, and the bytes that count, with the rules that the cluster begins with; and the
//! join file, which is one with what came since; one with which a cluster goes on from a backup names that backup. It
//! reads those of older programs, too.

use std::{fs, path::Path};

use dotmac_domain::{
    command::{Genesis, NodeCard},
    rules::{RULES_OLDEST, RULES_VERSION},
};
use dotmac_protocol::{
    codec::{self, DecodeError, Format},
    digest::Digest,
    ids::{ClusterId, TrustVersion},
    keys::PublicKey,
    trust::{SignedTrustRoot, TrustRoot},
};
use serde::{Deserialize, Serialize};

use super::{BootstrapError, CardFile, content, file_error, write};
use crate::backup::manifest::as_text;

/// A genesis file: a summary for people, and the bytes that count.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisFile {
    cluster: ClusterId,
    trust_root: String,
    controllers: Vec<String>,
    body: String,
    /// Of a cluster that others join: every trust root, as it was signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    trust_roots: Vec<String>,
    /// Of a cluster that others join: its controllers, the one that joins too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cards: Vec<CardFile>,
    /// Of a cluster that goes on from a backup: which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backup: Option<PlannedBackup>,
}

/// The one backup from which a cluster goes on with a genesis: every controller begins with the same State and facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedBackup {
    /// Its name.
    pub name: String,
    /// SHA-256 of the file of its signed manifest.
    #[serde(with = "as_text")]
    pub manifest: Digest,
}

impl std::fmt::Display for PlannedBackup {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} with manifest {}", self.name, self.manifest)
    }
}

/// What a controller starts from.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// How the cluster began.
    pub genesis: Genesis,
    /// The rules of the cluster's first entry.
    pub rules: u16,
    /// The trust roots that are known, oldest first.
    pub trust_roots: Vec<TrustRoot>,
    /// The controllers that are known, this one too.
    pub members: Vec<NodeCard>,
    /// Whether it founds the cluster with them, or joins it.
    pub founds: bool,
    /// The backup from which the cluster goes on, if it does.
    pub backup: Option<PlannedBackup>,
}

/// A genesis as programs since version 2 write it: with the rules that the cluster begins with. Those that wrote a
/// [`Genesis`] alone began with version 1, and older programs refuse this one by its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// How the cluster begins.
    pub genesis: Genesis,
    /// The rules of its first entry.
    pub rules: u16,
}

impl Format for Founding {
    const KIND: &'static str = "genesis";
    const VERSION: u8 = 2;
    const BYTES_MAX: usize = Genesis::BYTES_MAX + 4;
}

/// Writes a genesis file of a cluster that begins with the newest rules of this program, or goes on from a backup.
pub fn write_genesis(
    path: &Path,
    genesis: &Genesis,
    backup: Option<PlannedBackup>,
) -> Result<(), BootstrapError> {
    let founding = Founding {
        genesis: genesis.clone(),
        rules: RULES_VERSION,
    };
    let body =
        codec::encode(&founding).map_err(|error| BootstrapError::Cards(error.to_string()))?;
    let file = GenesisFile {
        cluster: genesis.cluster.clone(),
        trust_root: genesis.trust_root.digest().to_string(),
        controllers: genesis
            .nodes
            .iter()
            .map(|card| format!("{} at {}", card.node, card.link_address))
            .collect(),
        body: hex::encode(body),
        trust_roots: Vec::new(),
        cards: Vec::new(),
        backup,
    };
    let text = serde_json::to_string_pretty(&file).expect("a genesis file has text keys only");
    write(path, text.as_bytes(), 0o644)
}

/// Reads what a controller starts from: a genesis file, or the join file of a cluster that is there already.
pub fn read_beginning(path: &Path) -> Result<Beginning, BootstrapError> {
    let what = "a genesis or join file";
    let text = fs::read(path).map_err(file_error(path))?;
    let file: GenesisFile = serde_json::from_slice(&text).map_err(content(path, what))?;
    let body = hex::decode(&file.body).map_err(content(path, what))?;
    let Founding { genesis, rules } = read_founding(&body).map_err(content(path, what))?;
    if !(RULES_OLDEST..=RULES_VERSION).contains(&rules) {
        return Err(BootstrapError::NewerRules {
            path: path.to_owned(),
            found: rules,
        });
    }
    let first = genesis.trust_root.self_signed();
    let mut trust_roots = vec![first.map_err(content(path, what))?];
    for (place, text) in file.trust_roots.iter().enumerate() {
        let bytes = hex::decode(text).map_err(content(path, what))?;
        let signed: SignedTrustRoot = codec::decode(&bytes).map_err(content(path, what))?;
        if place == 0 && signed.digest() != genesis.trust_root.digest() {
            let another = "its first trust root is not that of its genesis";
            return Err(content(path, what)(another));
        }
        if let Some(last) = trust_roots.last().filter(|_| place > 0) {
            trust_roots.push(signed.follow(last).map_err(content(path, what))?);
        }
    }
    let is_join = !file.cards.is_empty();
    // One that goes on from a backup founds nothing: without the restored store it would begin empty.
    let founds = !is_join && trust_roots[0].version == TrustVersion(1);
    let mut members = genesis.nodes.clone();
    if is_join {
        let cards = file.cards.into_iter().map(|card| card.open(path));
        members = cards.collect::<Result<_, _>>()?;
    }
    Ok(Beginning {
        genesis,
        rules,
        trust_roots,
        members,
        founds,
        backup: file.backup,
    })
}

/// The body of a genesis file, of this program or an older one.
fn read_founding(body: &[u8]) -> Result<Founding, DecodeError> {
    match body.first() {
        Some(&Genesis::VERSION) => codec::decode(body).map(|genesis| Founding {
            genesis,
            rules: RULES_OLDEST,
        }),
        _ => codec::decode(body),
    }
}

impl CardFile {
    /// The card in it; `path` names where it is from.
    pub(super) fn open(self, path: &Path) -> Result<NodeCard, BootstrapError> {
        let what = "a node card";
        let mut signing_key = [0; 32];
        hex::decode_to_slice(&self.signing_key, &mut signing_key).map_err(content(path, what))?;
        Ok(NodeCard {
            node: self.node,
            incarnation: self.incarnation,
            link_address: self.link_address,
            api_address: self.api_address,
            signing_key: PublicKey(signing_key),
            issuer: hex::decode(&self.issuer).map_err(content(path, what))?,
        })
    }
}
