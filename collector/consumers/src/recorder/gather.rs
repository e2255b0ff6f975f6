//! Micro-batches that grow with the load: a lone batch waits [`GATHER`] for others, a backlog fills [`BATCH_BYTES_MAX`].

use std::time::Duration;

use emberd_log::{ReadError, Reader};
use emberd_model::Batch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long the first batch of a micro-batch waits for others.
pub(super) const GATHER: Duration = Duration::from_millis(60);
/// A micro-batch holds no more than about this, in bytes of requests: some ten thousand spans, a second's work for a database.
pub(super) const BATCH_BYTES_MAX: usize = 8 << 20;

/// The rest of a micro-batch: what comes while a lone batch waits, up to the bound. What is in hand is never dropped for it.
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
