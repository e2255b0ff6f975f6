//! Items in hand: held for longer as long as somebody works on them.
//!
//! Promise: an item is extended while its [`Held`] lives, and no longer, so that what a panic dropped is taken up again by whoever looks next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emberd_store::jobs::{Holding, ItemKey};
use tokio_util::sync::CancellationToken;

use crate::engine::Shared;

/// Items extended in one transaction.
const CHUNK: usize = 5_000;

#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<HashMap<(ItemKey, i64), ()>>);

/// An item in hand.
#[derive(Debug)]
pub(crate) struct Held {
    leases: Arc<Leases>,
    pub(crate) key: ItemKey,
    pub(crate) fence: i64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leases.held().remove(&(self.key, self.fence));
    }
}

impl Leases {
    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<(ItemKey, i64), ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hold(self: &Arc<Self>, key: ItemKey, fence: i64) -> Held {
        self.held().insert((key, fence), ());
        Held { leases: Arc::clone(self), key, fence }
    }
}

/// Extends what is in hand, three times in each lease.
pub(crate) async fn keep(shared: &Shared, stop: &CancellationToken) {
    let mut wait = shared.config.lease / 3;
    while tokio::time::timeout(wait, stop.cancelled()).await.is_err() {
        wait = match extend(shared).await {
            Ok(()) => shared.config.lease / 3,
            Err(error) => {
                tracing::warn!(error = %shared.told(&error), "leases could not be extended");
                (shared.config.lease / 10).max(Duration::from_millis(100))
            }
        };
    }
}

async fn extend(shared: &Shared) -> Result<(), emberd_store::Error> {
    let held: Vec<Holding> = shared.leases.held().keys().map(|&(key, fence)| Holding { key, fence }).collect();
    for chunk in held.chunks(CHUNK) {
        let still = shared.store.extend(chunk.to_vec(), shared.config.lease, shared.now()).await?;
        for (holding, _) in chunk.iter().zip(&still).filter(|(_, still)| !**still) {
            // Somebody else's by now, or ended: the fence keeps what we still write of it out.
            shared.leases.held().remove(&(holding.key, holding.fence));
        }
    }
    Ok(())
}
