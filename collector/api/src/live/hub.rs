//! Where events meet sockets: each event goes to all who listen, and is kept for a while for those who were away.
//!
//! Promise: at most [`PAST_MAX`] events of [`PAST_TIME`] are kept; whoever comes back with the last event that it heard gets what came
//! after, in order and without a gap to what comes next, or is told that something may be missing. Telling waits for nobody: who lags
//! more than [`BATCHES_MAX`] batches behind misses the oldest, and hears that it did.
//! Kept by: `tests` below.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, watch};

use super::event::{Event, Id};

/// How long events are kept, and for how long after the last socket left they are still gathered.
pub(crate) const PAST_TIME: Duration = Duration::from_secs(120);
const PAST_MAX: usize = 10_000;
/// Batches that a socket may lag behind.
const BATCHES_MAX: usize = 128;
/// Clocks of emberds differ, and what they tell each other takes time: where an event is not known by its name, it is looked for by its
/// time, so much earlier.
const SKEW_MICROS: u64 = 2_000_000;

/// Events that are told together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Arc<Event>>,
    /// So many were left out here, for they came too fast.
    pub(crate) skipped: u64,
}

#[derive(Default)]
struct Past {
    events: VecDeque<Arc<Event>>,
    /// From when on every event is in `events`; none: nothing is gathered.
    whole_since: Option<u64>,
}

/// What a socket begins with.
pub(crate) struct Joined {
    /// What came while it was away.
    pub(crate) missed: Vec<Arc<Event>>,
    /// Something may be missing between the last that it heard and these.
    pub(crate) is_gap: bool,
    /// What comes.
    pub(crate) next: broadcast::Receiver<Arc<Batch>>,
}

pub(crate) struct Hub {
    past: Mutex<Past>,
    out: broadcast::Sender<Arc<Batch>>,
    sockets: watch::Sender<usize>,
    pub(crate) told: AtomicU64,
    pub(crate) lagged: AtomicU64,
    pub(crate) skipped: AtomicU64,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            past: Mutex::default(),
            out: broadcast::Sender::new(BATCHES_MAX),
            sockets: watch::Sender::new(0),
            told: AtomicU64::new(0),
            lagged: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sockets listen.
    pub(crate) fn sockets(&self) -> &watch::Sender<usize> {
        &self.sockets
    }

    /// Events are gathered from now on.
    pub(crate) fn begin(&self, now: u64) {
        self.past().whole_since.get_or_insert(now);
    }

    /// No longer.
    pub(crate) fn end(&self) {
        *self.past() = Past::default();
    }

    /// Something was not gathered: what is there is whole only from now on.
    pub(crate) fn gap(&self, now: u64) {
        let mut past = self.past();
        past.whole_since = past.whole_since.map(|since| since.max(now));
    }

    /// Tells a batch.
    pub(crate) fn tell(&self, batch: Batch, now: u64) {
        let mut past = self.past();
        if batch.skipped > 0 {
            self.skipped.fetch_add(batch.skipped, Ordering::Relaxed);
            past.whole_since = past.whole_since.map(|since| since.max(now));
        }
        past.events.extend(batch.events.iter().cloned());
        past.forget(now);
        // Under the lock, so that who joins has each event in `missed` or in `next`, and in one of them only. Nobody may listen.
        let _ = self.out.send(Arc::new(batch));
    }

    /// Joins; `last` is the last event that was heard.
    pub(crate) fn join(&self, last: Option<Id>) -> Joined {
        let past = self.past();
        let next = self.out.subscribe();
        let Some(last) = last else { return Joined { missed: Vec::new(), is_gap: false, next } };
        if let Some(at) = past.events.iter().rposition(|event| event.id == last) {
            let is_gap = past.whole_since.is_none_or(|since| since > last.at);
            return Joined { missed: past.events.range(at + 1..).cloned().collect(), is_gap, next };
        }
        let from = last.at.saturating_sub(SKEW_MICROS);
        let missed = past.events.iter().filter(|event| event.id.at >= from).cloned().collect();
        Joined { missed, is_gap: past.whole_since.is_none_or(|since| since > from), next }
    }
}

impl Past {
    fn forget(&mut self, now: u64) {
        let before = now.saturating_sub(PAST_TIME.as_micros() as u64);
        while let Some(oldest) = self.events.front()
            && (oldest.id.at < before || self.events.len() > PAST_MAX)
        {
            let gone = oldest.id.at + 1;
            self.whole_since = self.whole_since.map(|since| since.max(gone));
            self.events.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::live::event::Kind;

    fn event(at: u64, origin: u32, nr: u64) -> Arc<Event> {
        let id = Id { at, origin, nr };
        Arc::new(Event { id, kind: Kind::Trace, prompt: Uuid::nil(), body: json!({"eventId": id.to_string()}) })
    }

    fn batch(events: &[&Arc<Event>]) -> Batch {
        Batch { events: events.iter().map(|event| Arc::clone(event)).collect(), skipped: 0 }
    }

    const SECOND: u64 = 1_000_000;

    #[test]
    fn who_comes_back_hears_what_came_after_the_last_it_heard() {
        let hub = Hub::new();
        hub.begin(0);
        let all: Vec<_> = (0..5).map(|nr| event(100 * SECOND + nr, 7, nr)).collect();
        hub.tell(batch(&[&all[0], &all[1]]), 100 * SECOND);
        hub.tell(batch(&[&all[2]]), 100 * SECOND);
        let mut joined = hub.join(Some(all[0].id));
        assert_eq!((joined.missed.as_slice(), joined.is_gap), (&all[1..3], false));
        hub.tell(batch(&[&all[3]]), 101 * SECOND);
        assert_eq!(joined.next.try_recv().unwrap().events, vec![Arc::clone(&all[3])]);
        assert!(hub.join(None).missed.is_empty(), "a new one begins with what comes");
    }

    #[test]
    fn an_event_of_another_emberd_is_found_by_its_time() {
        let hub = Hub::new();
        hub.begin(50 * SECOND);
        let (old, new) = (event(60 * SECOND, 7, 0), event(100 * SECOND, 7, 1));
        hub.tell(batch(&[&old, &new]), 100 * SECOND);
        let unknown = Id { at: 99 * SECOND, origin: 8, nr: 3 };
        let joined = hub.join(Some(unknown));
        assert_eq!((joined.missed, joined.is_gap), (vec![new], false));
        let joined = hub.join(Some(Id { at: 51 * SECOND, ..unknown }));
        assert_eq!((joined.missed.len(), joined.is_gap), (2, true), "not all of that time was gathered here");
    }

    #[test]
    fn what_is_forgotten_or_skipped_is_told_as_a_gap() {
        let hub = Hub::new();
        hub.begin(0);
        let first = event(SECOND, 7, 0);
        hub.tell(batch(&[&first]), SECOND);
        assert!(!hub.join(Some(Id { at: 3 * SECOND, origin: 1, nr: 0 })).is_gap);
        hub.tell(Batch { events: Vec::new(), skipped: 3 }, 2 * SECOND);
        assert!(hub.join(Some(first.id)).is_gap);
        let many: Vec<_> = (0..PAST_MAX as u64 + 1).map(|nr| event(3 * SECOND + nr, 7, nr + 1)).collect();
        hub.tell(Batch { events: many.clone(), skipped: 0 }, 4 * SECOND);
        let joined = hub.join(Some(many[1].id));
        assert_eq!((joined.missed.len(), joined.is_gap), (PAST_MAX - 1, false));
        assert!(hub.join(Some(many[0].id)).is_gap);
        hub.tell(batch(&[&event(400 * SECOND, 7, 99_999)]), 400 * SECOND);
        assert_eq!(hub.past().events.len(), 1, "the old ones are forgotten");
        hub.end();
        assert!(hub.join(Some(many[1].id)).is_gap);
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = Id { at: 1_764_139_200_123_456, origin: 0xab, nr: 17 };
        assert_eq!(id.to_string(), "1764139200123456-000000ab-17");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "1", "1-2", "1-g-3", "1-2-", "-1-2-3", "1-2-3-4", "99999999999999999999-1-1"] {
            assert_eq!(bad.parse::<Id>(), Err(()), "{bad}");
        }
    }
}
