//! What the agent of the tests' cluster reports: records of its chain, as a gateway would take them.

use dotmac_domain::{Command, audit::Stream, envelope::Actor};
use dotmac_protocol::{
    codec,
    ids::{IncarnationId, UnitId},
    keys::Signature,
    record::{ChainHead, Event, RECORD_DOMAIN, Record, SignedRecord, reports::Report},
};
use ed25519_dalek::SigningKey;

use super::World;

impl World {
    /// Brings a batch of reports about a deployment's instance.
    pub(in crate::api::tests) async fn report(&self, deployment: &str, reports: Vec<Report>) {
        let incarnation: IncarnationId = "0".repeat(32).parse().unwrap();
        let stream = Stream::Agent(self.agent.clone(), incarnation.clone());
        let head = self.node.state().streams.get(&stream).copied();
        let head = head.unwrap_or(ChainHead::START);
        let record = Record {
            agent: self.agent.clone(),
            incarnation: incarnation.clone(),
            sequence: head.sequence + 1,
            previous: head.digest,
            at: self.node.clock.now(),
            tenant: None,
            unit: Some(UnitId::instance(&deployment.parse().unwrap())),
            request: None,
            event: Event::Reports(reports),
        };
        let body = codec::encode(&record).unwrap();
        let signature = Signature::make(&SigningKey::from_bytes(&[9; 32]), RECORD_DOMAIN, &body);
        let records = vec![SignedRecord { body, signature }];
        let command = Command::AcceptReport {
            incarnation,
            records,
        };
        super::propose(&self.node, Actor::Agent(self.agent.clone()), command).await;
    }
}
