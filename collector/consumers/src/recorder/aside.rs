//! What the database refuses: found by halving, put into quarantine alone.

use std::collections::BTreeMap;

use bytes::Bytes;
use emberd_model::trace::TraceState;
use emberd_model::wire::{self, Change};
use emberd_model::{Batch, TraceId};
use emberd_store::RecordError;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::{Error, NAME, Recorder, Tried, chain};
use crate::quarantine::Item;

impl Recorder {
    /// Records what can be of `states`, halving them until the trace that the database refuses is alone; that one is put aside.
    /// The cursor stays: repeating what was recorded changes nothing.
    pub(super) async fn record_apart(
        &mut self,
        states: BTreeMap<TraceId, TraceState>,
        batches: &[Batch],
        stop: &CancellationToken,
    ) -> Result<Tried, Error> {
        let mut parts: Vec<Vec<_>> = vec![states.into_iter().collect()];
        let mut backoff = Backoff::default();
        while let Some(mut part) = parts.pop() {
            match self.store.record(self.recording(part.iter().cloned().collect(), self.cursor)).await {
                Ok(_) => backoff = Backoff::default(),
                Err(RecordError::CursorConflict { found, .. }) => return Ok(self.follow(found)),
                Err(RecordError::Data { code, source }) => match &part[..] {
                    [] => {}
                    [(trace, _)] => self.put_aside(*trace, batches, &format!("{code}: {}", chain(&*source)))?,
                    _ => {
                        let half = part.split_off(part.len() / 2);
                        parts.extend([half, part]);
                    }
                },
                Err(error) => {
                    self.failed("database", &error);
                    parts.push(part);
                    if !backoff.wait(stop).await {
                        return Ok(Tried::Stopped);
                    }
                }
            }
        }
        Ok(Tried::Done)
    }

    /// Puts a trace's spans of these batches into quarantine, as they came.
    fn put_aside(&self, trace: TraceId, batches: &[Batch], answer: &str) -> Result<(), Error> {
        for batch in batches {
            let others = wire::spans(&batch.body).filter(|found| found.span.trace_id != trace);
            let cuts: Vec<Change> = others.map(|found| Change { place: found.span.place(), to: None }).collect();
            let ours = wire::spans(&batch.body).filter(|found| found.span.trace_id == trace);
            let span_ids: Vec<String> = ours.map(|found| found.span.span_id.to_string()).collect();
            if span_ids.is_empty() {
                continue;
            }
            let item = Item {
                consumer: NAME.into(),
                offset: batch.offset.0,
                spans: span_ids.len() as u64,
                traces: vec![trace.to_string()],
                span_ids,
                reason: "unrecordable".into(),
                answer: answer.into(),
                at_micros: self.clock.now().micros(),
            };
            let body = Bytes::from(wire::edited(&batch.body, &cuts));
            if self.quarantine.put(&item, &body).map_err(Error::Quarantine)? {
                self.progress.quarantined(item.spans);
            }
            tracing::error!(%trace, spans = item.spans, answer, "the database refuses this trace: it is in quarantine");
        }
        Ok(())
    }
}
