//! Who the controllers are: which of them learn, vote and are to go. A number and the life of a disk are used once and
//! never again, one change is made at a time, and a controller votes before it may sign. It refuses to decide who
//! signs: that is the trust root.

use std::collections::BTreeSet;

use dotmac_protocol::{digest::Digest, ids::NodeId, time::Timestamp, trust::TrustRoot};
use serde::{Deserialize, Serialize};

use crate::{
    access::Permission,
    command::{Genesis, NodeCard},
    envelope::Envelope,
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
};

/// Controllers that learn or vote at the same time at most: seven, and one that takes another's place.
pub const CONTROLLERS_MAX: usize = 8;
/// Controllers at most that ever were; those that left are remembered for ever.
pub const CONTROLLERS_EVER_MAX: usize = 1_000;
/// Bytes of a controller's address at most.
pub const ADDRESS_BYTES_MAX: usize = 300;
/// Bytes of a controller's issuing certificate at most.
pub const ISSUER_BYTES_MAX: usize = 4 * 1024;

/// One controller as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// Its public side.
    pub card: NodeCard,
    /// What it takes part in.
    pub standing: Standing,
    /// Since when.
    pub since: Timestamp,
}

/// What a controller takes part in. Whether it signs is said by the trust root alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// It gets everything and has no vote.
    Learner,
    /// It is to vote as soon as it has caught up.
    Joining,
    /// It votes.
    Voter,
    /// It is to go; it may still vote.
    Leaving,
    /// It is gone. Its number and its disk are never used again.
    Retired,
}

impl Standing {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Learner => "learner",
            Self::Joining => "joining",
            Self::Voter => "voter",
            Self::Leaving => "leaving",
            Self::Retired => "retired",
        }
    }
}

/// A change of the controllers that is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Whose.
    pub node: NodeId,
    /// What it waits for, and who can go on.
    pub waits_for: String,
}

/// Who is to take part in the replicated log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// With a vote.
    pub voters: BTreeSet<NodeId>,
    /// Without one.
    pub learners: BTreeSet<NodeId>,
}

impl State {
    /// The controllers and the trust root that the genesis names. A State of version 1 gets them so, too.
    pub(crate) fn seed_controllers(&mut self, genesis: &Genesis, trust: TrustRoot) {
        self.begin_with(genesis, trust, genesis.created_at);
    }

    /// The controllers of a genesis vote, and its trust root is in force.
    pub(crate) fn begin_with(&mut self, genesis: &Genesis, trust: TrustRoot, now: Timestamp) {
        for card in &genesis.nodes {
            let controller = Controller {
                card: card.clone(),
                standing: Standing::Voter,
                since: now,
            };
            self.controllers.insert_mut(card.node, controller);
        }
        self.put_trust_root(genesis.trust_root.clone(), trust, now);
    }

    /// All controllers are gone: the cluster goes on with others.
    pub(crate) fn retire_all_controllers(&mut self, now: Timestamp) {
        let controllers: Vec<Controller> = self.controllers.values().cloned().collect();
        for controller in controllers {
            let standing = Standing::Retired;
            let node = controller.card.node;
            let retired = Controller {
                standing,
                since: now,
                ..controller
            };
            self.controllers.insert_mut(node, retired);
        }
    }

    /// The controllers that did not leave, by number.
    pub fn present_controllers(&self) -> impl Iterator<Item = &Controller> {
        let controllers = self.controllers.values();
        controllers.filter(|one| one.standing != Standing::Retired)
    }

    /// Whether the trust root in force has this controller's key.
    #[must_use]
    pub fn signs(&self, node: NodeId) -> bool {
        let trust = self.trust.as_ref();
        trust.is_some_and(|trust| trust.controllers.iter().any(|one| one.node == node))
    }

    /// The controllers that agents may talk to: those of the trust root in force.
    pub fn signing_controllers(&self) -> impl Iterator<Item = &Controller> {
        self.present_controllers()
            .filter(|one| self.signs(one.card.node))
    }

    /// Who is to take part in the replicated log.
    #[must_use]
    pub fn wanted_members(&self) -> Members {
        let mut members = Members::default();
        for controller in self.controllers.values() {
            match controller.standing {
                Standing::Joining | Standing::Voter => &mut members.voters,
                Standing::Learner => &mut members.learners,
                Standing::Leaving | Standing::Retired => continue,
            }
            .insert(controller.card.node);
        }
        members
    }

    /// The change that has to be finished before another one begins.
    #[must_use]
    pub fn unfinished_change(&self) -> Option<Unfinished> {
        self.controllers.values().find_map(|one| {
            let node = one.card.node;
            let waits_for = match one.standing {
                Standing::Learner => {
                    format!("it learns until `dotmac cluster promote {node}` or `remove-node {node}`")
                }
                Standing::Joining => "it is to vote once it has everything".to_owned(),
                Standing::Voter if !self.signs(node) => format!(
                    "it votes and does not sign until `dotmac cluster promote {node}` or `remove-node {node}`"
                ),
                Standing::Leaving => "it is about to leave".to_owned(),
                Standing::Voter | Standing::Retired => return None,
            };
            Some(Unfinished { node, waits_for })
        })
    }

    /// A controller that is known, or a rejection.
    fn known_controller(&self, node: NodeId) -> Result<&Controller, Rejection> {
        let found = self.controllers.get(&node);
        found.ok_or_else(|| Rejection::not_found("controller", node))
    }

    /// That no other controller's change is unfinished.
    pub(crate) fn require_only_change(&self, node: Option<NodeId>) -> Result<(), Rejection> {
        match self
            .unfinished_change()
            .filter(|one| Some(one.node) != node)
        {
            None => Ok(()),
            Some(Unfinished { node, waits_for }) => Err(Rejection::new(
                Code::WrongState,
                format!(
                    "one change at a time: that of controller {node} is not finished: {waits_for}"
                ),
            )),
        }
    }

    pub(crate) fn admit_controller(
        &mut self,
        envelope: &Envelope,
        card: &NodeCard,
        now: Timestamp,
    ) -> Reply {
        self.require(&envelope.actor, Permission::ClusterWrite, None)?;
        let known = self.controllers.get(&card.node);
        if known.is_some_and(|known| known.card == *card && known.standing == Standing::Learner) {
            return Ok(Accepted::Done);
        }
        check_card(card)?;
        self.check_unused(card)?;
        self.require_only_change(None)?;
        let (ever, present) = (self.controllers.size(), self.present_controllers().count());
        if ever >= CONTROLLERS_EVER_MAX || present >= CONTROLLERS_MAX {
            let detail = format!(
                "a cluster has at most {CONTROLLERS_MAX} controllers, {CONTROLLERS_EVER_MAX} in its life"
            );
            return Err(Rejection::new(Code::LimitReached, detail));
        }
        let controller = Controller {
            card: card.clone(),
            standing: Standing::Learner,
            since: now,
        };
        self.controllers.insert_mut(card.node, controller);
        Ok(Accepted::Done)
    }

    /// That nothing of a card belongs to another controller, be it one that left.
    fn check_unused(&self, card: &NodeCard) -> Result<(), Rejection> {
        for known in self.controllers.values() {
            let (other, is_gone) = (&known.card, known.standing == Standing::Retired);
            let used = [
                ("node", other.node == card.node, card.node.to_string()),
                (
                    "incarnation",
                    other.incarnation == card.incarnation,
                    card.incarnation.to_string(),
                ),
                (
                    "signing_key",
                    other.signing_key == card.signing_key,
                    hex(&card.signing_key.0),
                ),
                (
                    "issuer",
                    other.issuer == card.issuer,
                    Digest::of(&card.issuer).to_string(),
                ),
                (
                    "link_address",
                    !is_gone && other.link_address == card.link_address,
                    card.link_address.clone(),
                ),
                (
                    "api_address",
                    !is_gone && other.api_address == card.api_address,
                    card.api_address.clone(),
                ),
            ];
            if let Some((field, _, value)) = used.into_iter().find(|(_, is_used, _)| *is_used) {
                let allowed = format!(
                    "one that no controller has or had; controller {} is {}",
                    other.node,
                    known.standing.as_str()
                );
                return Err(Rejection::field(field, value, allowed));
            }
        }
        Ok(())
    }

    pub(crate) fn promote_controller(
        &mut self,
        envelope: &Envelope,
        node: NodeId,
        now: Timestamp,
    ) -> Reply {
        self.require(&envelope.actor, Permission::ClusterWrite, None)?;
        let standing = self.known_controller(node)?.standing;
        self.require_only_change(Some(node))?;
        match standing {
            Standing::Learner => self.stand(node, Standing::Joining, now),
            Standing::Joining | Standing::Voter => {}
            Standing::Leaving | Standing::Retired => {
                let detail = format!("controller {node} is {}", standing.as_str());
                return Err(Rejection::new(Code::WrongState, detail));
            }
        }
        Ok(Accepted::Done)
    }

    pub(crate) fn retire_controller(
        &mut self,
        envelope: &Envelope,
        node: NodeId,
        now: Timestamp,
    ) -> Reply {
        self.require(&envelope.actor, Permission::ClusterWrite, None)?;
        let standing = self.known_controller(node)?.standing;
        let wrong = |detail: String| Err(Rejection::new(Code::WrongState, detail));
        if matches!(standing, Standing::Leaving | Standing::Retired) {
            return Ok(Accepted::Done);
        }
        if self.signs(node) {
            return wrong(format!(
                "controller {node} signs: first its key has to leave the trust root"
            ));
        }
        self.require_only_change(Some(node))?;
        let voters = self.wanted_members().voters;
        if voters.iter().all(|voter| *voter == node) {
            return wrong(format!("controller {node} is the last one that votes"));
        }
        self.stand(node, Standing::Leaving, now);
        Ok(Accepted::Done)
    }

    /// Notes who takes part in the replicated log, as its leader says.
    pub(crate) fn note_members(
        &mut self,
        envelope: &Envelope,
        voters: &[NodeId],
        learners: &[NodeId],
        now: Timestamp,
    ) -> Reply {
        self.require_planner(envelope)?;
        let changes: Vec<(NodeId, Standing)> = self
            .controllers
            .values()
            .filter_map(|one| {
                let node = one.card.node;
                let (votes, learns) = (voters.contains(&node), learners.contains(&node));
                match one.standing {
                    Standing::Joining if votes => Some((node, Standing::Voter)),
                    Standing::Leaving if !votes && !learns => Some((node, Standing::Retired)),
                    _ => None,
                }
            })
            .collect();
        for (node, standing) in changes {
            self.stand(node, standing, now);
        }
        Ok(Accepted::Done)
    }

    fn stand(&mut self, node: NodeId, standing: Standing, now: Timestamp) {
        if let Some(known) = self.controllers.get(&node) {
            let changed = Controller {
                standing,
                since: now,
                ..known.clone()
            };
            self.controllers.insert_mut(node, changed);
        }
    }
}

/// What must hold of any card.
fn check_card(card: &NodeCard) -> Result<(), Rejection> {
    if card.node.0 == 0 {
        return Err(Rejection::field("node", card.node, "a number from 1"));
    }
    let addresses = [
        ("link_address", &card.link_address),
        ("api_address", &card.api_address),
    ];
    for (field, address) in addresses {
        if !is_address(address) {
            let allowed = format!("HOST:PORT of at most {ADDRESS_BYTES_MAX} characters");
            return Err(Rejection::field(field, address, allowed));
        }
    }
    if card.issuer.is_empty() || card.issuer.len() > ISSUER_BYTES_MAX {
        let allowed = format!("a certificate of 1 to {ISSUER_BYTES_MAX} bytes");
        return Err(Rejection::field("issuer", card.issuer.len(), allowed));
    }
    Ok(())
}

fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0) && address.len() <= ADDRESS_BYTES_MAX
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
