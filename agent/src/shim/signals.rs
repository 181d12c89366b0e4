//! The signals a shim waits for, as a file descriptor to wait on and flags to read.

use std::{
    io::{self, Read as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    flag,
    low_level::pipe,
};

/// Which signals came.
pub(super) struct Signals {
    came: UnixStream,
    stop: Arc<AtomicBool>,
    kill: Arc<AtomicBool>,
}

impl Signals {
    /// Takes over the process's signals.
    pub(super) fn watch() -> io::Result<Self> {
        let (came, tell) = UnixStream::pair()?;
        came.set_nonblocking(true)?;
        let (stop, kill) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        // The flag first: whoever is woken by the pipe finds it set.
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            flag::register(signal, Arc::clone(&stop))?;
        }
        flag::register(SIGQUIT, Arc::clone(&kill))?;
        for signal in [SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
            pipe::register(signal, tell.try_clone()?)?;
        }
        Ok(Self { came, stop, kill })
    }

    /// To which no signal comes: a test program keeps its own.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        let (came, _) = UnixStream::pair().expect("a pair of sockets");
        came.set_nonblocking(true).expect("a socket");
        Self {
            came,
            stop: Arc::default(),
            kill: Arc::default(),
        }
    }

    pub(super) fn stop_is_asked(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(super) fn kill_is_asked(&self) -> bool {
        self.kill.load(Ordering::SeqCst)
    }

    /// What becomes readable when a signal came.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.came.as_fd()
    }

    /// Makes it unreadable again, before what came is looked at.
    pub(super) fn clear(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.came).read(&mut bytes), Ok(read) if read > 0) {}
    }
}
