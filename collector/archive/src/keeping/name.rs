//! How the archive's files are called.
//!
//! Promise: what is read out of a name is what it would be called by; a name is used for one content only, for `SEQ` is the
//! number of the entry that adds the file, and every process begins with an entry of its own.
//! On disk:  `date=YYYY-MM-DD/LOG-FROM-TO-SEQ-PART.parquet` (20, 20, 10 and 3 digits) and `_manifest/LOG/SEQ.json`.
//! `_` and `.` before a name hide it from Spark and Hive, and `**/*.parquet` finds neither.

use crate::part::Day;

/// Where the manifests of all logs lie.
pub const MANIFESTS: &str = "_manifest/";
/// What the names of days begin with.
pub const DATE: &str = "date=";
/// How many files one entry adds at most.
pub const PARTS_MAX: usize = 1_000;
/// What the number of an entry is below.
pub(crate) const SEQ_MAX: u64 = 9_999_999_999;
/// The days that have a name: up to 9999-12-31.
const DAYS: u32 = 2_932_897;
/// Of 1970-01-01.
const EPOCH_JULIAN: i32 = 2_440_588;

/// Whether `log` may stand in a name: lower-case letters and digits, at most 64.
#[must_use]
pub fn is_log(log: &str) -> bool {
    (1..=64).contains(&log.len()) && log.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// `YYYY-MM-DD`; none for a day after the year 9999.
#[must_use]
pub fn day_text(day: Day) -> Option<String> {
    let date = time::Date::from_julian_day(EPOCH_JULIAN + i32::try_from(day.0).ok().filter(|_| day.0 < DAYS)?).ok()?;
    Some(format!("{:04}-{:02}-{:02}", date.year(), date.month() as u8, date.day()))
}

/// The day of `YYYY-MM-DD`, from 1970-01-01 on.
#[must_use]
pub fn day_of(text: &str) -> Option<Day> {
    let mut parts = text.split('-');
    let (year, month, date) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let month = time::Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = time::Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(date).ok()?).ok()?;
    let day = u32::try_from(date.to_julian_day() - EPOCH_JULIAN).ok()?;
    parts.next().is_none().then_some(Day(day))
}

/// Exactly so many digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    let plain = text.len() == count && text.bytes().all(|c| c.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// What the name of a data file says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataName {
    /// The day that its spans began on.
    pub day: Day,
    /// The log that they come from.
    pub log: String,
    /// No span of it has a lower offset.
    pub from: u64,
    /// All its spans have lower offsets.
    pub to: u64,
    /// The entry that adds it.
    pub seq: u64,
    /// Which of that entry's files it is.
    pub part: u32,
}

impl DataName {
    /// The name; none if the day has none.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let Self { day, log, from, to, seq, part } = self;
        let date = day_text(*day)?;
        Some(format!("{DATE}{date}/{log}-{from:020}-{to:020}-{seq:010}-{part:03}.parquet"))
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.strip_prefix(DATE)?.split_once('/')?;
        let mut parts = rest.strip_suffix(".parquet")?.split('-');
        let log = parts.next().filter(|log| is_log(log))?.to_owned();
        let (from, to) = (digits(parts.next()?, 20)?, digits(parts.next()?, 20)?);
        let (seq, part) = (digits(parts.next()?, 10)?, digits(parts.next()?, 3)?);
        let name = Self { day: day_of(date)?, log, from, to, seq, part: u32::try_from(part).ok()? };
        (parts.next().is_none() && from < to).then_some(name)
    }
}

/// The name of an entry of a log's manifest.
#[must_use]
pub fn entry_name(log: &str, seq: u64) -> String {
    format!("{MANIFESTS}{log}/{seq:010}.json")
}

/// The log and the number of an entry, by its name.
#[must_use]
pub fn entry_of(name: &str) -> Option<(&str, u64)> {
    let (log, last) = name.strip_prefix(MANIFESTS)?.split_once('/')?;
    Some((Some(log).filter(|log| is_log(log))?, digits(last.strip_suffix(".json")?, 10)?))
}

/// Whether a file belongs to `log`: one of its data files or entries, or what a crash left of one.
#[must_use]
pub fn is_of(name: &str, log: &str) -> bool {
    let whole = whole_of(name);
    DataName::parse(&whole).is_some_and(|data| data.log == log) || entry_of(&whole).is_some_and(|(of, _)| of == log)
}

/// The name that a half-written file would have got; any other name as it is.
fn whole_of(name: &str) -> String {
    let (dir, last) = name.rsplit_once('/').unwrap_or(("", name));
    match last.strip_prefix('.').and_then(|last| last.strip_suffix(".tmp")) {
        Some(last) => format!("{dir}/{last}"),
        None => name.to_owned(),
    }
}
