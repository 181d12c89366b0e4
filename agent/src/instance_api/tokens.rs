//! What a token has to say before it counts, and which tokens were used already. It trusts signatures that somebody
//! else has checked; it looks at claims alone.
//!
//! Used tokens are remembered per unit by the second of their issue until they are over anyway. When a unit's memory is
//! full its oldest second is dropped, and nothing issued up to then counts any more; nor does what was issued before
//! this agent started, of which nothing is remembered but how far it lay ahead ([`Ahead`]). Instances sign every call
//! anew, so that neither hits them.

mod ahead;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use dotmac_protocol::{digest::Digest, ids::UnitId, time::Timestamp};
use serde::Deserialize;
use serde_json::{Number, Value};

use self::ahead::Ahead;
use super::{fields::numeric_date, problem::Problem};

/// Milliseconds that a token may live.
const LIFETIME_MS: u64 = 3_600_000;
/// Milliseconds that clocks may be apart.
const TOLERANCE_MS: u64 = 60_000;
/// Tokens of a unit that are remembered.
pub(super) const REMEMBERED_MAX: usize = 64 * 1024;
/// How often units that are silent are forgotten, in seconds.
const SWEEP_EVERY_S: u64 = 600;

/// The claims that matter. Others are allowed and ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    sub: Option<String>,
    #[serde(rename = "type")]
    kind: Option<Value>,
    service_type: Option<Value>,
    tenant_id: Option<Value>,
    iat: Option<Number>,
    nbf: Option<Number>,
    exp: Option<Number>,
    jti: Option<String>,
}

/// A token whose claims are in order: when it was issued, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    issued_s: u64,
    name: u64,
}

/// The used tokens of all units.
#[derive(Debug)]
pub(super) struct Used {
    started_s: u64,
    ahead: Ahead,
    units: Mutex<Units>,
}

#[derive(Debug, Default)]
struct Units {
    units: BTreeMap<UnitId, UsedByUnit>,
    swept_s: u64,
}

#[derive(Debug)]
struct UsedByUnit {
    by_second: BTreeMap<u64, HashSet<u64>>,
    count: usize,
    /// Tokens issued before this second do not count.
    floor_s: u64,
}

impl Claims {
    /// Whose secret to try first: a hint, and nothing else.
    pub(super) fn tenant(&self) -> Option<&str> {
        let of_subject = self.sub.as_deref().and_then(|sub| sub.strip_prefix("isp-"));
        let of_claim = self.tenant_id.as_ref().and_then(Value::as_str);
        of_claim.or(of_subject)
    }

    /// Checks all that can be checked without memory.
    pub(super) fn check(&self, now: Timestamp) -> Result<Checked, Problem> {
        let missing = Problem::Unauthorized("the token needs sub, iat, exp and jti");
        let time = |number: &Option<Number>| number.as_ref().and_then(numeric_date);
        let is_named = self.sub.as_deref().is_some_and(|sub| !sub.is_empty());
        let (Some(issued), Some(ends), Some(name), true) =
            (time(&self.iat), time(&self.exp), &self.jti, is_named)
        else {
            return Err(missing);
        };
        if name.is_empty() {
            return Err(missing);
        }
        let refused = |why| Err(Problem::Unauthorized(why));
        if ends <= now.0 {
            return refused("the token has expired");
        }
        if issued > now.0.saturating_add(TOLERANCE_MS) {
            return refused("the token was issued in the future");
        }
        if self.nbf.is_some() && time(&self.nbf).is_none_or(|begins| begins > now.0) {
            return refused("the token is not valid yet");
        }
        if ends > issued.saturating_add(LIFETIME_MS + TOLERANCE_MS) {
            return refused("the token lives longer than an hour");
        }
        let word =
            |claim: &Option<Value>, word: &str| claim.as_ref().is_some_and(|one| one == word);
        if !word(&self.kind, "service") {
            return refused("the token is not of type service");
        }
        if !word(&self.service_type, "isp") {
            return Err(Problem::Forbidden("only isp services may call this"));
        }
        Ok(Checked {
            issued_s: issued / 1_000,
            name: name_of(name),
        })
    }
}

impl Used {
    /// Nothing is remembered of what was issued before now; `ahead_file` says how far ahead of the clock that went.
    pub(super) fn open(ahead_file: PathBuf, now: Timestamp) -> Self {
        Self {
            started_s: now.0 / 1_000,
            ahead: Ahead::open(ahead_file, now),
            units: Mutex::default(),
        }
    }

    /// Notes that a unit uses a token. It is not to be answered before [`Used::keep`] where that is needed.
    ///
    /// # Errors
    /// When it was used before, or may have been.
    pub(super) fn note(
        &self,
        unit: &UnitId,
        token: &Checked,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let now_s = now.0 / 1_000;
        let mut units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        units.sweep(now_s);
        let used = units
            .units
            .entry(unit.clone())
            .or_insert_with(|| UsedByUnit {
                by_second: BTreeMap::new(),
                count: 0,
                floor_s: self.started_s,
            });
        // A clock that was set back must not shut an instance out until it has caught up.
        used.floor_s = used.floor_s.min(now_s);
        used.forget_before(now_s.saturating_sub((LIFETIME_MS + TOLERANCE_MS) / 1_000));
        let before_start = self.ahead.floor_s(unit, now).unwrap_or_default();
        if token.issued_s < used.floor_s.max(before_start) {
            return Err(Problem::Unauthorized(
                "the token is too old to be told from a used one",
            ));
        }
        if used.is_known(token) {
            return Err(Problem::Unauthorized("the token was used before"));
        }
        used.remember(token);
        Ok(())
    }

    /// Writes down what a restart must know of a used token. It may wait for the disk: see [`Checked::is_ahead`].
    ///
    /// # Errors
    /// When the disk does not take it: the token is used up and counts for nothing.
    pub(super) fn keep(
        &self,
        unit: &UnitId,
        token: &Checked,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let kept = self.ahead.keep(unit, token.issued_s, now);
        kept.map_err(|error| {
            tracing::error!(%unit, %error, "a used token cannot be written down");
            Problem::Unavailable
        })
    }
}

impl Checked {
    /// Whether it was issued ahead of the clock, so that a start in between does not refuse it by itself.
    pub(super) fn is_ahead(&self, now: Timestamp) -> bool {
        self.issued_s > now.0 / 1_000
    }
}

impl Units {
    fn sweep(&mut self, now_s: u64) {
        if now_s.abs_diff(self.swept_s) < SWEEP_EVERY_S {
            return;
        }
        self.swept_s = now_s;
        let oldest = now_s.saturating_sub((LIFETIME_MS + TOLERANCE_MS) / 1_000);
        self.units.retain(|_, used| {
            used.forget_before(oldest);
            used.count > 0 || used.floor_s > oldest
        });
    }
}

impl UsedByUnit {
    fn is_known(&self, token: &Checked) -> bool {
        let second = self.by_second.get(&token.issued_s);
        second.is_some_and(|names| names.contains(&token.name))
    }

    fn remember(&mut self, token: &Checked) {
        self.by_second
            .entry(token.issued_s)
            .or_default()
            .insert(token.name);
        self.count += 1;
        while self.count > REMEMBERED_MAX
            && let Some((second, names)) = self.by_second.pop_first()
        {
            self.count -= names.len();
            self.floor_s = self.floor_s.max(second + 1);
        }
    }

    fn forget_before(&mut self, second: u64) {
        let kept = self.by_second.split_off(&second);
        let gone = std::mem::replace(&mut self.by_second, kept);
        self.count -= gone.values().map(HashSet::len).sum::<usize>();
    }
}

fn name_of(jti: &str) -> u64 {
    let digest = Digest::tagged("dotmac/jti/v1", jti.as_bytes());
    let first = digest.as_bytes().first_chunk::<8>();
    u64::from_le_bytes(*first.expect("a digest is longer"))
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::time::Timestamp;

    use super::{Checked, REMEMBERED_MAX, Used};
    use crate::fixture::{NOW, unit};

    fn used() -> Used {
        Used::open("no such directory/tokens".into(), NOW)
    }

    fn token(issued_s: u64, name: u64) -> Checked {
        Checked { issued_s, name }
    }

    #[test]
    fn a_token_counts_once_per_unit_and_only_from_the_start_on() {
        let (used, now_s) = (used(), NOW.0 / 1_000);
        let note = |name: &str, token: &Checked, at| used.note(&unit(name), token, at).is_ok();
        assert!(note("demo", &token(now_s, 1), NOW));
        assert!(!note("demo", &token(now_s, 1), NOW));
        assert!(
            note("other", &token(now_s, 1), NOW),
            "names are the unit's own"
        );
        assert!(
            !note("demo", &token(now_s - 1, 2), NOW),
            "issued before the start"
        );
        let before = Timestamp(NOW.0 - 86_400_000);
        let fresh = token(before.0 / 1_000, 3);
        assert!(
            note("demo", &fresh, before),
            "a clock set back shuts nobody out"
        );
        assert!(!note("demo", &fresh, before));
        assert!(
            !note("demo", &token(now_s, 1), before),
            "and makes nothing fresh again"
        );
    }

    #[test]
    fn a_full_memory_raises_the_floor_and_stays_bounded() {
        let (used, now_s) = (used(), NOW.0 / 1_000);
        let max = u64::try_from(REMEMBERED_MAX).unwrap();
        for number in 0..=max {
            let at = NOW.plus_millis(number / 1_000 * 1_000);
            let fresh = token(at.0 / 1_000, number);
            assert!(used.note(&unit("demo"), &fresh, at).is_ok(), "{number}");
        }
        let now = NOW.plus_millis(max);
        for number in [0, 999, 1_000, max] {
            let again = token(now_s + number / 1_000, number);
            assert!(used.note(&unit("demo"), &again, now).is_err(), "{number}");
        }
        let units = used.units.lock().unwrap();
        let demo = &units.units[&unit("demo")];
        let count: usize = demo.by_second.values().map(|names| names.len()).sum();
        assert_eq!((demo.count, demo.floor_s), (count, now_s + 1));
        assert!(count <= REMEMBERED_MAX);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let (used, now_s) = (used(), NOW.0 / 1_000);
        for name in ["demo", "other"] {
            used.note(&unit(name), &token(now_s, 1), NOW).unwrap();
        }
        let later = NOW.plus_millis(2 * 3_600_000);
        used.note(&unit("demo"), &token(later.0 / 1_000, 2), later)
            .unwrap();
        let units = used.units.lock().unwrap();
        assert_eq!(units.units.len(), 1);
        assert_eq!(units.units[&unit("demo")].count, 1);
    }
}
