//! The memory: so many entries and bytes at most, least used first to go; an entry counts for so long since it was last used, and never
//! longer than its age allows.
//!
//! Pure: the time is handed in.
//! Kept by: `tests`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::Limits;
use crate::pattern::Pattern;

/// What an entry takes beside its key and value, about.
const ENTRY_BYTES: usize = 160;

struct Entry<V> {
    value: V,
    bytes: usize,
    /// Its age when it came here.
    age: Duration,
    since: Instant,
    used: Instant,
    turn: u64,
    is_valid: bool,
}

/// Entries by their keys.
pub(crate) struct Near<V> {
    limits: Limits,
    all: HashMap<Arc<str>, Entry<V>>,
    /// The keys, least used first.
    turns: BTreeMap<u64, Arc<str>>,
    next: u64,
    bytes: usize,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen<V> {
    pub(crate) value: V,
    pub(crate) age: Duration,
    /// Whether it counts.
    pub(crate) is_fresh: bool,
}

impl<V: Clone> Near<V> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, all: HashMap::new(), turns: BTreeMap::new(), next: 0, bytes: 0 }
    }

    /// How many there are, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.all.len(), self.bytes)
    }

    /// What stands under a key. One that counts no more goes, unless old ones are wanted.
    pub(crate) fn find(&mut self, key: &str, now: Instant) -> Option<Seen<V>> {
        let entry = self.all.get_mut(key)?;
        let age = entry.age + (now - entry.since);
        let is_fresh = entry.is_valid && now - entry.used < self.limits.idle && age < self.limits.age_max;
        if !is_fresh && !self.limits.keeps_old {
            self.remove(key);
            return None;
        }
        if is_fresh {
            entry.used = now;
            let turn = std::mem::replace(&mut entry.turn, self.next);
            if let Some(key) = self.turns.remove(&turn) {
                self.turns.insert(self.next, key);
            }
            self.next += 1;
        }
        Some(Seen { value: entry.value.clone(), age, is_fresh })
    }

    /// Puts a value of this age there. One that is too large is not kept, and what stood there goes all the same.
    pub(crate) fn put(&mut self, key: &str, value: V, bytes: usize, age: Duration, is_valid: bool, now: Instant) {
        self.remove(key);
        let bytes = key.len() + bytes + ENTRY_BYTES;
        if self.limits.entries == 0 || bytes > self.limits.bytes || self.limits.idle.is_zero() {
            return;
        }
        while self.all.len() >= self.limits.entries || self.bytes + bytes > self.limits.bytes {
            let Some((_, least)) = self.turns.first_key_value() else { break };
            let least = Arc::clone(least);
            self.remove(&least);
        }
        let (key, turn): (Arc<str>, u64) = (key.into(), self.next);
        self.next += 1;
        self.bytes += bytes;
        self.turns.insert(turn, Arc::clone(&key));
        self.all.insert(key, Entry { value, bytes, age, since: now, used: now, turn, is_valid });
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.all.remove(key) {
            self.turns.remove(&entry.turn);
            self.bytes -= entry.bytes;
        }
    }

    /// Lets nothing count that the pattern is about.
    pub(crate) fn forget(&mut self, pattern: &Pattern) {
        if self.limits.keeps_old {
            let about = self.all.iter_mut().filter(|(key, _)| pattern.is_about(key));
            about.for_each(|(_, entry)| entry.is_valid = false);
            return;
        }
        match pattern.one() {
            Some(key) => self.remove(key),
            None => {
                let about: Vec<_> = self.all.keys().filter(|key| pattern.is_about(key)).cloned().collect();
                about.iter().for_each(|key| self.remove(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn limits(entries: usize, bytes: usize) -> Limits {
        Limits { entries, bytes, idle: 300 * S, age_max: 3_600 * S, ..Limits::default() }
    }

    fn value(near: &mut Near<u32>, key: &str, now: Instant) -> Option<u32> {
        near.find(key, now).filter(|seen| seen.is_fresh).map(|seen| seen.value)
    }

    #[test]
    fn use_refreshes_and_age_ends_it() {
        let start = Instant::now();
        let mut near = Near::new(limits(9, 9_999));
        near.put("a", 1, 4, Duration::ZERO, true, start);
        near.put("b", 2, 4, 3_000 * S, true, start);
        for at in 1..=14 {
            assert_eq!(value(&mut near, "a", start + at * 250 * S), Some(1), "used every 250 s");
        }
        assert_eq!(value(&mut near, "a", start + 3_600 * S), None, "an hour old, however often it was used");
        near.put("a", 1, 4, Duration::ZERO, true, start);
        assert_eq!(value(&mut near, "a", start + 300 * S), None, "not used for five minutes");
        near.put("b", 2, 4, 3_000 * S, true, start);
        assert_eq!(value(&mut near, "b", start + 299 * S), Some(2));
        assert_eq!(value(&mut near, "b", start + 598 * S), Some(2));
        assert_eq!(value(&mut near, "b", start + 600 * S), None, "it was 50 minutes old when it came");
    }

    #[test]
    fn old_ones_stay_where_they_are_wanted() {
        let start = Instant::now();
        let mut near = Near::new(Limits { keeps_old: true, ..limits(9, 9_999) });
        near.put("a", 1, 4, Duration::ZERO, true, start);
        near.forget(&Pattern::beginning("c", ""));
        let seen = near.find("a", start).unwrap();
        assert_eq!((seen.value, seen.is_fresh), (1, false));
        near.put("a", 2, 4, Duration::ZERO, true, start);
        assert!(near.find("a", start).unwrap().is_fresh);
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_drives_nothing_out() {
        let start = Instant::now();
        let mut near = Near::new(limits(9, 1_000));
        near.put("a", 1, 4, Duration::ZERO, true, start);
        near.put("b", 2, 1_000, Duration::ZERO, true, start);
        assert_eq!((value(&mut near, "a", start), value(&mut near, "b", start)), (Some(1), None));
        near.put("a", 2, 1_000, Duration::ZERO, true, start);
        assert_eq!(value(&mut near, "a", start), None, "what it would have replaced is not what was written last");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u16),
        Find(u8),
        Forget(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..12_u8, 0..400_u16).prop_map(|(key, bytes)| Step::Put(key, bytes)),
            (0..12_u8).prop_map(Step::Find),
            (0..12_u8).prop_map(Step::Forget),
        ];
        proptest::collection::vec(step, 1..120)
    }

    proptest! {
        /// Beside a list that is searched from end to end: the same entries are there, in the same order of use, within both bounds.
        #[test]
        fn is_a_list_that_drops_the_least_used(steps in steps(), entries in 1..8_usize, bytes in 200..2_000_usize) {
            let start = Instant::now();
            let mut near = Near::new(limits(entries, bytes));
            // Least used first: key, value, bytes.
            let mut list: VecDeque<(u8, u32, usize)> = VecDeque::new();
            for (nth, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(key, size) => {
                        near.put(&key.to_string(), nth as u32, size.into(), Duration::ZERO, true, start);
                        list.retain(|(other, ..)| *other != key);
                        let size = key.to_string().len() + usize::from(size) + ENTRY_BYTES;
                        if size <= bytes {
                            list.push_back((key, nth as u32, size));
                            while list.len() > entries || list.iter().map(|(.., size)| size).sum::<usize>() > bytes {
                                list.pop_front();
                            }
                        }
                    }
                    Step::Find(key) => {
                        let found = value(&mut near, &key.to_string(), start);
                        let at = list.iter().position(|(other, ..)| *other == key);
                        let expected = at.and_then(|at| list.remove(at));
                        prop_assert_eq!(found, expected.map(|(_, value, _)| value));
                        list.extend(expected);
                    }
                    Step::Forget(key) => {
                        near.forget(&Pattern::key("c", &key.to_string()));
                        list.retain(|(other, ..)| *other != key);
                    }
                }
                prop_assert_eq!(near.size(), (list.len(), list.iter().map(|(.., size)| size).sum()));
                prop_assert_eq!(near.turns.len(), list.len());
            }
        }
    }
}
