//! When what fails is not asked any more: a circuit breaker, for evaluators and for Phoenix.
//!
//! Promise: after so many faults in a row nothing is asked for a while; then one batch is (the probe), and its outcome decides. A probe
//! that never reports back is taken for a fault. Pure: the time is handed in.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { faults: u32 },
    Open { until: Instant, times: u32 },
    Probing { until: Instant, times: u32 },
}

/// A circuit that opens when what is behind it fails.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    faults_max: u32,
    cooldown: Duration,
}

impl Breaker {
    /// A closed one, which opens after so many faults in a row, for so long; twice, three times, .. as long when the probe fails too.
    #[must_use]
    pub fn new(faults_max: u32, cooldown: Duration) -> Self {
        Self { state: State::Closed { faults: 0 }, faults_max, cooldown }
    }

    /// Whether to ask now. `patience` is how long a probe may take.
    ///
    /// # Errors
    /// How long until it may be asked again.
    pub fn admit(&mut self, now: Instant, patience: Duration) -> Result<(), Duration> {
        match self.state {
            State::Closed { .. } => Ok(()),
            State::Open { until, times } | State::Probing { until, times } if now >= until => {
                self.state = State::Probing { until: now + patience, times };
                Ok(())
            }
            State::Open { until, .. } | State::Probing { until, .. } => Err(until - now),
        }
    }

    /// What was asked was answered.
    pub fn succeed(&mut self) {
        self.state = State::Closed { faults: 0 };
    }

    /// What was asked ended in a fault. Whether the circuit opens with it.
    pub fn fail(&mut self, now: Instant) -> bool {
        let times = match self.state {
            State::Closed { faults } if faults + 1 < self.faults_max => {
                self.state = State::Closed { faults: faults + 1 };
                return false;
            }
            State::Closed { .. } => 1,
            // Asked before it opened: the circuit knows already.
            State::Open { .. } => return false,
            State::Probing { times, .. } => (times + 1).min(10),
        };
        self.state = State::Open { until: now + self.cooldown * times, times };
        true
    }

    /// Whether nothing is asked at the moment.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn opens_after_five_in_a_row_and_lets_one_probe_through() {
        let mut breaker = Breaker::new(5, 10 * S);
        let start = Instant::now();
        for _ in 0..4 {
            assert!(!breaker.fail(start));
        }
        breaker.succeed();
        for _ in 0..4 {
            assert!(!breaker.fail(start));
            assert!(breaker.admit(start, S).is_ok());
        }
        assert!(breaker.fail(start));
        assert_eq!(breaker.admit(start + 4 * S, S), Err(6 * S));
        // Half-open: one, and no second beside it.
        assert!(breaker.admit(start + 10 * S, S).is_ok());
        assert!(breaker.admit(start + 10 * S, S).is_err());
        assert!(breaker.fail(start + 11 * S));
        assert_eq!(breaker.admit(start + 11 * S, S), Err(20 * S), "twice as long the second time");
        assert!(breaker.admit(start + 31 * S, S).is_ok());
        breaker.succeed();
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_probe_that_never_reports_does_not_close_the_door_for_ever() {
        let mut breaker = Breaker::new(1, S);
        let start = Instant::now();
        assert!(breaker.fail(start));
        assert!(breaker.admit(start + S, 5 * S).is_ok());
        assert!(breaker.admit(start + 2 * S, 5 * S).is_err());
        assert!(breaker.admit(start + 6 * S, 5 * S).is_ok());
    }
}
