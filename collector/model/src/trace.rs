//! The state of a trace: what its spans have said so far, in whatever order, however often.
//!
//! Promise: [`TraceState::merge`] is commutative, associative and idempotent, so any permutation, split, merge or repetition of
//! the same spans gives the same state, and the same row. It stays within [`STATE_BYTES_MAX`]; what does not fit is dropped by a
//! rule that does not depend on the order either (see [`layer`]), roots and calls apart from the rest, and marked.
//! On disk:  see [`stored`]; the first version, which is still read, see [`v1`].
//! Not here: what a span says ([`crate::facts`]), what the state means ([`crate::row`]).
//! Kept by:  `tests` (thousands of generated traces), `tests/rows.rs` (exports of real SDKs, permuted, cut and repeated).

mod layer;
mod stored;
mod v1;
pub(crate) mod words;

use std::collections::{BTreeMap, HashMap};

use crate::facts::{Facts, Marks, Reader, Reading, ResourceFacts, Text, is_clock_sane};
use crate::ledger::Origins;
use crate::wire::{self, Found};
use crate::{Batch, SpanId, TraceId};
use layer::{Entry, Layer, Parent};
use words::Words;

/// The most spans of one trace that are counted.
pub const SPANS_MAX: usize = 6_144;
/// The most bytes of an encoded state.
pub const STATE_BYTES_MAX: usize = 256 * 1024;

const LINKS_BYTES: usize = 16 * SPANS_MAX;
const ROOTS_BYTES: usize = 24 * 1024;
const CALLS_BYTES: usize = 64 * 1024;

/// What is known of a trace: a set of span facts, merged by union.
///
/// A join-semilattice: `merge` is commutative, associative and idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TraceState {
    /// What had to be mended in facts.
    marks: Marks,
    seen: Seen,
    spread: Spread,
    /// Every span and its parent.
    links: Layer<SpanId, Parent, LINKS_BYTES>,
    /// Facts of spans without a parent, calls included.
    roots: Layer<SpanId, Box<[u8]>, ROOTS_BYTES>,
    /// Facts of LLM calls with a parent.
    calls: Layer<SpanId, Box<[u8]>, CALLS_BYTES>,
    /// Whose it is, what went in and what came out.
    words: Box<Words<'static>>,
}

/// What has come, whether or not it is still kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Seen(u8);

impl Seen {
    const ROOT: u8 = 1;
    const CALL: u8 = 1 << 1;
    /// A prompt is named. Not told apart where a call has come, which says all that this is asked for.
    const PROMPT: u8 = 1 << 2;

    fn add(&mut self, other: u8) {
        self.0 |= other;
        if self.0 & Self::CALL != 0 {
            self.0 &= !Self::PROMPT;
        }
    }
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

impl TraceState {
    /// Takes in all that `other` knows; says whether that changed anything.
    pub fn merge(&mut self, other: &TraceState) -> bool {
        let before = (self.marks, self.seen, self.spread);
        self.marks.add(other.marks);
        self.seen.add(other.seen.0);
        self.spread.merge(&other.spread);
        let mut changed = before != (self.marks, self.seen, self.spread);
        changed |= self.links.merge(&other.links);
        changed |= self.roots.merge(&other.roots);
        changed |= self.calls.merge(&other.calls);
        changed |= self.words.merge(&other.words);
        changed
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
        let mut marks = self.marks.and(self.words.marks());
        let conflict = self.links.has_conflict() || self.roots.has_conflict() || self.calls.has_conflict();
        marks.add_if(conflict, Marks::CONFLICT);
        let capped = self.links.is_capped() || self.roots.is_capped() || self.calls.is_capped();
        marks.add_if(capped, Marks::CAPPED);
        marks
    }

    /// Every span with its parent, by id.
    pub(crate) fn links(&self) -> impl ExactSizeIterator<Item = (SpanId, Option<SpanId>)> {
        self.links.entries().iter().map(|entry| (entry.key, parent_of(entry.value)))
    }

    /// A span's place among [`TraceState::links`].
    pub(crate) fn place(&self, span: SpanId) -> Option<usize> {
        self.links.at(&span)
    }

    /// A span's parent; none for a root, and for a span that is not kept.
    pub(crate) fn parent(&self, span: SpanId) -> Option<SpanId> {
        self.links.get(&span).copied().and_then(parent_of)
    }

    /// Facts' bytes of spans without a parent.
    pub(crate) fn roots(&self) -> impl Iterator<Item = (SpanId, &[u8])> {
        self.roots.entries().iter().map(|entry| (entry.key, &*entry.value))
    }

    /// Facts' bytes of LLM calls, with a parent or without.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (SpanId, &[u8])> {
        // One id may come both with and without a parent; without counts.
        let with_parent = self.calls.entries().iter().filter(|entry| self.roots.at(&entry.key).is_none());
        let facts = with_parent.map(|entry| (entry.key, &*entry.value));
        self.roots().filter(|(_, facts)| Facts::are_of_call(facts)).chain(facts)
    }

    /// What the first span that says it says; of the prompt, without the version beside it.
    pub(crate) fn word(&self, text: Text) -> Option<&str> {
        let word = &*self.words.word(text)?.text;
        Some(match text {
            Text::PromptRef => word.split_once('\0').map_or(word, |(prompt, _)| prompt),
            _ => word,
        })
    }

    /// The version that the span says which names the prompt, else whichever is said first.
    pub(crate) fn prompt_version(&self) -> Option<&str> {
        let beside = self.words.word(Text::PromptRef).and_then(|word| word.text.split_once('\0'));
        beside.map(|(_, version)| version).or_else(|| self.word(Text::PromptVersion))
    }

    /// The earliest start and the latest end.
    pub(crate) fn spread(&self) -> (u64, u64) {
        let first = self.spread.first.map_or(0, |(_, nanos)| nanos);
        (first, self.spread.last.map_or(first, |(_, nanos)| nanos))
    }
}

fn parent_of(parent: Parent) -> Option<SpanId> {
    (parent.0 != SpanId::default()).then_some(parent.0)
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
    let mut traces = Traces::default();
    let mut origins = Origins::default();
    let mut reader = Reader::new(reading);
    for batch in batches {
        let mut resource = (u32::MAX, ResourceFacts::default());
        wire::fetch(&batch.body);
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
            traces.of(found.span.trace_id).take(&found, &resource.1, &mut reader);
        }
        counting.end();
    }
    Folded { states: traces.settle(), origins }
}

/// The traces of a fold. The next span is mostly of the same trace as the last.
#[derive(Default)]
struct Traces<'a> {
    gathered: Vec<(TraceId, Box<Gathered<'a>>)>,
    places: HashMap<TraceId, usize>,
}

impl<'a> Traces<'a> {
    fn of(&mut self, trace: TraceId) -> &mut Gathered<'a> {
        let last = self.gathered.len().wrapping_sub(1);
        let at = match self.gathered.last() {
            Some((known, _)) if *known == trace => last,
            _ => *self.places.entry(trace).or_insert_with(|| {
                self.gathered.push((trace, Box::default()));
                self.gathered.len() - 1
            }),
        };
        &mut self.gathered[at].1
    }

    fn settle(mut self) -> BTreeMap<TraceId, TraceState> {
        // In order, the map is built without comparing and moving states, which are large.
        self.gathered.sort_unstable_by_key(|(trace, _)| *trace);
        self.gathered.into_iter().map(|(trace, gathered)| (trace, gathered.settle())).collect()
    }
}

/// Spans of one trace before they are sorted into a state.
#[derive(Default)]
struct Gathered<'a> {
    marks: Marks,
    seen: Seen,
    spread: Spread,
    words: Words<'a>,
    links: Vec<Entry<SpanId, Parent>>,
    roots: Vec<Entry<SpanId, Box<[u8]>>>,
    calls: Vec<Entry<SpanId, Box<[u8]>>>,
}

impl<'a> Gathered<'a> {
    fn take(&mut self, found: &Found<'a>, resource: &ResourceFacts<'a>, reader: &mut Reader<'a, '_>) {
        let span = &found.span;
        let parent = span.parent_span_id.filter(|&parent| parent != span.span_id);
        self.marks.add_if(parent != span.parent_span_id, Marks::SELF_PARENT);
        let is_sane = is_clock_sane(span.start, span.end);
        let spread =
            Spread { first: Some((!is_sane, span.start.0)), last: Some((is_sane, span.end.max(span.start).0)) };
        self.spread.merge(&spread);
        self.links.push(Entry::new(span.span_id, Parent(parent.unwrap_or_default())));

        let extract = reader.extract(found, parent.is_none(), resource, &mut self.words);
        self.marks.add(extract.marks);
        let root = if parent.is_none() { Seen::ROOT } else { 0 };
        let call = if extract.is_call { Seen::CALL } else { 0 };
        let prompt = if extract.names_prompt { Seen::PROMPT } else { 0 };
        self.seen.add(root | call | prompt);
        if extract.has_facts {
            let layer = if parent.is_none() { &mut self.roots } else { &mut self.calls };
            layer.push(Entry::new(span.span_id, reader.facts().into()));
        }
    }

    fn settle(self) -> TraceState {
        TraceState {
            marks: self.marks,
            seen: self.seen,
            spread: self.spread,
            links: Layer::of(self.links),
            roots: Layer::of(self.roots),
            calls: Layer::of(self.calls),
            words: Box::new(self.words.into_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
