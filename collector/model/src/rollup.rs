//! STUB of the border; its owner fills it in.
use crate::row::{Row, Status};
use crate::sketch::Sketch;
use crate::UnixNanos;

/// What one trace adds to the rollups of its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contribution {
    /// Start of its hour: whole hours since 1970-01-01 UTC.
    pub hour: i64,
    /// Latency.
    pub latency_ms: u64,
    /// How it went.
    pub status: Status,
    /// Tokens in, out, in all.
    pub tokens: crate::row::Tokens,
    /// Time in LLM calls.
    pub llm_time_ms: u64,
}

impl Contribution {
    /// The row's.
    pub fn of(_row: &Row) -> Self {
        unimplemented!()
    }
}

/// An aggregate that adds up: of a prompt in an hour, a day, or for ever.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rollup {
    /// Latencies.
    pub latency: Sketch,
    /// Traces by status.
    pub success: i64,
    /// Failed.
    pub error: i64,
    /// Failed for want of time.
    pub timeout: i64,
    /// Sum of latencies.
    pub latency_sum_ms: i64,
    /// Sums of tokens.
    pub prompt_tokens: i64,
    /// Out.
    pub completion_tokens: i64,
    /// In all.
    pub total_tokens: i64,
    /// Sum of time in LLM calls.
    pub llm_time_ms: i64,
}

impl Rollup {
    /// Adds (`sign` = 1) or takes away (-1) a trace.
    pub fn add(&mut self, _contribution: &Contribution, _sign: i64) {
        unimplemented!()
    }
    /// Adds another rollup.
    pub fn merge(&mut self, _other: &Rollup) {
        unimplemented!()
    }
    /// Whether it holds nothing at all.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// (metric_type, value) for each metric of `prompt_performance_metrics` that has a value: latency_p50, latency_p90, latency_p99,
    /// tokens_per_second (completion tokens / LLM time; absent without LLM time), success_rate, error_rate (error + timeout).
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        unimplemented!()
    }
}

/// An aggregation window of `prompt_performance_metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Window {
    /// Aligned to the UTC hour.
    Hour,
    /// Aligned to the UTC day.
    Day,
    /// Seven days, ending at the close of a UTC day.
    Week,
    /// Thirty days, ending at the close of a UTC day.
    Month,
}

impl Window {
    /// All four.
    pub const ALL: [Window; 4] = [Window::Hour, Window::Day, Window::Week, Window::Month];
    /// The word in the table: 1h, 1d, 7d, 30d.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "1d",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }
}

/// The windows that a trace of this hour falls in, each as (window, start hour, end hour), those of 7 and 30 days only as far as
/// the one that ends with the UTC day of `now` (or of the trace itself, if that lies later).
pub fn windows_over(_hour: i64, _now: UnixNanos) -> Vec<(Window, i64, i64)> {
    unimplemented!()
}
