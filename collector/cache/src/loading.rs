//! A cache that reads what it does not have: equal look-ups in flight are one, and a value that gets old is read anew before it is too old.
//!
//! Promise: who asks after an invalidation does not get what was read before it; a reading goes on when whoever asked first is gone; a
//! reading that fails is told to all who wait for it, and kept by nobody.
//! Kept by: `tests`, and `tests/it/truth.rs` over several processes' caches and the real Redis.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cache::{Cache, Found, Ticket, Value};

/// Different readings in flight; what comes above them is read by whoever asks.
const FLIGHTS_MAX: usize = 500;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Memory.
    Near,
    /// Redis.
    Far,
    /// It was read.
    Read,
}

type Landed<V, E> = Option<Result<(V, Source), Arc<E>>>;

struct Flight<V, E> {
    ticket: Ticket,
    landed: watch::Receiver<Landed<V, E>>,
}

/// A cache and its readings in flight.
pub struct Loading<V, E> {
    cache: Arc<Cache<V>>,
    flights: Mutex<HashMap<String, Flight<V, E>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl<V: Value, E: Send + Sync + 'static> Loading<V, E> {
    /// Over a cache.
    pub fn new(cache: Arc<Cache<V>>) -> Arc<Self> {
        Arc::new(Self { cache, flights: Mutex::default(), tasks: Mutex::default() })
    }

    /// The cache itself.
    pub fn cache(&self) -> &Arc<Cache<V>> {
        &self.cache
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight<V, E>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a key, read by `read` where nobody has it.
    ///
    /// # Errors
    /// What `read` said.
    pub async fn get<R>(
        self: &Arc<Self>,
        key: &str,
        read: impl FnOnce() -> R + Clone + Send + 'static,
    ) -> Result<(V, Source), Arc<E>>
    where
        R: Future<Output = Result<V, E>> + Send + 'static,
    {
        // A cache that is off counts nothing, and no look-up waits for another's.
        if self.cache.limits().idle.is_zero() {
            return Ok((read().await.map_err(Arc::new)?, Source::Read));
        }
        let refresh = self.cache.limits().refresh;
        if let Some(Found::Fresh(value, age)) = self.cache.find(key) {
            if age >= refresh {
                self.cache.lookups.refreshes.one();
                let _begun = self.fly(key, read, refresh);
            }
            return Ok((value, Source::Near));
        }
        let landed = match self.fly(key, read.clone(), Duration::MAX) {
            Some(mut landed) => landed.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone()),
            None => None,
        };
        let outcome = match landed {
            Some(outcome) => outcome,
            // Too many are on their way, or this one's reading died: it is read for itself.
            None => self.land(key, read, Duration::MAX).await,
        };
        self.cache.asked(matches!(outcome, Ok((_, Source::Far))));
        outcome
    }

    /// Joins the reading of a key, or begins it; what Redis has is taken where it is younger than `young`. None where there are too many.
    fn fly<F, R>(self: &Arc<Self>, key: &str, read: F, young: Duration) -> Option<watch::Receiver<Landed<V, E>>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output = Result<V, E>> + Send + 'static,
    {
        let mut flights = self.flights();
        // What began before an invalidation is for those who asked before it.
        if let Some(flight) = flights.get(key).filter(|flight| !self.cache.is_past(&flight.ticket)) {
            return Some(flight.landed.clone());
        }
        if flights.len() >= FLIGHTS_MAX {
            return None;
        }
        let (told, landed) = watch::channel(None);
        flights.insert(key.to_owned(), Flight { ticket: self.cache.ticket(), landed: landed.clone() });
        let (this, key) = (Arc::clone(self), key.to_owned());
        let flight = async move {
            let end = End { this: &this, key: &key, told };
            let outcome = this.land(&key, read, young).await;
            end.told.send_replace(Some(outcome));
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(flight);
        Some(landed)
    }

    async fn land<F, R>(&self, key: &str, read: F, young: Duration) -> Result<(V, Source), Arc<E>>
    where
        F: FnOnce() -> R,
        R: Future<Output = Result<V, E>>,
    {
        let (found, ticket) = self.cache.find_far(key, young).await;
        if let Some((value, _)) = found {
            return Ok((value, Source::Far));
        }
        let value = read().await.map_err(Arc::new)?;
        self.cache.keep(key, value.clone(), &ticket);
        Ok((value, Source::Read))
    }
}

/// The end of a reading, however it comes: the next look-up begins anew.
struct End<'f, V: Value, E: Send + Sync + 'static> {
    this: &'f Loading<V, E>,
    key: &'f str,
    told: watch::Sender<Landed<V, E>>,
}

impl<V: Value, E: Send + Sync + 'static> Drop for End<'_, V, E> {
    fn drop(&mut self) {
        let mut flights = self.this.flights();
        // A later one may stand in its place.
        if flights.get(self.key).is_some_and(|flight| flight.landed.same_channel(&self.told.subscribe())) {
            flights.remove(self.key);
        }
    }
}
