//! Values that were read before: in memory, and in a Redis that all emberds share where one is configured.
//!
//! Promise: nobody waits for Redis longer than [`DEADLINE`] a look-up, and nobody at all once it failed a few times: then it is asked by a probe in
//! the background alone. Writing to it is never waited for. A value that was read before an invalidation is not found after it, in this
//! process at once, in another as soon as Redis has told it, and in Redis itself never; where Redis was away, what was not
//! told is told before it is believed again, and what this process kept in memory is forgotten, for it may have missed something.
//! In Redis: `PREFIX:SCHEMA:CACHE:SHA-256 of the key` ([`wire`] says what stands there; another schema's bytes are not read), the versions
//! that an invalidation changes in `PREFIX:v:CACHE` and `PREFIX:v:CACHE:SHA-256`; the channel `PREFIX:forget` carries invalidations.
//! Bounded: entries and bytes in memory; calls in flight, bytes waiting to be written, invalidations waiting to be told; bytes of a value.
//! Not here: what is kept, and for how long (the rooms that do); who else tells of invalidations ([`Caches::said`], [`Caches::hear`]).
//! Kept by: `near::tests`, `wire::tests`, `loading::tests`, and `tests/it` against the real Redis: killed, stalled, returned.
//!
//! - [`near`] is the memory, [`far`] the Redis, [`session`] its connection in the background, [`cache`] the one before the other;
//! - [`by_hand`] is what commands do with the Redis; [`loading`] makes equal look-ups one; [`pattern`] says what is forgotten; [`stats`] how it goes.

mod by_hand;
mod cache;
mod caches;
mod far;
mod loading;
mod near;
mod pattern;
mod session;
mod stats;
mod unsaid;
pub mod wire;

pub use by_hand::Failed;
pub use cache::{Cache, Found, Limits, Ticket, Value};
pub use caches::Caches;
pub use far::{BadUrl, Config, DEADLINE};
pub use loading::{Loading, Source};
pub use pattern::Pattern;
pub use stats::State;
