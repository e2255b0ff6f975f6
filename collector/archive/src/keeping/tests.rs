//! The promises of [`keeping`](super): a place that fails at every call, the forms of names and entries, a directory, a bucket.

mod contract;
mod directory;
mod format;
mod forms;
mod later;
mod model;
mod s3;
mod sim;

use bytes::Bytes;
use emberd_model::UnixNanos;

use crate::part::{Day, Part};

/// The log that most tests write.
const LOG: &str = "0198c0ffee0042";
/// The day that the spans of tests begin to lie on: 2026-01-05.
const MONDAY: u32 = 20_458;
/// Of a day.
const NANOS: u64 = 24 * 3600 * 1_000_000_000;

/// A span of the tests: its offset, and something that tells it from others.
type Row = (u64, u64);

/// The day of the span at `offset`.
fn day(offset: u64) -> u32 {
    MONDAY + (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32 % 3
}

/// The span at `offset`.
fn row(offset: u64) -> Row {
    (offset, offset.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32)
}

/// A file of the tests: a span in each line.
fn encoded(rows: &[Row]) -> Bytes {
    rows.iter().map(|(offset, value)| format!("{offset} {value}\n")).collect::<String>().into()
}

fn decoded(file: &[u8]) -> Vec<Row> {
    let text = std::str::from_utf8(file).expect("a file of the tests");
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).expect("a number");
    let line = |line: &str| {
        let mut words = line.split(' ');
        (number(words.next()), number(words.next()))
    };
    text.lines().map(line).collect()
}

/// The part with these spans of one day.
fn part(day: u32, rows: &[Row]) -> Part {
    let at = |row: Option<&Row>| UnixNanos(u64::from(day) * NANOS + row.map_or(0, |(offset, _)| *offset));
    let (start_min, start_max) = (at(rows.first()), at(rows.last()));
    Part { day: Day(day), rows: rows.len() as u64, start_min, start_max, file: encoded(rows) }
}

/// The parts of the spans `from..to`, one for each day that has any.
fn parts(from: u64, to: u64) -> Vec<Part> {
    let rows: Vec<Row> = (from..to).map(row).collect();
    let of_day = |wanted: u32| rows.iter().copied().filter(|(offset, _)| day(*offset) == wanted).collect::<Vec<Row>>();
    let days = (MONDAY..MONDAY + 3).map(|day| (day, of_day(day)));
    days.filter(|(_, rows)| !rows.is_empty()).map(|(day, rows)| part(day, &rows)).collect()
}

/// Merges files of the tests.
fn merged(files: Vec<Bytes>) -> Result<Vec<Part>, super::place::BoxError> {
    let mut rows: Vec<Row> = files.iter().flat_map(|file| decoded(file)).collect();
    rows.sort_unstable();
    let day = rows.first().map_or(MONDAY, |(offset, _)| day(*offset));
    Ok(vec![part(day, &rows)])
}
