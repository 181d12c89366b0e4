//! The next version of the trust root, made and signed where the root key is: on an operator's machine, never on a
//! controller. It refuses a key that is none of the root role's.

use std::path::Path;

use dotmac_domain::command::NodeCard;
use dotmac_protocol::{
    codec,
    digest::Digest,
    ids::{Epoch, NodeId, TrustVersion},
    keys::{PublicKey, Signature},
    trust::{
        ControllerIdentity, Role, SignedTrustRoot, TRUST_ROOT_DOMAIN, TrustError, TrustRoot,
        majority,
    },
};
use ed25519_dalek::SigningKey;
use thiserror::Error;

use crate::bootstrap::{self, BootstrapError};

/// Why there is no next trust root.
#[derive(Debug, Error)]
pub enum TrustRootError {
    /// The root key cannot be read.
    #[error("the root key cannot be used")]
    Key(#[from] BootstrapError),
    /// It is not a root key of this cluster.
    #[error("{0} is not a root key of trust root {1}: it signs nothing there")]
    Stranger(String, TrustVersion),
    /// More than one root key has to sign; with one the document is not complete.
    #[error("the next trust root does not follow")]
    Follow(#[from] TrustError),
    /// It is not a sound document.
    #[error("the next trust root cannot be encoded: {0}")]
    Encode(String),
}

/// A controller as trust roots name it.
#[must_use]
pub fn identity_of(card: &NodeCard) -> ControllerIdentity {
    ControllerIdentity {
        node: card.node,
        signing_key: card.signing_key,
        issuer: Digest::of(&card.issuer),
    }
}

/// The version after `current`, with these controllers, of which a strict majority signs, and this epoch.
#[must_use]
pub fn next(current: &TrustRoot, controllers: Vec<ControllerIdentity>, epoch: Epoch) -> TrustRoot {
    let keys: Vec<PublicKey> = controllers.iter().map(|one| one.signing_key).collect();
    let role = Role {
        threshold: majority(keys.len()),
        keys,
    };
    TrustRoot {
        version: TrustVersion(current.version.0.saturating_add(1)),
        epoch,
        controller: role.clone(),
        timestamp: role,
        controllers,
        ..current.clone()
    }
}

/// The version after `current` in which one more controller signs, or the same one with its present keys.
#[must_use]
pub fn with(current: &TrustRoot, card: &NodeCard) -> TrustRoot {
    let mut controllers = without_node(current, card.node);
    controllers.push(identity_of(card));
    controllers.sort_by_key(|one| one.node);
    next(current, controllers, current.epoch)
}

/// The version after `current` in which a controller signs no more.
#[must_use]
pub fn without(current: &TrustRoot, node: NodeId) -> TrustRoot {
    next(current, without_node(current, node), current.epoch)
}

/// Signs the version after `current` with the root key in a file, and checks that it follows.
///
/// # Errors
/// When the key cannot be read, is none of `current`'s root role, or is not enough.
pub fn sign(
    current: &TrustRoot,
    next: &TrustRoot,
    root_key: &Path,
) -> Result<SignedTrustRoot, TrustRootError> {
    let key: SigningKey = bootstrap::read_offline_key(root_key)?;
    if !current.root.contains(PublicKey::of(&key).id()) {
        let file = root_key.display().to_string();
        return Err(TrustRootError::Stranger(file, current.version));
    }
    let body = codec::encode(next).map_err(|error| TrustRootError::Encode(error.to_string()))?;
    let signatures = vec![Signature::make(&key, TRUST_ROOT_DOMAIN, &body)];
    let signed = SignedTrustRoot { body, signatures };
    signed.follow(current)?;
    Ok(signed)
}

fn without_node(current: &TrustRoot, node: NodeId) -> Vec<ControllerIdentity> {
    let others = current.controllers.iter().filter(|one| one.node != node);
    others.cloned().collect()
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::{
        ids::{Epoch, NodeId, TrustVersion},
        keys::PublicKey,
        trust::{Role, TrustRoot},
    };
    use dotmac_runtime::disk;
    use ed25519_dalek::SigningKey;

    use super::{NodeCard, TrustRootError, identity_of, sign, with, without};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn card(node: u8) -> NodeCard {
        NodeCard {
            node: NodeId(node.into()),
            incarnation: format!("{node:032x}").parse().unwrap(),
            link_address: format!("127.0.0.1:{node}"),
            api_address: format!("127.0.0.1:{node}"),
            signing_key: PublicKey::of(&key(node)),
            issuer: vec![node],
        }
    }

    fn root() -> TrustRoot {
        let role = |threshold, seeds: &[u8]| Role {
            threshold,
            keys: seeds
                .iter()
                .map(|seed| PublicKey::of(&key(*seed)))
                .collect(),
        };
        TrustRoot {
            cluster: "test".parse().unwrap(),
            version: TrustVersion(1),
            epoch: Epoch(3),
            root: role(1, &[10]),
            approver: role(1, &[20]),
            controller: role(2, &[1, 2, 3]),
            timestamp: role(2, &[1, 2, 3]),
            controllers: [1, 2, 3].map(|node| identity_of(&card(node))).to_vec(),
        }
    }

    #[test]
    fn the_next_version_counts_a_strict_majority_of_its_controllers() {
        let four = with(&root(), &card(4));
        assert_eq!((four.version, four.epoch), (TrustVersion(2), Epoch(3)));
        assert_eq!(
            (four.controller.threshold, four.timestamp.threshold),
            (3, 3)
        );
        assert_eq!(four.controllers.len(), 4);
        let two = without(&root(), NodeId(2));
        assert_eq!((two.controller.threshold, two.controllers.len()), (2, 2));
        assert_eq!(with(&root(), &card(2)).controllers, root().controllers);
    }

    #[test]
    fn only_a_root_key_signs_the_next_version() {
        let home = tempfile::tempdir().unwrap();
        let (own, other) = (home.path().join("root.key"), home.path().join("other.key"));
        for (file, seed) in [(&own, 10), (&other, 1)] {
            disk::write_atomic(file, hex::encode(key(seed).to_bytes()).as_bytes(), 0o600).unwrap();
        }
        let next = with(&root(), &card(4));
        let signed = sign(&root(), &next, &own).unwrap();
        assert_eq!(signed.follow(&root()), Ok(next.clone()));
        assert!(matches!(
            sign(&root(), &next, &other),
            Err(TrustRootError::Stranger(..))
        ));
    }
}
