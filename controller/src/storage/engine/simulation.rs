//! An engine whose records lie in memory and whose writer is a task on simulated time. Compiled into no program.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use dotmac_runtime::{disk::SharedDisk, supervise};
use tokio::sync::mpsc;

use super::{
    Engine, EngineConfig, MemoryRecords, OnFatal, OpenError, Shared, last_commit, records::Records,
    writer::Writer,
};

impl Engine {
    /// Opens what a simulated disk holds.
    ///
    /// # Errors
    /// When its records are damaged.
    pub fn simulate(
        records: MemoryRecords,
        config: &EngineConfig,
        on_fatal: OnFatal,
    ) -> Result<Self, OpenError> {
        let path = PathBuf::from("memory");
        let database = Records::Memory(records.clone());
        let last_commit = last_commit(&database).map_err(|error| OpenError::Damaged {
            path: path.clone(),
            detail: error.to_string(),
        })?;
        let disk: SharedDisk = Arc::new(records.clone());
        let writer = Writer {
            database: database.clone(),
            database_path: path,
            disk: Arc::clone(&disk),
            mark: None,
            on_fatal,
            last_commit,
            _directory: None,
        };
        let (sender, receiver) = mpsc::channel(config.queue_batches_max.max(1));
        supervise::spawn("storage", writer.run_simulated(receiver, records));
        Ok(Self {
            shared: Arc::new(Shared {
                database,
                queue: Mutex::new(Some(sender)),
                writer: Mutex::new(None),
                reserve_bytes: config.reserve_bytes,
                disk,
                directory: None,
            }),
        })
    }
}
