//! What was sent to Phoenix and not read back yet: a state machine without I/O and without a clock.
//!
//! Promise: a span is settled only if it was seen in Phoenix under its own trace, or was put aside; the place that the cursor may
//! move to is never behind an unsettled span. Spans are missing, as against late, if the connection broke since they were sent,
//! or if spans that were sent after them are there (Phoenix stores in the order in which it acknowledges), or if nothing was
//! heard of them for long. Only the last two are held against a span, and only three times.
//! Kept by: `tests`, against a Phoenix that is played.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use emberd_model::ledger::{Fate, Reason, Tally, project_of};
use emberd_model::{Offset, SpanId, TraceId, wire};
use tokio::time::Instant;

use super::load::{Load, Part};
use super::outline::Outline;

/// A span that Phoenix has this often not stored, while storing others, goes into quarantine.
const BLAME_MAX: u32 = 3;

/// Phoenix looks for work ten times a second; before that nobody need ask.
const SETTLE: Duration = Duration::from_millis(250);

/// With more spans than this waiting and none arriving, Phoenix does not store at all, and no span is to blame.
const IDLE_MAX: usize = 50;

/// Span ids remembered, to know a repeated one, whose presence proves nothing.
const RECENT_MAX: usize = 8_192;

/// A span that was sent.
#[derive(Debug)]
struct Sight {
    trace: TraceId,
    span: SpanId,
    project: Arc<str>,
    /// Where it lies: the part of the load, and the how-manieth span of that.
    part: usize,
    index: usize,
    /// Not sent before, as far as is known: its presence shows how far Phoenix has come.
    fresh: bool,
    /// How often it was missing and nobody else to blame.
    blamed: u32,
    /// How often it was found missing for want of better knowledge: each time it is waited for twice as long.
    waits: u32,
    state: State,
    /// What became of it, once it is settled.
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be sent (again).
    Outgoing,
    /// Acknowledged by Phoenix.
    Sent {
        at: Instant,
        /// Counts spans in the order in which they were sent.
        order: u64,
        /// How often the connection had broken by then.
        breaks: u64,
    },
    /// In Phoenix, or in quarantine.
    Settled,
}

/// A load and its spans.
#[derive(Debug)]
pub(super) struct Parcel {
    load: Load,
    sights: Vec<Sight>,
    open: usize,
    /// Where the cursor may move to once this parcel and all before it are settled.
    end: Offset,
    /// What became of spans up to there that are not in it.
    aside: Tally,
}

impl Parcel {
    pub(super) fn new(load: Load, end: Offset, aside: Tally) -> Self {
        let mut sights = Vec::with_capacity(load.spans as usize);
        for (number, part) in load.parts.iter().enumerate() {
            let mut project: (Option<u32>, Arc<str>) = (None, Arc::from(""));
            for (index, found) in wire::spans(&part.body).enumerate() {
                if project.0 != Some(found.resource.index) {
                    let name = project_of(&found.resource);
                    project = (Some(found.resource.index), name.into());
                }
                sights.push(Sight {
                    trace: found.span.trace_id,
                    span: found.span.span_id,
                    project: project.1.clone(),
                    part: number,
                    index,
                    fresh: true,
                    blamed: 0,
                    waits: 0,
                    state: State::Outgoing,
                    fate: Fate::Done,
                });
            }
        }
        Self { load, open: sights.len(), sights, end, aside }
    }

    pub(super) fn load(&self) -> &Load {
        &self.load
    }

    /// What became of all spans up to its end.
    fn tally(&self) -> Tally {
        let mut tally = self.aside.clone();
        for (number, part) in self.load.parts.iter().enumerate() {
            let mut left = part.accounts.spans();
            for sight in self.sights.iter().filter(|sight| sight.part == number) {
                if let Some(account) = part.accounts.at(sight.index as u64) {
                    tally.add(account, sight.fate.clone(), 1);
                    left -= 1;
                }
            }
            // Spans that cannot be read went out with the others, and nobody can look for them.
            let spans = part.accounts.spans();
            tally.merge(&part.accounts.slice(spans - left..spans).tally(&Fate::Done));
        }
        tally
    }

    fn offset(&self, sight: &Sight) -> Offset {
        self.load.parts[sight.part].first.plus(sight.index as u64)
    }

    fn are_neighbours(&self, a: Ref, b: Ref) -> bool {
        let (a, b) = (&self.sights[a.sight], &self.sights[b.sight]);
        a.part == b.part && a.index + 1 == b.index
    }

    /// Some spans of one part, mended whether or not the walk saw a reason.
    fn extracted(&self, first: usize, count: usize) -> Part {
        let sight = &self.sights[first];
        let part = &self.load.parts[sight.part];
        let outline = Outline::of(&part.body);
        let body = outline.framed(&part.body, sight.index..sight.index + count).into();
        let mended = emberd_phoenix::mend(&body).ok().filter(|mended| mended.unforwardable.is_empty());
        let body = mended.map_or(body, |mended| mended.body);
        let accounts = part.accounts.slice(sight.index as u64..(sight.index + count) as u64);
        Part { body, first: self.offset(sight), spans: count as u64, accounts }
    }
}

/// Names a span of the window, as long as it is in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ref {
    parcel: u64,
    sight: usize,
}

/// A span to be looked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) at: Ref,
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) project: Arc<str>,
}

/// What a look at Phoenix gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Spans that are there.
    pub(super) found: usize,
    /// The longest that one of them took.
    pub(super) slowest: Duration,
    /// Spans whose id Phoenix holds under another trace.
    pub(super) collided: Vec<Ref>,
    /// Spans that are missing because the connection broke.
    pub(super) lost: Vec<Ref>,
    /// Spans that are missing.
    pub(super) missing: Vec<Ref>,
}

/// The spans that are out.
#[derive(Debug)]
pub(super) struct Window {
    parcels: VecDeque<Parcel>,
    /// How many parcels have left the window.
    left: u64,
    waiting: usize,
    bytes: usize,
    order: u64,
    /// The order of the last sent of the fresh spans that are there.
    furthest: Option<u64>,
    last_found: Option<Instant>,
    recent: (HashSet<SpanId>, VecDeque<SpanId>),
    grace: Duration,
    idle_grace: Duration,
}

impl Window {
    pub(super) fn new(grace: Duration, idle_grace: Duration) -> Self {
        Self {
            parcels: VecDeque::new(),
            left: 0,
            waiting: 0,
            bytes: 0,
            order: 0,
            furthest: None,
            last_found: None,
            recent: Default::default(),
            grace,
            idle_grace,
        }
    }

    /// Spans that are not settled.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes that are kept in case they must be sent again.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in a parcel that Phoenix has acknowledged, but for the spans in `aside`.
    pub(super) fn sent(&mut self, mut parcel: Parcel, aside: &[(Offset, Reason)], breaks: u64, now: Instant) {
        for number in 0..parcel.sights.len() {
            let at = parcel.offset(&parcel.sights[number]);
            let sight = &mut parcel.sights[number];
            if let Some((_, reason)) = aside.iter().find(|(offset, _)| *offset == at) {
                sight.fate = Fate::Quarantined(reason.clone());
                sight.state = State::Settled;
                parcel.open -= 1;
                continue;
            }
            sight.fresh = self.recent.0.insert(sight.span);
            if sight.fresh {
                self.recent.1.push_back(sight.span);
            }
            sight.state = State::Sent { at: now, order: self.order, breaks };
            self.order += 1;
        }
        while self.recent.1.len() > RECENT_MAX {
            self.recent.1.pop_front().map(|span| self.recent.0.remove(&span));
        }
        self.waiting += parcel.open;
        self.bytes += parcel.load.bytes;
        self.parcels.push_back(parcel);
    }

    /// Spans that were sent again have been acknowledged, but for those in `aside`.
    pub(super) fn sent_again(&mut self, spans: &[Ref], aside: &[(Offset, Reason)], breaks: u64, now: Instant) {
        for &at in spans {
            let order = self.order;
            self.order += 1;
            let Some(parcel) = self.parcel(at) else { continue };
            let offset = parcel.offset(&parcel.sights[at.sight]);
            if let Some((_, reason)) = aside.iter().find(|(aside, _)| *aside == offset) {
                self.settle(at, Fate::Quarantined(reason.clone()));
            } else {
                parcel.sights[at.sight].state = State::Sent { at: now, order, breaks };
            }
        }
    }

    /// The oldest spans that are worth looking for, at most `max`.
    pub(super) fn wanted(&self, max: usize, now: Instant) -> Vec<Wanted> {
        let ripe = |sight: &Sight| matches!(sight.state, State::Sent { at, .. } if now.duration_since(at) >= SETTLE);
        let all = self.parcels.iter().zip(self.left..).flat_map(|(parcel, number)| {
            let sights = parcel.sights.iter().enumerate().filter(|(_, sight)| ripe(sight));
            sights.map(move |(index, sight)| (Ref { parcel: number, sight: index }, sight))
        });
        let wanted = |(at, sight): (Ref, &Sight)| {
            let (trace, span, project) = (sight.trace, sight.span, sight.project.clone());
            Wanted { at, trace, span, project }
        };
        all.take(max).map(wanted).collect()
    }

    /// Takes in what Phoenix holds of the spans that were looked for.
    pub(super) fn seen(
        &mut self,
        wanted: &[Wanted],
        held: &HashMap<SpanId, TraceId>,
        breaks: u64,
        now: Instant,
    ) -> Seen {
        let mut seen = Seen::default();
        let mut absent = Vec::new();
        for Wanted { at, trace, span, .. } in wanted {
            let Some(sight) = self.sight(*at) else { continue };
            let State::Sent { at: sent_at, order, .. } = sight.state else { continue };
            match held.get(span) {
                Some(under) if under == trace => {
                    let fresh = sight.fresh;
                    self.settle(*at, if fresh { Fate::Done } else { Fate::Duplicate });
                    self.last_found = Some(now);
                    if fresh {
                        self.furthest = self.furthest.max(Some(order));
                    }
                    seen.found += 1;
                    seen.slowest = seen.slowest.max(now.duration_since(sent_at));
                }
                Some(_) => seen.collided.push(*at),
                None => absent.push(*at),
            }
        }
        for at in absent {
            self.judge(at, breaks, now, &mut seen);
        }
        seen
    }

    /// Whether a span that is not there is late, lost or missing.
    fn judge(&mut self, at: Ref, breaks: u64, now: Instant, seen: &mut Seen) {
        let (grace, idle_grace, furthest) = (self.grace, self.idle_grace, self.furthest);
        let nothing_since = |sent_at| self.last_found.is_none_or(|found| found <= sent_at);
        let is_stalled = |sent_at| self.waiting > IDLE_MAX && nothing_since(sent_at);
        let Some(sight) = self.peek(at) else { return };
        let State::Sent { at: sent_at, order, breaks: breaks_then } = sight.state else { return };
        let waited = |grace: Duration| now.duration_since(sent_at) >= grace.saturating_mul(1 << sight.waits.min(8));
        let overtaken = furthest.is_some_and(|furthest| furthest > order);
        if breaks > breaks_then {
            seen.lost.push(at);
            return;
        }
        if overtaken && waited(grace) {
            seen.missing.push(at);
        } else if waited(idle_grace) {
            if is_stalled(sent_at) { seen.lost.push(at) } else { seen.missing.push(at) }
        } else {
            return;
        }
        if let Some(sight) = self.sight(at) {
            sight.waits += 1;
        }
    }

    /// Holds it against a span that it is missing; true if that is enough.
    pub(super) fn blame(&mut self, at: Ref) -> bool {
        self.sight(at).is_some_and(|sight| {
            sight.blamed += 1;
            sight.blamed >= BLAME_MAX
        })
    }

    /// This became of a span: it is in Phoenix, or in quarantine.
    pub(super) fn settle(&mut self, at: Ref, fate: Fate) {
        let Some(parcel) = self.parcel(at) else { return };
        let sight = &mut parcel.sights[at.sight];
        if sight.state != State::Settled {
            sight.state = State::Settled;
            sight.fate = fate;
            parcel.open -= 1;
            self.waiting -= 1;
        }
    }

    /// The span alone, as it was sent.
    pub(super) fn alone(&self, at: Ref) -> Option<Load> {
        let parcel = self.parcels.get(usize::try_from(at.parcel.checked_sub(self.left)?).ok()?)?;
        (at.sight < parcel.sights.len()).then(|| parcel.extracted(at.sight, 1).into())
    }

    /// The loads in which these spans go out again, of at most `spans_max` and about `bytes_max`. Those that were missing twice go
    /// alone: another span of their request may be the cause.
    pub(super) fn again(&mut self, mut spans: Vec<Ref>, spans_max: u64, bytes_max: usize) -> Vec<(Load, Vec<Ref>)> {
        spans.sort_unstable();
        let mut loads: Vec<(Load, Vec<Ref>)> = Vec::new();
        let mut alone = Vec::new();
        for of_parcel in spans.chunk_by(|a, b| a.parcel == b.parcel) {
            let Some(parcel) = self.parcel(of_parcel[0]) else { continue };
            let (together, suspects): (Vec<Ref>, Vec<Ref>) =
                of_parcel.iter().partition(|at| parcel.sights[at.sight].blamed < 2);
            for run in together.chunk_by(|a, b| parcel.are_neighbours(*a, *b)) {
                let part = parcel.extracted(run[0].sight, run.len());
                match loads.last_mut() {
                    Some((load, refs))
                        if load.spans + part.spans <= spans_max && load.bytes + part.body.len() <= bytes_max =>
                    {
                        load.push(part);
                        refs.extend_from_slice(run);
                    }
                    _ => loads.push((part.into(), run.to_vec())),
                }
            }
            alone.extend(suspects.into_iter().map(|at| (parcel.extracted(at.sight, 1).into(), vec![at])));
            for at in of_parcel {
                let sight = &mut parcel.sights[at.sight];
                sight.state = State::Outgoing;
            }
        }
        loads.extend(alone);
        loads
    }

    /// Lets settled parcels go; the place that the cursor may move to, if that is a new one, and what became of the spans on the way.
    pub(super) fn settled_to(&mut self) -> Option<(Offset, Tally)> {
        let mut to: Option<(Offset, Tally)> = None;
        while let Some(parcel) = self.parcels.pop_front_if(|parcel| parcel.open == 0) {
            self.left += 1;
            self.bytes -= parcel.load.bytes;
            let (end, tally) = to.get_or_insert_default();
            *end = parcel.end;
            tally.merge(&parcel.tally());
        }
        to
    }

    fn parcel(&mut self, at: Ref) -> Option<&mut Parcel> {
        self.parcels.get_mut(usize::try_from(at.parcel.checked_sub(self.left)?).ok()?)
    }

    fn sight(&mut self, at: Ref) -> Option<&mut Sight> {
        self.parcel(at)?.sights.get_mut(at.sight)
    }

    fn peek(&self, at: Ref) -> Option<&Sight> {
        self.parcels.get(usize::try_from(at.parcel.checked_sub(self.left)?).ok()?)?.sights.get(at.sight)
    }
}
