//! What a replay is fed with: batches of the log and of the archive, in an order that is the same each time.
//!
//! Promise: from a [`Position`] on, everything of the plan after it, once. What was fed after the position was written down is left out by
//! its number of spans. Read in a thread that may block, a few pieces ahead.
//! Not here: where positions are kept (`plan`).
//! Kept by: `tests`.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Context;
use emberd_log::disk::Disk;
use emberd_log::{Entry, inspect};
use emberd_model::wire::{self, Change};
use emberd_model::{Batch, Offset, TraceId, UnixNanos};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Pieces read ahead; each is about a request, or a chunk of a file.
const AHEAD: usize = 4;

/// A place in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Position {
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
        if self.known >= spans {
            self.known -= spans;
            return self.is_open();
        }
        self.to.blocking_send(Ok(Fed { entry, after })).is_ok()
    }

    fn is_open(&self) -> bool {
        !self.to.is_closed()
    }
}

fn read(places: &Places, wanted: &Wanted, position: Option<Position>, mut out: Out) {
    if let Err(error) = read_log(places, wanted, position, &mut out) {
        let _ = out.to.blocking_send(Err(error));
    }
}

fn read_log(places: &Places, wanted: &Wanted, position: Option<Position>, out: &mut Out) -> anyhow::Result<()> {
    let Some(dir) = &places.log else { return Ok(()) };
    let from = position.map_or(Offset(0), |Position::Log(offset)| Offset(offset));
    let read = inspect::batches(
        &*places.disk,
        dir,
        from,
        |_, batch| {
            let after = Position::Log(batch.end().0);
            if out.is_open() && (wanted.from..wanted.to).contains(&batch.received_at) {
                if let Some(entry) = wanted.of(batch) {
                    out.give(entry, after);
                }
            }
        },
        |_| true,
    )
    .context("cannot read the log")?;
    let damaged: u64 = read.damaged.iter().map(|(from, to)| to.since(*from)).sum();
    let gone = read.tail.filter(|_| position.is_some()).map_or(0, |tail| tail.since(from));
    out.missing.fetch_add(damaged + gone, Relaxed);
    Ok(())
}

impl Wanted {
    /// What is wanted of a batch.
    fn of(&self, batch: Batch) -> Option<Entry> {
        let Batch { spans, received_at, key, flags, body, .. } = batch;
        let Some(traces) = &self.traces else {
            return Some(Entry { spans: NonZeroU32::new(spans)?, received_at, key, flags, body });
        };
        let mut cuts = Vec::new();
        for found in wire::spans(&body) {
            if !traces.contains(&found.span.trace_id) {
                cuts.push(Change { place: found.span.place(), to: None });
            }
        }
        let left = NonZeroU32::new(spans.saturating_sub(u32::try_from(cuts.len()).unwrap_or(u32::MAX)))?;
        let body = if cuts.is_empty() { body } else { wire::edited(&body, &cuts).into() };
        Some(Entry { spans: left, received_at, key, flags, body })
    }
}

#[cfg(test)]
mod tests;
