//! Files to other files: without some rows, or several as one.
//!
//! Promise: rows are copied as they are, typed columns too, so that what a span cost when it came is what it cost; their order is that of
//! the log.
//! Bounds:   memory holds the files given, the file made and a chunk of each file that is read; a file is read only when the order asks for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;

use super::leaf::Press;
use super::read::{Chunk, Reader, RowId, open};
use super::table::Table;
use super::{Error, LEVEL};
use crate::part::{Day, Part};

/// A merged file ends when it is about so long, and another begins.
const PART_BYTES: usize = 128 << 20;

/// What [`rewrite`] did.
#[derive(Debug)]
pub struct Rewritten {
    /// The new file; none if no row is left.
    pub part: Option<Part>,
    /// Rows that are in it.
    pub kept: u64,
    /// Rows that are not.
    pub erased: u64,
}

/// A copy of a file with those of its rows that `keep` says yes to. If `erased` is 0, the copy may be thrown away.
pub fn rewrite(file: Bytes, mut keep: impl FnMut(&RowId<'_>) -> bool) -> Result<Rewritten, Error> {
    let reader = open(file)?;
    let mut press = Press::new(LEVEL)?;
    let mut table = Table::new(reader.day());
    let mut erased = 0;
    for chunk in reader {
        let chunk = chunk?;
        for row in 0..chunk.len() {
            if keep(&chunk.id(row)?) {
                copy(&mut table, &chunk, row, &mut press)?;
            } else {
                erased += 1;
            }
        }
    }
    let kept = table.rows();
    let part = if kept > 0 { Some(table.finish(&mut press)?) } else { None };
    Ok(Rewritten { part, kept, erased })
}

/// The rows of all files, in the log's order, in as few files as there are days; large ones are split.
pub fn merge(files: Vec<Bytes>) -> Result<Vec<Part>, Error> {
    let mut days: BTreeMap<Day, Vec<Bytes>> = BTreeMap::new();
    for file in files {
        days.entry(open(file.clone())?.day()).or_default().push(file);
    }
    let mut press = Press::new(LEVEL)?;
    let mut parts = Vec::new();
    for (day, files) in days {
        merge_day(day, files, &mut press, &mut parts)?;
    }
    Ok(parts)
}

/// A file that is being read row by row.
struct Source {
    reader: Reader,
    chunk: Chunk,
    row: usize,
}

impl Source {
    /// Stands at the first row; none if there is none.
    fn begin(file: Bytes) -> Result<Option<Self>, Error> {
        let mut reader = open(file)?;
        let Some(chunk) = reader.next() else { return Ok(None) };
        Ok(Some(Self { chunk: chunk?, reader, row: 0 }))
    }

    fn offset(&self) -> u64 {
        self.chunk.offset(self.row)
    }

    /// Goes on to the next row; false at the end.
    fn advance(&mut self) -> Result<bool, Error> {
        self.row += 1;
        if self.row == self.chunk.len() {
            let Some(chunk) = self.reader.next() else { return Ok(false) };
            (self.chunk, self.row) = (chunk?, 0);
        }
        Ok(true)
    }
}

fn merge_day(day: Day, files: Vec<Bytes>, press: &mut Press, parts: &mut Vec<Part>) -> Result<(), Error> {
    // By the first row of each: files that lie behind each other are opened one after the other.
    let mut waiting = BinaryHeap::new();
    for (nth, file) in files.into_iter().enumerate() {
        let first = Source::begin(file.clone())?.map(|source| source.offset());
        waiting.extend(first.map(|first| Reverse((first, nth, file))));
    }
    let mut open: Vec<Source> = Vec::new();
    let mut table = Table::new(day);
    loop {
        let least =
            open.iter().enumerate().min_by_key(|(_, source)| source.offset()).map(|(at, source)| (source.offset(), at));
        let next = waiting.peek().map(|Reverse((first, ..))| *first);
        if next.is_some_and(|next| least.is_none_or(|(least, _)| next < least)) {
            if let Some(Reverse((_, _, file))) = waiting.pop() {
                open.extend(Source::begin(file)?);
            }
            continue;
        }
        let Some((_, at)) = least else { break };
        let source = &mut open[at];
        copy(&mut table, &source.chunk, source.row, press)?;
        if !source.advance()? {
            open.swap_remove(at);
        }
        // Looking at each row would cost more than writing it.
        if table.rows().is_multiple_of(1024) && table.written() >= PART_BYTES {
            parts.push(std::mem::replace(&mut table, Table::new(day)).finish(press)?);
        }
    }
    if table.rows() > 0 {
        parts.push(table.finish(press)?);
    }
    Ok(())
}

/// Copies a row.
fn copy(table: &mut Table, chunk: &Chunk, row: usize, press: &mut Press) -> Result<(), Error> {
    let bytes = table.copy(&chunk.0, row);
    Ok(table.end_row(chunk.start(row), bytes, press)?)
}
