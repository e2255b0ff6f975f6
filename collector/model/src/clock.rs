//! Time as the rooms see it: handed in, so that tests own it.

use crate::ids::UnixNanos;

/// Tells the time of day. The real one lives in the daemon; tests bring their own.
pub trait Clock: Send + Sync + 'static {
    /// Now, by the wall clock. May jump: durations are measured with tokio's clock instead.
    fn now(&self) -> UnixNanos;
}

/// A clock that stands still at the given time, or goes when told to.
#[derive(Debug, Default)]
pub struct Still(std::sync::atomic::AtomicU64);

impl Still {
    /// A clock that says `now` until [`Still::set`] says otherwise.
    #[must_use]
    pub fn at(now: UnixNanos) -> Self {
        Self(now.0.into())
    }

    /// Moves the clock.
    pub fn set(&self, now: UnixNanos) {
        self.0.store(now.0, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Clock for Still {
    fn now(&self) -> UnixNanos {
        UnixNanos(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }
}
