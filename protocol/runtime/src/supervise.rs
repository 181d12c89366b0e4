//! Tasks with names: how one ended is never lost. It restarts nothing; who needs that loops inside the task.

use std::future::Future;

use tokio::task::JoinHandle;

/// Spawns a task that says in the log when it panics (error) or ends or is aborted (debug).
/// Dropping the handle leaves the task running.
///
/// # Panics
/// Outside a Tokio runtime.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[allow(clippy::disallowed_methods, reason = "the one place that spawns tasks")]
    tokio::spawn(async move {
        let mut watch = Watch { name, ended: false };
        let output = future.await;
        watch.ended = true;
        output
    })
}

/// Notices in its drop how the task ended.
struct Watch {
    name: &'static str,
    ended: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let task = self.name;
        if std::thread::panicking() {
            tracing::error!(task, "task panicked");
        } else if self.ended {
            tracing::debug!(task, "task ended");
        } else {
            tracing::debug!(task, "task aborted");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::spawn;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_panic_is_logged_by_the_name_of_its_task() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let ended = spawn("the-panicking-one", async { panic!("on purpose") }).await;
        assert!(ended.unwrap_err().is_panic());
        let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        assert!(
            log.contains("task panicked") && log.contains("the-panicking-one"),
            "{log}"
        );
    }

    #[tokio::test]
    async fn the_output_of_a_task_comes_back() {
        assert_eq!(spawn("seven", async { 7 }).await.unwrap(), 7);
    }
}
