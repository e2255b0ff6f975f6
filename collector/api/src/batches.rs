//! What requests leave to be written down, in batches.
//!
//! Promise: leaving something never waits; what is left beyond the queue's length is refused, and whoever left it decides what that means.
//! What is left before the end is written at the end, if the database is there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

const BATCH: usize = 1_000;
/// How long one waits for company.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a database is left alone that was not there.
const AGAIN: Duration = Duration::from_secs(2);

/// Things on their way into a table.
pub(crate) struct Batches<T> {
    queue: Sender<T>,
    waiting: Mutex<Receiver<T>>,
    dropped: AtomicU64,
}

/// What becomes of a batch while the database is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    /// It is counted and dropped.
    Drop,
    /// It waits, and the queue fills behind it.
    Wait,
}

impl<T: Clone + Send> Batches<T> {
    pub(crate) fn new(length: usize) -> Self {
        let (queue, waiting) = channel(length);
        Self { queue, waiting: Mutex::new(waiting), dropped: AtomicU64::new(0) }
    }

    /// Leaves one, or counts it as dropped.
    pub(crate) fn leave(&self, one: T) {
        if self.queue.try_send(one).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Leaves all of them, or, where there is no room for all, none.
    pub(crate) fn offer(&self, all: Vec<T>) -> bool {
        let Ok(places) = self.queue.try_reserve_many(all.len()) else { return false };
        for (place, one) in places.zip(all) {
            place.send(one);
        }
        true
    }

    /// How many were not written.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes what is left until `stop`, and then the rest.
    pub(crate) async fn run<W, F>(&self, stop: &CancellationToken, what: &str, away: Away, write: W)
    where
        W: Fn(Vec<T>) -> F,
        F: Future<Output = Result<(), emberd_store::Error>>,
    {
        let mut waiting = self.waiting.lock().await;
        loop {
            let mut batch = Vec::new();
            let is_last = tokio::select! {
                _ = waiting.recv_many(&mut batch, BATCH) => false,
                () = stop.cancelled() => true,
            };
            if !is_last {
                let _ = tokio::time::timeout(PAUSE, stop.cancelled()).await;
            }
            while (is_last || batch.len() < BATCH)
                && let Ok(one) = waiting.try_recv()
            {
                batch.push(one);
            }
            for batch in batch.chunks(BATCH) {
                while let Err(error) = write(batch.to_vec()).await {
                    let comes_back = matches!(error, emberd_store::Error::Unavailable { .. });
                    if comes_back && away == Away::Wait && !stop.is_cancelled() {
                        let _ = tokio::time::timeout(AGAIN, stop.cancelled()).await;
                        continue;
                    }
                    let count = batch.len() as u64;
                    self.dropped.fetch_add(count, Ordering::Relaxed);
                    tracing::warn!(%error, count, "{what} could not be written down");
                    break;
                }
            }
            if is_last {
                return;
            }
        }
    }
}
