//! Ends of items, gathered, so that one transaction carries many.
//!
//! Promise: an end is tried until the database took it, said that the lease is another's, or refuses it; a value that it refuses costs its
//! own item a failure and no other.

use std::sync::Arc;
use std::time::Duration;

use emberd_store::Error;
use emberd_store::jobs::{End, Ended, Failure, Scored};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use crate::engine::Shared;
use crate::leases::Held;

/// Batches that wait to be written; more, and evaluators wait.
pub(crate) const QUEUE: usize = 256;
/// Targets in one transaction; more only in one batch.
const TARGETS_MAX: usize = 2_000;

/// Ends, with what was held for them.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) ended: Vec<Ended>,
    pub(crate) held: Vec<Held>,
    /// Another batch begins when these ends are written, so that no more of them are in memory than batches are allowed.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// Writes ends until `done`, and then what is left.
pub(crate) async fn write(shared: &Shared, queue: &mut Receiver<Ending>, done: &CancellationToken) {
    loop {
        let first = tokio::select! {
            first = queue.recv() => first,
            () = done.cancelled() => queue.try_recv().ok(),
        };
        let Some(Ending { mut ended, mut held, permit }) = first else { return };
        let mut permits = vec![permit];
        let mut targets: usize = ended.iter().map(|ended| ended.ends.len()).sum();
        while targets < TARGETS_MAX
            && let Ok(more) = queue.try_recv()
        {
            targets += more.ended.iter().map(|ended| ended.ends.len()).sum::<usize>();
            ended.extend(more.ended);
            held.extend(more.held);
            permits.push(more.permit);
        }
        end(shared, ended, done).await;
        drop((held, permits));
    }
}

async fn end(shared: &Shared, ended: Vec<Ended>, done: &CancellationToken) {
    let unblocks = ended.iter().any(|ended| ended.key.step == 0);
    let ended = Arc::new(ended);
    match shared.patiently(done, || shared.store.end(Arc::clone(&ended), shared.now())).await {
        Ok(_) => {}
        Err(Error::Unavailable { .. }) => {
            tracing::warn!(items = ended.len(), "stopped before the database took these ends")
        }
        Err(error) => {
            tracing::warn!(error = %shared.told(&error), items = ended.len(), "the database refuses ends: one by one");
            one_by_one(shared, Arc::unwrap_or_clone(ended)).await;
        }
    }
    if unblocks {
        shared.wake.notify_one();
    }
}

async fn one_by_one(shared: &Shared, ended: Vec<Ended>) {
    for mut one in ended {
        let key = one.key;
        if shared.store.end(vec![one.clone()], shared.now()).await.is_ok() {
            continue;
        }
        one.ends = match <[End; 1]>::try_from(one.ends) {
            Ok([end]) => vec![refused(end)],
            // Of one of them: parted, each is judged and ended by itself.
            Err(ends) => ends.iter().map(|_| End::Again { due: shared.now() }).collect(),
        };
        if let Err(error) = shared.store.end(vec![one], shared.now()).await {
            tracing::error!(error = %shared.told(&error), ?key, "an item cannot be ended");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What stands in place of an end that the database does not take.
fn refused(end: End) -> End {
    let End::Done { scores, .. } = end else { return end };
    let refused = |mut scored: Scored| {
        let message = "the database does not take this result".to_owned();
        scored.outcome = Err(Failure { class: "plugin_fault".to_owned(), message });
        scored.metadata = serde_json::json!({});
        scored
    };
    End::Failed { errors: scores.into_iter().map(refused).collect(), dependants: Vec::new() }
}
