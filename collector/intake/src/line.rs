//! A connection's bytes, with the two patiences that HTTP libraries leave to others.
//!
//! Promise: a peer that opens a connection and does not say which protocol it speaks is cut off after the header timeout; an
//! answer given before the request was read to its end still reaches the peer, as what it goes on sending is read and thrown
//! away for a while before the connection closes (closing at once would make the system send a reset, which destroys the answer).
//! Not here: TLS. It wraps the stream before this does, see `listen::converse`.
//! Kept by: `tests/it/http_table.rs` (early answers), `tests/it/bounds.rs` (silent peers).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// HTTP/2 is told from HTTP/1 by this many bytes; from there on hyper's own timeouts hold.
const PREFACE_BYTES: usize = 24;
const LINGER: Duration = Duration::from_secs(2);
const SCRATCH_BYTES: usize = 16 << 10;

pub(crate) struct Line<S> {
    stream: S,
    /// Until the preface has come: how much of it has, and when patience ends.
    opening: Option<(usize, Pin<Box<Sleep>>)>,
    /// Once our side is closed.
    closing: Option<Pin<Box<Sleep>>>,
}

impl<S> Line<S> {
    pub(crate) fn open(stream: S, patience: Duration) -> Self {
        Self { stream, opening: Some((0, Box::pin(sleep(patience)))), closing: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let line = &mut *self;
        let before = into.filled().len();
        let read = Pin::new(&mut line.stream).poll_read(cx, into);
        let Some((seen, patience)) = &mut line.opening else { return read };
        if read.is_pending() {
            ready!(patience.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        *seen += into.filled().len() - before;
        if *seen >= PREFACE_BYTES {
            line.opening = None;
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Closes our side, then waits for the peer to close its own.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let line = &mut *self;
        if line.closing.is_none() {
            ready!(Pin::new(&mut line.stream).poll_shutdown(cx))?;
        }
        let patience = line.closing.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut scratch = [0; SCRATCH_BYTES];
        loop {
            if patience.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut into = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut line.stream).poll_read(cx, &mut into));
            if read.is_err() || into.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
