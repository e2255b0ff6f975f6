//! What the results of many examples say: summaries of a job, and comparisons between two.
//!
//! Promise: a failure is never a score; it is counted by class and stays in the denominator of what passed. Pure functions of numbers.
//! Sources of the formulas stand at each function.
//! Kept by: `tests/it/references.rs` (scipy, statsmodels), `tests/it/stats.rs`.
//!
//! - [`summary`]: mean with its interval, pass rate, percentiles, errors by class. [`special`]: the distributions that they need.
//! - [`paired`]: two arms over the same examples: bootstrap, Wilcoxon, McNemar, Holm, power.

pub mod paired;
pub mod special;
pub mod summary;

pub use summary::{Interval, Percentiles, Summary, Tally};
