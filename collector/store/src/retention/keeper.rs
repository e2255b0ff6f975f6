//! Who goes through the tables from time to time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emberd_model::{Clock, UnixNanos};
use tokio_util::sync::CancellationToken;

use super::Table;
use crate::error::Error;
use crate::store::Store;

/// How long what is kept; what is not named is kept for ever.
pub type Kept = Vec<(Table, Duration)>;

/// Rows of the first batch, and bounds of the others.
const ROWS: std::ops::RangeInclusive<u32> = 10..=4_000;
const ROWS_FIRST: u32 = 500;
/// A batch that held its locks for longer is followed by one of half as many rows.
const HELD_MAX: Duration = Duration::from_millis(30);
/// The least pause between two batches.
const PAUSE: Duration = Duration::from_millis(20);
/// A pause is so many times as long as the batch before it took: the disk is there for those who write meanwhile.
const PAUSE_SHARE: u32 = 4;
/// How often the tables are gone through.
const EVERY: Duration = Duration::from_secs(600);
/// After the start, and after a pass that failed.
const SOON: Duration = Duration::from_secs(5);

/// What was deleted since the start.
#[derive(Debug, Default)]
pub struct Counts {
    deleted: [AtomicU64; Table::ALL.len()],
    batches: AtomicU64,
    held_max_micros: AtomicU64,
    /// Why the last pass failed; empty if it did not.
    failing: Mutex<String>,
}

impl Counts {
    /// Rows that went, by table; only of those of which any did.
    pub fn deleted(&self) -> impl Iterator<Item = (Table, u64)> {
        let counts = Table::ALL.iter().zip(&self.deleted).map(|(table, count)| (*table, count.load(Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }

    /// Batches.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    /// The longest that a batch held its locks.
    #[must_use]
    pub fn held_max(&self) -> Duration {
        Duration::from_micros(self.held_max_micros.load(Relaxed))
    }

    /// Why the last pass failed, if it did.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        (!failing.is_empty()).then(|| failing.clone())
    }

    fn failed(&self, why: String) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn counted(&self, table: Table, deleted: u64, held: Duration) {
        if let Some(at) = Table::ALL.iter().position(|of| *of == table) {
            self.deleted[at].fetch_add(deleted, Relaxed);
        }
        self.batches.fetch_add(1, Relaxed);
        self.held_max_micros.fetch_max(u64::try_from(held.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// How many rows at once: as many as went quickly.
struct Pace(u32);

impl Pace {
    fn took(&mut self, held: Duration) {
        let rows = if held > HELD_MAX { self.0 / 2 } else { self.0.saturating_add(self.0 / 4) };
        self.0 = rows.clamp(*ROWS.start(), *ROWS.end());
    }
}

/// Goes through the tables and deletes what is too old.
pub struct Keeper {
    store: Store,
    clock: Arc<dyn Clock>,
    kept: Kept,
    counts: Arc<Counts>,
}

impl Keeper {
    /// One that keeps what is named for so long.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, kept: Kept) -> Self {
        Self { store, clock, kept, counts: Arc::default() }
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut wait = SOON;
        while tokio::time::timeout(wait, stop.cancelled()).await.is_err() {
            wait = match self.pass(&stop).await {
                Ok(()) => {
                    self.counts.failed(String::new());
                    EVERY
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "what is too old stays for now");
                    self.counts.failed(error.to_string());
                    SOON * 6
                }
            };
        }
    }

    /// Goes through all tables once; ends early when it is to stop, or when another emberd is at it.
    pub async fn pass(&self, stop: &CancellationToken) -> Result<(), Error> {
        for (table, kept) in &self.kept {
            let now = self.clock.now();
            let kept = u64::try_from(kept.as_nanos()).unwrap_or(u64::MAX);
            if !self.table(*table, UnixNanos(now.0.saturating_sub(kept)), now, stop).await? {
                break;
            }
        }
        Ok(())
    }

    /// Deletes what is too old of one table; whether to go on with the next.
    async fn table(
        &self,
        table: Table,
        before: UnixNanos,
        now: UnixNanos,
        stop: &CancellationToken,
    ) -> Result<bool, Error> {
        let (mut pace, mut from, mut failed) = (Pace(ROWS_FIRST), None, 0);
        loop {
            if stop.is_cancelled() {
                return Ok(false);
            }
            let pause = match self.store.retain(table, before, now, pace.0, from.clone()).await {
                Ok(batch) if batch.busy => return Ok(false),
                Ok(batch) => {
                    self.counts.counted(table, batch.deleted, batch.held);
                    pace.took(batch.held);
                    failed = 0;
                    match batch.next {
                        None => return Ok(true),
                        Some(next) => from = Some(next),
                    }
                    (batch.held * PAUSE_SHARE).max(PAUSE)
                }
                // It waited for somebody, or took too long: a smaller one may not.
                Err(_) if failed < 8 => {
                    failed += 1;
                    pace.took(Duration::MAX);
                    PAUSE * (1 << failed)
                }
                Err(error) => return Err(error),
            };
            let _ = tokio::time::timeout(pause, stop.cancelled()).await;
        }
    }
}
