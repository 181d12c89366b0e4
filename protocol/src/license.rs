//! What a licence is at a moment, and what it grants then. Only an operator's order takes an instance's start away: a
//! date that passed leads into grace, then into a restricted instance that goes on serving.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Milliseconds of grace after a licence's end, unless its operator chose others: 14 days.
pub const GRACE_DEFAULT_MS: u64 = 14 * 24 * 3_600_000;
/// Milliseconds of grace at most: 90 days.
pub const GRACE_MAX_MS: u64 = 90 * 24 * 3_600_000;

/// What an instance may do. The key itself is a secret that the agent makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct License {
    /// Its tier.
    pub tier: Tier,
    /// Subscribers at most.
    pub max_subscribers: u32,
    /// Services at most.
    pub max_services: u32,
    /// Calls of its API a minute at most.
    pub api_rate_limit: u32,
    /// When it ends; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// Milliseconds after its end in which nothing changes yet.
    pub grace_ms: u64,
    /// What an operator ordered.
    pub standing: LicenseStanding,
}

/// What an operator ordered, mildest first: nothing else refuses a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LicenseStanding {
    /// It counts.
    Valid,
    /// An operator suspended it.
    Suspended,
    /// An operator ended it.
    Revoked,
}

/// A licence tier, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Basic customer management, simple billing, standard reports.
    Free,
    /// And advanced billing, CRM integrations, API access.
    Basic,
    /// And advanced analytics, custom integrations, white-labelling.
    Premium,
    /// And AI insights, predictive analytics, unlimited API calls.
    Enterprise,
}

/// What a licence is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It counts.
    Valid,
    /// Its term is over; all goes on, and every answer says so.
    Grace,
    /// Its grace is over too: the instance starts and serves, with the free tier's features and without growth.
    Restricted,
    /// An operator suspended it: no start.
    Suspended,
    /// An operator ended it: no start.
    Revoked,
}

/// Features by name, and the lowest tier that has them; in the order of the tiers.
pub const FEATURES: [(&str, Tier); 12] = [
    ("customer_management", Tier::Free),
    ("simple_billing", Tier::Free),
    ("standard_reporting", Tier::Free),
    ("advanced_billing", Tier::Basic),
    ("crm_integration", Tier::Basic),
    ("api_access", Tier::Basic),
    ("advanced_analytics", Tier::Premium),
    ("custom_integrations", Tier::Premium),
    ("white_labeling", Tier::Premium),
    ("ai_insights", Tier::Enterprise),
    ("predictive_analytics", Tier::Enterprise),
    ("unlimited_api", Tier::Enterprise),
];

impl Tier {
    /// All of them, lowest first.
    pub const ALL: [Self; 4] = [Self::Free, Self::Basic, Self::Premium, Self::Enterprise];

    /// The tier of a name; `professional` is premium's older one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "professional" => Some(Self::Premium),
            name => Self::ALL.into_iter().find(|tier| tier.as_str() == name),
        }
    }

    /// Whether a feature is one that only a higher tier has. One that no tier has is nobody's.
    #[must_use]
    pub fn lacks(self, feature: &str) -> bool {
        let known = FEATURES.iter().find(|(name, _)| *name == feature);
        known.is_some_and(|(_, lowest)| *lowest > self)
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Basic => "basic",
            Self::Premium => "premium",
            Self::Enterprise => "enterprise",
        }
    }
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Valid,
        Self::Grace,
        Self::Restricted,
        Self::Suspended,
        Self::Revoked,
    ];

    /// The word that answers use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Grace => "grace",
            Self::Restricted => "restricted",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }

    /// Whether an instance may start and serve.
    #[must_use]
    pub fn may_run(self) -> bool {
        !matches!(self, Self::Suspended | Self::Revoked)
    }
}

impl License {
    /// What it is at a moment.
    #[must_use]
    pub fn phase(&self, now: Timestamp) -> Phase {
        match (self.standing, self.expires_at) {
            (LicenseStanding::Suspended, _) => Phase::Suspended,
            (LicenseStanding::Revoked, _) => Phase::Revoked,
            (LicenseStanding::Valid, Some(end)) if now >= end.plus_millis(self.grace_ms) => {
                Phase::Restricted
            }
            (LicenseStanding::Valid, Some(end)) if now >= end => Phase::Grace,
            (LicenseStanding::Valid, _) => Phase::Valid,
        }
    }

    /// When the phase changes next by the passing of time alone; `None` for never.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let end = self.expires_at?;
        match self.phase(now) {
            Phase::Valid => Some(end),
            Phase::Grace => Some(end.plus_millis(self.grace_ms)),
            Phase::Restricted | Phase::Suspended | Phase::Revoked => None,
        }
    }

    /// Subscribers at most in a phase: restricted, no more than there ever were while they might grow. Whoever only ever told
    /// zero did not count, and is served what was granted: a limit of zero would turn away those that he has.
    #[must_use]
    pub fn subscribers(&self, phase: Phase, reached: Option<u64>) -> u64 {
        let granted = u64::from(self.max_subscribers);
        match (phase, reached) {
            (Phase::Restricted, Some(reached @ 1..)) => reached.min(granted),
            _ => granted,
        }
    }

    /// The features granted in a phase: the tier's own, then the operator's switches, which may grant or take any.
    /// Restricted, whatever the free tier does not have is off.
    #[must_use]
    pub fn features(
        &self,
        switches: &BTreeMap<String, bool>,
        phase: Phase,
    ) -> BTreeMap<String, bool> {
        let tier = FEATURES.map(|(name, lowest)| (name.to_owned(), lowest <= self.tier));
        let mut granted = BTreeMap::from(tier);
        granted.extend(switches.iter().map(|(name, is_on)| (name.clone(), *is_on)));
        if phase == Phase::Valid || phase == Phase::Grace {
            return granted;
        }
        for (name, is_on) in &mut granted {
            let is_free = FEATURES.contains(&(name.as_str(), Tier::Free));
            *is_on &= is_free && phase == Phase::Restricted;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{License, LicenseStanding, Phase, Tier};
    use crate::time::Timestamp;

    fn license(standing: LicenseStanding) -> License {
        License {
            tier: Tier::Premium,
            max_subscribers: 1000,
            max_services: 500,
            api_rate_limit: 1000,
            expires_at: Some(Timestamp(1_000)),
            grace_ms: 500,
            standing,
        }
    }

    #[test]
    fn time_leads_into_grace_and_restriction_and_never_to_a_refused_start() {
        let ended = license(LicenseStanding::Valid);
        let at = |now| ended.phase(Timestamp(now));
        assert_eq!(at(999), Phase::Valid);
        assert_eq!(at(1_000), Phase::Grace);
        assert_eq!(at(1_499), Phase::Grace);
        assert_eq!(at(1_500), Phase::Restricted);
        assert_eq!(at(u64::MAX), Phase::Restricted);
        assert!(at(u64::MAX).may_run());
        let changes = [0, 1_000, 1_500].map(|now| ended.next_change(Timestamp(now)));
        assert_eq!(
            changes,
            [Some(Timestamp(1_000)), Some(Timestamp(1_500)), None]
        );
        for (standing, phase) in [
            (LicenseStanding::Suspended, Phase::Suspended),
            (LicenseStanding::Revoked, Phase::Revoked),
        ] {
            let ordered = license(standing).phase(Timestamp(0));
            assert_eq!(ordered, phase);
            assert!(!ordered.may_run());
        }
    }

    #[test]
    fn restricted_no_more_are_served_than_there_were_if_anybody_counted() {
        let license = license(LicenseStanding::Valid);
        let served = |phase, reached| license.subscribers(phase, reached);
        assert_eq!(served(Phase::Grace, Some(70)), 1_000);
        assert_eq!(served(Phase::Restricted, Some(70)), 70);
        assert_eq!(served(Phase::Restricted, Some(7_000)), 1_000);
        for nothing in [None, Some(0)] {
            assert_eq!(served(Phase::Restricted, nothing), 1_000);
        }
    }

    #[test]
    fn restriction_leaves_the_free_tiers_features_alone() {
        let license = license(LicenseStanding::Valid);
        let switches = [
            ("beta", true),
            ("ai_insights", true),
            ("simple_billing", false),
        ];
        let switches: BTreeMap<String, bool> = switches
            .map(|(name, is_on)| (name.to_owned(), is_on))
            .into();
        let on = |phase| {
            let features = license.features(&switches, phase);
            assert_eq!(features.len(), 13);
            let on = features.into_iter().filter(|(_, is_on)| *is_on);
            on.map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(
            on(Phase::Grace),
            [
                "advanced_analytics",
                "advanced_billing",
                "ai_insights",
                "api_access",
                "beta",
                "crm_integration",
                "custom_integrations",
                "customer_management",
                "standard_reporting",
                "white_labeling"
            ]
        );
        assert_eq!(
            on(Phase::Restricted),
            ["customer_management", "standard_reporting"]
        );
        assert!(on(Phase::Revoked).is_empty());
    }

    #[test]
    fn tiers_have_their_order_and_professional_is_premium() {
        assert!(Tier::ALL.is_sorted());
        for tier in Tier::ALL {
            assert_eq!(Tier::from_name(tier.as_str()), Some(tier));
        }
        assert_eq!(Tier::from_name("professional"), Some(Tier::Premium));
        assert_eq!(Tier::from_name("gold"), None);
    }
}
