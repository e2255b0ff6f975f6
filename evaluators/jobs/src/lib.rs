//! Evaluation jobs: from a request to results, whatever is killed on the way.
//!
//! Promise: an item of a job ends exactly once; a model's answer that was settled is never paid for again; what calls may cost never passes a
//! job's budget; a failure is never a score. Any number of emberds on one PostgreSQL share a job, and what one of them holds when it dies is
//! taken over when its lease is over (docs/decisions/0011-evaluation.md).
//! Shape:    [`Engine::run`] is a handful of loops over the database, each of which can be killed anywhere and goes on where the rows are.
//!
//! - [`Engine`], [`Handle`], [`Config`]: the way in. [`request`]: what is asked for, and all that is wrong with it. [`plan`]: what was made of it.
//! - `prepare`, `work`, `close`, `clean`: the loops. `steps`: an item through its evaluator. `ends`, `leases`: what is in hand.
//! - [`live`]: rules on live traffic. [`outbox`]: what Phoenix is told of jobs and rules.
//! - `provider`: an OpenAI-compatible endpoint, with its pace and its errors by class. `paid`: a call, with its money and its answer.
//!
//! Not here: what an evaluator is (kit), where plugins run (hosts), rows and transactions (store), HTTP routes (api), files of datasets.
//! Kept by: `tests/it` (a fake endpoint that bills every call; kills, restarts of PostgreSQL, four engines on one job).

mod check;
mod clean;
mod close;
mod config;
mod counters;
mod digest;
mod ends;
mod engine;
mod evaluators;
mod events;
mod examples;
mod handle;
mod held;
mod job;
mod leases;
pub mod live;
pub mod outbox;
mod paid;
pub mod plan;
mod prepare;
mod price;
mod prompting;
mod provider;
mod quote;
pub mod request;
mod scored;
mod steps;
mod work;

pub use check::CheckError;
pub use config::{Config, ConfigError, Endpoint, Secret};
pub use counters::{BOUNDS, Counters, Histogram};
pub use engine::Engine;
pub use events::{Event, Share};
pub use handle::{CreateError, Handle};
pub use quote::Quote;
pub use request::Fault;
