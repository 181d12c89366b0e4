//! An instance that shares no code with the platform (`tests/foreign/instance.py`), deployed and driven from outside.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::process::ProcessIdentity;
use serde_json::{Value, json};

use crate::{deployment, fleet::Fleet, processes, wait::until};

/// The release's name and version.
pub const RELEASE: &str = "foreign-isp:1.0.0";
/// Where the manifest expects the program.
const PROGRAM: &str = "/opt/foreign-isp/instance.py";

/// One deployed instance. Its tenant has the same id.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// Id of its deployment.
    pub id: String,
    /// Where it answers, also while nobody can be asked for that.
    pub address: String,
    http: reqwest::Client,
}

/// What the platform answered a foreign instance.
#[derive(Debug, Clone)]
pub struct Told {
    /// HTTP status.
    pub status: u64,
    /// The body.
    pub answer: Value,
    /// The token that was shown.
    pub bearer: String,
}

/// Puts the program into the fleet's home and adds its release; again it does nothing.
///
/// # Errors
/// When the release is refused.
pub async fn release(fleet: &Fleet) -> Result<()> {
    release_as(fleet, |_| ()).await
}

/// As [`release`], with a change of its component.
///
/// # Errors
/// When the release is refused.
pub async fn release_as(fleet: &Fleet, change: impl FnOnce(&mut Value)) -> Result<()> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("foreign");
    let program = fleet.home().join("foreign-instance.py");
    if program.exists() {
        return Ok(());
    }
    fs::copy(folder.join("instance.py"), &program)?;
    let manifest = fs::read_to_string(folder.join("release.json"))?;
    ensure!(
        manifest.contains(PROGRAM),
        "the manifest names no {PROGRAM}"
    );
    let mut manifest: Value =
        serde_json::from_str(&manifest.replace(PROGRAM, &program.display().to_string()))?;
    change(&mut manifest["components"]["web"]);
    let file = fleet.home().join("foreign-release.json");
    fs::write(&file, manifest.to_string())?;
    let file = file.display().to_string();
    fleet.dotmac(&["releases", "add", &file]).await?.ok()?;
    Ok(())
}

impl Foreign {
    /// Deploys one and waits until it is active.
    ///
    /// # Errors
    /// When it does not become active.
    pub async fn deploy(fleet: &Fleet, name: &str, region: &str) -> Result<Self> {
        release(fleet).await?;
        let body = json!({"tenant_name": name, "region": region, "image_tag": RELEASE,
            "license_tier": "professional", "max_customers": 1000});
        let id = fleet.deploy_as(&body).await?;
        let address = deployment::address(&fleet.deployment(&id).await?)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(15))
            .build()?;
        Ok(Self { id, address, http })
    }

    /// Makes it call its platform: members of the order replace what it would send.
    ///
    /// # Errors
    /// When it or its platform does not answer.
    pub async fn call(&self, order: &Value) -> Result<Told> {
        let told = self.order("call", order).await?;
        Ok(Told {
            status: told["status"].as_u64().context("no status")?,
            bearer: deployment::text(&told, "bearer").to_owned(),
            answer: told["answer"].clone(),
        })
    }

    /// A call as it should be, answered by 200.
    ///
    /// # Errors
    /// When it is not.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let told = self.call(&json!({"path": path, "body": body})).await?;
        ensure!(told.status == 200, "{path} answered {told:?}");
        Ok(told.answer)
    }

    /// Its licence as its platform tells it.
    ///
    /// # Errors
    /// When it is not told.
    pub async fn license(&self) -> Result<Value> {
        let order = json!({"method": "GET", "path": "/license/{license_key}"});
        let told = self.call(&order).await?;
        ensure!(told.status == 200, "{told:?}");
        Ok(told.answer)
    }

    /// Reports so many active subscribers; gives the platform's answer.
    ///
    /// # Errors
    /// When the report is not taken.
    pub async fn count(&self, active: u64) -> Result<Value> {
        self.order("subscribers", &json!({ "active": active }))
            .await
    }

    /// An event of it.
    #[must_use]
    pub fn event(&self, id: &str, event_type: &str) -> Value {
        json!({"event_id": id, "event_type": event_type, "tenant_id": self.id,
            "occurred_at": "2026-01-31T12:00:00Z", "payload": {"plan": "gold", "password": "hunter2"}})
    }

    /// Its process, as itself says.
    ///
    /// # Errors
    /// When it does not answer or does not run.
    pub async fn process(&self) -> Result<ProcessIdentity> {
        let url = format!("http://{}/health", self.address);
        let page: Value = self.http.get(url).send().await?.json().await?;
        let pid = page["pid"].as_u64().context("it tells no pid")?;
        processes::of(u32::try_from(pid)?)
    }

    /// Waits until it runs in another process, which it does only with a licence.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn restarted(&self, before: &ProcessIdentity) -> Result<ProcessIdentity> {
        let what = format!("{} runs in another process", self.id);
        until(&what, Duration::from_secs(30), async || {
            let now = self.process().await?;
            Ok((now != *before).then_some(now))
        })
        .await
    }

    async fn order(&self, what: &str, body: &Value) -> Result<Value> {
        let url = format!("http://{}/api/isp/v1/{what}", self.address);
        let answer = self.http.post(url).json(body).send().await?;
        let (status, body): (_, Value) = (answer.status(), answer.json().await?);
        ensure!(status.is_success(), "{what}: {status} {body}");
        Ok(body)
    }
}
