//! The evaluators' kit: what an evaluator is, those that are built in, the template part of judging models, and the statistics of results.
//!
//! Pure: nothing here does I/O, reads a clock, or keeps a global that changes.
//!
//! ```
//! use emberd_evaluators_kit::{Example, Spec, build};
//!
//! let spec: Spec = serde_json::from_str(r#"{"name": "regex", "config": {"pattern": "[0-9]+"}}"#)?;
//! let evaluator = build(&spec)?;
//! let example: Example = serde_json::from_str(r#"{"input": "how many?", "output": "42 of them"}"#)?;
//! let scores = evaluator.run(&example).result?;
//! assert_eq!(scores[0].value, Some(1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`contract`]: scores, failures by class, descriptions. An error is an error, never a score. [`wire`]: the same as the plugins' protobuf.
//! - [`example`], [`path`], [`fields`]: what is judged, and where an evaluator finds its fields in it.
//! - [`evaluator`]: the one interface; [`identity`]: name, version and configuration; [`spec`]: how a job names one.
//! - `builtin`: functions. [`judge`]: prompts out of templates, verdicts out of answers; whoever asks the model is handed in.
//! - [`stats`]: what the results of many examples say.
//!
//! Kept by: `tests/it`; for users: `docs/evaluators.md`.
//!
//! To add a built-in: a module in `builtin` with its `ENTRY`, a line in `ENTRIES`, a section in `docs/evaluators.md`, and its rows in
//! `tests/`: the suite there runs over all entries by itself. To add a template: a file in `templates/` and a line in `judge::shipped`.
//!
//! Not here: HTTP, retries, rates and budgets (jobs), plugin processes and WASM (hosts), SQL.

mod builtin;
pub mod contract;
pub mod evaluator;
pub mod example;
pub mod fields;
pub mod identity;
pub mod judge;
pub mod path;
pub mod spec;
pub mod stats;
pub mod wire;

pub use contract::{Class, Cost, Description, Direction, Failure, Kind, Outcome, Score};
pub use evaluator::{Code, Coded, Evaluator, collect};
pub use example::{Example, Span, Trace};
pub use fields::{Mapping, Place};
pub use identity::Identity;
pub use spec::{BuildError, ConfigError, Spec, build, descriptions};
