//! Settles what crashes left behind, and deletes what is too old.

use std::time::Duration;

use emberd_model::UnixNanos;
use emberd_store::Error;
use emberd_store::jobs::Purge;
use tokio_util::sync::CancellationToken;

use crate::engine::Shared;

/// Rows of a kind in one transaction.
const BATCH: u32 = 1_000;
/// How often what is too old is looked for.
const PURGE_EVERY: Duration = Duration::from_secs(600);

/// Cleans until `stop`.
pub(crate) async fn run(shared: &Shared, stop: &CancellationToken) {
    let every = (shared.config.lease / 2).max(Duration::from_millis(500));
    let mut since_purge = Duration::ZERO;
    while tokio::time::timeout(every, stop.cancelled()).await.is_err() {
        since_purge += every;
        let is_due = since_purge >= PURGE_EVERY;
        if is_due {
            since_purge = Duration::ZERO;
        }
        if let Err(error) = clean(shared, is_due, stop).await {
            tracing::warn!(error = %shared.told(&error), "cleaning up after evaluation jobs did not work");
        }
    }
}

async fn clean(shared: &Shared, is_purge_due: bool, stop: &CancellationToken) -> Result<(), Error> {
    while !stop.is_cancelled() && shared.store.release_stale(BATCH, shared.now()).await? == u64::from(BATCH) {}
    let before = |kept: Duration| {
        let kept = u64::try_from(kept.as_nanos()).unwrap_or(u64::MAX);
        Some(UnixNanos(shared.now().0.saturating_sub(kept)))
    };
    let purge = Purge {
        answers_before: before(shared.config.answers_kept),
        decisions_before: before(shared.config.decisions_kept),
    };
    while is_purge_due && !stop.is_cancelled() && shared.store.purge(purge, BATCH).await?.more {}
    Ok(())
}
