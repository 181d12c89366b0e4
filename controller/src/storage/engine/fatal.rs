//! What happens when nobody knows any more what is on the disk: the process ends, so that it cannot say anything wrong.

use std::sync::Arc;

use dotmac_runtime::causes;

use super::FatalError;

/// What happens at a fatal error; it should not return in production.
pub type OnFatal = Arc<dyn Fn(&FatalError) + Send + Sync>;

/// Logs the error and ends the process at once, without running destructors.
#[must_use]
pub fn abort_on_fatal() -> OnFatal {
    Arc::new(|error| {
        tracing::error!(error = causes::in_full(error), "storage failed");
        std::process::abort();
    })
}

/// For tests: says the error and lets the writers fail. A test that ends removes its files while a killed node may still
/// be writing, and that must not end the tests beside it.
#[cfg(test)]
pub(crate) fn fail_on_fatal() -> OnFatal {
    Arc::new(|error| {
        eprintln!(
            "storage failed: {error}: {:?}",
            std::error::Error::source(error)
        )
    })
}
