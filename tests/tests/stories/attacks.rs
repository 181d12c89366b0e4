//! People who mean harm against whole controllers: those who are slow, who flood, who repeat what others asked, who
//! race, and who write into names what a log or a terminal would obey.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_controller::access_token::AccessToken;
use dotmac_runtime::entropy::Entropy;
use dotmac_tests::{
    api::{Answer, Api, DEPLOYMENTS},
    fleet::Fleet,
    wait::until,
};
use futures::future::join_all;
use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Connections that say nothing to the end.
const SILENT: u64 = 10_000;
/// Those that are opened at the same time.
const AT_ONCE: usize = 500;
/// Connections of one address that a controller keeps without a token, by default.
const KEPT: usize = 1_024;
/// Descriptors of a controller besides those of connections at most.
const OTHER_DESCRIPTORS: usize = 512;
/// How long a thing that is not what is measured may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Another person with a token of his own.
async fn person(fleet: &Fleet, name: &str) -> Result<Api> {
    let token = AccessToken::generate(&Entropy::system());
    let body = json!({"id": token.id(), "secret_digest": token.digest().to_string(), "name": name,
        "role": "platform_admin"});
    fleet.api()?.post("/api/v1/tokens", &body).await?.ok(201)?;
    let api = fleet.api()?.with_token(Some(token.reveal().to_owned()));
    for node in 1..=3 {
        let api = api.of_node(node);
        let known = async || Ok(api.get("/api/v1/releases").await.ok());
        until("the token is known", PATIENCE, known).await?;
    }
    Ok(api)
}

async fn create(api: &Api, body: &Value, key: Option<&str>) -> Result<Answer> {
    api.ask(Method::POST, DEPLOYMENTS, Some(body), key).await
}

/// Raises how many connections this program may have; gives how many that are.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = limit.maximum.unwrap_or(SILENT * 2).min(SILENT * 2);
    let wanted = Rlimit {
        current: Some(raised.max(limit.current.unwrap_or(0))),
        maximum: limit.maximum,
    };
    // Where it may not be raised, fewer connections are tried.
    let _ = setrlimit(Resource::Nofile, wanted);
    getrlimit(Resource::Nofile).current.unwrap_or(SILENT * 2)
}

/// Slowloris, and ten thousand who say nothing: nobody else waits for them, and they are kept to their number.
pub(crate) async fn slow_and_silent_connections_hold_up_nobody(fleet: Arc<Fleet>) -> Result<()> {
    let address = format!("127.0.0.1:{}", fleet.port_base());
    let silent = SILENT.min(raise_descriptors().saturating_sub(1_000));
    let mut open = Vec::new();
    while (open.len() as u64) < silent {
        let some = join_all((0..AT_ONCE).map(|number| silence(&address, number))).await;
        open.extend(some.into_iter().collect::<Result<Vec<_>>>()?);
        // A new client, as everybody is who comes now.
        let served = fleet.api()?.of_node(1).get(DEPLOYMENTS).await;
        served.with_context(|| format!("beside {} silent connections", open.len()))?;
    }
    let descriptors = || -> Result<usize> {
        let pid = fleet.process("controller-1")?.pid;
        Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
    };
    until("only so many are kept", PATIENCE, async || {
        let held = descriptors()?;
        ensure!(held <= KEPT + OTHER_DESCRIPTORS, "{held} descriptors");
        Ok(Some(()))
    })
    .await?;
    let body = json!({"tenant_name": "Unhindered ISP"});
    create(&fleet.api()?.of_node(1), &body, None)
        .await?
        .ok(201)?;
    drop(open);
    Ok(())
}

/// A connection on which nothing is said, or a head or a body begun that never ends.
async fn silence(address: &str, number: usize) -> Result<TcpStream> {
    let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
    let mut stream = connected.context("a connection is not accepted")??;
    let begun: &[u8] = match number % 3 {
        0 => b"",
        1 => b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ",
        _ => b"POST /api/v1/tokens HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\n{",
    };
    // It may have made room for a newer one already.
    let _ = stream.write_all(begun).await;
    Ok(stream)
}

/// Two people want one domain at the same moment, each through his own controller.
pub(crate) async fn of_two_creates_with_one_domain_exactly_one_wins(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let other = person(&fleet, "the other one").await?;
    for round in 0..6 {
        let body = json!({"tenant_name": format!("Race {round}"), "domain_name": format!("race-{round}.example")});
        let (one, two) = (
            fleet.api()?.of_node(1 + round % 3),
            other.of_node(1 + (round + 1) % 3),
        );
        let (one, two) = tokio::join!(create(&one, &body, None), create(&two, &body, None));
        let (one, two) = (one?, two?);
        let mut found = [one.status, two.status];
        found.sort_unstable();
        ensure!(found == [201, 409], "{one:?} and {two:?}");
        let loser = if one.status == 409 { &one } else { &two };
        ensure!(loser.body["code"] == "domain-in-use", "{loser:?}");
        let list = fleet.api()?.list(DEPLOYMENTS, "cursor").await?;
        let domain = &body["domain_name"];
        let holders = list
            .iter()
            .filter(|one| one["domain_name"] == *domain)
            .count();
        ensure!(holders == 1, "{holders} hold {domain}");
    }
    Ok(())
}

/// A key is its caller's: somebody else's request with the same one is another request. And it means one request only,
/// whoever leads.
pub(crate) async fn a_foreign_idempotency_key_tells_nothing_and_means_one_request_for_ever(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let (own, other) = (fleet.api()?, person(&fleet, "who replays").await?);
    let (body, key) = (
        json!({"tenant_name": "Keyed ISP"}),
        Some("an overheard key"),
    );
    let changed = json!({"tenant_name": "Another ISP"});
    let first = create(&own, &body, key).await?.ok(201)?;
    for round in 0..2 {
        // The same request again: the first answer, from every controller.
        for node in 1..=3 {
            let again = create(&own.of_node(node), &body, key).await?.ok(201)?;
            ensure!(again["id"] == first["id"], "a second deployment: {again}");
            let refused = create(&own.of_node(node), &changed, key).await?;
            ensure!(
                refused.status == 422 && refused.body["code"] == "idempotency-key-reused",
                "another request under the same key: {refused:?}"
            );
        }
        // Whoever overheard the key gets what his own request makes, and learns nothing of the first.
        let replayed = create(&other, &body, key).await?.ok(201)?;
        ensure!(
            replayed["id"] != first["id"],
            "it is the first one's answer: {replayed}"
        );
        let path = format!("{DEPLOYMENTS}/none-00000000/undelete");
        let elsewhere = other.ask(Method::POST, &path, None, key).await?;
        ensure!((400..500).contains(&elsewhere.status), "{elsewhere:?}");
        if round == 0 {
            let (_, leader) = fleet.leader().await?;
            let killed = fleet.kill(leader).await?;
            fleet.back(leader, &killed).await?;
            fleet.settled().await?;
        }
    }
    let list = own.list(DEPLOYMENTS, "cursor").await?;
    let count = |name: &str| list.iter().filter(|one| one["tenant_name"] == name).count();
    ensure!(
        (count("Keyed ISP"), count("Another ISP")) == (2, 0),
        "{list:?}"
    );
    Ok(())
}

/// One takes all he can get; the others do not notice.
pub(crate) async fn a_flood_of_one_caller_leaves_everybody_elses_requests_correct(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let flooder = person(&fleet, "the flood").await?.of_node(1);
    let quiet = join_all((0..4).map(|number| {
        let fleet = Arc::clone(&fleet);
        async move { person(&fleet, &format!("quiet {number}")).await }
    }));
    let quiet: Vec<Api> = quiet.await.into_iter().collect::<Result<_>>()?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let flood = |number: usize| {
        let (flooder, stopped) = (flooder.clone(), stopped.clone());
        async move {
            let mut seen = BTreeMap::<u16, u64>::new();
            while !*stopped.borrow() {
                let body = json!({"tenant_name": "Flood ISP", "region": "nowhere-1"});
                let answer = match number % 3 {
                    0 => create(&flooder, &body, None).await,
                    1 => {
                        flooder
                            .ask(
                                Method::GET,
                                &format!("{DEPLOYMENTS}?limit=1000"),
                                None,
                                None,
                            )
                            .await
                    }
                    _ => {
                        flooder
                            .ask(Method::GET, "/api/v1/cluster/status", None, None)
                            .await
                    }
                };
                if let Ok(answer) = answer {
                    let is_told =
                        answer.status != 429 || answer.headers.contains_key("retry-after");
                    ensure!(is_told, "{answer:?}");
                    *seen.entry(answer.status).or_default() += 1;
                }
            }
            Ok(seen)
        }
    };
    let floods = join_all((0..120).map(flood));
    let others = async {
        let done = join_all(
            quiet
                .iter()
                .enumerate()
                .map(|(number, api)| quiet_work(api, number)),
        )
        .await;
        stop.send_replace(true);
        done.into_iter().collect::<Result<Vec<()>>>()
    };
    let (floods, others) = tokio::join!(floods, others);
    others.context("beside the flood")?;
    let mut seen = BTreeMap::<u16, u64>::new();
    for flood in floods {
        for (status, count) in flood? {
            *seen.entry(status).or_default() += count;
        }
    }
    ensure!(seen.contains_key(&429), "it was no flood: {seen:?}");
    ensure!(!seen.contains_key(&500), "{seen:?}");
    // When it is over, he is served as before.
    let served = async || Ok(flooder.get(DEPLOYMENTS).await.ok().map(drop));
    until("the flooder is served again", PATIENCE, served).await
}

/// What somebody does who means well: every single answer is the right one.
async fn quiet_work(api: &Api, number: usize) -> Result<()> {
    let api = api.of_node(1);
    for round in 0..5 {
        let name = format!("Quiet {number} {round}");
        let body = json!({ "tenant_name": name });
        let made = persist(&api, Method::POST, DEPLOYMENTS, Some(&body), &name).await?;
        let made = made.ok(201)?;
        let path = format!("{DEPLOYMENTS}/{}", made["id"].as_str().unwrap_or_default());
        let shown = persist(&api, Method::GET, &path, None, &name)
            .await?
            .ok(200)?;
        ensure!(shown["tenant_name"] == name.as_str(), "{shown}");
        let listed = persist(&api, Method::GET, DEPLOYMENTS, None, &name)
            .await?
            .ok(200)?;
        let ids: Vec<&Value> = listed["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| &one["id"])
            .collect();
        ensure!(
            ids.contains(&&made["id"]) || !listed["next_cursor"].is_null(),
            "{name} is not in the list"
        );
        let key = format!("{name} away");
        persist(&api, Method::DELETE, &path, None, &key)
            .await?
            .ok(202)?;
    }
    Ok(())
}

/// Asks again, as the API says that one may, while the machine is too busy for an answer in time.
async fn persist(
    api: &Api,
    method: Method,
    path: &str,
    body: Option<&Value>,
    key: &str,
) -> Result<Answer> {
    until(path, PATIENCE, async || {
        let answer = api.ask(method.clone(), path, body, Some(key)).await?;
        Ok((!matches!(answer.status, 503 | 504)).then_some(answer))
    })
    .await
}

/// Names that would write their own lines, or paint a terminal; and a token where it does not belong.
pub(crate) async fn nothing_that_callers_write_gets_into_a_log_as_it_is(
    fleet: Arc<Fleet>,
) -> Result<()> {
    let api = fleet.api()?;
    for name in [
        "a\r\n{\"level\":\"ERROR\"}",
        "a\u{1b}[2J\u{1b}]0;x\u{7}",
        "a\u{9b}31m",
        "a\0b",
        "a\u{2028}b\u{85}c",
    ] {
        let answer = create(&api, &json!({ "tenant_name": name }), None).await?;
        let is_named = answer.body["errors"][0]["field"] == "tenant_name";
        ensure!(answer.status == 422 && is_named, "{name:?}: {answer:?}");
    }
    let upset = "\u{202e}evil\u{202c} \u{2066}isolated\u{2069} ISP";
    let answer = create(&api, &json!({ "tenant_name": upset }), None).await?;
    ensure!(matches!(answer.status, 201 | 422), "{answer:?}");
    let canary = "dotmac_pat_0123456789abcdef_canary31e7f2";
    for address in [
        format!("/api/v1/agents?access_token={canary}"),
        format!("/api/v1/agents/{canary}"),
        format!("/api/v1/agents?x={canary}"),
        format!("/api/v1/agents#{canary}"),
        format!("http://{canary}@h/api/v1/agents"),
        format!("/api/v1/agents\x1b[2J?{canary}"),
    ] {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{}", fleet.port_base())).await?;
        let request = format!(
            "GET {address} HTTP/1.1\r\nHost: h\r\nUser-Agent: \u{202e}x\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await?;
        let is_refused = ["HTTP/1.1 400", "HTTP/1.1 401"]
            .iter()
            .any(|start| heard.starts_with(start));
        ensure!(
            is_refused && !heard.contains("canary31e7f2"),
            "{address}: {heard}"
        );
    }
    for node in 1..=3 {
        check_log(
            &fleet
                .home()
                .join(format!("controller-{node}/controller.log")),
        )?;
    }
    Ok(())
}

/// Each line of a log is one JSON object, without anything that a terminal obeys.
fn check_log(path: &Path) -> Result<()> {
    let log = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    ensure!(!log.is_empty(), "{} is empty", path.display());
    for line in log.lines() {
        let read: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(read["level"].is_string(), "{line}");
    }
    let is_obeyed = |letter: char| {
        (letter.is_control() && letter != '\n')
            || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    ensure!(
        !log.contains(is_obeyed),
        "{} has control characters",
        path.display()
    );
    ensure!(
        !log.contains("canary31e7f2"),
        "{} has a token",
        path.display()
    );
    Ok(())
}
