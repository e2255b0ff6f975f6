//! The bytes that all requests inside may hold together.
//!
//! Promise: what is read, inflated, rewritten or waits for the log was paid for first, so that no crowd of requests, however
//! large each may be, takes more memory than was set aside. Who does not get room within a short wait is refused, and may retry.
//! Not here: how large one request may be (`body`, `inflate`).
//! Kept by: `tests/it/bounds.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::refusal::Refusal;

/// Even an empty request costs a task and a few buffers; this also bounds how many can be inside.
const LEAST_BYTES: usize = 1024;

#[derive(Debug)]
pub(crate) struct InFlight {
    free: Arc<Semaphore>,
    total: usize,
    wait: Duration,
}

/// A share of the bytes in flight; given back on drop.
#[derive(Debug)]
pub(crate) struct Held(OwnedSemaphorePermit);

impl Held {
    pub(crate) fn bytes(&self) -> usize {
        self.0.num_permits()
    }

    /// Gives back all but `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes().saturating_sub(bytes.max(LEAST_BYTES));
        drop(self.0.split(surplus));
    }
}

impl InFlight {
    pub(crate) fn new(total_bytes: usize, wait: Duration) -> Self {
        let total = total_bytes.clamp(LEAST_BYTES, u32::MAX as usize);
        Self { free: Arc::new(Semaphore::new(total)), total, wait }
    }

    /// Sets `bytes` aside for one request.
    pub(crate) async fn hold(&self, bytes: usize) -> Result<Held, Refusal> {
        self.take(bytes.max(LEAST_BYTES)).await.map(Held)
    }

    /// Sets aside what `held` lacks to `bytes`.
    ///
    /// Two that wait here for each other are both refused after the wait, so this cannot lock up.
    pub(crate) async fn grow(&self, held: &mut Held, bytes: usize) -> Result<(), Refusal> {
        let lacking = bytes.min(self.total).saturating_sub(held.bytes());
        if lacking > 0 {
            held.0.merge(self.take(lacking).await?);
        }
        Ok(())
    }

    async fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let wanted = bytes.min(self.total) as u32;
        match Arc::clone(&self.free).try_acquire_many_owned(wanted) {
            Ok(permit) => return Ok(permit),
            Err(TryAcquireError::NoPermits) => {}
            Err(TryAcquireError::Closed) => return Err(Refusal::Stopping),
        }
        match tokio::time::timeout(self.wait, Arc::clone(&self.free).acquire_many_owned(wanted)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(Refusal::Stopping),
            Err(_elapsed) => Err(Refusal::Crowded { held_bytes: self.used(), total_bytes: self.total }),
        }
    }

    pub(crate) fn used(&self) -> usize {
        self.total.saturating_sub(self.free.available_permits())
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }
}
