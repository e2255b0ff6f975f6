//! The distinct LLM calls of a trace: no call twice, however many spans tell of it.
//!
//! - A call above another call is a wrapper of it, through any chain of parents: the inner one counts.
//! - Two instrumentations may see one call side by side: spans of different emitters that name one model, mostly overlap in
//!   time, and have one response id or else the same parent and tokens, tell of one call. Parallel calls seen twice stay as many as one
//!   instrumentation saw.
//! - Where the span that counts does not know its tokens or model, those of its wrapper or double are taken, once.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::tree::Tree;
use crate::SpanId;
use crate::cost::Usage;
use crate::facts::{Emitter, Facts, Flag, Text};
use crate::trace::TraceState;

/// An LLM call.
pub(super) struct Call<'a> {
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) facts: Facts<'a>,
}

impl Call<'_> {
    pub(super) fn failed(&self) -> bool {
        self.facts.has(Flag::Failed)
    }

    /// The model that answered; of a failed call, the one that was asked.
    pub(super) fn model(&self) -> Option<&str> {
        let (answered, asked) = (self.facts.text(Text::Model), self.facts.text(Text::RequestModel));
        if self.failed() { asked.or(answered) } else { answered.or(asked) }
    }

    /// The model that was asked.
    pub(super) fn request_model(&self) -> Option<&str> {
        self.facts.text(Text::RequestModel).or(self.facts.text(Text::Model))
    }

    fn order(&self) -> (u64, u64, SpanId) {
        (self.facts.start.0, self.facts.end.0, self.id)
    }
}

/// The distinct calls, in order of start, end and id.
pub(super) fn distinct<'a>(state: &'a TraceState, tree: &Tree<'_>) -> Vec<Call<'a>> {
    // Ordered before they are read: facts are much larger than what orders them.
    let ordered = |(id, facts): (SpanId, &'a [u8])| Some((Facts::times(facts)?, id, facts));
    let mut bytes: Vec<_> = state.calls().filter_map(ordered).collect();
    bytes.sort_unstable_by_key(|(times, id, _)| (*times, *id));
    let read = |(_, id, facts)| Some(Call { id, parent: state.parent(id), facts: Facts::decode(facts)? });
    let mut all: Vec<Call<'a>> = bytes.into_iter().filter_map(read).collect();
    let ids: Vec<SpanId> = all.iter().map(|call| call.id).collect();
    let above = tree.nearest_above(&ids);
    let mut counts = vec![true; all.len()];
    above.iter().flatten().for_each(|&wrapper| counts[wrapper] = false);
    drop_doubles(&mut all, &mut counts);
    if above.iter().any(Option::is_some) {
        borrow_from_wrappers(&mut all, &above, &counts);
    }
    if counts.contains(&false) {
        let mut counts = counts.into_iter();
        all.retain(|_| counts.next().unwrap_or_default());
    }
    all
}

/// Of the spans that tell of one call beside each other, leaves as many as one instrumentation saw.
///
/// First those that have one response id: there even two kinds of spans of one instrumentation are the same call. Then those
/// that only look the same: there one instrumentation's spans are calls of their own.
fn drop_doubles(all: &mut [Call<'_>], counts: &mut [bool]) {
    drop_doubles_by(all, counts, are_one_response, |facts| facts.emitter);
    drop_doubles_by(all, counts, look_the_same, |facts| Emitter { name: 0, ..facts.emitter });
}

fn drop_doubles_by(
    all: &mut [Call<'_>],
    counts: &mut [bool],
    are_doubles: fn(&Call<'_>, &Call<'_>) -> bool,
    witness: fn(&Facts<'_>) -> Emitter,
) {
    // Most traces have one witness, and then there is nothing to do.
    let first = all.first().map(|call| witness(&call.facts));
    if all.iter().all(|call| Some(witness(&call.facts)) == first) {
        return;
    }
    let leaves: Vec<usize> = (0..all.len()).filter(|&at| counts[at]).collect();
    let mut groups = Groups::of(leaves.len());
    for (nth, &one) in leaves.iter().enumerate() {
        // In order of start: what begins after the end of this one cannot overlap it.
        let later = leaves[nth + 1..].iter().take_while(|&&other| all[other].facts.start <= all[one].facts.end);
        for (step, &other) in later.enumerate() {
            if witness(&all[one].facts) != witness(&all[other].facts)
                && mostly_overlap(&all[one].facts, &all[other].facts)
                && share_model(&all[one].facts, &all[other].facts)
                && are_doubles(&all[one], &all[other])
            {
                groups.join(nth, nth + 1 + step);
            }
        }
    }
    for group in groups.larger_than_one() {
        let members: Vec<usize> = group.into_iter().map(|nth| leaves[nth]).collect();
        let best = best_witness(all, &members, witness);
        let (kept, dropped): (Vec<_>, Vec<_>) = members.into_iter().partition(|&at| witness(&all[at].facts) == best);
        for &at in &dropped {
            counts[at] = false;
        }
        if let [kept] = kept[..] {
            for from in dropped {
                let double = all[from].facts.clone();
                lend(&mut all[kept].facts, &double, true, true);
            }
        }
    }
}

/// The witness whose spans are kept: it saw most calls, knows most token counts, began first.
fn best_witness(all: &[Call<'_>], members: &[usize], witness: fn(&Facts<'_>) -> Emitter) -> Emitter {
    let weight = |candidate: Emitter| {
        let its = || members.iter().map(|&at| &all[at]).filter(move |call| witness(&call.facts) == candidate);
        (
            its().count(),
            its().filter(|call| call.facts.usage.is_known()).count(),
            its().map(Call::order).min().map(Reverse),
        )
    };
    let candidates: HashSet<Emitter> = members.iter().map(|&at| witness(&all[at].facts)).collect();
    candidates.into_iter().max_by_key(|&candidate| weight(candidate)).unwrap_or_default()
}

fn are_one_response(one: &Call<'_>, other: &Call<'_>) -> bool {
    let id = one.facts.text(Text::ResponseId);
    id.is_some() && id == other.facts.text(Text::ResponseId)
}

/// Neither says that they are two: not their caller, outcome, tokens or response.
fn look_the_same(one: &Call<'_>, other: &Call<'_>) -> bool {
    let ids = (one.facts.text(Text::ResponseId), other.facts.text(Text::ResponseId));
    one.parent == other.parent
        && one.failed() == other.failed()
        && agree(&one.facts.usage, &other.facts.usage)
        && !matches!(ids, (Some(one), Some(other)) if one != other)
}

/// At least half of the shorter one lies within the longer one.
fn mostly_overlap(one: &Facts<'_>, other: &Facts<'_>) -> bool {
    let (start, end) = (one.start.max(other.start), one.end.min(other.end));
    start <= end && end.0 - start.0 >= one.nanos().min(other.nanos()) / 2
}

fn share_model(one: &Facts<'_>, other: &Facts<'_>) -> bool {
    const MODELS: [Text; 2] = [Text::Model, Text::RequestModel];
    MODELS
        .iter()
        .filter_map(|&text| one.text(text))
        .any(|model| MODELS.iter().any(|&text| other.text(text) == Some(model)))
}

/// Both report the same tokens, or one does not report.
fn agree(one: &Usage, other: &Usage) -> bool {
    let same = |a: Option<i64>, b: Option<i64>| a.is_none() || b.is_none() || a == b;
    same(one.prompt, other.prompt) && same(one.completion, other.completion)
}

/// How far up a call looks for what it does not know.
const WRAPPERS_MAX: usize = 64;

/// Fills in what a call does not know from its wrapper or double: names always, tokens and the `rest` if those are its own.
fn lend<'a>(to: &mut Facts<'a>, from: &Facts<'a>, tokens: bool, rest: bool) {
    let rest_texts: &[Text] = if rest { &[Text::FinishReason, Text::ToolCalls] } else { &[] };
    for &text in [Text::Model, Text::RequestModel, Text::Provider].iter().chain(rest_texts) {
        to.borrow_text(text, from);
    }
    if tokens && !to.usage.is_known() {
        to.usage = from.usage;
    }
    if rest {
        to.first_token_nanos = to.first_token_nanos.or(from.first_token_nanos);
        if !to.has(Flag::StreamingKnown) {
            to.set(Flag::StreamingKnown, from.has(Flag::StreamingKnown));
            to.set(Flag::Streaming, from.has(Flag::Streaming));
        }
    }
}

/// Gives counting calls what only their wrappers know. A wrapper's tokens are the sum over its calls, so they are taken only
/// where none of its calls knows its own, and then once: by the last. What else it says of its answer belongs to its only call.
fn borrow_from_wrappers(all: &mut [Call<'_>], above: &[Option<usize>], counts: &[bool]) {
    let wrappers = |at: usize| std::iter::successors(above[at], |&wrapper| above[wrapper]).take(WRAPPERS_MAX);
    let mut told = vec![false; all.len()];
    let mut calls = vec![0u32; all.len()];
    for at in (0..all.len()).filter(|&at| counts[at]) {
        let knows = all[at].facts.usage.is_known();
        for wrapper in wrappers(at) {
            told[wrapper] |= knows;
            calls[wrapper] += 1;
        }
    }
    for at in (0..all.len()).rev().filter(|&at| counts[at]) {
        for wrapper in wrappers(at) {
            let lender = all[wrapper].facts.clone();
            let knew = all[at].facts.usage.is_known();
            lend(&mut all[at].facts, &lender, !told[wrapper], calls[wrapper] == 1);
            if !knew && all[at].facts.usage.is_known() {
                wrappers(at).for_each(|wrapper| told[wrapper] = true);
            }
        }
    }
}

/// Sets of numbers that grow together.
struct Groups(Vec<usize>);

impl Groups {
    fn of(len: usize) -> Self {
        Self((0..len).collect())
    }

    fn first_of(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.first_of(one), self.first_of(other));
        self.0[one.max(other)] = one.min(other);
    }

    fn larger_than_one(mut self) -> Vec<Vec<usize>> {
        let mut groups: HashMap<usize, Vec<usize>> = HashMap::new();
        for at in 0..self.0.len() {
            let first = self.first_of(at);
            groups.entry(first).or_default().push(at);
        }
        groups.into_values().filter(|group| group.len() > 1).collect()
    }
}
