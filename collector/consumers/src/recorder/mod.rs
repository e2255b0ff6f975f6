//! Turns spans into rows of `prompt_traces` and rollups.
//!
//! Promise: every batch is recorded exactly once, in one transaction with the cursor, however often it fails on the way; a batch is never
//! skipped, a trace that the database refuses goes into quarantine alone. What is recorded shows in the aggregates within a second.
//! Shape:   micro-batches that grow with the load: a lone trace hardly waits, a backlog fills a transaction (`gather`).
//! Not here: what spans mean (`model::trace`), the transaction (`emberd-store`), who runs it (the wiring).
//! Kept by:  `tests`, `daemon/tests/it/kill.rs`.

mod aside;
mod backoff;
mod gather;
mod upkeep;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use emberd_log::{ReadError, Reader};
use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_model::trace::{TraceState, fold};
use emberd_model::{Batch, Clock, Offset, TraceId};
use emberd_store::{RecordError, Recording, Store, Writer};
use tokio_util::sync::CancellationToken;

use crate::Progress;
use crate::quarantine::Quarantine;
use backoff::Backoff;
use gather::{BATCH_BYTES_MAX, fill};
use upkeep::Upkeep;

/// The consumer's name: in the ledger, in quarantine, and of its cursor in the database.
pub const NAME: &str = "recorder";

/// How spans become rows.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose log it is: its cursor in the database belongs to this name.
    pub writer: Writer,
    /// How spans are read.
    pub reading: Reading,
    /// What tokens cost.
    pub prices: Arc<Prices>,
    /// How long a trace waits for its root before it gets a row without.
    pub root_wait: Duration,
    /// How long a trace must be quiet before its state is dropped.
    pub quiet: Duration,
}

/// The recorder cannot go on; nothing is lost, the next start goes on from the cursor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the database refused could not be put aside.
    #[error("cannot write to quarantine")]
    Quarantine(#[source] std::io::Error),
    /// The fold panicked: a bug, which must not cost a span.
    #[error("the fold of a batch ended abnormally")]
    Fold(#[source] tokio::task::JoinError),
}

/// The consumer.
pub struct Recorder {
    config: Config,
    reader: Box<dyn Reader>,
    store: Store,
    quarantine: Quarantine,
    clock: Arc<dyn Clock>,
    progress: Arc<Progress>,
    /// Called with each cursor that is durable.
    passed: Box<dyn Fn(Offset) + Send + Sync>,
    cursor: Offset,
    upkeep: Upkeep,
}

/// What one try to record came to.
enum Tried {
    Done,
    /// The cursor stands elsewhere, and so does the reader now.
    Moved,
    Stopped,
}

impl Recorder {
    /// A recorder that reads by `reader` and tells `passed` each durable cursor.
    pub fn new(
        config: Config,
        reader: Box<dyn Reader>,
        store: Store,
        quarantine: Quarantine,
        clock: Arc<dyn Clock>,
        progress: Arc<Progress>,
        passed: impl Fn(Offset) + Send + Sync + 'static,
    ) -> Self {
        let (cursor, passed) = (reader.position(), Box::new(passed));
        Self { config, reader, store, quarantine, clock, progress, passed, cursor, upkeep: Upkeep::default() }
    }

    /// Records until the log is sealed and read to its end, or until `stop`: then it finishes what it has in hand.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        self.progress.quarantined(self.quarantine.spans(NAME).map_err(Error::Quarantine)?);
        if !self.find_cursor(&stop).await {
            return Ok(());
        }
        loop {
            let due = self.upkeep.due();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                first = self.reader.next(BATCH_BYTES_MAX) => match first {
                    Ok(first) if first.is_empty() => break,
                    Ok(first) => {
                        let batches = fill(first, &mut *self.reader, &stop).await;
                        match self.record(batches, &stop).await? {
                            Tried::Done => self.upkeep.recorded(),
                            Tried::Moved => {}
                            Tried::Stopped => break,
                        }
                    }
                    Err(error) => self.missed(&error).await,
                },
                () = tokio::time::sleep_until(due) => {}
            }
            self.keep_up(false).await;
        }
        self.keep_up(true).await;
        Ok(())
    }

    /// Stands where the database's cursor stands. A database that was away when emberd started gets its tables here.
    async fn find_cursor(&mut self, stop: &CancellationToken) -> bool {
        let mut backoff = Backoff::default();
        loop {
            match self.store.migrate_up().await {
                Ok(_) => match self.store.begin_at(NAME, &self.config.writer, self.cursor).await {
                    Ok(cursor) => {
                        self.reader.seek(cursor);
                        self.moved(cursor);
                        return true;
                    }
                    Err(error) => self.failed("cursor", &error),
                },
                Err(error) => self.failed("schema", &error),
            }
            if !backoff.wait(stop).await {
                return false;
            }
        }
    }

    fn moved(&mut self, cursor: Offset) {
        self.cursor = cursor;
        self.progress.passed(cursor);
        (self.passed)(cursor);
    }

    fn failed(&self, class: &'static str, error: &(dyn std::error::Error + 'static)) {
        let chain = chain(error);
        tracing::warn!(consumer = NAME, class, error = %chain, "recording failed, trying again");
        self.progress.failed(class, &chain);
    }

    /// The log does not have what stands at the reader's position.
    async fn missed(&mut self, error: &ReadError) {
        self.failed("read", error);
        let to = match *error {
            ReadError::Gone { tail, .. } => tail,
            ReadError::Ahead { head, .. } => head,
            ReadError::Damaged { to, .. } => to,
            // The disk may recover; the batch is not given up for it.
            ReadError::Disk { .. } => return tokio::time::sleep(Duration::from_secs(1)).await,
        };
        match self.store.rewind(NAME, &self.config.writer, to).await {
            Ok(()) => {
                self.progress.skipped(to.since(self.cursor));
                self.reader.seek(to);
                self.moved(to);
            }
            Err(error) => {
                self.failed("cursor", &error);
                // Past damage the reader stands already: it must meet it again, or the loss would pass for recorded.
                self.reader.seek(self.cursor);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Records a micro-batch, as often as it takes.
    async fn record(&mut self, batches: Vec<Batch>, stop: &CancellationToken) -> Result<Tried, Error> {
        let Some(to) = batches.last().map(Batch::end) else { return Ok(Tried::Done) };
        let batches = Arc::new(batches);
        let mut backoff = Backoff::default();
        loop {
            let states = self.fold(&batches).await?;
            match self.store.record(self.recording(states, to)).await {
                Ok(done) => {
                    if done.late + done.unreadable > 0 {
                        tracing::info!(
                            late = done.late,
                            unreadable = done.unreadable,
                            "spans of settled traces change nothing"
                        );
                    }
                    self.progress.succeeded();
                    self.progress.unpublished(true);
                    self.moved(to);
                    return Ok(Tried::Done);
                }
                Err(RecordError::CursorConflict { found, .. }) => return Ok(self.follow(found)),
                Err(error @ RecordError::Data { .. }) => {
                    self.failed("data", &error);
                    let states = self.fold(&batches).await?;
                    match self.record_apart(states, &batches, stop).await? {
                        Tried::Done => {}
                        other => return Ok(other),
                    }
                    // All that can be recorded is, so an empty recording moves the cursor.
                    match self.store.record(self.recording(BTreeMap::new(), to)).await {
                        Ok(_) => {
                            self.progress.unpublished(true);
                            self.moved(to);
                            return Ok(Tried::Done);
                        }
                        Err(RecordError::CursorConflict { found, .. }) => return Ok(self.follow(found)),
                        Err(error) => self.failed("database", &error),
                    }
                }
                Err(error) => self.failed("database", &error),
            }
            if !backoff.wait(stop).await {
                return Ok(Tried::Stopped);
            }
        }
    }

    /// The database's cursor stands elsewhere: someone else recorded these, or the database went back in time.
    fn follow(&mut self, found: Option<Offset>) -> Tried {
        let found = found.unwrap_or_default();
        tracing::warn!(ours = %self.cursor, %found, "the database's cursor stands elsewhere: going on from there");
        self.reader.seek(found);
        self.moved(found);
        Tried::Moved
    }

    fn recording(&self, states: BTreeMap<TraceId, TraceState>, to: Offset) -> Recording {
        Recording {
            consumer: NAME.into(),
            writer: self.config.writer.clone(),
            from: self.cursor,
            to,
            now: self.clock.now(),
            states,
            prices: self.config.prices.clone(),
        }
    }

    async fn fold(&self, batches: &Arc<Vec<Batch>>) -> Result<BTreeMap<TraceId, TraceState>, Error> {
        let (batches, reading) = (batches.clone(), self.config.reading.clone());
        tokio::task::spawn_blocking(move || fold(batches.iter(), &reading)).await.map_err(Error::Fold)
    }
}

/// An error and its causes, as one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
