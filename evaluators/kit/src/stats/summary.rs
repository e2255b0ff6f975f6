//! The results of one evaluator over a job, summed up.
//!
//! | figure | formula |
//! |---|---|
//! | mean | over the examples that have a score |
//! | its interval | Wilson's when all scores are 0 or 1, else Student's t; cut to the declared range |
//! | pass rate | passed / all, failures among all: an example that could not be judged has not passed; Wilson's interval |
//! | percentiles | linear between order statistics (numpy's default) |
//!
//! Passed: the better half of the range is reached (0.5 of 0..1), in the score's direction; neutral scores pass nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use super::special::{normal_quantile, t_critical};
use crate::contract::{Class, Cost, Direction, Outcome, Range, Score};

/// Both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// What one score's name got over a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Mean of the scores; `None` without any.
    pub mean: Option<f64>,
    /// The lower end of the mean's interval; `None` with fewer than two scores.
    pub ci_low: Option<f64>,
    /// The upper end.
    pub ci_high: Option<f64>,
    /// Standard deviation, with n - 1.
    pub sd: Option<f64>,
    /// Examples with a number.
    pub scored: u64,
    /// Examples with a failure.
    pub errors: u64,
    /// All examples.
    pub of: u64,
    /// Passed / all; `None` for neutral scores and without examples.
    pub pass_rate: Option<f64>,
    /// Its interval.
    pub pass_interval: Option<Interval>,
    /// Of the scores.
    pub percentiles: Option<Percentiles>,
    /// How often each label.
    pub labels: BTreeMap<String, u64>,
    /// Failures by class.
    pub errors_by_class: BTreeMap<&'static str, u64>,
}

/// Order statistics.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// 90 of 100 are no greater.
    pub p90: f64,
    /// 99 of 100 are no greater.
    pub p99: f64,
}

/// Labels beyond so many different ones are counted together, under `(other)`.
const LABELS_MAX: usize = 100;

/// Collects the outcomes of one evaluator.
#[derive(Clone, Debug)]
pub struct Tally {
    range: Range,
    direction: Direction,
    values: Vec<f64>,
    passed: u64,
    of: u64,
    labels: BTreeMap<String, u64>,
    errors: BTreeMap<&'static str, u64>,
    cost: Cost,
}

impl Tally {
    /// For a score with this declaration.
    pub fn new(range: Range, direction: Direction) -> Self {
        let (values, labels, errors) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { range, direction, values, passed: 0, of: 0, labels, errors, cost: Cost::default() }
    }

    /// An example's outcome, of which the score of that name counts.
    pub fn outcome(&mut self, name: &str, outcome: &Outcome) {
        if let Some(cost) = &outcome.cost {
            self.cost.prompt_tokens = self.cost.prompt_tokens.saturating_add(cost.prompt_tokens);
            self.cost.completion_tokens = self.cost.completion_tokens.saturating_add(cost.completion_tokens);
            self.cost.usd = match (self.cost.usd, cost.usd) {
                (Some(sum), Some(more)) => Some(sum + more),
                (sum, more) => sum.or(more),
            };
        }
        match &outcome.result {
            Ok(scores) => match scores.iter().find(|score| score.name == name) {
                Some(score) => self.score(score),
                None => self.failure(Class::PluginFault),
            },
            Err(failure) => self.failure(failure.class),
        }
    }

    /// An example with this score.
    pub fn score(&mut self, score: &Score) {
        self.of += 1;
        if let Some(value) = score.value.filter(|value| value.is_finite()) {
            self.values.push(value);
            self.passed += u64::from(self.passes(value));
        }
        if let Some(label) = &score.label {
            let is_room = self.labels.len() < LABELS_MAX || self.labels.contains_key(&**label);
            let label = if is_room { &**label } else { "(other)" };
            *self.labels.entry(label.to_owned()).or_insert(0) += 1;
        }
    }

    /// An example that could not be judged.
    pub fn failure(&mut self, class: Class) {
        self.of += 1;
        *self.errors.entry(class.name()).or_insert(0) += 1;
    }

    /// What it has cost so far.
    pub fn cost(&self) -> &Cost {
        &self.cost
    }

    /// The summary at this level of confidence, such as 0.95; it is kept between 0.5 and 0.999.
    pub fn summary(&self, level: f64) -> Summary {
        let level = if level.is_finite() { level.clamp(0.5, 0.999) } else { 0.95 };
        let mean = mean(&self.values);
        let interval = self.mean_interval(level);
        let is_directed = self.direction != Direction::Neutral && self.of > 0;
        Summary {
            mean,
            ci_low: interval.map(|interval| interval.low),
            ci_high: interval.map(|interval| interval.high),
            sd: deviation(&self.values),
            scored: self.values.len() as u64,
            errors: self.errors.values().sum(),
            of: self.of,
            pass_rate: is_directed.then(|| self.passed as f64 / self.of as f64),
            pass_interval: is_directed.then(|| wilson(self.passed as f64, self.of as f64, level)),
            percentiles: percentiles(&mut self.values.clone()),
            labels: self.labels.clone(),
            errors_by_class: self.errors.clone(),
        }
    }

    fn passes(&self, value: f64) -> bool {
        let middle = match (self.range.min, self.range.max) {
            (Some(min), Some(max)) => 0.5 * min + 0.5 * max,
            // An open range has no middle: a count passes at its best end.
            (Some(min), None) => return self.direction == Direction::Minimize && value <= min,
            (None, Some(max)) => return self.direction == Direction::Maximize && value >= max,
            (None, None) => return false,
        };
        match self.direction {
            Direction::Maximize => value >= middle,
            Direction::Minimize => value < middle,
            Direction::Neutral => false,
        }
    }

    fn mean_interval(&self, level: f64) -> Option<Interval> {
        let n = self.values.len();
        if n < 2 {
            return None;
        }
        if self.values.iter().all(|value| *value == 0.0 || *value == 1.0) {
            return Some(wilson(self.values.iter().sum(), n as f64, level));
        }
        let interval = student(&self.values, level)?;
        let low = self.range.min.map_or(interval.low, |min| interval.low.max(min));
        let high = self.range.max.map_or(interval.high, |max| interval.high.min(max));
        Some(Interval { low, high })
    }
}

/// The mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation with n - 1; `None` of fewer than two.
pub fn deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Student's interval of the mean; `None` of fewer than two.
pub fn student(values: &[f64], level: f64) -> Option<Interval> {
    let (mean, deviation) = (mean(values)?, deviation(values)?);
    let n = values.len() as f64;
    let half = t_critical(level, n - 1.0) * deviation / n.sqrt();
    Some(Interval { low: mean - half, high: mean + half })
}

/// Wilson's interval of a share (1927): `passed` of `of`, which is over 0.
pub fn wilson(passed: f64, of: f64, level: f64) -> Interval {
    let z = normal_quantile(0.5 + level / 2.0);
    let (share, z2) = (passed / of, z * z);
    let middle = (share + z2 / (2.0 * of)) / (1.0 + z2 / of);
    let half = z / (1.0 + z2 / of) * (share * (1.0 - share) / of + z2 / (4.0 * of * of)).sqrt();
    Interval { low: (middle - half).max(0.0), high: (middle + half).min(1.0) }
}

/// Median, 90th and 99th; sorts. `None` of nothing.
pub fn percentiles(values: &mut [f64]) -> Option<Percentiles> {
    values.sort_unstable_by(f64::total_cmp);
    Some(Percentiles { p50: quantile(values, 0.5)?, p90: quantile(values, 0.9)?, p99: quantile(values, 0.99)? })
}

/// The q-quantile of sorted values, linear between neighbours.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let (low, high) = (*sorted.get(below)?, *sorted.get((below + 1).min(last))?);
    Some(low + (high - low) * (place - below as f64))
}
