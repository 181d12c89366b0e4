//! Addresses to listen on, out of configuration files: an error says what was written and what is allowed.

use std::net::SocketAddr;

use serde::{Deserialize as _, Deserializer, de::Error as _};

/// Reads `ADDRESS:PORT` (for `#[serde(deserialize_with = …)]`). Names such as `localhost` are refused: they may mean several
/// addresses.
///
/// # Errors
/// When the text is anything else.
pub fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(format_args!(
            "{text:?} is no address to listen on: allowed is IP:PORT with a port from 0 to 65535, such as 127.0.0.1:8000 \
             or [::1]:8000"
        ))
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Config {
        #[serde(deserialize_with = "super::address")]
        listen: std::net::SocketAddr,
    }

    #[test]
    fn an_error_says_what_was_written_and_what_is_allowed() {
        let read = |text: &str| {
            let object = serde_json::json!({ "listen": text }).to_string();
            serde_json::from_str::<Config>(&object).map(|config| config.listen.to_string())
        };
        assert_eq!(read("[::1]:80").unwrap(), "[::1]:80");
        for wrong in ["127.0.0.1:99999", "localhost:80", "127.0.0.1", ""] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
            assert!(error.contains("IP:PORT"), "{error}");
        }
    }
}
