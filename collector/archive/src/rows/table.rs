//! Rows of one day being written: columns to row groups to the bytes of a file.
//!
//! On disk: `PAR1`, the seal (16 bytes that no Parquet reader looks at: `emberd` and two zeros, then the CRC-64/NVME of all other bytes of the
//! file, little endian), row groups, bloom filters, page indexes, footer. The footer's key `emberd.archive.version` says which version
//! of all this it is.

use std::sync::Arc;

use bytes::Bytes;
use emberd_model::UnixNanos;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{BloomFilterPosition, WriterProperties};
use parquet::file::writer::SerializedFileWriter;

use super::cells::Columns;
use super::leaf::{Leaf, Press};
use super::schema::{Column, OF_EVENTS, OF_LINKS, SPECS, descriptor};
use super::seal;
use crate::part::{Day, Part};

/// The key in a file's footer.
pub(super) const VERSION_KEY: &str = "emberd.archive.version";
/// The key of the day that the file's spans began on, in days from 1970-01-01.
pub(super) const DAY_KEY: &str = "emberd.archive.day";
/// What is written.
pub(super) const VERSION: u32 = 1;

/// A row group ends with so many rows.
const GROUP_ROWS: u64 = 100_000;
/// Or when its pages are so long.
const GROUP_BYTES: usize = 20 << 20;
/// Pages are looked at each time so many bytes have come.
const LOOK_BYTES: usize = 64 << 10;

/// The rows.
pub(super) struct Table {
    day: Day,
    leaves: Vec<Leaf>,
    file: Option<SerializedFileWriter<Vec<u8>>>,
    /// In the group, and in the file before it.
    rows: u64,
    rows_before: u64,
    looked: usize,
    /// Rows without events, and without links, whose levels are still to be written.
    no_events: usize,
    no_links: usize,
    maps: u32,
    start: (u64, u64),
    /// For texts that a dictionary has to look at first.
    pub(super) scratch: Vec<u8>,
}

impl Table {
    pub(super) fn new(day: Day) -> Self {
        let leaves = SPECS.iter().map(Leaf::new).collect();
        let start = (u64::MAX, 0);
        Self {
            day,
            leaves,
            file: None,
            rows: 0,
            rows_before: 0,
            looked: 0,
            no_events: 0,
            no_links: 0,
            maps: 0,
            start,
            scratch: Vec::new(),
        }
    }

    pub(super) fn day(&self) -> Day {
        self.day
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows_before + self.rows
    }

    /// What it holds in memory.
    pub(super) fn bytes(&self) -> usize {
        let file = self.file.as_ref().map_or(0, |file| file.inner().capacity());
        file + self.leaves.iter().map(Leaf::bytes).sum::<usize>()
    }

    /// How long the file is so far, about.
    pub(super) fn written(&self) -> usize {
        let file = self.file.as_ref().map_or(0, SerializedFileWriter::bytes_written);
        file + self.leaves.iter().map(Leaf::written).sum::<usize>()
    }

    #[inline]
    pub(super) fn at(&mut self, column: Column) -> &mut Leaf {
        &mut self.leaves[column as usize]
    }

    /// A column, and room to write a text in before it goes there.
    #[inline]
    pub(super) fn with_scratch(&mut self, column: Column) -> (&mut Leaf, &mut Vec<u8>) {
        (&mut self.leaves[column as usize], &mut self.scratch)
    }

    /// A required text.
    #[inline]
    pub(super) fn text(&mut self, column: Column, text: &[u8]) {
        self.at(column).text(text);
    }

    /// A text that may be missing.
    #[inline]
    pub(super) fn maybe(&mut self, column: Column, text: Option<&[u8]>) {
        let leaf = self.at(column);
        leaf.level(0, u8::from(text.is_some()));
        if let Some(text) = text {
            leaf.text(text);
        }
    }

    /// A number that may be missing.
    #[inline]
    pub(super) fn maybe_int(&mut self, column: Column, int: Option<i64>) {
        let leaf = self.at(column);
        leaf.level(0, u8::from(int.is_some()));
        if let Some(int) = int {
            leaf.int(int);
        }
    }

    /// Writes a row of another file as it is; says how many bytes its texts have.
    pub(super) fn copy(&mut self, chunk: &Columns, row: usize) -> usize {
        self.catch_up();
        self.leaves.iter_mut().zip(&chunk.cells).map(|(leaf, cells)| leaf.copy(cells, row)).sum()
    }

    /// A number for the next map that is written; no two have one.
    #[inline]
    pub(super) fn next_map(&mut self) -> u32 {
        self.maps = self.maps.wrapping_add(1).max(1);
        self.maps
    }

    /// A row without events.
    pub(super) fn no_events(&mut self) {
        self.no_events += 1;
    }

    /// A row without links.
    pub(super) fn no_links(&mut self) {
        self.no_links += 1;
    }

    /// Writes the levels that were put off; before others in the columns of events and links.
    pub(super) fn catch_up(&mut self) {
        for (rows, columns) in [(&mut self.no_events, &OF_EVENTS[..]), (&mut self.no_links, &OF_LINKS[..])] {
            let rows = std::mem::take(rows);
            if rows > 0 {
                columns.iter().for_each(|&column| self.leaves[column as usize].nothing(rows));
            }
        }
    }

    /// Ends a row of a span that began at `start` and has about `bytes` bytes.
    pub(super) fn end_row(&mut self, start: UnixNanos, bytes: usize, press: &mut Press) -> Result<(), ParquetError> {
        self.rows += 1;
        self.start = (self.start.0.min(start.0), self.start.1.max(start.0));
        self.looked += bytes;
        if self.looked >= LOOK_BYTES {
            self.looked = 0;
            self.catch_up();
            for leaf in &mut self.leaves {
                leaf.settle(self.rows, press)?;
            }
            if self.leaves.iter().map(Leaf::written).sum::<usize>() >= GROUP_BYTES {
                return self.end_group(press);
            }
        }
        if self.rows >= GROUP_ROWS { self.end_group(press) } else { Ok(()) }
    }

    fn end_group(&mut self, press: &mut Press) -> Result<(), ParquetError> {
        self.catch_up();
        let descriptor = descriptor()?;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(begun(self.day)?),
        };
        // All of it at once, for a buffer that grows is copied each time; and some for bloom filters and indexes.
        let len = self.leaves.iter().map(Leaf::written).sum::<usize>();
        file.inner_mut().reserve(len + len / 8 + (64 << 10));
        let mut group = file.next_row_group()?;
        let leaves = std::mem::replace(&mut self.leaves, SPECS.iter().map(Leaf::new).collect());
        for (leaf, descr) in leaves.into_iter().zip(descriptor.columns()) {
            let (chunk, close) = leaf.finish(Arc::clone(descr), self.rows, press)?;
            group.append_column(&chunk, close)?;
        }
        group.close()?;
        self.rows_before += self.rows;
        self.rows = 0;
        Ok(())
    }

    /// The file.
    pub(super) fn finish(mut self, press: &mut Press) -> Result<Part, ParquetError> {
        if self.rows > 0 || self.file.is_none() {
            self.end_group(press)?;
        }
        let rows = self.rows_before;
        let mut bytes = match self.file {
            Some(file) => file.into_inner()?,
            None => Vec::new(),
        };
        seal::set(&mut bytes);
        let (start_min, start_max) = (UnixNanos(self.start.0), UnixNanos(self.start.1));
        Ok(Part { day: self.day, rows, start_min, start_max, file: Bytes::from(bytes) })
    }
}

fn begun(day: Day) -> Result<SerializedFileWriter<Vec<u8>>, ParquetError> {
    let notes = vec![
        KeyValue::new(VERSION_KEY.to_owned(), VERSION.to_string()),
        KeyValue::new(DAY_KEY.to_owned(), day.0.to_string()),
    ];
    let properties = WriterProperties::builder()
        .set_created_by("emberd".to_owned())
        .set_bloom_filter_position(BloomFilterPosition::AfterRowGroup)
        .set_key_value_metadata(Some(notes))
        .build();
    let schema = descriptor()?.root_schema_ptr();
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    file.write_all(&seal::ROOM)?;
    file.flush()?;
    Ok(file)
}
