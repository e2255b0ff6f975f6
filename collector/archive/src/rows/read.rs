//! A file to rows, some at a time.
//!
//! Promise: any bytes give rows as they were written, or an error; see `seal` for why damage is found before Parquet is read.
//! Bounds:   a chunk's rows are so many that they have about [`CHUNK_BYTES`], and one at least.

use bytes::Bytes;
use emberd_model::{Batch, SpanId, TraceId, UnixNanos};
use parquet::column::reader::ColumnReader;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::cells::Columns;
use super::schema::{Column, descriptor};
use super::table::{DAY_KEY, VERSION, VERSION_KEY};
use super::{Error, back, seal};
use crate::part::Day;

/// Rows of a chunk, at most.
const CHUNK_ROWS: u64 = 1024;
/// What a chunk's values have together, about.
const CHUNK_BYTES: u64 = 2 << 20;

/// A file being read: an iterator over chunks of its rows, in their order.
pub struct Reader {
    file: SerializedFileReader<Bytes>,
    day: Day,
    /// The row group that comes next.
    next: usize,
    columns: Vec<ColumnReader>,
    /// Rows of the group that are still to be read, and of a chunk.
    left: u64,
    step: u64,
}

/// Opens a file of the archive.
pub fn open(file: Bytes) -> Result<Reader, Error> {
    if !seal::is_whole(&file) {
        return Err(Error::Damaged("its checksum is not that of its bytes"));
    }
    let file = SerializedFileReader::new(file)?;
    let notes = file.metadata().file_metadata().key_value_metadata();
    let note = |key: &str| {
        let note = notes.into_iter().flatten().find(|note| note.key == key)?;
        note.value.as_ref()?.parse::<u32>().ok()
    };
    match note(VERSION_KEY) {
        None | Some(0) => return Err(Error::Damaged("it does not say its version")),
        Some(found) if found > VERSION => return Err(Error::Newer { found, known: VERSION }),
        Some(_) => {}
    }
    let day = Day(note(DAY_KEY).ok_or(Error::Damaged("it does not say its day"))?);
    let (own, schema) = (descriptor()?, file.metadata().file_metadata().schema_descr());
    let is_same = own.num_columns() == schema.num_columns()
        && own.columns().iter().zip(schema.columns()).all(|(own, other)| {
            own.path() == other.path()
                && own.physical_type() == other.physical_type()
                && own.max_def_level() == other.max_def_level()
                && own.max_rep_level() == other.max_rep_level()
        });
    if !is_same {
        return Err(Error::Damaged("its columns are others"));
    }
    Ok(Reader { file, day, next: 0, columns: Vec::new(), left: 0, step: 1 })
}

impl Reader {
    /// The day that its spans began on.
    #[must_use]
    pub fn day(&self) -> Day {
        self.day
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> u64 {
        u64::try_from(self.file.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    pub(super) fn columns(&mut self) -> Result<Option<Columns>, Error> {
        while self.left == 0 {
            if self.next == self.file.num_row_groups() {
                return Ok(None);
            }
            self.begin_group()?;
        }
        let rows = self.step.min(self.left);
        self.left -= rows;
        Columns::read(&mut self.columns, rows as usize).map(Some)
    }

    fn begin_group(&mut self) -> Result<(), Error> {
        let group = self.file.get_row_group(self.next)?;
        self.next += 1;
        self.left = u64::try_from(group.metadata().num_rows()).unwrap_or(0);
        let bytes = u64::try_from(group.metadata().total_byte_size()).unwrap_or(0);
        let each = (bytes / self.left.max(1)).max(1);
        self.step = (CHUNK_BYTES / each).clamp(1, CHUNK_ROWS);
        self.columns = (0..group.num_columns()).map(|at| group.get_column_reader(at)).collect::<Result<_, _>>()?;
        Ok(())
    }
}

impl Iterator for Reader {
    type Item = Result<Chunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.columns() {
            Ok(columns) => columns.map(|columns| Ok(Chunk(columns))),
            Err(error) => {
                (self.left, self.next) = (0, self.file.num_row_groups());
                Some(Err(error))
            }
        }
    }
}

/// Some rows.
pub struct Chunk(pub(super) Columns);

/// Whose a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowId<'c> {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its span.
    pub span_id: SpanId,
    /// The user that it names.
    pub user: Option<&'c str>,
    /// The session that it names.
    pub session: Option<&'c str>,
}

impl Chunk {
    /// How many rows it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.rows
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row's place in the log.
    #[must_use]
    pub fn offset(&self, row: usize) -> u64 {
        self.0.int(Column::LogOffset, row).map_or(0, |offset| offset as u64)
    }

    /// When the row's span began; of one that began after 2262 the latest that a column can say.
    #[must_use]
    pub fn start(&self, row: usize) -> UnixNanos {
        UnixNanos(self.0.int(Column::StartTime, row).and_then(|at| u64::try_from(at).ok()).unwrap_or(0))
    }

    /// Whose the row is.
    pub fn id(&self, row: usize) -> Result<RowId<'_>, Error> {
        let id = |column| self.0.text(column, row).map(Option::unwrap_or_default);
        Ok(RowId {
            trace_id: id(Column::TraceId)?.parse().map_err(|_| Error::Damaged("a trace id is none"))?,
            span_id: id(Column::SpanId)?.parse().map_err(|_| Error::Damaged("a span id is none"))?,
            user: self.0.text(Column::UserId, row)?,
            session: self.0.text(Column::SessionId, row)?,
        })
    }

    /// Its spans as requests: rows that follow each other in the log and came under one key at one time are one batch, those of equal
    /// resource and scope next to each other lie under one.
    pub fn batches(&self) -> Result<Vec<Batch>, Error> {
        back::batches(&self.0)
    }
}
