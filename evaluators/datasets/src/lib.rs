//! Datasets of evaluation: what an example is, and how examples come in and go out.
//!
//! - [`example`]: the four types, and the one form in which evaluators see them all. [`fault`]: what is wrong, by row and field.
//! - [`import`]: JSON, JSONL, CSV or Parquet to examples. [`columns`]: which column is which field. [`export`]: the way back.
//! - [`apart`]: Parquet that others wrote, read in a process of its own.
//! - [`phoenix`]: the shape that Phoenix keeps them in, both ways. [`traces`]: an example out of what was recorded.
//! - `json`, `csv`, `parquet_in`, `parquet_out`, `cell`: the formats.
//!
//! Promise: what [`export::export`] writes, [`import::import`] reads back equal, in each format and for each type. No bytes make a
//! reader panic; see [`apart`] for what that rests on there. What is wrong is said with its row, line and field, as much of it
//! as the limits allow, and then nothing is imported.
//! Not here: SQL, HTTP, Phoenix's REST, evaluators.
//! Kept by: `tests/round_trip.rs`, `tests/hostile.rs`, `tests/apart.rs`, `tests/python.rs`.

pub mod apart;
mod cell;
pub mod columns;
mod csv;
pub mod example;
pub mod export;
pub mod fault;
pub mod import;
mod json;
mod parquet_in;
mod parquet_out;
pub mod phoenix;
pub mod traces;

pub use apart::Reader;
pub use columns::{Columns, Extra};
pub use example::{Example, Row, Type, validate};
pub use export::export;
pub use fault::{Fault, Faults};
pub use import::{Error, Format, Import, Limits, Source, import};
