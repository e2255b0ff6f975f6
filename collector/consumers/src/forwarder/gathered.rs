//! A connection whose small writes go out together.
//!
//! An endpoint that never said otherwise takes HTTP/2 frames of 16 KiB, and `h2` writes and flushes each by itself: a call into the
//! kernel, a packet and a wake-up at the other end for every nine spans. Here they are copied end to end, while they are warm, and go
//! out in pieces of [`GATHERED_BYTES`], or as soon as the connection has nothing more to write.
//! Promise: bytes go out in their order, all of them; what was flushed goes out the next time that the connection is polled, which a
//! flush sees to; a write that is large goes past without a copy. At most [`GATHERED_BYTES`] are held.
//! Not here: what is written (`transport.rs`).
//! Kept by: `tests` below.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is held at most.
pub(super) const GATHERED_BYTES: usize = 256 << 10;
/// What is as large as this is written where it lies.
const LARGE_BYTES: usize = 64 << 10;

/// A connection, and what is on its way into it.
#[derive(Debug)]
pub(super) struct Gathered<C> {
    connection: C,
    held: Vec<u8>,
    /// How much of that was written.
    written: usize,
    /// What is held was flushed: it waits for no more.
    due: bool,
}

impl<C: AsyncWrite + Unpin> Gathered<C> {
    pub(super) fn new(connection: C) -> Self {
        Self { connection, held: Vec::new(), written: 0, due: false }
    }

    /// Writes all that is held.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            match ready!(Pin::new(&mut self.connection).poll_write(cx, &self.held[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.held.clear();
        self.written = 0;
        self.due = false;
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<C> {
    /// Who reads has written what there was to write: an HTTP/2 connection reads first whenever it is polled.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.due
            && let Poll::Ready(Err(error)) = self.poll_held(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.connection).poll_read(cx, into)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Gathered<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        if bytes >= LARGE_BYTES || self.held.len() + bytes > GATHERED_BYTES {
            ready!(self.poll_held(cx))?;
        }
        if bytes >= LARGE_BYTES {
            return Pin::new(&mut self.connection).poll_write_vectored(cx, slices);
        }
        if self.held.capacity() == 0 && bytes > 0 {
            self.held.reserve_exact(GATHERED_BYTES);
        }
        slices.iter().for_each(|slice| self.held.extend_from_slice(slice));
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Says yes at once, and has the connection polled again, after which nothing is held any more.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Pin::new(&mut self.connection).poll_flush(cx);
        }
        if !self.due {
            self.due = true;
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::{Wake, Waker};

    use super::*;

    /// A connection that takes what it likes, and notes it.
    #[derive(Default)]
    struct Picky {
        taken: Vec<u8>,
        writes: usize,
        /// How much each write takes; 0: it must wait. All, once these are over.
        moods: VecDeque<usize>,
        shut: bool,
    }

    impl AsyncRead for Picky {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Picky {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let takes = self.moods.pop_front().unwrap_or(usize::MAX).min(bytes.len());
            if takes == 0 && !bytes.is_empty() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.taken.extend_from_slice(&bytes[..takes]);
            self.writes += 1;
            Poll::Ready(Ok(takes))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.shut = true;
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn read(gathered: &mut Gathered<Picky>, cx: &mut Context<'_>) {
        assert!(Pin::new(gathered).poll_read(cx, &mut ReadBuf::new(&mut [0; 8])).is_pending());
    }

    /// Frames that were flushed one by one go out as one, when the connection is polled again; and that is seen to.
    #[test]
    fn what_was_flushed_goes_out_together_with_the_next_poll() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut gathered = Gathered::new(Picky { moods: [0].into(), ..Picky::default() });
        for _ in 0..10 {
            let slices = [IoSlice::new(b"head"), IoSlice::new(b"frame")];
            assert!(matches!(Pin::new(&mut gathered).poll_write_vectored(&mut cx, &slices), Poll::Ready(Ok(9))));
            assert!(Pin::new(&mut gathered).poll_flush(&mut cx).is_ready());
        }
        assert_eq!((woken.0.load(Relaxed), gathered.connection.writes), (1, 0));
        read(&mut gathered, &mut cx);
        // It had to wait, and was woken for that.
        assert_eq!((woken.0.load(Relaxed), gathered.connection.writes), (2, 0));
        read(&mut gathered, &mut cx);
        assert_eq!((gathered.connection.writes, &gathered.connection.taken[..]), (1, &b"headframe".repeat(10)[..]));
    }

    /// What was written and not flushed stays, and goes at the end.
    #[test]
    fn a_connection_that_is_shut_has_written_everything() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut gathered = Gathered::new(Picky::default());
        assert!(Pin::new(&mut gathered).poll_write(&mut cx, b"last").is_ready());
        read(&mut gathered, &mut cx);
        assert!(gathered.connection.taken.is_empty());
        assert!(Pin::new(&mut gathered).poll_shutdown(&mut cx).is_ready());
        assert_eq!((&gathered.connection.taken[..], gathered.connection.shut), (&b"last"[..], true));
    }

    proptest! {
        /// Whatever is written, in whatever pieces, and whatever the connection takes at once: the same bytes come out, and no more
        /// than the bound is held.
        #[test]
        fn bytes_keep_their_order(
            sizes in prop::collection::vec((0..3usize, 0..100_000usize), 1..60),
            moods in prop::collection::vec(0..200_000usize, 0..60),
        ) {
            let mut cx = Context::from_waker(Waker::noop());
            let mut gathered = Gathered::new(Picky { moods: moods.into(), ..Picky::default() });
            let mut sent = Vec::new();
            for (number, (then, size)) in sizes.into_iter().enumerate() {
                let bytes: Vec<u8> = (0..size).map(|at| (at * 7 + number) as u8).collect();
                let mut left = &bytes[..];
                while !left.is_empty() {
                    if let Poll::Ready(written) = Pin::new(&mut gathered).poll_write(&mut cx, left) {
                        left = &left[written.unwrap()..];
                    }
                    prop_assert!(gathered.held.capacity() <= GATHERED_BYTES);
                }
                sent.extend(bytes);
                if then > 0 {
                    prop_assert!(Pin::new(&mut gathered).poll_flush(&mut cx).is_ready());
                }
                if then > 1 {
                    read(&mut gathered, &mut cx);
                }
            }
            while Pin::new(&mut gathered).poll_shutdown(&mut cx).is_pending() {}
            prop_assert!(gathered.connection.taken == sent);
        }
    }
}
