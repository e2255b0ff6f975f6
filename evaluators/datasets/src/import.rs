//! Files to examples.
//!
//! Promise: all rows or none. JSON, JSONL and CSV are read as a stream; only the examples are kept. Each row, each file and all
//! examples together are bounded ([`Limits`]). A file that was cut short is an error, or gives only rows that are whole:
//! JSON ends with its bracket; a line of JSONL is a whole object; Parquet ends with its footer; the last line of CSV must end
//! with a line end, unless [`Import::unended_csv`] says that it need not, since nothing else tells a cut text from a short one.
//! Kept by: `tests/hostile.rs`, `tests/round_trip.rs`.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::columns::{Binding, Cells, Columns};
use crate::example::{Example, Gather, Type};
use crate::fault::Faults;
use crate::{csv, json, parquet_in};

/// A file's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// A list of rows, or an object with one under `data`.
    Json,
    /// A row a line; empty lines are skipped.
    Jsonl,
    /// RFC 4180, with a header.
    Csv,
    /// Parquet: uncompressed, snappy or zstd.
    Parquet,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Json, Self::Jsonl, Self::Csv, Self::Parquet];

    /// The format of a file of that name, by its ending.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit_once('.')?;
        match ending.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            "parquet" | "pq" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// What is read.
#[derive(Debug)]
pub enum Source {
    /// Bytes in memory, such as an upload's.
    Bytes(Bytes),
    /// A file, from its beginning.
    File(File),
}

/// Bounds of what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of one row, as it stands in the file; of Parquet, the text in it.
    pub row_bytes: u64,
    /// Rows.
    pub rows: usize,
    /// Bytes of all rows; of Parquet, what the file says that it will be when inflated.
    pub total_bytes: u64,
    /// Faults that are listed; more are counted.
    pub faults: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes: 256 << 20, row_bytes: 16 << 20, rows: 1_000_000, total_bytes: 512 << 20, faults: 100 }
    }
}

/// How a file is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Import {
    /// What its rows are to be.
    pub r#type: Type,
    /// What it is.
    pub format: Format,
    /// Which column is which field.
    pub columns: Columns,
    /// Bounds.
    pub limits: Limits,
    /// Between two cells of CSV, an ASCII character.
    pub delimiter: u8,
    /// Whether the last line of CSV may lack its line end.
    pub unended_csv: bool,
}

impl Import {
    /// Files of this type and format, columns by their own names, commas, the usual limits.
    #[must_use]
    pub fn new(r#type: Type, format: Format) -> Self {
        let (columns, limits) = (Columns::default(), Limits::default());
        Self { r#type, format, columns, limits, delimiter: b',', unended_csv: false }
    }
}

/// Nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error("cannot read the file")]
    Io(#[from] std::io::Error),
    /// It is not what it should be, from some place on.
    #[error("{place}: {what}")]
    Unreadable {
        /// Where: a line, a row, a column, a byte.
        place: String,
        /// What is wrong there.
        what: String,
    },
    /// The columns are not those that the type needs, or that the caller named.
    #[error("{what}")]
    Columns {
        /// What is wrong with them.
        what: String,
    },
    /// A bound is reached.
    #[error("{what} more than {max}")]
    TooLarge {
        /// What has, and in which unit.
        what: Cow<'static, str>,
        /// The bound.
        max: u64,
    },
    /// Rows are wrong.
    #[error(transparent)]
    Faults(#[from] Faults),
}

/// Where a reader puts what it reads.
pub(crate) trait RowSink {
    /// The bounds of what is read.
    fn limits(&self) -> Limits;

    /// Which column becomes what.
    fn binding(&self) -> &Binding<'_>;

    /// Whether a file may have these columns.
    fn header(&self, names: &[String]) -> Result<(), Error> {
        self.binding().check_header(names).map_err(|what| Error::Columns { what })
    }

    /// Whether anything becomes of the values of this column.
    fn wants(&self, column: &str) -> bool {
        self.binding().wants(column)
    }

    /// The next row, of so many bytes, beginning on this line if the format has lines.
    fn row(&mut self, line: Option<u64>, bytes: u64, value: Value) -> Result<(), Error>;
}

/// Rows on their way to become examples.
pub(crate) struct Rows<'a> {
    binding: Binding<'a>,
    pub(crate) limits: Limits,
    gather: Gather,
    rows: usize,
    bytes: u64,
}

impl RowSink for Rows<'_> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn binding(&self) -> &Binding<'_> {
        &self.binding
    }

    fn row(&mut self, line: Option<u64>, bytes: u64, value: Value) -> Result<(), Error> {
        self.count(bytes)?;
        let row = self.rows;
        let value = match value {
            Value::Object(fields) => {
                let gather = &mut self.gather;
                let mut fault = |column: &str, what| gather.fault(row, line, Some(column), what);
                self.binding.row(fields, &mut fault).into()
            }
            other => other,
        };
        self.gather.take(row, line, value);
        Ok(())
    }
}

impl<'a> Rows<'a> {
    /// For a file of so many bytes, or why it is none.
    pub(crate) fn begin(how: &'a Import, file_bytes: u64) -> Result<Self, Error> {
        let cells = match how.format {
            Format::Json | Format::Jsonl => Cells::Json,
            Format::Csv => Cells::Text,
            Format::Parquet => Cells::Typed,
        };
        let binding = how.columns.bind(how.r#type, cells).map_err(|what| Error::Columns { what })?;
        let limits = how.limits;
        if file_bytes > limits.file_bytes {
            return Err(file_too_large(limits));
        }
        Ok(Self { binding, limits, gather: Gather::new(how.r#type, limits.faults), rows: 0, bytes: 0 })
    }

    /// How many rows there were, wrong ones among them.
    pub(crate) fn seen(&self) -> usize {
        self.rows
    }

    /// The examples.
    pub(crate) fn finish(self) -> Result<Vec<Example>, Error> {
        Ok(self.gather.finish()?)
    }

    /// The next row, which is wrong as a whole.
    pub(crate) fn bad(&mut self, line: u64, column: Option<&str>, what: String) -> Result<(), Error> {
        self.count(0)?;
        self.gather.fault(self.rows, Some(line), column, what);
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), Error> {
        let limits = self.limits;
        self.rows += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.rows > limits.rows {
            return Err(Error::TooLarge { what: "the file has rows".into(), max: limits.rows as u64 });
        }
        if bytes > limits.row_bytes {
            return Err(row_too_large(limits));
        }
        if self.bytes > limits.total_bytes {
            return Err(Error::TooLarge { what: "all rows together have bytes".into(), max: limits.total_bytes });
        }
        Ok(())
    }
}

pub(crate) fn row_too_large(limits: Limits) -> Error {
    Error::TooLarge { what: "a row has bytes".into(), max: limits.row_bytes }
}

pub(crate) fn file_too_large(limits: Limits) -> Error {
    Error::TooLarge { what: "the file has bytes".into(), max: limits.file_bytes }
}

/// The examples of a file, each with an id.
pub fn import(source: Source, how: &Import) -> Result<Vec<Example>, Error> {
    let bytes = match &source {
        Source::Bytes(bytes) => bytes.len() as u64,
        Source::File(file) => file.metadata()?.len(),
    };
    let mut rows = Rows::begin(how, bytes)?;
    match (how.format, source) {
        (Format::Parquet, Source::Bytes(bytes)) => parquet_in::read(bytes, &mut rows)?,
        (Format::Parquet, Source::File(file)) => parquet_in::read(file, &mut rows)?,
        (format, Source::Bytes(bytes)) => text(format, bytes.reader(), how, &mut rows)?,
        (format, Source::File(file)) => text(format, file, how, &mut rows)?,
    }
    rows.finish()
}

fn text(format: Format, source: impl Read, how: &Import, rows: &mut Rows<'_>) -> Result<(), Error> {
    // A pipe or a file that grows has no length that could be asked for before.
    let bounded = Bounded { source, left: how.limits.file_bytes };
    let mut source = BufReader::with_capacity(64 << 10, bounded);
    skip_mark(&mut source)?;
    let read = match format {
        Format::Json => json::read(source, rows),
        Format::Jsonl => json::read_lines(source, rows),
        Format::Csv | Format::Parquet => csv::read(source, how.delimiter, how.unended_csv, rows),
    };
    match read {
        Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::FileTooLarge => Err(file_too_large(how.limits)),
        read => read,
    }
}

/// UTF-8's byte order mark is skipped; UTF-16's says what is wrong.
fn skip_mark(source: &mut impl BufRead) -> Result<(), Error> {
    let start = source.fill_buf()?;
    if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) {
        return Err(Error::Unreadable { place: "byte 1".to_owned(), what: "is UTF-16, must be UTF-8".to_owned() });
    }
    if start.starts_with(&[0xef, 0xbb, 0xbf]) {
        source.consume(3);
    }
    Ok(())
}

/// Reads no more than was allowed.
struct Bounded<R> {
    source: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.source.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(std::io::ErrorKind::FileTooLarge.into()),
        }
        Ok(read)
    }
}
