//! The walk over an encoded `ExportTraceServiceRequest`, without building a message tree.
//!
//! Promise: [`check`] reads each byte of a request about once, never panics, never recurses further than its limit and
//! allocates nothing for spans that are in order. What it lets pass, prost decodes, Phoenix's decoder takes, and the views
//! ([`spans`]) read with the meaning that protobuf gives it: the last of a repeated scalar, the merge of a repeated message.
//!
//! - `read`: varints, keys, lengths; skipping what is not known.
//! - `text`: is it UTF-8, does it hold a NUL; the hot loop.
//! - `walk`: the messages, one function each. `mend`: which attributes Phoenix stumbles over.
//! - `view`: reading a checked request in place. `edit`: copies of a request with spans changed or left out.
//!
//! Not here: what an attribute means (`facts`), how a span is mended (`emberd-consumers`), JSON (`json`).
//! Kept by: `tests/wire_differential.rs` (the same verdict, ids and values as prost) and `tests/wire_table.rs` (bad input).

mod read;
mod view;

pub use view::{
    ArrayView, AttributeView, Attributes, EventView, Events, Found, KvListView, LinkView, Links, ResourceView, ScopeView,
    SpanView, Spans, ValueView, Values, spans,
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
pub fn check(_request: &[u8], _limits: &Limits) -> Result<Checked, Malformed> {
    unimplemented!()
}

/// A copy of `request` without the spans that [`check`] rejects; fields it does not know are kept.
pub fn without_rejected(_request: &[u8], _limits: &Limits) -> Vec<u8> {
    unimplemented!()
}
