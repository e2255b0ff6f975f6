//! What a log can be told. Sizes are bytes, all of them bounds that hold.

use std::path::PathBuf;
use std::time::Duration;

/// When a batch counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// After fdatasync: survives a power cut.
    #[default]
    Sync,
    /// After the write into the page cache: survives the end of the process, not of the machine.
    Os,
}

/// How a [`DiskLog`](crate::DiskLog) is kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the segments are. Made if missing, but not its parents: a mount that is not there must not be papered over.
    pub dir: PathBuf,
    /// The most that segments may take, one prepared spare aside. Appends are refused rather than to go over it.
    pub budget_bytes: u64,
    /// How long a segment stays after every consumer has passed it, for replay; shorter when the budget is reached.
    pub keep: Duration,
    /// The size of a segment. Taken as at most a quarter of the budget, so that passed segments can make room.
    pub segment_bytes: u64,
    /// What durable means.
    pub durability: Durability,
    /// How much of the newest batches may stay in memory for consumers that have not read them yet.
    pub tail_bytes: usize,
    /// The most that appends under way may hold together; an entry larger than this goes alone.
    pub queue_bytes: usize,
    /// The largest body that is taken.
    pub entry_bytes_max: usize,
}

impl Config {
    /// The defaults: 20 GiB for 24 hours in segments of 64 MiB, synced, with 64 MiB of tail in memory.
    #[must_use]
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            budget_bytes: 20 << 30,
            keep: Duration::from_secs(24 * 60 * 60),
            segment_bytes: 64 << 20,
            durability: Durability::Sync,
            tail_bytes: 64 << 20,
            queue_bytes: 64 << 20,
            entry_bytes_max: 128 << 20,
        }
    }
}
