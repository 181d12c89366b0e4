//! Stands between a socket and the HTTP server: bytes pass only as checked requests, and a client that keeps the
//! other side waiting is given up. It reads no further ahead than it is asked to.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    connection::Connection,
    framing::{Awaited, BrokenChunk, Framing},
    head::Refusal,
    pace::Pace,
};
use crate::api::problem::HEAD_TIMED_OUT;

/// How long the other side is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a request's head once it has begun, and on a new connection for the first one.
    pub(super) head: Duration,
    /// On a connection without a request.
    pub(super) idle: Duration,
    /// For a body that comes too slowly, and for a reader who takes an answer too slowly.
    pub(super) grace: Duration,
    /// For a client that is still sending what was refused, so that it reads why.
    pub(super) linger: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            linger: Duration::from_secs(1),
        }
    }
}

/// Bytes of what was refused that are thrown away at most.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 8 * 1024;

/// A guarded stream.
#[derive(Debug)]
pub(super) struct Guard<S> {
    stream: S,
    connection: Arc<Connection>,
    framing: Framing,
    checked: BytesMut,
    patience: Patience,
    read_timer: Timer,
    /// When the wait for a request or for the rest of a head began, and for which of them.
    waiting: Option<(Awaited, Instant)>,
    reading: Pace,
    writing: Pace,
    write_timer: Timer,
    lingered_bytes: usize,
    /// What ends the body, once everything before it was read.
    broken: Option<BrokenChunk>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Guards a stream.
    pub(super) fn new(stream: S, connection: Arc<Connection>, patience: Patience) -> Self {
        Self {
            stream,
            connection,
            framing: Framing::default(),
            checked: BytesMut::new(),
            patience,
            read_timer: Timer::default(),
            waiting: None,
            reading: Pace::new(patience.grace),
            writing: Pace::new(patience.grace),
            write_timer: Timer::default(),
            lingered_bytes: 0,
            broken: None,
        }
    }

    fn take(&mut self, input: &[u8]) {
        if self.framing.awaited() == Awaited::Body {
            self.reading.moved(input.len(), Instant::now());
        }
        match self.framing.push(input, &mut self.checked) {
            Ok(None) => {}
            Ok(Some(refusal)) => self.connection.refuse(self.framing.heads(), refusal),
            Err(broken) => self.broken = Some(broken),
        }
    }

    /// Nothing comes: how much longer it may be waited. Ready means that the client was given up, one way or another.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = Instant::now();
        let awaited = self.framing.awaited();
        let end = match awaited {
            Awaited::Nothing => return Poll::Pending,
            Awaited::Body => self.reading.wait(now),
            // An answer is on its way: the client may well be silent meanwhile.
            Awaited::Request if self.connection.is_busy() => {
                self.waiting = None;
                return Poll::Pending;
            }
            Awaited::Request | Awaited::Head => {
                let since = match self.waiting {
                    Some((before, since)) if before == awaited => since,
                    _ => now,
                };
                self.waiting = Some((awaited, since));
                let is_idle = awaited == Awaited::Request && self.framing.heads() > 0;
                since
                    + if is_idle {
                        self.patience.idle
                    } else {
                        self.patience.head
                    }
            }
        };
        ready!(self.read_timer.poll(end, context));
        match awaited {
            Awaited::Head => {
                let refusal = Refusal {
                    kind: &HEAD_TIMED_OUT,
                    detail: "the head of the request took too long",
                };
                let refusal = self.framing.refuse(refusal, &mut self.checked);
                self.connection.refuse(self.framing.heads(), refusal);
                Poll::Ready(Ok(()))
            }
            Awaited::Body => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            // The end of the stream.
            Awaited::Request | Awaited::Nothing => Poll::Ready(Ok(())),
        }
    }

    fn poll_written(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        if let Poll::Ready(result) = written {
            let count = *result.as_ref().unwrap_or(&0);
            self.writing.moved(count, now);
            if count > 0 {
                self.waiting = None;
            }
            return Poll::Ready(result);
        }
        let end = self.writing.wait(now);
        ready!(self.write_timer.poll(end, context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.checked.is_empty() {
                let count = this.checked.len().min(into.remaining());
                into.put_slice(&this.checked[..count]);
                this.checked.advance(count);
                return Poll::Ready(Ok(()));
            }
            if let Some(broken) = this.broken {
                let error = io::Error::new(io::ErrorKind::InvalidData, broken);
                return Poll::Ready(Err(error));
            }
            let mut space = [0; READ_BYTES];
            let mut piece = ReadBuf::new(&mut space);
            match Pin::new(&mut this.stream).poll_read(context, &mut piece) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if piece.filled().is_empty() => {
                    // A client that has said all may still read why it was refused.
                    let is_over = this.framing.awaited() == Awaited::Nothing;
                    return if is_over {
                        Poll::Pending
                    } else {
                        Poll::Ready(Ok(()))
                    };
                }
                Poll::Ready(Ok(())) => this.take(piece.filled()),
                Poll::Pending => {
                    ready!(this.poll_patience(context))?;
                    if this.checked.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.poll_written(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, pieces);
        this.poll_written(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        let flushed = flushed.map_ok(|()| 0);
        this.poll_written(flushed, context).map_ok(drop)
    }

    /// Says goodbye; a client whose request was not read to its end is listened to a little longer, because closing
    /// on it at once could take the answer from it.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        if !matches!(this.framing.awaited(), Awaited::Nothing | Awaited::Body) {
            return Poll::Ready(Ok(()));
        }
        if this.lingered_bytes == 0 {
            this.waiting = Some((Awaited::Nothing, Instant::now()));
            this.lingered_bytes = 1;
        }
        let mut space = [0; READ_BYTES];
        while this.lingered_bytes < LINGER_BYTES_MAX {
            let mut piece = ReadBuf::new(&mut space);
            match Pin::new(&mut this.stream).poll_read(context, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => {
                    this.lingered_bytes += piece.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    let since = this.waiting.map_or_else(Instant::now, |(_, since)| since);
                    let end = since + this.patience.linger;
                    return this.read_timer.poll(end, context).map(Ok);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Wakes its task at a time that may change.
#[derive(Debug, Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn poll(&mut self, end: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if sleep.deadline() != end {
            sleep.as_mut().reset(end);
        }
        sleep.as_mut().poll(context)
    }
}
