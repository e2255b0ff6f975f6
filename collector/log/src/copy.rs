//! A copy of a log that others write to meanwhile, which opens as if the power had gone at one moment.
//!
//! Promise: nothing of the log is changed, no lock is taken. Every batch that was acked before [`copy`] was called, and that lies behind
//! [`Copied::tail`], is in the copy; nothing in it is half of one thing and half of another: the newest segment is copied up to the commit
//! that was its last when this began, of which nothing changes any more, and a file that was used again while it was copied is left out,
//! as are those before it. The copy is durable when this returns.
//! Not here: whether what was left out is still needed ([`Copied::tail`] against the cursors tells that).
//! Kept by: `tests` below, `daemon/tests/it/backup.rs`.

use std::io;
use std::path::{Path, PathBuf};

use emberd_model::Offset;

use crate::disk::{Access, Disk, read_full_at, write_all_at};
use crate::error::OpenError;
use crate::format::{BLOCK, Head, block_up};
use crate::inspect::{self, Found};
use crate::recovery::{SegmentName, know};
use crate::scan::{self, CHUNK_BYTES, Window};
use crate::segment::segment_path;

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The oldest offset in it; none: there is nothing.
    pub tail: Option<Offset>,
    /// The offset after its last batch, as far as its commits' headers say.
    pub head: Offset,
    /// The files, oldest first.
    pub files: Vec<PathBuf>,
}

/// A segment that is to be copied.
struct Part {
    found: Found,
    base: Offset,
    salt: u64,
    /// How much of it is the log's; zeros come after it.
    bytes: u64,
    /// The offset after its last span.
    end: Offset,
}

/// Copies the log in `dir` into `to`, an empty directory. `progress` hears bytes done, and of how many.
pub fn copy(disk: &dyn Disk, dir: &Path, to: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Copied, OpenError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Disk { action, path, source }
    };
    let (found, _) = inspect::segments(disk, dir)?;
    let mut parts = Vec::new();
    for found in found {
        let path = found.path.clone();
        parts.extend(part(disk, found).map_err(failed("read", &path))?);
    }
    // A segment that others follow is whole, and nobody writes to it any more; its length is its file's.
    let newest = parts.len().saturating_sub(1);
    parts[..newest].iter_mut().for_each(|part| part.bytes = part.found.file_bytes);
    let all: u64 = parts.iter().map(|part| part.bytes).sum();
    let (mut done, mut copied) = (0, Copied::default());
    for part in &parts {
        let target = segment_path(to, part.found.id);
        copy_part(disk, part, &target, |bytes| {
            done += bytes;
            progress(done, all);
        })
        .map_err(failed("copy", &part.found.path))?;
        if is_still(disk, part).map_err(failed("read", &part.found.path))? {
            copied.tail.get_or_insert(part.base);
            copied.head = part.end;
            copied.files.push(target);
            continue;
        }
        // Passed by everyone and used again: it is the oldest that go.
        for gone in copied.files.drain(..).chain([target]) {
            disk.remove(&gone).map_err(failed("remove", &gone))?;
        }
        copied.tail = None;
    }
    disk.sync_dir(to).map_err(failed("sync the directory", to))?;
    Ok(copied)
}

/// None: there is nothing in it.
fn part(disk: &dyn Disk, found: Found) -> io::Result<Option<Part>> {
    let file = match disk.open(&found.path, Access::Read) {
        // Used again since the directory was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut window = Window::new(&*file, found.file_bytes, CHUNK_BYTES);
    let head = head(disk, &found)?;
    let Some((known, _)) = know(SegmentName { id: found.id, len: found.file_bytes }, head, &mut window)? else {
        return Ok(None);
    };
    let last = scan::last_commit(&mut window, known.id, known.salt)?;
    let (bytes, end) = match last {
        // A mark gives way to the next commit, at any moment.
        Some((at, mark)) if mark.records == 0 => (at, mark.first),
        Some((at, commit)) => (block_up(at + u64::from(commit.bytes)), commit.end()),
        None => (BLOCK, known.base),
    };
    let bytes = bytes.min(found.file_bytes);
    Ok(Some(Part { base: known.base, salt: known.salt, bytes, end, found }))
}

fn head(disk: &dyn Disk, found: &Found) -> io::Result<Head> {
    let file = disk.open(&found.path, Access::Read)?;
    let mut bytes = [0; 64];
    let read = read_full_at(&*file, &mut bytes, 0)?;
    Ok(Head::decode(&bytes[..read]))
}

fn copy_part(disk: &dyn Disk, part: &Part, to: &Path, mut progress: impl FnMut(u64)) -> io::Result<()> {
    let file = disk.open(&part.found.path, Access::Read)?;
    let copy = disk.create(to, Access::Write)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < part.bytes {
        let wanted = usize::try_from(part.bytes - at).unwrap_or(usize::MAX).min(chunk.len());
        let read = read_full_at(&*file, &mut chunk[..wanted], at)?;
        if read == 0 {
            break;
        }
        write_all_at(&*copy, &chunk[..read], at)?;
        at += read as u64;
        progress(read as u64);
    }
    // The file keeps its length, so that the log goes on in it: the last block is written, what is between is a hole.
    if part.found.file_bytes > at {
        write_all_at(&*copy, &[0], part.found.file_bytes - 1)?;
    }
    copy.sync_data()
}

/// Whether the file is still what it was before it was copied.
fn is_still(disk: &dyn Disk, part: &Part) -> io::Result<bool> {
    match head(disk, &part.found) {
        Ok(Head::Segment(head)) => Ok(head.segment == part.found.id && head.salt == part.salt),
        // Its header was damaged before, and it was known by its commits.
        Ok(_) => Ok(!matches!(part.found.header, inspect::Header::Written { .. })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
