//! The outside: clock and disk, real here, simulated in the rooms' tests.

use std::sync::Arc;

use emberd_model::{Clock, UnixNanos};

/// What the rooms are given of the outside.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn emberd_log::disk::Disk>,
}

impl World {
    /// This machine.
    pub(crate) fn real() -> Self {
        Self { clock: Arc::new(WallClock), disk: Arc::new(emberd_log::disk::RealDisk) }
    }
}

/// The machine's wall clock.
struct WallClock;

impl Clock for WallClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that makes a real clock")]
    fn now(&self) -> UnixNanos {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UnixNanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}
