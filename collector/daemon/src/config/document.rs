//! From TOML text to a tree in which every value knows where it was written.
//!
//! Promise: a file that is not TOML yields all its faults with their lines, and what could be read all the same, so that
//! one look at the errors is enough.
//! Not here: which keys there are (`sections.rs`), what they may hold (`units.rs`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::faults::{Fault, Place};

/// Larger files are not configurations: this one, with every comment, has some 10 KiB.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file that is not TOML at all has a fault in every line; so many are enough to see that.
const FAULTS_MAX: usize = 100;

/// A table as it was written.
pub(super) type Table = BTreeMap<String, Found>;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A value, of any type.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Text.
    Text(String),
    /// A whole number; none if it has more than 128 bits.
    Whole(Option<i128>),
    /// true or false.
    Truth(bool),
    /// A list.
    List(Vec<Found>),
    /// A table.
    Table(Table),
    /// Fractions, dates and times, which no key takes; here is what TOML calls it.
    Other(&'static str),
    /// From the environment, where nothing has a type until it is known which key it is for.
    Untyped(String),
}

impl Value {
    /// What to call it in "expected .., found ..".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Untyped(_) => "text",
            Self::Whole(_) => "a number",
            Self::Truth(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// Reads the text of a file; its faults are added to `faults`.
pub(super) fn parse(file: &Path, bytes: &[u8], faults: &mut Vec<Fault>) -> Table {
    let lines = Lines::of(file.display().to_string().into(), bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("not UTF-8: byte {:#04x}", bytes[error.valid_up_to()]);
            faults.push(Fault { place: lines.place(error.valid_up_to()), key: String::new(), message });
            return Table::new();
        }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors.iter().take(FAULTS_MAX) {
        let place = lines.place(error.span().map_or(0, |span| span.start));
        let key = lines.key_at(&place);
        faults.push(Fault { place, key, message: error.message().replace('\n', ", ") });
    }
    lines.table(table.get_ref())
}

/// Reads a value that an environment variable holds: a list or a table, as TOML writes it inline.
pub(super) fn parse_inline(text: &str, place: &Place) -> Result<Value, String> {
    let lines = Lines::of("".into(), text.as_bytes());
    match DeValue::parse(text) {
        Ok(value) => {
            let mut value = lines.value(value.get_ref());
            stand_at(&mut value, place);
            Ok(value)
        }
        Err(error) => Err(format!("not TOML: {}", error.message())),
    }
}

fn stand_at(value: &mut Value, place: &Place) {
    let set = |found: &mut Found| {
        found.place = place.clone();
        stand_at(&mut found.value, place);
    };
    match value {
        Value::List(items) => items.iter_mut().for_each(set),
        Value::Table(table) => table.values_mut().for_each(set),
        _ => (),
    }
}

struct Lines<'t> {
    file: Arc<str>,
    bytes: &'t [u8],
    /// Where each line ends, so that a file of nothing but keys costs no more to read than its size.
    ends: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(file: Arc<str>, bytes: &'t [u8]) -> Self {
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
        Self { file, bytes, ends }
    }

    fn place(&self, at: usize) -> Place {
        Place::File(self.file.clone(), 1 + self.ends.partition_point(|end| *end < at))
    }

    /// The key whose line this is, for a fault in the TOML itself, where no tree says it.
    fn key_at(&self, place: &Place) -> String {
        let Place::File(_, line) = place else { return String::new() };
        let text = String::from_utf8_lossy(self.bytes);
        let mut section = "";
        let mut key = "";
        for current in text.lines().take(*line) {
            let current = current.trim();
            key = current.split_once('=').map_or("", |(key, _)| key.trim());
            if key.is_empty() && current.starts_with('[') {
                section = current.split_inclusive(']').next().unwrap_or("");
            }
        }
        [section, key].join(" ").trim().chars().take(64).collect()
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        table
            .iter()
            .map(|(key, value)| {
                let found = Found { value: self.value(value.get_ref()), place: self.place(key.span().start) };
                (key.get_ref().to_string(), found)
            })
            .collect()
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(whole) => Value::Whole(i128::from_str_radix(whole.as_str(), whole.radix()).ok()),
            DeValue::Boolean(truth) => Value::Truth(*truth),
            DeValue::Float(_) => Value::Other("a fraction"),
            DeValue::Datetime(_) => Value::Other("a date or time"),
            DeValue::Table(table) => Value::Table(self.table(table)),
            DeValue::Array(items) => Value::List(
                items
                    .iter()
                    .map(|item| Found { value: self.value(item.get_ref()), place: self.place(item.span().start) })
                    .collect(),
            ),
        }
    }
}
