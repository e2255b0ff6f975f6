//! One commit after another: writes groups, rolls to the next segment, publishes what is durable.
//!
//! Promise: entries are answered with an offset only after they are durable and can be read; after the disk failed once, every
//! answer is that failure. Driven by one thread, the log's or a test's.
//! Not here: the thread (`disk_log.rs`), how a commit is laid out (`writer.rs`).

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use emberd_model::{Batch, Clock, Offset};

use crate::error::{AppendError, SegmentId};
use crate::keeper::{Keeper, Prepared, Refusal, lock};
use crate::shelf::{Segment, Shelf};
use crate::tail::Tail;
use crate::writer::{Queued, Writer, Wrote};

/// Gives each segment its salt.
pub(crate) type Salts = Box<dyn FnMut() -> u64 + Send>;

/// The writing end of a log.
pub(crate) struct Engine {
    pub(crate) writer: Writer,
    pub(crate) keeper: Arc<Mutex<Keeper>>,
    pub(crate) shelf: Arc<Mutex<Shelf>>,
    pub(crate) tail: Arc<Tail>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) salts: Salts,
    pub(crate) failure: Option<AppendError>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("writer", &self.writer).field("failure", &self.failure).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes entries durable, in as few commits as segments allow: one answer for each.
    pub(crate) fn commit(&mut self, entries: &[Queued]) -> Vec<Result<Offset, AppendError>> {
        let mut answers = Vec::with_capacity(entries.len());
        while answers.len() < entries.len() {
            let rest = &entries[answers.len()..];
            if let Some(failure) = &self.failure {
                answers.push(Err(failure.clone()));
                continue;
            }
            let now = self.clock.now();
            match self.writer.write(rest, now) {
                Ok(Wrote::Entries(count, first)) => self.publish(&rest[..count], first, &mut answers),
                Ok(Wrote::Full(bytes)) => {
                    let provided = lock(&self.keeper).provide(bytes);
                    match provided {
                        Ok(prepared) => self.roll(prepared),
                        // A smaller one that came later may still fit.
                        Err(Refusal::Full { used_bytes, budget_bytes }) => {
                            answers.push(Err(AppendError::BudgetFull { used_bytes, budget_bytes }));
                        }
                        Err(Refusal::Disk { segment, source }) => self.fail(segment, source),
                    }
                }
                Err(source) => self.fail(self.segment(), source),
            }
        }
        answers
    }

    /// Notes on disk that all so far was durable.
    pub(crate) fn mark(&mut self, sync: bool) {
        if self.failure.is_none()
            && let Err(source) = self.writer.mark(sync, self.clock.now())
        {
            self.fail(self.segment(), source);
        }
    }

    fn segment(&self) -> SegmentId {
        self.writer.active().map_or(SegmentId(0), |active| active.id)
    }

    fn fail(&mut self, segment: SegmentId, source: io::Error) {
        self.failure = Some(AppendError::Disk { segment, source: Arc::new(source) });
    }

    fn roll(&mut self, prepared: Prepared) {
        let salt = (self.salts)();
        let active = self.writer.begin(prepared, salt);
        let (base, file_bytes) = (active.base, active.file_bytes);
        let segment = Segment { id: active.id, salt, base, end: base, file_bytes, written_bytes: 0, passed_at: None };
        lock(&self.shelf).begin(segment);
    }

    fn publish(&mut self, entries: &[Queued], first: Offset, answers: &mut Vec<Result<Offset, AppendError>>) {
        let head = self.writer.head();
        if let Some(active) = self.writer.active() {
            lock(&self.shelf).grown(head, active.at, active.file_bytes);
        }
        let mut next = first;
        let batches = entries.iter().map(|Queued { entry, .. }| {
            let batch = Batch {
                offset: next,
                spans: entry.spans.get(),
                received_at: entry.received_at,
                key: entry.key,
                flags: entry.flags,
                body: entry.body.clone(),
            };
            next = batch.end();
            answers.push(Ok(batch.offset));
            batch
        });
        self.tail.publish(batches, head);
    }
}
