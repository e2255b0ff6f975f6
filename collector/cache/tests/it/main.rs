//! Caches of several processes over one real Redis (`.ci/services redis`), each test with its own, which it kills, stalls and brings back.

#![allow(clippy::unwrap_used, reason = "in tests, and in what helps them, a panic is the report")]

mod hostile;
mod outage;
mod server;
mod shared;
mod truth;
