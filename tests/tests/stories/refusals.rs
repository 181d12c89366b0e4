//! What `make up` says when it cannot start: one clear line, and nothing has happened.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Result, ensure};
use dotmac_tests::{cli::Ran, fleet::Fleet};

/// Point 1.
pub(crate) async fn a_port_in_use_is_one_clear_line_and_nothing_is_started() -> Result<()> {
    let fleet = Fleet::prepare("port-in-use")?;
    let port = fleet.port_base() + 1;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let before = listing(fleet.home());
    let refused = fleet
        .dotmac(&["local", "up", "--detach"])
        .await?
        .with_code(1)?;
    one_line(
        &refused,
        &[
            &format!("TCP port {port} for controller-2 is in use"),
            "DOTMAC_PORT_BASE",
        ],
    )?;
    untouched(&fleet, &before)?;
    // Once the port is free, the same command works: nothing was left half done.
    drop(listener);
    fleet.up().await?;
    fleet.down().await
}

/// Point 1.
pub(crate) async fn a_home_that_cannot_be_written_is_one_clear_line_and_nothing_is_started()
-> Result<()> {
    let fleet = Fleet::prepare("unwritable")?;
    if rustix::process::geteuid().is_root() {
        // Root may write everywhere, but not below a file.
        fs::write(fleet.home().join("run"), "in the way")?;
    } else {
        fs::set_permissions(fleet.home(), fs::Permissions::from_mode(0o500))?;
    }
    let before = listing(fleet.home());
    let refused = fleet
        .dotmac(&["local", "up", "--detach"])
        .await?
        .with_code(1);
    fs::set_permissions(fleet.home(), fs::Permissions::from_mode(0o700))?;
    one_line(
        &refused?,
        &[
            "cannot write",
            &fleet.home().display().to_string(),
            "DOTMAC_HOME",
        ],
    )?;
    untouched(&fleet, &before)
}

/// Point 1.
pub(crate) async fn data_of_a_newer_version_is_one_clear_line_and_nothing_is_harmed() -> Result<()>
{
    let fleet = Fleet::start("newer-version").await?;
    let id = fleet.deploy("Kept ISP", "do-fra1").await?;
    fleet.down().await?;
    let version = fleet.home().join("version");
    let ours = fs::read(&version)?;
    fs::write(&version, "99\n")?;
    let before = listing(fleet.home());
    let refused = fleet
        .dotmac(&["local", "up", "--detach"])
        .await?
        .with_code(1)?;
    one_line(&refused, &["is of version 99", "use the newer program"])?;
    let refused = fleet
        .dotmac(&["local", "down", "--purge", "--yes"])
        .await?
        .with_code(1)?;
    one_line(&refused, &["is of version 99"])?;
    untouched(&fleet, &before)?;
    fs::write(&version, ours)?;
    fleet.up().await?;
    fleet
        .until_status(&id, "active", dotmac_tests::fleet::ACTIVE_WITHIN)
        .await?;
    fleet.down().await
}

fn one_line(ran: &Ran, words: &[&str]) -> Result<()> {
    let lines: Vec<&str> = ran.err.lines().chain(ran.out.lines()).collect();
    ensure!(lines.len() == 1, "not one line: {lines:?}");
    for word in words {
        ensure!(lines[0].contains(word), "{word:?} is not in {:?}", lines[0]);
    }
    Ok(())
}

fn untouched(fleet: &Fleet, before: &[String]) -> Result<()> {
    let (after, running) = (listing(fleet.home()), fleet.processes());
    ensure!(running.is_empty(), "something was started: {running:?}");
    ensure!(
        before == after,
        "the home changed from {before:?} to {after:?}"
    );
    Ok(())
}

/// Every path below a directory with its length, in order.
pub(crate) fn listing(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let length = if metadata.is_dir() { 0 } else { metadata.len() };
        lines.push(format!("{} {length}", path.display()));
        if metadata.is_dir() {
            lines.extend(listing(&path));
        }
    }
    lines.sort();
    lines
}
