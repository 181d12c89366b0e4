//! One simulated agent: the real intake, journal, signed clock and record chain over the simulated network, and a driver
//! that takes its time. Its disk and its instances outlive its process.

mod disk;
mod link;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use dotmac_agent::{
    chain::{Chain, ChainLimits, Owner},
    intake::Intake,
    journal::Journal,
    license_time::LicenseTime,
    signed_clock::ClockStore,
    stations::Stations,
    trust::TrustStore,
    unit::{About, Desired, Order, Wanted},
};
use dotmac_domain::{
    command::{CreateJoinToken, EnrolAgent},
    fleet::agent_name,
};
use dotmac_protocol::{
    digest::Digest,
    frame::JoinToken,
    ids::{AgentId, Generation, IncarnationId, Sequence, UnitId},
    keys::PublicKey,
    record::{Event, Health, HealthStatus, Limits, Outcome, Receipt},
    time::Timestamp,
    trust::SignedTrustRoot,
    unit::RunState,
};
use dotmac_runtime::clock::{Clock, ManualClock};
use ed25519_dalek::SigningKey;

use crate::{
    controller::Troubles,
    genesis::{REGIONS, START, key},
    network::{AGENTS, Network, Place},
    random::Random,
};
use disk::AgentDisk;
use link::Link;

/// Milliseconds for which a join token counts.
const TOKEN_MS: u64 = 3_600_000;

/// See the module's text.
pub(crate) struct Agent {
    pub(crate) place: Place,
    pub(crate) id: AgentId,
    incarnation: IncarnationId,
    home: PathBuf,
    disk: Arc<AgentDisk>,
    pub(crate) hand: ManualClock,
    clock: Clock,
    trust_root: SignedTrustRoot,
    network: Network,
    troubles: Troubles,
    random: Random,
    running: Option<Process>,
    /// What runs on its host.
    pub(crate) instances: BTreeMap<UnitId, Generation>,
    /// How often its power went.
    pub(crate) power_losses: u64,
}

/// What is gone when the process dies.
struct Process {
    intake: Intake,
    chain: Arc<Chain>,
    link: Link,
    /// What the driver is at, and when it is done.
    at_work: BTreeMap<UnitId, (Sequence, u64)>,
    /// What was told of each unit.
    told: BTreeMap<UnitId, Sequence>,
}

impl Agent {
    pub(crate) fn new(
        number: u8,
        home: PathBuf,
        trust_root: SignedTrustRoot,
        network: Network,
        troubles: Troubles,
        random: Random,
    ) -> Self {
        let (clock, hand) = Clock::manual(Timestamp(START));
        let identity = identity(number);
        let region = region(number).parse().unwrap();
        std::fs::create_dir_all(&home).unwrap();
        Self {
            place: AGENTS + u64::from(number),
            id: agent_name(&region, &PublicKey::of(&identity)),
            incarnation: format!("{:032x}", 0xa0 + u64::from(number))
                .parse()
                .unwrap(),
            home,
            disk: Arc::default(),
            hand,
            clock,
            trust_root,
            network,
            troubles,
            random,
            running: None,
            instances: BTreeMap::new(),
            power_losses: 0,
        }
    }

    /// Starts it with what its disk holds.
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let (trust_folder, clock) = (self.home.join("trust"), self.clock.clone());
        let trust = TrustStore::open(&trust_folder).ok().flatten();
        let trust = trust.unwrap_or_else(|| {
            let documents = [self.trust_root.clone()];
            TrustStore::pin(&trust_folder, self.trust_root.digest(), &documents).unwrap()
        });
        let owner = Owner {
            agent: self.id.clone(),
            incarnation: self.incarnation.clone(),
            key: identity(u8::try_from(self.place - AGENTS).unwrap()),
        };
        let chain = Chain::open(
            &self.home.join("chain"),
            owner,
            self.disk.clone(),
            clock.clone(),
            ChainLimits::default(),
        );
        let opened = match chain {
            Ok(opened) => opened,
            Err(error) => return self.trouble(&format!("its chain does not open: {error}")),
        };
        let chain = Arc::new(opened.chain);
        let journal = self.home.join("journal");
        let (journal, damages) =
            Journal::open(&journal, self.id.clone(), Default::default(), &trust).unwrap();
        if !damages.is_empty() {
            self.trouble(&format!("its journal is damaged: {damages:?}"));
        }
        let (clocks, _) = ClockStore::open(&trust_folder, self.id.clone(), &trust);
        let time = self.home.join("license_time");
        let (time, _) = LicenseTime::open(time, clocks.at(), clock.clone());
        let stations = Stations::default();
        let intake = Intake::new(
            journal,
            trust,
            clocks,
            Arc::clone(&chain),
            stations,
            time,
            clock,
        );
        let accepted = opened.accepted;
        if let Err(error) = intake.repair_receipt(|leaf| accepted.contains(leaf)) {
            self.trouble(&format!("a receipt cannot be repaired: {error}"));
        }
        self.running = Some(Process {
            intake,
            chain,
            link: Link::default(),
            at_work: BTreeMap::new(),
            told: BTreeMap::new(),
        });
    }

    /// Ends its process; with the power goes what was not synced, and what runs on its host.
    pub(crate) fn crash(&mut self, loses_power: bool) {
        self.running = None;
        if loses_power {
            self.disk.lose_power(&mut self.random);
            self.instances.clear();
            self.power_losses += 1;
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// What it is ordered to keep; none while it does not run.
    pub(crate) fn desired(&self) -> Option<Arc<Desired>> {
        let process = self.running.as_ref()?;
        Some(Arc::clone(&process.intake.desired().borrow()))
    }

    /// Whether everything it told counts.
    pub(crate) fn is_heard(&self) -> bool {
        let process = self.running.as_ref();
        process.is_some_and(|process| process.chain.outbox() == (0, 0))
    }

    /// Lets time pass for it.
    pub(crate) fn step(&mut self, now_ms: u64, millis: u64) {
        self.hand.advance_millis(millis);
        if self.running.is_some() {
            self.drive(now_ms);
            self.keep_link(now_ms);
        }
    }

    /// The driver: begins what is wanted and not so, and tells when it is.
    fn drive(&mut self, now_ms: u64) {
        let Some(desired) = self.desired() else {
            return;
        };
        for wanted in desired.values() {
            let Some(process) = &mut self.running else {
                return;
            };
            if process.told.get(&wanted.unit) == Some(&wanted.sequence) {
                continue;
            }
            let takes_ms = self.random.between(100, 1_500);
            let work = process.at_work.entry(wanted.unit.clone());
            let work = work.or_insert((wanted.sequence, now_ms + takes_ms));
            if work.0 != wanted.sequence {
                *work = (wanted.sequence, now_ms + takes_ms);
            }
            if work.1 <= now_ms {
                process.at_work.remove(&wanted.unit);
                process.told.insert(wanted.unit.clone(), wanted.sequence);
                self.finish(wanted);
            }
        }
    }

    fn finish(&mut self, wanted: &Wanted) {
        let (outcome, health) = match &wanted.order {
            Order::Keep(instance) => {
                self.instances
                    .insert(wanted.unit.clone(), wanted.generation);
                let by = "the simulation".to_owned();
                let limits = Limits::Enforced { by };
                let status = match instance.run {
                    RunState::Running => HealthStatus::Healthy,
                    RunState::Suspended => HealthStatus::Stopped,
                };
                (Outcome::Applied { limits }, Some(status))
            }
            Order::Remove => {
                self.instances.remove(&wanted.unit);
                (Outcome::Removed, None)
            }
        };
        let receipt = Receipt {
            leaf: wanted.leaf,
            generation: wanted.generation,
            sequence: wanted.sequence,
            outcome,
            hops: Vec::new(),
        };
        self.record(wanted, Event::Receipt(receipt));
        if let Some(status) = health {
            let health = Health {
                generation: wanted.generation,
                status,
                reason: String::new(),
                components: Vec::new(),
                hops: Vec::new(),
            };
            self.record(wanted, Event::Health(health));
        }
    }

    fn record(&self, wanted: &Wanted, event: Event) {
        let process = self.running.as_ref().expect("only a process records");
        if let Err(error) = process.chain.append(&About::wanted(wanted), event) {
            self.trouble(&format!("an event is not in its chain: {error}"));
        }
    }

    fn trouble(&self, text: &str) {
        let text = format!("agent {}: {text}", self.id);
        self.troubles.lock().unwrap().push(text);
    }
}

/// The key that an agent signs with.
fn identity(number: u8) -> SigningKey {
    key(40 + number)
}

fn region(number: u8) -> &'static str {
    REGIONS[usize::from(number)]
}

/// The token with which an agent joins.
pub(crate) fn join_token(number: u8) -> CreateJoinToken {
    CreateJoinToken {
        id: format!("{:016x}", 0x1000 + u64::from(number))
            .parse()
            .unwrap(),
        secret_digest: JoinToken::digest_of_proof(&proof(number)),
        region: region(number).parse().unwrap(),
        expires_at: Timestamp(START + TOKEN_MS),
    }
}

/// What an agent joins with.
pub(crate) fn enrolment(number: u8) -> EnrolAgent {
    let token = join_token(number);
    EnrolAgent {
        token: token.id,
        proof: proof(number),
        region: token.region,
        incarnation: format!("{:032x}", 0xa0 + u64::from(number))
            .parse()
            .unwrap(),
        identity: PublicKey::of(&identity(number)),
        seal_key: [number; 32],
        key: Digest::of(&[number]),
        not_after: Timestamp(START + TOKEN_MS),
    }
}

fn proof(number: u8) -> Digest {
    Digest::of(&[b'j', number])
}
