//! Jobs from request to results, on SQLite always and on PostgreSQL where `EMBERD_TEST_POSTGRES` names one (`.ci/with-services`).
//!
//! - `endpoint`: a fake endpoint that counts and bills every call. `world`: a database with an engine on it. `child`: an engine to be killed.
//! - `whole`: jobs that go well. `failures`: every class. `money`: budgets. `requests`: faults. `kills`, `restarts`, `fleet`: what dies.
//! - `ranges`: functions, which take many examples at a time.

#![allow(clippy::unwrap_used, reason = "in tests, and in what helps them, a panic is the report")]

mod child;
mod endpoint;
mod failures;
mod fleet;
mod kills;
mod money;
mod ranges;
mod requests;
mod restarts;
mod whole;
mod world;
