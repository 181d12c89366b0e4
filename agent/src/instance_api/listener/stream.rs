//! A stream that loses patience: with a client that says nothing, or takes too long over the head of a request. It does not
//! read what passes; the HTTP server says when a head is complete.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::{Patience, places::Connection};

#[derive(Debug)]
pub(super) struct PatientStream {
    stream: TcpStream,
    connection: Arc<Connection>,
    patience: Patience,
    heard: Instant,
    /// How many heads were complete when another one began, and when that was. What comes while a request is answered
    /// may be its body: a head that begins there counts from the first byte after the answer.
    head: Option<(u64, Instant)>,
    timer: Pin<Box<Sleep>>,
}

impl PatientStream {
    pub(super) fn new(stream: TcpStream, connection: Arc<Connection>, patience: Patience) -> Self {
        let heard = Instant::now();
        Self {
            stream,
            connection,
            patience,
            heard,
            head: None,
            timer: Box::pin(sleep_until(heard + patience.silence)),
        }
    }

    fn note_heard(&mut self) {
        self.heard = Instant::now();
        let heads = self.connection.heads();
        if self.connection.is_answering() {
            self.head = None;
        } else if self.head.is_none_or(|(before, _)| before != heads) {
            self.head = Some((heads, self.heard));
        }
    }

    fn patience_ends(&self) -> Instant {
        let silence = self.heard + self.patience.silence;
        match self.head {
            Some((heads, began)) if heads == self.connection.heads() => {
                silence.min(began + self.patience.head)
            }
            _ => silence,
        }
    }

    fn poll_patience<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let ends = self.patience_ends();
        if self.timer.deadline() != ends {
            self.timer.as_mut().reset(ends);
        }
        let timer = self.timer.as_mut();
        timer.poll(context).map(|()| Err(timed_out()))
    }
}

impl AsyncRead for PatientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(read) => {
                self.note_heard();
                if self.patience_ends() <= self.heard {
                    return Poll::Ready(Err(timed_out()));
                }
                Poll::Ready(read)
            }
            Poll::Pending => self.poll_patience(context),
        }
    }
}

impl AsyncWrite for PatientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.poll_patience(context),
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(context, slices) {
            Poll::Pending => self.poll_patience(context),
            written => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}
