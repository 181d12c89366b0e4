//! Answers of agents to live questions: sealed to a key that lives only in this process, so no controller reads them.

use dotmac_protocol::unit::Sealed;
use dotmac_runtime::{entropy::Entropy, seal::SealKey};
use serde::Deserialize;

use super::{audit::stream::Digest32, failure::Failure, output::clean_line};

/// What answers of agents are sealed under.
const ANSWER_CONTEXT: &str = "dotmac/answer/v1";

/// Who asks: the key to which one answer is sealed.
pub(crate) struct Asker {
    key: SealKey,
}

/// A line of the sealed stream.
#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Sealed {
        to: Digest32,
        encapsulated: String,
        ciphertext: String,
    },
    Refused {
        refused: String,
    },
}

impl Asker {
    /// Somebody with a new key.
    pub(crate) fn new(entropy: &Entropy) -> Self {
        Self {
            key: SealKey::generate(entropy),
        }
    }

    /// The key as the parameter `seal_to` wants it.
    pub(crate) fn seal_to(&self) -> String {
        hex::encode(self.key.public())
    }

    /// Opens one line of the sealed stream; an empty one holds nothing.
    ///
    /// # Errors
    /// When the agent refuses, or the line is not sealed to this key.
    pub(crate) fn open(&self, line: &[u8]) -> Result<Vec<u8>, Failure> {
        if line.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        let piece: Piece = serde_json::from_slice(line).map_err(Failure::answer)?;
        let (to, encapsulated, ciphertext) = match piece {
            Piece::Refused { refused } => {
                let reason = clean_line(&refused);
                return Err(Failure::Failed(format!("the agent refuses: {reason}")));
            }
            Piece::Sealed {
                to,
                encapsulated,
                ciphertext,
            } => (to.0, encapsulated, ciphertext),
        };
        let mut encapsulated_bytes = [0; 32];
        hex::decode_to_slice(encapsulated, &mut encapsulated_bytes).map_err(Failure::answer)?;
        let sealed = Sealed {
            to,
            encapsulated: encapsulated_bytes,
            ciphertext: hex::decode(ciphertext).map_err(Failure::answer)?,
        };
        let clear = self.key.open(ANSWER_CONTEXT, &sealed);
        Ok(clear.map_err(Failure::answer)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use dotmac_runtime::{entropy::Entropy, seal};

    use super::{ANSWER_CONTEXT, Asker};

    #[test]
    fn only_the_key_of_the_asker_opens_a_line() {
        let entropy = Entropy::seeded(1);
        let (mine, other) = (Asker::new(&entropy), Asker::new(&entropy));
        let public = mine.key.public();
        let sealed = seal::seal(&public, ANSWER_CONTEXT, b"web: started\n", &entropy).unwrap();
        let line = serde_json::json!({"to": sealed.to.to_string(), "encapsulated": hex::encode(sealed.encapsulated),
            "ciphertext": hex::encode(&sealed.ciphertext)})
        .to_string();
        assert_eq!(mine.open(line.as_bytes()).unwrap(), b"web: started\n");
        assert!(other.open(line.as_bytes()).is_err());
        assert_eq!(mine.open(b"\n").unwrap(), b"");
        let refused = mine.open(br#"{"refused":"no such unit"}"#).unwrap_err();
        assert_eq!(refused.to_string(), "the agent refuses: no such unit");
    }
}
