//! Which segments there are, how far every consumer has come, and so which segments may go.
//!
//! Promise: a segment that some consumer has not passed, or that is still written, is never named as one that may go; segments
//! go from the oldest on, so that what is left has no gap.
//! Not here: the files (`keeper.rs`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use emberd_model::Offset;

use crate::error::SegmentId;
use crate::log::Usage;

/// A segment that holds batches, or will as soon as one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) salt: u64,
    pub(crate) base: Offset,
    /// The offset after its last span.
    pub(crate) end: Offset,
    /// How long its file is.
    pub(crate) file_bytes: u64,
    /// How much of that has been written.
    pub(crate) written_bytes: u64,
    /// Since when every consumer has passed it, counted from when the log was opened: the time of day may jump.
    pub(crate) passed_at: Option<Duration>,
}

/// Where an offset lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Located {
    In(Segment),
    /// Between two segments that are there: one is missing.
    Gap {
        to: Offset,
    },
    /// Before the first segment.
    Gone {
        tail: Offset,
    },
    /// At the head or beyond.
    Ahead,
}

/// The segments, oldest first, and the consumers. The last segment is the one that is written.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    segments: VecDeque<Segment>,
    consumers: BTreeMap<String, Offset>,
}

impl Shelf {
    pub(crate) fn new(segments: VecDeque<Segment>) -> Self {
        Self { segments, consumers: BTreeMap::new() }
    }

    /// Adds the segment that is written from now on.
    pub(crate) fn begin(&mut self, segment: Segment) {
        self.segments.push_back(segment);
    }

    /// The segment that is written has grown.
    pub(crate) fn grown(&mut self, end: Offset, written_bytes: u64, file_bytes: u64) {
        if let Some(last) = self.segments.back_mut() {
            // Nobody can have passed what nobody could read yet.
            *last = Segment { end, written_bytes, file_bytes, passed_at: None, ..*last };
        }
    }

    /// All segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        self.segments.iter().copied().collect()
    }

    pub(crate) fn tail(&self) -> Option<Offset> {
        self.segments.front().map(|segment| segment.base)
    }

    pub(crate) fn usage(&self, budget_bytes: u64) -> Usage {
        let bytes = self.segments.iter().map(|segment| segment.written_bytes).sum();
        Usage { bytes, budget_bytes, segments: self.segments.len() }
    }

    /// What the files of the segments take on disk.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.file_bytes).sum()
    }

    pub(crate) fn locate(&self, offset: Offset) -> Located {
        let after = self.segments.partition_point(|segment| segment.base <= offset);
        // A segment that was begun and holds nothing yet has the same base as the head; look before it.
        let holder = self.segments.range(..after).rev().find(|segment| segment.base < segment.end);
        match (holder, self.segments.get(after)) {
            (Some(segment), _) if offset < segment.end => Located::In(*segment),
            (Some(_), Some(next)) => Located::Gap { to: next.base },
            (None, Some(first)) => Located::Gone { tail: first.base },
            (_, None) => Located::Ahead,
        }
    }

    pub(crate) fn holds(&self, id: SegmentId) -> bool {
        self.segments.binary_search_by_key(&id, |segment| segment.id).is_ok()
    }

    pub(crate) fn newest(&self) -> SegmentId {
        self.segments.back().map_or(SegmentId(0), |segment| segment.id)
    }

    /// A consumer stands at `cursor`, durably. Says whether with this some segment has been passed by everyone.
    pub(crate) fn passed(&mut self, consumer: &str, cursor: Offset, now: Duration) -> bool {
        match self.consumers.get_mut(consumer) {
            Some(known) => *known = cursor,
            None => drop(self.consumers.insert(consumer.to_owned(), cursor)),
        }
        self.mark_passed(now)
    }

    /// A consumer is one no more: nothing waits for it. Says whether with this some segment has been passed by everyone.
    pub(crate) fn forget(&mut self, consumer: &str, now: Duration) -> bool {
        self.consumers.remove(consumer).is_some() && self.mark_passed(now)
    }

    /// Notes which segments everyone has passed: always the oldest ones. A consumer that went back un-passes some.
    fn mark_passed(&mut self, now: Duration) -> bool {
        let Some(slowest) = self.consumers.values().min().copied() else { return false };
        let passed = self.segments.partition_point(|segment| segment.end <= slowest);
        let no_more = self.segments.range_mut(passed..).take_while(|segment| segment.passed_at.is_some());
        no_more.for_each(|segment| segment.passed_at = None);
        let newly = self.segments.range_mut(..passed).rev().take_while(|segment| segment.passed_at.is_none());
        newly.map(|segment| segment.passed_at = Some(now)).count() > 0
    }

    /// Puts back what was taken last, and could not be put away.
    pub(crate) fn put_back(&mut self, segment: Segment) {
        self.segments.push_front(segment);
    }

    /// Takes the oldest segment off the shelf if everyone has passed it at least `keep` ago.
    pub(crate) fn take_passed(&mut self, keep: Duration, now: Duration) -> Option<Segment> {
        // The newest segment that holds something is where the next start learns the head from.
        if self.segments.get(1).is_none_or(|next| next.base == next.end) {
            return None;
        }
        let since = self.segments.front()?.passed_at?;
        (now.saturating_sub(since) >= keep).then(|| self.segments.pop_front()).flatten()
    }
}
