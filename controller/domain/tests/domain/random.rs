//! Random histories: abstract steps that proptest makes and shrinks, and the envelopes that they become.

use proptest::prelude::*;

use crate::fixture::{GRACE_MS, HOUR_MS, WINDOW_MS};

mod change;
mod history;
mod platform;

pub(crate) use history::{History, audit_event};

/// One step of a history. Numbers choose among what exists when the step is taken.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// The proposer's clock moves, also backwards.
    Clock(i64),
    Create {
        name: u8,
        tenant: Option<u8>,
        environment: u8,
        region: u8,
        who: u8,
        proof: u8,
    },
    Delete {
        which: u8,
        who: u8,
        proof: u8,
    },
    Undelete {
        which: u8,
        who: u8,
    },
    /// Update, scale, restart, suspend, resume or roll back.
    Change {
        which: u8,
        kind: u8,
        who: u8,
        proof: u8,
    },
    Remove {
        which: u8,
    },
    Forget {
        which: u8,
    },
    Plan,
    SealAll,
    JoinToken {
        number: u8,
        proof: u8,
    },
    Enrol {
        seed: u8,
        token: u8,
    },
    Presence {
        agent: u8,
        kind: u8,
    },
    Report {
        agent: u8,
        unit: u8,
        kind: u8,
    },
    /// Everything that the agent ever reported, once more.
    ReportAgain {
        agent: u8,
        from: u8,
    },
    /// The agent leaves records out.
    ReportGap {
        agent: u8,
    },
    Token {
        number: u8,
        role: u8,
        tenant: u8,
        proof: u8,
    },
    Release {
        version: u8,
        proof: u8,
    },
    Retire {
        version: u8,
    },
    Renew {
        agent: u8,
        key: u8,
    },
    Access {
        tenant: u8,
        who: u8,
    },
    /// A change of tokens, tenants, regions or agents.
    Platform {
        kind: u8,
        which: u8,
        who: u8,
        proof: u8,
    },
    /// An envelope of the past, perhaps with another question.
    Again {
        which: u8,
        changed: bool,
    },
}

pub(crate) fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..count)
}

fn step() -> impl Strategy<Value = Step> {
    let n = || any::<u8>();
    let clocks = prop_oneof![
        Just(1),
        Just(1_000),
        Just(GRACE_MS as i64),
        Just(WINDOW_MS as i64),
        Just(HOUR_MS as i64),
        Just(31 * 24 * HOUR_MS as i64),
        -4_000_000..0_i64,
    ];
    prop_oneof![
        3 => clocks.prop_map(Step::Clock),
        6 => (n(), proptest::option::of(n()), n(), n(), n(), n()).prop_map(
            |(name, tenant, environment, region, who, proof)| {
                Step::Create { name, tenant, environment, region, who, proof }
            }
        ),
        3 => (n(), n(), n()).prop_map(|(which, who, proof)| Step::Delete { which, who, proof }),
        2 => (n(), n()).prop_map(|(which, who)| Step::Undelete { which, who }),
        5 => (n(), n(), n(), n())
            .prop_map(|(which, kind, who, proof)| Step::Change { which, kind, who, proof }),
        2 => n().prop_map(|which| Step::Remove { which }),
        1 => n().prop_map(|which| Step::Forget { which }),
        6 => Just(Step::Plan),
        1 => Just(Step::SealAll),
        1 => (n(), n()).prop_map(|(number, proof)| Step::JoinToken { number, proof }),
        3 => (n(), n()).prop_map(|(seed, token)| Step::Enrol { seed, token }),
        2 => (n(), n()).prop_map(|(agent, kind)| Step::Presence { agent, kind }),
        9 => (n(), n(), n()).prop_map(|(agent, unit, kind)| Step::Report { agent, unit, kind }),
        1 => (n(), n()).prop_map(|(agent, from)| Step::ReportAgain { agent, from }),
        1 => n().prop_map(|agent| Step::ReportGap { agent }),
        2 => (n(), n(), n(), n()).prop_map(
            |(number, role, tenant, proof)| Step::Token { number, role, tenant, proof }
        ),
        2 => (n(), n()).prop_map(|(version, proof)| Step::Release { version, proof }),
        1 => n().prop_map(|version| Step::Retire { version }),
        1 => (n(), n()).prop_map(|(agent, key)| Step::Renew { agent, key }),
        1 => (n(), n()).prop_map(|(tenant, who)| Step::Access { tenant, who }),
        6 => (n(), n(), n(), n())
            .prop_map(|(kind, which, who, proof)| Step::Platform { kind, which, who, proof }),
        2 => (n(), any::<bool>()).prop_map(|(which, changed)| Step::Again { which, changed }),
    ]
}
