//! What lies in a log's directory, for eyes: which segments, and whether every byte of them is what was written.
//!
//! Promise: nothing is changed, no lock is taken; a log that runs may be looked at, though its last commit may then be seen
//! half written. Memory is bounded by one piece of a file, or the largest commit.
//! Not here: repair (opening the log does what can be done).

use std::io;
use std::path::{Path, PathBuf};

use emberd_model::{Batch, Offset, UnixNanos};

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

/// What reading a directory's batches came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadTo {
    /// The oldest place that could be read; none if there is nothing.
    pub tail: Option<Offset>,
    /// The offset after the last batch.
    pub end: Offset,
    /// Spans that were acked and cannot be read, segments that are missing between others included.
    pub damaged: Vec<(Offset, Offset)>,
}

/// Reads all batches that end behind `from`, in order, and gives each with the segment it lies in. `goes_on` says after each segment
/// whether to go on to the next. Beside a daemon that runs, segments may be used again meanwhile: those that every consumer
/// has passed.
pub fn batches(
    disk: &dyn Disk,
    dir: &Path,
    from: Offset,
    mut each: impl FnMut(&Found, Batch),
    mut goes_on: impl FnMut(&Found) -> bool,
) -> Result<ReadTo, OpenError> {
    let (segments, _) = segments(disk, dir)?;
    let base = |found: &Found| match found.header {
        Header::Written { base, .. } => Some(base),
        _ => None,
    };
    let mut read = ReadTo { end: from, ..ReadTo::default() };
    for (nth, found) in segments.iter().enumerate() {
        // The next one's base is this one's end.
        if segments[nth + 1..].iter().find_map(base).is_some_and(|next| next <= from) {
            continue;
        }
        let walked = walk(disk, found, |batch| {
            if batch.end() > from {
                read.tail.get_or_insert(batch.offset);
                if batch.offset > read.end && read.end > from {
                    read.damaged.push((read.end, batch.offset));
                }
                read.end = batch.end();
                each(found, batch);
            }
        });
        if let Some(walked) = walked.map_err(failed("read", &found.path))? {
            read.tail = read.tail.or(Some(walked.base).filter(|_| walked.end > walked.base));
        }
        if !goes_on(found) {
            break;
        }
    }
    read.damaged.sort_unstable();
    Ok(read)
}

/// What a walk over a segment found beside its batches.
struct Walked {
    base: Offset,
    end: Offset,
    damaged: Vec<Damage>,
    torn_bytes: u64,
}

/// Reads a segment from end to end; none if there is nothing in it that can be read.
fn walk(disk: &dyn Disk, found: &Found, mut each: impl FnMut(Batch)) -> io::Result<Option<Walked>> {
    let file = disk.open(&found.path, Access::Read)?;
    let mut window = Window::new(&*file, found.file_bytes, CHUNK_BYTES);
    let name = SegmentName { id: found.id, len: found.file_bytes };
    let Some((known, _)) = know(name, head(disk, &found.path)?, &mut window)? else { return Ok(None) };
    let mut walked = Walked { base: known.base, end: known.base, damaged: Vec::new(), torn_bytes: 0 };
    let Some((at, last)) = scan::last_commit(&mut window, known.id, known.salt)? else { return Ok(Some(walked)) };

    let mut walk = Walk::new(known.id, known.salt, known.base, known.base);
    loop {
        match walk.step(&mut window, last.first)? {
            Step::Batch(batch) => each(batch),
            Step::Damage { at, from, to } => walked.damaged.push(Damage { segment: known.id, at, from, to }),
            Step::End => break,
        }
    }
    let place = Place { segment: known.id, salt: known.salt, at };
    let (whole, whole_end) = scan::whole_records(&mut window, place, last)?;
    if whole.len() < last.records as usize {
        walked.torn_bytes = u64::from(last.bytes).saturating_sub(whole_end - at);
    }
    walked.end = whole.last().map_or(last.first, Batch::end);
    whole.into_iter().for_each(each);
    Ok(Some(walked))
}

fn check(disk: &dyn Disk, found: &Found) -> io::Result<Option<Checked>> {
    let mut checked = Checked::default();
    let Some(walked) = walk(disk, found, |batch| checked.count(&batch))? else { return Ok(None) };
    let Walked { base, end, damaged, torn_bytes } = walked;
    Ok(Some(Checked { base, end, damaged, torn_bytes, ..checked }))
}

impl Checked {
    fn count(&mut self, batch: &Batch) {
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
