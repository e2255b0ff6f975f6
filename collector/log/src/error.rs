//! What can go wrong at the log's border, one enum for each caller that decides.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use emberd_model::Offset;

/// A segment's number; they only grow, and none is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a batch was not appended. None of these left a durable batch behind, but [`AppendError::Disk`] may have.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// No room until consumers have passed something; nothing was written.
    #[error("disk budget is full: {used_bytes} of {budget_bytes} bytes")]
    BudgetFull {
        /// Bytes that the segments take.
        used_bytes: u64,
        /// The bound on them, or what the disk gave before it was full.
        budget_bytes: u64,
    },
    /// The log is sealed or about to be; nothing was written.
    #[error("the log is stopping")]
    Stopping,
    /// The body will never be taken, however often it is sent.
    #[error("a batch of {bytes} bytes is larger than the {max_bytes} that are taken")]
    TooLarge {
        /// The body's size.
        bytes: u64,
        /// The largest size that is taken.
        max_bytes: u64,
    },
    /// The disk failed. The log takes nothing more, and the process must end: a second sync on the same file could claim
    /// what is not true.
    #[error("cannot write segment {segment}")]
    Disk {
        /// The segment that was being written.
        segment: SegmentId,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
}

/// Why there is no batch at a reader's position.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// What was asked for is no longer kept.
    #[error("offset {asked} is no longer kept, the log begins at {tail}")]
    Gone {
        /// The reader's position.
        asked: Offset,
        /// The oldest place that can be read.
        tail: Offset,
    },
    /// The cursor lies beyond all that was ever appended: it belongs to another log, or this one lost its end.
    #[error("offset {asked} is beyond the head of the log at {head}")]
    Ahead {
        /// The reader's position.
        asked: Offset,
        /// The head of the log.
        head: Offset,
    },
    /// These spans were acked and cannot be read any more. The reader already stands at `to`.
    #[error("spans {from} to {to} are damaged on disk")]
    Damaged {
        /// The first span lost.
        from: Offset,
        /// The first span after the loss.
        to: Offset,
    },
    /// The disk could not be read. The reader stands where it stood; `to` is where the segment that fails ends.
    #[error("cannot read segment {segment}, spans {from} to {to}")]
    Disk {
        /// The segment that cannot be read.
        segment: SegmentId,
        /// The reader's position.
        from: Offset,
        /// The first offset after that segment.
        to: Offset,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("another process uses the log in {}", dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
    },
    /// A newer emberd wrote it.
    #[error("{} has format version {version}, this program knows up to {known}", path.display())]
    FutureVersion {
        /// The segment that says so.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version that is understood here.
        known: u32,
    },
    /// The bounds in the configuration contradict each other.
    #[error("the budget of {budget_bytes} bytes is too small, {min_bytes} are needed")]
    BudgetTooSmall {
        /// The budget as configured.
        budget_bytes: u64,
        /// The least that works.
        min_bytes: u64,
    },
    /// The disk said no.
    #[error("cannot {action} {}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a cursor file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// It is there, but it is not what was stored. Removing it makes the consumer start from the tail: it may repeat, it
    /// loses nothing.
    #[error("cursor file {} is damaged", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// The name cannot be a file's.
    #[error("a consumer cannot be called {consumer:?}: letters, digits, '-', '_' and '.' only, at most 64")]
    Name {
        /// The name as given.
        consumer: String,
    },
    /// The disk said no.
    #[error("cannot {action} cursor file {}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A record that was acked is not what was stored, or the file is another one's. What came after it is of no use without
    /// it, so nothing is given.
    #[error("journal {} is damaged at byte {at}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the first damaged record begins; 0 for the file's header.
        at: u64,
    },
    /// The name cannot be a file's.
    #[error("a journal cannot be called {name:?}: letters, digits, '-', '_' and '.' only, at most 64")]
    Name {
        /// The name as given.
        name: String,
    },
    /// The record will never be taken; nothing was written.
    #[error("a record of {bytes} bytes is larger than the {max_bytes} that journal {} takes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The record's size.
        bytes: u64,
        /// The largest size that is taken.
        max_bytes: u64,
    },
    /// The disk said no, or a newer emberd wrote the file.
    #[error("cannot {action} journal {}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
