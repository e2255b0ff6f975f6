//! What someone decided about quarantined traces: recorded once more, or given up.

use std::num::NonZeroU32;

use emberd_model::ledger::{Fate, Reason};
use emberd_model::trace::fold_and_count;
use emberd_model::{Batch, Flags, UnixNanos, wire};
use emberd_store::{Booking, RecordError, Recording};

use super::{Error, NAME, Recorder, chain};
use crate::quarantine::{DROPPED, Decision, Item};

impl Recorder {
    /// Does what was decided. An item that the database still refuses stays; one that it does not answer for is met again.
    pub(super) async fn release(&mut self) -> Result<(), Error> {
        for (item, decision) in self.quarantine.decided(NAME).map_err(Error::Quarantine)? {
            // It is booked as put aside when the cursor passes it, which a crash may have kept from happening.
            if item.at() >= self.cursor {
                continue;
            }
            let recording = match decision {
                Decision::Retry => self.once_more(&item)?,
                Decision::Drop => Recording {
                    booked: item.released(&Fate::Shed(Reason::new(DROPPED)), &self.progress.book()),
                    ..self.recording(Default::default(), self.cursor, Booking::Release(item.name()))
                },
            };
            match self.store.record(recording).await {
                Ok(done) => {
                    tracing::info!(item = item.name(), spans = item.spans, ?decision, "released from quarantine");
                    self.moved(self.cursor, &done.tally);
                    self.progress.unpublished(true);
                    self.upkeep.recorded();
                    self.quarantine.remove(NAME, &item.name()).map_err(Error::Quarantine)?;
                    if let Err(error) = self.store.forget_release(NAME, &self.config.writer, &item.name()).await {
                        self.failed("database", &error);
                    }
                }
                Err(RecordError::Data { code, source }) => {
                    let answer = format!("{code}: {}", chain(&*source));
                    tracing::warn!(item = item.name(), answer, "the database still refuses it");
                    self.quarantine.stays(&item, &answer).map_err(Error::Quarantine)?;
                }
                Err(RecordError::CursorConflict { found, .. }) => {
                    self.follow(found).await?;
                    return Ok(());
                }
                Err(error) => {
                    self.failed("database", &error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The recording of an item's spans, which leave quarantine with it.
    fn once_more(&self, item: &Item) -> Result<Recording, Error> {
        let body = self.quarantine.body(item).map_err(Error::Quarantine)?;
        let spans = u32::try_from(wire::spans(&body).count()).ok().and_then(NonZeroU32::new).map_or(0, NonZeroU32::get);
        let batch = Batch {
            offset: item.at(),
            spans,
            received_at: UnixNanos(u64::try_from(item.at_micros).unwrap_or(0).saturating_mul(1_000)),
            key: 0,
            flags: Flags::default(),
            body,
        };
        let folded = fold_and_count([&batch], &self.config.reading);
        let states = folded.states;
        Ok(Recording {
            states,
            booked: item.released(&Fate::Done, &self.progress.book()),
            ..self.recording(Default::default(), self.cursor, Booking::Release(item.name()))
        })
    }
}
