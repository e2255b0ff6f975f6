//! What the database refuses: found by halving, put into quarantine alone.

use emberd_model::ledger::{Account, Fate, Reason, Tally, project_of};
use emberd_model::trace::Folded;
use emberd_model::wire;
use emberd_model::{Batch, TraceId};
use emberd_store::{Booking, RecordError, Recording};
use tokio_util::sync::CancellationToken;

use super::{Error, NAME, Recorder, Tried, chain};
use crate::backoff::Backoff;
use crate::quarantine::{Item, booked};

impl Recorder {
    /// Records what can be of a stretch, halving it until the trace that the database refuses is alone; that one is put aside.
    /// The cursor stays, so nothing is booked yet: repeating what was recorded changes nothing. Gives what is to be booked.
    pub(super) async fn record_apart(
        &mut self,
        folded: Folded,
        batches: &[Batch],
        stop: &CancellationToken,
    ) -> Result<Result<Tally, Tried>, Error> {
        let whole = self.recording(folded, self.cursor, Booking::Tell);
        let mut booked = whole.booked.clone();
        let mut parts: Vec<Vec<_>> = vec![whole.states.iter().map(|(trace, state)| (*trace, state.clone())).collect()];
        let mut backoff = Backoff::default();
        while let Some(mut part) = parts.pop() {
            let states = part.iter().cloned().collect();
            let recording =
                Recording { states, booked: Tally::default(), from: self.cursor, to: self.cursor, ..whole.clone() };
            match self.store.record(recording).await {
                Ok(done) => {
                    booked.merge(&done.tally);
                    backoff = Backoff::default();
                }
                Err(RecordError::CursorConflict { found, .. }) => return Ok(Err(self.follow(found).await?)),
                Err(RecordError::Data { code, source }) => match &part[..] {
                    [] => {}
                    [(trace, _)] => {
                        self.put_aside(*trace, batches, &format!("{code}: {}", chain(&*source)))?;
                        whole.origins.book(*trace, 0, &Fate::Quarantined(Reason::new(REASON)), &mut booked);
                    }
                    _ => {
                        let half = part.split_off(part.len() / 2);
                        parts.extend([half, part]);
                    }
                },
                Err(error) => {
                    self.failed("database", &error);
                    parts.push(part);
                    if !backoff.wait(stop).await {
                        return Ok(Err(Tried::Stopped));
                    }
                }
            }
        }
        Ok(Ok(booked))
    }

    /// Puts a trace's spans of these batches into quarantine, as they came.
    fn put_aside(&self, trace: TraceId, batches: &[Batch], answer: &str) -> Result<(), Error> {
        for batch in batches {
            let mut tally = Tally::default();
            let mut span_ids = Vec::new();
            for found in wire::spans(&batch.body).filter(|found| found.span.trace_id == trace) {
                let account = Account::of(batch, project_of(&found.resource));
                tally.add(&account, Fate::Quarantined(Reason::new(REASON)), 1);
                span_ids.push(found.span.span_id.to_string());
            }
            if span_ids.is_empty() {
                continue;
            }
            let item = Item {
                consumer: NAME.into(),
                offset: batch.offset.0,
                spans: span_ids.len() as u64,
                traces: vec![trace.to_string()],
                span_ids,
                reason: REASON.into(),
                answer: answer.into(),
                at_micros: self.clock.now().micros(),
                accounts: booked(&tally),
                retries: 0,
            };
            let (body, _) = wire::only(&batch.body, |_, found| found.span.trace_id == trace);
            self.quarantine.put(&item, &body).map_err(Error::Quarantine)?;
            tracing::error!(%trace, spans = item.spans, answer, "the database refuses this trace: it is in quarantine");
        }
        Ok(())
    }
}

/// Why the recorder puts spans aside.
const REASON: &str = "unrecordable";
