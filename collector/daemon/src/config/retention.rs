//! `[retention]`: how long what is kept.

use std::time::Duration;

use super::document::{Found, Value};
use super::reader::Reader;
use super::units::{ByteSize, FromValue};

/// How long what is kept.
#[derive(Debug)]
pub(crate) struct Retention {
    /// Rows of tables; what is not named is kept for ever.
    pub tables: Vec<(&'static str, Duration)>,
    /// What is in quarantine; none: until somebody decides.
    pub quarantine: Option<Duration>,
    /// How much the quarantine may hold; none: whatever comes.
    pub quarantine_max: Option<ByteSize>,
}

/// What is deleted sooner than it was written is never there.
const LEAST: Duration = Duration::from_secs(60);

/// A time, or for ever.
#[derive(Clone, Copy, PartialEq)]
struct For(Option<Duration>);

impl FromValue for For {
    fn from_value(found: &Found) -> Result<Self, String> {
        match &found.value {
            Value::Untyped(text) | Value::Text(text) if text.trim() == "forever" => Ok(Self(None)),
            _ => match Duration::from_value(found) {
                Ok(Duration::ZERO) => Ok(Self(None)),
                Ok(time) if time < LEAST => Err("shorter than a minute".into()),
                Ok(time) => Ok(Self(Some(time))),
                Err(message) => Err(format!("{message}, or \"forever\"")),
            },
        }
    }
}

const fn days(days: u64) -> Option<Duration> {
    Some(Duration::from_secs(days * 86_400))
}

/// What is kept, and for how long unless the file says otherwise; the names are the store's.
const TABLES: [(&str, Option<Duration>); 12] = [
    ("traces", None),
    ("scores", None),
    ("evaluations", days(365)),
    ("metrics", None),
    ("rollups", None),
    ("days", None),
    ("usage", days(90)),
    ("events", days(90)),
    ("sessions", days(400)),
    ("requests", days(7)),
    ("outbox", days(30)),
    ("forgotten", days(30)),
];

pub(super) fn retention(reader: &mut Reader) -> Retention {
    let mut section = reader.section("retention");
    let mut tables = Vec::new();
    for (table, default) in TABLES {
        let For(kept) = section.value(table, For(default));
        tables.extend(kept.map(|kept| (table, kept)));
    }
    let For(quarantine) = section.value("quarantine", For(None));
    let quarantine_max: Option<ByteSize> = section.value("quarantine_max", None);
    section.finish();
    Retention { tables, quarantine, quarantine_max }
}
