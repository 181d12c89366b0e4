//! How the copies of components are made to run. There is one driver so far, for processes on this host; what it
//! cannot do it refuses by name.

pub mod process;

use std::{fmt, io, path::PathBuf, str::FromStr};

use dotmac_protocol::{digest::Digest, ids::PartName};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One copy of one component of a unit, such as `web.0`: what is started, watched and stopped as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotName {
    /// The component.
    pub component: PartName,
    /// Which copy, from 0.
    pub replica: u16,
}

/// The text is no slot name.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("slot {0:?} is not a component, a dot and a number")]
pub struct SlotNameError(String);

impl fmt::Display for SlotName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.component, self.replica)
    }
}

impl FromStr for SlotName {
    type Err = SlotNameError;

    fn from_str(text: &str) -> Result<Self, SlotNameError> {
        let parsed = text.split_once('.').and_then(|(component, replica)| {
            Some(Self {
                component: component.parse().ok()?,
                replica: replica.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| SlotNameError(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for SlotName {
    type Error = SlotNameError;

    fn try_from(text: String) -> Result<Self, SlotNameError> {
        text.parse()
    }
}

impl From<SlotName> for String {
    fn from(slot: SlotName) -> Self {
        slot.to_string()
    }
}

/// Why a copy of a component is not started. Nothing was started then.
#[derive(Debug, Error)]
pub enum StartError {
    /// It needs another driver.
    #[error(
        "component {component} runs the image {image}, and this agent's process driver runs programs only"
    )]
    Image { component: PartName, image: String },
    /// There is no such program.
    #[error("program {program} of component {component} is not on this host")]
    Program {
        component: PartName,
        program: String,
    },
    /// The program's file is another one than the release pins.
    #[error("program {} has digest {found}, the release pins {pinned}", path.display())]
    Pin {
        path: PathBuf,
        found: Digest,
        pinned: String,
    },
    /// Started without these it would run unlicensed without a word.
    #[error("{0} is missing, and nothing is started without it")]
    Identity(&'static str),
    /// Everybody on the host can read arguments.
    #[error(
        "an argument of component {component} refers to the secret {reference}; secrets go into variables"
    )]
    SecretArgument {
        component: PartName,
        reference: String,
    },
    /// The manifest refers to something that does not exist.
    #[error("component {component} refers to {reference}, which does not exist")]
    Reference {
        component: PartName,
        reference: String,
    },
    /// All ports are taken.
    #[error("no port is free between {first} and {last}")]
    Ports { first: u16, last: u16 },
    /// The platform cannot say what the instance gets.
    #[error("the instance's environment is not to be had: {0}")]
    Platform(String),
    /// A file cannot be read or made.
    #[error("{} cannot be used: {source}", path.display())]
    Disk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The shim did not start it.
    #[error("{0}")]
    Shim(String),
}

#[cfg(test)]
mod tests {
    use super::SlotName;

    #[test]
    fn slot_names_round_trip_and_stay_in_their_folder() {
        let slot: SlotName = "web-1.12".parse().unwrap();
        assert_eq!((slot.component.as_str(), slot.replica), ("web-1", 12));
        assert_eq!(slot.to_string(), "web-1.12");
        for wrong in ["web", "web.", ".0", "../x.0", "web.-1", "web.0.1", "we b.0"] {
            assert!(wrong.parse::<SlotName>().is_err(), "{wrong}");
        }
    }
}
