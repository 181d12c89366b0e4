//! An agent's end of its sessions: hello and welcome, then orders in, records out, beats; what `link` does over QUIC,
//! over the simulated network. What is taken is decided by the product's intake alone.

use dotmac_agent::{
    intake::{ClockVerdict, Verdict},
    unit::{Order, Wanted},
};
use dotmac_protocol::{
    frame::{AgentFrame, ControllerFrame, Delivery, Hello, InventoryItem, Report},
    record::HealthStatus,
};

use super::{Agent, Process};
use crate::network::{Cargo, Down, Place, Up};

/// Milliseconds without a word after which a controller is left.
const SILENCE_MS: u64 = 3_000;
/// Milliseconds between beats.
const BEAT_MS: u64 = 1_000;
/// Milliseconds after which a batch that was not acknowledged is sent again.
const BATCH_MS: u64 = 4_000;
/// Milliseconds for which an order waits for the session's first signed clock.
const CLOCK_MS: u64 = 5_000;

/// The present session, if there is one.
#[derive(Default)]
pub(super) struct Link {
    /// Of the present session, or the last one.
    number: u64,
    retry_at: u64,
    session: Option<Session>,
}

struct Session {
    node: Place,
    is_welcome: bool,
    heard_at: u64,
    beat_at: u64,
    batch_at: Option<u64>,
    /// Orders that came before the first signed clock, and when.
    early: Vec<(Delivery, u64)>,
    waits_for_clock: bool,
}

impl Agent {
    /// Opens, keeps and leaves sessions.
    pub(super) fn keep_link(&mut self, now_ms: u64) {
        let Some(process) = &mut self.running else {
            return;
        };
        let Some(session) = &mut process.link.session else {
            if process.link.retry_at <= now_ms {
                self.say_hello(now_ms);
            }
            return;
        };
        if now_ms.saturating_sub(session.heard_at) > SILENCE_MS {
            return self.leave(now_ms);
        }
        if !session.is_welcome {
            return;
        }
        let clock = *process.intake.session_clock().borrow();
        let is_due = |since: u64| clock.is_some() || now_ms - since > CLOCK_MS;
        let (ready, early) = std::mem::take(&mut session.early)
            .into_iter()
            .partition(|(_, since)| is_due(*since));
        session.early = early;
        if session.waits_for_clock && clock.is_some() {
            // A later session brings again what was refused for want of a clock.
            return self.leave(now_ms);
        }
        let node = session.node;
        if session.beat_at <= now_ms {
            session.beat_at = now_ms + BEAT_MS;
            let now = self.clock.now();
            self.tell(node, Up::Control(Box::new(AgentFrame::Beat { now })));
        }
        for (delivery, _) in ready {
            self.take_order(&delivery);
        }
        self.report(now_ms);
    }

    /// Takes a letter.
    pub(crate) fn take(&mut self, from: Place, cargo: Cargo, now_ms: u64) {
        let Cargo::Down { session, frame } = cargo else {
            return;
        };
        let Some(process) = &mut self.running else {
            return;
        };
        if process.link.number != session {
            return;
        }
        let Some(present) = process.link.session.as_mut().filter(|one| one.node == from) else {
            return;
        };
        present.heard_at = now_ms;
        match frame {
            Down::Order(delivery) => present.early.push((*delivery, now_ms)),
            Down::Control(frame) => self.take_control(*frame),
        }
    }

    fn take_control(&mut self, frame: ControllerFrame) {
        let process = self.running.as_mut().expect("it took a letter");
        let session = process.link.session.as_mut().expect("it has a session");
        match frame {
            ControllerFrame::Welcome(welcome) => {
                if std::mem::replace(&mut session.is_welcome, true) {
                    return;
                }
                process.intake.welcomed((welcome.node, welcome.now));
                self.acknowledge(welcome.acknowledged);
            }
            ControllerFrame::Acknowledged {
                incarnation,
                through,
            } if incarnation == self.incarnation => {
                session.batch_at = None;
                self.acknowledge(through);
            }
            ControllerFrame::Clock(clock) => match process.intake.hear(&clock) {
                ClockVerdict::Newest | ClockVerdict::Older => {}
                verdict => self.trouble(&format!("a signed clock is {verdict:?}")),
            },
            _ => {}
        }
    }

    fn acknowledge(&mut self, through: u64) {
        let process = self.running.as_ref().expect("it took a letter");
        if let Err(error) = process.chain.acknowledge(through) {
            self.trouble(&format!(
                "its disk is behind what controllers know: {error}"
            ));
        }
    }

    fn take_order(&mut self, delivery: &Delivery) {
        let process = self.running.as_mut().expect("it has a session");
        let received = self.clock.now();
        let verdict = process.intake.take(delivery, received);
        let session = process.link.session.as_mut().expect("it has a session");
        match verdict {
            Verdict::NoClock | Verdict::NotNow => session.waits_for_clock = true,
            Verdict::Unbelieved | Verdict::TrustBehind => {
                self.trouble(&format!("an honest order is {verdict:?}"));
            }
            Verdict::Accepted | Verdict::Held | Verdict::Refused => {}
        }
    }

    fn report(&mut self, now_ms: u64) {
        let process = self.running.as_mut().expect("it has a session");
        let session = process.link.session.as_mut().expect("it has a session");
        let is_waiting = session
            .batch_at
            .is_some_and(|sent| now_ms - sent < BATCH_MS);
        if is_waiting || process.chain.outbox() == (0, 0) {
            return;
        }
        let batch = match process.chain.batch() {
            Ok(batch) => batch,
            Err(error) => return self.trouble(&format!("its chain cannot be read: {error}")),
        };
        session.batch_at = Some(now_ms);
        let node = session.node;
        let incarnation = self.incarnation.clone();
        let records = batch.records;
        self.tell(
            node,
            Up::Report(Report {
                incarnation,
                records,
            }),
        );
    }

    fn say_hello(&mut self, now_ms: u64) {
        let node = self.random.between(1, 3);
        // Numbers go on over restarts: a controller takes a session only for a newer one.
        let number = now_ms + 1;
        let hello = self.hello();
        let process = self.running.as_mut().expect("checked before");
        process.intake.begin_session();
        process.link.number = number;
        process.link.session = Some(Session {
            node,
            is_welcome: false,
            heard_at: now_ms,
            beat_at: now_ms,
            batch_at: None,
            early: Vec::new(),
            waits_for_clock: false,
        });
        self.tell(node, Up::Control(Box::new(AgentFrame::Hello(hello))));
    }

    fn hello(&self) -> Hello {
        let process = self.running.as_ref().expect("checked before");
        let desired = self.desired().expect("it runs");
        let item = |wanted: &Wanted| InventoryItem {
            unit: wanted.unit.clone(),
            generation: wanted.generation,
            sequence: wanted.sequence,
            removed: wanted.order == Order::Remove,
            health: HealthStatus::Unknown,
        };
        Hello {
            agent: self.id.clone(),
            incarnation: self.incarnation.clone(),
            software: "simulated".into(),
            trust_version: process.intake.trust_version(),
            now: self.clock.now(),
            inventory: desired.values().map(item).collect(),
            outbox: process.chain.outbox(),
        }
    }

    fn leave(&mut self, now_ms: u64) {
        let pause_ms = self.random.between(50, 800);
        let process: &mut Process = self.running.as_mut().expect("it has a session");
        process.link.session = None;
        process.link.retry_at = now_ms + pause_ms;
    }

    fn tell(&self, node: Place, frame: Up) {
        let process = self.running.as_ref().expect("it has a session");
        let session = process.link.number;
        let cargo = Cargo::Up { session, frame };
        self.network.send(self.place, node, cargo);
    }
}
