//! The log as a forwarder sees it, its place in there, and its book.
//!
//! Promise: the durable cursor moves only over spans whose fate is booked with it, in one record. What the log does not have is booked
//! as lost, under its reason; a cursor beyond the log's end is moved back at once, durably.
//! Not here: what becomes of spans (`plain.rs`, `verified.rs`).
//! Kept by: `tests/reading.rs`, `book/tests.rs`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emberd_log::{ReadError, Reader};
use emberd_model::ledger::Tally;
use emberd_model::{Batch, Clock, Offset, UnixNanos};
use tokio::time::Instant;

use super::choice::Chooser;
use super::feed::Piece;
use crate::Progress;
use crate::book::{BookFile, Step};
use crate::recorder::lost;

/// How often a cursor is made durable.
const CURSOR_EVERY: Duration = Duration::from_millis(250);
/// How often the budget is asked about.
const PRESS_EVERY: Duration = Duration::from_secs(1);

/// The part of the log's budget that spans behind this offset take.
pub(super) type Pressure = Box<dyn Fn(Offset) -> f64 + Send + Sync>;

pub(super) struct Source {
    reader: Box<dyn Reader>,
    file: Arc<Mutex<BookFile>>,
    clock: Arc<dyn Clock>,
    /// The cursor that is on disk.
    durable: Offset,
    /// How far the endpoint had acknowledged then.
    durable_sent: Offset,
    /// Where it may move to, and what is booked with that.
    reached: Offset,
    tally: Tally,
    stored_at: Instant,
    pressed_at: Instant,
    pressure: Pressure,
    pub(super) chooser: Option<Chooser>,
    pub(super) progress: Arc<Progress>,
    passed: Box<dyn Fn(Offset) + Send + Sync>,
}

/// What the log gave.
pub(super) enum Read {
    Batches(Vec<Batch>),
    /// Nothing more will come.
    Sealed,
    /// Something was wrong. What is passed over for it, if something is.
    Skipped(Option<Piece>),
}

/// What a source is made of.
pub(super) struct Parts {
    pub(super) reader: Box<dyn Reader>,
    pub(super) file: BookFile,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) chooser: Option<Chooser>,
    pub(super) pressure: Pressure,
    pub(super) progress: Arc<Progress>,
    pub(super) passed: Box<dyn Fn(Offset) + Send + Sync>,
}

impl Source {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { mut reader, file, clock, chooser, pressure, progress, passed } = parts;
        let durable = file.stored().book.cursor();
        reader.seek(durable);
        progress.stored(file.stored().book.clone());
        passed(durable);
        let now = Instant::now();
        Self {
            reader,
            file: Arc::new(Mutex::new(file)),
            clock,
            durable,
            durable_sent: durable,
            reached: durable,
            tally: Tally::default(),
            stored_at: now,
            pressed_at: now - PRESS_EVERY,
            pressure,
            chooser,
            progress,
            passed,
        }
    }

    pub(super) fn now(&self) -> UnixNanos {
        self.clock.now()
    }

    /// Tells the chooser how it stands with the budget.
    pub(super) fn press(&mut self) {
        let Some(chooser) = &mut self.chooser else { return };
        if self.pressed_at.elapsed() >= PRESS_EVERY {
            self.pressed_at = Instant::now();
            chooser.press((self.pressure)(self.durable), self.durable, self.pressed_at);
        }
    }

    /// Reads on. Cancel-safe.
    pub(super) async fn next(&mut self, bytes_max: usize) -> Read {
        let error = match self.reader.next(bytes_max).await {
            Ok(batches) if batches.is_empty() => return Read::Sealed,
            Ok(batches) => return Read::Batches(batches),
            Err(error) => error,
        };
        tracing::error!(consumer = self.progress.name(), %error, "spans cannot be read from the log");
        let (from, to, why) = match &error {
            ReadError::Gone { asked, tail } => {
                self.reader.seek(*tail);
                (*asked, *tail, "gone")
            }
            ReadError::Damaged { from, to } => (*from, *to, "damaged"),
            ReadError::Ahead { head, .. } => {
                self.progress.failed("ahead", &error);
                self.reader.seek(*head);
                self.move_back(*head);
                return Read::Skipped(None);
            }
            ReadError::Disk { .. } => {
                self.progress.failed("disk", &error);
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Read::Skipped(None);
            }
        };
        self.progress.failed(why, &error);
        let aside = lost(to.since(from), why);
        Read::Skipped(Some(Piece { part: None, end: to, aside }))
    }

    /// The cursor is ahead of the log. It is moved at once and durably: left as it is in its file, it would skip what the log grows to
    /// by the next start. It happens once, so that it blocks does not matter; and so it cannot be cancelled half-way.
    fn move_back(&mut self, head: Offset) {
        self.reached = head;
        let step = self.step(None, Tally::default());
        let all = self.all_decisions();
        let written = self.file.lock().unwrap_or_else(PoisonError::into_inner).step(&step, || all);
        match written {
            Ok(()) => self.stored(&step),
            // It counts as behind, so it is tried again.
            Err(error) => {
                self.not_stored(&step, &error);
            }
        }
    }

    /// Everything before `cursor` is done, and this is what became of what was not yet booked.
    pub(super) fn reach(&mut self, cursor: Offset, tally: &Tally) {
        self.reached = self.reached.max(cursor);
        self.tally.merge(tally);
    }

    /// Whether the durable cursor is behind, or what is known of when spans were sent.
    pub(super) fn is_behind(&self) -> bool {
        self.reached != self.durable || self.progress.sent_to() > self.durable_sent
    }

    /// Waits until it is time to move the durable cursor: not with each load, as the disk is the log's first of all. What a
    /// crash makes us send twice is what was sent in that time.
    pub(super) fn due(&self) -> impl Future<Output = ()> + use<> {
        tokio::time::sleep_until(self.stored_at + CURSOR_EVERY)
    }

    /// Moves the durable cursor. A disk that does not let it is tried again later.
    pub(super) async fn store(&mut self) {
        self.stored_at = Instant::now();
        if self.is_behind() {
            self.move_cursor(None, Tally::default()).await;
        }
    }

    /// Books what was decided about a quarantined item, with the cursor where it is by now. Says whether it is durable.
    pub(super) async fn release(&mut self, item: &str, tally: Tally) -> bool {
        self.move_cursor(Some(item.to_owned()), tally).await
    }

    fn step(&mut self, released: Option<String>, more: Tally) -> Step {
        let mut tally = self.tally.clone();
        tally.merge(&more);
        Step {
            cursor: self.reached,
            sent: self.progress.sent_to(),
            at: self.clock.now(),
            tally,
            released,
            decisions: self.chooser.as_mut().map(Chooser::take_fresh).unwrap_or_default(),
        }
    }

    async fn move_cursor(&mut self, released: Option<String>, more: Tally) -> bool {
        let step = Arc::new(self.step(released, more));
        let all = self.all_decisions();
        let (file, to_write) = (self.file.clone(), step.clone());
        let written = tokio::task::spawn_blocking(move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.step(&to_write, || all)
        });
        match written.await {
            Ok(Ok(())) => self.stored(&step),
            Ok(Err(error)) => return self.not_stored(&step, &error),
            Err(error) => return self.not_stored(&step, &error),
        }
        true
    }

    /// All decisions, where the next step is to hold them.
    fn all_decisions(&self) -> Vec<u8> {
        let wants_all = self.file.lock().unwrap_or_else(PoisonError::into_inner).wants_snapshot();
        self.chooser.as_ref().filter(|_| wants_all).map(Chooser::stored).unwrap_or_default()
    }

    fn stored(&mut self, step: &Step) {
        (self.durable, self.durable_sent) = (step.cursor, step.sent);
        self.tally = Tally::default();
        let book = self.file.lock().unwrap_or_else(PoisonError::into_inner).stored().book.clone();
        self.progress.stored(book);
        (self.passed)(step.cursor);
    }

    fn not_stored(&mut self, step: &Step, error: &dyn std::fmt::Display) -> bool {
        tracing::error!(consumer = self.progress.name(), %error, "the cursor does not move");
        self.progress.failed("cursor", error);
        if let Some(chooser) = &mut self.chooser {
            chooser.give_back(&step.decisions);
        }
        false
    }
}
