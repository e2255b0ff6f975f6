//! What goes out in one request: batches' bytes end to end, which protobuf reads as one.

use bytes::Bytes;
use emberd_model::ledger::{Fate, Runs, Tally};
use emberd_model::{Batch, Offset, SpanId, TraceId, wire};

use super::outline::Outline;

/// An encoded request, and which spans of the log it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) body: Bytes,
    /// The offset of its first span; the others follow it.
    pub(super) first: Offset,
    /// How many spans it holds, at least one.
    pub(super) spans: u64,
    /// Where they are booked.
    pub(super) accounts: Runs,
}

impl Part {
    pub(super) fn of(batch: &Batch) -> Self {
        let (spans, accounts) = (u64::from(batch.spans), Runs::of(batch));
        Self { body: batch.body.clone(), first: batch.offset, spans, accounts }
    }

    /// These stretches of it, each a part of its own.
    pub(super) fn pieces(self, stretches: &[std::ops::Range<u64>]) -> Vec<Self> {
        if let [all] = stretches
            && *all == (0..self.spans)
        {
            return vec![self];
        }
        let outline = Outline::of(&self.body);
        let pieces = stretches.iter().map(|run| self.piece(&outline, run.start as usize..run.end as usize));
        pieces.filter(|piece| piece.spans > 0).collect()
    }

    /// The part cut into pieces of at most `bytes_max` and `spans_max`, where it is larger; a span that is larger alone stays
    /// a piece of its own.
    pub(super) fn cut(self, bytes_max: usize, spans_max: u64) -> Vec<Self> {
        if self.body.len() <= bytes_max && self.spans <= spans_max {
            return vec![self];
        }
        let outline = Outline::of(&self.body);
        let mut pieces = Vec::new();
        let (mut from, mut bytes) = (0, 0);
        for index in 0..outline.len() {
            // The shell is counted once for each span: at most once too often, and never too seldom.
            let more = outline.span_bytes(index) + outline.shell_bytes(index);
            if index > from && (bytes + more > bytes_max || (index - from) as u64 >= spans_max) {
                pieces.push(self.piece(&outline, from..index));
                (from, bytes) = (index, 0);
            }
            bytes += more;
        }
        pieces.push(self.piece(&outline, from..outline.len()));
        pieces
    }

    /// Its spans from the one there to before that one.
    fn piece(&self, outline: &Outline, spans: std::ops::Range<usize>) -> Self {
        let first = self.first.plus(spans.start as u64);
        let accounts = self.accounts.slice(spans.start as u64..spans.end as u64);
        let body = outline.framed(&self.body, spans.clone()).into();
        Self { body, first, spans: spans.len() as u64, accounts }
    }

    /// The ids of its spans, in order.
    pub(super) fn ids(&self) -> impl Iterator<Item = (TraceId, SpanId)> + '_ {
        wire::spans(&self.body).map(|found| (found.span.trace_id, found.span.span_id))
    }
}

/// Parts that go out as one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) parts: Vec<Part>,
    pub(super) bytes: usize,
    pub(super) spans: u64,
}

impl Load {
    pub(super) fn push(&mut self, part: Part) {
        self.bytes += part.body.len();
        self.spans += part.spans;
        self.parts.push(part);
    }

    /// The tally in which this became of its first `spans`.
    pub(super) fn tally(&self, mut spans: u64, fate: &Fate) -> Tally {
        let mut tally = Tally::default();
        for part in &self.parts {
            tally.merge(&part.accounts.slice(0..spans).tally(fate));
            spans = spans.saturating_sub(part.spans);
        }
        tally
    }

    /// The offsets of its spans, in order.
    pub(super) fn offsets(&self) -> impl Iterator<Item = Offset> + '_ {
        self.parts.iter().flat_map(|part| (0..part.spans).map(|index| part.first.plus(index)))
    }

    /// The bytes to send, in order.
    pub(super) fn chunks(&self) -> Vec<Bytes> {
        self.parts.iter().map(|part| part.body.clone()).collect()
    }

    /// The bytes to send, in one piece.
    pub(super) fn body(&self) -> Bytes {
        match &self.parts[..] {
            [part] => part.body.clone(),
            parts => parts.iter().flat_map(|part| &part.body[..]).copied().collect::<Vec<u8>>().into(),
        }
    }

    /// Its two halves; none if it holds one span, which cannot be halved.
    pub(super) fn halves(self) -> Result<[Self; 2], Self> {
        if self.spans < 2 {
            return Err(self);
        }
        let half = self.spans / 2;
        let mut halves = [Self::default(), Self::default()];
        for part in self.parts {
            let room = half.saturating_sub(halves[0].spans);
            if part.spans <= room {
                halves[0].push(part);
            } else if room == 0 {
                halves[1].push(part);
            } else {
                let outline = Outline::of(&part.body);
                let room = outline.len().min(room as usize);
                halves[0].push(part.piece(&outline, 0..room));
                halves[1].push(part.piece(&outline, room..outline.len()));
            }
        }
        Ok(halves)
    }
}

impl From<Part> for Load {
    fn from(part: Part) -> Self {
        let mut load = Self::default();
        load.push(part);
        load
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarder::tests::{many_spans, part};

    /// Halving down to single spans loses none, doubles none, and knows each one's offset.
    #[test]
    fn halves_of_halves_are_all_the_spans() {
        let mut load = Load::default();
        for (first, spans) in [(10, 1), (11, 300), (500, 2)] {
            load.push(part(first, spans));
        }
        let whole: Vec<_> = load.parts.iter().flat_map(|part| part.ids().collect::<Vec<_>>()).collect();
        let (mut singles, mut stack) = (Vec::new(), vec![load]);
        while let Some(load) = stack.pop() {
            match load.halves() {
                Ok([left, right]) => {
                    assert!(left.spans.abs_diff(right.spans) <= 1);
                    stack.extend([right, left]);
                }
                Err(single) => singles.push(single.parts[0].clone()),
            }
        }
        assert!(singles.iter().flat_map(|part| part.ids().collect::<Vec<_>>()).eq(whole));
        let offsets: Vec<_> = singles.iter().map(|part| part.first.0).collect();
        assert_eq!(offsets, (10..311).chain(500..502).collect::<Vec<_>>());
    }

    #[test]
    fn a_part_is_cut_within_its_bounds() {
        let part = Part { body: many_spans(1_000), first: Offset(7), spans: 1_000, accounts: Runs::default() };
        for (bytes_max, spans_max) in [(10_000, 5_000), (1 << 20, 100), (1, 1), (1 << 20, 1_000)] {
            let pieces = part.clone().cut(bytes_max, spans_max);
            assert!(pieces.iter().all(|piece| piece.spans <= spans_max));
            assert!(pieces.iter().all(|piece| piece.body.len() <= bytes_max || piece.spans == 1));
            assert!(pieces.iter().flat_map(|piece| piece.ids().collect::<Vec<_>>()).eq(part.ids()));
            assert_eq!(pieces.iter().map(|piece| piece.spans).sum::<u64>(), 1_000);
            assert!(pieces.windows(2).all(|pair| pair[0].first.plus(pair[0].spans) == pair[1].first));
        }
    }
}
