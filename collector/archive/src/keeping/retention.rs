//! Old days go.
//!
//! Promise: files go from the manifest first, in one entry, and then from the place. Spans that came are never doubled by it, and
//! the cursor stays.
//! Not here: when (`emberd-consumers`); the logs of other emberds, whose part of the archive is theirs.

use super::archive::{Archive, Change};
use super::error::Error;
use super::manifest::Kind;
use crate::part::Day;

/// What is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Days before today that are kept; none keeps all.
    pub days: Option<u32>,
    /// Bytes of this log's files that are kept; none keeps all.
    pub bytes: Option<u64>,
}

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// How many files.
    pub files: usize,
    /// The spans in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Archive {
    /// Drops the days that began more than `keep.days` before `today`, then the oldest days, until no more than `keep.bytes` are
    /// left. Of today, and of days to come, the files with the lowest offsets go first, one by one.
    pub async fn retain(&mut self, today: Day, keep: &Retention) -> Result<Dropped, Error> {
        self.settle().await?;
        self.clean().await?;
        let (removed, dropped) = self.too_old(today, keep);
        if !removed.is_empty() {
            self.change(Change { kind: Kind::Retention, commit: None, parts: Vec::new(), removed }).await?;
            self.clean().await?;
        }
        Ok(dropped)
    }

    fn too_old(&self, today: Day, keep: &Retention) -> (Vec<String>, Dropped) {
        let first = keep.days.map_or(0, |days| today.0.saturating_sub(days));
        let mut over = keep.bytes.map_or(0, |bytes| self.state.sums().1.saturating_sub(bytes));
        let (mut removed, mut dropped) = (Vec::new(), Dropped::default());
        for (day, mut files) in self.state.days() {
            files.sort_by_key(|(_, name)| name.from);
            let goes_whole = day < first || (over > 0 && day < today.0);
            for (file, _) in files {
                if goes_whole || over > 0 {
                    over = over.saturating_sub(file.bytes);
                    dropped.files += 1;
                    dropped.rows += file.rows;
                    dropped.bytes += file.bytes;
                    removed.push(file.name.clone());
                }
            }
        }
        (removed, dropped)
    }
}
