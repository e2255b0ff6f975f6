//! Lays spans down in the archive: columns in files, each span once.
//!
//! Promise: files, cursor and book become durable together, by one entry in the archive's manifest, so a crash anywhere repeats nothing and
//! leaves nothing out. An archive that cannot be reached is a lag: it is tried again for as long as it takes, and the log keeps what
//! waits. What the log no longer has is booked as lost, aloud.
//! Shape:   spans are gathered into columns until there are enough for a good file, or until the oldest has waited [`Config::every`]; files
//! become larger ones, and go, in `upkeep`. Memory is bounded by [`Config::gather_bytes`].
//! On disk: `DIR/archive.journal`, a copy of cursor and book for those who look while the archive cannot be reached; the manifest counts.
//! Not here: what a file or the manifest looks like (`emberd-archive`), who runs this (the wiring).
//! Kept by: `tests`, `daemon/tests/it/archive.rs`.

pub mod orders;
mod upkeep;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use emberd_archive::Part;
use emberd_archive::keeping::{self, Archive, Compaction, Place, Retention};
use emberd_archive::rows::{self, How, Rows};
use emberd_log::disk::Disk;
use emberd_log::{ReadError, Reader};
use emberd_model::ledger::{Book, Fate, Reason, Runs, Tally};
use emberd_model::wire;
use emberd_model::{Batch, Clock, Offset};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::book::{self, BookFile};
use crate::quarantine::{Item, Quarantine, booked};
use crate::recorder::lost;
use crate::{Progress, chain};
use orders::Orders;
use upkeep::Upkeep;

/// The consumer's name: in the ledger, and of its journal.
pub const NAME: &str = "archive";

/// What is asked of the log at once.
const READ_BYTES: usize = 1 << 20;
/// Why spans are put aside: a bug, which must not hold up all others.
const REASON: &str = "unarchivable";

/// How spans are archived.
#[derive(Clone, Debug)]
pub struct Config {
    /// The log's own name: its files, cursor and book in the archive belong to it.
    pub log: String,
    /// How columns are filled.
    pub how: How,
    /// How long a span waits for others before it is archived.
    pub every: Duration,
    /// How many bytes of memory columns may take before they become files.
    pub gather_bytes: usize,
    /// How many bytes of the log may wait for that: what is gathered and not committed keeps its segments.
    pub hold_bytes: u64,
    /// When small files become larger ones.
    pub compaction: Compaction,
    /// When files go.
    pub retention: Retention,
}

/// Why an archiver cannot be made, or cannot go on; nothing is lost, the next start goes on from the manifest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The copy of cursor and book cannot be used.
    #[error("cannot use the archiver's journal")]
    Book(#[from] book::Error),
    /// What cannot be archived could not be put aside.
    #[error("cannot write to quarantine")]
    Quarantine(#[source] std::io::Error),
    /// It was told to stop while the archive could not be reached.
    #[error("stopped while the archive could not be reached")]
    Interrupted,
}

/// What it reads, writes and tells.
pub struct Parts {
    /// A reader of the log, wherever it stands.
    pub reader: Box<dyn Reader>,
    /// Where the archive is.
    pub place: Arc<dyn Place>,
    /// Where the copy of cursor and book is kept, and on which disk.
    pub journal: (Arc<dyn Disk>, PathBuf),
    /// Where batches go that cannot be archived.
    pub quarantine: Quarantine,
    /// What operators ask of it meanwhile.
    pub orders: Orders,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Hears of each durable cursor, for the log to know what may go.
    pub passed: Box<dyn Fn(Offset) + Send + Sync>,
}

/// The consumer.
pub struct Archiver {
    config: Config,
    parts: Parts,
    file: BookFile,
    book: Book,
    upkeep: Upkeep,
    /// Up to there each batch goes alone, for together they failed.
    alone: Offset,
}

/// Spans on their way into the archive.
struct Gathered<'h> {
    rows: Rows<'h>,
    to: Offset,
    tally: Tally,
    since: Instant,
    /// The bytes of its requests, which the log still has.
    held: u64,
}

/// What the log gave next.
enum Next {
    /// So many spans more are gathered.
    More,
    /// It is time to write what is gathered.
    Due,
    /// Spans that the log no longer has, up to there.
    Lost(Offset, &'static str),
    /// The log ends before the cursor.
    Ahead(Offset),
    /// Nothing more will come, or it is time to stop.
    End,
}

impl Archiver {
    /// An archiver that goes on where the manifest says. Starts nothing, and reaches for nothing yet.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn new(config: Config, parts: Parts) -> Result<Self, Error> {
        let (disk, dir) = &parts.journal;
        let begin = parts.reader.position();
        let file = match BookFile::open(disk.clone(), dir, NAME, begin) {
            Err(error) if error.is_damage() => BookFile::begin_anew(disk.clone(), dir, NAME, begin)?,
            opened => opened?,
        };
        let book = file.stored().book.clone();
        parts.progress.stored(book.clone());
        Ok(Self { config, parts, file, book, upkeep: Upkeep::default(), alone: Offset(0) })
    }

    /// Archives until the log is sealed and read to its end, or until `stop`: then it writes what it has gathered.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        loop {
            let Some(mut archive) = self.open(&stop).await else { return Ok(()) };
            match self.work(&mut archive, &stop).await {
                Ok(()) => return Ok(()),
                // What was not committed is read again from the log.
                Err(Stopped::For(Error::Interrupted)) => return Ok(()),
                Err(Stopped::For(error)) => return Err(error),
                // The manifest is read again, and says where to go on.
                Err(Stopped::Archive(error)) => self.failed(&*error),
            }
            if !backoff.wait(&stop).await {
                return Ok(());
            }
        }
    }

    /// Opens the archive, as often as it takes; none: stopped before.
    async fn open(&mut self, stop: &CancellationToken) -> Option<Archive> {
        let mut backoff = Backoff::default();
        loop {
            let opened = Archive::open(self.parts.place.clone(), &self.config.log);
            let opened = tokio::select! {
                () = stop.cancelled() => return None,
                opened = opened => opened,
            };
            match opened {
                Ok(archive) => {
                    self.stand(&archive);
                    self.parts.progress.succeeded();
                    return Some(archive);
                }
                Err(error) => self.failed(&error),
            }
            if !backoff.wait(stop).await {
                return None;
            }
        }
    }

    /// Stands where the manifest says. Where it says nothing, the log's oldest span is the first.
    fn stand(&mut self, archive: &Archive) {
        let stored =
            archive.cursor().and_then(|cursor| decode(archive.book()).filter(|book| book.cursor().0 == cursor));
        let begin = || Book::begin(archive.cursor().map_or(self.parts.reader.position(), Offset));
        self.book = stored.unwrap_or_else(begin);
        self.parts.reader.seek(self.book.cursor());
        self.stands();
    }

    /// Everyone is told where cursor and book are.
    fn stands(&mut self) {
        if let Err(error) = self.file.adopt(&self.book) {
            // It is a copy: the manifest counts.
            tracing::warn!(consumer = NAME, error = %chain(&error), "the copy of the archive's cursor is behind");
        }
        self.parts.progress.stored(self.book.clone());
        (self.parts.passed)(self.book.cursor());
    }

    fn failed(&self, error: &(dyn std::error::Error + 'static)) {
        let chain = chain(error);
        tracing::warn!(consumer = NAME, error = %chain, "archiving failed, trying again");
        self.parts.progress.failed("archive", &chain);
    }

    async fn work(&mut self, archive: &mut Archive, stop: &CancellationToken) -> Result<(), Stopped> {
        let how = self.config.how.clone();
        let mut gathered: Option<Gathered<'_>> = None;
        loop {
            let next = self.next(&how, &mut gathered, stop).await?;
            if matches!(next, Next::More) {
                continue;
            }
            if let Some(Gathered { rows, to, tally, .. }) = gathered.take() {
                let parts = tokio::task::block_in_place(|| rows.finish()).map_err(Stopped::archive)?;
                self.commit(archive, to, &tally, parts, stop).await?;
            }
            match next {
                Next::Lost(to, why) => {
                    let tally = lost(to.since(self.book.cursor()), why);
                    self.commit(archive, to, &tally, Vec::new(), stop).await?;
                }
                Next::Ahead(head) => self.move_back(archive, head).await?,
                Next::End => return Ok(()),
                Next::More | Next::Due => {}
            }
            self.upkeep.keep_up(archive, &self.config, &self.parts, stop).await?;
        }
    }

    /// Reads on, into what is gathered.
    async fn next<'h>(
        &mut self,
        how: &'h How,
        gathered: &mut Option<Gathered<'h>>,
        stop: &CancellationToken,
    ) -> Result<Next, Stopped> {
        let due = gathered.as_ref().map_or(self.upkeep.due(), |gathered| gathered.since + self.config.every);
        let read = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Next::End),
            () = tokio::time::sleep_until(due) => return Ok(Next::Due),
            read = self.parts.reader.next(READ_BYTES) => read,
        };
        match read {
            Ok(batches) if batches.is_empty() => Ok(Next::End),
            Ok(batches) => tokio::task::block_in_place(|| self.gather(how, gathered, batches)),
            Err(ReadError::Gone { tail, .. }) => {
                self.parts.reader.seek(tail);
                Ok(Next::Lost(tail, "gone"))
            }
            Err(ReadError::Damaged { to, .. }) => Ok(Next::Lost(to, "damaged")),
            Err(ReadError::Ahead { head, .. }) => {
                self.parts.reader.seek(head);
                Ok(Next::Ahead(head))
            }
            Err(error @ ReadError::Disk { .. }) => {
                self.failed(&error);
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Next::More)
            }
        }
    }

    /// Takes batches in. Where that fails, all since the cursor are read again, and go one by one; one that fails alone is put aside.
    fn gather<'h>(
        &mut self,
        how: &'h How,
        gathered: &mut Option<Gathered<'h>>,
        batches: Vec<Batch>,
    ) -> Result<Next, Stopped> {
        let fresh = |to| -> Result<Gathered<'h>, rows::Error> {
            Ok(Gathered { rows: Rows::new(how)?, to, tally: Tally::default(), since: Instant::now(), held: 0 })
        };
        let mut now = match gathered.take() {
            Some(gathered) => gathered,
            None => fresh(self.book.cursor()).map_err(Stopped::archive)?,
        };
        for batch in &batches {
            let known = now.to.since(batch.offset).min(u64::from(batch.spans));
            let accounts = Runs::of(batch).slice(known..u64::from(batch.spans));
            let batch = without_first(batch, known);
            match now.rows.push(&batch) {
                Ok(()) => now.tally.merge(&accounts.tally(&Fate::Done)),
                Err(error) if now.rows.spans() == 0 && now.to < self.alone => {
                    self.put_aside(&batch, &accounts, &error).map_err(Stopped::For)?;
                    now = fresh(now.to).map_err(Stopped::archive)?;
                    now.tally = accounts.tally(&Fate::Quarantined(Reason::new(REASON)));
                }
                Err(error) => {
                    self.failed(&error);
                    self.alone = batch.end();
                    self.parts.reader.seek(self.book.cursor());
                    return Ok(Next::More);
                }
            }
            now.to = batch.end();
            now.held += batch.body.len() as u64;
            if now.to <= self.alone {
                self.parts.reader.seek(now.to);
                *gathered = Some(now);
                return Ok(Next::Due);
            }
        }
        let is_full = now.rows.bytes() >= self.config.gather_bytes || now.held >= self.config.hold_bytes;
        *gathered = Some(now);
        Ok(if is_full { Next::Due } else { Next::More })
    }

    fn put_aside(&self, batch: &Batch, accounts: &Runs, error: &rows::Error) -> Result<(), Error> {
        let spans = wire::spans(&batch.body);
        let item = Item {
            consumer: NAME.into(),
            offset: batch.offset.0,
            spans: accounts.spans(),
            traces: Vec::new(),
            span_ids: spans.map(|found| found.span.span_id.to_string()).collect(),
            reason: REASON.into(),
            answer: chain(error),
            at_micros: self.parts.clock.now().micros(),
            accounts: booked(&accounts.tally(&Fate::Quarantined(Reason::new(REASON)))),
            retries: 0,
        };
        self.parts.quarantine.put(&item, &batch.body).map_err(Error::Quarantine)?;
        tracing::error!(offset = %batch.offset, spans = item.spans, answer = item.answer, "a batch cannot be archived: it is in quarantine");
        Ok(())
    }

    /// Commits, as often as it takes.
    async fn commit(
        &mut self,
        archive: &mut Archive,
        to: Offset,
        tally: &Tally,
        parts: Vec<Part>,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        let from = self.book.cursor();
        let mut book = self.book.clone();
        book.book(to, tally);
        let mut backoff = Backoff::default();
        loop {
            match archive.commit(from.0, to.0, parts.clone(), encode(&book)).await {
                Ok(()) => break,
                Err(error) if wants_reopening(&error) => return Err(Stopped::archive(error)),
                Err(error) => self.failed(&error),
            }
            if !backoff.wait(stop).await {
                return Err(Stopped::For(Error::Interrupted));
            }
        }
        self.book = book;
        self.parts.progress.succeeded();
        self.stands();
        Ok(())
    }

    /// The log lost its end: what was archived of it stays, and its offsets are given to other spans.
    async fn move_back(&mut self, archive: &mut Archive, head: Offset) -> Result<(), Stopped> {
        let mut book = self.book.clone();
        book.moved_back(head);
        archive.move_back(head.0, encode(&book)).await.map_err(Stopped::archive)?;
        self.book = book;
        self.stands();
        Ok(())
    }
}

/// Why the work ended.
enum Stopped {
    /// The archive has to be opened again.
    Archive(Box<dyn std::error::Error + Send + Sync>),
    For(Error),
}

impl Stopped {
    fn archive(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Archive(Box::new(error))
    }
}

/// Whether the archive has to be opened anew: what it holds is not what was thought.
fn wants_reopening(error: &keeping::Error) -> bool {
    use keeping::Error as E;
    matches!(error, E::Taken { .. } | E::Cursor { .. } | E::Damaged { .. } | E::Version { .. } | E::Bound { .. })
}

/// A batch without its first spans.
fn without_first(batch: &Batch, spans: u64) -> Batch {
    if spans == 0 {
        return batch.clone();
    }
    let (body, _) = wire::only(&batch.body, |nth, _| nth as u64 >= spans);
    let left = u64::from(batch.spans).saturating_sub(spans);
    Batch { offset: batch.offset.plus(spans), spans: u32::try_from(left).unwrap_or(0), body, ..batch.clone() }
}

/// A book as the manifest keeps it.
fn encode(book: &Book) -> String {
    BASE64.encode(book.encode())
}

/// The book of a manifest's text; none if it is none.
fn decode(text: &str) -> Option<Book> {
    let bytes = BASE64.decode(text).ok()?;
    Book::decode(&mut bytes.as_slice()).ok()
}
