//! A small real instance of an ISP platform: it keeps what the contract says of one, validates its licence by the
//! platform's API, serves health, and can be told to be slow, sick, to hang or to crash.
//!
//! It exits with 2 when its environment is incomplete, its licence invalid or the platform unreachable. It refuses
//! to run unlicensed.

mod mode;
mod output;
mod pages;
mod platform;
mod settings;

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result, bail};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{mode::Mode, output::say, pages::Instance, platform::Platform, settings::Settings};

fn main() -> ExitCode {
    let ran = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")
        .and_then(|runtime| runtime.block_on(run()));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("demo-isp: {error:#}"));
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<()> {
    let settings = Arc::new(Settings::from_environment()?);
    if matches!(settings.mode, Mode::Crash | Mode::CrashLoop) {
        say("demo-isp: told to crash at its start");
        settings.crash.happen();
    }
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    let platform = Platform::new(Arc::clone(&settings))?;
    let license = platform
        .validate_license()
        .await
        .context("the licence cannot be validated, and without one this program does not run")?;
    if !license.valid {
        bail!("the licence is not valid: {}", license.message);
    }
    let tenant_name = license.tenant_name();
    say(&format!("demo-isp: licensed for {tenant_name}"));

    let instance = Instance::new(Arc::clone(&settings), tenant_name);
    let address = (settings.host.as_str(), settings.port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {}:{}", settings.host, settings.port))?;
    say(&format!("demo-isp: serving {}", listener.local_addr()?));
    let reporting = platform.keep_reporting(instance.clone());
    let serving = axum::serve(listener, pages::router(instance)).into_future();
    tokio::select! {
        served = serving => served.context("serving ended"),
        () = reporting => bail!("reporting ended"),
        () = ended(terminate, interrupt) => {
            say("demo-isp: asked to end, ending");
            Ok(())
        }
    }
}

async fn ended(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}
