//! The walk over an encoded `ExportTraceServiceRequest`, without building a message tree.
//!
//! Promise: [`check`] reads each byte of a request about once, never panics, never recurses further than its limit and
//! allocates nothing for spans that are in order. What it lets pass, prost decodes, Phoenix's decoder takes, and the
//! views ([`spans`]) read with the meaning that protobuf gives it: the last of a repeated scalar, the merge of a
//! repeated message.
//!
//! - `read`: varints, keys, lengths; skipping what is not known. `keys`: the fields that OTLP has.
//! - `text`: is it UTF-8, does it hold a NUL; the hot loop.
//! - `walk`: the messages, one function each. `plain`: the fast way for most attributes.
//! - `mend`: which attributes Phoenix stumbles over.
//! - `view`, `value`, over `pieces`: reading a checked request in place.
//! - `edit`, over `write`: copies of a request with spans changed or left out. `reword`: one with texts changed.
//!
//! Not here: what an attribute means (`facts`), how a span is mended (`emberd-consumers`), JSON (`json`).
//! Kept by: `tests/otlp/wire_differential.rs` (the same verdict, ids and values as prost), `tests/otlp/wire_table.rs`
//! (bad input).

mod edit;
mod keys;
mod mend;
mod message;
mod pieces;
mod plain;
mod read;
mod reword;
mod text;
mod value;
mod view;
mod walk;
pub(crate) mod write;

pub use edit::{Change, edited, only};
pub use reword::{Reword, Word, reworded};
pub(crate) use value::RawAttribute;
pub use value::{ArrayView, AttributeView, Attributes, KvListView, Pair, PlainValue, ValueView, Values};
pub use view::{
    EventView, Events, Found, LinkView, Links, ResourceView, ScopeView, SpanView, Spans, Under, alone, fetch,
    resources, spans,
};

/// What a request may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `AnyValue`s inside each other.
    pub depth_max: u32,
    /// Spans in one request; what is beyond is rejected.
    pub spans_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth_max: 32, spans_max: 100_000 }
    }
}

/// The request can never be taken: it is not an encoded `ExportTraceServiceRequest`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Malformed {
    /// What is wrong.
    pub what: &'static str,
    /// Where, counted from the start of the request.
    pub at: usize,
}

/// What the walk found.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Checked {
    /// Spans that can be kept.
    pub spans: u32,
    /// Spans that cannot.
    pub rejected: u32,
    /// Why, for the first few: "span 3: trace id is 15 bytes long".
    pub reasons: Vec<String>,
    /// For the consumers.
    pub flags: crate::Flags,
}

/// Walks a request: is it well-formed, is its text UTF-8, are its ids whole, is it too deep?
///
/// Spans are rejected, and the others kept, for: a trace or span id of the wrong length or all zero, a parent id of the
/// wrong length, text that is not UTF-8, a value nested too deep, more spans than [`Limits::spans_max`]. What is wrong
/// with a resource or scope rejects all spans under it; under one that has none it is malformed, since nothing else
/// would keep it out of the log.
pub fn check(request: &[u8], limits: &Limits) -> Result<Checked, Malformed> {
    walk::Walk::over(request, limits).map(|(checked, _)| checked)
}

/// A copy of `request` without the spans that [`check`] rejects; fields it does not know are kept.
///
/// A resource or scope that has no span left goes with its last one. Of a malformed request nothing is left.
pub fn without_rejected(request: &[u8], limits: &Limits) -> Vec<u8> {
    match walk::Walk::over(request, limits) {
        Ok((_, cuts)) => edit::copied(request, 0, cuts.iter().map(|cut| (&cut.place, None))),
        Err(Malformed { .. }) => Vec::new(),
    }
}
