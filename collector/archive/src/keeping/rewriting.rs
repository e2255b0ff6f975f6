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

impl Totals {
    fn add(&mut self, more: Self) {
        self.files_read += more.files_read;
        self.files_rewritten += more.files_rewritten;
        self.erased += more.erased;
        self.changed += more.changed;
    }
}

impl Archive {
    /// Looks into each file of this log that `is_asked`, one after the other, and replaces it by what `rewrite` makes of it; none
    /// leaves it as it is. `rewrite` runs on a thread that may block.
    ///
    /// `totals` grows with what is durable. After an error, asking again with the same totals does the rest, and counts each span
    /// once, even if the answer to its file's rewriting was lost. (Not if the process died within it: what it had counted is gone,
    /// what it had erased is not there any more.) A damaged file is an error, too: nobody can say that something is not in it.
    pub async fn rewrite_where<R>(
        &mut self,
        totals: &mut Totals,
        is_asked: impl Fn(&File) -> bool + Send,
        rewrite: R,
    ) -> Result<(), Error>
    where
        R: Fn(Bytes) -> Result<Option<Rewritten>, BoxError> + Clone + Send + 'static,
    {
        self.settle().await?;
        if let Some((name, counts)) = self.doubtful.take()
            && !self.state.files.contains_key(&name)
        {
            totals.add(counts);
        }
        self.clean().await?;
        let asked: Vec<File> = self.state.files.values().filter(|file| is_asked(file)).cloned().collect();
        for file in asked {
            let bytes = self.read(&file).await?;
            totals.files_read += 1;
            let rewrite = rewrite.clone();
            if let Some(done) = off_thread(&file.name, move || rewrite(bytes)).await? {
                let counts = Totals { files_read: 0, files_rewritten: 1, erased: done.erased, changed: done.changed };
                self.replace(file, done, counts).await?;
                totals.add(counts);
                // Until the old file is gone, a reader of file names sees its spans twice. If this fails, the next call does it first.
                self.clean().await?;
            }
        }
        Ok(())
    }

    async fn replace(&mut self, file: File, done: Rewritten, counts: Totals) -> Result<(), Error> {
        let Some(name) = file.parts() else { return Err(Error::File { name: file.name, what: "called otherwise" }) };
        let rows: u64 = done.parts.iter().map(|part| part.rows).sum();
        if rows.saturating_add(done.erased) != file.rows || done.parts.iter().any(|part| part.day != name.day) {
            return Err(Error::Count { name: file.name, was: file.rows, is: rows });
        }
        let parts = done.parts.into_iter().map(|part| (name.from, name.to, part)).collect();
        self.doubtful = Some((file.name.clone(), counts));
        self.change(Change { kind: Kind::Rewrite, commit: None, parts, removed: vec![file.name] }).await?;
        self.doubtful = None;
        Ok(())
    }
}
