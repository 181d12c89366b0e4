//! Which validations of licences the log tells: a unit's first one since the agent started, and later ones with another
//! version or phase than it told last. No more than one a minute and unit, whatever an instance says.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use dotmac_protocol::{ids::UnitId, license::Phase, time::Timestamp};

use crate::unit::{Desired, Order};

/// Milliseconds between two lines about one unit.
const PAUSE_MS: u64 = 60_000;

/// What was told last: of units that call, so no more than are kept; those that are gone are left out when another comes.
#[derive(Debug, Default)]
pub(super) struct News(Mutex<BTreeMap<UnitId, Told>>);

#[derive(Debug)]
struct Told {
    version: String,
    phase: Phase,
    at: Timestamp,
}

impl News {
    /// Whether it is to be told; it counts as told then.
    pub(super) fn is_news(
        &self,
        unit: &UnitId,
        (version, phase): (&str, Phase),
        desired: &Desired,
        now: Timestamp,
    ) -> bool {
        let mut units = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match units.get(unit) {
            Some(told) if told.version == version && told.phase == phase => return false,
            Some(told) if now.distance_millis(told.at) < PAUSE_MS => return false,
            Some(_) => {}
            None => units.retain(|unit, _| is_kept(unit, desired)),
        }
        let told = Told {
            version: version.to_owned(),
            phase,
            at: now,
        };
        units.insert(unit.clone(), told);
        true
    }
}

fn is_kept(unit: &UnitId, desired: &Desired) -> bool {
    let wanted = desired.get(unit);
    wanted.is_some_and(|wanted| matches!(wanted.order, Order::Keep(_)))
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::license::Phase;

    use super::{News, PAUSE_MS};
    use crate::{
        fixture::{NOW, instance, unit},
        instance_api::tests::wanted,
        unit::{Desired, Order},
    };

    fn desired(names: &[&str]) -> Desired {
        let units = names.iter().map(|name| wanted(instance(name)));
        units.map(|wanted| (wanted.unit.clone(), wanted)).collect()
    }

    #[test]
    fn another_version_or_phase_is_news_and_no_more_than_once_a_minute() {
        let (news, desired, demo) = (News::default(), desired(&["demo", "other"]), unit("demo"));
        let is_news = |version, phase, after_ms| {
            news.is_news(&demo, (version, phase), &desired, NOW.plus_millis(after_ms))
        };
        assert!(is_news("1.0", Phase::Valid, 0));
        assert!(!is_news("1.0", Phase::Valid, 0) && !is_news("1.0", Phase::Valid, 9 * PAUSE_MS));
        assert!(!is_news("2.0", Phase::Valid, PAUSE_MS - 1));
        assert!(is_news("2.0", Phase::Valid, PAUSE_MS));
        assert!(!is_news("2.0", Phase::Grace, PAUSE_MS + 1));
        assert!(is_news("2.0", Phase::Grace, 2 * PAUSE_MS));
        assert!(news.is_news(&unit("other"), ("2.0", Phase::Grace), &desired, NOW));
    }

    #[test]
    fn a_removed_unit_is_forgotten() {
        let (news, mut desired) = (News::default(), desired(&["demo", "gone", "new"]));
        for name in ["demo", "gone"] {
            assert!(news.is_news(&unit(name), ("1.0", Phase::Valid), &desired, NOW));
        }
        desired.get_mut(&unit("gone")).unwrap().order = Order::Remove;
        assert!(news.is_news(&unit("new"), ("1.0", Phase::Valid), &desired, NOW));
        let known: Vec<_> = news.0.lock().unwrap().keys().cloned().collect();
        assert_eq!(known, [unit("demo"), unit("new")]);
    }
}
