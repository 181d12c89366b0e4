//! The text of an access token: made and checked by whoever holds it, never by the API, which only ever gets its id and
//! digest.
//!
//! ```text
//!   dotmac_pat_0123456789abcdef_h4ZkUPjzTBr3iTcFLlaRTxJtxvXTeDHu8IDZDRAAmNC2cn2Wa
//!   prefix     id               secret (43)                               CRC-32 (6)
//! ```
//!
//! Secret scanners find it by `\bdotmac_pat_[0-9a-f]{16}_[0-9A-Za-z]{49}\b`, and know by the checksum (CRC-32 as in zip
//! of everything before it, in base 62, digits 0-9A-Za-z) that it is one: whatever fails it was made up or mistyped.

use dotmac_protocol::{digest::Digest, ids::TokenId};
use dotmac_runtime::entropy::Entropy;
use thiserror::Error;

/// What every access token starts with.
pub const ACCESS_TOKEN_PREFIX: &str = "dotmac_pat_";
/// Characters of the public id.
const ID_LENGTH: usize = 16;
/// Characters of the secret: 256 bits in base 62.
const SECRET_LENGTH: usize = 43;
/// Characters of the checksum: 32 bits in base 62.
const CHECKSUM_LENGTH: usize = 6;
/// The digits of base 62.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// An access token, as its holder has it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    text: String,
    id: TokenId,
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "AccessToken({})", self.id)
    }
}

/// Why a text is no access token. It never repeats the text.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum AccessTokenError {
    /// It has another form.
    #[error(
        "it is no access token: one reads {ACCESS_TOKEN_PREFIX}, 16 hexadecimal digits, _ and 49 letters or digits"
    )]
    Form,
    /// A character is wrong, missing or in another place.
    #[error("it is mistyped or cut: its checksum does not fit")]
    Checksum,
}

impl AccessToken {
    /// A new one.
    #[must_use]
    pub fn generate(entropy: &Entropy) -> Self {
        let id = entropy.hex(ID_LENGTH / 2);
        let secret: String = (0..SECRET_LENGTH)
            .map(|_| digit(entropy.below(62)))
            .collect();
        let body = format!("{ACCESS_TOKEN_PREFIX}{id}_{secret}");
        let text = format!("{body}{}", checksum(&body));
        let id = id.parse().expect("16 hexadecimal digits are a token id");
        Self { text, id }
    }

    /// Reads a token; blanks around it do not count.
    ///
    /// # Errors
    /// When it has another form, or a checksum that does not fit.
    pub fn parse(text: &str) -> Result<Self, AccessTokenError> {
        let text = text.trim();
        let parts = text
            .strip_prefix(ACCESS_TOKEN_PREFIX)
            .and_then(|rest| rest.split_once('_'));
        let (id, rest) = parts.ok_or(AccessTokenError::Form)?;
        let id: TokenId = id.parse().map_err(|_| AccessTokenError::Form)?;
        if !rest.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(AccessTokenError::Form);
        }
        let fits = rest.len() == SECRET_LENGTH + CHECKSUM_LENGTH;
        let (body, end) = text.split_at(text.len().saturating_sub(CHECKSUM_LENGTH));
        if !fits || checksum(body) != end {
            return Err(AccessTokenError::Checksum);
        }
        Ok(Self {
            text: text.to_owned(),
            id,
        })
    }

    /// Its public name.
    #[must_use]
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// What controllers know it by.
    #[must_use]
    pub fn digest(&self) -> Digest {
        bearer_digest(&self.text)
    }

    /// The whole text, for the header and for the one time that it is shown.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

/// Digest under which an access token's text is kept. Whatever is looked up or compared is this digest, so that no time
/// that it takes says anything of the secret.
#[must_use]
pub fn bearer_digest(bearer: &str) -> Digest {
    Digest::tagged("dotmac/access-token", bearer.as_bytes())
}

fn checksum(body: &str) -> String {
    let mut rest = u64::from(crc32fast::hash(body.as_bytes()));
    let mut digits = Vec::with_capacity(CHECKSUM_LENGTH);
    for _ in 0..CHECKSUM_LENGTH {
        digits.push(digit(rest % 62));
        rest /= 62;
    }
    digits.into_iter().rev().collect()
}

fn digit(value: u64) -> char {
    let place = usize::try_from(value % 62).expect("it is below 62");
    char::from(DIGITS[place])
}

#[cfg(test)]
mod tests {
    use dotmac_runtime::entropy::Entropy;

    use super::{ACCESS_TOKEN_PREFIX, AccessToken, AccessTokenError, bearer_digest, checksum};

    #[test]
    fn a_token_reads_as_scanners_are_told() {
        let pattern = serde_json::json!({
            "pattern": r"^dotmac_pat_[0-9a-f]{16}_[0-9A-Za-z]{49}$"
        });
        let pattern = jsonschema::draft202012::new(&pattern).unwrap();
        let entropy = Entropy::seeded(1);
        let mut secrets = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let token = AccessToken::generate(&entropy);
            let text = token.reveal();
            assert!(pattern.is_valid(&text.into()), "{text}");
            assert_eq!(AccessToken::parse(&format!(" {text}\n")), Ok(token.clone()));
            assert_eq!(token.digest(), bearer_digest(text));
            assert!(text.contains(token.id().as_str()));
            assert!(!format!("{token:?}").contains(&text[28..]));
            secrets.insert(text[28..71].to_owned());
        }
        assert_eq!(secrets.len(), 100);
        // The example of the file's head, for whoever writes a scanner.
        let body = "dotmac_pat_0123456789abcdef_h4ZkUPjzTBr3iTcFLlaRTxJtxvXTeDHu8IDZDRAAmNC";
        assert_eq!(checksum(body), "2cn2Wa");
    }

    #[test]
    fn every_single_slip_is_noticed_before_anything_is_sent() {
        let token = AccessToken::generate(&Entropy::seeded(2));
        let text = token.reveal();
        let form = |text: &str| AccessToken::parse(text).unwrap_err();
        for place in ACCESS_TOKEN_PREFIX.len()..text.len() {
            let other = if &text[place..=place] == "a" {
                "b"
            } else {
                "a"
            };
            let changed = format!("{}{other}{}", &text[..place], &text[place + 1..]);
            assert!(AccessToken::parse(&changed).is_err(), "{place}");
            let cut = format!("{}{}", &text[..place], &text[place + 1..]);
            assert!(AccessToken::parse(&cut).is_err(), "{place}");
        }
        for place in 28..text.len() - 1 {
            let (one, two) = (&text[place..=place], &text[place + 1..=place + 1]);
            if one != two {
                let swapped = format!("{}{two}{one}{}", &text[..place], &text[place + 2..]);
                assert_eq!(form(&swapped), AccessTokenError::Checksum, "{place}");
            }
        }
        assert_eq!(form(&text[..text.len() - 1]), AccessTokenError::Checksum);
        for wrong in [
            "",
            "x",
            "dotmac_pat_",
            "dotmac-join-1.abc",
            &text[1..],
            &text.replace('_', "-"),
        ] {
            assert_eq!(form(wrong), AccessTokenError::Form, "{wrong}");
        }
    }

    #[test]
    fn how_near_a_guess_is_does_not_show_in_what_is_compared() {
        // What is looked up is the digest alone. A guess that shares all but the last character with a real token has a
        // digest as far from the real one as any other: there is nothing to feel one's way along.
        let token = AccessToken::generate(&Entropy::seeded(3));
        let text = token.reveal();
        let real = token.digest();
        let shared = |length: usize| {
            let guess = format!("{}!{}", &text[..length], &text[length + 1..]);
            let guess = bearer_digest(&guess);
            let mut pairs = guess.as_bytes().iter().zip(real.as_bytes());
            pairs.position(|(one, other)| one != other).unwrap_or(32)
        };
        let longest = (0..text.len()).map(shared).max();
        assert!(longest <= Some(2), "{longest:?}");
    }
}
