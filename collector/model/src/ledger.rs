//! What became of spans: the words and the sums of the ledger.
//!
//! Promise: a [`Book`] says of every span that its consumer has passed what became of it, once: [`Book::is_balanced`] holds after every
//! [`Book::book`] whose tally tells of just the spans that the cursor moves over. Two consumers that passed the same spans have the same
//! sum for each account, however they met them, for an account follows from the span alone.
//! On disk:  [`Book::encode`]: version byte, origin, cursor, a table of texts, then the lines.
//! - `book`: a consumer's sums. `origins`, `runs`: which accounts spans come under, by trace and in their order. `stored`: bytes.
//!
//! Not here: where a book is kept (`emberd-log`'s journal, `emberd-store`), who decides a span's fate (its consumer).
//! Kept by:  `tests`.

mod book;
mod origins;
mod runs;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::wire::ResourceView;
use crate::{Batch, UnixNanos};

pub use book::Book;
pub use origins::Origins;
pub use runs::Runs;
pub use stored::Unreadable;

/// The resource attribute that names a project, as Phoenix reads it.
pub const PROJECT: &str = "openinference.project.name";
/// The project of a resource that names none, as in Phoenix.
pub const DEFAULT_PROJECT: &str = "default";
/// The project of spans that the log no longer has.
pub const UNKNOWN_PROJECT: &str = "(unknown)";
/// Where the spans of an hour's further projects are booked.
pub const OTHER_PROJECTS: &str = "(other)";
/// The hour under which hours older than [`HOURS_MAX`] are booked together.
pub const EARLIER: Hour = Hour(0);
/// Hours that a book tells apart: a week.
pub const HOURS_MAX: u32 = 7 * 24;
/// Projects that a book tells apart in one hour; a crowd of names must not grow it.
pub const PROJECTS_MAX: usize = 200;
/// The longest name of a project, in bytes; what is longer is cut.
const NAME_BYTES_MAX: usize = 200;
const HOUR_NANOS: u64 = 3_600_000_000_000;

/// A UTC hour, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(pub u32);

impl Hour {
    /// The hour of a moment.
    #[must_use]
    pub fn of(moment: UnixNanos) -> Self {
        Self(u32::try_from(moment.0 / HOUR_NANOS).unwrap_or(u32::MAX))
    }

    /// When it begins.
    #[must_use]
    pub fn begins(self) -> UnixNanos {
        UnixNanos(u64::from(self.0) * HOUR_NANOS)
    }
}

/// Where a span is booked: by the hour in which it was received, and its project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// The hour in which its request was received.
    pub hour: Hour,
    /// Its project: see [`project_of`].
    pub project: Arc<str>,
}

impl Account {
    /// The account of this project, its name cut to what a book keeps, and without NUL, which not every book can hold.
    #[must_use]
    pub fn new(hour: Hour, project: &str) -> Self {
        Self { hour, project: project[..project.floor_char_boundary(NAME_BYTES_MAX)].replace('\0', "\u{fffd}").into() }
    }

    /// The account of a batch's spans of this project.
    #[must_use]
    pub fn of(batch: &Batch, project: &str) -> Self {
        Self::new(Hour::of(batch.received_at), project)
    }
}

/// What became of a span, as far as one consumer goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// It was delivered, recorded, archived: what the consumer is for.
    Done,
    /// The consumer had it already.
    Duplicate,
    /// It was put aside, with the reason.
    Quarantined(Reason),
    /// It was left out on purpose, by this rule.
    Shed(Reason),
    /// The log no longer has it, for this reason.
    Lost(Reason),
}

impl Fate {
    /// Its word, and its reason where it has one, else nothing.
    #[must_use]
    pub fn words(&self) -> (&'static str, &str) {
        match self {
            Self::Done => ("done", ""),
            Self::Duplicate => ("duplicate", ""),
            Self::Quarantined(reason) => ("quarantined", reason),
            Self::Shed(reason) => ("shed", reason),
            Self::Lost(reason) => ("lost", reason),
        }
    }

    /// The fate of these words.
    #[must_use]
    pub fn parse(word: &str, reason: &str) -> Option<Self> {
        let of: fn(Reason) -> Self = match word {
            "done" if reason.is_empty() => return Some(Self::Done),
            "duplicate" if reason.is_empty() => return Some(Self::Duplicate),
            "quarantined" => Self::Quarantined,
            "shed" => Self::Shed,
            "lost" => Self::Lost,
            _ => return None,
        };
        Some(of(Reason::new(reason)))
    }
}

/// Why: a word or a few, such as `phoenix_drops` or `share`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason(Arc<str>);

impl Reason {
    /// This reason; its first 64 bytes.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text[..text.floor_char_boundary(64)].into())
    }
}

impl std::ops::Deref for Reason {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Spans to be booked, by account and fate. A negative number takes back what was booked before, as when quarantined spans are
/// delivered after all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<(Account, Fate), i64>);

impl Tally {
    /// Adds spans.
    pub fn add(&mut self, account: &Account, fate: Fate, spans: i64) {
        if spans != 0 {
            *self.0.entry((account.clone(), fate)).or_default() += spans;
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for ((account, fate), spans) in &other.0 {
            self.add(account, fate.clone(), *spans);
        }
    }

    /// What is in it.
    pub fn lines(&self) -> impl Iterator<Item = (&Account, &Fate, i64)> {
        self.0.iter().map(|((account, fate), spans)| (account, fate, *spans))
    }

    /// The same under the accounts that `book` has.
    #[must_use]
    pub fn settled(&self, book: &Book) -> Self {
        let (mut book, mut settled) = (book.clone(), Self::default());
        for ((account, fate), spans) in &self.0 {
            settled.add(&book.place(account), fate.clone(), *spans);
        }
        settled
    }

    /// All its spans.
    #[must_use]
    pub fn spans(&self) -> i64 {
        self.0.values().sum()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|&spans| spans == 0)
    }
}

/// The project that Phoenix files a resource's spans under, as it finds it: the first that is a text and not empty.
#[must_use]
pub fn project_of<'a>(resource: &ResourceView<'a>) -> &'a str {
    let named = resource.attributes().filter(|attribute| attribute.key == PROJECT);
    named.filter_map(|attribute| attribute.value().as_str()).find(|name| !name.is_empty()).unwrap_or(DEFAULT_PROJECT)
}
