//! The way to the cluster: which one is meant, the token, and each controller as it answers by itself.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use futures::future::join_all;
use jiff::fmt::rfc2822::DateTimeParser;

use super::check::Check;
use crate::cli::{
    client::{Client, Look},
    contexts::Contexts,
    failure::Failure,
    find::{Context, Target},
    login::person,
    output::duration,
    view,
    whoami::who,
};

/// Milliseconds between two clocks that are worth a word, and that break things: certificates and orders have times.
const SKEW_MS: (u64, u64) = (2_000, 30_000);
/// A header `Date` has whole seconds; on average half of one has gone by.
const HALF_SECOND_MS: i64 = 500;
/// Milliseconds before a token ends in which it is worth a word.
const TOKEN_ENDS_MS: u64 = 7 * 86_400_000;

/// The configuration: which cluster is meant, and whether its secrets are private.
pub(super) fn configuration(context: &Context, target: &Target) -> Vec<Check> {
    let mut checks = vec![Check::ok(
        "context",
        format!("{} ({})", target.name, target.servers.join(", ")),
    )];
    if let Ok(path) = Contexts::path()
        && path.exists()
    {
        checks.push(match Contexts::read(&path) {
            Ok(all) => Check::ok(
                "contexts file",
                format!("{} with {} contexts", path.display(), all.contexts.len()),
            ),
            Err(failure) => Check::fail(
                "contexts file",
                failure.to_string(),
                format!("chmod 600 {}", path.display()),
            ),
        });
    }
    if let Some(file) = target.token_file() {
        checks.push(token_file(file));
    }
    if let Err(failure) = target.token() {
        checks.push(Check::fail(
            "token",
            failure.to_string(),
            "dotmac login, or --token-file",
        ));
    }
    if context.flags.deadline < 3 {
        let detail = format!(
            "--deadline {}: an election takes longer",
            context.flags.deadline
        );
        checks.push(Check::warn("deadline", detail, "leave it out"));
    }
    checks
}

fn token_file(file: &Path) -> Check {
    let shown = file.display();
    match std::fs::metadata(file) {
        Err(cause) => Check::fail(
            "token file",
            format!("{shown}: {cause}"),
            "name another with --token-file",
        ),
        Ok(found) if found.mode() & 0o077 != 0 => Check::warn(
            "token file",
            format!(
                "{shown} can be read by others (mode {:o})",
                found.mode() & 0o777
            ),
            format!("chmod 600 {shown}"),
        ),
        Ok(_) => Check::ok("token file", format!("{shown} is private")),
    }
}

/// Each controller: whether it answers, is ready, has the version of the others and the time of this machine.
pub(super) async fn controllers(context: &Context, client: &Client) -> Vec<Check> {
    let servers = client.servers();
    let looks = (0..servers.len()).map(|index| async move {
        let live = client.look(index, "/health/live").await;
        // Each clock is compared when it was heard, however long another controller takes.
        let heard_ms = context.clock.now().0;
        (live, heard_ms, client.look(index, "/health/ready").await)
    });
    let looks = join_all(looks).await;
    let mut checks = Vec::new();
    let mut versions = Vec::new();
    for (server, (live, heard_ms, ready)) in servers.iter().zip(looks) {
        let name = format!("controller {server}");
        match live {
            Err(why) => checks.push(Check::fail(
                &name,
                format!("does not answer: {why}"),
                "start it, or mend the network to it",
            )),
            Ok(live) => {
                checks.push(readiness(&name, live.took_ms, ready));
                let date = live.date.as_deref();
                checks.extend(date.map(|date| clock(&name, date, heard_ms)));
                versions.push(view::text(&live.body, "version"));
            }
        }
    }
    checks.extend(same(&versions));
    checks
}

fn readiness(name: &str, took_ms: u64, ready: Result<Look, String>) -> Check {
    match ready {
        Ok(look) if look.status == 200 => {
            Check::ok(name, format!("is ready, answers in {}", duration(took_ms)))
        }
        Ok(look) => {
            let reason = view::text(&look.body, "reason");
            Check::fail(
                name,
                format!("is not ready: {reason}"),
                "a majority of the controllers must run and reach each other",
            )
        }
        Err(why) => Check::fail(
            name,
            format!("does not say whether it is ready: {why}"),
            "see its log",
        ),
    }
}

/// Compares a header `Date` with this machine's clock.
fn clock(name: &str, date: &str, now_ms: u64) -> Check {
    let name = format!("{name} clock");
    let parsed = DateTimeParser::new().parse_timestamp(date);
    let Ok(theirs) = parsed.map(|time| time.as_millisecond() + HALF_SECOND_MS) else {
        return Check::warn(
            &name,
            "tells no time that can be read",
            "is a proxy in between?",
        );
    };
    let ours = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let skew_ms = theirs.abs_diff(ours);
    let side = if theirs > ours { "ahead of" } else { "behind" };
    let detail = format!("is {} {side} this machine's", duration(skew_ms));
    let mend = "set both clocks (chronyd, systemd-timesyncd)";
    match skew_ms {
        skew if skew <= SKEW_MS.0 => Check::ok(&name, "agrees with this machine's"),
        skew if skew <= SKEW_MS.1 => Check::warn(&name, detail, mend),
        _ => Check::fail(&name, detail, mend),
    }
}

/// Whether all controllers that answered, and this program, are of one version.
fn same(versions: &[String]) -> Option<Check> {
    let own = env!("CARGO_PKG_VERSION");
    let mut all: Vec<&str> = versions
        .iter()
        .map(String::as_str)
        .filter(|one| !one.is_empty())
        .collect();
    let first = *all.first()?;
    all.push(own);
    all.sort_unstable();
    all.dedup();
    Some(match all.as_slice() {
        [one] => Check::ok("versions", format!("all {one}")),
        _ if versions.iter().all(|one| one == first) => {
            let detail = format!("the controllers are {first}, this program is {own}");
            Check::warn(
                "versions",
                detail,
                "install the program of the controllers' version",
            )
        }
        _ => Check::warn(
            "versions",
            all.join(", "),
            "finish the upgrade of the controllers, one at a time",
        ),
    })
}

/// Whether the token counts.
pub(super) async fn token(client: &Client, now_ms: u64) -> Check {
    match who(client).await {
        Err(Failure::Unreachable { .. }) => {
            Check::fail("token", "could not be checked: nobody answers", "see above")
        }
        Err(failure) => Check::fail("token", failure.to_string(), "dotmac login"),
        Ok(who) => match view::millis(&who["expires_at"]) {
            Some(end) if end.saturating_sub(now_ms) < TOKEN_ENDS_MS => {
                let left = duration(end.saturating_sub(now_ms));
                Check::warn(
                    "token",
                    format!("{}, in {left}", person(&who)),
                    "dotmac tokens create, then dotmac login",
                )
            }
            _ => Check::ok("token", person(&who)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::{clock, same, token_file};
    use crate::cli::doctor::check::Verdict;

    #[test]
    fn clocks_are_compared_to_the_second() {
        let date = "Tue, 14 Nov 2023 22:13:20 GMT";
        let verdict = |now_ms: u64| clock("c", date, now_ms).verdict;
        assert_eq!(verdict(1_700_000_000_900), Verdict::Ok);
        assert_eq!(verdict(1_700_000_010_000), Verdict::Warn);
        assert_eq!(verdict(1_699_999_960_000), Verdict::Fail);
        let check = clock("c", date, 1_699_999_960_000);
        assert_eq!(check.detail, "is 40 s ahead of this machine's");
        assert_eq!(clock("c", "soon", 0).verdict, Verdict::Warn);
    }

    #[test]
    fn versions_that_differ_are_named() {
        let own = env!("CARGO_PKG_VERSION").to_owned();
        let verdict = |versions: &[&str]| {
            let versions: Vec<String> = versions.iter().map(|one| (*one).to_owned()).collect();
            same(&versions).map(|check| check.verdict)
        };
        assert_eq!(verdict(&[own.as_str(), own.as_str()]), Some(Verdict::Ok));
        assert_eq!(verdict(&[own.as_str(), "9.9.9"]), Some(Verdict::Warn));
        assert_eq!(verdict(&["9.9.9", "9.9.9"]), Some(Verdict::Warn));
        assert_eq!(verdict(&[]), None);
    }

    #[test]
    fn a_token_that_others_may_read_is_worth_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        assert_eq!(token_file(&file).verdict, Verdict::Fail);
        fs::write(&file, "canary").unwrap();
        for (mode, verdict) in [(0o600, Verdict::Ok), (0o644, Verdict::Warn)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let check = token_file(&file);
            assert_eq!(check.verdict, verdict);
            assert!(!check.detail.contains("canary"));
        }
    }
}
