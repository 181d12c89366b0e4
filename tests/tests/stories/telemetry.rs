//! What an OpenTelemetry collector gets of a fleet, and what the fleet loses when it is away: nothing.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::clock::Clock;
use dotmac_tests::{
    api::DEPLOYMENTS,
    collector::{Collector, Span},
    deployment,
    fleet::{ACTIVE_WITHIN, Fleet},
    runner,
    wait::until,
};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

/// The spans of a deployment's way: what each is called, its parent's name, and whose it is.
const WAY: [(&str, &str, &str); 11] = [
    ("controller.attest", CREATE, "dotmac-controller"),
    ("controller.vouch", "controller.attest", "dotmac-controller"),
    ("raft.propose", CREATE, "dotmac-controller"),
    ("raft.commit", "raft.propose", "dotmac-controller"),
    ("wave.seal", "raft.propose", "dotmac-controller"),
    ("wave.sign", "wave.seal", "dotmac-controller"),
    ("order.dispatch", "wave.seal", "dotmac-controller"),
    ("order.accept", "order.dispatch", "dotmac-agent"),
    ("order.apply", "order.accept", "dotmac-agent"),
    ("driver.start", "order.accept", "dotmac-agent"),
    ("probe.healthy", "order.apply", "dotmac-agent"),
];
/// The root of it.
const CREATE: &str = "POST /api/v1/tenant-orchestration/deployments";
/// What an instance asks at its start, as the agent names it.
const VALIDATE: &str = "POST /api/platform/v1/service-api/license/validate";
/// How long spans may take to arrive.
const ARRIVE_WITHIN: Duration = Duration::from_secs(15);

/// One trace from the request to the first healthy probe, continued by the instance; and law 12.
pub(crate) async fn one_trace_leads_from_the_request_to_the_healthy_instance_and_nothing_waits_for_the_collector()
-> Result<()> {
    let mut collector = Collector::prepare(runner::peer("otelcol")?)?;
    collector.start().await?;
    let fleet = Fleet::prepare("telemetry")?;
    let endpoint = collector.endpoint();
    let up = ["local", "up", "--detach", "--otlp-endpoint", &endpoint];
    fleet.dotmac(&up).await?.ok()?;
    fleet.agents_connected().await?;

    let traced = Traced {
        trace: "4bf92f3577b34da6a3ce929d0e0e4736",
        caller: "00f067aa0ba902b7",
    };
    let id = traced.create(&fleet, "Traced ISP").await?;
    let active = fleet.until_status(&id, "active", ACTIVE_WITHIN).await?;
    let spans = until("the whole trace arrives", ARRIVE_WITHIN, async || {
        let spans = collector.trace(traced.trace)?;
        let has = |name: &str| spans.iter().any(|span| span.name == name);
        for (name, _, _) in WAY {
            ensure!(has(name), "{name} is missing");
        }
        ensure!(has(CREATE) && has(VALIDATE), "{spans:#?}");
        ensure!(signers(&spans).len() == 3, "not all have signed");
        Ok(Some(spans))
    })
    .await?;
    traced.check(&spans)?;
    // The instance goes on: its spans are its own, and the agent's answers are their children.
    let process = deployment::process(&active)?;
    let validated = one(&spans, VALIDATE)?;
    ensure!(
        validated.parent == format!("{:08x}{:08x}", process.pid, 1),
        "{validated:?}"
    );
    an_instances_own_trace_is_continued(&fleet, &collector, &id).await?;
    let token = fs::read_to_string(fleet.home().join("admin.token"))?;
    let written = fs::read_to_string(collector.file())?;
    let secrets = [token.trim(), "ISP_LICENSE", "Bearer", "PLATFORM_SERVICE"];
    for secret in secrets {
        ensure!(!written.contains(secret), "a span holds {secret}");
    }

    // Law 12: without the collector all goes on, and what was made meanwhile arrives later.
    collector.kill().await?;
    let meanwhile = Traced {
        trace: "aaf92f3577b34da6a3ce929d0e0e4736",
        caller: "aaf067aa0ba902b7",
    };
    let id = meanwhile.create(&fleet, "Meanwhile ISP").await?;
    fleet.until_status(&id, "active", ACTIVE_WITHIN).await?;
    collector.start().await?;
    let spans = until("the trace is told later", ARRIVE_WITHIN, async || {
        let spans = collector.trace(meanwhile.trace)?;
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        for (name, _, _) in WAY {
            ensure!(names.contains(&name), "{name} is missing");
        }
        ensure!(names.contains(&CREATE), "{names:?}");
        Ok(Some(spans))
    })
    .await?;
    meanwhile.check(&spans)?;
    collector.kill().await?;
    fleet.down().await
}

/// A trace that a caller began.
struct Traced {
    trace: &'static str,
    caller: &'static str,
}

impl Traced {
    async fn create(&self, fleet: &Fleet, name: &str) -> Result<String> {
        let token = fs::read_to_string(fleet.home().join("admin.token"))?;
        let url = format!("http://127.0.0.1:{}{DEPLOYMENTS}", fleet.port_base());
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answer = client
            .post(url)
            .bearer_auth(token.trim())
            .header(
                "traceparent",
                format!("00-{}-{}-01", self.trace, self.caller),
            )
            .json(&json!({"tenant_name": name, "region": "byov-lagos"}))
            .send()
            .await?
            .error_for_status()?;
        deployment::id(&answer.json().await?)
    }

    /// Every span has the right parent, the right service, and a beginning before its end.
    fn check(&self, spans: &[Span]) -> Result<()> {
        let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
        ensure!(
            ids.len() == spans.len(),
            "two spans have one id: {spans:#?}"
        );
        let root = one(spans, CREATE)?;
        ensure!(root.parent == self.caller && root.is_server, "{root:?}");
        ensure!(root.service == "dotmac-controller", "{root:?}");
        for span in spans {
            ensure!(span.start > 0 && span.start <= span.end, "{span:?}");
            ensure!(!span.has_failed, "{span:?}");
        }
        for (name, parent, service) in WAY {
            for span in spans.iter().filter(|span| span.name == name) {
                let above = spans.iter().find(|one| one.id == span.parent);
                let above = above.with_context(|| format!("no parent of {span:?}"))?;
                ensure!(above.name == parent, "{span:?} is below {above:?}");
                ensure!(span.service == service, "{span:?}");
            }
        }
        ensure!(signers(spans).len() >= 2, "too few sign: {spans:#?}");
        let vouching = one_of(spans, "controller.vouch")?;
        ensure!(vouching.instance != root.instance, "{vouching:?}");
        let (accept, dispatch) = (one(spans, "order.accept")?, one(spans, "order.dispatch")?);
        ensure!(accept.parent == dispatch.id, "{accept:?}");
        Ok(())
    }
}

fn signers(spans: &[Span]) -> BTreeSet<&str> {
    let signed = spans.iter().filter(|span| span.name == "wave.sign");
    signed.map(|span| span.instance.as_str()).collect()
}

fn one<'a>(spans: &'a [Span], name: &str) -> Result<&'a Span> {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    ensure!(found.len() == 1, "not one {name}: {found:#?}");
    Ok(found[0])
}

fn one_of<'a>(spans: &'a [Span], name: &str) -> Result<&'a Span> {
    let mut found = spans.iter().filter(|span| span.name == name);
    found.next().with_context(|| format!("there is no {name}"))
}

/// Whoever has the instance's secret may bring a trace; whoever has not gets no span.
async fn an_instances_own_trace_is_continued(
    fleet: &Fleet,
    collector: &Collector,
    id: &str,
) -> Result<()> {
    let told = fleet.dotmac_json(&["tenants", "instance-env", id]).await?;
    let variables = told["items"].as_array().context("no items")?;
    let variable = |name: &str| {
        let found = variables.iter().find(|one| one["name"] == name);
        found
            .map(|one| deployment::text(one, "value").to_owned())
            .with_context(|| format!("{name} is not set"))
    };
    let (url, secret) = (
        variable("PLATFORM_URL")?,
        variable("PLATFORM_SERVICE_TOKEN")?,
    );
    let (trace, stranger) = (
        "bbf92f3577b34da6a3ce929d0e0e4736",
        "ccf92f3577b34da6a3ce929d0e0e4736",
    );
    let path = format!("{url}/api/platform/v1/service-api/config/{id}");
    let client = reqwest::Client::builder().no_proxy().build()?;
    let issued = Clock::system().now().0 / 1_000;
    let ask = async |trace: &str, secret: &str| -> Result<u16> {
        let claims = json!({
            "sub": format!("isp-{id}"), "type": "service", "service_type": "isp",
            "tenant_id": id, "permissions": ["config:read"], "jti": trace,
            "iat": issued, "exp": issued + 3_600,
        });
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode::<Value>(&Header::default(), &claims, &key)?;
        let asked = client
            .get(&path)
            .bearer_auth(token)
            .header("traceparent", format!("00-{trace}-1234567890abcdef-01"));
        Ok(asked.send().await?.status().as_u16())
    };
    ensure!(ask(stranger, "a guess").await? == 401);
    ensure!(ask(trace, &secret).await? == 200);
    let spans = until("the instance's trace", ARRIVE_WITHIN, async || {
        let spans = collector.trace(trace)?;
        Ok((!spans.is_empty()).then_some(spans))
    })
    .await?;
    let call = one(&spans, "GET /api/platform/v1/service-api/config/{tenant}")?;
    ensure!(
        call.parent == "1234567890abcdef" && call.is_server,
        "{call:?}"
    );
    ensure!(call.service == "dotmac-agent", "{call:?}");
    let unit = call.attributes.get("dotmac.unit").map(String::as_str);
    ensure!(unit == Some(format!("instance/{id}").as_str()), "{call:?}");
    ensure!(
        collector.trace(stranger)?.is_empty(),
        "a stranger is traced"
    );
    Ok(())
}
