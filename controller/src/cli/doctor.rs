//! `dotmac doctor`: checks the configuration, the way to the cluster, the cluster and, for a local fleet, this machine.
//! It changes nothing; each line says how the thing is and how to mend it.

mod bundle;
mod check;
mod cluster;
mod machine;
mod redact;
mod way;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use self::{
    bundle::Bundle,
    check::{Check, Verdict, worst},
};
use super::{
    agents, client::Client, cluster as status, deployments, failure::Failure, find::Context,
};

/// What the exit code says.
const EXIT_CODES: &str = "Exit codes of doctor:
  0  all is well
  9  it works, and something should be looked after (warn)
  1  something does not work (fail)";
/// Milliseconds to try in all and one controller; whoever is ill should not keep the doctor waiting.
const PATIENCE_MS: (u64, u64) = (4_000, 2_000);

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Doctor {
    /// Also write what was found and the logs of a local fleet into this file (.tar.gz), without secrets
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

/// What was found out.
#[derive(Default)]
struct Findings {
    checks: Vec<Check>,
    status: Value,
    agents: Vec<Value>,
    deployments: Vec<Value>,
}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut findings = Findings::default();
        let target = context.target();
        match &target {
            Err(failure) => findings.checks.push(Check::fail(
                "context",
                failure.to_string(),
                "dotmac login, or make up",
            )),
            Ok(target) => {
                findings.checks.extend(way::configuration(context, target));
                match context.client_within(PATIENCE_MS.0, PATIENCE_MS.1) {
                    Err(failure) => findings.checks.push(Check::fail(
                        "client",
                        failure.to_string(),
                        "see above",
                    )),
                    Ok(client) => ask(context, &client, &mut findings).await,
                }
            }
        }
        let layout = context.home().filter(crate::local::layout::Layout::exists);
        if let Some(layout) = &layout {
            findings
                .checks
                .extend(machine::of_fleet(layout, context.clock.now().0));
        }
        let held = match &self.bundle {
            None => Vec::new(),
            Some(path) => {
                let mut bundle = Bundle::new(target.as_ref().ok(), layout.as_ref());
                fill(&mut bundle, &findings);
                layout.iter().for_each(|layout| bundle.logs(layout));
                bundle.write(path, context.clock.now().0 / 1_000)?
            }
        };
        report(context, &findings.checks)?;
        if let Some(path) = &self.bundle {
            context
                .output
                .note(&format!("{} holds, without secrets:", path.display()));
            held.iter().for_each(|line| context.output.note(line));
        }
        match worst(&findings.checks) {
            Verdict::Ok => Ok(()),
            bad => Err(Failure::Ended(bad.exit_code())),
        }
    }
}

/// Asks the controllers one by one, and then the cluster.
async fn ask(context: &Context, client: &Client, findings: &mut Findings) {
    let now_ms = context.clock.now().0;
    findings
        .checks
        .extend(way::controllers(context, client).await);
    findings.checks.push(way::token(client, now_ms).await);
    match client.get::<Value>(status::PATH).await {
        Ok(status) => {
            findings.checks.extend(cluster::quorum(&status));
            findings.status = status;
        }
        Err(failure) => findings.checks.push(unseen("cluster", &failure)),
    }
    match agents::list(client).await {
        Ok(agents) => {
            findings.checks.extend(cluster::agents(&agents, now_ms));
            findings.agents = agents;
        }
        Err(failure) => findings.checks.push(unseen("agents", &failure)),
    }
    findings.deployments = deployments::all(client).await.unwrap_or_default();
}

/// What this token may not see is no illness.
fn unseen(name: &str, failure: &Failure) -> Check {
    match failure {
        Failure::Refused(problem) if problem.status == 403 => Check::warn(
            name,
            "this token may not see that",
            "use an operator's token for the whole picture",
        ),
        other => Check::fail(name, other.to_string(), "see above"),
    }
}

fn fill(bundle: &mut Bundle, findings: &Findings) {
    let checks: Vec<Value> = findings.checks.iter().map(Check::json).collect();
    bundle.json(
        "checks.json",
        &json!({"version": env!("CARGO_PKG_VERSION"), "items": checks}),
    );
    bundle.json("cluster.json", &findings.status);
    bundle.json("agents.json", &json!({ "items": findings.agents }));
    bundle.deployments(&findings.deployments);
    bundle.machine(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()));
}

fn report(context: &Context, checks: &[Check]) -> Result<(), Failure> {
    let output = context.output;
    if output.is_data() {
        let items: Vec<Value> = checks.iter().map(Check::json).collect();
        return output.data(&json!({"result": worst(checks).as_str(), "items": items}));
    }
    for check in checks {
        let first = check.detail.lines().next().unwrap_or_default();
        output.verdict(check.verdict.as_str(), &format!("{}: {first}", check.name))?;
        for more in check.detail.lines().skip(1) {
            output.line(&format!("      {more}"))?;
        }
        if !check.mend.is_empty() {
            output.line(&format!("      mend: {}", check.mend))?;
        }
    }
    Ok(())
}
