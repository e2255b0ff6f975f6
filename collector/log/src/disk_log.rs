//! The log in a directory.

use std::sync::Arc;
use std::time::Duration;

use emberd_model::{Clock, Offset};

use crate::config::Config;
use crate::disk::Disk;
use crate::error::{AppendError, OpenError, SegmentId};
use crate::log::{Appender, Appending, Entry, Log, Reader, Usage};

/// A log of segments in one directory.
#[derive(Debug)]
pub struct DiskLog {}

/// What was found when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// How many segments hold batches.
    pub segments: usize,
    /// Bytes of a last write that was cut off before anyone was told that it was durable; they are gone.
    pub torn_bytes: u64,
    /// Spans that were acked and cannot be read any more, as far as was looked: the last segment, and gaps between segments.
    pub damaged: Vec<Damage>,
    /// Files that are not the log's; they are left alone.
    pub unknown: Vec<String>,
    /// Where the next batch begins.
    pub head: Offset,
    /// The oldest place that can be read.
    pub tail: Offset,
    /// How long it took.
    pub took: Duration,
}

/// Spans that were acked and are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment they were in, or the one before the gap where whole segments are missing.
    pub segment: SegmentId,
    /// The first damaged byte in the segment's file.
    pub at: u64,
    /// The first span lost.
    pub from: Offset,
    /// The first span after the loss.
    pub to: Offset,
}

impl DiskLog {
    /// Opens the log, recovering what a crash left.
    pub fn open(config: Config, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Result<(Arc<Self>, Recovery), OpenError> {
        let _ = (disk, clock);
        Err(OpenError::BudgetTooSmall { budget_bytes: config.budget_bytes, min_bytes: u64::MAX })
    }

    /// Declares a consumer and where it stands. Until it has passed a batch, that batch stays.
    ///
    /// Register every consumer right after opening, before the first append.
    pub fn register(&self, consumer: &str, cursor: Offset) {
        self.passed(consumer, cursor);
    }

    /// Takes no more appends, waits for those inside, and ends the log's threads. Readers then come to an end.
    pub async fn seal(&self) {}

    /// Whether a write or sync failed; then nothing more is taken and the process must end.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        false
    }

    /// Resolves when a write or sync has failed, with what the appends were told.
    pub async fn failed(&self) -> AppendError {
        std::future::pending().await
    }
}

impl Appender for DiskLog {
    fn append(&self, _entry: Entry) -> Appending {
        Box::pin(std::future::ready(Err(AppendError::Stopping)))
    }
}

impl Log for DiskLog {
    fn reader(&self, _from: Offset) -> Box<dyn Reader> {
        unreachable!("no log can be opened yet")
    }

    fn head(&self) -> Offset {
        Offset(0)
    }

    fn tail(&self) -> Offset {
        Offset(0)
    }

    fn used(&self) -> Usage {
        Usage::default()
    }

    fn passed(&self, _consumer: &str, _cursor: Offset) {}
}
