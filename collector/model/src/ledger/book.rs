//! A consumer's book.

use std::collections::{BTreeMap, BTreeSet};

use super::{Account, EARLIER, Fate, HOURS_MAX, Hour, OTHER_PROJECTS, PROJECTS_MAX, Tally};
use crate::Offset;

/// What became of all spans that a consumer has passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// Where the consumer began, as it is known since; less by what the log forgot it had, should its end ever be lost.
    pub(super) origin: i64,
    pub(super) cursor: Offset,
    pub(super) lines: BTreeMap<(Account, Fate), i64>,
}

impl Book {
    /// The book of a consumer that begins at `cursor`.
    #[must_use]
    pub fn begin(cursor: Offset) -> Self {
        Self { origin: cursor.signed(), cursor, lines: BTreeMap::new() }
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
        self.origin += head.signed() - self.cursor.signed();
        self.cursor = head;
    }

    /// Whether every span between origin and cursor is in it once.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.lines.values().all(|spans| *spans >= 0) && self.spans() == self.cursor.signed() - self.origin
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
