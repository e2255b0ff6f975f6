//! Batches to columns to files, and back.
//!
//! Promise: [`Rows`] writes each span of the batches it is given once, in their order, into one file for each UTC day of a span's start; what
//! is written says all that protobuf's decoding says of a request: [`open`] gives it back. Fields that OTLP does not have are not kept.
//! On disk:  Parquet, version 1 (see `schema`, `fill`, `table`): read by what reads Parquet, as it lies.
//! Bounds:   [`Rows::bytes`] says what is held; whoever pushes finishes in time. A file is checked as a whole before it is read.
//! Not here: where files lie, and which count (`keeping`).
//! Kept by:  `tests/rows.rs` (exports of real SDKs and hostile spans, round trip), `tests/format.rs` (files of each version, for ever).
//!
//! - `schema`: the columns. `fill`: a span to a row; `json`: attribute values. `table`: rows to a file; `leaf`, `dict`, `pack`: a column.
//! - `seal`: the checksum in a file. `read`: a file to columns, `cells`; `back`: columns to spans; `again`: files to other files.

mod again;
mod back;
mod cells;
mod dict;
mod fill;
mod json;
mod leaf;
mod pack;
mod read;
pub mod schema;
mod seal;
mod table;

use std::collections::BTreeMap;

use bytes::Bytes;
use emberd_model::Batch;
use emberd_model::cost::Prices;
use emberd_model::facts::{Reading, Singles};
use emberd_model::wire::{self, Found};

use crate::part::{Day, Part};
pub use again::{Rewritten, merge, rewrite};
pub use read::{Chunk, Reader, RowId, open};

use fill::{Above, Extra, Known, Source};
use leaf::Press;
use table::Table;

/// How rows are made.
#[derive(Clone, Debug)]
pub struct How {
    /// How spans are read.
    pub reading: Reading,
    /// What models cost.
    pub prices: Prices,
    /// zstd's level: 1 unless measured otherwise (docs/decisions/0015-archive-rows.md); negative ones are quicker and pack less.
    pub level: i32,
}

impl Default for How {
    fn default() -> Self {
        Self { reading: Reading::default(), prices: Prices::default(), level: LEVEL }
    }
}

/// The level that was measured to be worth its time.
pub const LEVEL: i32 = 1;

/// A file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no file of the archive, or not all of it is as it was written.
    #[error("the archive's file is damaged: {0}")]
    Damaged(&'static str),
    /// Something newer than this wrote it.
    #[error("the archive's file has version {found}, and this reads up to {known}")]
    Newer {
        /// Its version.
        found: u32,
        /// The newest that is read.
        known: u32,
    },
    /// A row does not say what a row says.
    #[error("the archive's row at offset {offset} cannot be read: {what}")]
    Row {
        /// Its `log_offset`.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// Parquet itself.
    #[error("cannot write or read Parquet")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The compressor.
    #[error("cannot compress")]
    Compress(#[from] std::io::Error),
}

/// Spans of a day that has few are kept as they came until they are so many bytes, or until the end.
const FEW_BYTES: usize = 256 << 10;
/// Days whose rows are written at once.
const OPEN_MAX: usize = 3;
/// Days that one [`Rows`] has files for; the spans of others go into that of the day on which they were received.
const DAYS_MAX: usize = 64;

/// Rows being written.
pub struct Rows<'h> {
    how: &'h How,
    press: Press,
    known: Known,
    open: Vec<Table>,
    few: BTreeMap<Day, Few>,
    spans: u64,
}

/// Spans of one day, each in a request of its own.
#[derive(Default)]
struct Few {
    batches: Vec<Batch>,
    bytes: usize,
}

impl<'h> Rows<'h> {
    /// No rows yet.
    pub fn new(how: &'h How) -> Result<Self, Error> {
        let press = Press::new(how.level)?;
        Ok(Self { how, press, known: Known::default(), open: Vec::new(), few: BTreeMap::new(), spans: 0 })
    }

    /// Takes in the spans of a batch. After an error, what was taken in so far is of no use.
    pub fn push(&mut self, batch: &Batch) -> Result<(), Error> {
        self.take(batch, None)
    }

    /// Spans so far.
    #[must_use]
    pub fn spans(&self) -> u64 {
        self.spans
    }

    /// What is held in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let few: usize = self.few.values().map(|few| few.bytes).sum();
        few + self.press.bytes() + self.open.iter().map(Table::bytes).sum::<usize>()
    }

    /// How long the files are so far, about.
    #[must_use]
    pub fn written(&self) -> usize {
        self.open.iter().map(Table::written).sum()
    }

    /// The files, one for each day, in the order of days.
    pub fn finish(mut self) -> Result<Vec<Part>, Error> {
        let mut parts = Vec::new();
        for (day, few) in std::mem::take(&mut self.few) {
            self.open(day, few)?;
            if let Some(table) = self.open.pop() {
                parts.push(table.finish(&mut self.press)?);
            }
        }
        for table in std::mem::take(&mut self.open) {
            parts.push(table.finish(&mut self.press)?);
        }
        parts.sort_by_key(|part| part.day);
        Ok(parts)
    }

    /// Takes in a batch, all of it under `day` if there is one.
    fn take(&mut self, batch: &Batch, day: Option<Day>) -> Result<(), Error> {
        wire::fetch(&batch.body);
        let mut singles = Singles::new(&self.how.reading);
        let mut above: Option<Above<'_>> = None;
        let mut scope: (u32, Extra) = (u32::MAX, Extra::default());
        for (offset, found) in (batch.offset.0..).zip(wire::spans(&batch.body)) {
            let day = match day {
                Some(day) => day,
                None => self.day_of(batch, &found),
            };
            if day_is_new(&self.open, day) && !self.keep_few(batch, &found, offset, day)? {
                continue;
            }
            if !above.as_ref().is_some_and(|above| above.is_of(&found.resource)) {
                above = Some(Above::of(&found.resource, &self.how.reading));
            }
            if scope.0 != found.scope.index {
                scope = (found.scope.index, fill::of_scope(&found.scope));
            }
            let Some(above) = &above else { continue };
            let Some(table) = self.open.iter_mut().find(|table| table.day() == day) else { continue };
            let source = Source { batch, offset, found: &found, above, scope: &scope.1 };
            fill::row(table, &source, &mut singles, &mut self.known, &self.how.prices);
            table.end_row(found.span.start, found.span.raw.len(), &mut self.press)?;
            self.spans += 1;
        }
        Ok(())
    }

    /// The day of a span's start; that of its receipt where there are too many days already.
    fn day_of(&self, batch: &Batch, found: &Found<'_>) -> Day {
        let day = Day::of(found.span.start);
        let is_known = self.few.contains_key(&day) || !day_is_new(&self.open, day);
        if is_known || self.few.len() + self.open.len() < DAYS_MAX { day } else { Day::of(batch.received_at) }
    }

    /// Keeps a span of a day that is not open; says whether the day is open now instead.
    fn keep_few(&mut self, batch: &Batch, found: &Found<'_>, offset: u64, day: Day) -> Result<bool, Error> {
        let few = self.few.entry(day).or_default();
        if few.bytes >= FEW_BYTES && self.open.len() < OPEN_MAX {
            let few = std::mem::take(few);
            self.few.remove(&day);
            self.open(day, few)?;
            return Ok(true);
        }
        let one = alone(batch, found, offset);
        few.bytes += one.body.len() + size_of::<Batch>();
        few.batches.push(one);
        self.spans += 1;
        Ok(false)
    }

    /// Opens a day and takes in what was kept of it.
    fn open(&mut self, day: Day, few: Few) -> Result<(), Error> {
        self.open.push(Table::new(day));
        self.spans -= few.batches.len() as u64;
        few.batches.iter().try_for_each(|batch| self.take(batch, Some(day)))
    }
}

fn day_is_new(open: &[Table], day: Day) -> bool {
    !open.iter().any(|table| table.day() == day)
}

/// A span in a batch of its own.
fn alone(batch: &Batch, found: &Found<'_>, offset: u64) -> Batch {
    let body = wire::alone(found);
    Batch { offset: emberd_model::Offset(offset), spans: 1, body: Bytes::from(body), ..batch.clone() }
}
