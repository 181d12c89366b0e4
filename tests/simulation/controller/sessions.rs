//! A controller's end of its agents' sessions: what `gateway` does over QUIC, over the simulated network. What is sent,
//! what is acknowledged and what is proposed is decided by the same code of the product.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dotmac_controller::{dispatch, node::Node};
use dotmac_domain::{Accepted, Command, audit::Stream, envelope::Actor};
use dotmac_protocol::{
    frame::{AgentFrame, ControllerFrame, Hello, Report, Welcome},
    ids::{AgentId, IncarnationId, Sequence, UnitId},
};
use dotmac_runtime::supervise;

use crate::network::{Cargo, Down, Network, Place, Up};

/// How long a proposal may take, and the pause before the next try.
const DEADLINE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(200);
/// Tries to commit a batch; after them the agent sends it again.
const TRIES: u32 = 20;

/// The sessions by the agents' places.
#[derive(Default)]
pub(crate) struct Sessions(BTreeMap<Place, Session>);

struct Session {
    number: u64,
    agent: AgentId,
    sent: BTreeMap<UnitId, Sequence>,
    clock_sent: u64,
}

impl Sessions {
    /// Takes a frame of an agent.
    pub(crate) fn take(
        &mut self,
        node: &Arc<Node>,
        (place, network): (Place, &Network),
        (from, session): (Place, u64),
        frame: Up,
    ) {
        let answer = move |frame: ControllerFrame| {
            let frame = Down::Control(Box::new(frame));
            Cargo::Down { session, frame }
        };
        match frame {
            Up::Control(frame) => match *frame {
                AgentFrame::Hello(hello) => {
                    let is_newer = self.0.get(&from).is_none_or(|one| one.number < session);
                    if !is_newer || !is_known(node, &hello) {
                        return;
                    }
                    network.send(place, from, answer(welcome(node, &hello)));
                    send_lost_again(node, &hello);
                    let opened = Session {
                        number: session,
                        agent: hello.agent,
                        sent: BTreeMap::new(),
                        clock_sent: 0,
                    };
                    self.0.insert(from, opened);
                }
                AgentFrame::Beat { .. } => {
                    if self.0.get(&from).is_some_and(|one| one.number == session) {
                        let now = node.clock.now();
                        network.send(place, from, answer(ControllerFrame::Beat { now }));
                    }
                }
                AgentFrame::Renew { .. } => {}
            },
            Up::Report(report) => {
                let known = self.0.get(&from).filter(|one| one.number == session);
                let Some(agent) = known.map(|one| one.agent.clone()) else {
                    return;
                };
                let (node, network) = (Arc::clone(node), network.clone());
                supervise::spawn("report", async move {
                    let incarnation = report.incarnation.clone();
                    if let Some(through) = commit(&node, &agent, report).await {
                        let frame = ControllerFrame::Acknowledged {
                            incarnation,
                            through,
                        };
                        network.send(place, from, answer(frame));
                    }
                });
            }
        }
    }

    /// Sends every newer signed clock, and every signed, unacknowledged order once a session.
    pub(crate) fn deliver(&mut self, node: &Node, place: Place, network: &Network) {
        if self.0.is_empty() {
            return;
        }
        let state = node.state();
        let newest = node.clocks.newest(&state, &node.book);
        for (to, session) in &mut self.0 {
            let number = session.number;
            if let Some(clock) = &newest
                && clock.number() != session.clock_sent
            {
                session.clock_sent = clock.number();
                if let Some(signed) = clock.for_agent(&session.agent) {
                    let frame = Down::Control(Box::new(ControllerFrame::Clock(signed)));
                    let session = number;
                    network.send(place, *to, Cargo::Down { session, frame });
                }
            }
            let sent = &session.sent;
            let is_sent =
                |unit: &UnitId, sequence| sent.get(unit).is_some_and(|one| *one >= sequence);
            let outgoing = dispatch::outgoing(&state, &node.book, &session.agent, is_sent);
            for order in outgoing {
                session.sent.insert(order.unit, order.sequence);
                let frame = Down::Order(Box::new(order.delivery));
                let session = number;
                network.send(place, *to, Cargo::Down { session, frame });
            }
        }
    }
}

fn is_known(node: &Node, hello: &Hello) -> bool {
    let state = node.state();
    let entry = state.agents.get(&hello.agent);
    entry.is_some_and(|entry| entry.incarnation == hello.incarnation)
}

fn welcome(node: &Node, hello: &Hello) -> ControllerFrame {
    ControllerFrame::Welcome(Welcome {
        node: node.card.node,
        now: node.clock.now(),
        trust_roots: Vec::new(),
        controllers: Vec::new(),
        acknowledged: acknowledged(node, &hello.agent, &hello.incarnation),
    })
}

fn acknowledged(node: &Node, agent: &AgentId, incarnation: &IncarnationId) -> u64 {
    let stream = Stream::Agent(agent.clone(), incarnation.clone());
    let state = node.state();
    state.streams.get(&stream).map_or(0, |head| head.sequence)
}

/// Has orders sent again that the agent acknowledged once and no longer holds.
fn send_lost_again(node: &Arc<Node>, hello: &Hello) {
    let behind = node.state().behind(&hello.agent, &hello.inventory);
    if behind.is_empty() {
        return;
    }
    let (node, actor) = (Arc::clone(node), Actor::Agent(hello.agent.clone()));
    supervise::spawn("inventory", async move {
        let command = Command::NoteInventory { behind };
        // The next session's hello says it again.
        let _ = node.propose(actor, command, DEADLINE).await;
    });
}

/// Proposes a batch until it is committed or refused; up to where the agent's records count then.
async fn commit(node: &Node, agent: &AgentId, report: Report) -> Option<u64> {
    for _ in 0..TRIES {
        let command = Command::AcceptReport {
            incarnation: report.incarnation.clone(),
            records: report.records.clone(),
        };
        let actor = Actor::Agent(agent.clone());
        match node.propose(actor, command, DEADLINE).await {
            Ok(Ok(Accepted::Through(through))) => return Some(through),
            Ok(Ok(_) | Err(_)) => return Some(acknowledged(node, agent, &report.incarnation)),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
    None
}
