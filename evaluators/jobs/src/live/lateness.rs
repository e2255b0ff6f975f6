//! How late spans of a service come, after their trace's root did: what the quiet time of its traces follows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Bounds double from a millisecond to more than ten minutes.
const BUCKETS: usize = 21;
/// Counts are halved then, so that what was long ago fades.
const FADE: u64 = 20_000;
/// Services that are told apart; others share one count.
const SERVICES_MAX: usize = 1_000;

#[derive(Clone, Debug, Default)]
struct Counts {
    buckets: [u64; BUCKETS],
    sum: u64,
}

/// Lateness by service.
#[derive(Debug, Default)]
pub(super) struct Lateness(HashMap<Arc<str>, Counts>);

impl Lateness {
    /// A span came so long after its trace's root; zero for one that came before.
    pub(super) fn add(&mut self, service: &Arc<str>, late: Duration) {
        let key =
            if self.0.len() < SERVICES_MAX || self.0.contains_key(service) { Arc::clone(service) } else { "".into() };
        let counts = self.0.entry(key).or_default();
        if counts.sum >= FADE {
            counts.buckets.iter_mut().for_each(|count| *count /= 2);
            counts.sum = counts.buckets.iter().sum();
        }
        counts.buckets[bucket(late)] += 1;
        counts.sum += 1;
    }

    /// Of 1,000 spans of the service, 999 come within this time, as far as is known.
    pub(super) fn of(&self, service: &Arc<str>) -> Duration {
        let Some(counts) = self.0.get(service).or_else(|| self.0.get("")) else { return Duration::ZERO };
        let mut over = counts.sum;
        for (at, count) in counts.buckets.iter().enumerate() {
            over -= count;
            if over * 1_000 <= counts.sum {
                return if at == 0 { Duration::ZERO } else { Duration::from_millis(1 << at) };
            }
        }
        Duration::ZERO
    }
}

fn bucket(late: Duration) -> usize {
    let millis = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
    // At most the bucket's number's power of two: 0 for under a millisecond.
    if millis == 0 { 0 } else { (64 - (millis - 1).leading_zeros() as usize).clamp(1, BUCKETS - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_follows_what_came_late() {
        let (mut lateness, service): (_, Arc<str>) = (Lateness::default(), "s".into());
        assert_eq!(lateness.of(&service), Duration::ZERO);
        (0..9_990).for_each(|_| lateness.add(&service, Duration::ZERO));
        (0..9).for_each(|_| lateness.add(&service, Duration::from_secs(30)));
        assert_eq!(lateness.of(&service), Duration::ZERO, "less than one in a thousand");
        (0..10).for_each(|_| lateness.add(&service, Duration::from_secs(30)));
        let quiet = lateness.of(&service);
        assert!(quiet >= Duration::from_secs(30) && quiet < Duration::from_secs(60), "{quiet:?}");
        (0..60_000).for_each(|_| lateness.add(&service, Duration::ZERO));
        assert_eq!(lateness.of(&service), Duration::ZERO, "it fades");
    }
}
