//! Controllers of a local fleet that left the cluster for ever, as after `dotmac cluster replace-node`. What the cluster
//! says of one, or its own exit code, is noted beside its disk, and it is left out from then on: nobody starts it, waits
//! for it or asks it. It ends none of them.

use dotmac_runtime::disk;
use serde_json::Value;

use super::{layout::Layout, member::Member};
use crate::cli::{Client, cluster, failure::Failure, view};

/// Notes which controllers the cluster calls retired; gives those that were not noted before, in words.
///
/// # Errors
/// When the cluster does not say, or it cannot be noted.
pub(super) async fn note(layout: &Layout, client: &Client) -> Result<Vec<String>, Failure> {
    let known = cluster::controllers(client).await?;
    let mut noted = Vec::new();
    for member in Member::present(layout) {
        let Some(incarnation) = member.incarnation() else {
            continue;
        };
        let is_gone = |one: &&Value| {
            one["standing"] == "retired" && view::text(one, "incarnation") == incarnation
        };
        if !member.is_controller() || !known.iter().any(|one| is_gone(&one)) {
            continue;
        }
        write(&member, &incarnation)?;
        noted.push(words(&member));
    }
    Ok(noted)
}

/// Notes that the disk which a controller has now left the cluster, as the controller itself found out.
///
/// # Errors
/// When it cannot be noted.
pub(super) fn note_ended(member: &Member) -> Result<(), Failure> {
    let incarnation = member.incarnation();
    incarnation.map_or(Ok(()), |incarnation| write(member, &incarnation))
}

fn write(member: &Member, incarnation: &str) -> Result<(), Failure> {
    let path = member.retired();
    disk::write_atomic(&path, format!("{incarnation}\n").as_bytes(), 0o600)
        .map_err(|cause| Failure::io("write", &path, &cause))
}

/// Those that were noted, in words.
pub(super) fn noted(layout: &Layout) -> Vec<String> {
    let gone = Member::all(layout).into_iter().filter(Member::is_retired);
    gone.map(|member| words(&member)).collect()
}

/// Every controller that is not noted, by name, and whether it is ready.
///
/// # Errors
/// When the fleet's settings cannot be read.
pub(super) async fn readiness(
    layout: &Layout,
    client: &Client,
) -> Result<Vec<(String, Result<bool, String>)>, Failure> {
    let settings = layout.settings()?;
    let mut found = Vec::new();
    for member in Member::present(layout) {
        let address = member.address(&settings);
        let place = client.servers().iter().position(|one| *one == address);
        if let Some(place) = place.filter(|_| member.is_controller()) {
            found.push((member.name, client.is_ready(place).await));
        }
    }
    Ok(found)
}

fn words(member: &Member) -> String {
    let name = &member.name;
    format!("{name} is no member of the cluster any more (retired): it is left out")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::{Json, Router, routing::get};
    use serde_json::json;

    use super::{note, noted};
    use crate::{
        cli::client_of,
        local::{layout::Layout, member::Member},
    };

    #[tokio::test]
    async fn a_retired_controller_is_noted_once_and_left_out_until_it_has_another_disk() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("home"));
        let names = |members: Vec<Member>| members.into_iter().map(|one| one.name);
        for member in Member::all(&layout)
            .iter()
            .filter(|one| one.is_controller())
        {
            fs::create_dir_all(member.data().join("keys")).unwrap();
            fs::write(member.data().join("keys/incarnation"), &member.name).unwrap();
        }
        let known = json!({"items": [
            {"id": 1, "standing": "voter", "incarnation": "controller-1"},
            {"id": 2, "standing": "retired", "incarnation": "controller-2"},
            {"id": 3, "standing": "retired", "incarnation": "of another disk"},
            {"id": 4, "standing": "voter", "incarnation": "controller-4"},
        ]});
        let answer = get(move || async move { Json(known) });
        let client = client_of(Router::new().route("/api/v1/cluster/controllers", answer)).await;

        let said = note(&layout, &client).await.unwrap();
        let line = "controller-2 is no member of the cluster any more (retired): it is left out";
        assert_eq!(said, [line]);
        assert_eq!(note(&layout, &client).await.unwrap(), Vec::<String>::new());
        assert_eq!(noted(&layout), [line]);
        let two = Member::all(&layout).swap_remove(1);
        assert!(!two.may_start() && two.is_retired());
        assert_eq!(names(Member::all(&layout)).count(), 8);
        let present: Vec<_> = names(Member::present(&layout)).take(2).collect();
        assert_eq!(present, ["controller-1", "controller-3"]);

        fs::write(two.data().join("keys/incarnation"), "a new disk").unwrap();
        assert!(two.may_start() && !two.is_retired());
    }
}
