//! The outside: clock, disk and the one who supervises, real here; clock and disk are simulated in the rooms' tests.

use std::sync::Arc;

use emberd_model::{Clock, UnixNanos};

use crate::systemd::{Handed, Systemd};

/// What the rooms are given of the outside.
pub(crate) struct World {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn emberd_log::disk::Disk>,
    /// Who hears how it goes; nobody, unless [`World::supervised`].
    pub(crate) systemd: Systemd,
    /// The sockets that were open before this process; likewise.
    pub(crate) handed: Handed,
}

impl World {
    /// This machine.
    pub(crate) fn real() -> Self {
        Self::supervised(Systemd::default(), Handed::default())
    }

    /// This machine, and who started the process on it.
    pub(crate) fn supervised(systemd: Systemd, handed: Handed) -> Self {
        Self { clock: Arc::new(WallClock), disk: Arc::new(emberd_log::disk::RealDisk), systemd, handed }
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

/// Microseconds of the clock that only goes forward, which systemd asks for.
pub(crate) fn monotonic_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}
