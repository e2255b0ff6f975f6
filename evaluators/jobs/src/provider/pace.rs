//! How many calls at once, and how fast: more as long as the endpoint bears it, half as many when it says no.
//!
//! Calls at once grow by one for each full round of answers, and are halved by a 429, once for all calls that were on their way together. The
//! first 429 also begins a rate: half of the calls that left in the second before; it grows by a tenth, and a half, a second. `Retry-After`, and a
//! remaining budget of zero in `x-ratelimit-*`, stop all calls for so long, within the configured bound.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Calls at once that are begun with.
const FIRST: f64 = 8.0;
/// Without a word how long, a 429 stops calls for this.
const PAUSE: Duration = Duration::from_millis(500);
/// Above so many calls a second a rate is no bound any more.
const RATE_MAX: f64 = 10_000.0;
/// Departures that are remembered.
const LEFT_MAX: usize = 4_096;

/// What a call told about the endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heard {
    /// It answered.
    Answer(Limits),
    /// It asks to slow down.
    TooFast(Option<Duration>),
    /// It is out of order, or did not answer.
    Trouble,
}

/// What an answer's headers say about what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Nothing is left for so long.
    pub(super) wait: Option<Duration>,
}

pub(super) struct Pace {
    state: Mutex<State>,
    changed: Notify,
    max: f64,
    pause_max: Duration,
}

struct State {
    limit: f64,
    in_flight: usize,
    /// Calls a second; none until the endpoint once said no.
    rate: Option<f64>,
    rate_at: Instant,
    /// When the next call may leave, by the rate.
    next: Instant,
    paused_until: Instant,
    /// A 429 to a call that left before tells nothing new.
    halved_at: Instant,
    left: VecDeque<Instant>,
}

/// A call that may leave. Dropped without a word, it only gives its place back.
pub(crate) struct Place<'a> {
    pace: &'a Pace,
    left: Instant,
}

impl Pace {
    pub(super) fn new(concurrency_max: u32, pause_max: Duration) -> Self {
        let (now, max) = (Instant::now(), f64::from(concurrency_max.max(1)));
        let state = State {
            limit: FIRST.min(max),
            in_flight: 0,
            rate: None,
            rate_at: now,
            next: now,
            paused_until: now,
            halved_at: now,
            left: VecDeque::new(),
        };
        Self { state: Mutex::new(state), changed: Notify::new(), max, pause_max }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn limit(&self) -> usize {
        self.state().limit as usize
    }

    pub(super) fn is_paused_for(&self, time: Duration) -> bool {
        self.state().paused_until > Instant::now() + time
    }

    pub(super) async fn place(&self) -> Place<'_> {
        loop {
            let changed = self.changed.notified();
            let wait = match self.state().go(Instant::now()) {
                Ok(left) => return Place { pace: self, left },
                Err(wait) => wait,
            };
            match wait {
                Some(wait) => {
                    let _ = tokio::time::timeout(wait, changed).await;
                }
                None => changed.await,
            }
        }
    }

    fn heard(&self, left: Instant, heard: Heard) {
        let mut state = self.state();
        let now = Instant::now();
        match heard {
            Heard::Answer(limits) => {
                state.limit = (state.limit + 1.0 / state.limit.max(1.0)).min(self.max);
                if let Some(wait) = limits.wait {
                    state.paused_until = state.paused_until.max(now + wait.min(self.pause_max));
                }
            }
            Heard::TooFast(wait) => {
                state.halve(left, now);
                let wait = wait.unwrap_or(PAUSE).min(self.pause_max);
                state.paused_until = state.paused_until.max(now + wait);
            }
            // Out of order is no reason to go faster, nor is it the endpoint's word on our pace.
            Heard::Trouble => state.limit = (state.limit - 0.5).max(1.0),
        }
    }
}

impl State {
    /// The call may leave, or how long to wait; none: until a place is free.
    fn go(&mut self, now: Instant) -> Result<Instant, Option<Duration>> {
        if now < self.paused_until {
            return Err(Some(self.paused_until - now));
        }
        if self.in_flight >= (self.limit as usize).max(1) {
            return Err(None);
        }
        self.grow(now);
        if let Some(rate) = self.rate {
            if now < self.next {
                return Err(Some(self.next - now));
            }
            self.next = self.next.max(now) + Duration::from_secs_f64(1.0 / rate);
        }
        self.in_flight += 1;
        while self.left.len() >= LEFT_MAX || self.left.front().is_some_and(|left| *left + Duration::from_secs(1) < now)
        {
            self.left.pop_front();
        }
        self.left.push_back(now);
        Ok(now)
    }

    fn grow(&mut self, now: Instant) {
        let seconds = (now - self.rate_at).as_secs_f64();
        self.rate_at = now;
        let grown = self.rate.map(|rate| rate * 1.1_f64.powf(seconds) + 0.5 * seconds);
        self.rate = grown.filter(|rate| *rate < RATE_MAX);
    }

    fn halve(&mut self, left: Instant, now: Instant) {
        if left <= self.halved_at && self.rate.is_some() {
            return;
        }
        self.halved_at = now;
        self.limit = (self.limit / 2.0).max(1.0);
        let recent = self.left.iter().filter(|left| **left + Duration::from_secs(1) >= now).count() as f64;
        let before = self.rate.map_or(recent, |rate| rate.min(recent.max(1.0)));
        (self.rate, self.rate_at) = (Some((before / 2.0).max(0.5)), now);
    }
}

impl Place<'_> {
    /// Says what came of the call, and gives the place back.
    pub(super) fn done(self, heard: Heard) {
        self.pace.heard(self.left, heard);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pace.state().in_flight -= 1;
        self.pace.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_429_halves_once_for_all_calls_on_their_way_and_stops_them() {
        let pace = Pace::new(32, Duration::from_secs(10));
        let places = futures_util::future::join_all((0..8).map(|_| pace.place())).await;
        assert_eq!(pace.limit(), 8);
        for place in places {
            place.done(Heard::TooFast(Some(Duration::from_secs(3))));
        }
        assert_eq!(pace.limit(), 4, "eight calls that were on their way together are one word");
        let before = Instant::now();
        let place = pace.place().await;
        assert!(before.elapsed() >= Duration::from_secs(3));
        place.done(Heard::TooFast(Some(Duration::from_secs(3600))));
        let before = Instant::now();
        drop(pace.place().await);
        assert!((10..12).contains(&before.elapsed().as_secs()), "an absurd wait is cut: {:?}", before.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn answers_raise_the_limit_to_its_bound_and_not_above() {
        let pace = Pace::new(12, Duration::from_secs(10));
        for _ in 0..1_000 {
            pace.place().await.done(Heard::Answer(Limits::default()));
        }
        assert_eq!(pace.limit(), 12);
    }
}
