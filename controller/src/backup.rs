//! Backups: the State of one moment and the facts up to it, sealed to keys that no controller holds.
//!
//! ```text
//!   keeper (leader: schedule, requests, retention) -> write -> target (directory or S3)
//!   dotmac backup list|verify ---------------------> read  <-'
//!   dotmac backup restore -> restore -> a new store for each controller
//! ```
//! A backup under way delays nothing else, and one without its manifest is none. It refuses to write a secret in clear.

pub mod keeper;
pub mod latest;
pub mod listing;
pub mod manifest;
pub mod origin;
pub mod read;
pub mod recipient;
pub mod restore;
pub mod retention;
pub mod target;
pub mod write;

use dotmac_domain::backups::Schedule;
use dotmac_protocol::time::Timestamp;
use dotmac_runtime::{entropy::Entropy, keyfile};
use thiserror::Error;

use crate::config::Backup;
use recipient::{KeyError, Recipient};
use retention::Retention;
use target::Reach;

/// How backups of this cluster are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the target.
    pub target: String,
    /// How it is reached.
    pub reach: Reach,
    /// Who can open them.
    pub recipients: Vec<Recipient>,
    /// When they are made without being asked for.
    pub schedule: Option<Schedule>,
    /// Which are kept.
    pub retention: Retention,
}

/// Why the section `[backup]` cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// A recipient is none.
    #[error(transparent)]
    Recipient(#[from] KeyError),
    /// A file with a credential cannot be read.
    #[error("a credential of the backup target cannot be read")]
    Credential(#[from] keyfile::KeyFileError),
    /// A file with a credential holds no text.
    #[error("{path} holds no credential: one line of text")]
    Text {
        /// Which file.
        path: String,
    },
}

impl Settings {
    /// What the configuration says; `None` when it names no target. Reads the credentials.
    ///
    /// # Errors
    /// When a recipient or a file with a credential is of no use.
    pub fn of(config: &Backup) -> Result<Option<Self>, SettingsError> {
        let Some(target) = config.target.clone() else {
            return Ok(None);
        };
        let recipients: Result<_, _> = config.recipients.iter().map(|text| text.parse()).collect();
        Ok(Some(Self {
            target,
            reach: reach(config)?,
            recipients: recipients?,
            schedule: config.schedule(),
            retention: config.retention(),
        }))
    }
}

/// How the target of a configuration is reached.
///
/// # Errors
/// When a file with a credential cannot be read.
pub fn reach(config: &Backup) -> Result<Reach, SettingsError> {
    let credential = |path: &Option<std::path::PathBuf>| {
        let Some(path) = path else { return Ok(None) };
        let bytes = keyfile::read_private(path)?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
        if text.is_empty() || text.contains(char::is_whitespace) {
            let path = path.display().to_string();
            return Err(SettingsError::Text { path });
        }
        Ok(Some(text.to_owned()))
    };
    Ok(Reach {
        endpoint: config.endpoint.clone(),
        region: config.region.clone(),
        access_key_id: credential(&config.access_key_id_file)?,
        secret_access_key: credential(&config.secret_access_key_file)?,
    })
}

/// A name for a backup that begins now: second and millisecond, so that names sort by time, and a few random digits.
#[must_use]
pub fn name_at(now: Timestamp, entropy: &Entropy) -> String {
    let seconds = i64::try_from(now.0 / 1_000).unwrap_or(i64::MAX);
    let moment = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
    let (moment, random) = (moment.strftime("%Y%m%dT%H%M%SZ"), entropy.hex(2));
    format!("{moment}-{:03x}{}", now.0 % 1_000, &random[..3])
}

/// When a backup of this name began.
#[must_use]
pub fn began(name: &str) -> Option<Timestamp> {
    let (moment, _) = name.split_once('-')?;
    let moment = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", moment).ok()?;
    let moment = moment.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    u64::try_from(moment.timestamp().as_millisecond())
        .ok()
        .map(Timestamp)
}

#[cfg(test)]
mod tests {
    use dotmac_domain::backups::is_name;
    use dotmac_protocol::time::Timestamp;
    use dotmac_runtime::entropy::Entropy;

    use super::{began, name_at};

    #[test]
    fn names_of_one_second_sort_by_their_time() {
        let entropy = Entropy::seeded(3);
        let names: Vec<String> = [0, 1, 9, 10, 255, 256, 999, 1_000]
            .map(|millis| name_at(Timestamp(1_700_000_000_000 + millis), &entropy))
            .into();
        assert!(names.iter().all(|name| is_name(name)), "{names:?}");
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(began(&names[6]), Some(Timestamp(1_700_000_000_000)));
    }
}
