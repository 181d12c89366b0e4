//! The chain of trust roots: each follows the one before by the root key's signature. What was proven under one stays
//! proven; what is signed from now on is signed under the newest. It refuses a root in which a controller signs that
//! does not vote yet, and thresholds other than a strict majority.

use std::collections::BTreeSet;

use dotmac_protocol::{
    codec,
    digest::Digest,
    ids::{NodeId, TrustVersion},
    keys::PublicKey,
    time::Timestamp,
    trust::{Role, SignedTrustRoot, TrustRoot, majority},
};
use serde::{Deserialize, Serialize};

use crate::{
    access::Permission,
    cluster::Standing,
    envelope::Envelope,
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
};

/// Versions of the trust root at most; all are kept, so that an agent that pinned the first can follow.
pub const TRUST_ROOTS_MAX: usize = 10_000;
/// Milliseconds for which requests still count that controllers vouched for under the trust root before: as long as
/// attestations live.
pub const TRUST_OVERLAP_MS: u64 = 30_000;

/// One version of the trust root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRoot {
    /// When it came into force.
    pub since: Timestamp,
    /// What it says.
    pub root: TrustRoot,
    /// As it was signed: what agents and new controllers follow.
    pub signed: SignedTrustRoot,
}

impl State {
    /// Takes a trust root that was checked in force.
    pub(crate) fn put_trust_root(
        &mut self,
        signed: SignedTrustRoot,
        root: TrustRoot,
        now: Timestamp,
    ) {
        self.trust = Some(root.clone());
        let known = KnownRoot {
            since: now,
            root,
            signed,
        };
        self.trust_roots.insert_mut(known.root.version, known);
    }

    /// The signed trust roots after a version, oldest first, at most so many.
    #[must_use]
    pub fn trust_roots_after(&self, version: TrustVersion, most: usize) -> Vec<SignedTrustRoot> {
        let next = TrustVersion(version.0.saturating_add(1));
        let newer = self.trust_roots.range(next..).take(most);
        newer.map(|(_, known)| known.signed.clone()).collect()
    }

    /// The newest signed trust roots, at most so many, oldest first.
    #[must_use]
    pub fn newest_trust_roots(&self, most: usize) -> Vec<SignedTrustRoot> {
        let newest = self.trust_roots.values().rev().take(most);
        let mut newest: Vec<_> = newest.map(|known| known.signed.clone()).collect();
        newest.reverse();
        newest
    }

    /// The trust roots under which something may have been vouched for that was applied at this time, newest first.
    pub(crate) fn trust_roots_at(&self, at: Timestamp) -> impl Iterator<Item = &TrustRoot> {
        let mut until: Option<Timestamp> = None;
        self.trust_roots.iter().rev().filter_map(move |(_, known)| {
            let ended = until.replace(known.since);
            let is_over = ended.is_some_and(|ended| at.millis_since(ended) > TRUST_OVERLAP_MS);
            // The first one counts from the first entry on, whatever clock made it.
            let has_begun = known.since <= at || known.root.version == TrustVersion(1);
            (has_begun && !is_over).then_some(&known.root)
        })
    }

    pub(crate) fn follow_trust_root(
        &mut self,
        envelope: &Envelope,
        signed: &SignedTrustRoot,
        now: Timestamp,
    ) -> Reply {
        self.require(&envelope.actor, Permission::ClusterWrite, None)?;
        if self
            .trust_roots
            .values()
            .any(|known| known.signed.body == signed.body)
        {
            return Ok(Accepted::Done);
        }
        let next = self.check_trust_root(signed)?;
        self.put_trust_root(signed.clone(), next, now);
        Ok(Accepted::Done)
    }

    /// The trust root in a document, if it may come into force now.
    ///
    /// # Errors
    /// When it does not follow the one in force, or does not fit the controllers.
    pub fn check_trust_root(&self, signed: &SignedTrustRoot) -> Result<TrustRoot, Rejection> {
        let Some(trust) = &self.trust else {
            let detail = "the cluster is not founded yet";
            return Err(Rejection::new(Code::NotFounded, detail));
        };
        if self.trust_roots.size() >= TRUST_ROOTS_MAX {
            let detail = format!("a cluster has at most {TRUST_ROOTS_MAX} trust roots in its life");
            return Err(Rejection::new(Code::LimitReached, detail));
        }
        let claimed = codec::decode::<TrustRoot>(&signed.body)
            .map_or(signed.digest().to_string(), |root| {
                format!("version {}", root.version)
            });
        let refuse = |allowed: String| Rejection::field("document", &claimed, allowed);
        let next = signed.follow(trust).map_err(|error| {
            let held = trust.version;
            refuse(format!(
                "the next version after {held}, signed by the root key: {error}"
            ))
        })?;
        check_majority("controller", &next.controller, &next).map_err(refuse)?;
        check_majority("timestamp", &next.timestamp, &next).map_err(refuse)?;
        self.check_signers(trust, &next).map_err(refuse)?;
        let changed: BTreeSet<NodeId> = nodes(trust)
            .symmetric_difference(&nodes(&next))
            .copied()
            .collect();
        if changed.len() > 1 {
            let names: Vec<_> = changed.iter().map(ToString::to_string).collect();
            return Err(refuse(format!(
                "one that changes one controller at a time, not {}",
                names.join(" and ")
            )));
        }
        if let Some(node) = changed.first() {
            self.require_only_change(Some(*node))?;
        }
        Ok(next)
    }

    /// That all who are to sign vote, with the keys of their cards.
    fn check_signers(&self, trust: &TrustRoot, next: &TrustRoot) -> Result<(), String> {
        for one in &next.controllers {
            let node = one.node;
            let known = self.controllers.get(&node);
            let known = known.ok_or_else(|| format!("controllers of this cluster, not {node}"))?;
            // Those of before stay as they were: their cards may be older than this rule.
            if trust.controllers.contains(one) {
                continue;
            }
            if known.standing != Standing::Voter {
                let standing = known.standing.as_str();
                return Err(format!(
                    "controllers that vote; controller {node} is {standing}"
                ));
            }
            let card = &known.card;
            if card.signing_key != one.signing_key || Digest::of(&card.issuer) != one.issuer {
                return Err(format!(
                    "the keys of the controllers' cards; those of {node} differ"
                ));
            }
        }
        Ok(())
    }
}

/// That the keys of a role are those of the controllers, and a strict majority of them counts.
fn check_majority(name: &str, role: &Role, root: &TrustRoot) -> Result<(), String> {
    let keys: BTreeSet<PublicKey> = role.keys.iter().copied().collect();
    let own: BTreeSet<PublicKey> = root.controllers.iter().map(|one| one.signing_key).collect();
    if keys != own || own.len() != root.controllers.len() {
        return Err(format!(
            "role {name} with the keys of its controllers, each once"
        ));
    }
    let needed = majority(keys.len());
    if role.threshold != needed {
        return Err(format!(
            "{needed} of {} signatures in role {name}",
            keys.len()
        ));
    }
    Ok(())
}

fn nodes(root: &TrustRoot) -> BTreeSet<NodeId> {
    root.controllers.iter().map(|one| one.node).collect()
}
