//! What a transaction takes in grows with the load: a lone batch waits [`GATHER`] for others and makes a stretch; while much comes,
//! stretch is added to stretch for [`GROW`] or up to [`STRETCHES_MAX`], for a page of the database is written once for all of them.
//! Memory: the bodies of one stretch, and what all of them were folded to.

use std::time::Duration;

use emberd_log::{ReadError, Reader};
use emberd_model::Batch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long the first batch of a stretch waits for others.
pub(super) const GATHER: Duration = Duration::from_millis(60);
/// A stretch holds no more than about this, in bytes of requests: some five thousand spans.
pub(super) const BATCH_BYTES_MAX: usize = 8 << 20;

/// As much as this in a stretch, and more may be coming: some thousand spans a second.
const LOAD_BYTES: usize = 256 << 10;
/// How long stretches are added: with recording and publishing as long again, a dashboard is two seconds behind at most.
const GROW: Duration = Duration::from_millis(300);
/// Some two and a half thousand traces of ten spans: more would take more memory than it saves time (docs/decisions/0004-store.md).
const STRETCHES_MAX: usize = 5;

/// Whether so much came that more is worth waiting for.
pub(super) fn is_load(batches: &[Batch]) -> bool {
    batches.iter().map(|batch| batch.body.len()).sum::<usize>() >= LOAD_BYTES
}

/// Stretches that are taken together.
pub(super) struct Load {
    until: Instant,
    stretches: usize,
}

impl Load {
    /// From now on, one stretch being in hand.
    pub(super) fn begin() -> Self {
        Self { until: Instant::now() + GROW, stretches: 1 }
    }

    /// The next stretch; none if it is time to record. What cannot be read now is met again afterwards.
    pub(super) async fn more(&mut self, reader: &mut dyn Reader, stop: &CancellationToken) -> Option<Vec<Batch>> {
        if self.stretches >= STRETCHES_MAX {
            return None;
        }
        self.stretches += 1;
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            first = timeout_at(self.until, reader.next(BATCH_BYTES_MAX)) => first,
        };
        match first {
            Ok(Ok(first)) if !first.is_empty() => Some(fill(first, reader, stop).await),
            Ok(Err(ReadError::Damaged { from, .. })) => {
                reader.seek(from);
                None
            }
            Ok(Ok(_) | Err(_)) | Err(_) => None,
        }
    }
}

/// The rest of a stretch: what comes while a lone batch waits, up to the bound. What is in hand is never dropped for it.
pub(super) async fn fill(first: Vec<Batch>, reader: &mut dyn Reader, stop: &CancellationToken) -> Vec<Batch> {
    let mut batches = first;
    let mut bytes: usize = batches.iter().map(|batch| batch.body.len()).sum();
    let until = Instant::now() + GATHER;
    while bytes < BATCH_BYTES_MAX {
        let more = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            more = timeout_at(until, reader.next(BATCH_BYTES_MAX - bytes)) => more,
        };
        match more {
            Ok(Ok(more)) if !more.is_empty() => {
                bytes += more.iter().map(|batch| batch.body.len()).sum::<usize>();
                batches.extend(more);
            }
            // The reader stands past the damage already; it has to meet it again, when what is in hand is recorded.
            Ok(Err(ReadError::Damaged { from, .. })) => {
                reader.seek(from);
                break;
            }
            // Sealed, missed or time over: met again at the next call.
            Ok(Ok(_) | Err(_)) | Err(_) => break,
        }
    }
    batches
}
