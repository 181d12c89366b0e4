//! What an apply says it changed: every entity whose value differs before and after is named, whatever the command.

use std::{collections::BTreeSet, fmt::Debug};

use dotmac_domain::{
    Changed, Command, State,
    state::{Map, RULES_VERSION},
};
use proptest::prelude::*;

use crate::{
    fixture::{World, admin, deployment},
    random::{History, steps},
};

/// The entities whose values differ. A new field of the State stops this from compiling until somebody has decided
/// whether it holds entities that are shown.
fn differing(before: &State, after: &State) -> BTreeSet<Changed> {
    let State {
        rules,
        now: _,
        genesis,
        trust,
        tokens,
        token_ids: _,
        tenants,
        deployments,
        domains: _,
        releases,
        channels: _,
        join_tokens: _,
        agents,
        revoked_agents,
        regions,
        units: _,
        waves: _,
        open_orders: _,
        wave_number: _,
        streams: _,
        answers: _,
        answer_order: _,
        removals: _,
        clock: _,
        // Noted with its deployment, and only where it changes what is shown.
        reported: _,
        // Moves with the rules.
        raised: _,
        controllers,
        // It is changed with the one in force.
        trust_roots: _,
        retained: _,
        batches: _,
        // Whoever wants to know asks; nothing of it is streamed.
        backups: _,
        // Noted with the agents that it is about.
        recovery: _,
    } = after;
    let mut found = BTreeSet::new();
    let known = (
        &before.rules,
        &before.genesis,
        &before.trust,
        &before.controllers,
    );
    let is_cluster = (rules, genesis, trust, controllers) != known;
    found.extend(is_cluster.then_some(Changed::Cluster));
    collect(&mut found, &before.tokens, tokens, Changed::Token);
    collect(&mut found, &before.tenants, tenants, Changed::Tenant);
    collect(
        &mut found,
        &before.deployments,
        deployments,
        Changed::Deployment,
    );
    collect(&mut found, &before.releases, releases, Changed::Release);
    collect(&mut found, &before.agents, agents, Changed::Agent);
    collect(
        &mut found,
        &before.revoked_agents,
        revoked_agents,
        Changed::Agent,
    );
    collect(&mut found, &before.regions, regions, Changed::Region);
    found
}

fn collect<K: Ord + Clone + Debug, V: PartialEq>(
    found: &mut BTreeSet<Changed>,
    before: &Map<K, V>,
    after: &Map<K, V>,
    named: impl Fn(K) -> Changed,
) {
    let keys: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    let differ = keys
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key));
    found.extend(differ.map(|key| named(key.clone())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_entity_that_differs_is_named(steps in steps(120)) {
        let mut history = History::new();
        steps.iter().for_each(|step| history.take(step));
        let mut state = State::default();
        for (envelope, known) in history.world.log.iter().zip(&history.world.applied) {
            let before = state.clone();
            let applied = state.apply(envelope);
            let differing = differing(&before, &state);
            let missing: Vec<_> = differing.difference(&applied.changed).collect();
            prop_assert!(missing.is_empty(), "{:?} names no {missing:?}", envelope.command);
            prop_assert_eq!(&applied.changed, &known.changed);
            // A hint that names everything would be none: what is refused changed nothing.
            prop_assert!(applied.reply.is_ok() || applied.changed.is_empty());
        }
    }
}

#[test]
fn a_creation_names_the_tenant_and_the_deployment_and_nothing_else() {
    let (mut world, _) = World::with_agent();
    let create = Command::CreateDeployment(Box::new(deployment("Demo ISP")));
    let envelope = world.proven(admin(), create);
    let applied = world.state.apply(&envelope);
    let id = crate::fixture::deployment_of(applied.reply);
    let tenant = world.state.deployments.get(&id).unwrap().tenant.clone();
    let expected = [Changed::Tenant(tenant), Changed::Deployment(id)];
    assert_eq!(applied.changed, expected.into());
    // The same request again is answered from memory.
    assert!(world.state.apply(&envelope).changed.is_empty());
}

#[test]
fn the_founding_names_the_cluster_and_the_first_token() {
    let world = World::founded();
    let changed = &world.applied[0].changed;
    assert!(changed.contains(&Changed::Cluster), "{changed:?}");
    assert!(changed.iter().any(|one| matches!(one, Changed::Token(_))));
    assert_eq!(world.state.rules, RULES_VERSION);
}

#[test]
fn what_is_noted_is_no_part_of_the_states_bytes_or_value() {
    let (world, _, id) = World::with_active();
    let mut touched = world.state.clone();
    let same = touched.deployments.get(&id).unwrap().clone();
    touched.deployments.insert_mut(id, same);
    assert_eq!(touched, world.state);
    assert_eq!(touched.digest(), world.state.digest());
}
