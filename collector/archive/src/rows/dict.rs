//! The dictionary of one column of one row group: each text once, by its number.
//!
//! Promise: numbers follow the order of arrival, so that equal rows give equal files; how texts are found again differs in each
//! process, so that nobody can send texts that all fall into one place.
//! Cost: a text that follows the same text as last time costs one comparison; spans of one application repeat themselves.

use std::hash::{BuildHasher, RandomState};

/// No text has this number.
const NONE: u32 = u32::MAX;
/// No slot holds this.
const FREE: u64 = u64::MAX;
/// As good and as bad as luck gets; what is bad is tried again when it has come back to nothing.
const LUCK: i8 = 32;

/// Texts and their numbers.
#[derive(Debug)]
pub(super) struct Dict {
    /// The texts as a dictionary page has them: a length of four bytes and the text.
    page: Vec<u8>,
    entries: Vec<Entry>,
    /// The number of the text that was met last.
    last: u32,
    /// Numbers and, above them, hashes; a power of two of them, at most half full.
    slots: Vec<u64>,
    seed: u64,
    /// How well the last guesses went; of a column of random texts none is made, for looking at one costs as much as looking it up.
    luck: i8,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    len: u32,
    /// Which text came after this one last time.
    next: u32,
    /// The page of indices in which it was met last, from 1.
    page: u32,
    /// The map in which it was met last, from 1.
    map: u32,
}

impl Dict {
    pub(super) fn new() -> Self {
        let seed = RandomState::new().hash_one(0);
        Self { page: Vec::new(), entries: Vec::new(), last: NONE, slots: vec![FREE; 64], seed, luck: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The dictionary page.
    pub(super) fn page(&self) -> &[u8] {
        &self.page
    }

    /// What it holds in memory.
    pub(super) fn bytes(&self) -> usize {
        self.page.capacity() + self.entries.capacity() * size_of::<Entry>() + self.slots.capacity() * 8
    }

    pub(super) fn text(&self, number: u32) -> &[u8] {
        let entry = &self.entries[number as usize];
        &self.page[entry.start as usize..][..entry.len as usize]
    }

    /// Whether this is the first time that page `page` meets the text.
    pub(super) fn is_new_in(&mut self, number: u32, page: u32) -> bool {
        std::mem::replace(&mut self.entries[number as usize].page, page) != page
    }

    /// Whether this is the first time that map `map` meets the text.
    pub(super) fn is_new_in_map(&mut self, number: u32, map: u32) -> bool {
        std::mem::replace(&mut self.entries[number as usize].map, map) != map
    }

    /// The text's number.
    #[inline]
    pub(super) fn number(&mut self, text: &[u8]) -> u32 {
        if self.luck < 0 {
            self.luck += 1;
            return self.look_up(text);
        }
        if let Some(last) = self.entries.get(self.last as usize) {
            let guess = last.next;
            if guess != NONE && self.text(guess) == text {
                self.luck = (self.luck + 1).min(LUCK);
                self.last = guess;
                return guess;
            }
            self.luck = if self.luck == 0 { -LUCK } else { self.luck - 1 };
        }
        let number = self.look_up(text);
        if let Some(last) = self.entries.get_mut(self.last as usize) {
            last.next = number;
        }
        self.last = number;
        number
    }

    #[inline(never)]
    fn look_up(&mut self, text: &[u8]) -> u32 {
        let hash = hash_of(text, self.seed);
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let held = self.slots[slot];
            if held == FREE {
                break;
            }
            let number = held as u32;
            if held >> 32 == u64::from(hash) && self.text(number) == text {
                return number;
            }
            slot = (slot + 1) & mask;
        }
        let number = self.entries.len() as u32;
        self.slots[slot] = u64::from(hash) << 32 | u64::from(number);
        self.page.extend_from_slice(&(text.len() as u32).to_le_bytes());
        let start = self.page.len() as u32;
        self.page.extend_from_slice(text);
        self.entries.push(Entry { start, len: text.len() as u32, next: NONE, page: 0, map: 0 });
        if 2 * self.entries.len() >= self.slots.len() {
            self.grow();
        }
        number
    }

    fn grow(&mut self) {
        let mask = 4 * self.slots.len() - 1;
        let before = std::mem::replace(&mut self.slots, vec![FREE; mask + 1]);
        for held in before.into_iter().filter(|&held| held != FREE) {
            let mut slot = (held >> 32) as usize & mask;
            while self.slots[slot] != FREE {
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = held;
        }
    }
}

/// By words of eight bytes, each mixed by a multiplication to twice the width.
fn hash_of(text: &[u8], seed: u64) -> u32 {
    let mixed = |word: u64| {
        let wide = u128::from(word ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db;
        wide as u64 ^ (wide >> 64) as u64
    };
    let (words, rest) = text.as_chunks::<8>();
    let mut hash = seed ^ text.len() as u64;
    for word in words {
        hash = mixed(hash ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    hash = mixed(hash ^ u64::from_le_bytes(last));
    (hash ^ hash >> 32) as u32
}
