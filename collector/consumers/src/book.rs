//! A consumer's cursor and book in a file: for consumers without a database of their own.
//!
//! Promise: cursor and book move together, in one record of a journal, or not at all; when they moved is kept, coarser the longer ago.
//! A journal that is damaged costs repetition and the book, said aloud, never a span: the consumer begins anew where the log begins.
//! On disk:  `DIR/NAME.journal` ([`emberd_log::journal`]): a snapshot, then steps. `DIR/NAME.cursor` is what came before it.
//! Not here: what a consumer does; the recorder's book, which is in its database.
//! Kept by:  `tests`.

use std::path::Path;
use std::sync::Arc;

use emberd_log::disk::Disk;
use emberd_log::{CursorError, CursorFile, Journal, JournalError, journal};
use emberd_model::ledger::{Book, Tally};
use emberd_model::{Offset, UnixNanos};

use crate::moments::{Moment, Moments};

/// A journal is written anew, as one snapshot, when its steps take more than this.
const STEPS_BYTES_MAX: u64 = 1 << 20;

const SNAPSHOT: u8 = 1;
const STEP: u8 = 2;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal.
    #[error("cannot use the consumer's journal")]
    Journal(#[from] JournalError),
    /// What came before the journal.
    #[error("cannot use the consumer's cursor")]
    Cursor(#[from] CursorError),
    /// The records are whole, and not a book's.
    #[error("the consumer's journal {name} holds something else")]
    Foreign {
        /// The consumer.
        name: String,
    },
}

impl Error {
    /// Whether what is stored is of no use, as against a disk that does not answer.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Journal(JournalError::Corrupt { .. })
                | Self::Cursor(CursorError::Corrupt { .. })
                | Self::Foreign { .. }
        )
    }
}

/// One movement of cursor and book.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Where the cursor moves to. Before where it stands: the log lost its end.
    pub cursor: Offset,
    /// How far the far end has acknowledged.
    pub sent: Offset,
    /// Now.
    pub at: UnixNanos,
    /// What became of the spans between.
    pub tally: Tally,
    /// The quarantined item that the tally decides, until its files are gone.
    pub released: Option<String>,
    /// Decisions about traces, to be found again: see [`BookFile::decisions`].
    pub decisions: Vec<u8>,
}

/// What is stored, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Cursor and book.
    pub book: Book,
    /// When they moved.
    pub moments: Moments,
    /// A quarantined item that was decided, and whose files may still be there.
    pub released: Option<String>,
    /// All decisions since the last snapshot's, in order, that one's first.
    pub decisions: Vec<Vec<u8>>,
}

/// The file, open for writing.
#[derive(Debug)]
pub struct BookFile {
    journal: Journal,
    stored: Stored,
    /// A step may or may not be on disk: the next record replaces all.
    uncertain: bool,
}

impl BookFile {
    /// Opens the book of `name` in `dir`, which is made if missing. A consumer that has none begins one: at its old cursor, else at
    /// `begin`.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, name: &str, begin: Offset) -> Result<Self, Error> {
        let (journal, found) = Journal::open(disk.clone(), dir, name)?;
        let stored = match Stored::of(&found.records, name)? {
            Some(stored) => stored,
            None => {
                let cursor = CursorFile::open_on(disk, dir, name)?.load()?;
                Stored { book: Book::begin(cursor.unwrap_or(begin)), ..Stored::default() }
            }
        };
        let is_new = found.records.is_empty();
        let mut file = Self { journal, stored, uncertain: is_new };
        if is_new {
            let snapshot = file.stored.encode(&[]);
            file.journal.replace(&snapshot)?;
            file.uncertain = false;
        }
        Ok(file)
    }

    /// Begins anew at `begin` where what is stored is damaged: the damaged file gives way.
    pub fn begin_anew(disk: Arc<dyn Disk>, dir: &Path, name: &str, begin: Offset) -> Result<Self, Error> {
        for old in ["journal", "cursor"] {
            let path = dir.join(format!("{name}.{old}"));
            match disk.rename(&path, &dir.join(format!("{name}.{old}.damaged"))) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(JournalError::Disk { action: "rename", path, source }.into()),
            }
        }
        Self::open(disk, dir, name, begin)
    }

    /// What is stored.
    #[must_use]
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Decisions that were stored, oldest first; the caller takes them in once.
    pub fn decisions(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.stored.decisions)
    }

    /// Whether the next step becomes a snapshot, for which all decisions are wanted.
    #[must_use]
    pub fn wants_snapshot(&self) -> bool {
        self.uncertain || self.journal.bytes() > STEPS_BYTES_MAX
    }

    /// Puts this book in place of what is stored, durably: of a consumer whose own is kept elsewhere too, and counts there.
    ///
    /// # Errors
    /// The journal.
    pub fn adopt(&mut self, book: &Book) -> Result<(), Error> {
        let moved = Stored { book: book.clone(), ..self.stored.clone() };
        self.uncertain = true;
        self.journal.replace(&moved.encode(&[]))?;
        (self.stored, self.uncertain) = (moved, false);
        Ok(())
    }

    /// Moves cursor and book, durably. `all_decisions` gives all that must be found again, should this become a snapshot. After an
    /// error it may have moved on disk; the same step is to be tried again, and is not counted twice. Blocks on the disk.
    pub fn step(&mut self, step: &Step, all_decisions: impl FnOnce() -> Vec<u8>) -> Result<(), Error> {
        let mut moved = self.stored.clone();
        moved.take(step);
        // Whoever decided remembers; the file is asked at the next start.
        moved.decisions.clear();
        let done = if self.wants_snapshot() {
            self.journal.replace(&moved.encode(&all_decisions()))
        } else {
            self.journal.append(&step.encode())
        };
        self.uncertain = done.is_err();
        done?;
        self.stored = moved;
        Ok(())
    }
}

/// What is stored of a consumer, read beside a daemon that may run; none if there is nothing.
pub fn read(disk: Arc<dyn Disk>, dir: &Path, name: &str) -> Result<Option<Stored>, Error> {
    if let Some(found) = journal::read(&*disk, dir, name)? {
        return Stored::of(&found.records, name);
    }
    let cursor = CursorFile::open_on(disk, dir, name)?.load()?;
    Ok(cursor.map(|cursor| Stored { book: Book::begin(cursor), ..Stored::default() }))
}

impl Stored {
    fn of(records: &[Vec<u8>], name: &str) -> Result<Option<Self>, Error> {
        let foreign = || Error::Foreign { name: name.to_owned() };
        let Some((snapshot, steps)) = records.split_first() else { return Ok(None) };
        let mut stored = Self::decode(snapshot).ok_or_else(foreign)?;
        for step in steps {
            stored.take(&Step::decode(step).ok_or_else(foreign)?);
        }
        Ok(Some(stored))
    }

    fn take(&mut self, step: &Step) {
        if step.cursor < self.book.cursor() {
            self.book.moved_back(step.cursor);
        }
        self.book.book(step.cursor, &step.tally);
        self.moments.add(Moment { at: step.at, sent: step.sent, done: step.cursor });
        self.released.clone_from(&step.released);
        if !step.decisions.is_empty() {
            self.decisions.push(step.decisions.clone());
        }
    }

    fn encode(&self, decisions: &[u8]) -> Vec<u8> {
        let mut out = vec![SNAPSHOT];
        put_bytes(&mut out, &self.book.encode());
        put_bytes(&mut out, &self.moments.encode());
        put_bytes(&mut out, self.released.as_deref().unwrap_or("").as_bytes());
        put_bytes(&mut out, decisions);
        out
    }

    fn decode(record: &[u8]) -> Option<Self> {
        let (&SNAPSHOT, mut rest) = record.split_first()? else { return None };
        let book = Book::decode(&mut take_bytes(&mut rest)?).ok()?;
        let moments = Moments::decode(take_bytes(&mut rest)?)?;
        let released = name_of(take_bytes(&mut rest)?)?;
        let decisions = take_bytes(&mut rest)?;
        let decisions = if decisions.is_empty() { Vec::new() } else { vec![decisions.to_vec()] };
        rest.is_empty().then_some(Self { book, moments, released, decisions })
    }
}

impl Step {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![STEP];
        for number in [self.cursor.0, self.sent.0, self.at.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put_bytes(&mut out, self.released.as_deref().unwrap_or("").as_bytes());
        put_bytes(&mut out, &self.decisions);
        self.tally.encode(&mut out);
        out
    }

    fn decode(record: &[u8]) -> Option<Self> {
        let (&STEP, mut rest) = record.split_first()? else { return None };
        let mut number = || {
            let (bytes, left) = rest.split_first_chunk()?;
            rest = left;
            Some(u64::from_le_bytes(*bytes))
        };
        let (cursor, sent, at) = (Offset(number()?), Offset(number()?), UnixNanos(number()?));
        let released = name_of(take_bytes(&mut rest)?)?;
        let decisions = take_bytes(&mut rest)?.to_vec();
        let tally = Tally::decode(&mut rest).ok()?;
        rest.is_empty().then_some(Self { cursor, sent, at, tally, released, decisions })
    }
}

fn name_of(bytes: &[u8]) -> Option<Option<String>> {
    let name = str::from_utf8(bytes).ok()?;
    Some((!name.is_empty()).then(|| name.to_owned()))
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first_chunk()?;
    let (bytes, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests;
