//! How many requests there are, how long they took and which failed, in Prometheus' text format.
//!
//! Promise: one operation costs one lock and no allocation once it is known; labels are the routes' own names, never what a caller
//! sent.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;

/// What a request that reached no route is counted under.
pub(crate) const NO_ROUTE: &str = "none";

/// Upper bounds of the latency histogram, in milliseconds, as the app's own monitor measures; 100 ms is where its alert stands.
pub(crate) const BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000];

/// Counts the API's own requests.
#[derive(Default)]
pub(crate) struct Meter {
    operations: Mutex<BTreeMap<&'static str, Counts>>,
}

#[derive(Default)]
struct Counts {
    active: u64,
    success: Latency,
    error: Latency,
    errors: BTreeMap<&'static str, u64>,
    refusals: BTreeMap<u16, u64>,
}

#[derive(Default)]
struct Latency {
    buckets: [u64; BOUNDS_MS.len()],
    sum_ms: f64,
    count: u64,
}

impl Latency {
    fn record(&mut self, took: Duration) {
        let ms = took.as_secs_f64() * 1_000.0;
        if let Some(at) = BOUNDS_MS.iter().position(|bound| ms <= *bound as f64) {
            self.buckets[at] += 1;
        }
        self.sum_ms += ms;
        self.count += 1;
    }

    fn write(&self, out: &mut String, operation: &str, status: &str) -> std::fmt::Result {
        const NAME: &str = "phoenix_request_latency";
        let labels = format!("operation=\"{operation}\",status=\"{status}\"");
        let mut below = 0;
        for (bound, count) in BOUNDS_MS.iter().zip(self.buckets) {
            below += count;
            writeln!(out, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {below}")?;
        }
        writeln!(out, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {}", self.count)?;
        writeln!(out, "{NAME}_sum{{{labels}}} {}", self.sum_ms)?;
        writeln!(out, "{NAME}_count{{{labels}}} {}", self.count)
    }
}

/// Answers of all operations together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// By the bounds of [`BOUNDS_MS`].
    pub(crate) buckets: [u64; BOUNDS_MS.len()],
    pub(crate) count: u64,
    /// By emberd's own fault.
    pub(crate) errors: u64,
}

impl Times {
    /// What came since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let buckets = std::array::from_fn(|at| self.buckets[at].saturating_sub(before.buckets[at]));
        let (count, errors) = (self.count.saturating_sub(before.count), self.errors.saturating_sub(before.errors));
        Self { buckets, count, errors }
    }

    /// The bound below which 95 of a hundred answers were; none: they took longer than the longest.
    pub(crate) fn p95(&self) -> Option<u64> {
        let mut below = 0;
        BOUNDS_MS.into_iter().zip(self.buckets).find_map(|(bound, count)| {
            below += count;
            (below * 100 >= self.count * 95).then_some(bound)
        })
    }
}

/// A request under way; it counts as active until this is dropped, however the request ends.
pub(crate) struct Active<'m> {
    meter: &'m Meter,
    operation: &'static str,
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        let mut operations = self.meter.operations();
        let counts = operations.entry(self.operation).or_default();
        counts.active = counts.active.saturating_sub(1);
    }
}

impl Meter {
    fn operations(&self) -> MutexGuard<'_, BTreeMap<&'static str, Counts>> {
        // Counts stay counts, even if a thread died over them.
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an operation known, so that it is shown before it is first asked for.
    pub(crate) fn know(&self, operation: &'static str) {
        self.operations().entry(operation).or_default();
    }

    /// A request begins.
    pub(crate) fn begin(&self, operation: &'static str) -> Active<'_> {
        self.operations().entry(operation).or_default().active += 1;
        Active { meter: self, operation }
    }

    /// A request was answered. Only what is emberd's own fault is an error: an alert hangs on it.
    pub(crate) fn answered(&self, operation: &'static str, status: StatusCode, took: Duration) {
        let mut operations = self.operations();
        let counts = operations.entry(operation).or_default();
        if status.is_server_error() {
            counts.error.record(took);
            *counts.errors.entry(error_type(status)).or_default() += 1;
        } else {
            counts.success.record(took);
        }
        if status.is_client_error() {
            *counts.refusals.entry(status.as_u16()).or_default() += 1;
        }
    }

    /// All operations together but one.
    pub(crate) fn times(&self, without: &str) -> Times {
        let mut times = Times::default();
        for (_, counts) in self.operations().iter().filter(|(operation, _)| **operation != without) {
            for latency in [&counts.success, &counts.error] {
                for (sum, count) in times.buckets.iter_mut().zip(latency.buckets) {
                    *sum += count;
                }
                times.count += latency.count;
            }
            times.errors += counts.error.count;
        }
        times
    }

    /// Appends all of it.
    pub(crate) fn write(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = self.try_write(out);
    }

    fn try_write(&self, out: &mut String) -> std::fmt::Result {
        let operations = self.operations();
        head(out, "phoenix_request_latency", "histogram", "How long requests of the API took, in milliseconds.")?;
        for (operation, counts) in operations.iter() {
            counts.success.write(out, operation, "success")?;
            counts.error.write(out, operation, "error")?;
        }
        head(out, "phoenix_errors_total", "counter", "Requests of the API that failed by emberd's own fault.")?;
        for (operation, counts) in operations.iter() {
            for (kind, count) in &counts.errors {
                writeln!(out, "phoenix_errors_total{{operation=\"{operation}\",error_type=\"{kind}\"}} {count}")?;
            }
        }
        head(out, "phoenix_active_requests", "gauge", "Requests of the API under way.")?;
        for (operation, counts) in operations.iter() {
            writeln!(out, "phoenix_active_requests{{operation=\"{operation}\"}} {}", counts.active)?;
        }
        head(
            out,
            "emberd_api_refusals_total",
            "counter",
            "Requests of the API that were refused by the caller's fault.",
        )?;
        for (operation, counts) in operations.iter() {
            for (status, count) in &counts.refusals {
                writeln!(out, "emberd_api_refusals_total{{operation=\"{operation}\",status=\"{status}\"}} {count}")?;
            }
        }
        Ok(())
    }
}

/// Appends a metric of one value, in Prometheus' text format.
pub(crate) fn metric(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    // Writing to a String cannot fail.
    let _ = head(out, name, kind, help).and_then(|()| writeln!(out, "{name} {value}"));
}

/// The two lines before a metric.
fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn error_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::GATEWAY_TIMEOUT => "timeout",
        _ => "internal",
    }
}
