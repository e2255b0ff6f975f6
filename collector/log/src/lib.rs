//! The durable span log: batches in, in one order, kept until every consumer has passed them.
//!
//! Promise: [`Appender::append`] resolves only when the batch and all before it are on disk, and what was acked so comes back
//! byte for byte after kill -9 or a power cut, until every registered consumer has passed it. What a damaged disk takes away is
//! one record at a time, and is said aloud ([`ReadError::Damaged`], [`Recovery`]), never silently skipped.
//!
//! - [`log`]: the traits that other rooms see. [`config`], [`error`]: what goes in, what can go wrong.
//! - [`disk_log`]: [`DiskLog`], the log in a directory. [`cursor`]: [`CursorFile`], where a consumer without a database of its
//!   own keeps its place; [`journal`]: [`Journal`], where it keeps more than that. [`inspect`], [`copy`]: what lies in a directory,
//!   for the command line.
//! - [`disk`]: the calls that touch a disk, and the real one. [`sim`]: one that loses power on demand.
//!
//! Not here: what a batch means (`emberd-model`), who may append (`emberd-intake`), what a consumer does with a batch.
//! The bytes on disk are drawn in `format.rs`; why they lie so is in docs/decisions/0002-log-format.md.

mod buffer;
pub mod config;
pub mod copy;
pub mod cursor;
pub mod disk;
pub mod disk_log;
mod engine;
pub mod error;
mod format;
#[doc(hidden)]
pub mod inside;
pub mod inspect;
pub mod journal;
mod keeper;
pub mod log;
mod queue;
mod reader;
mod recovery;
mod scan;
mod segment;
mod shelf;
pub mod sim;
mod tail;
mod writer;

pub use config::{Config, Durability};
pub use cursor::CursorFile;
pub use disk::{Disk, RealDisk};
pub use disk_log::DiskLog;
pub use error::{AppendError, CursorError, JournalError, OpenError, ReadError, SegmentId};
pub use journal::Journal;
pub use log::{Appender, Appending, Entry, Log, Reader, Usage};
pub use recovery::{Damage, Recovery};
pub use segment::LOCK_NAME;

#[cfg(test)]
mod tests;

/// Puts a small file in place of what stands at `path`, durably: after a crash there is the old one or the new one, whole. Blocks on the disk.
///
/// # Errors
/// The disk.
pub fn replace_file(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut temp = path.as_os_str().to_owned();
    temp.push(".tmp");
    let mut file = std::fs::File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temp, path)?;
    std::fs::File::open(path.parent().unwrap_or(std::path::Path::new(".")))?.sync_all()
}

/// CRC-32C, for small files that are kept beside the log in its manner.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
