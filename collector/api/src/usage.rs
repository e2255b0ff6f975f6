//! `api_usage_logs`: every call of the API, who, what, with which answer and how long, written in batches.
//!
//! Promise: noting a call never waits and never fails it; what is noted faster than it can be written is counted and dropped, beyond
//! [`QUEUE`] calls. What is noted before the end is written at the end, if the database is there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use emberd_identity::Caller;
use emberd_model::UnixNanos;
use emberd_store::Store;
use emberd_store::people::Used;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

const QUEUE: usize = 8_192;
const BATCH: usize = 1_000;
/// How long a call waits for company.
const PAUSE: Duration = Duration::from_secs(1);

/// A call of the API.
pub(crate) struct Call(Used);

impl Call {
    pub(crate) fn new(
        caller: &Caller,
        method: Method,
        path: String,
        status: StatusCode,
        took: Duration,
        at: UnixNanos,
    ) -> Self {
        Self(Used {
            user: caller.id().filter(|id| !id.is_nil()),
            method: method.to_string().chars().take(16).collect(),
            path,
            status: status.as_u16(),
            latency: took,
            at,
        })
    }
}

/// Calls on their way into the table.
pub(crate) struct Usage {
    queue: Sender<Call>,
    waiting: Mutex<Receiver<Call>>,
    dropped: AtomicU64,
}

impl Usage {
    pub(crate) fn new() -> Self {
        let (queue, waiting) = channel(QUEUE);
        Self { queue, waiting: Mutex::new(waiting), dropped: AtomicU64::new(0) }
    }

    pub(crate) fn note(&self, call: Call) {
        if self.queue.try_send(call).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Appends how many calls were not written, in Prometheus' text format.
    pub(crate) fn write(&self, out: &mut String) {
        const NAME: &str = "emberd_api_usage_dropped_total";
        let dropped = self.dropped.load(Ordering::Relaxed);
        out.push_str(&format!(
            "# HELP {NAME} Calls of the API that could not be written down.\n# TYPE {NAME} counter\n{NAME} {dropped}\n"
        ));
    }

    /// Writes calls until `stop`, and then what is left.
    pub(crate) async fn run(&self, store: &Store, stop: &CancellationToken) {
        let mut waiting = self.waiting.lock().await;
        loop {
            let mut batch = Vec::new();
            let is_last = tokio::select! {
                _ = waiting.recv_many(&mut batch, BATCH) => false,
                () = stop.cancelled() => true,
            };
            if is_last {
                while let Ok(call) = waiting.try_recv() {
                    batch.push(call);
                }
            } else {
                let _ = tokio::time::timeout(PAUSE, stop.cancelled()).await;
                while batch.len() < BATCH
                    && let Ok(call) = waiting.try_recv()
                {
                    batch.push(call);
                }
            }
            let count = batch.len() as u64;
            if count > 0
                && let Err(error) = store.put_usage(batch.into_iter().map(|Call(used)| used).collect()).await
            {
                self.dropped.fetch_add(count, Ordering::Relaxed);
                tracing::warn!(%error, count, "calls of the API could not be written down");
            }
            if is_last {
                return;
            }
        }
    }
}
