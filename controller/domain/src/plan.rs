//! The planners: what has to be asked next so that everything under way gets done. Pure and idempotent, so that a
//! new leader just carries on.

use dotmac_protocol::{
    ids::{AgentId, UnitId},
    time::Timestamp,
    wave::WAVE_LEAVES_MAX,
};

use crate::{
    command::Command,
    desired::Unit,
    signer,
    state::State,
    tenancy::{BUDGET_REASON, DESTROYED_KEPT_MS, Deployment, Status},
};

/// Commands that one planning round asks for at most; the next round goes on.
pub const PLAN_COMMANDS_MAX: usize = 256;

/// The next commands. `now` is the leader's clock.
#[must_use]
pub fn plan(state: &State, now: Timestamp) -> Vec<Command> {
    if state.genesis.is_none() {
        return Vec::new();
    }
    let now = now.max(state.now);
    let mut commands = Vec::new();
    commands.extend(orders_to_seal(state, now));
    let is_clock_due = state.clock_due().is_some_and(|due| due <= now);
    commands.extend(is_clock_due.then_some(Command::SealClock));
    for (id, deployment) in &state.deployments {
        if commands.len() >= PLAN_COMMANDS_MAX {
            break;
        }
        let command = match deployment.status {
            Status::Destroying if deployment.delete_after.is_some_and(|due| due <= now) => {
                let has_budget = state.exhausted_budget(&deployment.tenant, now).is_none();
                // Asked once without a budget, so that the State says what it waits for.
                let says_so = deployment
                    .waiting
                    .as_ref()
                    .is_some_and(|one| one.reason.starts_with(BUDGET_REASON));
                (has_budget || !says_so).then(|| Command::RemoveDeployment {
                    deployment: id.clone(),
                })
            }
            _ if is_forgotten(deployment, now) => Some(Command::ForgetDeployment {
                deployment: id.clone(),
            }),
            _ => None,
        };
        commands.extend(command);
    }
    commands
}

/// Whether a destroyed deployment was shown for long enough.
fn is_forgotten(deployment: &Deployment, now: Timestamp) -> bool {
    deployment.status == Status::Destroyed
        && now.millis_since(deployment.updated_at) >= DESTROYED_KEPT_MS
}

fn orders_to_seal(state: &State, now: Timestamp) -> Option<Command> {
    let goes = |unit: &Unit| {
        let deployment = state.deployments.get(&unit.deployment);
        deployment.is_some_and(|deployment| is_forgotten(deployment, now))
    };
    let orders: Vec<(AgentId, UnitId)> = state
        .units
        .iter()
        .filter(|(_, unit)| unit.needs_order(state, now))
        .filter(|((agent, _), _)| !state.awaits(agent))
        // One order without proof, or one that this very round forgets, would keep its whole wave from being signed.
        .filter(|((agent, _), unit)| !goes(unit) && signer::prove(state, agent, unit).is_ok())
        .take(WAVE_LEAVES_MAX)
        .map(|(key, _)| key.clone())
        .collect();
    (!orders.is_empty()).then_some(Command::SealWave { orders })
}

/// When the planners have to look again even if nothing is proposed: the earliest time at which something gets due.
#[must_use]
pub fn next_due(state: &State) -> Option<Timestamp> {
    let removals = state
        .deployments
        .values()
        .filter_map(|one| Some(one.delete_after?.max(state.budget_free_at(&one.tenant))));
    let windows = state
        .units
        .values()
        .filter(|unit| unit.acknowledged_generation < unit.generation)
        .filter_map(|unit| unit.wave.and_then(|number| state.waves.get(&number)))
        .map(|wave| wave.window.not_after);
    removals.chain(windows).chain(state.clock_due()).min()
}
