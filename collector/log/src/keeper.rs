//! Prepares the next segment before it is needed, and lets passed ones go.
//!
//! Promise: segments and the prepared next one take at most the budget and one segment more; what a consumer has not passed
//! stays; a full disk or a spent budget is an answer, not a failure, and ends when segments are passed.
//! A passed segment's file becomes the next segment: overwriting blocks is what disks do in even time, while a growing file
//! has a p99 ten times longer. One next segment is always kept ready, which is also the reserve for a disk that fills up.
//! Not here: when to do all this (`disk_log.rs` has a thread for it, the writer asks when it must).

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Durability;
use crate::disk::{Access, Disk};
use crate::error::SegmentId;
use crate::format::BLOCK;
use crate::segment::{SegmentFile, segment_path, spare_path, temp_path};
use crate::shelf::{Segment, Shelf};

/// The bounds that the keeper keeps to.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) dir: PathBuf,
    pub(crate) budget_bytes: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) keep: Duration,
    pub(crate) durability: Durability,
    /// How long to wait before a full disk is tried again.
    pub(crate) retry: Duration,
}

/// A segment that is ready to be written.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) id: SegmentId,
    pub(crate) file: SegmentFile,
    pub(crate) file_bytes: u64,
}

/// Why there is no segment to write to.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The budget, or the disk, is full.
    Full { used_bytes: u64, budget_bytes: u64 },
    /// The disk failed.
    Disk { segment: SegmentId, source: io::Error },
}

/// How many files of passed segments are kept for reuse, besides the prepared one.
const SPARES_MAX: usize = 2;

/// Keeps the files of the log's directory, the one that is written aside.
#[derive(Debug)]
pub(crate) struct Keeper {
    disk: Arc<dyn Disk>,
    bounds: Bounds,
    shelf: Arc<Mutex<Shelf>>,
    spares: VecDeque<SegmentId>,
    next: Option<Prepared>,
    /// The number of the segment after the newest.
    next_id: SegmentId,
    full_until: Option<Instant>,
    /// Files were put away, and their directory could not be synced since.
    unsynced: bool,
    stop: Arc<AtomicBool>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is changed in single steps: a thread that panicked left nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl Keeper {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        bounds: Bounds,
        shelf: Arc<Mutex<Shelf>>,
        spares: VecDeque<SegmentId>,
        next_id: SegmentId,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self { disk, bounds, shelf, spares, next: None, next_id, full_until: None, unsynced: false, stop }
    }

    /// Takes over a segment that was prepared before the last stop.
    pub(crate) fn adopt(&mut self, next: Option<Prepared>) {
        self.next = next;
    }

    /// Lets go of one segment that everyone has passed and whose time is over, if there is one. `now` is how long the log has
    /// been open.
    pub(crate) fn tidy(&mut self, now: Duration) -> bool {
        self.free_one(self.bounds.keep, now)
    }

    /// Makes the next segment ready, if it is not.
    pub(crate) fn stock(&mut self) -> io::Result<()> {
        if self.next.is_some() {
            return Ok(());
        }
        let id = self.next_id;
        let path = segment_path(&self.bounds.dir, id);
        match self.spares.pop_front() {
            Some(spare) => {
                let renamed = self.disk.rename(&spare_path(&self.bounds.dir, spare), &path);
                renamed.inspect_err(|_| self.spares.push_front(spare))?;
            }
            None => self.prepare(&path)?,
        }
        self.disk.sync_dir(&self.bounds.dir)?;
        let file = SegmentFile::open(&*self.disk, path, self.bounds.durability)?;
        self.next = Some(Prepared { id, file_bytes: file.len()? / BLOCK * BLOCK, file });
        self.next_id = SegmentId(id.0 + 1);
        Ok(())
    }

    /// Whether the next segment would find room, in the budget and on the disk.
    pub(crate) fn has_room(&self) -> bool {
        !self.resting() && lock(&self.shelf).file_bytes() + self.bounds.segment_bytes <= self.bounds.budget_bytes
    }

    /// Whether a full disk was met so recently that there is no use in trying again.
    pub(crate) fn resting(&self) -> bool {
        self.spares.is_empty() && self.full_until.is_some_and(|until| Instant::now() < until)
    }

    /// Notes how an attempt to stock went; gives the error if it is more than a full disk.
    pub(crate) fn stocked(&mut self, attempt: io::Result<()>) -> io::Result<()> {
        match attempt {
            Err(e) if is_full(&e) => {
                self.full_until = Some(Instant::now() + self.bounds.retry);
                Ok(())
            }
            Err(e) => Err(e),
            Ok(()) => {
                self.full_until = None;
                Ok(())
            }
        }
    }

    /// Hands out the next segment, with room for at least `bytes`. Where the budget needs it, passed segments go before
    /// their time is over.
    pub(crate) fn provide(&mut self, bytes: u64) -> Result<Prepared, Refusal> {
        let wanted = bytes.max(self.next.as_ref().map_or(self.bounds.segment_bytes, |next| next.file_bytes));
        loop {
            let used = lock(&self.shelf).file_bytes();
            if used.saturating_add(wanted) <= self.bounds.budget_bytes {
                self.spare_at_most(self.bounds.budget_bytes - used - wanted);
                break;
            }
            if !self.free_one(Duration::ZERO, Duration::ZERO) {
                return Err(Refusal::Full { used_bytes: used, budget_bytes: self.bounds.budget_bytes });
            }
        }
        loop {
            if self.next.is_none() && !self.resting() {
                let attempt = self.stock();
                self.stocked(attempt).map_err(|source| Refusal::Disk { segment: self.next_id, source })?;
            }
            if self.next.as_ref().is_some_and(|next| next.file_bytes >= bytes) || self.grow(bytes)? {
                break;
            }
            if !self.free_one(Duration::ZERO, Duration::ZERO) {
                let used = lock(&self.shelf).file_bytes();
                return Err(Refusal::Full { used_bytes: used, budget_bytes: used });
            }
        }
        let segment = self.next_id;
        self.next.take().ok_or(Refusal::Disk { segment, source: io::ErrorKind::NotFound.into() })
    }

    /// Removes spares beyond so many bytes: they must not take what segments need.
    fn spare_at_most(&mut self, bytes: u64) {
        // The first one becomes the segment after the next, and that is not counted to the budget.
        while self.spares.len() as u64 > 1 + bytes / self.bounds.segment_bytes {
            let Some(spare) = self.spares.pop_back() else { return };
            if let Err(error) = self.disk.remove(&spare_path(&self.bounds.dir, spare)) {
                tracing::warn!(segment = spare.0, %error, "a spare file could not be removed");
            }
        }
    }

    /// Makes the next segment large enough for one entry that is larger than segments are. Says whether it is.
    fn grow(&mut self, bytes: u64) -> Result<bool, Refusal> {
        let Some(next) = &mut self.next else { return Ok(false) };
        let segment = next.id;
        match next.file.fill(&*self.disk, next.file_bytes, bytes, &self.stop) {
            Ok(()) => next.file_bytes = bytes,
            Err(e) if is_full(&e) => return Ok(false),
            Err(source) => return Err(Refusal::Disk { segment, source }),
        }
        Ok(true)
    }

    /// Makes a file that was written once from end to end, under its final name.
    fn prepare(&self, path: &Path) -> io::Result<()> {
        let temp = temp_path(&self.bounds.dir);
        drop(self.disk.create(&temp, Access::Write)?);
        let mut file = SegmentFile::open(&*self.disk, temp.clone(), self.bounds.durability)?;
        let filled = file.fill(&*self.disk, 0, self.bounds.segment_bytes, &self.stop);
        let named = filled.and_then(|()| self.disk.rename(&temp, path));
        if named.is_err() {
            // On a full disk what was filled so far must not stay; should this fail too, the next attempt overwrites it.
            let _ = self.disk.remove(&temp);
        }
        named
    }

    /// Lets the oldest segment go, if everyone passed it `keep` ago. Says whether one went.
    ///
    /// Segments vanish in order, on the disk too: a gap would look like a loss. So one whose file cannot be put away stays, and
    /// all after it, until it can.
    fn free_one(&mut self, keep: Duration, now: Duration) -> bool {
        if self.unsynced && !self.sync_names() {
            return false;
        }
        let (segment, used) = {
            let mut shelf = lock(&self.shelf);
            let Some(segment) = shelf.take_passed(keep, now) else { return false };
            (segment, shelf.file_bytes())
        };
        if let Err(error) = self.put_away(segment, used) {
            tracing::warn!(segment = segment.id.0, %error, "a passed segment's file could not be put away");
            lock(&self.shelf).put_back(segment);
            return false;
        }
        self.sync_names();
        true
    }

    fn put_away(&mut self, segment: Segment, used: u64) -> io::Result<()> {
        let path = segment_path(&self.bounds.dir, segment.id);
        let kept = (self.spares.len() as u64 + 1) * self.bounds.segment_bytes;
        let fits = used + kept <= self.bounds.budget_bytes && self.spares.len() < SPARES_MAX;
        // With nothing prepared, this file is what will be written next, budget or not.
        let needed = self.next.is_none() && self.spares.is_empty();
        let useful = segment.file_bytes == self.bounds.segment_bytes && (fits || needed);
        let done = match useful {
            true => self.disk.rename(&path, &spare_path(&self.bounds.dir, segment.id)),
            false => self.disk.remove(&path),
        };
        match done {
            Ok(()) if useful => self.spares.push_back(segment.id),
            // Someone else has removed it.
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        Ok(())
    }

    /// Makes the names of files durable that were put away. Says whether they are.
    fn sync_names(&mut self) -> bool {
        let synced = self.disk.sync_dir(&self.bounds.dir);
        if let Err(error) = &synced {
            tracing::warn!(%error, "the log's directory could not be synced");
        }
        self.unsynced = synced.is_err();
        !self.unsynced
    }
}
