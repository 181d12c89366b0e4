//! What Raft runs on: Tokio, with the only random thing that Raft does, choosing election timeouts, drawn from our own
//! entropy. The simulation seeds it; everywhere else it is the kernel's.

use std::{future::Future, time::Duration};

use dotmac_runtime::entropy::Entropy;
use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use rand::{Error, RngCore};

#[cfg(feature = "simulation")]
thread_local! {
    static SEEDED: std::cell::RefCell<Option<Entropy>> = const { std::cell::RefCell::new(None) };
}

/// Lets the elections of all controllers that run on this thread follow a seed.
#[cfg(feature = "simulation")]
pub fn seed_elections(entropy: Entropy) {
    SEEDED.with(|seeded| seeded.replace(Some(entropy)));
}

/// Whether a simulated world runs on this thread.
#[cfg(feature = "simulation")]
pub(super) fn is_seeded() -> bool {
    SEEDED.with(|seeded| seeded.borrow().is_some())
}

/// See the module's text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RaftRuntime;

/// Where election timeouts come from.
#[derive(Debug)]
pub struct Elections(Entropy);

impl RngCore for Elections {
    fn next_u32(&mut self) -> u32 {
        u32::from_be_bytes(self.0.bytes())
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_be_bytes(self.0.bytes())
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl AsyncRuntime for RaftRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Elections;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Elections {
        #[cfg(feature = "simulation")]
        if let Some(seeded) = SEEDED.with(|seeded| seeded.borrow().clone()) {
            return Elections(seeded);
        }
        Elections(Entropy::system())
    }

    fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
    where
        T: OptionalSend,
    {
        TokioRuntime::oneshot()
    }
}
