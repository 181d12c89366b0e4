//! Agents' reports: one batch at a time, acknowledged only after it is committed on a majority.

use std::time::Duration;

use dotmac_domain::{Accepted, Command, audit::Stream, envelope::Actor, reply::Code};
use dotmac_protocol::{
    frame::{ControllerFrame, REPORT_RECORDS_MAX, Report},
    ids::{AgentId, IncarnationId},
};
use dotmac_runtime::quic::read_frame;
use quinn::Connection;
use tokio::sync::mpsc;

use super::{Gateway, PROPOSE_DEADLINE, SessionError};

/// Pause before a batch that did not get through is proposed again.
const AGAIN: Duration = Duration::from_millis(200);

impl Gateway {
    pub(super) async fn take_reports(
        &self,
        connection: &Connection,
        agent: &AgentId,
        incarnation: &IncarnationId,
        control: mpsc::Sender<ControllerFrame>,
    ) -> Result<(), SessionError> {
        loop {
            let mut stream = connection.accept_uni().await?;
            while let Some(report) = read_frame::<Report>(&mut stream).await? {
                let is_sound = report.incarnation == *incarnation
                    && report.records.len() <= REPORT_RECORDS_MAX;
                if !is_sound {
                    return Err(SessionError::Hello);
                }
                let through = self.commit(agent, report).await;
                let incarnation = incarnation.clone();
                let frame = ControllerFrame::Acknowledged {
                    incarnation,
                    through,
                };
                control
                    .send(frame)
                    .await
                    .map_err(|_| SessionError::Closed)?;
            }
        }
    }

    /// Proposes a batch until it is committed or refused; returns up to where the agent's records count. The agent
    /// sends the next batch only after that, so at most one batch a session waits here.
    async fn commit(&self, agent: &AgentId, report: Report) -> u64 {
        let Report {
            incarnation,
            records,
        } = report;
        loop {
            let command = Command::AcceptReport {
                incarnation: incarnation.clone(),
                records: records.clone(),
            };
            let actor = Actor::Agent(agent.clone());
            match self.node.propose(actor, command, PROPOSE_DEADLINE).await {
                Ok(Ok(Accepted::Through(through))) => return through,
                Ok(Ok(other)) => {
                    tracing::error!(%agent, detail = ?other, "a report got another kind of answer")
                }
                Ok(Err(rejection)) => {
                    if rejection.code != Code::OutOfOrder {
                        tracing::warn!(%agent, detail = rejection.detail, "report refused");
                    }
                    return self.known(agent, &incarnation);
                }
                Err(error) => tracing::debug!(%agent, %error, "report not committed yet"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn known(&self, agent: &AgentId, incarnation: &IncarnationId) -> u64 {
        let stream = Stream::Agent(agent.clone(), incarnation.clone());
        self.node
            .state()
            .streams
            .get(&stream)
            .map_or(0, |head| head.sequence)
    }
}
