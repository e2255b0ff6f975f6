//! A book's and a tally's binary form.
//!
//! On disk: varints; texts stand once, in a table before the lines that name them by their number.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Account, Book, Fate, Hour, Tally};
use crate::Offset;
use crate::varint::{self, Cursor};

const VERSION: u8 = 1;

/// The bytes are not a book's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a book of the ledger")]
pub struct Unreadable;

impl Book {
    /// Compact binary form, first byte a version.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        varint::put_signed(&mut out, self.origin);
        varint::put(&mut out, self.cursor.0);
        put_lines(&mut out, &self.lines);
        out
    }

    /// Reads [`Book::encode`]'s form from the front of `bytes`, which it leaves at what follows.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, Unreadable> {
        let mut cursor = Cursor(bytes);
        let mut read = || {
            (cursor.byte()? == VERSION).then_some(())?;
            let (origin, at) = (cursor.signed()?, Offset(cursor.number()?));
            Some(Self { origin, cursor: at, lines: take_lines(&mut cursor)? })
        };
        let book = read().ok_or(Unreadable)?;
        *bytes = cursor.0;
        Ok(book)
    }
}

impl Tally {
    /// Appends its binary form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_lines(out, &self.0);
    }

    /// Reads [`Tally::encode`]'s form from the front of `bytes`, which it leaves at what follows.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, Unreadable> {
        let mut cursor = Cursor(bytes);
        let lines = take_lines(&mut cursor).ok_or(Unreadable)?;
        *bytes = cursor.0;
        Ok(Self(lines))
    }
}

fn put_lines(out: &mut Vec<u8>, lines: &BTreeMap<(Account, Fate), i64>) {
    let mut texts: BTreeMap<&str, u64> = BTreeMap::new();
    for (account, fate) in lines.keys() {
        texts.insert(&account.project, 0);
        texts.insert(fate.words().1, 0);
    }
    varint::put(out, texts.len() as u64);
    for (number, (text, at)) in texts.iter_mut().enumerate() {
        *at = number as u64;
        varint::put_bytes(out, text.as_bytes());
    }
    varint::put(out, lines.len() as u64);
    for ((account, fate), spans) in lines {
        varint::put(out, u64::from(account.hour.0));
        varint::put(out, texts.get(&*account.project).copied().unwrap_or(0));
        out.push(number_of(fate));
        varint::put(out, texts.get(fate.words().1).copied().unwrap_or(0));
        varint::put_signed(out, *spans);
    }
}

fn take_lines(cursor: &mut Cursor<'_>) -> Option<BTreeMap<(Account, Fate), i64>> {
    let mut texts: Vec<Arc<str>> = Vec::new();
    for _ in 0..cursor.number()? {
        texts.push(str::from_utf8(cursor.bytes()?).ok()?.into());
    }
    let text = |number: u64| texts.get(usize::try_from(number).ok()?).cloned();
    let mut lines = BTreeMap::new();
    for _ in 0..cursor.number()? {
        let hour = Hour(u32::try_from(cursor.number()?).ok()?);
        let project = text(cursor.number()?)?;
        let word = cursor.byte()?;
        let fate = Fate::parse(WORDS.get(usize::from(word))?, &text(cursor.number()?)?)?;
        lines.insert((Account { hour, project }, fate), cursor.signed()?);
    }
    Some(lines)
}

/// Their places are their numbers on disk: add at the end.
const WORDS: [&str; 5] = ["done", "duplicate", "quarantined", "shed", "lost"];

fn number_of(fate: &Fate) -> u8 {
    WORDS.iter().position(|word| *word == fate.words().0).unwrap_or(0) as u8
}
