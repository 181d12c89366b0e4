//! Starting the child inside its control groups: the shim enters, spawns, and goes back, so that the limits (and the
//! kernel's out-of-memory killer) are the child's alone.

use std::{fs, io};

use super::files::{Group, Spec};

/// Removes groups in which nothing runs any more; one that is still in use stays.
pub(super) fn remove(groups: &[Group]) {
    for directory in groups.iter().filter_map(|group| group.enter.parent()) {
        drop(fs::remove_dir(directory));
    }
}

/// Runs `spawn` inside the spec's groups. Failing to enter one is no reason not to start: the second value says why
/// the limits do not hold.
pub(super) fn spawn_inside<T>(
    spec: &Spec,
    spawn: impl FnOnce() -> io::Result<T>,
) -> (io::Result<T>, Option<String>) {
    let own = std::process::id().to_string();
    let entered = spec.groups.iter().try_for_each(|group| {
        fs::write(&group.enter, &own)
            .map_err(|error| format!("{} cannot be entered: {error}", group.enter.display()))
    });
    let spawned = spawn();
    for Group { leave, .. } in &spec.groups {
        // Staying inside would only mean that the shim is limited too.
        drop(fs::write(leave, &own));
    }
    (spawned, entered.err())
}
