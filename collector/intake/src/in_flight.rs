//! The bytes that all requests inside may hold together.
//!
//! Promise: what is read, inflated, rewritten or waits for the log was paid for first, so that no crowd of requests, however
//! large each may be, takes more memory than was set aside. Who does not get room within a short wait is refused, and may retry.
//! A body that has not come to its end pays for what has come and from a share of its own, so that no crowd of slow clients
//! keeps those out who have sent all of theirs.
//! Not here: how large one request may be, how slow (`body`, `inflate`).
//! Kept by: `tests` below, `tests/it/bounds.rs`, `tests/it/slow.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout_at};

use crate::refusal::Refusal;

/// Even an empty request costs a task and a few buffers; this also bounds how many can be inside.
const LEAST_BYTES: usize = 1024;

#[derive(Debug)]
pub(crate) struct InFlight {
    free: Arc<Semaphore>,
    total: usize,
    /// Of these bytes, what bodies that are still coming may hold: three quarters.
    coming: Arc<Semaphore>,
    coming_total: usize,
    /// Held by those who wait for more.
    waiting: AtomicUsize,
    wait: Duration,
}

/// A share of the bytes in flight; given back on drop.
#[derive(Debug)]
pub(crate) struct Held {
    share: OwnedSemaphorePermit,
    /// While the body is coming, as much of the share for such bodies.
    coming: Option<OwnedSemaphorePermit>,
}

impl Held {
    pub(crate) fn bytes(&self) -> usize {
        self.share.num_permits()
    }

    /// Gives back all but `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        for permit in [Some(&mut self.share), self.coming.as_mut()].into_iter().flatten() {
            let surplus = permit.num_permits().saturating_sub(bytes.max(LEAST_BYTES));
            drop(permit.split(surplus));
        }
    }

    /// All of the body has come.
    pub(crate) fn has_come(&mut self) {
        self.coming = None;
    }
}

impl InFlight {
    pub(crate) fn new(total_bytes: usize, wait: Duration) -> Self {
        let total = total_bytes.clamp(LEAST_BYTES, u32::MAX as usize);
        let coming_total = (total / 4 * 3).max(LEAST_BYTES);
        Self {
            free: Arc::new(Semaphore::new(total)),
            total,
            coming: Arc::new(Semaphore::new(coming_total)),
            coming_total,
            waiting: AtomicUsize::new(0),
            wait,
        }
    }

    /// Sets `bytes` aside for one request.
    pub(crate) async fn hold(&self, bytes: usize) -> Result<Held, Refusal> {
        let wanted = bytes.clamp(LEAST_BYTES, self.total);
        let share = match Arc::clone(&self.free).try_acquire_many_owned(wanted as u32) {
            Ok(share) => share,
            Err(TryAcquireError::Closed) => return Err(Refusal::Stopping),
            Err(TryAcquireError::NoPermits) => self.wait_for(&self.free, wanted, 0, Instant::now() + self.wait).await?,
        };
        Ok(Held { share, coming: None })
    }

    /// Says that more of the body of `held` is to come, which then counts to the share of such bodies.
    pub(crate) async fn is_coming(&self, held: &mut Held) -> Result<(), Refusal> {
        if held.coming.is_none() {
            let wanted = held.bytes().min(self.coming_total);
            let until = Instant::now() + self.wait;
            held.coming = Some(self.take(&self.coming, wanted, held.bytes(), until).await?);
        }
        Ok(())
    }

    /// Sets aside what `held` lacks to `bytes`.
    pub(crate) async fn grow(&self, held: &mut Held, bytes: usize) -> Result<(), Refusal> {
        let until = Instant::now() + self.wait;
        let before = held.bytes();
        if let Some(coming) = &mut held.coming {
            let lacking = bytes.min(self.coming_total).saturating_sub(coming.num_permits());
            if lacking > 0 {
                coming.merge(self.take(&self.coming, lacking, before, until).await?);
            }
        }
        let lacking = bytes.min(self.total).saturating_sub(before);
        if lacking > 0 {
            held.share.merge(self.take(&self.free, lacking, before, until).await?);
        }
        Ok(())
    }

    async fn take(
        &self,
        from: &Arc<Semaphore>,
        bytes: usize,
        held_bytes: usize,
        until: Instant,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        match Arc::clone(from).try_acquire_many_owned(bytes as u32) {
            Ok(permit) => Ok(permit),
            Err(TryAcquireError::Closed) => Err(Refusal::Stopping),
            Err(TryAcquireError::NoPermits) => self.wait_for(from, bytes, held_bytes, until).await,
        }
    }

    /// Waits for room. Those who hold something while they wait may hold no more than half of what they wait for, all of them
    /// together; the next is refused at once. So there is always someone who can go on and give back, and who waits has a chance:
    /// a crowd that has filled everything with halves of bodies does not wait for each other until all are refused.
    async fn wait_for(
        &self,
        from: &Arc<Semaphore>,
        bytes: usize,
        held_bytes: usize,
        until: Instant,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        let total = if Arc::ptr_eq(from, &self.coming) { self.coming_total } else { self.total };
        let waiting = Waiting::with(&self.waiting, held_bytes);
        if waiting.together > total / 2 && waiting.together > held_bytes {
            return Err(self.crowded());
        }
        match timeout_at(until, Arc::clone(from).acquire_many_owned(bytes as u32)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(Refusal::Stopping),
            Err(_elapsed) => Err(self.crowded()),
        }
    }

    fn crowded(&self) -> Refusal {
        Refusal::Crowded { held_bytes: self.used(), total_bytes: self.total }
    }

    pub(crate) fn used(&self) -> usize {
        self.total.saturating_sub(self.free.available_permits())
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }
}

/// What someone holds who waits for more, counted as long as that lasts.
struct Waiting<'a> {
    all: &'a AtomicUsize,
    bytes: usize,
    /// What all of them held when this one came, itself included.
    together: usize,
}

impl<'a> Waiting<'a> {
    fn with(all: &'a AtomicUsize, bytes: usize) -> Self {
        Self { all, bytes, together: all.fetch_add(bytes, Ordering::Relaxed) + bytes }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
