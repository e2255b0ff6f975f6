//! The state of a trace: what its spans have said so far, in whatever order, however often.
//!
//! Promise: [`TraceState::merge`] is commutative, associative and idempotent, so any permutation, split, merge or repetition of
//! the same spans gives the same state, and the same row. It stays within [`STATE_BYTES_MAX`]; what does not fit is dropped by a
//! rule that does not depend on the order either (see [`layer`]), roots and calls apart from the rest, and marked.
//! On disk:  version byte, marks, what was seen, times, then the layers links, roots, calls, names, and two texts; see `encode`.
//! Not here: what a span says ([`crate::facts`]), what the state means ([`crate::row`]).
//! Kept by:  `tests` (thousands of generated traces), `tests/rows.rs` (exports of real SDKs, permuted, cut and repeated).

mod layer;

use std::collections::{BTreeMap, HashMap};

use crate::facts::{Extract, Facts, Flag, Marks, Reading, ResourceFacts, Text, extract, is_clock_sane, take_text};
use crate::ledger::Origins;
use crate::varint::{self, Cursor};
use crate::wire::{self, Found};
use crate::{Batch, SpanId, TraceId, UnixNanos};
use layer::{Layer, NamedBy, Parent};

const VERSION: u8 = 1;

/// The most spans of one trace that are counted.
pub const SPANS_MAX: usize = 6_144;
/// The most bytes of an encoded state.
pub const STATE_BYTES_MAX: usize = 256 * 1024;

const LINKS_BYTES: usize = 16 * SPANS_MAX;
const ROOTS_BYTES: usize = 32 * 1024;
const CALLS_BYTES: usize = 80 * 1024;
const NAMES_BYTES: usize = 20 * 1024;

/// What is known of a trace: a set of span facts, merged by union.
///
/// A join-semilattice: `merge` is commutative, associative and idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TraceState {
    marks: Marks,
    seen: Seen,
    spread: Spread,
    /// Every span and its parent.
    links: Layer<SpanId, Parent, LINKS_BYTES>,
    /// Facts of spans without a parent, calls included.
    roots: Layer<SpanId, Box<[u8]>, ROOTS_BYTES>,
    /// Facts of LLM calls with a parent, without their texts.
    calls: Layer<SpanId, Box<[u8]>, CALLS_BYTES>,
    /// What other spans name; spans that name the same are one entry.
    names: Layer<Box<[u8]>, NamedBy, NAMES_BYTES>,
    /// What the first of `calls` was asked.
    input: Option<Said>,
    /// What the last of `calls` answered.
    output: Option<Said>,
}

/// What has come, whether or not it is still kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Seen(u8);

impl Seen {
    const ROOT: u8 = 1;
    const CALL: u8 = 1 << 1;
    const PROMPT: u8 = 1 << 2;
}

/// From the earliest start to the latest end; believable clocks before others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Spread {
    /// (is not believable, start), the least.
    first: Option<(bool, u64)>,
    /// (is believable, end), the greatest.
    last: Option<(bool, u64)>,
}

impl Spread {
    fn merge(&mut self, other: &Self) {
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
    }
}

/// What a call was asked or answered. The order of the fields is the order of preference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    is_json: bool,
    /// Start of the call for what was asked; for an answer, the time before the latest possible at which the call ended, so
    /// that for both the least is preferred.
    at: u64,
    span: SpanId,
    text: Box<str>,
}

fn first_said(one: Option<Said>, other: Option<Said>) -> Option<Said> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl TraceState {
    /// Takes in all that `other` knows; says whether that changed anything.
    pub fn merge(&mut self, other: &TraceState) -> bool {
        let before = (self.marks, self.seen, self.spread);
        self.marks.add(other.marks);
        self.seen.0 |= other.seen.0;
        self.spread.merge(&other.spread);
        let mut changed = before != (self.marks, self.seen, self.spread);
        changed |= self.links.merge(&other.links);
        changed |= self.roots.merge(&other.roots);
        changed |= self.calls.merge(&other.calls);
        changed |= self.names.merge(&other.names);
        for (own, theirs) in [(&mut self.input, &other.input), (&mut self.output, &other.output)] {
            if theirs.is_some() && (own.is_none() || *theirs < *own) {
                own.clone_from(theirs);
                changed = true;
            }
        }
        changed
    }

    /// Compact binary form, first byte a version. Equal states have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.push(VERSION);
        varint::put(&mut out, u64::from(self.marks.0));
        out.push(self.seen.0);
        for time in [self.spread.first, self.spread.last] {
            out.push(time.map_or(0, |(believable, _)| 1 + u8::from(believable)));
            if let Some((_, nanos)) = time {
                out.extend_from_slice(&nanos.to_le_bytes());
            }
        }
        self.links.encode(&mut out);
        self.roots.encode(&mut out);
        self.calls.encode(&mut out);
        self.names.encode(&mut out);
        for said in [&self.input, &self.output] {
            out.push(said.as_ref().map_or(0, |said| 1 + u8::from(said.is_json)));
            if let Some(said) = said {
                out.extend_from_slice(&said.at.to_le_bytes());
                out.extend_from_slice(&said.span.0);
                varint::put_bytes(&mut out, said.text.as_bytes());
            }
        }
        out
    }

    /// Reads [`TraceState::encode`]'s form; bounded by the length of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let mut cursor = Cursor(bytes);
        if cursor.byte() != Some(VERSION) {
            return Err(Undecodable("unknown version"));
        }
        let cursor = &mut cursor;
        let head = |cursor: &mut Cursor<'_>| {
            let marks = Marks(u16::try_from(cursor.number()?).ok()?);
            let seen = Seen(cursor.byte()?);
            Some((marks, seen, Spread { first: take_time(cursor)?, last: take_time(cursor)? }))
        };
        let cut_off = || Undecodable("it is cut off");
        let (marks, seen, spread) = head(cursor).ok_or_else(cut_off)?;
        let state = Self {
            marks,
            seen,
            spread,
            links: Layer::decode(cursor)?,
            roots: Layer::decode(cursor)?,
            calls: Layer::decode(cursor)?,
            names: Layer::decode(cursor)?,
            input: take_said(cursor).ok_or_else(cut_off)?,
            output: take_said(cursor).ok_or_else(cut_off)?,
        };
        if cursor.is_at_end() { Ok(state) } else { Err(Undecodable("something follows it")) }
    }

    /// Whether a root span has come.
    #[must_use]
    pub fn has_root(&self) -> bool {
        self.seen.0 & Seen::ROOT != 0
    }

    /// Whether the trace deserves a row: it has an LLM call or names a prompt.
    #[must_use]
    pub fn deserves_row(&self) -> bool {
        self.seen.0 & (Seen::CALL | Seen::PROMPT) != 0
    }

    /// How many of the spans of `other` have not come before. What was dropped for want of room counts as not come.
    #[must_use]
    pub fn unknown_of(&self, other: &TraceState) -> usize {
        other.links.entries().iter().filter(|entry| self.links.get(&entry.key).is_none()).count()
    }

    /// Whether spans were dropped for want of room, so that they can no longer be told apart.
    #[must_use]
    pub fn has_dropped_spans(&self) -> bool {
        self.links.is_capped()
    }

    /// How many spans have come; of a trace with more than [`SPANS_MAX`], those that are kept.
    #[must_use]
    pub fn spans(&self) -> usize {
        self.links.entries().len()
    }

    /// What had to be mended, or was dropped.
    pub(crate) fn marks(&self) -> Marks {
        let mut marks = self.marks;
        let conflict = self.links.has_conflict() || self.roots.has_conflict() || self.calls.has_conflict();
        marks.add_if(conflict, Marks::CONFLICT);
        let capped =
            self.links.is_capped() || self.roots.is_capped() || self.calls.is_capped() || self.names.is_capped();
        marks.add_if(capped, Marks::CAPPED);
        marks
    }

    /// Every span with its parent, by id.
    pub(crate) fn links(&self) -> impl ExactSizeIterator<Item = (SpanId, Option<SpanId>)> {
        self.links.entries().iter().map(|entry| (entry.key, parent_of(entry.value)))
    }

    /// A span's parent; none for a root, and for a span that is not kept.
    pub(crate) fn parent(&self, span: SpanId) -> Option<SpanId> {
        self.links.get(&span).copied().and_then(parent_of)
    }

    /// Facts of spans without a parent.
    pub(crate) fn roots(&self) -> impl Iterator<Item = (SpanId, Facts)> {
        self.roots.entries().iter().filter_map(|entry| Some((entry.key, Facts::decode(&entry.value)?)))
    }

    /// Facts of LLM calls, with a parent or without.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (SpanId, Facts)> {
        // One id may come both with and without a parent; without counts.
        let with_parent = self.calls.entries().iter().filter(|entry| self.roots.at(&entry.key).is_none());
        let facts = with_parent.filter_map(|entry| Some((entry.key, Facts::decode(&entry.value)?)));
        self.roots().filter(|(_, facts)| facts.has(Flag::Call)).chain(facts)
    }

    /// What spans that are neither root nor call name, and the earliest of those that do.
    pub(crate) fn names(&self) -> impl Iterator<Item = (SpanId, Facts)> {
        self.names.entries().iter().filter_map(|entry| {
            let mut facts = Facts::decode_names(&entry.key)?;
            facts.start = UnixNanos(entry.value.start);
            Some((entry.value.span, facts))
        })
    }

    /// The earliest start and the latest end.
    pub(crate) fn spread(&self) -> (u64, u64) {
        let first = self.spread.first.map_or(0, |(_, nanos)| nanos);
        (first, self.spread.last.map_or(first, |(_, nanos)| nanos))
    }

    /// What the first call that is no root was asked.
    pub(crate) fn input(&self) -> Option<&str> {
        self.input.as_ref().map(|said| &*said.text)
    }

    /// What the last call that is no root answered.
    pub(crate) fn output(&self) -> Option<&str> {
        self.output.as_ref().map(|said| &*said.text)
    }
}

fn parent_of(parent: Parent) -> Option<SpanId> {
    (parent.0 != SpanId::default()).then_some(parent.0)
}

fn take_time(cursor: &mut Cursor<'_>) -> Option<Option<(bool, u64)>> {
    match cursor.byte()? {
        0 => Some(None),
        flag @ (1 | 2) => Some(Some((flag == 2, u64::from_le_bytes(cursor.array()?)))),
        _ => None,
    }
}

fn take_said(cursor: &mut Cursor<'_>) -> Option<Option<Said>> {
    match cursor.byte()? {
        0 => Some(None),
        flag @ (1 | 2) => {
            let at = u64::from_le_bytes(cursor.array()?);
            let span = SpanId(cursor.array()?);
            let text = take_text(cursor)?.into();
            Some(Some(Said { is_json: flag == 2, at, span, text }))
        }
        _ => None,
    }
}

/// The stored state cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trace state: {0}")]
pub struct Undecodable(pub &'static str);

/// What a stretch of the log comes to.
#[derive(Clone, Debug, Default)]
pub struct Folded {
    /// One partial state per trace, sorted by trace id.
    pub states: BTreeMap<TraceId, TraceState>,
    /// Where their spans are booked.
    pub origins: Origins,
}

/// Folds batches into one partial state per trace, sorted by trace id.
///
/// Spans without a whole trace or span id are passed over; the door lets none in.
pub fn fold<'a>(batches: impl IntoIterator<Item = &'a Batch>, reading: &Reading) -> BTreeMap<TraceId, TraceState> {
    fold_and_count(batches, reading).states
}

/// The same, and which accounts the spans came under.
pub fn fold_and_count<'a>(batches: impl IntoIterator<Item = &'a Batch>, reading: &Reading) -> Folded {
    let mut traces: HashMap<TraceId, Gathered> = HashMap::new();
    let mut origins = Origins::default();
    for batch in batches {
        let mut resource = (u32::MAX, ResourceFacts::default());
        let mut counting = origins.begin(batch);
        for found in wire::spans(&batch.body) {
            if found.span.trace_id == TraceId::default() || found.span.span_id == SpanId::default() {
                counting.span(&found, None);
                continue;
            }
            counting.span(&found, Some(found.span.trace_id));
            if resource.0 != found.resource.index {
                resource = (found.resource.index, ResourceFacts::of(&found.resource, reading));
            }
            traces.entry(found.span.trace_id).or_default().take(&found, &resource.1, reading);
        }
        counting.end();
    }
    let states = traces.into_iter().map(|(trace, gathered)| (trace, gathered.settle())).collect();
    Folded { states, origins }
}

/// Spans of one trace before they are sorted into a state.
#[derive(Default)]
struct Gathered {
    /// All but the layers.
    state: TraceState,
    links: Vec<(SpanId, Parent)>,
    roots: Vec<(SpanId, Box<[u8]>)>,
    calls: Vec<(SpanId, Box<[u8]>)>,
    names: Vec<(Box<[u8]>, NamedBy)>,
}

impl Gathered {
    fn take(&mut self, found: &Found<'_>, resource: &ResourceFacts<'_>, reading: &Reading) {
        let span = &found.span;
        let parent = span.parent_span_id.filter(|&parent| parent != span.span_id);
        let state = &mut self.state;
        state.marks.add_if(parent != span.parent_span_id, Marks::SELF_PARENT);
        let is_sane = is_clock_sane(span.start, span.end);
        let spread =
            Spread { first: Some((!is_sane, span.start.0)), last: Some((is_sane, span.end.max(span.start).0)) };
        state.spread.merge(&spread);
        self.links.push((span.span_id, Parent(parent.unwrap_or_default())));

        let Extract { marks, facts, names, names_prompt } = extract(found, parent.is_none(), resource, reading);
        state.marks.add(marks);
        state.seen.0 |= if names_prompt { Seen::PROMPT } else { 0 };
        if let Some(names) = names {
            self.names.push((names, NamedBy { start: span.start.0, span: span.span_id }));
        }
        let Some(mut facts) = facts else { return };
        state.seen.0 |= if facts.has(Flag::Call) { Seen::CALL } else { 0 };
        if parent.is_none() {
            state.seen.0 |= Seen::ROOT;
            self.roots.push((span.span_id, facts.encode()));
            return;
        }
        let said = |text: Option<Box<str>>, is_json, at| Some(Said { is_json, at, span: span.span_id, text: text? });
        let input = said(facts.take_text(Text::Input), facts.has(Flag::InputIsJson), facts.start.0);
        let output = said(facts.take_text(Text::Output), facts.has(Flag::OutputIsJson), u64::MAX - facts.end.0);
        state.input = first_said(state.input.take(), input);
        state.output = first_said(state.output.take(), output);
        self.calls.push((span.span_id, facts.encode()));
    }

    fn settle(self) -> TraceState {
        TraceState {
            links: Layer::of(self.links),
            roots: Layer::of(self.roots),
            calls: Layer::of(self.calls),
            names: Layer::of(self.names),
            ..self.state
        }
    }
}

#[cfg(test)]
mod tests;
