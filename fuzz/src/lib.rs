//! Fuzz targets: every parser of emberd, given bytes that nobody meant, and what must hold of it whatever they are.
//!
//! Promise: a target is a plain function that panics if, and only if, a law is broken; the same bytes give the same outcome in
//! every process. `make test` runs each over its corpus and over seeded mutations of it (`tests/short.rs`), `make fuzz` runs
//! each under libFuzzer, guided by coverage (`run`).
//! On disk: `corpus/TARGET/`: inputs that reached something new, made small by the engine. `RUNS.md`: what was run for long.
//! Not here: what the parsers are for. The generators of requests are those of `emberd-model`'s own tests.
//!
//! - [`targets`]: the targets, by the room whose parser they try. [`mutate`]: inputs out of others, without an engine.
//! - `seeds`: what a corpus begins with. `memory`: bounds on memory as laws.

mod memory;
pub mod mutate;
mod seeds;
pub mod targets;

pub use targets::TARGETS;

// What generates requests, writes them as OTLP/JSON, and shows prost's reading and the views' in one form.
#[path = "../../collector/model/tests/otlp/choices.rs"]
mod choices;
#[path = "../../collector/model/tests/otlp/json_writer.rs"]
mod json_writer;
#[path = "../../collector/model/tests/otlp/message.rs"]
mod message;
#[path = "../../collector/model/tests/otlp/views.rs"]
mod views;
#[path = "../../collector/model/tests/otlp/wild.rs"]
mod wild;

// The binary's own room: it is no library that could be asked.
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    reason = "of a whole room, the targets want one function"
)]
#[path = "../../collector/daemon/src/config/mod.rs"]
mod config;

/// A parser and its laws.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called, here and in `corpus/`.
    pub name: &'static str,
    /// Panics if a law is broken for these bytes.
    pub run: fn(&[u8]),
    /// Inputs to begin with: real exports, and what the parser's own writer writes.
    pub seeds: fn() -> Vec<Vec<u8>>,
}
