//! Where foreign code runs: plugins over gRPC (a process that emberd starts, or an address), and WebAssembly modules.
//!
//! Promise: a plugin that hangs, dies, floods or lies costs its own examples a failure (`timeout`, `plugin_fault`), and slows nobody:
//! every wait has a deadline, every buffer a bound, every process limits and somebody who ends it. No process outlives emberd.
//! What a plugin says is held against what it declared before anybody sees it.
//! Not here: deadlines of jobs, retries, budgets, results (jobs); configuration files and secrets (daemon).
//! Kept by: `tests/it/abuse.rs` (a hundred abusive plugins, each beside two healthy ones), `orphans.rs`, `phoenix_evals.rs` and `examples.rs` there.
//!
//! - [`Hosts`]: all plugins of a configuration; [`Metric`]: one of their evaluators, as the kit's `Evaluator`.
//! - `catalog`, `request`, `ledger`: what a plugin describes, is asked, answers; each with its bounds.
//! - `plugin`: one plugin's state, breaker and places; `child`, `remote`, `wasm`: the three ways to reach one.

mod catalog;
mod child;
mod config;
mod hosts;
#[doc(hidden)]
pub mod inside;
mod ledger;
mod metric;
mod names;
mod plugin;
mod remote;
mod request;
mod wasm;

pub use child::limits::ProcessLimits;
pub use config::{Bounds, Command, Config, ConfigError, Source, WasmLimits};
pub use hosts::{BuildError, Hosts, Standing, Status};
pub use metric::Metric;
pub use names::is_name;
