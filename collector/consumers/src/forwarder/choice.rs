//! Which traces an endpoint gets that cannot keep up for good.
//!
//! Promise: a trace is sent whole or not at all, as far as memory reaches ([`TRACES_MAX`] traces, over restarts): once decided, its later
//! spans follow. The share is the same trace by trace everywhere, for it is a function of the trace id ([`TraceId::chance`]).
//! What is left out is counted by the rule that left it out, and is in the log and all other consumers as ever.
//! Shape:   spans are noted as they are read ahead ([`Chooser::note`]), and decided when their batch is sent ([`Chooser::choose`]): what
//! a trace says within that stretch counts, what comes later finds it decided.
//! Not here: how far is read ahead (`feed.rs`).
//! Kept by: `tests`, `daemon/tests/it/choice.rs`.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use emberd_model::facts::Reading;
use emberd_model::ledger::{Fate, Reason, Runs, Tally};
use emberd_model::{Batch, Offset, TraceId, row, wire};
use tokio::time::Instant;

/// Traces whose decision is remembered.
pub const TRACES_MAX: usize = 100_000;
/// OTLP's status code of a span that failed.
const STATUS_ERROR: i32 = 2;
/// What waits must have become less than this part of what it was, for the endpoint to be taken to catch up.
const CATCHES_UP: f64 = 0.98;
/// From this part of the bound on traces are remembered, and what was left out for so long after the last choice.
const REMEMBERS_AT: f64 = 0.5;
const REMEMBERED: Duration = Duration::from_secs(3_600);
/// An endpoint that took nothing for so long is away.
const AWAY: Duration = Duration::from_secs(20);
/// When less than this part of the bound is taken, everything is sent again.
const RELIEVED: f64 = 0.8;

/// What an endpoint gets when it gets a choice.
#[derive(Clone, Debug)]
pub struct Config {
    /// The part of the log's disk budget that spans waiting for the endpoint may take before it gets a choice; 0: always a choice.
    pub pressed_at: f64,
    /// How long it must have taken as much, while the endpoint took spans: an endpoint that was away gets all that it missed, if it
    /// then catches up.
    pub pressed_after: Duration,
    /// Every trace in which a span failed.
    pub errors: bool,
    /// Every trace of which a span took at least this long.
    pub slow: Option<Duration>,
    /// Every trace of these prompts, as their spans name them.
    pub prompts: Vec<String>,
    /// This part of all traces.
    pub share: f64,
    /// And of all these no more traces than this for each second in which they were received; none: as many as there are.
    pub traces_per_second: Option<u32>,
    /// How prompts are named.
    pub reading: Reading,
}

/// What was decided about a trace. Their numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Sent = 0,
    /// Left out: it is not in the share, and nothing else speaks for it.
    Share = 1,
    /// Left out: the second was full.
    Rate = 2,
}

impl Verdict {
    fn of(number: u8) -> Option<Self> {
        [Self::Sent, Self::Share, Self::Rate].into_iter().find(|verdict| *verdict as u8 == number)
    }

    fn rule(self) -> Option<Reason> {
        match self {
            Self::Sent => None,
            Self::Share => Some(Reason::new("share")),
            Self::Rate => Some(Reason::new("traces_per_second")),
        }
    }
}

/// What the spans of a trace that are read ahead say.
#[derive(Clone, Copy, Debug, Default)]
struct Signs {
    speaks: bool,
    batches: u32,
}

/// Decides, and remembers.
#[derive(Debug)]
pub(super) struct Chooser {
    config: Config,
    pressed: bool,
    /// Since when the bound is passed and no way back is made.
    pressing: Option<Pressing>,
    /// Far from the bound, and nothing that was left out is remembered: nobody need look at spans.
    idle: bool,
    /// When the endpoint was pressed last, or this began.
    last_pressed: Instant,
    signs: HashMap<TraceId, Signs>,
    decided: HashMap<TraceId, Verdict>,
    /// The decided, oldest first.
    order: VecDeque<TraceId>,
    /// Decisions that are not stored yet.
    fresh: Vec<u8>,
    /// The second that is being filled, and with how many traces.
    second: (u64, u32),
}

/// The bound is passed.
#[derive(Clone, Copy, Debug)]
struct Pressing {
    since: Instant,
    /// What was taken then.
    taken: f64,
    /// How far the endpoint has come, and when it moved last.
    cursor: Offset,
    moved: Instant,
}

/// A batch's spans, after the choice.
pub(super) struct Chosen {
    /// Which are sent: from and to, in order.
    pub(super) sent: Vec<std::ops::Range<u64>>,
    /// What is said of the others.
    pub(super) shed: Tally,
}

impl Chooser {
    /// One that remembers what was stored: [`Chooser::stored`] first, then what [`Chooser::take_fresh`] gave.
    pub(super) fn new(config: Config, stored: &[Vec<u8>]) -> Self {
        let mut chooser = Self {
            pressed: config.pressed_at <= 0.0,
            pressing: None,
            idle: false,
            last_pressed: Instant::now(),
            config,
            signs: HashMap::new(),
            decided: HashMap::new(),
            order: VecDeque::new(),
            fresh: Vec::new(),
            second: (0, 0),
        };
        for decision in stored.iter().flat_map(|some| some.as_chunks::<17>().0) {
            let trace = TraceId(std::array::from_fn(|at| decision[at]));
            if let Some(verdict) = Verdict::of(decision[16]) {
                chooser.remember(trace, verdict);
            }
        }
        chooser.fresh.clear();
        chooser
    }

    /// All that is remembered.
    pub(super) fn stored(&self) -> Vec<u8> {
        self.order.iter().filter_map(|trace| Some((trace, *self.decided.get(trace)?))).flat_map(bytes).collect()
    }

    /// What was decided since the last call.
    pub(super) fn take_fresh(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.fresh)
    }

    /// What [`Chooser::take_fresh`] gave was not stored.
    pub(super) fn give_back(&mut self, fresh: &[u8]) {
        self.fresh.splice(0..0, fresh.iter().copied());
    }

    /// How much of the budget is taken by what waits, and how far the endpoint has come.
    pub(super) fn press(&mut self, taken: f64, cursor: Offset, now: Instant) {
        let bound = self.config.pressed_at;
        let pressed = bound <= 0.0
            || if self.pressed { taken >= bound * RELIEVED } else { self.is_to_be_pressed(taken, cursor, now) };
        if pressed != self.pressed {
            tracing::warn!(
                taken,
                bound,
                pressed,
                "the endpoint cannot keep up: it gets a choice of traces while pressed"
            );
        }
        self.pressed = pressed;
        if pressed {
            self.last_pressed = now;
        }
        self.rest(taken, now);
    }

    /// Far from the bound traces are not remembered: those that have begun by the time it is passed began long before. What was left
    /// out is remembered for an hour, for its late spans.
    fn rest(&mut self, taken: f64, now: Instant) {
        self.idle = !self.pressed
            && taken < self.config.pressed_at * REMEMBERS_AT
            && (self.decided.values().all(|verdict| *verdict == Verdict::Sent)
                || now.duration_since(self.last_pressed) >= REMEMBERED);
        if self.idle {
            (self.signs, self.decided, self.order) = Default::default();
        }
    }

    /// Whether nothing is to be noted or decided now.
    pub(super) fn is_idle(&self) -> bool {
        self.idle
    }

    fn is_to_be_pressed(&mut self, taken: f64, cursor: Offset, now: Instant) -> bool {
        if taken < self.config.pressed_at {
            self.pressing = None;
            return false;
        }
        let fresh = Pressing { since: now, taken, cursor, moved: now };
        let begun = self.pressing.get_or_insert(fresh);
        if begun.cursor != cursor {
            // An endpoint that was away shall not lose by it.
            let was_away = now.duration_since(begun.moved) > AWAY;
            *begun = if was_away { fresh } else { Pressing { cursor, moved: now, ..*begun } };
        }
        let after = self.config.pressed_after;
        if now.duration_since(begun.since) < after {
            return false;
        }
        let is_there = now.duration_since(begun.moved) <= AWAY || after.is_zero();
        // One that catches up shall get everything.
        let keeps_up = taken < begun.taken * CATCHES_UP;
        if is_there && !keeps_up {
            self.pressing = None;
            return true;
        }
        *begun = Pressing { since: now, taken, ..*begun };
        false
    }

    /// Whether the endpoint gets a choice now, for which it pays to read ahead.
    pub(super) fn is_pressed(&self) -> bool {
        self.pressed
    }

    /// Takes note of a batch that is read ahead.
    pub(super) fn note(&mut self, batch: &Batch) {
        let named = self.named(batch);
        let mut of_batch: HashMap<TraceId, bool> = HashMap::new();
        for found in wire::spans(&batch.body) {
            let span = &found.span;
            let slow = self
                .config
                .slow
                .is_some_and(|slow| u128::from(span.end.0.saturating_sub(span.start.0)) >= slow.as_nanos());
            let failed = self.config.errors && span.status_code == STATUS_ERROR;
            *of_batch.entry(span.trace_id).or_default() |= slow || failed || named.contains(&span.trace_id);
        }
        for (trace, speaks) in of_batch {
            let signs = self.signs.entry(trace).or_default();
            signs.speaks |= speaks;
            signs.batches += 1;
        }
    }

    /// The traces of a batch that name one of the prompts.
    fn named(&self, batch: &Batch) -> Vec<TraceId> {
        if self.config.prompts.is_empty() {
            return Vec::new();
        }
        row::traces_that_name([batch], &self.config.reading, |name| {
            self.config.prompts.iter().any(|known| known == name)
        })
    }

    /// Decides about a batch that was noted.
    pub(super) fn choose(&mut self, batch: &Batch, accounts: &Runs) -> Chosen {
        let mut chosen = Chosen { sent: Vec::new(), shed: Tally::default() };
        let mut last = None;
        let second = batch.received_at.0 / 1_000_000_000;
        let mut noted = Vec::new();
        let mut seen = 0;
        for (index, found) in (0..u64::from(batch.spans)).zip(wire::spans(&batch.body)) {
            seen = index + 1;
            let trace = found.span.trace_id;
            let verdict = match last {
                Some((known, verdict)) if known == trace => verdict,
                _ => self.verdict(trace, second),
            };
            last = Some((trace, verdict));
            noted.push(trace);
            match (verdict.rule(), chosen.sent.last_mut()) {
                (Some(rule), _) => {
                    if let Some(account) = accounts.at(index) {
                        chosen.shed.add(account, Fate::Shed(rule), 1);
                    }
                }
                (None, Some(run)) if run.end == index => run.end += 1,
                (None, _) => chosen.sent.push(index..index + 1),
            }
        }
        // Spans that cannot be read are the endpoint's to refuse.
        if seen < u64::from(batch.spans) {
            chosen.sent.push(seen..u64::from(batch.spans));
        }
        noted.sort_unstable();
        noted.dedup();
        noted.iter().for_each(|trace| self.forget_signs(trace));
        chosen
    }

    fn forget_signs(&mut self, trace: &TraceId) {
        if let Some(signs) = self.signs.get_mut(trace) {
            signs.batches = signs.batches.saturating_sub(1);
            if signs.batches == 0 {
                self.signs.remove(trace);
            }
        }
    }

    fn verdict(&mut self, trace: TraceId, second: u64) -> Verdict {
        if let Some(known) = self.decided.get(&trace) {
            return *known;
        }
        let verdict = if self.pressed { self.judge(trace, second) } else { Verdict::Sent };
        self.remember(trace, verdict);
        verdict
    }

    fn judge(&mut self, trace: TraceId, second: u64) -> Verdict {
        let speaks = self.signs.get(&trace).is_some_and(|signs| signs.speaks);
        if !speaks && !trace.is_in_share(self.config.share) {
            return Verdict::Share;
        }
        let Some(most) = self.config.traces_per_second else { return Verdict::Sent };
        if self.second.0 != second {
            self.second = (second, 0);
        }
        if self.second.1 >= most {
            return Verdict::Rate;
        }
        self.second.1 += 1;
        Verdict::Sent
    }

    fn remember(&mut self, trace: TraceId, verdict: Verdict) {
        if self.decided.insert(trace, verdict).is_none() {
            self.order.push_back(trace);
        }
        self.fresh.extend(bytes((&trace, verdict)));
        while self.order.len() > TRACES_MAX {
            self.order.pop_front().map(|oldest| self.decided.remove(&oldest));
        }
    }
}

fn bytes((trace, verdict): (&TraceId, Verdict)) -> [u8; 17] {
    let mut bytes = [verdict as u8; 17];
    bytes[..16].copy_from_slice(&trace.0);
    bytes
}

#[cfg(test)]
mod tests;
