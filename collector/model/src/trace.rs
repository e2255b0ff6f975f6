//! STUB of the border; its owner fills it in.
use std::collections::BTreeMap;

use crate::facts::Reading;
use crate::{Batch, TraceId};

/// What is known of a trace: a set of span facts, merged by union.
///
/// A join-semilattice: `merge` is commutative, associative and idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TraceState {}

impl TraceState {
    /// Takes in all that `other` knows; says whether that changed anything.
    pub fn merge(&mut self, _other: &TraceState) -> bool {
        unimplemented!()
    }
    /// Compact binary form, first byte a version.
    pub fn encode(&self) -> Vec<u8> {
        unimplemented!()
    }
    /// Reads [`TraceState::encode`]'s form.
    pub fn decode(_bytes: &[u8]) -> Result<Self, Undecodable> {
        unimplemented!()
    }
    /// Whether a root span has come.
    pub fn has_root(&self) -> bool {
        unimplemented!()
    }
    /// Whether the trace deserves a row: it has an LLM call or names a prompt.
    pub fn deserves_row(&self) -> bool {
        unimplemented!()
    }
}

/// The stored state cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trace state: {0}")]
pub struct Undecodable(pub &'static str);

/// Folds batches into one partial state per trace, sorted by trace id.
pub fn fold<'a>(_batches: impl IntoIterator<Item = &'a Batch>, _reading: &Reading) -> BTreeMap<TraceId, TraceState> {
    unimplemented!()
}
