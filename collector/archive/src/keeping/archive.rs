//! The one writer of a log's part of the archive.
//!
//! Promise: see [`keeping`](super). An entry is put only where none is, so the number decides between two that try; whoever opens
//! takes a number first, and only then removes what no entry names. So nothing that an older process still has on its way can
//! count afterwards.
//! After a failure it is not known what took effect. The next call settles it before it does anything else: it takes the number
//! that the failed attempt wanted. Either that attempt has it, and counts, or it never will.
//! Not here: what an entry looks like (`manifest.rs`); whether a place can put only where nothing is (`place.rs`).

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::manifest::{ENTRY_BYTES_MAX, Entry, File, Kind, Sealed, VERSION};
use super::name::{self, DATE, DataName, MANIFESTS, PARTS_MAX};
use super::place::{Place, PlaceError};
use super::state::State;
use crate::part::Part;

/// After so many entries one is whole, and those before it go.
pub const WHOLE_EVERY: u64 = 64;
/// With more files none is: it could not be read. Reading then takes all entries since the last whole one.
const WHOLE_FILES_MAX: usize = 150_000;
/// How many files are put at once.
const PUTS_AT_ONCE: usize = 4;
/// How often opening takes up what another writer wrote meanwhile, before it says so.
const OPENS_MAX: usize = 8;

/// The writer of one log's part of the archive.
#[derive(Debug)]
pub struct Archive {
    pub(super) place: Arc<dyn Place>,
    pub(super) state: State,
    writer: String,
    /// What was begun and did not end.
    unsettled: Option<Attempt>,
    /// Files that never counted. They go before anything else is done, for their spans will come again.
    orphans: Vec<String>,
    /// Files that count no more, and entries before a whole one.
    rubbish: Vec<String>,
    /// Another writer has taken this log over.
    is_taken: bool,
    /// After so many entries one is whole.
    pub(super) whole_every: u64,
    /// A file that is being rewritten, and what to count if it is.
    pub(super) doubtful: Option<(String, super::rewriting::Totals)>,
    /// Files that were found to be other than the manifest says: they are left as they are.
    pub(super) damaged: std::collections::BTreeSet<String>,
}

/// An entry on its way.
#[derive(Clone, Debug)]
struct Attempt {
    entry: Entry,
    sealed: Sealed,
}

/// What an entry is to change.
pub(super) struct Change {
    pub(super) kind: Kind,
    /// The new cursor and book, for a commit.
    pub(super) commit: Option<(u64, u64, String)>,
    /// New files, with the offsets that their spans lie between.
    pub(super) parts: Vec<(u64, u64, Part)>,
    pub(super) removed: Vec<String>,
}

impl Archive {
    /// Opens the archive of `log` for writing, from then on as the only one: makes an entry of its own, and removes what no entry
    /// names. May be tried again after an error.
    pub async fn open(place: Arc<dyn Place>, log: &str) -> Result<Self, Error> {
        Self::open_as(place, log, nonce()).await
    }

    /// Opens it as `writer`, 32 hexadecimal digits that nobody else has.
    pub(crate) async fn open_as(place: Arc<dyn Place>, log: &str, writer: String) -> Result<Self, Error> {
        let state = State::read(&*place, log).await?;
        let mut archive = Self {
            place,
            state,
            writer,
            unsettled: None,
            orphans: Vec::new(),
            rubbish: Vec::new(),
            is_taken: false,
            whole_every: WHOLE_EVERY,
            doubtful: None,
            damaged: std::collections::BTreeSet::new(),
        };
        for _ in 0..OPENS_MAX {
            let entry = archive.empty_entry(Kind::Opened);
            match archive.put(Attempt { sealed: entry.encode()?, entry }).await {
                Ok(()) => {
                    archive.find_orphans().await?;
                    archive.clean().await?;
                    return Ok(archive);
                }
                // An older writer's entry came first: it counts.
                Err(Error::Taken { .. }) => {
                    archive.is_taken = false;
                    archive.state = State::read(&*archive.place, log).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Taken { log: log.to_owned() })
    }

    /// Where the archive goes on: the offset of the first span that is not in it; none if nothing was ever committed.
    #[must_use]
    pub fn cursor(&self) -> Option<u64> {
        self.state.cursor
    }

    /// The book of the last commit; empty if there was none.
    #[must_use]
    pub fn book(&self) -> &str {
        &self.state.book
    }

    /// What counts of this log.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Commits the spans `from..to` of the log, their files, and the book, together.
    ///
    /// `from` must be the cursor, unless nothing was committed yet. Parts may be none: the spans are passed all the same. After an
    /// error, ask again with the same offsets: if the first call took effect after all, the second changes nothing. If other
    /// offsets are wanted, begin at [`Archive::cursor`], after [`Archive::settle`].
    pub async fn commit(&mut self, from: u64, to: u64, parts: Vec<Part>, book: String) -> Result<(), Error> {
        self.settle().await?;
        if self.state.last == Some((from, to)) && self.state.cursor == Some(to) {
            return Ok(());
        }
        if let Some(cursor) = self.state.cursor.filter(|cursor| *cursor != from) {
            return Err(Error::Cursor { cursor, from, to });
        }
        let parts = parts.into_iter().map(|part| (from, to, part)).collect();
        let commit = Some((from, to, book));
        self.change(Change { kind: Kind::Commit, commit, parts, removed: Vec::new() }).await?;
        if let Err(error) = self.clean().await {
            // The commit is durable; what is left over is removed by the next call, or at the next opening.
            tracing::warn!(%error, log = self.state.log, "files that count no more are still there");
        }
        Ok(())
    }

    /// Moves the cursor back to `to`, where the log ends, with this book: the log lost its end, and will give these offsets to other spans. The
    /// files of what it lost stay, for those spans were accepted. Where the cursor is not beyond `to`, nothing is done.
    pub async fn move_back(&mut self, to: u64, book: String) -> Result<(), Error> {
        self.settle().await?;
        let Some(cursor) = self.state.cursor.filter(|cursor| *cursor > to) else { return Ok(()) };
        let commit = Some((cursor, to, book));
        self.change(Change { kind: Kind::Back, commit, parts: Vec::new(), removed: Vec::new() }).await
    }

    /// Makes sure of what took effect of a call that failed or was dropped, and removes what did not. Other calls do this first.
    pub async fn settle(&mut self) -> Result<(), Error> {
        if self.is_taken {
            return Err(Error::Taken { log: self.state.log.clone() });
        }
        if let Some(attempt) = self.unsettled.clone() {
            self.fence(attempt).await?;
        }
        self.remove_orphans().await
    }

    /// Takes the number that a failed attempt wanted, unless it has it.
    async fn fence(&mut self, attempt: Attempt) -> Result<(), Error> {
        let fence = self.empty_entry(Kind::Opened);
        let sealed = fence.encode()?;
        let name = name::entry_name(&fence.log, fence.seq);
        let found = match self.place.put_new(&name, sealed.0.clone()).await {
            Ok(()) => sealed.0.clone(),
            Err(PlaceError::Exists { .. }) => self.place.get(&name, ENTRY_BYTES_MAX).await?,
            Err(error) => return Err(error.into()),
        };
        if found == attempt.sealed.0 {
            return self.adopt(attempt);
        }
        if found != sealed.0 {
            self.is_taken = true;
            return Err(Error::Taken { log: self.state.log.clone() });
        }
        let names: Vec<String> = attempt.entry.added.into_iter().map(|file| file.name).collect();
        // A whole entry names files that have counted for long.
        self.orphans.extend(names.into_iter().filter(|name| !self.state.files.contains_key(name)));
        self.adopt(Attempt { entry: fence, sealed })
    }

    /// Puts the change's files, then its entry.
    pub(super) async fn change(&mut self, change: Change) -> Result<(), Error> {
        if change.parts.len() > PARTS_MAX {
            return Err(Error::Bound { what: "more than 1000 files at once" });
        }
        if let Some((from, to, _)) = &change.commit
            && from >= to
            && change.kind != Kind::Back
        {
            return Err(Error::Bound { what: "a commit of no offsets" });
        }
        let mut entry = self.empty_entry(change.kind);
        if let Some((from, to, book)) = change.commit {
            (entry.from, entry.to, entry.book) = (Some(from), Some(to), book);
        }
        let files = self.described(change.parts).await?;
        entry.added.extend(files.iter().map(|(file, _)| file.clone()));
        match entry.whole {
            true => entry.added.retain(|file| !change.removed.contains(&file.name)),
            false => entry.removed.clone_from(&change.removed),
        }
        let attempt = Attempt { sealed: entry.encode()?, entry };
        // From here on the call may fail, or be dropped, with some of it done.
        self.unsettled = Some(attempt.clone());
        let place = &self.place;
        let puts = files.into_iter().map(|(file, bytes)| async move { place.put(&file.name, bytes).await });
        futures_util::stream::iter(puts).buffer_unordered(PUTS_AT_ONCE).try_collect::<()>().await?;
        self.put(attempt).await
    }

    /// Names the parts, and counts their check sums.
    async fn described(&self, parts: Vec<(u64, u64, Part)>) -> Result<Vec<(File, Bytes)>, Error> {
        let (log, seq) = (self.state.log.clone(), self.state.next);
        let describe = move || -> Result<Vec<(File, Bytes)>, Error> {
            let mut files = Vec::with_capacity(parts.len());
            for (nth, (from, to, part)) in parts.into_iter().enumerate() {
                let name = DataName { day: part.day, log: log.clone(), from, to, seq, part: nth as u32 };
                let name = name.text().ok_or(Error::Bound { what: "a day after the year 9999" })?;
                let file = File {
                    name,
                    rows: part.rows,
                    bytes: part.file.len() as u64,
                    sha256: Sha256::digest(&part.file).into(),
                    start_min: part.start_min,
                    start_max: part.start_max,
                };
                files.push((file, part.file));
            }
            Ok(files)
        };
        let described = tokio::task::spawn_blocking(describe).await;
        described.map_err(|_| Error::Bound { what: "a file whose check sum cannot be counted" })?
    }

    /// An entry that changes nothing; whole, if it is time for one.
    fn empty_entry(&self, kind: Kind) -> Entry {
        let State { log, cursor, book, files, next, previous, whole, .. } = &self.state;
        let is_due = next - whole >= self.whole_every && files.len() <= WHOLE_FILES_MAX;
        let is_whole = previous.is_none() || is_due;
        Entry {
            emberd_manifest: VERSION,
            log: log.clone(),
            seq: *next,
            kind,
            writer: self.writer.clone(),
            previous: *previous,
            from: *cursor,
            to: *cursor,
            whole: is_whole,
            added: if is_whole { files.values().cloned().collect() } else { Vec::new() },
            removed: Vec::new(),
            book: book.clone(),
        }
    }

    /// Puts an entry: the commit.
    async fn put(&mut self, attempt: Attempt) -> Result<(), Error> {
        let name = name::entry_name(&attempt.entry.log, attempt.entry.seq);
        match self.place.put_new(&name, attempt.sealed.0.clone()).await {
            Ok(()) => {}
            // Perhaps by this very call: the way there may have tried twice.
            Err(PlaceError::Exists { .. }) => {
                if self.place.get(&name, ENTRY_BYTES_MAX).await? != attempt.sealed.0 {
                    self.is_taken = true;
                    return Err(Error::Taken { log: attempt.entry.log });
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.adopt(attempt)
    }

    /// An entry is there: it counts.
    fn adopt(&mut self, Attempt { entry, sealed }: Attempt) -> Result<(), Error> {
        let (is_whole, seq, since) = (entry.whole, entry.seq, self.state.whole);
        let before = if is_whole { self.state.files.keys().cloned().collect() } else { entry.removed.clone() };
        self.state.take(entry, sealed.1)?;
        self.rubbish.extend(before.into_iter().filter(|name| !self.state.files.contains_key(name)));
        if is_whole {
            self.rubbish.extend((since..seq).map(|seq| name::entry_name(&self.state.log, seq)));
        }
        self.unsettled = None;
        Ok(())
    }

    /// Removes what lies there of this log and counts for nothing, and says how many files that were. Opening does so; a put that
    /// took effect only after its process had died is found by doing it again, once a day, say.
    pub async fn sweep(&mut self) -> Result<usize, Error> {
        // First, for until then it is not known whether the files of an attempt count.
        self.settle().await?;
        self.find_orphans().await?;
        let found = self.orphans.len();
        self.clean().await?;
        Ok(found)
    }

    /// Notes what lies there of this log and counts for nothing. Nothing is unsettled.
    async fn find_orphans(&mut self) -> Result<(), Error> {
        let entries = self.place.list(&format!("{MANIFESTS}{}/", self.state.log)).await?;
        let data = self.place.list("").await?;
        let is_orphan = |name: &String| {
            let counts = match name::entry_of(name) {
                Some((_, seq)) => seq >= self.state.whole,
                None => self.state.files.contains_key(name),
            };
            name::is_of(name, &self.state.log) && !counts
        };
        let data = data.into_iter().filter(|file| file.name.starts_with(DATE));
        let found: Vec<String> = entries.into_iter().chain(data).map(|file| file.name).filter(is_orphan).collect();
        self.orphans.extend(found);
        Ok(())
    }

    async fn remove_orphans(&mut self) -> Result<(), Error> {
        if !self.orphans.is_empty() {
            self.place.delete(&self.orphans).await?;
            self.orphans.clear();
        }
        Ok(())
    }

    /// Removes everything that counts for nothing, as far as it is known.
    pub(super) async fn clean(&mut self) -> Result<(), Error> {
        self.remove_orphans().await?;
        if !self.rubbish.is_empty() {
            self.place.delete(&self.rubbish).await?;
            self.rubbish.clear();
        }
        Ok(())
    }
}

/// 32 hexadecimal digits that no other process has.
fn nonce() -> String {
    // Each hasher of the standard library has keys of its own, by the system's randomness.
    let half = || std::hash::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}
