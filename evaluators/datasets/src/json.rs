//! JSON, whole or line by line.

use std::cell::Cell;
use std::fmt;
use std::io::{BufRead, Read, Write};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::example::{Example, Type};
use crate::import::{Error, RowSink, Rows, row_too_large};

/// A list of rows, or an object that has one under `data`. One row at a time is in memory beside those that are kept.
pub(crate) fn read(source: impl BufRead, rows: &mut Rows<'_>) -> Result<(), Error> {
    let meter = Meter { read: Cell::new(0), max: Cell::new(rows.limits.row_bytes) };
    let limits = rows.limits;
    let mut json = serde_json::Deserializer::from_reader(Metered { source, meter: &meter });
    let mut stopped = None;
    let taken = Whole(Sink { rows, meter: &meter, stopped: &mut stopped }).deserialize(&mut json);
    let ended = taken.and_then(|()| {
        // What follows the rows is bounded like a row.
        meter.begin();
        json.end()
    });
    match (ended, stopped) {
        (_, Some(error)) => Err(error),
        (Ok(()), None) => Ok(()),
        (Err(_), None) if meter.is_over() => Err(row_too_large(limits)),
        (Err(error), None) => Err(unreadable(error)),
    }
}

fn unreadable(error: serde_json::Error) -> Error {
    if error.is_io() {
        return Error::Io(error.into());
    }
    let place = format!("line {}, column {}", error.line(), error.column());
    let said = error.to_string();
    // It names the place itself, at its end.
    let what = said.split(" at line ").next().unwrap_or_default().to_owned();
    Error::Unreadable { place, what }
}

/// A row a line.
pub(crate) fn read_lines(mut source: impl BufRead, rows: &mut Rows<'_>) -> Result<(), Error> {
    let max = rows.limits.row_bytes;
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        // One more than allowed, so that a line of just so many bytes is told from a longer one; and its line end.
        (&mut source).take(max.saturating_add(2)).read_until(b'\n', &mut text)?;
        if text.is_empty() {
            break;
        }
        let row = text.trim_ascii();
        if row.len() as u64 > max {
            return Err(row_too_large(rows.limits));
        }
        if row.is_empty() {
            continue;
        }
        match serde_json::from_slice(row) {
            Ok(value) => rows.row(Some(line), row.len() as u64, value)?,
            Err(error) => {
                let said = error.to_string();
                let what = said.split(" at line ").next().unwrap_or_default();
                rows.bad(line, None, format!("{what} at column {}", error.column()))?;
            }
        }
    }
    Ok(())
}

/// All rows as a list, one on a line.
pub(crate) fn write<'a>(
    r#type: Type,
    examples: impl Iterator<Item = &'a Example>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    out.write_all(b"[")?;
    for (index, example) in examples.enumerate() {
        out.write_all(if index == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut *out, &r#type.row(example))?;
    }
    out.write_all(b"\n]\n")
}

/// A row a line.
pub(crate) fn write_lines<'a>(
    r#type: Type,
    examples: impl Iterator<Item = &'a Example>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    for example in examples {
        serde_json::to_writer(&mut *out, &r#type.row(example))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// How many bytes were read since the row began.
struct Meter {
    read: Cell<u64>,
    max: Cell<u64>,
}

impl Meter {
    fn begin(&self) {
        self.read.set(0);
    }

    fn is_over(&self) -> bool {
        // The brackets and commas around it are not the row's.
        self.read.get() > self.max.get().saturating_add(2)
    }
}

struct Metered<'a, R> {
    source: R,
    meter: &'a Meter,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.meter.read.set(self.meter.read.get() + read as u64);
        if self.meter.is_over() {
            return Err(std::io::Error::other("a row is too large"));
        }
        Ok(read)
    }
}

struct Sink<'a, 'b> {
    rows: &'a mut Rows<'b>,
    meter: &'a Meter,
    /// Why the rows were not taken; the parser has no place for it.
    stopped: &'a mut Option<Error>,
}

/// The whole document.
struct Whole<'a, 'b>(Sink<'a, 'b>);

/// The list of rows.
struct List<'a, 'b, 'c>(&'c mut Sink<'a, 'b>);

impl<'de> DeserializeSeed<'de> for Whole<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> DeserializeSeed<'de> for List<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Sink { rows, meter, stopped } = self.0;
        meter.begin();
        while let Some(value) = list.next_element::<Value>()? {
            if let Err(error) = rows.row(None, meter.read.get(), value) {
                **stopped = Some(error);
                return Err(A::Error::custom("stopped"));
            }
            meter.begin();
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Whole<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of rows, or an object with one under data")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, list: A) -> Result<(), A::Error> {
        List(&mut self.0).visit_seq(list)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = object.next_key::<String>()? {
            if key != "data" {
                object.next_value::<IgnoredAny>()?;
            } else if std::mem::replace(&mut found, true) {
                return Err(A::Error::custom("data is there twice"));
            } else {
                object.next_value_seed(List(&mut self.0))?;
            }
            self.0.meter.begin();
        }
        if found { Ok(()) } else { Err(A::Error::custom("there is no list of rows under data")) }
    }
}
