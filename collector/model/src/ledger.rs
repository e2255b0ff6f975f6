//! What became of spans: the words and the sums of the ledger.
//!
//! Promise: a [`Book`] says of every span that its consumer has passed what became of it, once: [`Book::is_balanced`] holds after every
//! [`Book::book`] whose tally tells of just the spans that the cursor moves over. Two consumers that passed the same spans have the same
//! sum for each account, however they met them, for an account follows from the span alone.
//! On disk:  [`Book::encode`]: version byte, origin, cursor, a table of texts, then the lines.
//! Not here: where a book is kept (`emberd-log`'s journal, `emberd-store`), who decides a span's fate (its consumer).
//! Kept by:  `tests`.

mod origins;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::wire::ResourceView;
use crate::{Batch, Offset, UnixNanos, wire};

pub use origins::Origins;
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

/// What became of all spans that a consumer has passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// Where the consumer began, as it is known since; less by what the log forgot it had, should its end ever be lost.
    origin: i64,
    cursor: Offset,
    lines: BTreeMap<(Account, Fate), i64>,
}

impl Book {
    /// The book of a consumer that begins at `cursor`.
    #[must_use]
    pub fn begin(cursor: Offset) -> Self {
        Self { origin: signed(cursor), cursor, lines: BTreeMap::new() }
    }

    /// The book with these lines, as another kind of store kept them.
    #[must_use]
    pub fn of(origin: i64, cursor: Offset, lines: impl IntoIterator<Item = (Account, Fate, i64)>) -> Self {
        let lines = lines.into_iter().map(|(account, fate, spans)| ((account, fate), spans)).collect();
        Self { origin, cursor, lines }
    }

    /// How far the consumer has come.
    #[must_use]
    pub fn cursor(&self) -> Offset {
        self.cursor
    }

    /// Where it began.
    #[must_use]
    pub fn origin(&self) -> i64 {
        self.origin
    }

    /// The consumer has come to `cursor`, and `tally` is what became of the spans that it passed.
    pub fn book(&mut self, cursor: Offset, tally: &Tally) {
        self.cursor = cursor;
        for (account, fate, spans) in tally.lines() {
            let account = self.account(account);
            *self.lines.entry((account, fate.clone())).or_default() += spans;
        }
        self.lines.retain(|_, spans| *spans != 0);
        self.fold();
    }

    /// The log ends before the cursor: what was booked stays booked, and the next spans get offsets that were used before.
    pub fn moved_back(&mut self, head: Offset) {
        self.origin += signed(head) - signed(self.cursor);
        self.cursor = head;
    }

    /// Whether every span between origin and cursor is in it once.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.lines.values().all(|spans| *spans >= 0) && self.spans() == signed(self.cursor) - self.origin
    }

    /// All its spans.
    #[must_use]
    pub fn spans(&self) -> i64 {
        self.lines.values().sum()
    }

    /// Its lines, oldest hour first.
    pub fn lines(&self) -> impl Iterator<Item = (&Account, &Fate, i64)> {
        self.lines.iter().map(|((account, fate), spans)| (account, fate, *spans))
    }

    /// The sums over all accounts, by the fate's word.
    #[must_use]
    pub fn total(&self, word: &str) -> u64 {
        let of = self.lines.iter().filter(|((_, fate), _)| fate.words().0 == word);
        u64::try_from(of.map(|(_, spans)| *spans).sum::<i64>()).unwrap_or(0)
    }

    /// The sums over all accounts of one fate, by its reasons.
    #[must_use]
    pub fn reasons(&self, word: &str) -> BTreeMap<String, i64> {
        let mut reasons = BTreeMap::new();
        for ((_, fate), spans) in self.lines.iter().filter(|((_, fate), _)| fate.words().0 == word) {
            *reasons.entry(fate.words().1.to_owned()).or_default() += spans;
        }
        reasons
    }

    /// The sum of each account, whatever became of its spans. Hours before `from` are one.
    #[must_use]
    pub fn accounts(&self, from: Hour) -> BTreeMap<Account, i64> {
        let mut sums = BTreeMap::new();
        for ((account, _), spans) in &self.lines {
            let hour = if account.hour < from { EARLIER } else { account.hour };
            *sums.entry(Account { hour, ..account.clone() }).or_default() += spans;
        }
        sums
    }

    /// The oldest hour that it tells apart; none if it has none.
    #[must_use]
    pub fn first_hour(&self) -> Option<Hour> {
        self.lines.keys().map(|(account, _)| account.hour).find(|hour| *hour != EARLIER)
    }

    /// The account under which spans of `account` are booked from now on. It takes up its place: what is placed later finds one fewer.
    pub fn place(&mut self, account: &Account) -> Account {
        let placed = self.account(account);
        self.lines.entry((placed.clone(), Fate::Done)).or_default();
        placed
    }

    /// The account as it is booked here: itself, unless its hour has too many projects or is folded already.
    fn account(&self, account: &Account) -> Account {
        let horizon = self.horizon();
        if account.hour < horizon {
            return self.within(Account { hour: EARLIER, ..account.clone() });
        }
        self.within(account.clone())
    }

    fn within(&self, account: Account) -> Account {
        let from = (Account { hour: account.hour, project: "".into() }, Fate::Done);
        let of_hour = self.lines.range(from..).map(|((other, _), _)| other).take_while(|a| a.hour == account.hour);
        let projects: BTreeSet<&str> = of_hour.map(|account| &*account.project).collect();
        if projects.len() < PROJECTS_MAX || projects.contains(&*account.project) {
            return account;
        }
        Account { project: OTHER_PROJECTS.into(), ..account }
    }

    /// Hours before this are booked as [`EARLIER`].
    #[must_use]
    pub fn horizon(&self) -> Hour {
        let newest = self.lines.keys().next_back().map_or(EARLIER, |(account, _)| account.hour);
        Hour(newest.0.saturating_sub(HOURS_MAX))
    }

    fn fold(&mut self) {
        let horizon = self.horizon();
        while let Some(entry) = self.lines.range((Account { hour: Hour(1), project: "".into() }, Fate::Done)..).next()
            && entry.0.0.hour < horizon
        {
            let ((account, fate), spans) = (entry.0.clone(), *entry.1);
            self.lines.remove(&(account.clone(), fate.clone()));
            let account = self.within(Account { hour: EARLIER, ..account });
            *self.lines.entry((account, fate)).or_default() += spans;
        }
    }
}

fn signed(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

/// The project that Phoenix files a resource's spans under, as it finds it: the first that is a text and not empty.
#[must_use]
pub fn project_of<'a>(resource: &ResourceView<'a>) -> &'a str {
    let named = resource.attributes().filter(|attribute| attribute.key == PROJECT);
    named.filter_map(|attribute| attribute.value().as_str()).find(|name| !name.is_empty()).unwrap_or(DEFAULT_PROJECT)
}

/// The accounts of some spans in their order, each with how many follow one another under it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<(Account, u64)>);

impl Runs {
    /// Those of a batch's spans.
    #[must_use]
    pub fn of(batch: &Batch) -> Self {
        let (mut runs, mut left) = (Self::default(), u64::from(batch.spans));
        for (resource, spans) in wire::resources(&batch.body) {
            let spans = spans.min(left);
            left -= spans;
            runs.push(Account::of(batch, project_of(&resource)), spans);
        }
        // The log's word counts, whatever its bytes have become.
        runs.push(Account::of(batch, DEFAULT_PROJECT), left);
        runs
    }

    fn push(&mut self, account: Account, spans: u64) {
        match self.0.last_mut() {
            _ if spans == 0 => {}
            Some((last, known)) if *last == account => *known += spans,
            _ => self.0.push((account, spans)),
        }
    }

    /// Those of some of the spans.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<u64>) -> Self {
        let (mut runs, mut at) = (Self::default(), 0);
        for (account, spans) in &self.0 {
            let (from, to) = (range.start.max(at), range.end.min(at + spans));
            runs.push(account.clone(), to.saturating_sub(from));
            at += spans;
        }
        runs
    }

    /// These, and `more` after them.
    #[must_use]
    pub fn with(mut self, more: &Self) -> Self {
        more.iter().for_each(|(account, spans)| self.push(account.clone(), spans));
        self
    }

    /// The account of the span at this place.
    #[must_use]
    pub fn at(&self, index: u64) -> Option<&Account> {
        let mut left = index;
        self.0.iter().find_map(|(account, spans)| match left.checked_sub(*spans) {
            Some(more) => {
                left = more;
                None
            }
            None => Some(account),
        })
    }

    /// How many spans there are.
    #[must_use]
    pub fn spans(&self) -> u64 {
        self.0.iter().map(|(_, spans)| spans).sum()
    }

    /// Each run.
    pub fn iter(&self) -> impl Iterator<Item = (&Account, u64)> {
        self.0.iter().map(|(account, spans)| (account, *spans))
    }

    /// The tally in which this became of all of them.
    #[must_use]
    pub fn tally(&self, fate: &Fate) -> Tally {
        let mut tally = Tally::default();
        self.iter().for_each(|(account, spans)| tally.add(account, fate.clone(), spans as i64));
        tally
    }
}
