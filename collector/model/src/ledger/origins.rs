//! Which accounts the spans of each trace of a stretch of the log came under.

use std::collections::HashMap;

use super::{Account, Book, Fate, Tally, project_of};
use crate::wire::Found;
use crate::{Batch, TraceId};

/// Of each trace of some batches, how many spans came under which account, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    accounts: Vec<Account>,
    numbers: HashMap<Account, u32>,
    shares: HashMap<TraceId, Vec<(u32, u64)>>,
    /// Spans without a whole trace or span id: nobody can say whose they are.
    stray: Vec<(u32, u64)>,
}

/// Takes in the spans of one batch.
pub(crate) struct Taking<'a> {
    origins: &'a mut Origins,
    batch: &'a Batch,
    resource: Option<u32>,
    account: u32,
    left: u64,
}

impl Origins {
    pub(crate) fn begin<'a>(&'a mut self, batch: &'a Batch) -> Taking<'a> {
        Taking { origins: self, batch, resource: None, account: 0, left: u64::from(batch.spans) }
    }

    /// Books under the accounts that `book` has: see [`Book::place`].
    pub fn settle(&mut self, book: &Book) {
        let mut book = book.clone();
        for account in &mut self.accounts {
            *account = book.place(account);
        }
    }

    /// The tally of a trace's spans of which the first `done` were done, and `rest` became of the others.
    pub fn book(&self, trace: TraceId, done: u64, rest: &Fate, tally: &mut Tally) {
        let mut left = done;
        for &(account, spans) in self.shares.get(&trace).into_iter().flatten() {
            let (account, first) = (&self.accounts[account as usize], spans.min(left));
            left -= first;
            tally.add(account, Fate::Done, first as i64);
            tally.add(account, rest.clone(), (spans - first) as i64);
        }
    }

    /// How many spans came for a trace.
    #[must_use]
    pub fn spans(&self, trace: TraceId) -> u64 {
        self.shares.get(&trace).into_iter().flatten().map(|(_, spans)| spans).sum()
    }

    /// The tally of the spans that belong to no trace.
    pub fn book_strays(&self, fate: &Fate, tally: &mut Tally) {
        for &(account, spans) in &self.stray {
            tally.add(&self.accounts[account as usize], fate.clone(), spans as i64);
        }
    }

    fn number(&mut self, account: Account) -> u32 {
        let Self { accounts, numbers, .. } = self;
        *numbers.entry(account).or_insert_with_key(|account| {
            accounts.push(account.clone());
            accounts.len() as u32 - 1
        })
    }
}

impl Taking<'_> {
    /// The batch's next span; none of its trace if its ids are not whole.
    pub(crate) fn span(&mut self, found: &Found<'_>, trace: Option<TraceId>) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        if self.resource != Some(found.resource.index) {
            self.resource = Some(found.resource.index);
            self.account = self.origins.number(Account::of(self.batch, project_of(&found.resource)));
        }
        let shares = match trace {
            Some(trace) => self.origins.shares.entry(trace).or_default(),
            None => &mut self.origins.stray,
        };
        match shares.last_mut() {
            Some((account, spans)) if *account == self.account => *spans += 1,
            _ => shares.push((self.account, 1)),
        }
    }

    /// The log's word for how many spans there are counts, whatever its bytes have become.
    pub(crate) fn end(self) {
        if self.left > 0 {
            let account = self.origins.number(Account::of(self.batch, super::DEFAULT_PROJECT));
            self.origins.stray.push((account, self.left));
        }
    }
}
