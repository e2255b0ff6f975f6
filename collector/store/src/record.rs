//! What the recorder hands over, and what housekeeping does afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use emberd_model::cost::Prices;
use emberd_model::ledger::{Fate, Origins, Tally};
use emberd_model::trace::TraceState;
use emberd_model::{Offset, TraceId, UnixNanos};

use crate::told::Told;

/// Who writes: the log whose spans are recorded. Cursors and rollup rows belong to a writer, so that several emberds never
/// wait for each other's sketches, and an offset is never taken for another log's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer(Arc<str>);

impl Writer {
    /// The writer of this name: any text that is unique to the log and never changes, at best short.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A stretch of the log, folded: what [`crate::Store::record`] applies in one transaction.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Whose cursor moves; `recorder`, usually.
    pub consumer: String,
    /// Whose log it is.
    pub writer: Writer,
    /// Where the cursor must stand.
    pub from: Offset,
    /// Where it will stand. May equal `from`, to apply a part of a stretch first.
    pub to: Offset,
    /// Now: when its traces were last touched.
    pub now: UnixNanos,
    /// What the spans of the stretch say, by trace.
    pub states: BTreeMap<TraceId, TraceState>,
    /// Where the spans of those traces are booked.
    pub origins: Origins,
    /// What else became of spans, to be booked with them.
    pub booked: Tally,
    /// What is done with the tally that comes of both.
    pub booking: Booking,
    /// What tokens cost.
    pub prices: Arc<Prices>,
}

/// What is done with the tally of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Booking {
    /// It is written into the book, with the cursor.
    #[default]
    Write,
    /// It is only told, in [`Recorded::tally`]: the cursor does not move yet, and the spans may come again.
    Tell,
    /// It is written unless it was for this quarantined item; the cursor stays.
    Release(String),
}

/// What a recording did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// What became of its spans. Empty for an item that was released before.
    pub tally: Tally,
    /// Traces not heard of before.
    pub new: u64,
    /// Traces known, of which it knew something new.
    pub merged: u64,
    /// Traces of which it knew nothing new.
    pub unchanged: u64,
    /// Traces settled long ago, whose rows stand: what came for them is counted here and changes nothing.
    pub late: u64,
    /// Traces whose stored state cannot be read; treated as settled.
    pub unreadable: u64,
    /// Rows of `prompt_traces` written.
    pub rows: u64,
    /// How often the transaction was tried again, as another writer had touched one of its traces.
    pub retries: u32,
    /// The rows, for those who listen.
    pub(crate) told: Told,
}

impl Recording {
    /// Every account that its tally will have, as if all of its spans were new: what comes after it finds these places taken.
    #[must_use]
    pub fn at_most(&self) -> Tally {
        let mut tally = self.booked.clone();
        for trace in self.states.keys() {
            self.origins.book(*trace, u64::MAX, &Fate::Duplicate, &mut tally);
        }
        tally
    }
}

impl Recorded {
    pub(crate) fn add(&mut self, other: &Self) {
        self.tally.merge(&other.tally);
        self.new += other.new;
        self.merged += other.merged;
        self.unchanged += other.unchanged;
        self.late += other.late;
        self.unreadable += other.unreadable;
        self.rows += other.rows;
    }
}

/// Writes the rows of traces whose root did not come in time.
#[derive(Clone, Debug)]
pub struct Rootless {
    /// On whose account it is done; its own log's name.
    pub writer: Writer,
    /// Now.
    pub now: UnixNanos,
    /// How long a root is waited for, counted from the first batch with a span of the trace.
    pub wait: Duration,
    /// Traces to write at most.
    pub limit: u32,
    /// What tokens cost.
    pub prices: Arc<Prices>,
}

/// What a [`Rootless`] pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootlessDone {
    /// Rows written.
    pub written: u64,
    /// When the next trace's wait is over: at once if `limit` cut the pass short, none if no trace is without root.
    pub next: Option<UnixNanos>,
    /// The rows, for those who listen.
    pub(crate) told: Told,
}

/// What a [`crate::Store::publish`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Prompts whose metrics and totals were computed again.
    pub prompts: u64,
    /// Windows computed again.
    pub windows: u64,
    /// More is waiting: call again at once.
    pub more: bool,
}

/// What a [`crate::Store::settle`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// States dropped.
    pub traces: u64,
    /// More are waiting: call again.
    pub more: bool,
}

/// What a [`crate::Store::join_prompts`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Traces moved to the prompt that they name.
    pub traces: u64,
    /// More are waiting: call again.
    pub more: bool,
}
