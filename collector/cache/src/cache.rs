//! One cache: the memory before Redis.
//!
//! Promise: a [`Ticket`] is taken before a value is read; a value whose ticket is older than an invalidation is not kept, neither here nor
//! in Redis. What Redis said to one who asked before an invalidation is for him alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::caches::{Member, Shared};
use crate::near::Near;
use crate::pattern::Pattern;
use crate::stats::Lookups;
use crate::wire::{self, Versions};

/// What a cache can keep.
pub trait Value: Clone + Send + Sync + 'static {
    /// What it takes in memory, about.
    fn bytes(&self) -> usize;

    /// Its bytes in Redis. Whoever changes their form changes [`wire::SCHEMA`].
    fn write(&self, out: &mut Vec<u8>);

    /// Reads them, whoever may have written them.
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// How much a cache keeps, and for how long.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Entries in memory.
    pub entries: usize,
    /// Bytes in memory.
    pub bytes: usize,
    /// How long an entry in memory counts after each use; zero: nothing is kept at all.
    pub idle: Duration,
    /// How long a value counts after it was read, wherever it is and however often it is used.
    pub age_max: Duration,
    /// After this age a value that is used is read anew in the background, where [`Loading`](crate::Loading) does the reading.
    pub refresh: Duration,
    /// How long Redis keeps a value; a tenth less for some of them, so that they do not all end at once. Zero: it gets none.
    pub far: Duration,
    /// Larger values are not kept in Redis.
    pub far_bytes_max: usize,
    /// Whether old values stay, for when there is no other.
    pub keeps_old: bool,
    /// Whether a value counts only if nobody but an emberd can have written it: without a seal, Redis gets none.
    pub only_sealed: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 500,
            bytes: 32 << 20,
            idle: Duration::from_secs(300),
            age_max: Duration::from_secs(3_600),
            refresh: Duration::MAX,
            far: Duration::from_secs(3_600),
            far_bytes_max: 1 << 20,
            keeps_old: false,
            only_sealed: false,
        }
    }
}

/// A value that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<V> {
    /// It counts, and is so old.
    Fresh(V, Duration),
    /// It counts no more.
    Old(V),
}

/// When a value was asked for, as far as invalidations go.
#[derive(Clone, Debug)]
pub struct Ticket {
    writes: u64,
    versions: Option<Versions>,
}

/// Values under their keys.
pub struct Cache<V> {
    name: &'static str,
    limits: Limits,
    near: Mutex<Near<V>>,
    /// How often something was invalidated.
    writes: AtomicU64,
    shared: Arc<Shared>,
    pub(crate) lookups: Lookups,
}

impl<V> std::fmt::Debug for Cache<V> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Cache").field("name", &self.name).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<V: Value> Cache<V> {
    pub(crate) fn new(name: &'static str, limits: Limits, shared: Arc<Shared>) -> Self {
        let near = Mutex::new(Near::new(limits.clone()));
        Self { name, limits, near, writes: AtomicU64::new(0), shared, lookups: Lookups::default() }
    }

    /// What is kept, and for how long.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn near(&self) -> MutexGuard<'_, Near<V>> {
        self.near.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in memory.
    pub fn find(&self, key: &str) -> Option<Found<V>> {
        let seen = self.near().find(key, Instant::now())?;
        if !seen.is_fresh {
            return Some(Found::Old(seen.value));
        }
        self.lookups.near.one();
        Some(Found::Fresh(seen.value, seen.age))
    }

    /// Takes a ticket for a value that will be read without asking Redis.
    pub fn ticket(&self) -> Ticket {
        Ticket { writes: self.writes.load(Ordering::SeqCst), versions: None }
    }

    /// Whether something was invalidated since.
    pub fn is_past(&self, ticket: &Ticket) -> bool {
        self.writes.load(Ordering::SeqCst) != ticket.writes
    }

    /// What Redis has that is not older than `young`, with its age, and a ticket for the value that is to be read where it has none. What it
    /// has is in memory after this. Takes [`DEADLINE`](crate::DEADLINE) at most.
    pub async fn find_far(&self, key: &str, young: Duration) -> (Option<(V, Duration)>, Ticket) {
        let mut ticket = self.ticket();
        let Some(far) = self.shared.far.as_ref().filter(|_| self.is_far()) else { return (None, ticket) };
        let names = far.names(self.name, key);
        let Some(got) = far.get(self.name, &names, self.limits.far_bytes_max).await else { return (None, ticket) };
        let now = self.shared.clock.now();
        let found = wire::decode(&names.value, &got.bytes, &got.versions, now, self.shared.seal.as_ref())
            .filter(|(_, age)| *age < young.min(self.limits.age_max).min(self.limits.far))
            .and_then(|(bytes, age)| Some((V::read(bytes)?, age)));
        ticket.versions = Some(got.versions);
        if let Some((value, age)) = &found {
            self.put_near(key, value.clone(), *age, &ticket);
        }
        (found, ticket)
    }

    fn is_far(&self) -> bool {
        !self.limits.far.is_zero()
            && !self.limits.idle.is_zero()
            && (self.shared.seal.is_some() || !self.limits.only_sealed)
    }

    fn put_near(&self, key: &str, value: V, age: Duration, ticket: &Ticket) -> bool {
        let bytes = value.bytes();
        let mut near = self.near();
        // Asked under the lock: an invalidation counts before it takes the lock, so it either is seen here, or finds the value.
        let is_valid = !self.is_past(ticket);
        if is_valid || self.limits.keeps_old {
            near.put(key, value, bytes, age, is_valid, Instant::now());
        }
        is_valid
    }

    /// Keeps a value that was read after the ticket was taken, unless something was invalidated since.
    pub fn keep(&self, key: &str, value: V, ticket: &Ticket) {
        let far = self.shared.far.as_ref().zip(ticket.versions.as_ref()).filter(|_| self.is_far());
        let mut bytes = Vec::new();
        if far.is_some() {
            value.write(&mut bytes);
        }
        if !self.put_near(key, value, Duration::ZERO, ticket) {
            return;
        }
        if let Some((far, versions)) = far
            && bytes.len() <= self.limits.far_bytes_max
        {
            let names = far.names(self.name, key);
            let (now, seal) = (self.shared.clock.now(), self.shared.seal.as_ref());
            let bytes = wire::encode(&names.value, &bytes, versions, now, seal);
            let time = self.limits.far.min(self.limits.age_max).mul_f64(rand::random_range(0.9..=1.0));
            far.put(names.value, bytes, time);
        }
    }

    /// Lets this key's value count no more, here, in Redis and in every process that hears of it.
    pub fn forget(&self, key: &str) {
        self.say(Pattern::key(self.name, key));
    }

    /// The same for all keys that begin so.
    pub fn forget_all(&self, beginning: &str) {
        self.say(Pattern::beginning(self.name, beginning));
    }

    fn say(&self, pattern: Pattern) {
        self.lookups.said.one();
        // Before it is forgotten here: from then on nothing of it is read from Redis.
        if let Some(far) = &self.shared.far {
            far.say(pattern.clone());
        }
        self.forget_near(&pattern);
        // Nobody may be listening.
        let _ = self.shared.said.send(pattern);
    }

    fn forget_near(&self, pattern: &Pattern) {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.near().forget(pattern);
    }

    /// How many values are in memory, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        self.near().size()
    }

    /// Look-ups so far: found in memory, found in Redis, not found.
    pub fn counts(&self) -> [u64; 3] {
        [self.lookups.near.get(), self.lookups.far.get(), self.lookups.misses.get()]
    }

    /// Counts a look-up that Redis had something for, or nobody.
    pub fn asked(&self, has_far: bool) {
        if has_far { self.lookups.far.one() } else { self.lookups.misses.one() }
    }
}

impl<V: Value> Member for Cache<V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn hear(&self, pattern: &Pattern) {
        self.lookups.heard.one();
        self.forget_near(pattern);
    }

    fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    fn size(&self) -> (usize, usize) {
        Cache::size(self)
    }
}
