//! What fuzz targets reach of this room's inside: a directory recovered and read on one thread, without the log's own two.
//!
//! Not an interface: nothing but `fuzz/` may use it.

use std::path::Path;
use std::sync::Arc;

use emberd_model::{Batch, Offset, UnixNanos};

use crate::config::Durability;
use crate::disk::{Access, Disk};
use crate::error::OpenError;
use crate::recovery::{Recovery, recover};
use crate::scan::{CHUNK_BYTES, Step, Walk, Window};
use crate::segment::segment_path;

/// What is read from a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// A batch.
    Batch(Batch),
    /// Spans that cannot be read.
    Lost {
        /// The first of them.
        from: Offset,
        /// The first span after them.
        to: Offset,
    },
}

/// Recovers a directory, and reads all that is left in it.
pub fn recovered(disk: &Arc<dyn Disk>, dir: &Path, segment_bytes: u64) -> Result<(Recovery, Vec<Read>), OpenError> {
    let found = recover(disk, dir, segment_bytes, Durability::Sync, UnixNanos(1))?;
    let segments = found.shelf.segments();
    let mut expected = segments.first().map_or(found.report.head, |first| first.base);
    let mut all = Vec::new();
    for segment in segments {
        if segment.base > expected {
            all.push(Read::Lost { from: expected, to: segment.base });
        }
        let path = segment_path(dir, segment.id);
        let failed = |source| OpenError::Disk { action: "read", path: path.clone(), source };
        let file = disk.open(&path, Access::Read).map_err(failed)?;
        let mut window = Window::new(&*file, segment.file_bytes, CHUNK_BYTES);
        let mut walk = Walk::new(segment.id, segment.salt, segment.base, segment.base);
        loop {
            match walk.step(&mut window, segment.end).map_err(failed)? {
                Step::Batch(batch) => all.push(Read::Batch(batch)),
                Step::Damage { from, to, .. } => all.push(Read::Lost { from, to }),
                Step::End => break,
            }
        }
        expected = segment.end;
    }
    Ok((found.report, all))
}
