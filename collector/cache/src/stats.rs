//! How it goes: hits of memory and Redis, misses, and how Redis answers; as JSON, and in Prometheus' text format.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// Latencies are of this span of time, or twice of it.
const RECENT: Duration = Duration::from_secs(60);

/// How Redis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// None is configured.
    Absent,
    /// It is asked.
    Up,
    /// It failed, and is not asked by anyone but a probe.
    Down,
}

impl State {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A count that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn one(&self) {
        self.more(1);
    }

    pub(crate) fn more(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What became of the look-ups of one cache.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    pub(crate) near: Count,
    pub(crate) far: Count,
    pub(crate) misses: Count,
    pub(crate) refreshes: Count,
    /// Invalidations from here, and from elsewhere.
    pub(crate) said: Count,
    pub(crate) heard: Count,
}

/// What became of the calls of Redis.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) answered: Count,
    /// No answer within the deadline.
    pub(crate) late: Count,
    pub(crate) failed: Count,
    /// Not asked: it is down, there are too many calls in flight, or it has not been told all yet.
    pub(crate) skipped: Count,
    pub(crate) written: Count,
    pub(crate) dropped: Count,
    pub(crate) connections: Count,
    times: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    since: Option<Instant>,
    now: Histogram<u32>,
    before: Histogram<u32>,
}

impl Default for Times {
    fn default() -> Self {
        let empty = || Histogram::new_with_bounds(1, 60_000_000, 2).expect("these bounds are good");
        Self { since: None, now: empty(), before: empty() }
    }
}

impl Calls {
    pub(crate) fn took(&self, time: Duration) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now - *times.since.get_or_insert(now) > RECENT {
            let Times { since, now: current, before } = &mut *times;
            *since = Some(now);
            std::mem::swap(current, before);
            current.reset();
        }
        times.now.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The times in which 50 and 99 of a hundred calls of the last minutes were done; none where there were none.
    pub(crate) fn p50_p99(&self) -> Option<(Duration, Duration)> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = times.before.clone();
        all.add(&times.now).ok()?;
        let at = |percent| Duration::from_micros(all.value_at_percentile(percent));
        (!all.is_empty()).then(|| (at(50.0), at(99.0)))
    }
}
