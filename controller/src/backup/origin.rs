//! Whose a backup is. Names of clusters repeat; what tells one from another is its chain of trust roots, which only its
//! root key goes on with. A manifest is of a cluster when its own chain holds a trust root of that cluster: the later
//! ones in it follow by the root key's signatures. It reads no file and asks nobody.

use std::collections::BTreeSet;

use dotmac_domain::{State, command::Genesis};
use dotmac_protocol::{
    codec,
    digest::Digest,
    ids::TrustVersion,
    keys::PublicKey,
    trust::{Role, SignedTrustRoot, TRUST_ROOT_DOMAIN, TrustRoot},
};

use super::{manifest::Manifest, read::ReadError};
use crate::bootstrap::Beginning;

/// The history that a backup has to belong to.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Its trust roots that are known.
    known: BTreeSet<Digest>,
    /// Who signed those that are not known.
    signers: Option<Signers>,
}

/// A root role that counts for trust roots before a version.
#[derive(Debug, Clone)]
struct Signers {
    role: Role,
    before: TrustVersion,
}

impl Origin {
    /// The history of a cluster as its State knows it: every trust root that was in force.
    #[must_use]
    pub fn of_state(state: &State, genesis: &Genesis) -> Self {
        let known = state.trust_roots.values().map(|known| &known.signed);
        let known = known.chain([&genesis.trust_root]);
        Self {
            known: known.map(SignedTrustRoot::digest).collect(),
            signers: None,
        }
    }

    /// The history of a cluster as its genesis file or join file tells it. Of what was before its trust root, that
    /// counts which the same root key signed.
    #[must_use]
    pub fn of_beginning(beginning: &Beginning) -> Self {
        let signers = beginning.trust_roots.first().map(|first| Signers {
            role: first.root.clone(),
            before: first.version,
        });
        Self {
            known: BTreeSet::from([beginning.genesis.trust_root.digest()]),
            signers,
        }
    }

    /// Whatever a root key signed.
    #[must_use]
    pub fn of_root_key(key: PublicKey) -> Self {
        let role = Role {
            threshold: 1,
            keys: vec![key],
        };
        Self {
            known: BTreeSet::new(),
            signers: Some(Signers {
                role,
                before: TrustVersion(u64::MAX),
            }),
        }
    }

    /// The manifest, when its backup is of this history. [`Manifest::of_file`], which read it, checked its chain.
    ///
    /// # Errors
    /// When it is of another one.
    pub fn check(&self, manifest: Manifest) -> Result<Manifest, ReadError> {
        let chain = manifest.signed_trust_roots().unwrap_or_default();
        if chain.iter().any(|root| self.holds(root)) {
            return Ok(manifest);
        }
        Err(ReadError::Foreign {
            name: manifest.name,
            cluster: manifest.cluster,
        })
    }

    fn holds(&self, signed: &SignedTrustRoot) -> bool {
        let is_signed = |signers: &Signers| {
            let role = &signers.role;
            let is_before = codec::decode::<TrustRoot>(&signed.body)
                .is_ok_and(|root| root.version < signers.before);
            is_before
                && role
                    .check("root", TRUST_ROOT_DOMAIN, &signed.body, &signed.signatures)
                    .is_ok()
        };
        self.known.contains(&signed.digest()) || self.signers.as_ref().is_some_and(is_signed)
    }
}
