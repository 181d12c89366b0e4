//! `make up`: checks everything, makes what is missing, starts the fleet and waits until it can be used. In the
//! foreground it stays until it is interrupted and then stops all of it; detached, a supervisor of its own stays.

use std::{fs::File, process::Stdio, time::Duration};

use dotmac_runtime::{logging, process::Signal, supervise::spawn, telemetry::Endpoint};
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind},
    sync::watch,
    task::JoinHandle,
    time::Instant,
};

use super::{
    alive::{self, Alive, Ended, end_all},
    create::create,
    layout::{Layout, Settings},
    log_of_supervisor,
    member::Member,
    pids::Lock,
    preflight, retired, roll, settle, status,
    supervise::{note_own, supervise, supervisor_pid},
};
use crate::cli::{
    CliContext, deployments, elapsed_ms, failure::Failure, logs::tail, output::duration,
};

/// Bytes of the supervisor's log and old ones kept.
const LOG_LIMITS: (u64, u32) = (4 * 1024 * 1024, 2);
/// Milliseconds for a supervisor to start.
const SUPERVISOR_PATIENCE_MS: u64 = 10_000;
/// Milliseconds for the API's answers while the fleet settles: in all, and of one controller.
const SETTLE_MS: (u64, u64) = (5_000, 3_000);

/// What `up` is asked for.
pub(crate) struct Wish {
    /// Return when the fleet is ready.
    pub(crate) detach: bool,
    /// DOTMAC_PORT_BASE.
    pub(crate) port_base: Option<u16>,
    /// Milliseconds between a deletion and the removal, for a new fleet.
    pub(crate) grace_ms: u64,
    /// Where its processes send their spans until the next start, if anywhere.
    pub(crate) otlp_endpoint: Option<Endpoint>,
}

/// Starts the fleet.
pub(crate) async fn run(context: &CliContext, wish: Wish) -> Result<(), Failure> {
    let started = Instant::now();
    let layout = context.home_or_new();
    let mut settings = layout.settings_or(wish.port_base, wish.grace_ms)?;
    settings.otlp_endpoint = wish.otlp_endpoint;
    if Lock::is_taken(&layout)? {
        let alive = Alive::look(&layout).describe();
        context.output.line(&format!("already up: {alive}"))?;
        tell_left_out(context, &layout).await?;
        renew(context, &layout, &settings, started).await?;
        return ready(context, &layout, started).await;
    }
    preflight::check(&layout, &settings)?;
    layout.prepare()?;
    prepare(context, &layout, &settings)?;
    let mut signals = Signals::watch()?;
    let mut supervisor = if wish.detach {
        Supervisor::Detached(detach(&layout).await?)
    } else {
        Supervisor::here(&layout)?
    };
    let settled = tokio::select! {
        settled = settle_and_show(context, &layout, started) => settled,
        () = signals.next() => Err(Failure::Failed("interrupted".into())),
        failure = supervisor.failed(&layout) => Err(failure),
    };
    if let Err(failure) = settled {
        context.output.note(&format!("dotmac: {failure}"));
        let ended = supervisor.end(context, &layout).await;
        return Err(Failure::Failed(format!(
            "the start was given up; stopped {}",
            ended.describe()
        )));
    }
    if wish.detach {
        return Ok(());
    }
    context.output.note("Ctrl-C stops all of it.");
    signals.next().await;
    context.output.note("");
    let ended = supervisor.end(context, &layout).await;
    told(context, ended)
}

/// Asks a fleet that runs which of its controllers are no members any more, and says which are left out.
async fn tell_left_out(context: &CliContext, layout: &Layout) -> Result<(), Failure> {
    let client = context.client_at(layout, SETTLE_MS.0, SETTLE_MS.1)?;
    if let Err(failure) = retired::note(layout, &client).await {
        context.output.note(&format!(
            "whether all controllers are members of the cluster is not known: {failure}"
        ));
    }
    for line in retired::noted(layout) {
        context.output.note(&line);
    }
    Ok(())
}

/// Restarts, one at a time, what runs a program from before the last build.
async fn renew(
    context: &CliContext,
    layout: &Layout,
    settings: &Settings,
    started: Instant,
) -> Result<(), Failure> {
    if !roll::is_behind(layout) {
        return Ok(());
    }
    // A new program may want a new configuration; one that runs reads its own no more.
    create(layout, settings, &context.clock, &context.entropy)?;
    let client = context.client_at(layout, SETTLE_MS.0, SETTLE_MS.1)?;
    let tell = |line: &str| {
        context
            .output
            .note(&format!("{:>8}  {line}", duration(elapsed_ms(started))))
    };
    let restarted = roll::run(layout, &client, &tell).await?;
    if restarted.is_empty() {
        return Ok(());
    }
    context.output.line(&format!(
        "restarted {}; instances ran on",
        restarted.join(", ")
    ))
}

/// Makes keys and genesis on the first start.
fn prepare(context: &CliContext, layout: &Layout, settings: &Settings) -> Result<(), Failure> {
    if !layout.genesis().is_file() {
        context.output.note(&format!(
            "making a new fleet in {}",
            layout.home().display()
        ));
    }
    create(layout, settings, &context.clock, &context.entropy)
}

async fn settle_and_show(
    context: &CliContext,
    layout: &Layout,
    started: Instant,
) -> Result<(), Failure> {
    let client = context.client_at(layout, SETTLE_MS.0, SETTLE_MS.1)?;
    let tell = |line: &str| {
        context
            .output
            .note(&format!("{:>8}  {line}", duration(elapsed_ms(started))))
    };
    settle::settle(layout, &client, &context.entropy, &tell).await?;
    ready(context, layout, started).await
}

async fn ready(context: &CliContext, layout: &Layout, started: Instant) -> Result<(), Failure> {
    let client = context.client_at(layout, SETTLE_MS.0, SETTLE_MS.1)?;
    // The fleet is up, whether or not its list can be read.
    let deployments = deployments::all(&client).await.map(|all| all.len());
    if let Err(failure) = &deployments {
        context
            .output
            .note(&format!("deployments cannot be listed: {failure}"));
    }
    let deployments = deployments.unwrap_or_default();
    context
        .output
        .note(&format!("{:>8}  ready", duration(elapsed_ms(started))));
    if let Some(supervisor) = roll::foreign_supervisor(layout) {
        context.output.note(&format!(
            "the supervisor in another terminal (pid {}) runs the program from before the last build, until it is \
             started again",
            supervisor.pid
        ));
    }
    for line in status::summary(layout, &Member::present(layout), deployments)? {
        context.output.line(&line)?;
    }
    Ok(())
}

/// `dotmac local supervise`: what stays when `up` is detached.
pub(crate) async fn stay(context: &CliContext) -> Result<(), Failure> {
    let layout = context.local()?;
    // Whoever leads a group already stays in its session.
    if let Err(cause) = rustix::process::setsid() {
        tracing::debug!(error = %cause, "no session of its own");
    }
    let mut signals = Signals::watch()?;
    let mut supervisor = Supervisor::here(&layout)?;
    signals.next().await;
    let ended = supervisor.end(context, &layout).await;
    tracing::info!(
        detail = ended.describe(),
        left = ended.left,
        "the fleet has stopped"
    );
    told(context, ended)
}

/// Says what was stopped.
pub(crate) fn told(context: &CliContext, ended: Ended) -> Result<(), Failure> {
    if ended.left > 0 {
        return Err(Failure::Failed(format!(
            "stopped {}, but {} processes do not end even when they are killed",
            ended.describe(),
            ended.left
        )));
    }
    context.output.line(&format!(
        "stopped {}; no process is left, the data stays",
        ended.describe()
    ))
}

/// Who keeps the fleet alive.
enum Supervisor {
    /// This process.
    Here {
        stop: watch::Sender<bool>,
        task: Option<JoinHandle<()>>,
        _lock: Lock,
    },
    /// One that outlives this process.
    Detached(Child),
}

impl Supervisor {
    fn here(layout: &Layout) -> Result<Self, Failure> {
        let taken = Failure::Failed("another supervisor has just been started".into());
        let lock = Lock::take(layout)?.ok_or(taken)?;
        let path = log_of_supervisor(layout);
        let (bytes_max, keep) = LOG_LIMITS;
        logging::init(
            "dotmac",
            logging::FILTER,
            Some(logging::LogFile {
                path,
                bytes_max,
                keep,
            }),
        )
        .map_err(|error| crate::cli::cluster::explain(&error))?;
        note_own(layout)?;
        let (stop, stopped) = watch::channel(false);
        let layout = layout.clone();
        let task = spawn(
            "supervisor",
            async move { supervise(&layout, stopped).await },
        );
        Ok(Self::Here {
            stop,
            task: Some(task),
            _lock: lock,
        })
    }

    /// Waits for what should not happen: the end of the supervisor.
    async fn failed(&mut self, layout: &Layout) -> Failure {
        match self {
            Self::Here { .. } => std::future::pending().await,
            Self::Detached(child) => {
                let status = child
                    .wait()
                    .await
                    .map_or_else(|cause| cause.to_string(), |status| status.to_string());
                let said = tail(&crash_log(layout), 3)
                    .map(|(text, _)| text)
                    .unwrap_or_default();
                Failure::Failed(format!("the supervisor ended ({status}): {}", said.trim()))
            }
        }
    }

    /// Ends the whole fleet and the supervising.
    async fn end(&mut self, context: &CliContext, layout: &Layout) -> Ended {
        match self {
            Self::Here {
                stop,
                task,
                _lock: _,
            } => {
                stop.send_replace(true);
                let ended = end_all(layout, |line| context.output.note(line)).await;
                if let Some(task) = task.take()
                    && let Err(cause) = task.await
                {
                    tracing::error!(error = %cause, "the supervising ended badly");
                }
                supervisor_pid(layout).forget();
                ended
            }
            Self::Detached(_) => super::down::stop(context, layout).await,
        }
    }
}

pub(super) async fn detach(layout: &Layout) -> Result<Child, Failure> {
    let path = crash_log(layout);
    let failed = |cause: std::io::Error| Failure::io("write", &path, &cause);
    let output = File::create(&path).map_err(failed)?;
    let errors = output.try_clone().map_err(failed)?;
    let dotmac = layout.program("dotmac");
    let mut child = Command::new(&dotmac)
        .arg("--home")
        .arg(layout.home())
        .args(["local", "supervise"])
        .current_dir(layout.home())
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|cause| Failure::io("start", &dotmac, &cause))?;
    let pid = child.id();
    let noted = || {
        supervisor_pid(layout)
            .running()
            .is_some_and(|running| Some(running.pid) == pid)
    };
    let mut waited = Duration::ZERO;
    while !noted() && waited < Duration::from_millis(SUPERVISOR_PATIENCE_MS) {
        let step = Duration::from_millis(10);
        if tokio::time::timeout(step, child.wait()).await.is_ok() {
            let said = tail(&path, 3).map(|(text, _)| text).unwrap_or_default();
            return Err(Failure::Failed(format!(
                "the supervisor does not start: {}",
                said.trim()
            )));
        }
        waited += step;
    }
    Ok(child)
}

fn crash_log(layout: &Layout) -> std::path::PathBuf {
    layout.process("supervisor").join("crash.log")
}

/// What asks this process to stop: Ctrl-C, a service manager, or a terminal that goes away.
struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    fn watch() -> Result<Self, Failure> {
        let watch = |kind| {
            unix::signal(kind)
                .map_err(|cause| Failure::Failed(format!("signals cannot be watched: {cause}")))
        };
        Ok(Self {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            hang_up: watch(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Asks a supervisor in another process to stop everything, and waits until it has.
pub(super) async fn end_supervisor(layout: &Layout, patience_ms: u64) {
    if let Some(supervisor) = supervisor_pid(layout).running() {
        if let Err(cause) = supervisor.send_signal(Signal::TERM) {
            tracing::debug!(error = %cause, "not signalled");
        }
        if !alive::wait(patience_ms, || !supervisor.is_alive()).await
            && let Err(cause) = supervisor.send_signal(Signal::KILL)
        {
            tracing::debug!(error = %cause, "not killed");
        }
    }
    supervisor_pid(layout).forget();
}
