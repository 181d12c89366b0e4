//! The digest of the State at one index, for whoever compares controllers. It is made when somebody asks: one at a time, away
//! from the threads that serve, and kept until something else is applied.

use tokio::sync::Mutex;

use crate::{log::Log, peers::StateDigest};

/// The digest made last.
#[derive(Debug, Default)]
pub struct Digests(Mutex<Option<StateDigest>>);

impl Digests {
    /// Index and digest of the newest State; `None` when the program is stopping.
    pub async fn newest(&self, log: &dyn Log) -> Option<StateDigest> {
        let mut kept = self.0.lock().await;
        let (applied, state) = log.changes().newest();
        match *kept {
            Some(known) if known.applied == applied => Some(known),
            Some(_) | None => {
                let making = tokio::task::spawn_blocking(move || state.digest());
                let digest = making.await.ok()?;
                *kept = Some(StateDigest { applied, digest });
                *kept
            }
        }
    }
}
