//! Rollups: what traces of one prompt add up to in an hour, a day, 7 and 30 days.
//!
//! Promise: a rollup is a sum, so it equals the fold over the rows whatever the order, and a corrected row is taken away
//! exactly ([`Rollup::add`] with -1) before the right one is added. Every sum wraps rather than panics, and a contribution
//! is bounded so that nine million of the largest fit a 64-bit column.
//! Not here: where rollups are kept (`emberd-store` keeps the sums as columns and the sketch as a blob).
//! Kept by:  `tests::any_order_of_adding_and_taking_away_is_one`, `tests::a_late_trace_touches_the_windows_over_it`.

use crate::UnixNanos;
use crate::row::{Row, Status, Tokens};
use crate::sketch::Sketch;

const NANOS_PER_HOUR: u64 = 3_600 * 1_000_000_000;

/// The most tokens, or milliseconds of LLM time, that one trace adds: no honest trace has a million million of them, and a
/// hostile one must not overflow the sums of its prompt.
pub const CONTRIBUTION_MAX: i64 = 1_000_000_000_000;

/// What one trace adds to the rollups of its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contribution {
    /// Start of its hour: whole hours since 1970-01-01 UTC.
    pub hour: i64,
    /// Latency.
    pub latency_ms: u64,
    /// How it went.
    pub status: Status,
    /// Tokens in, out, in all; each at most [`CONTRIBUTION_MAX`].
    pub tokens: Tokens,
    /// Time in LLM calls; at most [`CONTRIBUTION_MAX`].
    pub llm_time_ms: u64,
}

impl Contribution {
    /// The row's.
    #[must_use]
    pub fn of(row: &Row) -> Self {
        let bounded = |tokens: i64| tokens.clamp(0, CONTRIBUTION_MAX);
        Self {
            hour: (row.created_at.0 / NANOS_PER_HOUR) as i64,
            latency_ms: u64::try_from(row.execution_time_ms).unwrap_or(0),
            status: row.status,
            tokens: Tokens {
                prompt: bounded(row.tokens.prompt),
                completion: bounded(row.tokens.completion),
                total: bounded(row.tokens.total),
            },
            llm_time_ms: row.llm_time_ms.min(CONTRIBUTION_MAX as u64),
        }
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
    pub fn add(&mut self, contribution: &Contribution, sign: i64) {
        let Contribution { hour: _, latency_ms, status, tokens, llm_time_ms } = *contribution;
        self.latency.add(latency_ms, sign);
        let count = match status {
            Status::Success => &mut self.success,
            Status::Error => &mut self.error,
            Status::Timeout => &mut self.timeout,
        };
        *count = count.wrapping_add(sign);
        for (sum, value) in [
            (&mut self.latency_sum_ms, latency_ms as i64),
            (&mut self.prompt_tokens, tokens.prompt),
            (&mut self.completion_tokens, tokens.completion),
            (&mut self.total_tokens, tokens.total),
            (&mut self.llm_time_ms, llm_time_ms as i64),
        ] {
            *sum = sum.wrapping_add(value.wrapping_mul(sign));
        }
    }

    /// Adds another rollup.
    pub fn merge(&mut self, other: &Rollup) {
        self.latency.merge(&other.latency);
        let theirs = other.sums();
        for (sum, value) in self.sums_mut().into_iter().zip(theirs) {
            *sum = sum.wrapping_add(value);
        }
    }

    /// Takes another rollup away.
    pub fn take_away(&mut self, other: &Rollup) {
        self.latency.merge(&other.latency.negated());
        let theirs = other.sums();
        for (sum, value) in self.sums_mut().into_iter().zip(theirs) {
            *sum = sum.wrapping_sub(value);
        }
    }

    /// Whether it holds nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.latency.is_empty() && self.sums().iter().all(|&sum| sum == 0)
    }

    /// How many traces it holds.
    #[must_use]
    pub fn traces(&self) -> i64 {
        self.success.wrapping_add(self.error).wrapping_add(self.timeout)
    }

    /// (metric_type, value) for each metric of `prompt_performance_metrics` that has a value: latency_p50, latency_p90, latency_p99,
    /// tokens_per_second (completion tokens / LLM time; absent without LLM time), success_rate, error_rate (error + timeout).
    /// Latencies are in milliseconds, rates are parts of 1.
    #[must_use]
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let traces = self.traces();
        if traces <= 0 {
            return Vec::new();
        }
        let mut metrics = Vec::with_capacity(6);
        for (name, quantile) in [("latency_p50", 0.5), ("latency_p90", 0.9), ("latency_p99", 0.99)] {
            metrics.extend(self.latency.quantile(quantile).map(|ms| (name, ms as f64)));
        }
        if self.llm_time_ms > 0 {
            metrics.push(("tokens_per_second", self.completion_tokens as f64 * 1_000.0 / self.llm_time_ms as f64));
        }
        metrics.push(("success_rate", self.success as f64 / traces as f64));
        metrics.push(("error_rate", self.error.wrapping_add(self.timeout) as f64 / traces as f64));
        metrics
    }

    fn sums(&self) -> [i64; 8] {
        [
            self.success,
            self.error,
            self.timeout,
            self.latency_sum_ms,
            self.prompt_tokens,
            self.completion_tokens,
            self.total_tokens,
            self.llm_time_ms,
        ]
    }

    fn sums_mut(&mut self) -> [&mut i64; 8] {
        [
            &mut self.success,
            &mut self.error,
            &mut self.timeout,
            &mut self.latency_sum_ms,
            &mut self.prompt_tokens,
            &mut self.completion_tokens,
            &mut self.total_tokens,
            &mut self.llm_time_ms,
        ]
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
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "1d",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }

    /// How long it is.
    #[must_use]
    pub fn hours(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => 24,
            Self::Week => 7 * 24,
            Self::Month => 30 * 24,
        }
    }
}

/// The windows that a trace of this hour falls in, each as (window, start hour, end hour), those of 7 and 30 days only as far as
/// the one that ends with the UTC day of `now` (or of the trace itself, if that lies later). At most 39.
#[must_use]
pub fn windows_over(hour: i64, now: UnixNanos) -> Vec<(Window, i64, i64)> {
    let day = hour.div_euclid(24);
    let today = ((now.0 / NANOS_PER_HOUR) as i64).div_euclid(24).max(day);
    let mut windows = vec![(Window::Hour, hour, hour + 1), (Window::Day, day * 24, (day + 1) * 24)];
    for window in [Window::Week, Window::Month] {
        let last = (day + window.hours() / 24 - 1).min(today);
        windows.extend((day..=last).map(|close| {
            let end = (close + 1) * 24;
            (window, end - window.hours(), end)
        }));
    }
    windows
}

#[cfg(test)]
mod tests;
