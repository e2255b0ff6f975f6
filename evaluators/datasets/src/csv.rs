//! CSV as RFC 4180 has it, with a header.
//!
//! Promise: a cell may hold any text, line ends and quotes within quotes. A line ends with LF, CRLF or CR. Empty lines are skipped.
//! A quote within a cell that does not begin with one is itself. What follows a closing quote, a file that ends within quotes, a
//! row of more or fewer cells than the header, a cell that is not UTF-8: all are errors that name the line. A cell that a spreadsheet would
//! take for a formula is written behind an apostrophe, which is taken away again where it is read.

use std::io::{BufRead, Write};

use serde_json::Value;

use crate::cell;
use crate::example::{Example, Row, Type};
use crate::import::{Error, RowSink, Rows, row_too_large};

/// Columns in a file.
const COLUMNS_MAX: usize = 10_000;

/// Reads all rows.
pub(crate) fn read(source: impl BufRead, delimiter: u8, unended: bool, rows: &mut Rows<'_>) -> Result<(), Error> {
    let mut records = Records { source, delimiter, line: 1, after_cr: false, bytes_max: rows.limits.row_bytes };
    let Some(header) = records.next(rows)? else {
        return Err(Error::Columns { what: "the file is empty: there is no header".to_owned() });
    };
    if !header.ended {
        return Err(unended_at(header.line));
    }
    let names = header.cells.into_iter().map(String::from_utf8).collect::<Result<Vec<_>, _>>();
    let place = format!("line {}", header.line);
    let names = names.map_err(|_| Error::Unreadable { place, what: "the header is not UTF-8".to_owned() })?;
    rows.header(&names)?;
    while let Some(record) = records.next(rows)? {
        if !record.ended && !unended {
            return Err(unended_at(record.line));
        }
        if record.cells.len() != names.len() {
            let what = format!("has {} cells, the header {}", record.cells.len(), names.len());
            rows.bad(record.line, None, what)?;
            continue;
        }
        let mut row = Row::new();
        let mut broken = None;
        for (name, cell) in names.iter().zip(record.cells) {
            match String::from_utf8(cell) {
                Ok(cell) => drop(row.insert(name.clone(), plain(cell).into())),
                Err(_) => broken = broken.or(Some(name)),
            }
        }
        match broken {
            Some(name) => rows.bad(record.line, Some(name), "is not UTF-8".to_owned())?,
            None => rows.row(Some(record.line), record.bytes, row.into())?,
        }
    }
    Ok(())
}

fn unended_at(line: u64) -> Error {
    let what = "the last line has no line end: the file may have been cut short".to_owned();
    Error::Unreadable { place: format!("line {line}"), what }
}

/// One line of the table.
struct Record {
    line: u64,
    bytes: u64,
    cells: Vec<Vec<u8>>,
    /// Whether a line end followed.
    ended: bool,
}

/// Where in a cell the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Start,
    Plain,
    Quotes,
    /// A quote within quotes: the closing one, or the first of two.
    Quote,
}

struct Records<R> {
    source: R,
    delimiter: u8,
    line: u64,
    /// The last byte was CR: an LF after it belongs to the same line end.
    after_cr: bool,
    bytes_max: u64,
}

impl<R: BufRead> Records<R> {
    fn byte(&mut self) -> Result<Option<u8>, Error> {
        let Some(&byte) = self.source.fill_buf()?.first() else { return Ok(None) };
        self.source.consume(1);
        let second_half = std::mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n';
        self.line += u64::from(byte == b'\r' || (byte == b'\n' && !second_half));
        Ok(Some(byte))
    }

    /// The next line that is not empty.
    fn next(&mut self, rows: &Rows<'_>) -> Result<Option<Record>, Error> {
        let mut record = Record { line: self.line, bytes: 0, cells: Vec::new(), ended: false };
        let (mut cell, mut within, mut quoted_from) = (Vec::new(), Within::Start, 0);
        while let Some(byte) = self.byte()? {
            record.bytes += 1;
            if record.bytes > self.bytes_max {
                return Err(row_too_large(rows.limits));
            }
            let is_end = byte == b'\n' || byte == b'\r';
            match within {
                Within::Quotes if byte == b'"' => within = Within::Quote,
                Within::Quotes => cell.push(byte),
                Within::Quote if byte == b'"' => {
                    cell.push(b'"');
                    within = Within::Quotes;
                }
                Within::Start if byte == b'"' => (within, quoted_from) = (Within::Quotes, self.line),
                _ if byte == self.delimiter => {
                    record.cells.push(std::mem::take(&mut cell));
                    within = Within::Start;
                    if record.cells.len() >= COLUMNS_MAX {
                        let what = format!("has more than {COLUMNS_MAX} cells");
                        return Err(Error::Unreadable { place: format!("line {}", record.line), what });
                    }
                }
                Within::Start if is_end && record.cells.is_empty() => {
                    // An empty line, or the LF of a CRLF.
                    (record.line, record.bytes) = (self.line, 0);
                }
                _ if is_end => {
                    record.cells.push(cell);
                    record.ended = true;
                    return Ok(Some(record));
                }
                Within::Quote => {
                    let what = "there is text after a closing quote".to_owned();
                    return Err(Error::Unreadable { place: format!("line {}", self.line), what });
                }
                Within::Start | Within::Plain => {
                    cell.push(byte);
                    within = Within::Plain;
                }
            }
        }
        if within == Within::Quotes {
            let what = "the file ends within quotes that begin here".to_owned();
            return Err(Error::Unreadable { place: format!("line {quoted_from}"), what });
        }
        if within == Within::Start && record.cells.is_empty() {
            return Ok(None);
        }
        record.cells.push(cell);
        Ok(Some(record))
    }
}

/// A header, and a line for each example.
pub(crate) fn write<'a>(
    r#type: Type,
    examples: impl Iterator<Item = &'a Example>,
    delimiter: u8,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    let names = ["id"].into_iter().chain(r#type.fields().iter().map(|field| field.name)).chain(["metadata"]);
    names.for_each(|name| push(&mut line, name, delimiter));
    end(&mut line, out)?;
    for example in examples {
        push(&mut line, &example.id, delimiter);
        for field in r#type.fields() {
            match example.at(field.role) {
                Some(Value::String(text)) if field.text => push(&mut line, text, delimiter),
                Some(value) => push(&mut line, &cell::write(value), delimiter),
                None => push(&mut line, "", delimiter),
            }
        }
        let has_metadata = !example.metadata.is_empty();
        let metadata = if has_metadata { serde_json::to_string(&example.metadata)? } else { String::new() };
        push(&mut line, &metadata, delimiter);
        end(&mut line, out)?;
    }
    Ok(())
}

/// Whether a spreadsheet would run it, were there not the apostrophes before it; a number is none.
fn is_formula(cell: &str) -> bool {
    let bare = cell.trim_start_matches('\'');
    bare.starts_with(['=', '+', '-', '@', '\t', '\r']) && bare.parse::<f64>().is_err()
}

/// A cell as it was before it was written behind an apostrophe.
fn plain(mut cell: String) -> String {
    if cell.starts_with('\'') && is_formula(&cell) {
        cell.remove(0);
    }
    cell
}

fn push(line: &mut Vec<u8>, cell: &str, delimiter: u8) {
    let guarded = is_formula(cell).then(|| format!("'{cell}"));
    let cell = guarded.as_deref().unwrap_or(cell);
    let special = |byte: u8| matches!(byte, b'"' | b'\n' | b'\r') || byte == delimiter;
    if cell.bytes().any(special) || cell.starts_with(char::is_whitespace) || cell.ends_with(char::is_whitespace) {
        line.push(b'"');
        line.extend_from_slice(cell.replace('"', "\"\"").as_bytes());
        line.push(b'"');
    } else {
        line.extend_from_slice(cell.as_bytes());
    }
    line.push(delimiter);
}

fn end(line: &mut Vec<u8>, out: &mut impl Write) -> std::io::Result<()> {
    line.pop();
    line.push(b'\n');
    out.write_all(line)?;
    line.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a spreadsheet would run is written so that it does not, and comes back as it was.
    #[test]
    fn formulas_are_written_as_texts_and_come_back() {
        for (cell, written) in [
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("+1+1", "'+1+1"),
            ("-2+3", "'-2+3"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("'=x", "''=x"),
            ("-5", "-5"),
            ("+1.5e3", "+1.5e3"),
            ("'-5", "'-5"),
            ("a=b", "a=b"),
            ("'quoted'", "'quoted'"),
            ("", ""),
        ] {
            let mut line = Vec::new();
            push(&mut line, cell, b',');
            assert_eq!(String::from_utf8(line).unwrap(), format!("{written},"), "{cell}");
            assert_eq!(plain(written.to_owned()), cell);
        }
    }
}
