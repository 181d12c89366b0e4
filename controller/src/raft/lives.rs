//! Lives of disks: each storage directory gets a random one when it is made, and remembers those of the other nodes.
//!
//! A node that comes back with another life lost its log and its votes, and must not take part as itself: Raft would
//! count its forgotten promises. It refuses to forget a life; a wiped node returns under a new number.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use dotmac_runtime::entropy::Entropy;
use thiserror::Error;

use crate::storage::engine::{Area, Batch, Engine, Key, Priority, ReadError, WriteError};

/// One life of a storage directory.
pub type Life = [u8; 16];

/// Why lives cannot be told.
#[derive(Debug, Error)]
pub enum LivesError {
    /// A record cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A record is malformed.
    #[error("the record of known lives is malformed")]
    Malformed,
    /// The node is not who it was.
    #[error(
        "controller {node} came back without the storage it had: it must not rejoin under its old number"
    )]
    Reborn {
        /// Which one.
        node: u64,
    },
}

/// The own life and the known ones; clones share them.
#[derive(Debug, Clone)]
pub struct Lives {
    engine: Engine,
    own: Life,
    known: Arc<Mutex<BTreeMap<u64, Life>>>,
    learning: Arc<tokio::sync::Mutex<()>>,
}

impl Lives {
    /// Reads what is known; a fresh directory gets its life here.
    pub async fn open(engine: Engine, entropy: &Entropy) -> Result<Self, LivesError> {
        let own = match engine.get(&own_key())? {
            Some(value) => value.try_into().map_err(|_| LivesError::Malformed)?,
            None => {
                let own: Life = entropy.bytes();
                let mut batch = Batch::new();
                batch.put(own_key(), own.to_vec());
                engine.write(batch, Priority::Essential).await?;
                own
            }
        };
        let mut known = BTreeMap::new();
        let nodes = Key::of(Area::Peers).text("node");
        for record in engine.scan(nodes.clone()..nodes.end()) {
            let (key, value) = record?;
            let node = key.as_bytes().last_chunk().copied().map(u64::from_be_bytes);
            let life = value.try_into().ok();
            let (Some(node), Some(life)) = (node, life) else {
                return Err(LivesError::Malformed);
            };
            known.insert(node, life);
        }
        Ok(Self {
            engine,
            own,
            known: Arc::new(Mutex::new(known)),
            learning: Arc::default(),
        })
    }

    /// This directory's life.
    #[must_use]
    pub fn own(&self) -> Life {
        self.own
    }

    /// Accepts a node's life: the first one is remembered on disk, another one is refused.
    pub async fn admit(&self, node: u64, life: Life) -> Result<(), LivesError> {
        if self.is_known(node, life)? {
            return Ok(());
        }
        let _learning = self.learning.lock().await;
        if self.is_known(node, life)? {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(
            Key::of(Area::Peers).text("node").number(node),
            life.to_vec(),
        );
        self.engine.write(batch, Priority::Essential).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(node, life);
        Ok(())
    }

    fn is_known(&self, node: u64, life: Life) -> Result<bool, LivesError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&node) {
            None => Ok(false),
            Some(expected) if *expected == life => Ok(true),
            Some(_) => Err(LivesError::Reborn { node }),
        }
    }
}

fn own_key() -> Key {
    Key::of(Area::Peers).text("own")
}

#[cfg(test)]
mod tests {
    use dotmac_runtime::{disk::SystemDisk, entropy::Entropy};

    use super::{Lives, LivesError};
    use crate::storage::{
        directory::Directory,
        engine::{Engine, EngineConfig, fail_on_fatal},
    };

    async fn open(home: &std::path::Path, seed: u64) -> (Engine, Lives) {
        let directory = Directory::open(home, &SystemDisk).unwrap();
        let config = EngineConfig::default();
        let engine =
            Engine::open(directory, &config, SystemDisk::shared(), fail_on_fatal()).unwrap();
        let lives = Lives::open(engine.clone(), &Entropy::seeded(seed))
            .await
            .unwrap();
        (engine, lives)
    }

    #[tokio::test]
    async fn a_node_without_its_storage_is_refused_also_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let own = {
            let (engine, lives) = open(home.path(), 1).await;
            lives.admit(2, [7; 16]).await.unwrap();
            lives.admit(2, [7; 16]).await.unwrap();
            engine.close().await;
            lives.own()
        };
        let (_engine, lives) = open(home.path(), 2).await;
        assert_eq!(lives.own(), own);
        assert!(lives.admit(2, [7; 16]).await.is_ok());
        assert!(matches!(
            lives.admit(2, [8; 16]).await,
            Err(LivesError::Reborn { node: 2 })
        ));
    }
}
