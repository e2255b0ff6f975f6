//! Batches of the log into traces that are gathered.

use std::collections::HashSet;
use std::sync::Arc;

use emberd_log::ReadError;
use emberd_model::wire::spans;
use emberd_model::{Batch, TraceId, UnixNanos};
use tokio_util::sync::CancellationToken;

use super::super::gather::Taken;
use super::{AGAIN, Consumer, Origin, aside};

impl Consumer {
    /// Reads once, for a tick at most.
    pub(super) async fn read(&mut self, stop: &CancellationToken) {
        let read = tokio::select! {
            () = stop.cancelled() => return,
            read = tokio::time::timeout(self.config.tick, self.reader.next(self.config.read_bytes)), if !self.is_sealed => read,
            () = tokio::time::sleep(self.config.tick), if self.is_sealed => return,
        };
        match read {
            Err(_) => {}
            Ok(Ok(batches)) if batches.is_empty() => self.is_sealed = true,
            Ok(Ok(batches)) => batches.iter().for_each(|batch| self.take(batch)),
            Ok(Err(error)) => self.unread(&error).await,
        }
        let position = self.reader.position().0;
        let (open, bytes) = (self.gather.len() as u64, self.gather.bytes() as u64);
        self.count(|counters| (counters.position, counters.open, counters.bytes) = (position, open, bytes));
    }

    async fn unread(&mut self, error: &ReadError) {
        tracing::warn!(%error, "live traffic cannot be read");
        let at = self.reader.position();
        let lost = match error {
            ReadError::Gone { tail, .. } => {
                self.reader.seek(*tail);
                tail.since(at)
            }
            ReadError::Ahead { head, .. } => {
                self.reader.seek(*head);
                0
            }
            ReadError::Damaged { from, to } => to.since(*from),
            _ => {
                tokio::time::sleep(AGAIN).await;
                0
            }
        };
        self.count(|counters| counters.spans_lost += lost);
    }

    fn take(&mut self, batch: &Batch) {
        self.read_at = self.read_at.max(batch.received_at);
        let (mut origin, mut passed) = (None, HashSet::new());
        let (mut repeated, mut settled, mut sampled_out) = (0, 0, 0);
        for found in spans(&batch.body) {
            let trace = found.span.trace_id;
            if trace == TraceId::default() || passed.contains(&trace) {
                continue;
            }
            if !self.gather.is_open(trace) {
                if self.gather.is_settled(trace) {
                    settled += 1;
                    continue;
                }
                if !self.begins(trace) {
                    sampled_out += 1;
                    passed.insert(trace);
                    continue;
                }
            }
            let index = found.resource.index;
            let from = match &origin {
                Some((known, origin)) if *known == index => Arc::clone(origin),
                _ => {
                    let read = self.origin(Origin::of(&found.resource));
                    origin = Some((index, Arc::clone(&read)));
                    read
                }
            };
            match self.gather.take(&found, &from, (batch.offset, batch.end()), batch.received_at) {
                Taken::Held => {}
                Taken::Duplicate => repeated += 1,
                Taken::Settled => settled += 1,
            }
        }
        self.count(|counters| {
            counters.spans_repeated += repeated;
            counters.spans_settled += settled;
            counters.sampled_out += sampled_out;
        });
    }

    /// The first span of a trace: which rules sample it. Whether any does.
    fn begins(&mut self, trace: TraceId) -> bool {
        let now = self.shared.now();
        let mut is_in = false;
        for rule in self.rules.iter() {
            if rule.samples(trace) {
                is_in = true;
            } else {
                self.aside.push(aside(rule.id, rule.version, trace, "sampled_out", None, 1, now));
            }
        }
        if !is_in {
            self.gather.settle(trace);
        }
        is_in
    }

    fn origin(&mut self, origin: Origin) -> Arc<Origin> {
        if self.origins.len() >= 1_000 {
            self.origins.clear();
        }
        Arc::clone(self.origins.entry(origin.encoded.clone()).or_insert_with(|| Arc::new(origin)))
    }

    /// The log's time: behind the head it stands still between batches.
    pub(super) fn now(&self) -> UnixNanos {
        if self.is_sealed || self.reader.position() >= (self.head)() {
            self.shared.now().max(self.read_at)
        } else {
            self.read_at
        }
    }
}
