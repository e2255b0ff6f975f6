//! How jobs go on, for whoever listens: every emberd tells of every job, whoever works on it.

use std::collections::HashMap;
use std::sync::Arc;

use emberd_store::Error;
use emberd_store::jobs::Progress;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::engine::Shared;

/// Events that a listener may lag behind; who lags more misses the oldest.
const EVENTS_MAX: usize = 1_024;

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The job.
    pub evaluation_id: Uuid,
    /// Whose evaluation it is.
    pub prompt_id: Uuid,
    /// pending, running, completed, failed, cancelled.
    pub status: String,
    /// Of its items.
    pub progress: Share,
    /// Once it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Value>,
}

impl Event {
    /// Whether nothing more happens, unless it is tried again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        ["completed", "failed", "cancelled"].contains(&self.status.as_str())
    }
}

/// How many of a job's items are over. An item is one example through one evaluator, or one run of the prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// With a result.
    pub done: i64,
    /// With an error.
    pub failed: i64,
    /// Without anything: the job was cancelled.
    pub cancelled: i64,
    /// Being worked on.
    pub running: i64,
    /// All there are.
    pub total: i64,
}

impl From<Progress> for Share {
    fn from(progress: Progress) -> Self {
        let Progress { blocked, waiting, leased, done, failed, cancelled } = progress;
        let total = blocked + waiting + leased + done + failed + cancelled;
        Self { done, failed, cancelled, running: leased, total }
    }
}

pub(crate) struct Events {
    sender: broadcast::Sender<Arc<Event>>,
    /// A job was made.
    pub(crate) created: Notify,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(EVENTS_MAX), created: Notify::new() }
    }
}

impl Events {
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.sender.subscribe()
    }

    /// Tells how far a job is, if anybody listens.
    pub(crate) async fn tell(&self, shared: &Shared, job: Uuid) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        match event(shared, job).await {
            // Nobody listens any more.
            Ok(Some(event)) => drop(self.sender.send(Arc::new(event))),
            Ok(None) => {}
            Err(error) => tracing::debug!(error = %shared.told(&error), %job, "progress could not be told"),
        }
    }
}

async fn event(shared: &Shared, job: Uuid) -> Result<Option<Event>, Error> {
    let Some(row) = shared.store.evaluation(job).await? else { return Ok(None) };
    let progress = shared.store.progress(job).await?.into();
    Ok(Some(Event { evaluation_id: job, prompt_id: row.prompt_id, status: row.status, progress, metrics: row.metrics }))
}

/// Tells of jobs that moved, and of those that are no longer open, until `stop`.
pub(crate) async fn run(shared: &Shared, stop: &CancellationToken) {
    let mut open = shared.open.subscribe();
    let mut known: HashMap<Uuid, i64> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = open.changed() => {}
        }
        let jobs = Arc::clone(&open.borrow_and_update());
        let now: HashMap<Uuid, i64> = jobs.iter().map(|job| (job.id, job.items_left)).collect();
        let moved = now.iter().filter(|(job, left)| known.get(job) != Some(left)).map(|(job, _)| *job);
        // Who closes a job tells of it too, with its metrics; this tells the others.
        let gone = known.keys().filter(|job| !now.contains_key(job)).copied();
        for job in moved.chain(gone).collect::<Vec<_>>() {
            shared.events.tell(shared, job).await;
        }
        known = now;
        // No more often than that, however often something is new.
        let _ = tokio::time::timeout(shared.config.poll / 2, stop.cancelled()).await;
    }
}
