//! Thirty days without a controller, with the clock of the whole host in one file (libfaketime): agent and instance go by
//! it, the controllers do not.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::{clock::Clock, process::Signal};
use dotmac_tests::{
    deployment::text,
    fleet::{CONTROLLERS, Fleet},
    foreign::{self, Foreign},
    runner,
    wait::until,
};
use reqwest::Method;
use serde_json::{Value, json};

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3_600_000;
/// Where it happens.
const REGION: &str = "do-fra1";
/// Longer than the minute in which an agent writes the time of licences down.
const WRITTEN_WITHIN: Duration = Duration::from_secs(75);

pub(crate) async fn law_5_thirty_days_without_controllers_take_no_instance_down_and_a_clock_set_back_extends_nothing()
-> Result<()> {
    let library = runner::peer("libfaketime")?;
    let fleet = Fleet::prepare("thirty-days")?;
    let host = Host::new(&fleet, &library)?;
    let told = async {
        fleet.up().await?;
        tell(&fleet, &host).await?;
        fleet.down().await
    };
    told.await.map_err(|error: anyhow::Error| {
        fleet.keep();
        error.context(fleet.tails())
    })
}

async fn tell(fleet: &Fleet, host: &Host) -> Result<()> {
    fleet.settled().await?;
    foreign::release_as(fleet, |web| {
        for (name, value) in host.variables.as_object().into_iter().flatten() {
            // Python cannot sleep by a clock that is half real.
            if name != "FAKETIME_DONT_FAKE_MONOTONIC" {
                web["env"][name] = value.clone();
            }
        }
        // A shim inherits no variable and goes by the real clock: for its agent what it started is old, and past the
        // grace of a probe that would end it.
        web["probes"]["live"] = Value::Null;
    })
    .await?;
    let isp = Foreign::deploy(fleet, "Lonely ISP", REGION).await?;
    isp.count(300).await?;
    let end = Clock::system().now().plus_millis(20 * DAY_MS);
    let end = jiff::Timestamp::from_millisecond(i64::try_from(end.0)?)?.to_string();
    let path = format!("/api/v1/licenses/{}", isp.id);
    let body = json!({"expires_at": end, "grace_days": 5});
    let api = fleet.api()?;
    let changed = api.ask(Method::PATCH, &path, Some(&body), None).await?;
    changed.ok(200)?;
    until("the end is known", Duration::from_secs(10), async || {
        Ok((!isp.license().await?["expires_at"].is_null()).then_some(()))
    })
    .await?;
    is_told(&isp, "valid", 1_000).await?;

    // Controllers and agent end; thirty days later the agent starts, and the instance has to.
    let controllers = fleet.kill_and_hold(&CONTROLLERS).await?;
    let agent = fleet.process(REGION)?;
    let instance = isp.process().await?;
    let held = fleet.kill_and_hold(&[REGION]).await?;
    host.set("+30d")?;
    instance.send_signal(Signal::KILL)?;
    drop(held);
    let agent = fleet.back(REGION, &agent).await?;
    let instance = isp.restarted(&instance).await?;
    is_told(&isp, "restricted", 300).await?;

    // The clock goes back, at first below a running agent, and nothing is won by that.
    let written = fleet.home().join(REGION).join("data/license_time");
    let later = Clock::system().now().plus_millis(29 * DAY_MS);
    until("the time is written down", WRITTEN_WITHIN, async || {
        let text = fs::read_to_string(&written).with_context(|| written.display().to_string())?;
        Ok((text.trim().parse::<u64>()? > later.0).then_some(()))
    })
    .await?;
    host.set("+0")?;
    is_told(&isp, "restricted", 300).await?;
    fleet.kill(REGION).await?;
    fleet.back(REGION, &agent).await?;
    instance.send_signal(Signal::KILL)?;
    isp.restarted(&instance).await?;
    is_told(&isp, "restricted", 300).await?;

    // What the host's clock pretended ends with the first signed one.
    drop(controllers);
    until(
        "the signed clock counts",
        Duration::from_secs(60),
        async || {
            let license = isp.license().await?;
            Ok((license["status"] == "valid" && license["max_subscribers"] == 1000).then_some(()))
        },
    )
    .await
}

async fn is_told(isp: &Foreign, phase: &str, most: u64) -> Result<()> {
    // The agent may be back a moment before it answers.
    let license = until("the license is told", Duration::from_secs(20), async || {
        isp.license().await.map(Some)
    })
    .await?;
    ensure!(
        text(&license, "status") == phase
            && license["is_valid"] == true
            && license["max_subscribers"] == most,
        "not {phase} with {most}: {license}"
    );
    Ok(())
}

/// The machine on which agents and instances run, so far as its clock goes.
struct Host {
    clock: PathBuf,
    variables: Value,
}

impl Host {
    /// Makes every agent of a fleet that does not run yet go by the clock in a file.
    fn new(fleet: &Fleet, library: &Path) -> Result<Self> {
        let clock = fleet.home().join("clock");
        let library = library.canonicalize()?.display().to_string();
        let variables = json!({
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": clock.display().to_string(),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        });
        let (agent, real) = (
            fleet.home().join("bin/dotmac-agent"),
            fleet.home().join("bin/dotmac-agent-real"),
        );
        fs::rename(&agent, &real)?;
        let members = variables.as_object().into_iter().flatten();
        let exports: String = members
            .map(|(name, value)| format!("export {name}={value}\n"))
            .collect();
        let script = format!("#!/bin/sh\n{exports}exec '{}' \"$@\"\n", real.display());
        fs::write(&agent, script)?;
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))?;
        let host = Self { clock, variables };
        host.set("+0")?;
        Ok(host)
    }

    /// Sets its clock, relative to the real one; readers never see a part of it.
    fn set(&self, offset: &str) -> Result<()> {
        let new = self.clock.with_extension("new");
        fs::write(&new, format!("{offset}\n"))?;
        Ok(fs::rename(&new, &self.clock)?)
    }
}
