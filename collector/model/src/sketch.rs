//! STUB of the border; its owner fills it in.

/// Counts of latencies in the buckets of an HdrHistogram (1 ms to 1 h, 3 significant digits), as signed numbers,
/// so that adding and taking away commute and several writers' sketches add up.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Sketch {}

impl Sketch {
    /// Adds `count` (negative: takes away) latencies of `ms` milliseconds, clamped to 1 h.
    pub fn add(&mut self, _ms: u64, _count: i64) {
        unimplemented!()
    }
    /// Adds another sketch.
    pub fn merge(&mut self, _other: &Sketch) {
        unimplemented!()
    }
    /// How many latencies it holds.
    pub fn count(&self) -> i64 {
        unimplemented!()
    }
    /// The latency below which `quantile` (0 to 1) of the values lie, as HdrHistogram's value_at_quantile says; None when empty.
    pub fn quantile(&self, _quantile: f64) -> Option<u64> {
        unimplemented!()
    }
    /// Sparse binary form, first byte a version. Equal sketches have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        unimplemented!()
    }
    /// Reads [`Sketch::encode`]'s form, with bounds on what it allocates.
    pub fn decode(_bytes: &[u8]) -> Result<Self, Undecodable> {
        unimplemented!()
    }
}

/// The stored sketch cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sketch: {0}")]
pub struct Undecodable(pub &'static str);
