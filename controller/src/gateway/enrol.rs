//! How an agent without a valid certificate gets one: by a join token, or by its identity key after being cut off.

use dotmac_domain::{Accepted, Command, command::EnrolAgent, envelope::Actor, fleet::agent_name};
use dotmac_protocol::{
    frame::{EnrolGreeting, EnrolReply, EnrolRequest, JoinToken, RECOVER_DOMAIN},
    ids::{AgentId, TrustVersion},
    keys::Signature,
    time::Timestamp,
};
use dotmac_runtime::{
    pki,
    quic::{read_frame, write_frame},
};
use quinn::Connection;

use super::{
    Gateway, PROPOSE_DEADLINE, STEP_DEADLINE, SessionError, TRUST_ROOTS_MAX, trust_roots_after,
};

/// Milliseconds by which a recovering agent's clock may be off.
const RECOVER_TOLERANCE_MS: u64 = 300_000;

impl Gateway {
    pub(super) async fn enrol(&self, connection: &Connection) -> Result<(), SessionError> {
        let step = tokio::time::timeout(STEP_DEADLINE, connection.accept_bi());
        let (mut send, mut receive) = step.await.map_err(|_| SessionError::Slow)??;
        let state = self.node.state();
        let newest = state.trust.as_ref().map_or(0, |trust| trust.version.0);
        let most = u64::try_from(TRUST_ROOTS_MAX).unwrap_or(u64::MAX);
        let before = TrustVersion(newest.saturating_sub(most));
        let trust_roots = trust_roots_after(&state, before);
        write_frame(&mut send, &EnrolGreeting { trust_roots }).await?;
        let request = read_frame::<EnrolRequest>(&mut receive)
            .await?
            .ok_or(SessionError::Closed)?;
        let reply = match request {
            EnrolRequest::Join { .. } => self.join(request).await,
            EnrolRequest::Recover {
                agent,
                request,
                now,
                signature,
            } => self.recover(agent, &request, now, &signature).await,
        };
        write_frame(&mut send, &reply).await?;
        // The agent closes once it has the reply; a stream that was reset already needs no end.
        let _ = send.finish();
        let _ = tokio::time::timeout(STEP_DEADLINE, connection.closed()).await;
        Ok(())
    }

    async fn join(&self, request: EnrolRequest) -> EnrolReply {
        let EnrolRequest::Join {
            token,
            secret,
            region,
            request,
            identity,
            seal_key,
            incarnation,
        } = request
        else {
            return refused("malformed", "not a request to join", false);
        };
        let now = self.node.clock.now();
        let agent = agent_name(&region, &identity);
        let issued = pki::key_digest(&request).and_then(|key| {
            let cluster = &self.node.genesis.cluster;
            let chain =
                self.issuer
                    .issue_agent(&request, cluster, &agent, now, self.certificate_ms)?;
            Ok((key, chain))
        });
        let (key, chain) = match issued {
            Ok(issued) => issued,
            Err(error) => return refused("request-malformed", &error.to_string(), false),
        };
        let command = Command::EnrolAgent(EnrolAgent {
            token,
            proof: JoinToken::proof(&secret),
            region,
            incarnation,
            identity,
            seal_key,
            key,
            not_after: now.plus_millis(self.certificate_ms),
        });
        match self
            .node
            .propose(Actor::Agent(agent), command, PROPOSE_DEADLINE)
            .await
        {
            Ok(Ok(Accepted::Agent(agent))) => {
                tracing::info!(%agent, "agent enrolled");
                EnrolReply::Admitted {
                    agent,
                    chain,
                    controllers: self.addresses(),
                }
            }
            Ok(Ok(_)) => refused("unavailable", "the answer was of another kind", true),
            Ok(Err(rejection)) => {
                tracing::warn!(detail = rejection.detail, "enrolment refused");
                refused(rejection.code.as_str(), &rejection.detail, false)
            }
            Err(error) => refused("unavailable", &error.to_string(), true),
        }
    }

    async fn recover(
        &self,
        agent: AgentId,
        request: &[u8],
        now: Timestamp,
        signature: &Signature,
    ) -> EnrolReply {
        let unknown = || {
            refused(
                "recovery-refused",
                "the agent or its signature is unknown",
                false,
            )
        };
        let Ok(state) = self.node.read(STEP_DEADLINE).await else {
            return refused(
                "unavailable",
                "no majority of the controllers can be reached",
                true,
            );
        };
        let Some(entry) = state.agents.get(&agent) else {
            return unknown();
        };
        let signed = [&now.0.to_be_bytes()[..], request].concat();
        if entry
            .identity
            .verify(RECOVER_DOMAIN, &signed, signature)
            .is_err()
        {
            return unknown();
        }
        if now.distance_millis(self.node.clock.now()) > RECOVER_TOLERANCE_MS {
            let reason = "the agent's clock is more than 5 minutes off the controller's";
            return refused("clock-off", reason, true);
        }
        match self.certify(&agent, request).await {
            Ok(chain) => EnrolReply::Admitted {
                agent,
                chain,
                controllers: self.addresses(),
            },
            Err(reason) => refused("unavailable", &reason, true),
        }
    }
}

fn refused(code: &str, reason: &str, retry: bool) -> EnrolReply {
    EnrolReply::Refused {
        code: code.to_owned(),
        reason: reason.to_owned(),
        retry,
    }
}
