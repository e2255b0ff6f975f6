//! What lies in a log's directory, for eyes: which segments, and whether every byte of them is what was written.
//!
//! Promise: nothing is changed, no lock is taken; a log that runs may be looked at, though its last commit may then be seen
//! half written. Memory is bounded by one piece of a file, or the largest commit.
//! Not here: repair (opening the log does what can be done).

use std::io;
use std::path::{Path, PathBuf};

use emberd_model::{Offset, UnixNanos};

use crate::disk::{Access, Disk, read_full_at};
use crate::error::{OpenError, SegmentId};
use crate::format::{Head, Place};
use crate::recovery::{Damage, SegmentName, know};
use crate::scan::{self, CHUNK_BYTES, Step, Walk, Window};
use crate::segment::{Named, segment_path};

/// A file that is named like a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The segment's number.
    pub id: SegmentId,
    /// Its file.
    pub path: PathBuf,
    /// The file's length in bytes.
    pub file_bytes: u64,
    /// What its header says.
    pub header: Header,
}

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Batches from this offset on, begun at this time.
    Written {
        /// The offset of its first span.
        base: Offset,
        /// When it was begun.
        made_at: UnixNanos,
    },
    /// Nothing yet: prepared to be written next, or used again and not written since.
    Blank,
    /// The header cannot be read; the commits after it may.
    Damaged,
    /// A format that this program does not know.
    Future {
        /// Its version.
        version: u32,
    },
    /// Not a segment at all.
    Foreign,
}

/// A segment of which every byte was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The offset of its first span.
    pub base: Offset,
    /// The offset after its last span.
    pub end: Offset,
    /// Whole records.
    pub records: u64,
    /// Spans in them.
    pub spans: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// When the first and the last of them were received.
    pub received: Option<(UnixNanos, UnixNanos)>,
    /// Spans that were acked and cannot be read.
    pub damaged: Vec<Damage>,
    /// Bytes of a last commit that is not whole, and that nothing proves to have been acked.
    pub torn_bytes: u64,
}

/// The segments in a directory, oldest first, by their headers alone, and the names of files that are not the log's.
pub fn segments(disk: &dyn Disk, dir: &Path) -> Result<(Vec<Found>, Vec<String>), OpenError> {
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    for file in disk.list(dir).map_err(failed("list", dir))? {
        match Named::of(&file.name) {
            Named::Segment(id) => {
                let path = segment_path(dir, id);
                let header = head(disk, &path).map_err(failed("read", &path))?;
                found.push(Found { id, path, file_bytes: file.len, header: header_of(header, id) });
            }
            Named::Unknown => unknown.push(file.name),
            Named::Spare(_) | Named::Own => {}
        }
    }
    found.sort_by_key(|found| found.id);
    unknown.sort();
    Ok((found, unknown))
}

/// Reads a segment from end to end and checks every record; none if there is nothing in it that can be read.
pub fn verify(disk: &dyn Disk, found: &Found) -> Result<Option<Checked>, OpenError> {
    check(disk, found).map_err(failed("read", &found.path))
}

fn check(disk: &dyn Disk, found: &Found) -> io::Result<Option<Checked>> {
    let file = disk.open(&found.path, Access::Read)?;
    let mut window = Window::new(&*file, found.file_bytes, CHUNK_BYTES);
    let name = SegmentName { id: found.id, len: found.file_bytes };
    let Some((known, _)) = know(name, head(disk, &found.path)?, &mut window)? else { return Ok(None) };
    let mut checked = Checked { base: known.base, end: known.base, ..Checked::default() };
    let Some((at, last)) = scan::last_commit(&mut window, known.id, known.salt)? else { return Ok(Some(checked)) };

    let mut walk = Walk::new(known.id, known.salt, known.base, known.base);
    loop {
        match walk.step(&mut window, last.first)? {
            Step::Batch(batch) => checked.count(&batch),
            Step::Damage { at, from, to } => checked.damaged.push(Damage { segment: known.id, at, from, to }),
            Step::End => break,
        }
    }
    let place = Place { segment: known.id, salt: known.salt, at };
    let (whole, whole_end) = scan::whole_records(&mut window, place, last)?;
    if whole.len() < last.records as usize {
        checked.torn_bytes = u64::from(last.bytes).saturating_sub(whole_end - at);
    }
    checked.end = last.first;
    whole.iter().for_each(|batch| checked.count(batch));
    Ok(Some(checked))
}

impl Checked {
    fn count(&mut self, batch: &emberd_model::Batch) {
        self.end = batch.end();
        self.records += 1;
        self.spans += u64::from(batch.spans);
        self.body_bytes += batch.body.len() as u64;
        let first = self.received.map_or(batch.received_at, |(first, _)| first);
        self.received = Some((first, batch.received_at));
    }
}

fn head(disk: &dyn Disk, path: &Path) -> io::Result<Head> {
    let file = disk.open(path, Access::Read)?;
    let mut bytes = [0; 64];
    let read = read_full_at(&*file, &mut bytes, 0)?;
    Ok(Head::decode(&bytes[..read]))
}

fn header_of(head: Head, id: SegmentId) -> Header {
    match head {
        Head::Segment(head) if head.segment == id => Header::Written { base: head.base, made_at: head.made_at },
        Head::Segment(_) | Head::Blank => Header::Blank,
        Head::Broken => Header::Damaged,
        Head::Future(version) => Header::Future { version },
        Head::Foreign => Header::Foreign,
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Disk { action, path, source }
}

#[cfg(test)]
mod tests;
