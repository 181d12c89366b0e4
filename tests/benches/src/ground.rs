//! The fleet under test: three controllers and an agent in each region, and a region without any agent, in which
//! deployments are asked for, committed and shown, and wait. So thousands of them need no processes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use dotmac_controller::access_token::AccessToken;
use dotmac_runtime::{entropy::Entropy, supervise};
use dotmac_tests::{api::DEPLOYMENTS, fleet::Fleet};
use hyper::{Method, StatusCode, header::HeaderValue};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    drive::{Round, drive_whole},
    tell,
    wire::{Ask, Target, Wire, caller},
};

/// The region without an agent.
pub(crate) const REGION: &str = "bench-nowhere";
/// Connections over which deployments are made before anything is measured.
const MAKERS: u64 = 32;
/// Tokens that share the load: each keeps within what one caller may take.
const CALLERS: usize = 64;

/// A running fleet.
#[allow(missing_debug_implementations, reason = "it holds a token")]
pub(crate) struct Ground {
    /// The fleet; it ends with this value.
    pub(crate) fleet: Fleet,
    /// Its controllers, in the name of the first operator.
    pub(crate) targets: Vec<Target>,
}

impl Ground {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) async fn start(name: &str) -> Result<Self> {
        Self::start_traced(name, None).await
    }

    /// Starts it with its spans going to this collector, if any.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) async fn start_traced(name: &str, collector: Option<SocketAddr>) -> Result<Self> {
        let fleet = Fleet::prepare(name)?;
        let started = Instant::now();
        let endpoint = collector.map(|address| format!("http://{address}"));
        let mut up = vec!["local", "up", "--detach"];
        up.extend(endpoint.iter().flat_map(|url| ["--otlp-endpoint", url]));
        fleet.dotmac(&up).await?.ok()?;
        let took = started.elapsed();
        fleet.agents_connected().await?;
        tell(&format!(
            "three controllers and five agents in {}, up in {:.1} s",
            fleet.home().display(),
            took.as_secs_f64()
        ));
        let admin = std::fs::read_to_string(fleet.home().join("admin.token"))?;
        let callers: Arc<[HeaderValue]> = [caller(admin.trim())?].into();
        let targets = (0..3).map(|node| Target {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, fleet.port_base() + node)),
            callers: Arc::clone(&callers),
        });
        let targets = targets.collect();
        let mut ground = Self { fleet, targets };
        let region = json!({"id": REGION, "description": "a region without an agent"});
        ground.body(&post("/api/v1/regions", &region)).await?;
        let callers = ground.callers(CALLERS).await?;
        for target in &mut ground.targets {
            *target = target.with(&callers);
        }
        Ok(ground)
    }

    /// Makes this many tokens.
    ///
    /// # Errors
    /// When one is not accepted.
    pub(crate) async fn callers(&self, count: usize) -> Result<Vec<HeaderValue>> {
        let entropy = Entropy::system();
        let mut callers = Vec::new();
        for number in 0..count {
            let token = AccessToken::generate(&entropy);
            let body = json!({
                "id": token.id(), "secret_digest": token.digest().to_string(),
                "name": format!("bench {number}"), "role": "platform_admin",
            });
            self.body(&post("/api/v1/tokens", &body)).await?;
            callers.push(caller(token.reveal())?);
        }
        Ok(callers)
    }

    /// Asks for this many deployments in the region without an agent.
    ///
    /// # Errors
    /// When one is not accepted.
    pub(crate) async fn fill(&self, name: &str, count: u64) -> Result<()> {
        let name = name.to_owned();
        let per_maker = count.div_ceil(MAKERS);
        let mut makers = Vec::new();
        for (number, target) in (0..MAKERS).zip(self.targets.iter().cycle()) {
            let (target, name) = (target.clone(), name.clone());
            let numbers = (number * per_maker)..((number + 1) * per_maker).min(count);
            makers.push(supervise::spawn("bench maker", async move {
                let mut wire = Wire::open(&target, number).await?;
                for number in numbers {
                    let (status, body) = wire.ask(&create(&name, number)).await?;
                    let text = String::from_utf8_lossy(&body);
                    ensure!(status == StatusCode::CREATED, "create: {status}: {text}");
                }
                Ok(())
            }));
        }
        for maker in makers {
            maker.await??;
        }
        Ok(())
    }

    /// What the API answers to one request.
    ///
    /// # Errors
    /// When it answers anything but success.
    pub(crate) async fn body(&self, ask: &Ask) -> Result<Bytes> {
        let target = self.targets.first().context("there is no controller")?;
        let (status, body) = Wire::open(target, 0).await?.ask(ask).await?;
        let text = String::from_utf8_lossy(&body);
        ensure!(
            status == ask.expected,
            "{} {}: {status}: {text}",
            ask.method,
            ask.path
        );
        Ok(body)
    }

    /// Ids of deployments, at most `limit`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn ids(&self, limit: usize) -> Result<Vec<String>> {
        let body = self.body(&list(limit)).await?;
        let page: Value = serde_json::from_slice(&body)?;
        let items = page["items"].as_array().context("no items")?;
        let ids = items
            .iter()
            .map(|item| item["id"].as_str().map(str::to_owned));
        ids.collect::<Option<_>>().context("an item without id")
    }

    /// Lets everything settle that the load before has left, by a round that is not counted.
    ///
    /// # Errors
    /// When requests fail.
    pub(crate) async fn warm_up(&self, id: &str) -> Result<()> {
        let path = format!("{DEPLOYMENTS}/{id}");
        let round = Round {
            connections: 8,
            over: Duration::from_secs(1),
            every: None,
        };
        let make = Arc::new(move |_| Ask::get(&path));
        drive_whole(&self.targets, round, make).await.map(|_| ())
    }
}

/// Asks for a page of deployments.
pub(crate) fn list(limit: usize) -> Ask {
    Ask::get(format!("{DEPLOYMENTS}?limit={limit}"))
}

/// Asks for a deployment of a new tenant in the region without an agent.
pub(crate) fn create(name: &str, number: u64) -> Ask {
    let body = json!({
        "tenant_name": format!("{name} {number}"),
        "region": REGION,
        "resource_tier": "small",
        "license_tier": "professional",
        "domain_name": format!("{}-{number}.example.net", name.to_lowercase()),
    });
    post(DEPLOYMENTS, &body)
}

/// Asks for something new.
pub(crate) fn post(path: &str, body: &Value) -> Ask {
    Ask {
        method: Method::POST,
        path: path.to_owned(),
        body: body.to_string().into(),
        expected: StatusCode::CREATED,
        bearer: None,
    }
}

/// Gives a tenant another name.
pub(crate) fn rename(tenant: &str, name: &str) -> Ask {
    Ask {
        method: Method::PATCH,
        path: format!("/api/v1/tenants/{tenant}"),
        body: json!({"tenant_name": name}).to_string().into(),
        expected: StatusCode::OK,
        bearer: None,
    }
}
