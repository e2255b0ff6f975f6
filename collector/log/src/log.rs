//! The log as other rooms see it: append, read in order, say how far you have come.
//!
//! Not here: how bytes become durable (`disk_log.rs`). A log on another backend implements the same traits.

use std::num::NonZeroU32;

use bytes::Bytes;
use emberd_model::{Batch, Flags, Offset, UnixNanos};
use futures_util::future::BoxFuture;

use crate::error::{AppendError, ReadError};

/// A batch before it has an offset.
#[derive(Clone, Debug)]
pub struct Entry {
    /// How many spans the body holds.
    pub spans: NonZeroU32,
    /// When the request had been read.
    pub received_at: UnixNanos,
    /// The ingest key it came under; 0 if none was asked for.
    pub key: u16,
    /// What the walk saw.
    pub flags: Flags,
    /// The encoded request. It is copied once, into the block that is written; readers that follow share it.
    pub body: Bytes,
}

/// Resolves to the batch's offset once it is durable.
///
/// Dropping it does not withdraw the batch: that may become durable all the same, as with a client whose connection broke.
pub type Appending = BoxFuture<'static, Result<Offset, AppendError>>;

/// Takes batches in.
pub trait Appender: Send + Sync + 'static {
    /// Appends a batch. Batches become durable in the order of these calls, many per disk sync.
    ///
    /// Never blocks the caller's thread on the disk. While the bytes under way are at their bound, the future waits.
    fn append(&self, entry: Entry) -> Appending;
}

/// A place in the log that moves forward as batches are read.
pub trait Reader: Send + Sync {
    /// The offset of the next span to be read.
    fn position(&self) -> Offset;

    /// Moves to another offset. Whether there is something at that place is said by the next [`Reader::next`].
    fn seek(&mut self, to: Offset);

    /// Waits until there is a batch, then gives whole batches in order: at least one, and together about `max_bytes`.
    ///
    /// Only what is durable is given. A position inside a batch gives that whole batch. An empty answer means that the log
    /// is sealed and all of it was read. Dropping the future loses nothing: the position moves only when it resolves.
    /// Polled within a tokio runtime, whose blocking threads read the disk where memory does not suffice.
    fn next(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Vec<Batch>, ReadError>>;
}

/// A log that can be appended to and read.
pub trait Log: Appender {
    /// A reader at `from`.
    fn reader(&self, from: Offset) -> Box<dyn Reader>;

    /// Where the next batch will begin: how many spans were ever accepted.
    fn head(&self) -> Offset;

    /// The oldest place that can still be read.
    fn tail(&self) -> Offset;

    /// How much of the budget is taken.
    fn used(&self) -> Usage;

    /// Tells how far `consumer` has come, durably. What lies below every consumer's cursor may go once its time is over.
    fn passed(&self, consumer: &str, cursor: Offset);
}

/// What the log holds on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes written in segments that are still kept.
    pub bytes: u64,
    /// The bound on them.
    pub budget_bytes: u64,
    /// How many segments hold them.
    pub segments: usize,
}
