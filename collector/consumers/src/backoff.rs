//! How long a database or an archive that fails is left alone: longer each time, never for ever.

use std::time::Duration;

use rand::Rng;
use tokio_util::sync::CancellationToken;

/// The shortest and the longest pause.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Pauses that double, each drawn from its upper half so that several emberds do not come back at once.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// Waits; says whether to go on: not if `stop` came first.
    pub(crate) async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let pause = FIRST.saturating_mul(1 << self.tries.min(10)).min(LONGEST);
        self.tries += 1;
        let pause = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
        tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}
