//! Which rules apply follows. The State holds one version, raised by a command once every voter can follow it; what a
//! newer version brought counts from then on only, so that until then the program of before can be put back.
//!
//! It refuses to lower the version, and commands of rules that are not in force yet.

use dotmac_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    access::Permission,
    command::Command,
    envelope::{ATTESTATION_BATCH_RULES, Actor, Envelope, Evidence},
    reply::{Accepted, Code, Rejection, Reply},
    state::State,
};

/// The newest rules that this program follows; a new cluster begins with them.
pub const RULES_VERSION: u16 = 2;
/// The oldest rules that this program still follows.
pub const RULES_OLDEST: u16 = 1;

/// When rules came into force, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// When.
    pub at: Timestamp,
    /// Who asked for it.
    pub by: Actor,
}

impl Command {
    /// The oldest rules under which it is taken. Whoever adds a command says here since when it exists: a program
    /// of older rules cannot read it, and must never find it in its log.
    #[must_use]
    pub fn rules_needed(&self) -> u16 {
        match self {
            Self::FollowTrustRoot { .. }
            | Self::AdmitController(_)
            | Self::PromoteController { .. }
            | Self::RetireController { .. }
            | Self::NoteMembers(_)
            | Self::DropFacts { .. }
            | Self::RequestBackup
            | Self::NoteBackup { .. }
            | Self::AdoptInventory { .. } => 2,
            _ => RULES_OLDEST,
        }
    }
}

impl Evidence {
    /// The oldest rules under which it is taken; the same as of commands holds.
    #[must_use]
    pub fn rules_needed(&self) -> u16 {
        match self {
            Self::None | Self::Attested { .. } | Self::RequestSigned { .. } => RULES_OLDEST,
            Self::AttestedInBatch(_) => ATTESTATION_BATCH_RULES,
        }
    }
}

impl Envelope {
    /// The rules that a program must know to read this entry of the log.
    #[must_use]
    pub fn rules_to_read(&self) -> u16 {
        let command = match &self.command {
            Command::Found(_) => self.rules,
            Command::RaiseRules { to } => *to,
            command => command.rules_needed(),
        };
        command.max(self.evidence.rules_needed())
    }
}

impl State {
    /// Refuses a command or evidence of rules that are not in force. Whoever proposes asks this before the command gets into the log,
    /// where a program of before could not read it.
    ///
    /// # Errors
    /// With a sentence that says how the rules are raised.
    pub fn require_rules(&self, command: &Command, evidence: &Evidence) -> Result<(), Rejection> {
        self.require_version(command.rules_needed().max(evidence.rules_needed()))
    }

    fn require_version(&self, needed: u16) -> Result<(), Rejection> {
        if self.genesis.is_none() || needed <= self.rules {
            return Ok(());
        }
        let detail = format!(
            "this needs version {needed} of the rules, and version {} is in force: once every controller runs a program \
             that knows it, `dotmac cluster finalize` raises it",
            self.rules
        );
        Err(Rejection::new(Code::WrongState, detail))
    }

    /// Puts newer rules into force, for good.
    pub(crate) fn raise_rules(&mut self, envelope: &Envelope, to: u16, now: Timestamp) -> Reply {
        self.require(&envelope.actor, Permission::ClusterWrite, None)?;
        if to == self.rules {
            return Ok(Accepted::Done);
        }
        if to < self.rules {
            let detail = format!(
                "version {} of the rules is in force, and rules are never taken back",
                self.rules
            );
            return Err(Rejection::new(Code::WrongState, detail));
        }
        if to > RULES_VERSION {
            let allowed = format!("at most {RULES_VERSION}, the newest that this program knows");
            return Err(Rejection::field("to", to, allowed));
        }
        self.enter_rules(to, &envelope.actor, now);
        Ok(Accepted::Done)
    }

    /// Enters every version up to `to`, one after the other, with what each brings.
    pub(crate) fn enter_rules(&mut self, to: u16, by: &Actor, at: Timestamp) {
        for version in self.rules + 1..=to {
            self.rules = version;
            if version >= 2 {
                let raised = Raised { at, by: by.clone() };
                self.raised.insert_mut(version, raised);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{command::Genesis, reply::Code, state::State};

    #[test]
    fn a_command_of_rules_to_come_is_refused_with_the_way_to_them() {
        let genesis: Genesis = dotmac_protocol::codec::decode(
            &hex::decode(
                include_str!("../tests/golden/genesis.hex")
                    .split_whitespace()
                    .collect::<String>(),
            )
            .unwrap(),
        )
        .unwrap();
        let state = State {
            rules: 1,
            genesis: Some(genesis),
            ..State::default()
        };
        assert!(state.require_version(1).is_ok());
        let refused = state.require_version(2).unwrap_err();
        assert_eq!(refused.code, Code::WrongState);
        assert_eq!(
            refused.detail,
            "this needs version 2 of the rules, and version 1 is in force: once every controller runs a program that \
             knows it, `dotmac cluster finalize` raises it"
        );
    }
}
