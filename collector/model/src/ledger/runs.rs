//! Spans in their order, by account.

use super::{Account, DEFAULT_PROJECT, Fate, Tally, project_of};
use crate::{Batch, Flags, wire};

/// The accounts of some spans in their order, each with how many follow one another under it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<(Account, u64)>);

impl Runs {
    /// Those of a batch's spans. Where the walk counted them, those under the last resource, mostly the only one, are not counted again.
    #[must_use]
    pub fn of(batch: &Batch) -> Self {
        let (mut runs, mut left) = (Self::default(), u64::from(batch.spans));
        let mut resources = wire::resources(&batch.body).peekable();
        while let Some((resource, under)) = resources.next() {
            let is_rest = resources.peek().is_none() && batch.flags.has(Flags::COUNTED);
            let spans = if is_rest { left } else { under.count().min(left) };
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
