//! How a change of what should run goes through several copies and components, and where it stops.

use super::*;

fn stop(text: &str) -> Step {
    Step::Stop(name(text), StopReason::Replaced)
}

fn not_ready(content: u8) -> Slot {
    slot(
        Phase::Running,
        Readiness::NotReady("it answers 503".into()),
        content,
    )
}

/// Two components that do not need each other, two copies each.
fn pair(content: u8) -> Goal {
    let mut target = target(2, content);
    target
        .manifest
        .components
        .retain(|name, _| name.as_str() != "migration");
    for component in target.manifest.components.values_mut() {
        component.after.clear();
    }
    target.order.retain(|name| name.as_str() != "migration");
    target.instance = Arc::new(Instance {
        replicas: 2,
        ..(*target.instance).clone()
    });
    Goal::Keep(Box::new(target))
}

#[test]
fn a_change_goes_through_all_components_one_copy_at_a_time() {
    let mut now = slots(["database.0", "database.1", "web.0", "web.1"].map(|one| (one, ready(1))));
    for next in ["database.0", "database.1", "web.0", "web.1"] {
        assert_eq!(actions(&pair(2), &now), [stop(next)]);
        now.insert(name(next), slot(Phase::Idle, Readiness::Open, 1));
        assert_eq!(actions(&pair(2), &now), [Step::Start(name(next))]);
        now.insert(name(next), slot(Phase::Running, Readiness::Open, 2));
        assert_eq!(actions(&pair(2), &now), []);
        now.insert(name(next), ready(2));
    }
    assert_eq!(steps(&pair(2), &now), []);
}

#[test]
fn a_change_that_fails_touches_nothing_else_and_says_so() {
    let mut now = slots([
        ("database.0", not_ready(2)),
        ("database.1", ready(1)),
        ("web.0", ready(1)),
        ("web.1", ready(1)),
    ]);
    let waits = |text: &str| {
        wait(format!(
            "{text} is replaced later: database.0 must be ready first"
        ))
    };
    let all = [waits("database.1"), waits("web.0"), waits("web.1")];
    assert_eq!(steps(&pair(2), &now), all);
    let mut crashing = crashed(3, NOW);
    crashing.memory.fingerprint = Some(Digest::of(&[2]));
    now.insert(name("database.0"), crashing);
    assert_eq!(actions(&pair(2), &now), []);
    // Back to what ran before: only what was changed is touched.
    assert_eq!(
        actions(&pair(1), &now),
        [Step::Start(name("database.0"))],
        "the crashes of the other release do not count"
    );
    now.insert(name("database.0"), not_ready(2));
    now.insert(name("web.1"), not_ready(1));
    assert_eq!(
        actions(&pair(1), &now),
        [stop("database.0")],
        "whatever became of others meanwhile"
    );
}

#[test]
fn the_copy_that_serves_stays_until_another_one_does() {
    let goal = copies(2, 2, 2);
    let mut now = slots([("web.0", ready(1)), ("web.1", not_ready(1))]);
    assert_eq!(actions(&goal, &now), [stop("web.1")]);
    now.insert(name("web.1"), slot(Phase::Running, Readiness::Open, 1));
    assert_eq!(
        actions(&goal, &now),
        [stop("web.1")],
        "as long as nobody knows whether it does"
    );
    now.insert(name("web.1"), not_ready(2));
    assert_eq!(actions(&goal, &now), []);
    now.insert(name("web.0"), not_ready(1));
    assert_eq!(
        actions(&goal, &now),
        [],
        "it may serve again, and its new sibling never has"
    );
    now.insert(name("web.0"), ready(1));
    now.insert(name("web.1"), ready(2));
    assert_eq!(actions(&goal, &now), [stop("web.0")]);
}

#[test]
fn copies_that_all_fail_are_replaced_together() {
    let now = slots([("web.0", not_ready(1)), ("web.1", not_ready(1))]);
    assert_eq!(
        actions(&copies(2, 2, 2), &now),
        [stop("web.0"), stop("web.1")]
    );
}

#[test]
fn new_copies_come_before_old_ones_go() {
    let mut now = slots([("web.0", ready(1)), ("web.1", ready(1))]);
    let start = Step::Start(name("web.2"));
    assert_eq!(actions(&copies(2, 2, 3), &now), [start]);
    now.insert(name("web.2"), slot(Phase::Running, Readiness::Open, 2));
    assert_eq!(actions(&copies(2, 2, 3), &now), []);
    now.insert(name("web.2"), ready(2));
    assert_eq!(actions(&copies(2, 2, 3), &now), [stop("web.0")]);
}

#[test]
fn what_a_new_release_has_no_more_stays_until_the_new_release_works() {
    let mut now = slots([("web.0", ready(1)), ("worker.0", ready(1))]);
    assert_eq!(actions(&copies(2, 2, 1), &now), [stop("web.0")]);
    now.insert(name("web.0"), not_ready(2));
    let later = wait("worker.0 is stopped later: web.0 must be ready first".into());
    assert_eq!(steps(&copies(2, 2, 1), &now), [later]);
    now.insert(name("web.0"), ready(2));
    let gone = Step::Stop(name("worker.0"), StopReason::Surplus);
    assert_eq!(actions(&copies(2, 2, 1), &now), [gone]);
}

#[test]
fn fewer_copies_of_the_same_are_not_kept_for_one_that_fails() {
    let now = slots([("web.0", not_ready(1)), ("web.1", ready(1))]);
    let gone = Step::Stop(name("web.1"), StopReason::Surplus);
    assert_eq!(actions(&copies(2, 1, 1), &now), [gone]);
}

#[test]
fn what_is_needed_at_one_remove_stops_last() {
    let mut target = target(2, 1);
    let database: PartName = "database".parse().unwrap();
    let migration: PartName = "migration".parse().unwrap();
    let component = target.manifest.components.get_mut(&migration).unwrap();
    component.after.insert(database.clone());
    for name in ["database", "web"] {
        let name: PartName = name.parse().unwrap();
        let component = target.manifest.components.get_mut(&name).unwrap();
        component.after.clear();
        if name != database {
            component.after.insert(migration.clone());
        }
    }
    let goal = Goal::Suspend(Box::new(target));
    let stop = Step::Stop(name("web.0"), StopReason::Suspended);
    assert_eq!(actions(&goal, &all_ready(1)), [stop]);
}
