//! Turns spans into rows of `prompt_traces` and rollups.
//!
//! Promise: every batch is recorded exactly once, in one transaction with the cursor, however often it fails on the way; a batch is never
//! skipped, a trace that the database refuses goes into quarantine alone. What is recorded shows in the aggregates within a second.
//! Shape:   transactions that grow with the load: a lone trace hardly waits, a backlog fills a transaction with stretches of the log
//!          (`gather`). Stretches that fail together are recorded one by one; one that fails alone is halved (`aside`).
//! Not here: what spans mean (`model::trace`), the transaction (`emberd-store`), who runs it (the wiring).
//! Kept by:  `tests`, `daemon/tests/it/kill.rs`.

mod aside;
mod gather;
mod release;
mod upkeep;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use emberd_log::{ReadError, Reader};
use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_model::ledger::{Account, Book, EARLIER, Fate, Reason, Tally, UNKNOWN_PROJECT};
use emberd_model::trace::{Folded, fold_and_count};
use emberd_model::{Batch, Clock, Offset};
use emberd_store::{Booking, RecordError, Recorded, Recording, Store, Writer};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::quarantine::Quarantine;
use crate::{Progress, chain};
use gather::{BATCH_BYTES_MAX, Load, fill, is_load};
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
    /// So many stretches are recorded one by one, for together they failed.
    alone: usize,
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
        Self { config, reader, store, quarantine, clock, progress, passed, cursor, alone: 0, upkeep: Upkeep::default() }
    }

    /// Records until the log is sealed and read to its end, or until `stop`: then it finishes what it has in hand.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
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
                    Ok(first) => match self.take(first, &stop).await? {
                        Tried::Done => self.upkeep.recorded(),
                        Tried::Moved => {}
                        Tried::Stopped => break,
                    },
                    Err(error) => self.missed(&error).await,
                },
                () = tokio::time::sleep_until(due) => {}
            }
            self.keep_up(false).await?;
        }
        self.keep_up(true).await?;
        Ok(())
    }

    /// Stands where the database's cursor stands. A database that was away when emberd started gets its tables here.
    async fn find_cursor(&mut self, stop: &CancellationToken) -> bool {
        let mut backoff = Backoff::default();
        loop {
            match self.store.migrate_up().await {
                Ok(_) => match self.store.begin_at(NAME, &self.config.writer, self.cursor).await {
                    Ok(book) => {
                        self.reader.seek(book.cursor());
                        self.stands(book);
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

    /// The database's cursor has moved, and this was booked with it.
    fn moved(&mut self, cursor: Offset, tally: &Tally) {
        self.cursor = cursor;
        self.progress.passed(cursor, tally);
        (self.passed)(cursor);
    }

    /// The database's cursor and book are so.
    fn stands(&mut self, book: Book) {
        self.cursor = book.cursor();
        self.progress.stored(book);
        (self.passed)(self.cursor);
    }

    fn failed(&self, class: &'static str, error: &(dyn std::error::Error + 'static)) {
        let chain = chain(error);
        tracing::warn!(consumer = NAME, class, error = %chain, "recording failed, trying again");
        self.progress.failed(class, &chain);
    }

    /// The log does not have what stands at the reader's position.
    async fn missed(&mut self, error: &ReadError) {
        self.failed("read", error);
        let (to, why) = match *error {
            ReadError::Gone { tail, .. } => (tail, "gone"),
            ReadError::Ahead { head, .. } => (head, "ahead"),
            ReadError::Damaged { to, .. } => (to, "damaged"),
            // The disk may recover; the batch is not given up for it.
            ReadError::Disk { .. } => return tokio::time::sleep(Duration::from_secs(1)).await,
        };
        let lost = lost(to.since(self.cursor), why);
        match self.store.skip(NAME, &self.config.writer, to, lost).await {
            Ok(book) => {
                self.reader.seek(to);
                self.stands(book);
            }
            Err(error) => {
                self.failed("cursor", &error);
                // Past damage the reader stands already: it must meet it again, or the loss would pass for recorded.
                self.reader.seek(self.cursor);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Records what follows `first`: a stretch alone while little comes; under load several, in one transaction.
    async fn take(&mut self, first: Vec<Batch>, stop: &CancellationToken) -> Result<Tried, Error> {
        let mut load = Load::begin();
        let batches = fill(first, &mut *self.reader, stop).await;
        if self.alone > 0 || !is_load(&batches) {
            self.alone = self.alone.saturating_sub(1);
            return self.record(batches, stop).await;
        }
        let (mut book, mut cursor, mut stretches) = (self.progress.book(), self.cursor, Vec::new());
        let mut next = Some(batches);
        while let Some(batches) = next {
            let Some(to) = batches.last().map(Batch::end) else { break };
            let batches = Arc::new(batches);
            let folded = self.fold(&batches).await?;
            drop(batches);
            let recording = Recording { from: cursor, ..self.recording_after(&book, folded, to, Booking::Write) };
            book.book(to, &recording.at_most());
            stretches.push(recording);
            cursor = to;
            next = load.more(&mut *self.reader, stop).await;
        }
        let taken = stretches.len();
        match self.store.record_all(stretches).await {
            Ok(done) => Ok(self.recorded(cursor, &done)),
            Err(RecordError::CursorConflict { found, .. }) => self.follow(found).await,
            Err(error) => {
                // Read again and recorded one by one, where each has its own way out.
                self.failed("database", &error);
                self.alone = taken;
                self.reader.seek(self.cursor);
                Ok(Tried::Moved)
            }
        }
    }

    /// Records a stretch, as often as it takes.
    async fn record(&mut self, batches: Vec<Batch>, stop: &CancellationToken) -> Result<Tried, Error> {
        let Some(to) = batches.last().map(Batch::end) else { return Ok(Tried::Done) };
        let batches = Arc::new(batches);
        let mut backoff = Backoff::default();
        loop {
            let folded = self.fold(&batches).await?;
            let recording = self.recording(folded, to, Booking::Write);
            match self.store.record(recording).await {
                Ok(done) => return Ok(self.recorded(to, &done)),
                Err(RecordError::CursorConflict { found, .. }) => return self.follow(found).await,
                Err(error @ RecordError::Data { .. }) => {
                    self.failed("data", &error);
                    let folded = self.fold(&batches).await?;
                    let booked = match self.record_apart(folded, &batches, stop).await? {
                        Ok(booked) => booked,
                        Err(other) => return Ok(other),
                    };
                    // All that can be recorded is, so a recording of nothing more moves the cursor.
                    let rest = Recording { booked, ..self.recording(Folded::default(), to, Booking::Write) };
                    match self.store.record(rest).await {
                        Ok(done) => return Ok(self.recorded(to, &done)),
                        Err(RecordError::CursorConflict { found, .. }) => return self.follow(found).await,
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

    fn recorded(&mut self, to: Offset, done: &Recorded) -> Tried {
        if done.late + done.unreadable > 0 {
            tracing::info!(late = done.late, unreadable = done.unreadable, "spans of settled traces change nothing");
        }
        self.progress.succeeded();
        self.progress.unpublished(true);
        self.moved(to, &done.tally);
        Tried::Done
    }

    /// The database's cursor stands elsewhere: someone else recorded these, or the database went back in time.
    async fn follow(&mut self, found: Option<Offset>) -> Result<Tried, Error> {
        tracing::warn!(ours = %self.cursor, ?found, "the database's cursor stands elsewhere: going on from there");
        self.reader.seek(found.unwrap_or_default());
        match self.store.begin_at(NAME, &self.config.writer, found.unwrap_or_default()).await {
            Ok(book) => {
                self.reader.seek(book.cursor());
                self.stands(book);
            }
            Err(error) => {
                // The next recording meets the same conflict, and asks again.
                self.failed("cursor", &error);
                self.reader.seek(self.cursor);
            }
        }
        Ok(Tried::Moved)
    }

    /// What a stretch comes to, ready to be recorded: its accounts are those that the book has.
    fn recording(&self, folded: Folded, to: Offset, booking: Booking) -> Recording {
        self.recording_after(&self.progress.book(), folded, to, booking)
    }

    /// The same, where the book will be `book` by then.
    fn recording_after(&self, book: &Book, folded: Folded, to: Offset, booking: Booking) -> Recording {
        let Folded { states, mut origins } = folded;
        origins.settle(book);
        let mut booked = Tally::default();
        origins.book_strays(&Fate::Lost(Reason::new("unreadable")), &mut booked);
        Recording {
            consumer: NAME.into(),
            writer: self.config.writer.clone(),
            from: self.cursor,
            to,
            now: self.clock.now(),
            states,
            origins,
            booked,
            booking,
            prices: self.config.prices.clone(),
        }
    }

    async fn fold(&self, batches: &Arc<Vec<Batch>>) -> Result<Folded, Error> {
        let (batches, reading) = (batches.clone(), self.config.reading.clone());
        tokio::task::spawn_blocking(move || fold_and_count(batches.iter(), &reading)).await.map_err(Error::Fold)
    }
}

/// Spans that the log no longer has. Nobody knows when they came, or whose they are.
pub(crate) fn lost(spans: u64, why: &str) -> Tally {
    let mut tally = Tally::default();
    tally.add(&Account::new(EARLIER, UNKNOWN_PROJECT), Fate::Lost(Reason::new(why)), spans as i64);
    tally
}
