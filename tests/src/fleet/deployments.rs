//! Deployments of a fleet: asked for, waited for, told how to behave, removed; and what is told of them.

use std::time::Duration;

use anyhow::{Result, bail};
use dotmac_runtime::process::ProcessIdentity;
use reqwest::Method;
use serde_json::{Value, json};

use super::{ACTIVE_WITHIN, Fleet};
use crate::{api::DEPLOYMENTS, deployment, wait::until};

impl Fleet {
    /// Asks for a deployment of the demo instance, and gives its id once it is active.
    ///
    /// # Errors
    /// When it is not accepted or not active in time.
    pub async fn deploy(&self, name: &str, region: &str) -> Result<String> {
        let body = json!({"tenant_name": name, "region": region, "resource_tier": "small"});
        self.deploy_as(&body).await
    }

    /// Asks for a deployment with this body, and gives its id once it is active.
    ///
    /// # Errors
    /// When it is not accepted or not active in time.
    pub async fn deploy_as(&self, body: &Value) -> Result<String> {
        let id = self.create(body).await?;
        self.until_status(&id, "active", ACTIVE_WITHIN).await?;
        Ok(id)
    }

    /// Asks for a deployment and gives its id at once.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn create(&self, body: &Value) -> Result<String> {
        let created = self.api()?.post(DEPLOYMENTS, body).await?.ok(201)?;
        deployment::id(&created)
    }

    /// One deployment as the API shows it.
    ///
    /// # Errors
    /// When it is not shown.
    pub async fn deployment(&self, id: &str) -> Result<Value> {
        self.api()?.get(&format!("{DEPLOYMENTS}/{id}")).await
    }

    /// Waits until a deployment has this status.
    ///
    /// # Errors
    /// When it does not in time; with what it was last.
    pub async fn until_status(&self, id: &str, status: &str, within: Duration) -> Result<Value> {
        until(&format!("{id} is {status}"), within, async || {
            let shown = self.deployment(id).await?;
            if shown["status"] == status {
                return Ok(Some(shown));
            }
            let (found, why) = (
                deployment::text(&shown, "status"),
                deployment::waiting(&shown),
            );
            bail!("it is {found}: {why}")
        })
        .await
    }

    /// Tells a demo instance how to behave.
    ///
    /// # Errors
    /// When it does not answer; one that is told to crash does not.
    pub async fn control(&self, id: &str, order: &Value) -> Result<Value> {
        control(&deployment::address(&self.deployment(id).await?)?, order).await
    }

    /// Tells a demo instance to end with an exit code, and waits until its process is gone.
    ///
    /// # Errors
    /// When it goes on.
    pub async fn crash(&self, id: &str, exit_code: u8) -> Result<ProcessIdentity> {
        let process = deployment::process(&self.deployment(id).await?)?;
        let order = json!({"mode": "crash", "exit_code": exit_code});
        // It ends instead of answering.
        let _ = self.control(id, &order).await;
        until(
            "the instance has ended",
            Duration::from_secs(5),
            async || Ok((!process.is_alive()).then_some(())),
        )
        .await?;
        Ok(process)
    }

    /// The story of a tenant, oldest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn story(&self, tenant: &str) -> Result<Vec<Value>> {
        self.api()?
            .list(&format!("/api/v1/audit?tenant={tenant}&limit=200"), "after")
            .await
    }

    /// Waits until a tenant's story has an action whose detail holds `words`.
    ///
    /// # Errors
    /// When it has not in time.
    pub async fn until_told(
        &self,
        tenant: &str,
        action: &str,
        words: &str,
        within: Duration,
    ) -> Result<Value> {
        until(
            &format!("the story of {tenant} tells {action} {words:?}"),
            within,
            async || {
                let story = self.story(tenant).await?;
                Ok(story.into_iter().find(|record| {
                    record["action"] == action && deployment::text(record, "detail").contains(words)
                }))
            },
        )
        .await
    }

    /// Asks for the deletion of a deployment.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn delete(&self, id: &str) -> Result<Value> {
        let path = format!("{DEPLOYMENTS}/{id}");
        self.api()?
            .ask(Method::DELETE, &path, None, None)
            .await?
            .ok(202)
    }
}

/// Tells the demo instance on this address how to behave.
///
/// # Errors
/// When it does not answer; one that is told to crash does not.
pub async fn control(address: &str, order: &Value) -> Result<Value> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()?;
    let request = client.post(format!("http://{address}/control")).json(order);
    Ok(request.send().await?.error_for_status()?.json().await?)
}
