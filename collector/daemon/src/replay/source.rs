//! What a replay is fed with: batches of the log and of the archive, in an order that is the same each time.
//!
//! Promise: from a [`Position`] on, everything of the plan after it, once. What was fed after the position was written down is left out by
//! its number of spans. Read in a thread that may block, a few pieces ahead.
//! Not here: where positions are kept (`plan`).
//! Kept by: `tests`.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Context;
use emberd_archive::keeping::{self, Catalogue, Kept, Place, read_file};
use emberd_archive::rows;
use emberd_log::disk::Disk;
use emberd_log::{Entry, inspect};
use emberd_model::wire;
use emberd_model::{Batch, Offset, TraceId, UnixNanos};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Pieces read ahead; each is about a request, or a chunk of a file.
const AHEAD: usize = 4;

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Position {
    /// In the archive, which is read by days, then by logs: the offset of the next span.
    Archive {
        /// The day, since 1970.
        day: u32,
        /// Whose spans.
        log: String,
        /// Where there.
        offset: u64,
    },
    /// In the log: the offset of the next span.
    Log(u64),
}

/// A piece of it.
#[derive(Clone, Debug)]
pub(crate) struct Fed {
    /// What is appended.
    pub(crate) entry: Entry,
    /// Where the source stands after it.
    pub(crate) after: Position,
}

/// What of the source is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Received from then on ..
    pub(crate) from: UnixNanos,
    /// .. and before.
    pub(crate) to: UnixNanos,
    /// Of these traces alone.
    pub(crate) traces: Option<Arc<HashSet<TraceId>>>,
}

/// Where it lies.
pub(crate) struct Places {
    pub(crate) disk: Arc<dyn Disk>,
    /// The log's directory; none: the log is not read.
    pub(crate) log: Option<PathBuf>,
    /// The archive, and the log's own name there; none: the archive is not read.
    pub(crate) archive: Option<(Arc<dyn Place>, String)>,
}

/// The source, being read.
pub(crate) struct Source {
    pieces: mpsc::Receiver<anyhow::Result<Fed>>,
    missing: Arc<AtomicU64>,
}

impl Source {
    /// Begins to read at `position`, and leaves out the first `known` spans from there. Within a runtime.
    pub(crate) fn open(places: Places, wanted: Wanted, position: Option<Position>, known: u64) -> Self {
        let (to, pieces) = mpsc::channel(AHEAD);
        let missing = Arc::new(AtomicU64::new(0));
        let out = Out { to, known, missing: missing.clone() };
        tokio::task::spawn_blocking(move || read(&places, &wanted, position, out));
        Self { pieces, missing }
    }

    /// The next piece; none: that was all. Cancel-safe.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Fed>> {
        self.pieces.recv().await.transpose()
    }

    /// Spans that should be there and could not be read.
    pub(crate) fn missing(&self) -> u64 {
        self.missing.load(Relaxed)
    }
}

/// The way out of the reading thread.
struct Out {
    to: mpsc::Sender<anyhow::Result<Fed>>,
    /// Spans that were fed before, and are left out.
    known: u64,
    missing: Arc<AtomicU64>,
}

impl Out {
    /// Hands on what was not fed before. Whether somebody still listens.
    fn give(&mut self, entry: Entry, after: Position) -> bool {
        let spans = u64::from(entry.spans.get());
        let known = self.known.min(spans);
        self.known -= known;
        match without_first(entry, known) {
            Some(entry) => self.to.blocking_send(Ok(Fed { entry, after })).is_ok(),
            None => self.is_open(),
        }
    }

    fn is_open(&self) -> bool {
        !self.to.is_closed()
    }
}

fn read(places: &Places, wanted: &Wanted, position: Option<Position>, mut out: Out) {
    let done = read_archive(places, wanted, position.as_ref(), &mut out)
        .and_then(|archived| read_log(places, wanted, position.as_ref(), archived, &mut out));
    if let Err(error) = done {
        let _ = out.to.blocking_send(Err(error));
    }
}

/// Reads what is archived; up to where the archive holds the log's own spans.
fn read_archive(
    places: &Places,
    wanted: &Wanted,
    position: Option<&Position>,
    out: &mut Out,
) -> anyhow::Result<Option<u64>> {
    let Some((place, own)) = &places.archive else { return Ok(None) };
    let runtime = tokio::runtime::Handle::current();
    let catalogue = || {
        let read = runtime.block_on(Catalogue::read(&**place));
        read.context("cannot read the archive's manifest")
    };
    let mut files = catalogue()?;
    let archived = files.logs.iter().find(|log| log.log == *own).and_then(|log| log.cursor);
    if matches!(position, Some(Position::Log(_))) {
        return Ok(archived);
    }
    let mut reached = match position {
        Some(Position::Archive { day, log, offset }) => (*day, log.clone(), *offset),
        _ => (0, String::new(), 0),
    };
    // What comes while it is read is the log's to give.
    let ends: HashMap<String, u64> = files.logs.iter().filter_map(|log| Some((log.log.clone(), log.cursor?))).collect();
    'again: loop {
        for Kept { file, name } in files.files() {
            let (day, log) = (name.day.0, name.log);
            let is_behind = (day, &log) < (reached.0, &reached.1)
                || ((day, &log) == (reached.0, &reached.1) && name.to <= reached.2);
            if is_behind || ends.get(&log).is_none_or(|end| name.from >= *end) {
                continue;
            }
            let bytes = match runtime.block_on(read_file(&**place, &file)) {
                // It became part of a larger one meanwhile.
                Err(keeping::Error::Place(keeping::PlaceError::Missing { .. }))
                    if runtime.block_on(is_gone(place, &file)) =>
                {
                    files = catalogue()?;
                    continue 'again;
                }
                read => read.with_context(|| format!("cannot read {} of the archive", file.name))?,
            };
            for chunk in rows::open(bytes).with_context(|| file.name.clone())? {
                for batch in chunk.and_then(|chunk| chunk.batches()).with_context(|| file.name.clone())? {
                    // What was fed before is passed over; the place stays where it was until then.
                    let fed = if (day, &log) == (reached.0, &reached.1) { reached.2 } else { 0 };
                    let known = fed.saturating_sub(batch.offset.0);
                    reached = (day, log.clone(), fed.max(batch.end().0));
                    let is_meant = (wanted.from..wanted.to).contains(&batch.received_at);
                    let Some(entry) = wanted.of(batch, known).filter(|_| is_meant) else { continue };
                    let after = Position::Archive { day, log: log.clone(), offset: reached.2 };
                    if !out.give(entry, after) {
                        return Ok(archived);
                    }
                }
            }
        }
        return Ok(archived);
    }
}

/// Whether the manifest does not name a file any more.
async fn is_gone(place: &Arc<dyn Place>, file: &keeping::File) -> bool {
    match file.parts() {
        Some(name) => Catalogue::counts(&**place, &name).await.is_ok_and(|counts| !counts),
        None => false,
    }
}

fn read_log(
    places: &Places,
    wanted: &Wanted,
    position: Option<&Position>,
    archived: Option<u64>,
    out: &mut Out,
) -> anyhow::Result<()> {
    let Some(dir) = &places.log else { return Ok(()) };
    let from = match position {
        Some(Position::Log(offset)) => Some(*offset),
        _ => archived,
    };
    let is_begun = from.is_some();
    let from = Offset(from.unwrap_or(0));
    let read = inspect::batches(
        &*places.disk,
        dir,
        from,
        |_, batch| {
            let after = Position::Log(batch.end().0);
            if out.is_open() && (wanted.from..wanted.to).contains(&batch.received_at) {
                let known = from.since(batch.offset);
                if let Some(entry) = wanted.of(batch, known) {
                    out.give(entry, after);
                }
            }
        },
        |_| true,
    )
    .context("cannot read the log")?;
    let damaged: u64 = read.damaged.iter().map(|(from, to)| to.since(*from)).sum();
    let gone = read.tail.filter(|_| is_begun).map_or(0, |tail| tail.since(from));
    out.missing.fetch_add(damaged + gone, Relaxed);
    Ok(())
}

impl Wanted {
    /// What is wanted of a batch, without its first `known` spans.
    fn of(&self, batch: Batch, known: u64) -> Option<Entry> {
        let Batch { spans, received_at, key, flags, body, .. } = batch;
        let entry = without_first(Entry { spans: NonZeroU32::new(spans)?, received_at, key, flags, body }, known)?;
        match &self.traces {
            Some(traces) => with_spans(entry, |_, found| traces.contains(&found.span.trace_id)),
            None => Some(entry),
        }
    }
}

/// An entry without its first spans; none if there is nothing left.
fn without_first(entry: Entry, spans: u64) -> Option<Entry> {
    if spans == 0 {
        return Some(entry);
    }
    with_spans(entry, |nth, _| nth as u64 >= spans)
}

/// An entry with those of its spans of which `keep` says so.
fn with_spans(entry: Entry, keep: impl Fn(usize, &wire::Found<'_>) -> bool) -> Option<Entry> {
    let (body, left_out) = wire::only(&entry.body, keep);
    let spans = NonZeroU32::new(entry.spans.get().saturating_sub(left_out))?;
    Some(Entry { spans, body, ..entry })
}

#[cfg(test)]
mod tests;
