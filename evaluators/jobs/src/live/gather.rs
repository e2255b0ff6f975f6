//! Gathers the spans of traces that some rule samples, until each is complete. Pure: it is told the time, and reads nothing.
//!
//! Promise: memory is bounded in bytes; beyond it what is decided already goes first, then what is large and old is shed. [`Gather::oldest`]
//! is where reading must begin again for nothing to be lost. What comes in any order, in any pieces, or twice, gathers to the same.
//! A trace is complete when its root came and it was quiet for [`Bounds::quiet_min`], or for as long as its service's spans are late
//! ([`Lateness`](super::lateness::Lateness)), or when a span says `emberd.trace.end`; without a root, after [`Bounds::quiet_max`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use emberd_model::wire::Found;
use emberd_model::{Offset, SpanId, TraceId, UnixNanos};

use super::lateness::Lateness;
use super::origin::{Origin, request};

/// What a span takes beside its bytes.
const SPAN_BYTES: usize = 200;
/// Traces that are remembered as settled, in each of two generations.
const SETTLED_MAX: usize = 65_536;
/// Says that nothing more comes.
const END: &str = "emberd.trace.end";

/// How long is waited, and how much is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) quiet_min: Duration,
    pub(super) quiet_max: Duration,
    /// How long a decided trace is held for late spans.
    pub(super) late: Duration,
    pub(super) bytes_max: usize,
}

/// A trace that is to be decided.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) trace: TraceId,
    /// Its spans, as one encoded request.
    pub(super) request: Bytes,
    pub(super) spans: usize,
    /// The place after its last span.
    pub(super) after: Offset,
    pub(super) has_root: bool,
    pub(super) last: UnixNanos,
}

/// What was found at a trace's first span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is gathered.
    Held,
    /// The same span again.
    Duplicate,
    /// Of a trace that is settled.
    Settled,
}

struct Kept {
    raw: Box<[u8]>,
    origin: Arc<Origin>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Something is new since it was last decided.
    Gathering,
    /// It is with the rules; whether something came since.
    Judging { is_changed: bool },
    /// Held for late spans.
    Decided(UnixNanos),
}

struct Open {
    first: Offset,
    after: Offset,
    spans: BTreeMap<SpanId, Kept>,
    bytes: usize,
    last: UnixNanos,
    began: UnixNanos,
    root_at: Option<UnixNanos>,
    is_ended: bool,
    service: Arc<str>,
    state: State,
}

/// All traces that are gathered.
pub(super) struct Gather {
    bounds: Bounds,
    open: HashMap<TraceId, Open>,
    bytes: usize,
    lateness: Lateness,
    /// Sampled out, shed, or decided so long ago that nothing more is expected.
    settled: [HashSet<TraceId>; 2],
}

impl Gather {
    pub(super) fn new(bounds: Bounds) -> Self {
        let settled = Default::default();
        Self { bounds, open: HashMap::new(), bytes: 0, lateness: Lateness::default(), settled }
    }

    pub(super) fn is_settled(&self, trace: TraceId) -> bool {
        self.settled.iter().any(|traces| traces.contains(&trace))
    }

    pub(super) fn is_open(&self, trace: TraceId) -> bool {
        self.open.contains_key(&trace)
    }

    /// Traces of which something is not decided yet, with how many spans they have.
    pub(super) fn undecided_traces(&self) -> impl Iterator<Item = (TraceId, usize)> {
        let gathering = self.open.iter().filter(|(_, open)| open.state == State::Gathering);
        gathering.map(|(trace, open)| (*trace, open.spans.len()))
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nothing more of it is gathered.
    pub(super) fn settle(&mut self, trace: TraceId) {
        if self.settled[0].len() >= SETTLED_MAX {
            self.settled.swap(0, 1);
            self.settled[0].clear();
        }
        self.settled[0].insert(trace);
        self.forget(trace);
    }

    fn forget(&mut self, trace: TraceId) {
        if let Some(open) = self.open.remove(&trace) {
            self.bytes -= open.bytes;
        }
    }

    /// Takes a span of the batch from `from` to `after`.
    pub(super) fn take(
        &mut self,
        found: &Found<'_>,
        origin: &Arc<Origin>,
        (from, after): (Offset, Offset),
        received: UnixNanos,
    ) -> Taken {
        let span = &found.span;
        if self.is_settled(span.trace_id) {
            return Taken::Settled;
        }
        let open = self.open.entry(span.trace_id).or_insert_with(|| Open {
            first: from,
            after,
            spans: BTreeMap::new(),
            bytes: 0,
            last: received,
            began: received,
            root_at: None,
            is_ended: false,
            service: Arc::clone(&origin.service),
            state: State::Gathering,
        });
        let before = open.bytes;
        if let Some(known) = open.spans.get(&span.span_id) {
            // Of two that differ the same one stays in whatever order they come.
            if rank(&known.raw) >= rank(span.raw) {
                return Taken::Duplicate;
            }
            open.bytes -= known.raw.len();
        } else {
            open.bytes += SPAN_BYTES;
        }
        open.bytes += span.raw.len();
        if !open.spans.values().next_back().is_some_and(|kept| Arc::ptr_eq(&kept.origin, origin)) {
            open.bytes += origin.encoded.len();
        }
        open.spans.insert(span.span_id, Kept { raw: span.raw.into(), origin: Arc::clone(origin) });
        open.first = open.first.min(from);
        open.after = open.after.max(after);
        open.last = open.last.max(received);
        if span.parent_span_id.is_none() && span.end.0 > 0 {
            open.root_at = Some(open.root_at.map_or(received, |at| at.min(received)));
            open.service = Arc::clone(&origin.service);
        }
        open.is_ended |= span.attributes().any(|attribute| attribute.key == END);
        let late = open.root_at.map_or(0, |at| received.0.saturating_sub(at.0));
        self.lateness.add(&open.service, Duration::from_nanos(late));
        open.state = match open.state {
            State::Judging { .. } => State::Judging { is_changed: true },
            State::Gathering | State::Decided(_) => State::Gathering,
        };
        self.bytes = self.bytes - before + open.bytes;
        Taken::Held
    }

    fn is_due(&self, open: &Open, now: UnixNanos) -> bool {
        let Bounds { quiet_min, quiet_max, .. } = self.bounds;
        if open.is_ended {
            return true;
        }
        let quiet = Duration::from_nanos(now.0.saturating_sub(open.last.0));
        let Some(root_at) = open.root_at else { return quiet >= quiet_max };
        let wait = self.lateness.of(&open.service).clamp(quiet_min, quiet_max);
        let since_root = Duration::from_nanos(now.0.saturating_sub(root_at.0));
        // Decided once, later spans do not come one by one.
        quiet >= wait || (since_root >= quiet_max && quiet >= quiet_min)
    }

    /// Traces that are complete, up to `max`, oldest first; they are with the rules until [`Gather::decided`]. Lets go of those that have been
    /// decided for long enough.
    pub(super) fn due(&mut self, now: UnixNanos, max: usize) -> Vec<Whole> {
        let (mut due, mut over) = (Vec::new(), Vec::new());
        for (trace, open) in &self.open {
            match open.state {
                State::Gathering if self.is_due(open, now) => due.push((open.first, *trace)),
                State::Decided(at) if now.0.saturating_sub(at.0) >= nanos(self.bounds.late) => over.push(*trace),
                State::Gathering | State::Judging { .. } | State::Decided(_) => {}
            }
        }
        over.into_iter().for_each(|trace| self.settle(trace));
        due.sort_unstable();
        due.truncate(max);
        due.into_iter().filter_map(|(_, trace)| self.whole(trace)).collect()
    }

    fn whole(&mut self, trace: TraceId) -> Option<Whole> {
        let open = self.open.get_mut(&trace)?;
        open.state = State::Judging { is_changed: false };
        let spans: Vec<_> = open.spans.values().map(|kept| (&*kept.origin, &*kept.raw)).collect();
        Some(Whole {
            trace,
            request: request(&spans),
            spans: spans.len(),
            after: open.after,
            has_root: open.root_at.is_some() || open.is_ended,
            last: open.last,
        })
    }

    /// The rules are done with it.
    pub(super) fn decided(&mut self, trace: TraceId, now: UnixNanos) {
        if let Some(open) = self.open.get_mut(&trace) {
            open.state = match open.state {
                State::Judging { is_changed: true } => State::Gathering,
                _ => State::Decided(now),
            };
        }
    }

    /// They could not decide it: again.
    pub(super) fn undecided(&mut self, trace: TraceId) {
        if let Some(open) = self.open.get_mut(&trace) {
            open.state = State::Gathering;
        }
    }

    /// Where reading must begin again, if not where it stands.
    pub(super) fn oldest(&self) -> Option<Offset> {
        self.open.values().map(|open| open.first).min()
    }

    /// Makes room: decided traces go, then the largest and oldest are shed, and named with how many spans they had.
    pub(super) fn shed(&mut self, now: UnixNanos) -> Vec<(TraceId, usize)> {
        let mut shed = Vec::new();
        if self.bytes <= self.bounds.bytes_max {
            return shed;
        }
        // Down to nine tenths, so that not every span sheds another trace.
        let enough = self.bounds.bytes_max - self.bounds.bytes_max / 10;
        let decided = self.open.iter().filter_map(|(trace, open)| match open.state {
            State::Decided(at) => Some((at, *trace)),
            State::Gathering | State::Judging { .. } => None,
        });
        let mut decided: Vec<_> = decided.collect();
        decided.sort_unstable();
        for (_, trace) in decided {
            if self.bytes <= enough {
                return shed;
            }
            self.settle(trace);
        }
        let weight = |open: &Open| (open.bytes as u128) * u128::from(now.0.saturating_sub(open.began.0).max(1));
        let gathering = self.open.iter().filter(|(_, open)| open.state == State::Gathering);
        let mut gathering: Vec<_> = gathering.map(|(trace, open)| (weight(open), *trace, open.spans.len())).collect();
        gathering.sort_unstable_by(|one, other| other.cmp(one));
        for (_, trace, spans) in gathering {
            if self.bytes <= enough {
                break;
            }
            self.settle(trace);
            shed.push((trace, spans));
        }
        shed
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn rank(raw: &[u8]) -> (usize, &[u8]) {
    (raw.len(), raw)
}
