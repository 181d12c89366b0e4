//! SPIFFE names: which controller or agent of which cluster a certificate speaks for. A name has one spelling only.

use std::{fmt, str::FromStr};

use dotmac_protocol::ids::{AgentId, ClusterId, NodeId};
use x509_parser::{extensions::GeneralName, prelude::X509Certificate};

use super::PkiError;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerName {
    /// A controller, in one life of its disk.
    Controller {
        /// Its number in the cluster.
        node: NodeId,
        /// Which life: lower-case letters, digits and hyphens, at most 64.
        incarnation: String,
    },
    /// An agent.
    Agent(AgentId),
}

/// Who speaks, in which cluster: `spiffe://CLUSTER/controller/NODE/INCARNATION` or `spiffe://CLUSTER/agent/AGENT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeName {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who in it.
    pub name: PeerName,
}

impl fmt::Display for PeerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller { node, incarnation } => {
                write!(formatter, "controller/{node}/{incarnation}")
            }
            Self::Agent(agent) => write!(formatter, "agent/{agent}"),
        }
    }
}

impl fmt::Display for SpiffeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "spiffe://{}/{}", self.cluster, self.name)
    }
}

impl FromStr for SpiffeName {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        parse(text)
            // Only the one spelling that we write ourselves, so that no name has two.
            .filter(|name| name.to_string() == text)
            .ok_or_else(|| PkiError::Name {
                found: text.chars().take(200).collect(),
            })
    }
}

/// The name in a certificate: its only subject alternative name.
pub(super) fn of_certificate(certificate: &X509Certificate<'_>) -> Result<SpiffeName, PkiError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| PkiError::Certificate)?
        .map(|extension| extension.value.general_names.as_slice());
    match names {
        Some([GeneralName::URI(uri)]) => uri.parse(),
        other => Err(PkiError::Name {
            found: format!("{} names", other.map_or(0, <[_]>::len)),
        }),
    }
}

fn parse(text: &str) -> Option<SpiffeName> {
    let (cluster, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
    let name = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["controller", node, incarnation] if is_incarnation(incarnation) => PeerName::Controller {
            node: NodeId(node.parse().ok()?),
            incarnation: (*incarnation).to_owned(),
        },
        ["agent", agent] => PeerName::Agent(agent.parse().ok()?),
        _ => return None,
    };
    Some(SpiffeName {
        cluster: cluster.parse().ok()?,
        name,
    })
}

fn is_incarnation(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::SpiffeName;

    #[test]
    fn a_name_has_one_spelling() {
        for right in [
            "spiffe://main/controller/3/00ff",
            "spiffe://main/agent/eu-1-00ff",
        ] {
            assert_eq!(right.parse::<SpiffeName>().unwrap().to_string(), right);
        }
        for wrong in [
            "",
            "spiffe://main",
            "https://main/agent/eu-1",
            "spiffe://main/controller/03/00ff",
            "spiffe://main/controller/+3/00ff",
            "spiffe://main/controller/3",
            "spiffe://main/controller/3/00ff/more",
            "spiffe://main/controller/3/",
            "spiffe://main/agent/eu-1/",
            "spiffe://main/agent/EU-1",
            "spiffe://Main/agent/eu-1",
            "spiffe://main/agent/eu-1?x",
        ] {
            assert!(wrong.parse::<SpiffeName>().is_err(), "{wrong}");
        }
    }
}
