//! How many events a second are told: as many as come, up to [`RATE_MAX`], and fewer where so many sockets hear each of them that telling
//! would take the machine from those who send spans.
//!
//! Promise: whatever is connected and however much comes, deliveries come down to about [`DELIVERIES_MAX`] a second within seconds, and go
//! up again with what there is room for.
//! Kept by: `tests` below.

use std::time::Duration;

use tokio::time::Instant;

/// Events told in a second.
const RATE_MAX: f64 = 1_000.0;
/// What is told whatever it costs.
const RATE_MIN: f64 = 1.0;
/// Events times sockets in a second: somewhat less than half of a core (benches/README.md).
const DELIVERIES_MAX: f64 = 25_000.0;
const SECOND: Duration = Duration::from_secs(1);

pub(super) struct Pace {
    rate: f64,
    since: Instant,
    events: u64,
    /// By then.
    delivered: u64,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { rate: RATE_MAX, since: now, events: 0, delivered: 0 }
    }

    /// Whether one more may be told, `delivered` being the number of all deliveries so far.
    pub(super) fn take(&mut self, now: Instant, delivered: u64) -> bool {
        let passed = now.duration_since(self.since);
        if passed >= SECOND {
            let each = |count: u64| count as f64 / passed.as_secs_f64();
            let (events, deliveries) = (each(self.events), each(delivered.saturating_sub(self.delivered)));
            self.rate = match deliveries > DELIVERIES_MAX {
                true => (self.rate.min(events) * DELIVERIES_MAX / deliveries).max(RATE_MIN),
                false => (self.rate * 2.0).min(RATE_MAX),
            };
            (self.since, self.events, self.delivered) = (now, 0, delivered);
        }
        self.events += 1;
        self.events as f64 <= self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many events a second for so long, each heard by so many sockets, of which a core can tell so many; gives those told in the last second.
    fn last_second(events: u64, sockets: u64, can: u64, seconds: u64) -> u64 {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        let (mut delivered, mut told_in_last) = (0, 0);
        for second in 0..seconds {
            let (mut told, mut in_second) = (0, 0);
            for nr in 0..events {
                let now = begun + SECOND * second as u32 + SECOND * nr as u32 / events as u32;
                if pace.take(now, delivered) {
                    told += 1;
                    // What cannot be told in time is left out, and is no delivery.
                    let more = sockets.min(can.saturating_sub(in_second));
                    in_second += more;
                    delivered += more;
                }
            }
            told_in_last = told;
        }
        told_in_last
    }

    #[test]
    fn what_few_hear_is_told_as_it_comes() {
        assert_eq!(last_second(500, 20, 60_000, 10), 500);
        assert_eq!(last_second(5_000, 20, 60_000, 10), 1_000);
    }

    #[test]
    fn what_all_hear_comes_down_to_what_there_is_room_for() {
        for seconds in 12..20 {
            let told = last_second(1_000, 2_000, 60_000, seconds);
            assert!((5..=26).contains(&told), "{told} events to 2,000 sockets after {seconds} s");
        }
    }

    #[test]
    fn with_the_sockets_gone_all_is_told_again() {
        let begun = Instant::now();
        let mut pace = Pace { rate: RATE_MIN, ..Pace::new(begun) };
        let mut told = 0;
        for nr in 0..15_000_u32 {
            let now = begun + SECOND * nr / 1_000;
            told = if pace.take(now, 0) { told + 1 } else { 0 };
        }
        assert!(told >= 1_000, "{told} in a row");
    }
}
