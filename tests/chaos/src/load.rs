//! Clients that write, swap and read registers through the public API while faults happen, each retrying as documented,
//! and the proof afterwards: every acknowledged request is in the audit once, on all three controllers alike, and what the
//! clients saw of each register has one explanation. A register is a tenant: its name is the value, its version the ETag.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use dotmac_runtime::{entropy::Entropy, supervise};
use dotmac_tests::wait::until;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    client::{Client, Reply, Request},
    history::{self, Event, Operation, Verdict},
    tally::Tally,
};

/// Registers of one load.
const REGISTERS: usize = 4;
/// Clients at once.
const CLIENTS: usize = 6;
/// How long a client retries before it counts the outcome as unknown.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long each check of a history may take.
const BUDGET: Duration = Duration::from_secs(60);
/// Longest pause of a client between two operations: it leaves the machine some time for the controllers.
const THINKING_MS: u64 = 30;
const TENANTS: &str = "/api/v1/tenants";

/// A running load.
pub(crate) struct Load {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<Result<()>>>,
}

struct Shared {
    client: Client,
    entropy: Entropy,
    registers: Vec<Register>,
    /// One clock for all clients: what returned before another was invoked has the lower number.
    order: AtomicU64,
    values: AtomicU64,
    acknowledged: AtomicU64,
}

struct Register {
    path: String,
    id: String,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    events: Vec<Event>,
    /// Ids of acknowledged changes.
    acknowledged: Vec<String>,
    /// A value and its ETag, as somebody saw them last.
    seen: Option<(u64, String)>,
}

impl Load {
    /// Makes registers and starts clients.
    ///
    /// # Errors
    /// When the registers cannot be made.
    pub(crate) async fn start(client: &Client) -> Result<Self> {
        let entropy = Entropy::system();
        let mut registers = Vec::new();
        for _ in 0..REGISTERS {
            registers.push(make_register(client, &entropy).await?);
        }
        let shared = Arc::new(Shared {
            client: client.clone(),
            entropy,
            acknowledged: AtomicU64::new(registers.len() as u64),
            registers,
            order: AtomicU64::new(1),
            values: AtomicU64::new(1),
        });
        let (stop, _) = watch::channel(false);
        let clients = (0..CLIENTS).map(|number| {
            let (shared, stop) = (Arc::clone(&shared), stop.subscribe());
            supervise::spawn(
                "chaos client",
                async move { shared.serve(number, stop).await },
            )
        });
        Ok(Self {
            clients: clients.collect(),
            shared,
            stop,
        })
    }

    /// Changes acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until so many more changes were acknowledged.
    ///
    /// # Errors
    /// When they are not in time.
    pub(crate) async fn more(&self, count: u64, within: Duration) -> Result<()> {
        let goal = self.acknowledged() + count;
        until("changes are acknowledged", within, async || {
            Ok((self.acknowledged() >= goal).then_some(()))
        })
        .await
    }

    /// Ends the clients, reads every register through every controller, and judges.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub(crate) async fn judge(self, tally: &mut Tally) -> Result<()> {
        self.stop.send_replace(true);
        for client in self.clients {
            client.await??;
        }
        let shared = self.shared;
        for register in &shared.registers {
            for server in 0..shared.client.servers() {
                let own = shared.client.of(server);
                if !shared.read(&own, 0, register).await {
                    let request = Request::get(register.path.as_str());
                    let now = own.ask_once(0, &request).await;
                    let now = now.map(|reply| format!("{} {}", reply.status, reply.body));
                    bail!(
                        "controller {} shows no {}; asked once more: {now:?}",
                        server + 1,
                        register.path
                    );
                }
            }
            shared.judge_audit(register, tally).await?;
            let events = register.lock().events.clone();
            tally.operations += events.len() as u64;
            tally.histories += 1;
            match history::check(&events, BUDGET) {
                Verdict::Linearizable => {}
                Verdict::Undecided => tally.histories_undecided += 1,
                Verdict::Violated => {
                    tally.histories_not_linearizable += 1;
                    tally.fail(format!("not linearizable: {}: {events:?}", register.path));
                }
            }
        }
        tally.acknowledged += shared.acknowledged.load(Ordering::SeqCst);
        Ok(())
    }
}

impl Shared {
    async fn serve(&self, number: usize, stop: watch::Receiver<bool>) -> Result<()> {
        let below = |bound: usize| {
            let found = self.entropy.below(bound as u64);
            usize::try_from(found).unwrap_or_default()
        };
        while !*stop.borrow() {
            let register = &self.registers[below(self.registers.len())];
            match below(10) {
                0..3 => {
                    self.read(&self.client, number, register).await;
                }
                3..7 => self.write(number, register).await?,
                _ => self.swap(number, register).await?,
            }
            let pause = Duration::from_millis(self.entropy.below(THINKING_MS));
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// Reads a register; a read without an answer shows nothing. Gives whether there was one.
    async fn read(&self, client: &Client, first: usize, register: &Register) -> bool {
        let invoked = self.tick();
        let request = Request::get(register.path.as_str());
        let Some(reply) = client.ask(first, &request, PATIENCE).await else {
            return false;
        };
        let Some((value, etag)) = value_of(&reply) else {
            return false;
        };
        let mut inside = register.lock();
        inside.events.push(Event {
            operation: Operation::Read(value),
            invoked,
            returned: Some(self.tick()),
        });
        inside.seen = Some((value, etag));
        true
    }

    async fn write(&self, first: usize, register: &Register) -> Result<()> {
        let value = self.values.fetch_add(1, Ordering::SeqCst);
        let invoked = self.tick();
        let reply = self.change(first, register, value, None).await;
        let returned = match &reply {
            None => None,
            Some(reply) if reply.status == 200 => Some(self.tick()),
            Some(reply) => bail!("a write was answered {}: {}", reply.status, reply.body),
        };
        self.note(register, Operation::Write(value), invoked, returned, reply);
        Ok(())
    }

    async fn swap(&self, first: usize, register: &Register) -> Result<()> {
        let Some((from, etag)) = register.lock().seen.clone() else {
            return Ok(());
        };
        let to = self.values.fetch_add(1, Ordering::SeqCst);
        let invoked = self.tick();
        let reply = self.change(first, register, to, Some(etag)).await;
        let was_done = match &reply {
            None => None,
            Some(reply) if reply.status == 200 => Some(true),
            Some(reply) if reply.status == 412 => Some(false),
            Some(reply) => bail!("a swap was answered {}: {}", reply.status, reply.body),
        };
        let returned = was_done.is_some().then(|| self.tick());
        let swap = Operation::Swap { from, to, was_done };
        self.note(register, swap, invoked, returned, reply);
        Ok(())
    }

    async fn change(
        &self,
        first: usize,
        register: &Register,
        value: u64,
        if_match: Option<String>,
    ) -> Option<Reply> {
        let body = json!({"tenant_name": value.to_string()});
        let key = self.entropy.hex(16);
        let mut request = Request::change(Method::PATCH, register.path.as_str(), body, key);
        request.if_match = if_match;
        self.client.ask(first, &request, PATIENCE).await
    }

    fn note(
        &self,
        register: &Register,
        operation: Operation,
        invoked: u64,
        returned: Option<u64>,
        reply: Option<Reply>,
    ) {
        let mut inside = register.lock();
        inside.events.push(Event {
            operation,
            invoked,
            returned,
        });
        let Some(reply) = reply.filter(|reply| reply.status == 200) else {
            return;
        };
        // What an answer shows is the newest that its controller knew, which may be newer than the change.
        inside.seen = value_of(&reply).or(inside.seen.take());
        inside.acknowledged.extend(reply.request);
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    /// Every acknowledged change is in the tenant's story once, and the story is the same on all controllers.
    async fn judge_audit(&self, register: &Register, tally: &mut Tally) -> Result<()> {
        let mut stories = Vec::new();
        for server in 0..self.client.servers() {
            stories.push(story(&self.client.of(server), &register.id).await?);
        }
        if stories.iter().any(|story| *story != stories[0]) {
            tally.silent_corruptions += 1;
            tally.fail(format!("the controllers tell {} differently", register.id));
        }
        let mut told: BTreeMap<&str, u64> = BTreeMap::new();
        for entry in &stories[0] {
            *told
                .entry(entry["request"].as_str().unwrap_or_default())
                .or_default() += 1;
        }
        for request in &register.lock().acknowledged {
            match told.get(request.as_str()).copied().unwrap_or_default() {
                0 => {
                    tally.lost += 1;
                    tally.fail(format!("{request} of {} is lost", register.id));
                }
                1 => {}
                _ => tally.doubled += 1,
            }
        }
        Ok(())
    }

    fn tick(&self) -> u64 {
        self.order.fetch_add(1, Ordering::SeqCst)
    }
}

impl Register {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn make_register(client: &Client, entropy: &Entropy) -> Result<Register> {
    let body = json!({"tenant_name": "0"});
    let request = Request::change(Method::POST, TENANTS, body, entropy.hex(16));
    let within = Duration::from_secs(60);
    let reply = client.ask(0, &request, within).await;
    let reply = reply.context("no register could be made in time")?;
    ensure!(
        reply.status == 201,
        "a register: {} {}",
        reply.status,
        reply.body
    );
    let id = reply.body["id"].as_str().context("no id")?.to_owned();
    let inside = Inside {
        seen: reply.etag.map(|etag| (0, etag)),
        acknowledged: reply.request.into_iter().collect(),
        ..Inside::default()
    };
    Ok(Register {
        path: format!("{TENANTS}/{id}"),
        id,
        inside: Mutex::new(inside),
    })
}

/// Value and ETag that an answer shows.
fn value_of(reply: &Reply) -> Option<(u64, String)> {
    let value = reply.body["tenant_name"].as_str()?.parse().ok()?;
    Some((value, reply.etag.clone()?))
}

/// A tenant's whole story as one controller tells it.
pub(crate) async fn story(client: &Client, tenant: &str) -> Result<Vec<Value>> {
    let mut entries = Vec::new();
    let mut path = format!("/api/v1/audit?tenant={tenant}&limit=500");
    loop {
        let page = client.read(&path, Duration::from_secs(30)).await?;
        entries.extend(page["items"].as_array().cloned().unwrap_or_default());
        let Some(cursor) = page["next_cursor"].as_str() else {
            return Ok(entries);
        };
        path = format!("/api/v1/audit?tenant={tenant}&limit=500&cursor={cursor}");
    }
}
