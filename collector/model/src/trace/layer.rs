//! One layer of a trace's state: a map that only grows, within a budget, and forgets the same entries whatever the order.
//!
//! Promise: [`Layer::merge`] is commutative, associative and idempotent, the budget included. How: every key has a fixed rank
//! (a hash), values only grow when they are joined, and when the budget is exceeded, all entries from some rank on are dropped for
//! ever: the *cut*. Entries below the cut of a union lie below the cuts of its parts, so no part has ever dropped one of them;
//! the cut of a union is thus the same whether its parts were cut before or not.

use super::Undecodable;
use crate::SpanId;
use crate::facts::contradict;
use crate::varint::{self, Cursor};

/// A key of a layer.
pub(super) trait Key: Ord + Clone {
    /// Its place in the order of dropping; spread evenly, so that what is kept of a large trace is a fair sample.
    fn rank(&self) -> u64;
    /// What it counts for in the budget.
    fn bytes(&self) -> usize;
}

/// A value of a layer: joined by a total order, in which nothing smaller in bytes is greater.
pub(super) trait Value: Clone + PartialEq {
    /// Whether this and another, which is not equal, contradict each other for one key; then they are marked.
    ///
    /// Of equal rank in the order but for what is not known, the one that knows must be the greater: so a contradiction among
    /// several is met in whatever order they come.
    fn contradicts(&self, other: &Self) -> bool;
    /// Takes over `other` if that is greater.
    fn join(&mut self, other: &Self);
    /// What it counts for in the budget, besides its key.
    fn bytes(&self) -> usize;
}

/// What a key has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<K, V> {
    pub(super) key: K,
    pub(super) value: V,
    /// It came with different contents.
    pub(super) conflict: bool,
}

/// A bounded map; `BUDGET` is the most bytes its entries count for together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer<K, V, const BUDGET: usize> {
    /// By key.
    entries: Vec<Entry<K, V>>,
    /// Ranks from here on are dropped.
    cut: Option<u64>,
}

impl<K, V, const BUDGET: usize> Default for Layer<K, V, BUDGET> {
    fn default() -> Self {
        Self { entries: Vec::new(), cut: None }
    }
}

impl<K: Key, V: Value, const BUDGET: usize> Layer<K, V, BUDGET> {
    /// The layer of these entries, in whatever order and however often they come.
    pub(super) fn of(entries: Vec<Entry<K, V>>) -> Self {
        let mut layer = Self { entries, cut: None };
        layer.settle();
        layer
    }

    /// Takes in all that `other` knows; says whether that changed anything.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let mut changed = false;
        if let Some(cut) = other.cut.filter(|&cut| self.cut.is_none_or(|own| cut < own)) {
            self.cut_at(cut);
            changed = true;
        }
        let mut fresh = Vec::new();
        for theirs in &other.entries {
            if self.cut.is_some_and(|cut| theirs.key.rank() >= cut) {
                continue;
            }
            match self.entries.binary_search_by(|entry| entry.key.cmp(&theirs.key)) {
                Ok(at) => changed |= self.entries[at].join(theirs),
                Err(_) => fresh.push(theirs.clone()),
            }
        }
        if !fresh.is_empty() {
            changed = true;
            self.entries.append(&mut fresh);
        }
        if changed {
            self.settle();
        }
        changed
    }

    /// Sorts, joins what has one key, and cuts to the budget.
    fn settle(&mut self) {
        if !self.entries.is_sorted_by(|a, b| a.key < b.key) {
            // Stable: of entries with one key the first is joined by the others, in whatever order they came.
            self.entries.sort_by(|a, b| a.key.cmp(&b.key));
            self.entries.dedup_by(|later, kept| {
                let same = later.key == kept.key;
                if same {
                    kept.join(later);
                }
                same
            });
        }
        if self.entries.iter().map(Entry::bytes).sum::<usize>() <= BUDGET {
            return;
        }
        let mut by_rank: Vec<_> = self.entries.iter().map(|entry| (entry.key.rank(), entry.bytes())).collect();
        by_rank.sort_unstable();
        let mut sum = 0;
        let over = by_rank.iter().find(|(_, bytes)| {
            sum += bytes;
            sum > BUDGET
        });
        if let Some(&(rank, _)) = over {
            self.cut_at(rank);
        }
    }

    fn cut_at(&mut self, cut: u64) {
        self.cut = Some(cut);
        self.entries.retain(|entry| entry.key.rank() < cut);
    }

    pub(super) fn entries(&self) -> &[Entry<K, V>] {
        &self.entries
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.at(key).map(|at| &self.entries[at].value)
    }

    /// Where a key's entry stands.
    pub(super) fn at(&self, key: &K) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.key.cmp(key)).ok()
    }

    /// Whether something did not fit.
    pub(super) fn is_capped(&self) -> bool {
        self.cut.is_some()
    }

    pub(super) fn has_conflict(&self) -> bool {
        self.entries.iter().any(|entry| entry.conflict)
    }

    /// Its cut, how many entries it has and which of them conflict; what they are is written after it.
    pub(super) fn encode_head(&self, out: &mut Vec<u8>) {
        varint::put(out, u64::from(self.cut.is_some()));
        if let Some(cut) = self.cut {
            varint::put(out, cut);
        }
        varint::put(out, self.entries.len() as u64);
        varint::put(out, self.entries.iter().filter(|entry| entry.conflict).count() as u64);
        for (at, _) in self.entries.iter().enumerate().filter(|(_, entry)| entry.conflict) {
            varint::put(out, at as u64);
        }
    }

    /// Reads a layer: its head, and then as many pairs by key as that says, which `take` gives.
    ///
    /// An entry has a byte at least; a layer that is longer than what is left of the bytes is not read at all.
    pub(super) fn decode_with<'a>(
        cursor: &mut Cursor<'a>,
        take: impl FnOnce(&mut Cursor<'a>, usize) -> Option<Vec<(K, V)>>,
    ) -> Result<Self, Undecodable> {
        let cut_off = || Undecodable("it is cut off");
        let cut = match cursor.number().ok_or_else(cut_off)? {
            0 => None,
            _ => Some(cursor.number().ok_or_else(cut_off)?),
        };
        let len = cursor.number().ok_or_else(cut_off)?;
        let conflicts = cursor.number().ok_or_else(cut_off)?;
        // An entry, and a conflict, is a byte at least: a length that lies cannot make us allocate.
        if len.saturating_add(conflicts) > cursor.0.len() as u64 || conflicts > len {
            return Err(cut_off());
        }
        let conflicts: Vec<u64> = (0..conflicts).map_while(|_| cursor.number()).collect();
        if !conflicts.is_sorted_by(|a, b| a < b) || conflicts.last().is_some_and(|&last| last >= len) {
            return Err(Undecodable("its conflicts are out of order"));
        }
        let pairs = take(cursor, len as usize).ok_or_else(cut_off)?;
        if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Undecodable("its entries are out of order"));
        }
        let entries = pairs.into_iter().map(|(key, value)| Entry::new(key, value)).collect();
        let mut layer = Self { entries, cut };
        for at in conflicts {
            if let Some(entry) = layer.entries.get_mut(at as usize) {
                entry.conflict = true;
            }
        }
        // Another version may have had another budget, and damage may have put anything here.
        if let Some(cut) = cut {
            layer.cut_at(cut);
        }
        layer.settle();
        Ok(layer)
    }
}

impl<K: Key, V: Value> Entry<K, V> {
    pub(super) fn new(key: K, value: V) -> Self {
        Self { key, value, conflict: false }
    }

    fn bytes(&self) -> usize {
        self.key.bytes() + self.value.bytes()
    }

    /// Joins another entry of this key; says whether that changed anything.
    fn join(&mut self, other: &Self) -> bool {
        if self.value == other.value {
            let is_new = other.conflict && !self.conflict;
            self.conflict |= is_new;
            return is_new;
        }
        let was = (self.value.clone(), self.conflict);
        self.conflict |= other.conflict || self.value.contradicts(&other.value);
        self.value.join(&other.value);
        self.conflict != was.1 || self.value != was.0
    }
}

impl Key for SpanId {
    fn rank(&self) -> u64 {
        mix(u64::from_le_bytes(self.0))
    }
    fn bytes(&self) -> usize {
        8
    }
}

/// A bijection that spreads numbers evenly (splitmix64's): ids that count up are not dropped youngest first.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The parent of a span; all zero for a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parent(pub(super) SpanId);

impl Value for Parent {
    fn contradicts(&self, _: &Self) -> bool {
        true
    }
    fn join(&mut self, other: &Self) {
        self.0 = self.0.max(other.0);
    }
    fn bytes(&self) -> usize {
        8
    }
}

/// Encoded facts. Longer is greater, so that a join never counts for fewer bytes.
impl Value for Box<[u8]> {
    fn contradicts(&self, other: &Self) -> bool {
        contradict(self, other)
    }
    fn join(&mut self, other: &Self) {
        if (self.len(), &**self) < (other.len(), &**other) {
            self.clone_from(other);
        }
    }
    fn bytes(&self) -> usize {
        self.len() + 2
    }
}

#[cfg(test)]
mod tests;
