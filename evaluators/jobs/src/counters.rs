//! What this engine made and closed, for `phoenix_evaluations{status}` and `phoenix_evaluation_duration_seconds`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use emberd_model::UnixNanos;
use emberd_store::jobs::Outcome;

/// Upper bounds of the durations' buckets, seconds; above the last is one more.
pub const BOUNDS: [f64; 14] =
    [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 14_400.0];

/// Since the engine began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// Jobs that were made here.
    pub created: u64,
    /// Jobs that are open now, whoever works on them.
    pub running: u64,
    /// Jobs that were closed here, with results.
    pub completed: u64,
    /// Jobs that were closed here, without.
    pub failed: u64,
    /// Jobs that were cancelled here.
    pub cancelled: u64,
    /// From making to closing, of the jobs closed here.
    pub duration: Histogram,
}

/// Counts by bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// How many fell at or below each of [`BOUNDS`] and above the one before; the last: above all.
    pub counts: [u64; BOUNDS.len() + 1],
    /// Of all, seconds.
    pub sum: f64,
}

impl Histogram {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn add(&mut self, seconds: f64) {
        let place = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.counts[place] += 1;
        self.sum += seconds;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counting(Mutex<Counters>);

impl Counting {
    pub(crate) fn now(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn closed(&self, outcome: Outcome, created_at: UnixNanos, now: UnixNanos) {
        let mut counters = self.now();
        match outcome {
            Outcome::Completed => counters.completed += 1,
            Outcome::Failed => counters.failed += 1,
        }
        counters.duration.add(now.0.saturating_sub(created_at.0) as f64 / 1e9);
    }
}
