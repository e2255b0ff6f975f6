//! Small files of a day become larger ones.
//!
//! Promise: the manifest changes from the small files to the large ones in one entry, and no span is lost or doubled by its files,
//! whenever the process dies. Memory holds the inputs of one step, at most twice the target, and what comes of them.
//! A reader that goes by file names sees spans twice from the moment that the large file appears until the small ones are gone:
//! one entry and one call to remove them. If the process dies in between, that lasts until the archive is opened again.
//! Not here: how files are merged (`rows::merge`, handed in), when (`emberd-consumers`).

use bytes::Bytes;

use super::archive::{Archive, Change};
use super::catalogue::read_file;
use super::error::Error;
use super::manifest::{File, Kind};
use super::name::DataName;
use super::place::{BoxError, PlaceError};
use crate::part::{Day, Part};

/// When files are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// A file of half as many bytes is large enough; none is made of more.
    pub bytes_target: u64,
    /// A file of half as many spans is large enough; none is made of more.
    pub rows_target: u64,
    /// Files of a day that is not over are merged when there are so many.
    pub open_files: usize,
    /// Files of a day that is over are merged when there are so many.
    pub closed_files: usize,
}

impl Default for Compaction {
    /// Some 32 MiB: inputs and what comes of them are in memory at once.
    fn default() -> Self {
        Self { bytes_target: 32 << 20, rows_target: 1_000_000, open_files: 16, closed_files: 2 }
    }
}

/// A step of compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The day whose files were merged.
    pub day: Day,
    /// How many there were.
    pub files_before: usize,
    /// How many there are instead.
    pub files_after: usize,
    /// Their bytes before.
    pub bytes_before: u64,
    /// Their bytes after.
    pub bytes_after: u64,
    /// The spans in them.
    pub rows: u64,
}

impl Archive {
    /// Merges the files of one day once, days that are over before `today` first, the oldest first; none if nothing is worth it.
    ///
    /// `merge` gets whole files in the order of their offsets and gives parts of the same day with the same spans. It runs on a
    /// thread that may block. A file that turns out to be damaged is an error once, and left out from then on.
    pub async fn compact(
        &mut self,
        today: Day,
        when: &Compaction,
        merge: impl FnOnce(Vec<Bytes>) -> Result<Vec<Part>, BoxError> + Send + 'static,
    ) -> Result<Option<Compacted>, Error> {
        self.settle().await?;
        self.clean().await?;
        let Some((day, inputs)) = self.plan(today, when) else { return Ok(None) };
        let mut read = Vec::with_capacity(inputs.len());
        for (file, _) in &inputs {
            read.push(self.read(file).await?);
        }
        let first = inputs.first().map_or_else(String::new, |(file, _)| file.name.clone());
        let parts = off_thread(&first, move || merge(read)).await?;
        let (was, is) = (inputs.iter().map(|(file, _)| file.rows).sum(), parts.iter().map(|part| part.rows).sum());
        if was != is || parts.iter().any(|part| part.day != day) {
            return Err(Error::Count { name: first, was, is });
        }
        let from = inputs.iter().map(|(_, name)| name.from).min().unwrap_or_default();
        let to = inputs.iter().map(|(_, name)| name.to).max().unwrap_or_default();
        let done = Compacted {
            day,
            files_before: inputs.len(),
            files_after: parts.len(),
            bytes_before: inputs.iter().map(|(file, _)| file.bytes).sum(),
            bytes_after: parts.iter().map(|part| part.file.len() as u64).sum(),
            rows: is,
        };
        let parts = parts.into_iter().map(|part| (from, to, part)).collect();
        let removed = inputs.into_iter().map(|(file, _)| file.name).collect();
        self.change(Change { kind: Kind::Compaction, commit: None, parts, removed }).await?;
        self.clean().await?;
        Ok(Some(done))
    }

    /// A file of this log, whole. What is wrong with it is remembered.
    pub(super) async fn read(&mut self, file: &File) -> Result<Bytes, Error> {
        let read = match read_file(&*self.place, file).await {
            Err(Error::Place(PlaceError::Missing { name })) => Err(Error::File { name, what: "not there" }),
            other => other,
        };
        if matches!(read, Err(Error::File { .. })) {
            self.damaged.insert(file.name.clone());
        }
        read
    }

    /// The files to merge next.
    fn plan(&self, today: Day, when: &Compaction) -> Option<(Day, Vec<(File, DataName)>)> {
        let days = self.state.days();
        let (closed, open): (Vec<_>, Vec<_>) = days.into_iter().partition(|(day, _)| *day < today.0);
        let closed = closed.into_iter().map(|day| (day, when.closed_files));
        let open = open.into_iter().map(|day| (day, when.open_files));
        closed.chain(open).find_map(|((day, files), files_min)| {
            let small = |file: &File| file.bytes < when.bytes_target / 2 && file.rows < when.rows_target / 2;
            let small = |file: &File| small(file) && !self.damaged.contains(&file.name);
            let groups = runs(files, small).into_iter().map(|run| group(run, when));
            let group = groups.max_by_key(Vec::len).unwrap_or_default();
            let group = group.into_iter().map(|(file, name)| (file.clone(), name)).collect::<Vec<_>>();
            (group.len() >= files_min.max(2)).then_some((Day(day), group))
        })
    }
}

/// Small files that follow one another in the log's order, without a large one between them: so the offsets of a day's files never
/// come to lie in each other, and whoever reads them one after the other reads in the log's order.
fn runs(files: Vec<(&File, DataName)>, is_small: impl Fn(&File) -> bool) -> Vec<Vec<(&File, DataName)>> {
    let mut files = files;
    files.sort_by_key(|(_, name)| (name.from, name.to, name.seq, name.part));
    let mut runs = vec![Vec::new()];
    for (file, name) in files {
        match runs.last_mut() {
            Some(run) if is_small(file) => run.push((file, name)),
            _ => runs.push(Vec::new()),
        }
    }
    runs
}

/// Of small files in their order, those to merge: as many as fit, from the lowest offsets on, without those that are far larger than all the
/// rest together, so that a byte is rewritten a few times in its life and not with each file that comes.
fn group<'a>(mut run: Vec<(&'a File, DataName)>, when: &Compaction) -> Vec<(&'a File, DataName)> {
    loop {
        let total: u64 = run.iter().map(|(file, _)| file.bytes).sum();
        let largest = run.iter().enumerate().max_by_key(|(_, (file, _))| file.bytes);
        let Some((at, bytes)) = largest.map(|(at, (file, _))| (at, file.bytes)) else { break };
        if bytes <= (total - bytes).saturating_mul(2) {
            break;
        }
        let after = run.split_off(at + 1);
        run.pop();
        if after.len() > run.len() {
            run = after;
        }
    }
    let (mut bytes, mut rows) = (0u64, 0u64);
    let fits = |(file, _): &(&File, DataName)| {
        (bytes, rows) = (bytes.saturating_add(file.bytes), rows.saturating_add(file.rows));
        bytes <= when.bytes_target && rows <= when.rows_target
    };
    run.into_iter().take_while(fits).collect()
}

/// Works on rows on a thread that may block.
pub(super) async fn off_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|panic| Err(panic.into()));
    done.map_err(|source| Error::Rows { name: name.to_owned(), source })
}
