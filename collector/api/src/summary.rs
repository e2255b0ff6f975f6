//! Every five minutes, how the API did, in one line of the log; and a warning for each threshold that was passed meanwhile.
//!
//! The thresholds are the specification's (spec/3, Caches, query help): p95 of the API over 100 ms, the database over 25 ms, fewer than 95 % of
//! the profiles found in a cache, more than 1 % errors. What waits for Phoenix does not count for the API's own times.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::Shared;
use crate::meter::Times;
use crate::sessions::Sessions;

pub(crate) const EVERY: Duration = Duration::from_secs(300);
const API_P95_MS: u64 = 100;
const DATABASE_MS: f64 = 25.0;
const HIT_RATIO: f64 = 0.95;
const ERROR_RATIO: f64 = 0.01;
/// Fewer say nothing about a share.
const COUNT_MIN: u64 = 100;
const DATABASE_TIME_MAX: Duration = Duration::from_secs(2);

/// What was counted so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counted {
    pub(crate) times: Times,
    pub(crate) profiles: (u64, u64),
    pub(crate) logins: (u64, u64),
}

/// What happened between two looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Between {
    pub(crate) counted: Counted,
    /// How long the smallest query took, with the wait for a connection; none: no answer.
    pub(crate) database_ms: Option<f64>,
}

impl Counted {
    fn of(shared: &Shared) -> Self {
        let sessions = shared.gate.sessions.as_ref();
        Self {
            times: shared.meter.times("proxy"),
            profiles: sessions.map(Sessions::hits).unwrap_or_default(),
            logins: shared.logins.counts(),
        }
    }

    fn since(&self, before: &Self) -> Self {
        let less =
            |now: (u64, u64), before: (u64, u64)| (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
        Self {
            times: self.times.since(&before.times),
            profiles: less(self.profiles, before.profiles),
            logins: less(self.logins, before.logins),
        }
    }
}

/// A share, where there is enough to speak of one.
fn share(of: u64, all: u64) -> Option<f64> {
    (all >= COUNT_MIN).then(|| of as f64 / all as f64)
}

impl Between {
    fn hit_ratio(&self) -> Option<f64> {
        let (hits, misses) = self.counted.profiles;
        share(hits, hits + misses)
    }

    /// The thresholds that were passed.
    pub(crate) fn alerts(&self) -> Vec<String> {
        let times = &self.counted.times;
        let mut alerts = Vec::new();
        if times.count >= COUNT_MIN && times.p95().is_none_or(|ms| ms > API_P95_MS) {
            let over = times.p95().map_or("more than the longest bound".to_owned(), |ms| format!("up to {ms} ms"));
            alerts.push(format!("the API's p95 is over {API_P95_MS} ms: {over}"));
        }
        match self.database_ms {
            None => alerts.push("the database does not answer".to_owned()),
            Some(ms) if ms > DATABASE_MS => {
                alerts.push(format!("the database takes {ms:.1} ms for the smallest query"))
            }
            Some(_) => {}
        }
        if let Some(ratio) = self.hit_ratio().filter(|ratio| *ratio < HIT_RATIO) {
            alerts.push(format!("only {:.1} % of the profiles were found in a cache", ratio * 100.0));
        }
        if let Some(ratio) = share(times.errors, times.count).filter(|ratio| *ratio > ERROR_RATIO) {
            alerts.push(format!("{:.1} % of the API's answers are errors of emberd's own", ratio * 100.0));
        }
        alerts
    }

    fn log(&self, pool: emberd_store::library::Pool) {
        let Counted { times, logins, .. } = &self.counted;
        tracing::info!(
            requests = times.count,
            errors = times.errors,
            p95_ms = times.p95(),
            database_ms = self.database_ms,
            profiles_cached = self.hit_ratio(),
            logins_good = logins.0,
            logins_bad = logins.1,
            pool_in_use = pool.in_use,
            pool_idle = pool.idle,
            pool_max = pool.max,
            "the API in the last five minutes"
        );
        for alert in self.alerts() {
            tracing::warn!("{alert}");
        }
    }
}

/// Tells of each stretch until `stop`.
pub(crate) async fn run(shared: &Arc<Shared>, stop: &CancellationToken) {
    let mut before = Counted::of(shared);
    while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
        let now = Counted::of(shared);
        let ping = tokio::time::timeout(DATABASE_TIME_MAX, shared.store.ping()).await;
        let database_ms = ping.ok().and_then(Result::ok).map(|ping| (ping.acquire + ping.query).as_secs_f64() * 1e3);
        Between { counted: now.since(&before), database_ms }.log(shared.store.pool());
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::BOUNDS_MS;

    fn between(fast: u64, slow: u64, errors: u64, profiles: (u64, u64), database_ms: Option<f64>) -> Between {
        let mut times = Times { count: fast + slow, errors, ..Times::default() };
        times.buckets[0] = fast;
        times.buckets[BOUNDS_MS.iter().position(|bound| *bound == 250).unwrap()] = slow;
        Between { counted: Counted { times, profiles, logins: (0, 0) }, database_ms }
    }

    #[test]
    fn each_threshold_has_its_alert() {
        let none = Vec::<String>::new();
        assert_eq!(between(1_000, 50, 0, (990, 10), Some(3.0)).alerts(), none);
        assert_eq!(between(0, 0, 0, (0, 0), Some(3.0)).alerts(), none);
        // A handful of requests says nothing about a share.
        assert_eq!(between(3, 3, 3, (3, 3), Some(3.0)).alerts(), none);
        assert_eq!(between(940, 60, 0, (0, 0), Some(3.0)).alerts(), ["the API's p95 is over 100 ms: up to 250 ms"]);
        assert_eq!(
            between(1_000, 0, 0, (0, 0), Some(26.0)).alerts(),
            ["the database takes 26.0 ms for the smallest query"]
        );
        assert_eq!(between(1_000, 0, 0, (0, 0), None).alerts(), ["the database does not answer"]);
        assert_eq!(
            between(1_000, 0, 0, (94, 6), Some(1.0)).alerts(),
            ["only 94.0 % of the profiles were found in a cache"]
        );
        assert_eq!(
            between(1_000, 0, 20, (0, 0), Some(1.0)).alerts(),
            ["2.0 % of the API's answers are errors of emberd's own"]
        );
    }

    #[test]
    fn a_stretch_is_what_came_between() {
        let (one, two) = (between(10, 5, 1, (5, 5), None).counted, between(30, 7, 4, (9, 6), None).counted);
        assert_eq!(two.since(&one), between(20, 2, 3, (4, 1), None).counted);
    }
}
