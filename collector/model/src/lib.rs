//! The words of emberd: ids, batches, spans, and what they mean for a trace, a row and a rollup.
//!
//! Pure: nothing here does I/O, reads a clock or keeps a global. Everything is a function of bytes.
//!
//! - [`ids`], [`batch`], [`clock`], [`breaker`]: the nouns that every room shares.
//! - [`wire`]: the walk over an encoded export request, without building a message tree.
//! - [`json`]: OTLP/JSON to OTLP/protobuf.
//! - [`facts`], [`trace`], [`row`]: spans to the state of a trace to a row of `prompt_traces`.
//! - [`ledger`]: what became of spans, by hour and project. [`cost`]: the price table. [`sketch`], [`rollup`]: percentiles and windows.
//!
//! Not here: where bytes are kept (`emberd-log`), SQL (`emberd-store`), Phoenix's quirks (`emberd-phoenix`).

pub mod batch;
pub mod breaker;
pub mod clock;
pub mod cost;
pub mod facts;
pub mod ids;
pub mod json;
pub mod ledger;
pub mod rollup;
pub mod row;
pub mod sketch;
pub mod trace;
mod varint;
pub mod wire;

pub use batch::{Batch, Flags};
pub use clock::Clock;
pub use ids::{Offset, SpanId, TraceId, UnixNanos};
