//! Conditions with deadlines. Nothing here waits for a time: it waits for something to be seen.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::Instant;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(40);

/// Looks until something is there. A look that fails is a look that did not see it; the last failure is told.
///
/// # Errors
/// When it is not there in time.
pub async fn until<T, F, Seen>(what: &str, within: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Seen,
    Seen: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + within;
    let mut why = "the first look took too long".to_owned();
    loop {
        match tokio::time::timeout_at(end, look()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => "it was looked for in vain".clone_into(&mut why),
            Ok(Err(error)) => why = format!("{error:#}"),
            // What the look before said tells more.
            Err(_) => {}
        }
        if Instant::now() >= end {
            return Err(anyhow!("not within {within:?}: {what}: {why}"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Looks again and again for as long as `over`, and fails as soon as a look does.
///
/// # Errors
/// What the look said.
pub async fn throughout<F, Seen>(over: Duration, mut look: F) -> Result<()>
where
    F: FnMut() -> Seen,
    Seen: Future<Output = Result<()>>,
{
    let end = Instant::now() + over;
    while Instant::now() < end {
        look().await?;
        tokio::time::sleep(LOOK).await;
    }
    look().await
}
