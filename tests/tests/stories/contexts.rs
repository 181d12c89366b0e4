//! How an operator gets in from a directory that knows no fleet: login, contexts, explain and doctor.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::{
    cli::{self, Ran},
    fleet::Fleet,
};

/// The installed program without `--home`, with its own place for contexts.
struct Stranger<'a> {
    fleet: &'a Fleet,
    variables: [(&'static str, String); 2],
}

impl<'a> Stranger<'a> {
    fn new(fleet: &'a Fleet, directory: &tempfile::TempDir) -> Self {
        let place = directory.path().display().to_string();
        let variables = [("XDG_CONFIG_HOME", place.clone()), ("HOME", place)];
        Self { fleet, variables }
    }

    async fn run(&self, arguments: &[&str]) -> Result<Ran> {
        cli::run(
            &self.fleet.home().join("bin/dotmac"),
            arguments,
            &self.variables,
        )
        .await
    }

    async fn types(&self, arguments: &[&str], typed: &str) -> Result<Ran> {
        let program = self.fleet.home().join("bin/dotmac");
        cli::run_when_asked(&program, arguments, &self.variables, ("not shown", typed)).await
    }
}

/// The token is typed at a terminal that does not show it, learned controllers included, and is in no output.
pub(crate) async fn a_login_at_a_terminal_shows_no_token_and_learns_every_controller(
    fleet: Arc<Fleet>,
) -> Result<()> {
    fleet.settled().await?;
    let directory = tempfile::tempdir()?;
    let stranger = Stranger::new(&fleet, &directory);
    let token = fs::read_to_string(fleet.home().join("admin.token"))?;
    let server = format!("http://127.0.0.1:{}", fleet.port_base());

    let login = ["login", "--name", "here", "--server", &server];
    let mistyped = token.trim().replace(&token[30..32], "zz") + "\n";
    let refused = stranger.types(&login, &mistyped).await?.with_code(2)?;
    ensure!(refused.err.contains("checksum"), "{}", refused.err);
    let ran = stranger.types(&login, &token).await?.ok()?;
    for shown in [&ran.out, &ran.err] {
        ensure!(
            !shown.contains(token.trim()),
            "the token was shown: {shown}"
        );
    }
    let file = directory.path().join("dotmac/contexts.toml");
    let mode = fs::metadata(&file)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "contexts.toml has mode {mode:o}");

    let contexts = stranger
        .run(&["context", "list", "-o", "json"])
        .await?
        .ok()?
        .json()?;
    let servers = contexts["items"][0]["servers"].as_array();
    ensure!(
        servers.is_some_and(|servers| servers.len() == 3),
        "{contexts}"
    );
    ensure!(!contexts.to_string().contains(token.trim()), "{contexts}");

    let change = [
        "tenants",
        "create",
        "--name",
        "From Afar",
        "--yes",
        "-o",
        "name",
    ];
    let made = stranger.run(&change).await?.ok()?;
    ensure!(
        made.err.contains("context here (http://127.0.0.1:"),
        "{}",
        made.err
    );
    let id = made.out.trim();
    let explained = stranger.run(&["explain", id]).await?.ok()?;
    ensure!(
        explained.out.contains("is the tenant From Afar"),
        "{}",
        explained.out
    );
    let misspelt = stranger
        .run(&["explain", &format!("{id}x")])
        .await?
        .with_code(3)?;
    ensure!(
        misspelt.err.contains(&format!("did you mean {id}")),
        "{}",
        misspelt.err
    );

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let refused = stranger.run(&["tenants", "list"]).await?.with_code(2)?;
    ensure!(refused.err.contains("chmod 600"), "{}", refused.err);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    stranger.run(&["logout"]).await?.ok()?;
    stranger.run(&["tenants", "list"]).await?.with_code(2)?;
    Ok(())
}

/// A well fleet has nothing that fails; the bundle has no secret of it; a controller less is seen.
pub(crate) async fn the_doctor_finds_a_fleet_well_and_packs_no_secret(
    fleet: Arc<Fleet>,
) -> Result<()> {
    fleet.settled().await?;
    fleet.agents_connected().await?;
    let directory = tempfile::tempdir()?;
    let bundle = directory.path().join("bundle.tar.gz");
    let path = bundle.to_str().context("a path of letters")?;
    let ran = fleet
        .dotmac(&["doctor", "--bundle", path, "-o", "json"])
        .await?;
    let report = ran.json()?;
    let failing: Vec<_> = report["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|check| check["result"] == "fail")
        .collect();
    ensure!(failing.is_empty(), "{failing:?}");
    let expected = if report["result"] == "ok" { 0 } else { 9 };
    ensure!(ran.code == expected, "{report} ended with {}", ran.code);
    let mode = fs::metadata(&bundle)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the bundle has mode {mode:o}");
    let unpacked = std::process::Command::new("tar")
        .args(["-xzOf", path])
        .output()?;
    ensure!(unpacked.status.success(), "tar cannot read the bundle");
    let text = String::from_utf8_lossy(&unpacked.stdout);
    let token = fs::read_to_string(fleet.home().join("admin.token"))?;
    ensure!(
        !text.contains(token.trim()),
        "the admin's token is in the bundle"
    );
    ensure!(
        text.contains("logs") || text.contains("started"),
        "the logs are missing"
    );
    Ok(())
}
