//! What a directory holds after whatever happened to it.
//!
//! Promise: every batch that was acked and that the disk still has is kept, byte for byte; what was being written when the
//! power went is kept up to its first hole and gone after it; nothing appears that was not appended. What is missing though a
//! later commit proves that it was durable is reported as damage, and is never mistaken for the end. Doing it twice, or dying
//! half way and doing it again, is the same as doing it once. Files that are not the log's are not touched.
//! How long it takes depends on one segment's size, not on the backlog: of closed segments only the header is read.
//! Not here: damage inside closed segments (readers meet it; `inspect.rs` looks for it).
//! Kept by:  `tests::crash`, at every call of a workload, with every kind of half-written disk.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use emberd_model::{Offset, UnixNanos};

use crate::config::Durability;
use crate::disk::{Access, Disk, read_full_at};
use crate::error::{OpenError, SegmentId};
use crate::format::{BLOCK, Commit, Head, Place, VERSION};
use crate::keeper::Prepared;
use crate::scan::{self, CHUNK_BYTES, Step, Walk, Window};
use crate::segment::{Named, SegmentFile, segment_path, spare_path, temp_path};
use crate::shelf::{Segment, Shelf};
use crate::writer::{Active, Writer};

/// What was found when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// How many segments hold batches.
    pub segments: usize,
    /// Bytes of a last write that was cut off before anyone was told that it was durable; they are gone.
    pub torn_bytes: u64,
    /// Spans that were acked and cannot be read any more, as far as was looked: the last segment, and gaps between segments.
    pub damaged: Vec<Damage>,
    /// Files that are not the log's; they are left alone.
    pub unknown: Vec<String>,
    /// Where the next batch begins.
    pub head: Offset,
    /// The oldest place that can be read.
    pub tail: Offset,
    /// How long it took.
    pub took: Duration,
}

/// Spans that were acked and are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment they were in, or the one before the gap where whole segments are missing.
    pub segment: SegmentId,
    /// The first damaged byte in the segment's file.
    pub at: u64,
    /// The first span lost.
    pub from: Offset,
    /// The first span after the loss.
    pub to: Offset,
}

/// A log that can be gone on with.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) writer: Writer,
    pub(crate) shelf: Shelf,
    pub(crate) spares: VecDeque<SegmentId>,
    pub(crate) next: Option<Prepared>,
    pub(crate) next_id: SegmentId,
    pub(crate) report: Recovery,
}

/// A file that is named like a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentName {
    pub(crate) id: SegmentId,
    pub(crate) len: u64,
}

#[derive(Debug)]
struct Candidate {
    name: SegmentName,
    head: Head,
}

/// What is known of a segment once it was looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) id: SegmentId,
    len: u64,
    pub(crate) salt: u64,
    pub(crate) base: Offset,
    /// Whether the header says so, or the first commit: else something may be missing before it.
    base_is_sure: bool,
}

/// Where the newest segment ends.
#[derive(Debug)]
struct End {
    known: Known,
    /// Whether its header is whole.
    headed: bool,
    last: Option<(u64, Commit)>,
}

/// Reads a directory, repairs what a crash left of the last write, and puts away what is in the way.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    segment_bytes: u64,
    durability: Durability,
    now: UnixNanos,
) -> Result<Recovered, OpenError> {
    let began = Instant::now();
    let mut recovery = Recovering { disk: &**disk, dir, report: Recovery::default() };
    let (mut candidates, spares) = recovery.list()?;
    let newest = candidates.iter().map(|candidate| candidate.name.id).chain(spares.iter().map(|(id, _)| *id)).max();
    let next_id = SegmentId(newest.map_or(1, |id| id.0 + 1));

    let mut blank = Vec::new();
    let mut end = None;
    while let Some(last) = candidates.pop() {
        end = recovery.end_of(&last)?;
        match (&end, last.head) {
            (Some(_), _) => break,
            (None, Head::Foreign) => recovery.report.unknown.push(file_name(last.name.id)),
            (None, _) => blank.push(last.name),
        }
    }
    let mut segments = recovery.closed(candidates, end.as_ref().map(|end| end.known))?;
    // Up to here nothing was changed: whatever was refused can be looked at as it was.
    let mut writer = Writer::new(Arc::clone(disk), durability, None, Offset(0));
    if let Some(end) = end {
        writer = recovery.resume(disk, end, durability, now)?;
        segments.extend(writer.active().map(|active| Segment {
            id: active.id,
            salt: active.salt,
            base: active.base,
            end: writer.head(),
            file_bytes: active.file_bytes,
            written_bytes: active.at,
            passed_at: None,
        }));
    }
    let next = recovery.next(blank, durability)?;
    let spares = recovery.spares(spares, segment_bytes)?;
    // What was renamed by a process that was killed may not be durable under its name.
    disk.sync_dir(dir).map_err(|source| recovery.failed("sync", dir.to_owned())(source))?;

    let mut report = recovery.report;
    report.segments = segments.len();
    report.head = writer.head();
    report.tail = segments.front().map_or(report.head, |first| first.base);
    report.took = began.elapsed();
    Ok(Recovered { writer, shelf: Shelf::new(segments), spares, next, next_id, report })
}

fn file_name(id: SegmentId) -> String {
    let path = segment_path(Path::new(""), id);
    path.to_string_lossy().into_owned()
}

struct Recovering<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    report: Recovery,
}

impl Recovering<'_> {
    fn failed(&self, action: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> OpenError + use<> {
        move |source| OpenError::Disk { action, path, source }
    }

    fn path(&self, id: SegmentId) -> PathBuf {
        segment_path(self.dir, id)
    }

    /// The files that are named like segments, oldest first, with what their first blocks say, and the spares.
    #[allow(clippy::type_complexity, reason = "read in one place, on the next line")]
    fn list(&mut self) -> Result<(Vec<Candidate>, Vec<(SegmentId, u64)>), OpenError> {
        let listed = self.disk.list(self.dir).map_err(self.failed("list", self.dir.to_owned()))?;
        let (mut candidates, mut spares) = (Vec::new(), Vec::new());
        for file in listed {
            match Named::of(&file.name) {
                Named::Segment(id) => {
                    candidates.push(Candidate { name: SegmentName { id, len: file.len }, head: self.head(id)? })
                }
                Named::Spare(id) => spares.push((id, file.len)),
                Named::Own => {}
                Named::Unknown => self.report.unknown.push(file.name),
            }
        }
        candidates.sort_by_key(|candidate| candidate.name.id);
        spares.sort();
        Ok((candidates, spares))
    }

    fn head(&self, id: SegmentId) -> Result<Head, OpenError> {
        let path = self.path(id);
        let file = self.disk.open(&path, Access::Read).map_err(self.failed("open", path.clone()))?;
        let mut bytes = [0; 64];
        let read = read_full_at(&*file, &mut bytes, 0).map_err(self.failed("read", path.clone()))?;
        match Head::decode(&bytes[..read]) {
            Head::Future(version) => Err(OpenError::FutureVersion { path, version, known: VERSION }),
            head => Ok(head),
        }
    }

    /// Where a segment ends; none if nothing in it is readable.
    fn end_of(&self, candidate: &Candidate) -> Result<Option<End>, OpenError> {
        let path = self.path(candidate.name.id);
        let read = || -> io::Result<Option<End>> {
            let file = self.disk.open(&path, Access::Read)?;
            let mut window = Window::new(&*file, candidate.name.len, CHUNK_BYTES);
            let Some((known, headed)) = know(candidate.name, candidate.head, &mut window)? else { return Ok(None) };
            let last = scan::last_commit(&mut window, known.id, known.salt)?;
            Ok((headed || last.is_some()).then_some(End { known, headed, last }))
        };
        read().map_err(self.failed("read", path.clone()))
    }

    /// The segments before the newest: their headers say where they begin, and so where the ones before them end.
    fn closed(&mut self, candidates: Vec<Candidate>, newest: Option<Known>) -> Result<VecDeque<Segment>, OpenError> {
        let mut segments = VecDeque::with_capacity(candidates.len() + 1);
        let mut after = newest;
        for candidate in candidates.into_iter().rev() {
            let known = self.known(&candidate)?;
            let (Some(known), Some(next)) = (known.filter(|k| after.is_some_and(|next| k.base <= next.base)), after)
            else {
                self.report.unknown.push(file_name(candidate.name.id));
                continue;
            };
            let mut end = next.base;
            if next.id.0 != known.id.0 + 1 || !next.base_is_sure {
                // Something is missing between them: where this one ends must be looked for in it.
                let last = self.end_of(&candidate)?.and_then(|end| end.last);
                end = last.map_or(known.base, |(_, commit)| commit.end()).min(next.base);
                if end < next.base {
                    let damage = Damage { segment: known.id, at: known.len, from: end, to: next.base };
                    self.report.damaged.insert(0, damage);
                }
            }
            segments.push_front(Segment {
                id: known.id,
                salt: known.salt,
                base: known.base,
                end,
                file_bytes: known.len,
                written_bytes: known.len,
                passed_at: None,
            });
            after = Some(known);
        }
        Ok(segments)
    }

    fn known(&self, candidate: &Candidate) -> Result<Option<Known>, OpenError> {
        let path = self.path(candidate.name.id);
        let read = || -> io::Result<Option<Known>> {
            let file = self.disk.open(&path, Access::Read)?;
            let mut window = Window::new(&*file, candidate.name.len, CHUNK_BYTES);
            Ok(know(candidate.name, candidate.head, &mut window)?.map(|(known, _)| known))
        };
        read().map_err(self.failed("read", path.clone()))
    }

    /// Makes a writer that goes on where the newest segment ends. The last commit has nothing after it that proves it was
    /// durable: what is whole of it is written once more, so that it is, whatever became of it before.
    fn resume(
        &mut self,
        disk: &Arc<dyn Disk>,
        end: End,
        durability: Durability,
        now: UnixNanos,
    ) -> Result<Writer, OpenError> {
        let End { known, headed, last } = end;
        let path = self.path(known.id);
        let failed = |action| self.failed(action, path.clone());
        let file = disk.open(&path, Access::Read).map_err(failed("open"))?;
        let mut window = Window::new(&*file, known.len, CHUNK_BYTES);
        let (at, commit) = last.unwrap_or((BLOCK, Commit::empty(known.base)));
        let damaged = damage_before(&mut window, known, commit.first).map_err(failed("read"))?;
        let place = Place { segment: known.id, salt: known.salt, at };
        let (whole, whole_end) = scan::whole_records(&mut window, place, commit).map_err(failed("read"))?;

        let segment_file = SegmentFile::open(&**disk, path.clone(), durability).map_err(failed("open"))?;
        let active = Active {
            id: known.id,
            salt: known.salt,
            base: known.base,
            file: segment_file,
            // The first commit went out together with the header, so it is repaired together with it.
            at: if at == BLOCK { 0 } else { at },
            file_bytes: known.len / BLOCK * BLOCK,
        };
        let mut writer = Writer::new(Arc::clone(disk), durability, Some(active), commit.first);
        writer.write_again(&whole, commit.first, now).map_err(failed("write"))?;
        // Behind the end, a torn write may have left whole records, with offsets that will be given again.
        let after = writer.active().map_or(BLOCK, |active| active.at.max(BLOCK)) + BLOCK;
        let mut window = Window::new(&*file, known.len, CHUNK_BYTES);
        let leftovers = scan::leftovers(&mut window, known.id, known.salt, after).map_err(failed("read"))?;
        writer.wipe(&leftovers).map_err(failed("write"))?;
        let marked = headed && last.is_some_and(|(_, commit)| commit.records == 0);
        if !marked {
            writer.mark(true, now).map_err(failed("write"))?;
        }
        if whole.len() < commit.records as usize {
            self.report.torn_bytes = u64::from(commit.bytes).saturating_sub(whole_end - at);
        }
        self.report.damaged.extend(damaged);
        Ok(writer)
    }

    /// Of the files that hold nothing, the one that is written next; the others go.
    fn next(&self, mut blank: Vec<SegmentName>, durability: Durability) -> Result<Option<Prepared>, OpenError> {
        blank.sort_by_key(|name| name.id);
        let mut next = None;
        for name in blank {
            let path = self.path(name.id);
            if next.is_none() && name.len >= 2 * BLOCK {
                let file = SegmentFile::open(self.disk, path.clone(), durability).map_err(self.failed("open", path))?;
                next = Some(Prepared { id: name.id, file, file_bytes: name.len / BLOCK * BLOCK });
            } else {
                self.disk.remove(&path).map_err(self.failed("remove", path))?;
            }
        }
        Ok(next)
    }

    /// The spares that can be used; what else was left lying goes.
    fn spares(&self, found: Vec<(SegmentId, u64)>, segment_bytes: u64) -> Result<VecDeque<SegmentId>, OpenError> {
        let mut spares = VecDeque::new();
        for (id, len) in found {
            let path = spare_path(self.dir, id);
            match len == segment_bytes {
                true => spares.push_back(id),
                false => self.disk.remove(&path).map_err(self.failed("remove", path))?,
            }
        }
        match self.disk.remove(&temp_path(self.dir)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.failed("remove", temp_path(self.dir))(e)),
            _ => Ok(spares),
        }
    }
}

/// What a segment says of itself, by its header or, where that is lost, by its commits, and whether the header is whole; none
/// if neither can be read.
pub(crate) fn know(name: SegmentName, head: Head, window: &mut Window<'_>) -> io::Result<Option<(Known, bool)>> {
    let SegmentName { id, len } = name;
    match head {
        Head::Segment(head) if head.segment == id => {
            return Ok(Some((Known { id, len, salt: head.salt, base: head.base, base_is_sure: true }, true)));
        }
        Head::Future(_) => return Ok(None),
        Head::Segment(_) | Head::Blank | Head::Broken | Head::Foreign => {}
    }
    let Some(salt) = scan::salt(window, id)? else { return Ok(None) };
    let first = Walk::new(id, salt, Offset(0), Offset(0)).first(window)?;
    Ok(first.map(|(at, base)| (Known { id, len, salt, base, base_is_sure: at == BLOCK }, false)))
}

/// What is damaged of the part of a segment that was durable before its last commit.
fn damage_before(window: &mut Window<'_>, known: Known, end: Offset) -> io::Result<Vec<Damage>> {
    let mut walk = Walk::new(known.id, known.salt, known.base, known.base);
    let mut damaged = Vec::new();
    loop {
        match walk.step(window, end)? {
            Step::Batch(_) => {}
            Step::Damage { at, from, to } => damaged.push(Damage { segment: known.id, at, from, to }),
            Step::End => return Ok(damaged),
        }
    }
}
