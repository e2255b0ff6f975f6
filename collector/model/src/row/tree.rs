//! Who called whom among the spans of a trace, without going round in circles.

use crate::SpanId;
use crate::trace::TraceState;

/// The spans of a trace, numbered by id, and the number of each one's parent.
pub(super) struct Tree<'a> {
    state: &'a TraceState,
    parents: Vec<Option<u32>>,
    /// Some spans named each other as parents in a circle. They count as having none.
    pub(super) had_cycle: bool,
}

impl<'a> Tree<'a> {
    pub(super) fn of(state: &'a TraceState) -> Self {
        // Brothers follow each other often enough to look their parent up once.
        let mut last = (SpanId::default(), None);
        let mut number = |parent: SpanId| {
            if last.0 != parent {
                last = (parent, state.place(parent).map(|at| at as u32));
            }
            last.1
        };
        let parents = state.links().map(|(_, parent)| number(parent?)).collect();
        let mut tree = Self { state, parents, had_cycle: false };
        tree.break_cycles();
        tree
    }

    /// For each of `spans`, the place in `spans` of the nearest one above it.
    pub(super) fn nearest_above(&self, spans: &[SpanId]) -> Vec<Option<usize>> {
        let mut chosen = vec![None; self.parents.len()];
        for (at, span) in spans.iter().enumerate() {
            if let Some(number) = self.state.place(*span) {
                chosen[number] = Some(at);
            }
        }
        // What lies above each span, filled in path by path, so that long chains are walked once.
        let mut above: Vec<Option<Option<usize>>> = vec![None; self.parents.len()];
        let mut path = Vec::new();
        let mut nearest = |start: u32| {
            let mut at = start;
            let found = loop {
                if let Some(known) = above[at as usize] {
                    break known;
                }
                path.push(at);
                match self.parents[at as usize] {
                    None => break None,
                    Some(parent) if chosen[parent as usize].is_some() => break chosen[parent as usize],
                    Some(parent) => at = parent,
                }
            };
            path.drain(..).for_each(|number| above[number as usize] = Some(found));
            found
        };
        spans.iter().map(|span| self.state.place(*span).and_then(|number| nearest(number as u32))).collect()
    }

    /// Takes their parents from all spans on a circle, so that which one was looked at first does not matter.
    fn break_cycles(&mut self) {
        const DONE: u32 = u32::MAX;
        // 0 = not seen, DONE = leads out, else the walk that is on it.
        let mut walks = vec![0u32; self.parents.len()];
        let mut path = Vec::new();
        for start in 0..self.parents.len() {
            let walk = start as u32 + 1;
            path.clear();
            let mut at = Some(start as u32);
            while let Some(number) = at.filter(|&number| walks[number as usize] == 0) {
                walks[number as usize] = walk;
                path.push(number);
                at = self.parents[number as usize];
            }
            if let Some(met) = at.filter(|&number| walks[number as usize] == walk) {
                self.had_cycle = true;
                let from = path.iter().position(|&number| number == met).unwrap_or(0);
                path[from..].iter().for_each(|&number| self.parents[number as usize] = None);
            }
            path.iter().for_each(|&number| walks[number as usize] = DONE);
        }
    }
}
