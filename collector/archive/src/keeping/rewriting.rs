//! Files are replaced by others with fewer spans, or with other values: what erasing asks for.
//!
//! Promise: what is told as done is durable, and the old file's bytes are gone from the place. A file that another writer's
//! process reads meanwhile goes away under it; it reads the manifest again. Where a bucket keeps old versions, those are the bucket's.
//! Not here: which spans (handed in), the logs of other emberds, spans that the archive has not got yet.

use bytes::Bytes;

use super::archive::{Archive, Change};
use super::compaction::off_thread;
use super::error::Error;
use super::manifest::{File, Kind};
use super::place::BoxError;
use crate::part::Part;

/// What becomes of a file.
#[derive(Clone, Debug)]
pub struct Rewritten {
    /// What replaces it: parts of the same day.
    pub parts: Vec<Part>,
    /// How many spans were taken out. The parts have all the others.
    pub erased: u64,
    /// How many spans were changed, and are still there.
    pub changed: u64,
}

/// What was done in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many files were looked into.
    pub files_read: usize,
    /// How many files were replaced.
    pub files_rewritten: usize,
    /// How many spans were taken out.
    pub erased: u64,
    /// How many spans were changed.
    pub changed: u64,
}

impl Archive {
    /// Looks into each file of this log that `is_asked`, one after the other, and replaces it by what `rewrite` makes of it; none
    /// leaves it as it is. `rewrite` runs on a thread that may block.
    ///
    /// After an error, what was done is durable, and asking again does the rest. A damaged file is such an error: nobody can say
    /// that something is not in it.
    pub async fn rewrite_where<R>(
        &mut self,
        is_asked: impl Fn(&File) -> bool + Send,
        rewrite: R,
    ) -> Result<Totals, Error>
    where
        R: Fn(Bytes) -> Result<Option<Rewritten>, BoxError> + Clone + Send + 'static,
    {
        self.settle().await?;
        self.clean().await?;
        let asked: Vec<File> = self.state.files.values().filter(|file| is_asked(file)).cloned().collect();
        let mut totals = Totals::default();
        for file in asked {
            let bytes = self.read(&file).await?;
            totals.files_read += 1;
            let rewrite = rewrite.clone();
            if let Some(done) = off_thread(&file.name, move || rewrite(bytes)).await? {
                let (erased, changed) = (done.erased, done.changed);
                self.replace(file, done).await?;
                totals.files_rewritten += 1;
                totals.erased += erased;
                totals.changed += changed;
            }
        }
        Ok(totals)
    }

    async fn replace(&mut self, file: File, done: Rewritten) -> Result<(), Error> {
        let Some(name) = file.parts() else { return Err(Error::File { name: file.name, what: "called otherwise" }) };
        let rows: u64 = done.parts.iter().map(|part| part.rows).sum();
        if rows.saturating_add(done.erased) != file.rows || done.parts.iter().any(|part| part.day != name.day) {
            return Err(Error::Count { name: file.name, was: file.rows, is: rows });
        }
        let parts = done.parts.into_iter().map(|part| (name.from, name.to, part)).collect();
        self.change(Change { kind: Kind::Rewrite, commit: None, parts, removed: vec![file.name] }).await?;
        self.clean().await
    }
}
