//! When a consumer's cursor moved over which offset: fine for the last minutes, coarse for the last days.
//!
//! Promise: of the last quarter of an hour every second with a movement is kept, of a week before it every minute; memory stays below a
//! megabyte. Not here: what the cursor means.
//! Kept by:  `tests`.

use std::collections::VecDeque;

use emberd_model::{Offset, UnixNanos};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
/// What is older than this is kept by the minute.
const FINE: u64 = 15 * MINUTE;
/// What is older than this is not kept.
const KEPT: u64 = 7 * 24 * 60 * MINUTE;
const BYTES: usize = 24;

/// How far a consumer was at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: UnixNanos,
    /// How far the far end had acknowledged.
    pub sent: Offset,
    /// How far it was done, durably.
    pub done: Offset,
}

/// Moments, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    coarse: VecDeque<Moment>,
    fine: VecDeque<Moment>,
}

impl Moments {
    /// Adds the latest.
    pub fn add(&mut self, moment: Moment) {
        match self.fine.back_mut() {
            Some(last) if moment.at.0 / SECOND == last.at.0 / SECOND => *last = moment,
            // A clock that was set back says nothing more about what was before.
            Some(last) if moment.at < last.at => {
                *last = Moment { at: last.at, ..moment };
            }
            _ => self.fine.push_back(moment),
        }
        let now = moment.at.0;
        while let Some(old) = self.fine.pop_front_if(|old| old.at.0.saturating_add(FINE) < now) {
            match self.coarse.back_mut() {
                Some(last) if old.at.0 / MINUTE == last.at.0 / MINUTE => *last = old,
                _ => self.coarse.push_back(old),
            }
        }
        while self.coarse.pop_front_if(|old| old.at.0.saturating_add(KEPT) < now).is_some() {}
    }

    /// The first moment known at which it was so, and the last before that; either may not be known.
    #[must_use]
    pub fn first(&self, is_so: impl Fn(&Moment) -> bool) -> (Option<Moment>, Option<Moment>) {
        let mut before = None;
        for moment in self.coarse.iter().chain(&self.fine) {
            if is_so(moment) {
                return (before, Some(*moment));
            }
            before = Some(*moment);
        }
        (before, None)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let all = self.coarse.iter().chain(&self.fine);
        all.flat_map(|moment| [moment.at.0, moment.sent.0, moment.done.0]).flat_map(u64::to_le_bytes).collect()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut moments = Self::default();
        let (all, rest) = bytes.as_chunks::<BYTES>();
        for moment in all {
            let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| moment[at + byte]));
            moments.add(Moment { at: UnixNanos(number(0)), sent: Offset(number(8)), done: Offset(number(16)) });
        }
        rest.is_empty().then_some(moments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A week of movements, four a second in its last hour, stays small, is found again, and says when each offset was passed.
    #[test]
    fn when_is_known_finely_for_long_enough() {
        let mut moments = Moments::default();
        let week = 7 * 24 * 60 * 60;
        let mut seconds: Vec<f64> = (0..week - 3_600).step_by(10).map(f64::from).collect();
        seconds.extend((0..4 * 3_600).map(|quarter| f64::from(week - 3_600) + f64::from(quarter) / 4.0));
        for at in &seconds {
            let done = Offset(*at as u64);
            moments.add(Moment { at: UnixNanos((at * 1e9) as u64), sent: done.plus(5), done });
        }
        let bytes = moments.encode();
        assert!(bytes.len() < 300_000, "{}", bytes.len());
        assert_eq!(Moments::decode(&bytes), Some(moments.clone()));
        for (offset, within) in [(week as u64 - 600, 2), (week as u64 - 7_200, 60), (3_600, 60)] {
            let (before, first) = moments.first(|moment| moment.done > Offset(offset));
            let (before, first) = (before.unwrap(), first.unwrap());
            assert!(before.done <= Offset(offset) && first.done > Offset(offset));
            assert!(first.at.0 - before.at.0 <= within * SECOND, "{offset}: {before:?} {first:?}");
        }
        assert_eq!(moments.first(|moment| moment.done > Offset(u64::MAX - 1)).1, None);
        assert_eq!(Moments::decode(&bytes[1..]), None);
    }

    #[test]
    fn a_clock_set_back_keeps_the_order() {
        let mut moments = Moments::default();
        for (at, done) in [(100, 1), (50, 2), (101, 3)] {
            moments.add(Moment { at: UnixNanos(at * SECOND), sent: Offset(done), done: Offset(done) });
        }
        let (_, first) = moments.first(|moment| moment.done >= Offset(2));
        assert_eq!(first.unwrap().at, UnixNanos(100 * SECOND));
        assert_eq!(Moments::decode(&moments.encode()), Some(moments));
    }
}
