//! A file of the archive before it has a place: the rows of one UTC day, encoded.

use bytes::Bytes;
use emberd_model::UnixNanos;

/// A UTC day, counted from 1970-01-01: that of a span's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    /// The day that `at` lies in.
    #[must_use]
    pub fn of(at: UnixNanos) -> Self {
        const NANOS: u64 = 24 * 3600 * 1_000_000_000;
        // At most 213,503, for there are no more days in 2^64 ns.
        Self((at.0 / NANOS) as u32)
    }
}

/// One Parquet file's bytes and what a manifest says of it.
#[derive(Clone, Debug)]
pub struct Part {
    /// The day that all its spans began on.
    pub day: Day,
    /// How many spans it holds.
    pub rows: u64,
    /// The earliest start of a span in it.
    pub start_min: UnixNanos,
    /// The latest start of a span in it.
    pub start_max: UnixNanos,
    /// The whole file.
    pub file: Bytes,
}
