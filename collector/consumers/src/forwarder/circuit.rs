//! When to knock again at an endpoint that did not answer well.
//!
//! Promise: while it fails, one request at a time goes out, each after a longer wait than the last (full jitter, within bounds),
//! and everyone else waits for how that one fares. Never gives up: time bounds nothing here, only the log's disk budget does.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

/// How the waits between tries grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait; doubles with each failure.
    pub base: Duration,
    /// The bound of all waits that the endpoint did not ask for.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The wait after `failures` in a row: anything up to its bound, so that many that failed at once do not return at once.
    pub(super) fn wait(self, failures: u32) -> Duration {
        let bound = self.base.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.max);
        // Not none at all: an endpoint that fails at once must not be asked in a circle.
        rand::rng().random_range(self.base.min(bound) / 10..=bound)
    }
}

/// Whether requests may go out.
#[derive(Debug)]
pub(super) struct Circuit {
    backoff: Backoff,
    state: Mutex<State>,
    /// Held by the one that knocks.
    knocking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Set while the circuit is open.
    again_at: Option<Instant>,
}

/// Leave to send one request. How it fared is told to the circuit.
#[must_use]
pub(super) struct Pass<'a> {
    circuit: &'a Circuit,
    knock: Option<tokio::sync::MutexGuard<'a, ()>>,
}

impl Circuit {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { backoff, state: Mutex::default(), knocking: tokio::sync::Mutex::new(()) }
    }

    /// Waits for leave to send.
    pub(super) async fn pass(&self) -> Pass<'_> {
        loop {
            if self.state().again_at.is_none() {
                return Pass { circuit: self, knock: None };
            }
            let knock = self.knocking.lock().await;
            let again_at = self.state().again_at;
            if let Some(again_at) = again_at {
                tokio::time::sleep_until(again_at).await;
                return Pass { circuit: self, knock: Some(knock) };
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// The endpoint answers: everyone may send.
    pub(super) fn went_well(self) {
        *self.circuit.state() = State::default();
    }

    /// The endpoint does not: everyone waits, as long as it asked for, or as long as it is our turn to.
    pub(super) fn failed(self, asked: Option<Duration>) {
        let mut state = self.circuit.state();
        // Of several that were under way when the endpoint went, only the first counts.
        if self.knock.is_some() || state.again_at.is_none() {
            state.failures = state.failures.saturating_add(1);
            let own = self.circuit.backoff.wait(state.failures);
            let wait = asked.map_or(own, |asked| if asked.is_zero() { own } else { asked });
            state.again_at = Some(Instant::now() + wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const QUICK: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) };

    #[test]
    fn waits_grow_within_their_bounds_and_differ() {
        for (failures, bound) in [(1, 1), (2, 2), (4, 8), (7, 60), (1_000, 60)] {
            let waits: Vec<_> = (0..200).map(|_| QUICK.wait(failures)).collect();
            let (min, max) = (Duration::from_millis(100), Duration::from_secs(bound));
            assert!(waits.iter().all(|wait| (min..=max).contains(wait)), "{failures}");
            assert!(waits.iter().max() > waits.iter().min());
        }
    }

    const IMPATIENT: Backoff = Backoff { base: Duration::from_millis(10), max: Duration::from_millis(40) };

    /// Ten are waiting, one knocks; when that one fares well, all go.
    #[tokio::test]
    async fn one_knocks_while_the_others_wait() {
        let circuit = Arc::new(Circuit::new(IMPATIENT));
        circuit.pass().await.failed(None);
        let knock = circuit.pass().await;
        assert!(knock.knock.is_some());
        let mut others = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let circuit = circuit.clone();
            others.spawn(async move { circuit.pass().await.went_well() });
        }
        // Longer than any wait of its own: it is the knock that they wait for.
        tokio::time::sleep(2 * IMPATIENT.max).await;
        assert!(others.try_join_next().is_none(), "someone went through an open circuit");
        knock.went_well();
        others.join_all().await;
    }

    #[tokio::test]
    async fn the_endpoint_may_ask_for_its_wait() {
        let circuit = Circuit::new(IMPATIENT);
        let asked = Duration::from_millis(300);
        let begun = Instant::now();
        circuit.pass().await.failed(Some(asked));
        circuit.pass().await.failed(Some(Duration::ZERO));
        assert!(begun.elapsed() >= asked);
        let begun = Instant::now();
        circuit.pass().await.went_well();
        assert!(begun.elapsed() >= IMPATIENT.base / 10, "zero means: as you like");
        assert!(circuit.pass().await.knock.is_none());
    }
}
