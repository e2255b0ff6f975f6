//! A batch on its way into the log, counted once its fate is known, whether or not the client waits for it.
//!
//! Promise: the bytes stay paid for, and the spans are counted as accepted or refused, when the log has decided; a client that
//! leaves, or a deadline that passes, changes neither.
//! Not here: what the client hears (`export`).
//! Kept by: `tests/it/books.rs`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use emberd_log::{AppendError, Appending};
use emberd_model::Offset;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::counters::{Counters, Transport};
use crate::in_flight::Held;
use crate::refusal::Refusal;

/// An append that someone waits for. Dropped before it is decided, it goes to the [`Strays`].
pub(crate) struct Append {
    pending: Option<Pending>,
    strays: mpsc::UnboundedSender<Pending>,
}

/// An append, and what is to be counted and given back after it.
pub(crate) struct Pending {
    pub(crate) appending: Appending,
    pub(crate) _held: Held,
    pub(crate) spans: u32,
    pub(crate) transport: Transport,
    pub(crate) counters: Arc<Counters>,
}

impl Append {
    pub(crate) fn new(pending: Pending, strays: mpsc::UnboundedSender<Pending>) -> Self {
        Self { pending: Some(pending), strays }
    }
}

impl Future for Append {
    type Output = Result<Offset, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(pending) = &mut self.pending else { return Poll::Pending };
        let decided = ready!(Pin::new(pending).poll(cx));
        self.pending = None;
        Poll::Ready(decided)
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            pending.counters.stray_spans(pending.spans);
            // Nobody receives any more when the doors are closed for good; then nobody counts either.
            let _ = self.strays.send(pending);
        }
    }
}

impl Future for Pending {
    type Output = Result<Offset, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let decided = ready!(self.appending.as_mut().poll(cx));
        match &decided {
            Ok(_) => self.counters.accepted_spans(self.transport, self.spans),
            Err(error) => {
                let reason = Refusal::from(error).verdict().reason;
                self.counters.refused_spans(self.transport, reason, self.spans);
            }
        }
        Poll::Ready(decided)
    }
}

/// Appends whose clients have left. Each holds a share of the bytes in flight, which bounds how many there can be.
pub(crate) struct Strays {
    come: mpsc::UnboundedReceiver<Pending>,
    inside: FuturesUnordered<Pending>,
}

impl Strays {
    pub(crate) fn new() -> (mpsc::UnboundedSender<Pending>, Self) {
        let (send, come) = mpsc::unbounded_channel();
        (send, Self { come, inside: FuturesUnordered::new() })
    }

    /// Sees appends to their end while `work` goes on.
    pub(crate) async fn run_until<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(stray) = self.come.recv() => self.inside.push(stray),
                Some(_decided) = self.inside.next(), if !self.inside.is_empty() => {}
            }
        }
    }

    /// Sees those that are left to their end.
    pub(crate) async fn finish(&mut self) {
        loop {
            while let Ok(stray) = self.come.try_recv() {
                self.inside.push(stray);
            }
            if self.inside.next().await.is_none() {
                return;
            }
        }
    }

    /// How many are not decided yet.
    pub(crate) fn undecided(&self) -> usize {
        self.inside.len() + self.come.len()
    }
}
