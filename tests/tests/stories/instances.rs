//! A foreign program as an instance: what it is told, what is learnt of it, and what another one cannot get.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_runtime::clock::Clock;
use dotmac_tests::{
    deployment::text,
    fleet::Fleet,
    foreign::{Foreign, Told},
    wait::until,
};
use serde_json::{Value, json};

/// How long a report may take from its answer to the controllers' API.
const ARRIVES_WITHIN: Duration = Duration::from_secs(20);

pub(crate) async fn a_foreign_program_is_licensed_configured_and_measured(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let isp = Foreign::deploy(&fleet, "Foreign ISP", "do-fra1").await?;
    let license = isp.license().await?;
    ensure!(
        license["is_valid"] == true && license["max_subscribers"] == 1000,
        "{license}"
    );
    let config = isp
        .post(
            &format!("/config/{}/sync", isp.id),
            &json!({"current_version": null}),
        )
        .await?;
    let version = config["config"]["config_version"].clone();
    ensure!(
        config["needs_update"] == true && version.is_string(),
        "{config}"
    );
    let again = json!({ "current_version": version });
    let again = isp
        .post(&format!("/config/{}/sync", isp.id), &again)
        .await?;
    ensure!(
        again["needs_update"] == false && again["config"].is_null(),
        "{again}"
    );

    let counted = usage(&isp.id, "2026-01-31T12:00:00Z");
    for _ in 0..3 {
        let told = isp.post("/metrics/report", &counted).await?;
        ensure!(told["received"] == true, "{told}");
    }
    isp.count(421).await?;
    isp.post(
        "/events/webhook",
        &isp.event("single-1", "subscriber.created"),
    )
    .await?;
    let events = [
        isp.event("batched-1", "payment.received"),
        isp.event("single-1", "subscriber.created"),
        isp.event("unknown-1", "subscriber.teleported"),
    ];
    let batch = isp
        .post("/events/webhook/batch", &json!({ "events": events }))
        .await?;
    ensure!(
        batch["received"] == 3 && batch["processed"] == 2 && batch["failed"] == 1,
        "{batch}"
    );
    let unknown = isp.event("unknown-2", "subscriber.teleported");
    let unknown = json!({"path": "/events/webhook", "body": unknown});
    let unknown = isp.call(&unknown).await?;
    ensure!(unknown.status == 422, "{unknown:?}");

    once(&fleet, &isp.id, &["single-1", "batched-1"]).await?;
    shown(&fleet, &isp.id).await
}

/// A count of its use at a moment.
fn usage(tenant: &str, at: &str) -> Value {
    json!({"metrics": {"tenant_id": tenant, "reported_at": at, "active_subscribers": 5, "total_subscribers": 6,
        "new_subscribers_today": 1, "churned_subscribers_today": 0, "active_sessions": 2, "sessions_today": 9,
        "total_data_usage_mb": 1.5, "active_nas_devices": 1, "active_olts": 1, "active_onts": 1,
        "revenue_today": "12.50", "outstanding_invoices": null}})
}

/// What the command line shows of it.
async fn shown(fleet: &Fleet, id: &str) -> Result<()> {
    let usage = until("the count arrives", ARRIVES_WITHIN, async || {
        let usage = fleet.dotmac_json(&["usage", id]).await?;
        Ok((usage["current"]["active_subscribers"] == 421).then_some(usage))
    })
    .await?;
    ensure!(
        usage["current"]["limit_used_percent"] == 42
            && usage["peaks"][0]["active_subscribers"] == 421,
        "{usage}"
    );
    let items = usage["items"].as_array().into_iter().flatten();
    let repeated = items.filter(|item| text(&item["usage"], "revenue_today") == "12.50");
    ensure!(
        repeated.count() == 1,
        "a repeated count is not there once: {usage}"
    );
    let page = fleet.dotmac(&["usage", id]).await?.ok()?.out;
    ensure!(page.contains("421 of 1000 subscribers (42 %)"), "{page}");
    let arguments = ["tenants", "events", id, "--type", "payment.received"];
    let page = fleet.dotmac(&arguments).await?.ok()?.out;
    ensure!(
        page.contains("batched-1") && !page.contains("single-1"),
        "{page}"
    );
    ensure!(page.contains("gold") && !page.contains("hunter2"), "{page}");
    let page = until("the claim arrives", ARRIVES_WITHIN, async || {
        let page = fleet.dotmac(&["tenants", "health", id]).await?.ok()?.out;
        Ok(page
            .contains("its claim    healthy, by the instance itself")
            .then_some(page))
    })
    .await?;
    let (probes, claim) = (page.find("probes       healthy"), page.find("its claim"));
    ensure!(probes.is_some() && probes < claim, "{page}");
    for noun in ["tenants", "deployments"] {
        let page = fleet.dotmac(&[noun, "show", id]).await?.ok()?.out;
        ensure!(
            page.contains("421 of 1000 subscribers") && page.contains("valid"),
            "{page}"
        );
    }
    let listed = fleet.dotmac(&["licenses", "list"]).await?.ok()?.out;
    ensure!(listed.contains(id) && listed.contains("42 %"), "{listed}");
    Ok(())
}

pub(crate) async fn the_subscriber_limit_is_told_in_the_steps_of_the_contract(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let isp = Foreign::deploy(&fleet, "Growing ISP", "aws-eu-west-1").await?;
    for (active, action, has_message) in [
        (799, "none", false),
        (800, "none", true),
        (900, "warning", true),
        (950, "soft_limit", true),
        (1000, "soft_limit", true),
        (1001, "hard_limit", true),
    ] {
        let told = isp.count(active).await?;
        ensure!(
            told["enforcement_action"] == action
                && text(&told, "message").is_empty() != has_message,
            "{active} of 1000: {told}"
        );
    }
    Ok(())
}

/// The leader dies, then the agent, while events and counts are told; the instance repeats what was not answered.
pub(crate) async fn law_8_what_an_instance_tells_counts_once_while_leader_and_agent_die(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let region = "gcp-europe-west1";
    let isp = Foreign::deploy(&fleet, "Telling ISP", region).await?;
    let mut ids = Vec::new();
    for round in 0..60_u64 {
        let killed = match round {
            20 => Some(fleet.leader().await?.1),
            40 => Some(region),
            _ => None,
        };
        if let Some(name) = killed {
            let before = fleet.kill(name).await?;
            // What is told now is told to an agent that may be away, or whose gateway is.
            drop(before);
        }
        let id = format!("told-{round}");
        let body = isp.event(&id, "session.started");
        until("the event is taken", Duration::from_secs(20), async || {
            isp.post("/events/webhook", &body).await.map(Some)
        })
        .await?;
        if round % 10 == 0 {
            // An answer that was lost is repeated, whatever happened in between.
            isp.post("/events/webhook", &body).await?;
        }
        ids.push(id);
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    once(&fleet, &isp.id, &ids).await?;
    let events = format!("/api/v1/tenants/{}/events?limit=1", isp.id);
    let counted = fleet.api()?.get(&events).await?;
    ensure!(counted["count"] == 60, "{counted}");
    fleet.dotmac(&["audit", "verify"]).await?.ok()?;
    Ok(())
}

/// Waits until all of these events are there, and fails when one is there twice.
async fn once(fleet: &Fleet, tenant: &str, ids: &[&str]) -> Result<()> {
    let path = format!("/api/v1/tenants/{tenant}/events?limit=100");
    let found = until("every event arrived", ARRIVES_WITHIN, async || {
        let items = fleet.api()?.list(&path, "cursor").await?;
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for item in &items {
            *times.entry(text(item, "event_id").to_owned()).or_default() += 1;
        }
        let missing = ids.iter().find(|id| !times.contains_key(**id));
        ensure!(missing.is_none(), "{missing:?} is missing");
        Ok(Some(times))
    })
    .await?;
    let expected = ids.iter().map(|id| ((*id).to_owned(), 1)).collect();
    ensure!(
        found == expected,
        "events and how often each is there: {found:?}"
    );
    Ok(())
}

/// Law 7: whatever a token of one instance claims, it opens nothing of another's, and a forged one opens nothing.
pub(crate) async fn law_7_the_secret_of_one_instance_opens_nothing_of_anothers(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let (isp, thief) = (
        Foreign::deploy(&fleet, "Robbed ISP", "byov-lagos").await?,
        Foreign::deploy(&fleet, "Thieving ISP", "byov-lagos").await?,
    );
    isp.count(77).await?;
    let own = json!({"sub": format!("isp-{}", isp.id), "tenant_id": isp.id});
    let headers = json!({"X-Tenant-ID": isp.id});
    let as_the_other = |order: Value| {
        let mut order = order;
        order["claims"] = own.clone();
        order["headers"] = headers.clone();
        order
    };
    let key = license_key(&fleet, &isp.id).await?;
    let foreign = [
        json!({"method": "GET", "path": format!("/license/{key}")}),
        json!({"method": "GET", "path": format!("/config/{}", isp.id)}),
        json!({"path": format!("/config/{}/sync", isp.id), "body": {"current_version": null}}),
        json!({"method": "GET", "path": "/license/DM-00000000000000000000000000000000"}),
        json!({"method": "GET", "path": "/config/nobody-00000000"}),
    ];
    let mut answers = Vec::new();
    for order in foreign {
        let told = thief.call(&as_the_other(order)).await?;
        ensure!(told.status == 404, "{told:?}");
        answers.push(told.answer);
    }
    ensure!(
        answers.iter().all(|answer| *answer == answers[0]),
        "foreign and unknown differ: {answers:?}"
    );
    let validate = json!({"license_key": key, "isp_instance_id": "thief", "version": "1"});
    let told = thief
        .call(&as_the_other(
            json!({"path": "/license/validate", "body": validate}),
        ))
        .await?;
    ensure!(
        told.status == 200
            && told.answer["valid"] == false
            && told.answer["license_info"].is_null(),
        "{told:?}"
    );
    // What it reports in another's name is its own.
    let event = isp.event("stolen-1", "payment.received");
    let told = thief
        .call(&as_the_other(
            json!({"path": "/events/webhook", "body": event}),
        ))
        .await?;
    ensure!(told.status == 200, "{told:?}");
    once(&fleet, &thief.id, &["stolen-1"]).await?;
    let path = format!("/api/v1/tenants/{}/events", isp.id);
    let events = fleet.api()?.list(&path, "cursor").await?;
    ensure!(events.is_empty(), "{events:?}");
    forged(&isp, &thief).await
}

async fn license_key(fleet: &Fleet, id: &str) -> Result<String> {
    let told = fleet.dotmac_json(&["tenants", "instance-env", id]).await?;
    let items = told["items"].as_array().into_iter().flatten();
    let key = items
        .filter(|item| item["name"] == "ISP_LICENSE_KEY")
        .find_map(|item| item["value"].as_str());
    Ok(key.context("it has no key")?.to_owned())
}

async fn forged(isp: &Foreign, thief: &Foreign) -> Result<()> {
    let now = Clock::system().now().0 / 1_000;
    let own = json!({"sub": format!("isp-{}", isp.id), "tenant_id": isp.id});
    let forgeries = [
        (
            "unsigned",
            json!({"header": {"alg": "none", "typ": "JWT"}, "claims": own}),
            401,
        ),
        (
            "confused",
            json!({"header": {"alg": "RS256", "typ": "JWT"}}),
            401,
        ),
        (
            "another digest",
            json!({"header": {"alg": "HS512", "typ": "JWT"}}),
            401,
        ),
        (
            "another secret",
            json!({"secret": "guessed", "claims": own}),
            401,
        ),
        ("no secret", json!({"secret": "", "claims": own}), 401),
        (
            "expired",
            json!({"claims": {"iat": now - 7200, "exp": now - 3600}}),
            401,
        ),
        (
            "from the future",
            json!({"claims": {"iat": now + 3600, "exp": now + 7200}}),
            401,
        ),
        ("without an end", json!({"claims": {"exp": null}}), 401),
        ("without a name", json!({"claims": {"jti": null}}), 401),
        ("of another type", json!({"claims": {"type": "user"}}), 401),
        (
            "of another service",
            json!({"claims": {"service_type": "crm"}}),
            403,
        ),
        ("no token", json!({"bearer": "nonsense"}), 401),
    ];
    let asked = json!({"method": "GET", "path": "/license/{license_key}"});
    let ask = async |order: &Value| -> Result<Told> {
        let mut whole = asked.clone();
        for (name, value) in order.as_object().into_iter().flatten() {
            whole[name] = value.clone();
        }
        thief.call(&whole).await
    };
    for (name, order, status) in forgeries {
        let told = ask(&order).await?;
        ensure!(told.status == status, "{name}: {told:?}");
        ensure!(text(&told.answer, "code").len() > 3, "{name}: {told:?}");
    }
    let told = ask(&json!({})).await?;
    ensure!(told.status == 200, "{told:?}");
    let again = ask(&json!({"bearer": told.bearer})).await?;
    ensure!(again.status == 401, "a used token: {again:?}");
    Ok(())
}
