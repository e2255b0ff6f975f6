//! The log as a forwarder is fed with it: batches become pieces to be sent, chosen, mended and cut to size.
//!
//! Promise: the pieces that come of a batch tell of each of its spans once: sent, or why not. Their ends ascend, and the last one's is
//! the batch's. At most [`AHEAD_BYTES_MAX`] are read ahead, and only while the endpoint gets a choice.
//! Not here: sending (`plain.rs`, `verified.rs`), the cursor (`source.rs`).
//! Kept by: `tests/`, `choice/tests.rs`, `daemon/tests/it/choice.rs`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use emberd_model::ledger::{Fate, Reason, Runs, Tally};
use emberd_model::{Batch, Flags, Offset, SpanId, TraceId, wire};
use tokio::time::Instant;

use super::choice::Chooser;
use super::courier::Courier;
use super::load::Part;
use super::source::{Read, Source};

/// What is read ahead of a choice, at most: this, or so long a time of receiving. What a trace says within it counts.
const AHEAD_BYTES_MAX: usize = 32 << 20;
const AHEAD_MAX: Duration = Duration::from_secs(10);
/// A log that gave nothing for so long is taken to be read to its end.
const IDLE: Duration = Duration::from_secs(1);

/// Why the spans of a batch were put aside that no mending could make fit.
const UNFORWARDABLE: &str = "unforwardable";

/// Something to be sent, or passed without.
pub(super) struct Piece {
    /// What is sent; none if nothing is.
    pub(super) part: Option<Part>,
    /// Where the cursor may move to once this piece and all before it are done.
    pub(super) end: Offset,
    /// What became of spans that are not in `part`.
    pub(super) aside: Tally,
}

/// What is read of the log and not yet sent.
pub(super) struct Feed {
    courier: Arc<Courier>,
    for_phoenix: bool,
    /// The most spans that a piece may hold.
    spans_max: u64,
    ahead: VecDeque<Batch>,
    ahead_bytes: usize,
    read_at: Instant,
    pub(super) pieces: VecDeque<Piece>,
    sealed: bool,
}

impl Feed {
    pub(super) fn new(courier: Arc<Courier>, for_phoenix: bool, spans_max: u64) -> Self {
        let (ahead, pieces) = Default::default();
        Self { courier, for_phoenix, spans_max, ahead, ahead_bytes: 0, read_at: Instant::now(), pieces, sealed: false }
    }

    /// Whether all of a sealed log has become pieces, and those were taken.
    pub(super) fn is_at_end(&self) -> bool {
        self.sealed && self.ahead.is_empty() && self.pieces.is_empty()
    }

    /// Whether the log is to be read on for more pieces.
    pub(super) fn wants_read(&self, source: &Source) -> bool {
        !self.sealed && self.pieces.is_empty() && self.reads_on(source)
    }

    /// When what is held is decided even if nothing more comes; far away while nothing is held.
    pub(super) fn hold_until(&self, source: &Source) -> Instant {
        let Some(first) = self.ahead.front() else { return Instant::now() + AHEAD_MAX };
        let age = Duration::from_nanos(source.now().0.saturating_sub(first.received_at.0));
        let old = Instant::now() + AHEAD_MAX.saturating_sub(age);
        old.max(self.read_at + IDLE)
    }

    /// Takes in what was read. Not to be cancelled.
    pub(super) async fn take_in(&mut self, read: Read, source: &mut Source) {
        self.read_at = Instant::now();
        match read {
            Read::Batches(batches) => batches.into_iter().for_each(|batch| {
                if let Some(chooser) = source.chooser.as_mut().filter(|chooser| !chooser.is_idle()) {
                    chooser.note(&batch);
                }
                self.ahead_bytes += batch.body.len();
                self.ahead.push_back(batch);
            }),
            Read::Sealed => self.sealed = true,
            // What lies before the gap is sent before the cursor passes it.
            Read::Skipped(piece) => {
                self.let_go(source, |_, _| true).await;
                self.pieces.extend(piece);
            }
        }
        self.fill(source).await;
    }

    /// Makes pieces of what was read, as far as that can be decided. Not to be cancelled.
    pub(super) async fn fill(&mut self, source: &mut Source) {
        source.press();
        if self.pieces.is_empty() {
            self.let_go(source, |feed, source| feed.sealed || !feed.reads_on(source)).await;
        }
    }

    /// What is held was held long enough. Not to be cancelled.
    pub(super) async fn hurry(&mut self, source: &mut Source) {
        self.let_go(source, |feed, source| feed.hold_until(source) <= Instant::now()).await;
    }

    async fn let_go(&mut self, source: &mut Source, goes: impl Fn(&Self, &Source) -> bool) {
        while !self.ahead.is_empty() && goes(self, source) {
            let Some(batch) = self.ahead.pop_front() else { return };
            self.ahead_bytes -= batch.body.len();
            self.cut(batch, source.chooser.as_mut()).await;
        }
    }

    /// Whether more must be read before the first batch is decided.
    fn reads_on(&self, source: &Source) -> bool {
        let (Some(first), Some(last)) = (self.ahead.front(), self.ahead.back()) else { return true };
        let between = Duration::from_nanos(last.received_at.0.saturating_sub(first.received_at.0));
        let chooses = source.chooser.as_ref().is_some_and(Chooser::is_pressed);
        chooses && self.ahead_bytes < AHEAD_BYTES_MAX && between < AHEAD_MAX
    }

    async fn cut(&mut self, batch: Batch, chooser: Option<&mut Chooser>) {
        let whole = Part::of(&batch);
        let (parts, mut aside) = match chooser {
            Some(chooser) if !chooser.is_idle() => {
                let chosen = chooser.choose(&batch, &whole.accounts);
                (whole.pieces(&chosen.sent), chosen.shed)
            }
            _ => (vec![whole], Tally::default()),
        };
        let mut pieces = Vec::new();
        for part in parts {
            if let Some(part) = self.mended(part, batch.flags, &mut aside).await {
                pieces.extend(part.cut(self.courier.bytes_max(), self.spans_max));
            }
        }
        // A position inside a batch is read as its beginning, so a batch that is cut counts as passed with its last piece.
        let last = pieces.pop();
        self.pieces.extend(pieces.into_iter().map(|part| Piece {
            part: Some(part),
            end: batch.offset,
            aside: Tally::default(),
        }));
        self.pieces.push_back(Piece { part: last, end: batch.end(), aside });
    }

    /// The part as the endpoint takes it: its own bytes, unless it is for Phoenix and must be mended. None if nothing of it can go.
    async fn mended(&self, part: Part, flags: Flags, aside: &mut Tally) -> Option<Part> {
        if !self.for_phoenix || !flags.has(Flags::MEND) {
            return Some(part);
        }
        let mended = match emberd_phoenix::mend(&part.body) {
            Ok(mended) => mended,
            Err(error) => {
                tracing::error!(offset = %part.first, %error, "a batch of the log cannot be decoded");
                return Some(part);
            }
        };
        if mended.changed {
            let mut spans: Vec<_> = mended.marks.iter().map(|mark| mark.span).collect();
            spans.dedup();
            self.courier.progress().mended(spans.len() as u64);
        }
        if mended.unforwardable.is_empty() {
            return Some(Part { body: mended.body, ..part });
        }
        let reason = mended.unforwardable[0].reason.to_owned();
        let left_out = mended.unforwardable.len() as u64;
        self.courier.put_aside(&part.clone().into(), left_out, UNFORWARDABLE, reason).await;
        let is_left_out: Vec<bool> = wire::spans(&part.body)
            .map(|found| found.span.trace_id == TraceId::default() || found.span.span_id == SpanId::default())
            .collect();
        let sent = runs(&is_left_out, false);
        let kept = sent.into_iter().fold(Runs::default(), |kept, run| kept.with(&part.accounts.slice(run)));
        for run in runs(&is_left_out, true) {
            aside.merge(&part.accounts.slice(run).tally(&Fate::Quarantined(Reason::new(UNFORWARDABLE))));
        }
        let spans = kept.spans();
        (spans > 0).then_some(Part { body: mended.body, spans, accounts: kept, ..part })
    }
}

/// Where the flags are so: from and to, in order.
fn runs(flags: &[bool], so: bool) -> Vec<std::ops::Range<u64>> {
    let mut at = 0;
    let chunks = flags.chunk_by(|a, b| a == b).map(|chunk| {
        at += chunk.len() as u64;
        (chunk[0], at - chunk.len() as u64..at)
    });
    chunks.filter(|(flag, _)| *flag == so).map(|(_, run)| run).collect()
}
