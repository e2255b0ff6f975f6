//! Segments as files: their names, and the one way in which they are written.
//!
//! Promise: a file that may hold acked batches is never created, cut or grown while it holds them; it is written in place.
//! On disk:  `NUMBER.seg` is a segment or the prepared next one, `NUMBER.spare` a file whose batches everyone has passed, by
//!           the number it last had, `prepare.tmp` a file that is being filled with zeros. All else is not the log's.
//! Not here: when a segment is made or may go (`keeper.rs`), what is in it (`format.rs`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Durability;
use crate::disk::{Access, Disk, File, write_all_at};
use crate::error::SegmentId;

/// The file that whoever has the log open holds locked.
pub const LOCK_NAME: &str = "lock";
const TEMP_NAME: &str = "prepare.tmp";

/// What a name in the log's directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Segment(SegmentId),
    Spare(SegmentId),
    /// What the log leaves lying and may remove or overwrite.
    Own,
    Unknown,
}

impl Named {
    pub(crate) fn of(name: &str) -> Self {
        let number = |digits: &str| match digits.len() {
            20 => digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten().map(SegmentId),
            _ => None,
        };
        match (name, name.split_once('.')) {
            (LOCK_NAME | TEMP_NAME, _) => Self::Own,
            (_, Some((digits, "seg"))) => number(digits).map_or(Self::Unknown, Self::Segment),
            (_, Some((digits, "spare"))) => number(digits).map_or(Self::Unknown, Self::Spare),
            _ => Self::Unknown,
        }
    }
}

pub(crate) fn segment_path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{:020}.seg", id.0))
}

pub(crate) fn spare_path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{:020}.spare", id.0))
}

pub(crate) fn temp_path(dir: &Path) -> PathBuf {
    dir.join(TEMP_NAME)
}

/// A segment's file, open for writing: past the page cache where that is asked for and can be had.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    path: PathBuf,
    file: Box<dyn File>,
    direct: bool,
    durability: Durability,
}

impl SegmentFile {
    /// Opens a file that is there.
    pub(crate) fn open(disk: &dyn Disk, path: PathBuf, durability: Durability) -> io::Result<Self> {
        // Where the page cache is durable enough it is also faster.
        if durability == Durability::Sync {
            match disk.open(&path, Access::WriteDirect) {
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {}
                file => return Ok(Self { path, file: file?, direct: true, durability }),
            }
        }
        let file = disk.open(&path, Access::Write)?;
        Ok(Self { path, file, direct: false, durability })
    }

    /// Writes whole blocks from an aligned buffer. Not durable before [`SegmentFile::sync`].
    pub(crate) fn write(&mut self, disk: &dyn Disk, bytes: &[u8], at: u64) -> io::Result<()> {
        match write_all_at(&*self.file, bytes, at) {
            // The file system opens files for direct writes and then takes none.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput && self.direct => {
                self.file = disk.open(&self.path, Access::Write)?;
                self.direct = false;
                write_all_at(&*self.file, bytes, at)
            }
            done => done,
        }
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    /// Writes zeros from `from` to `to`, so that later writes overwrite blocks which the file system has already placed.
    /// Gives up with [`io::ErrorKind::Interrupted`] when told to stop.
    pub(crate) fn fill(&mut self, disk: &dyn Disk, from: u64, to: u64, stop: &AtomicBool) -> io::Result<()> {
        let mut zeros = crate::buffer::Buffer::default();
        zeros.clear_for(FILL_BYTES.min((to - from) as usize));
        zeros.push(&[0]);
        zeros.pad(FILL_BYTES.min((to - from) as usize));
        let mut at = from;
        while at < to {
            if stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let some = zeros.bytes().len().min((to - at) as usize);
            self.write(disk, &zeros.bytes()[..some], at)?;
            at += some as u64;
        }
        match self.durability {
            Durability::Sync => self.sync(),
            // Filling reserves the room; that it reaches the disk before the batches do would be twice the work.
            Durability::Os => Ok(()),
        }
    }
}

const FILL_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_the_logs() {
        assert_eq!(Named::of("00000000000000000007.seg"), Named::Segment(SegmentId(7)));
        assert_eq!(Named::of("00000000000000000007.spare"), Named::Spare(SegmentId(7)));
        assert_eq!(Named::of("prepare.tmp"), Named::Own);
        let others = [
            "7.seg",
            "00000000000000000007.seg.bak",
            "0000000000000000000+.seg",
            "99999999999999999999.seg",
            "x",
            "a.tmp",
        ];
        for other in others {
            assert_eq!(Named::of(other), Named::Unknown, "{other}");
        }
    }
}
