//! From rollups to what readers see: `prompt_performance_metrics` and the totals behind the summary.
//!
//! Promise: a mark is taken away in the transaction that publishes all that follows from its hour, and only what was committed before
//! is read, so that nothing dirty stays unpublished; of several publishers one works at a time, so that none overwrites newer
//! numbers with older ones. At a new UTC day the windows that end at now are published for all prompts that lie in them.
//! Kept by:  `tests::metrics_agree_with_the_rows_in_every_window`, `tests::a_new_day_moves_the_windows_of_quiet_prompts`.

use std::collections::{BTreeMap, BTreeSet};

use emberd_model::UnixNanos;
use emberd_model::rollup::{Rollup, Window, windows_over};
use uuid::Uuid;

use crate::Moment;
use crate::fault::Fault;
use crate::record::Published;
use crate::tx::{Buckets, Key, Measured, Resolution, Totals, Tx, Work};

/// Marks taken in a transaction; each touches 39 windows at most, and usually 4.
const MARKS: u32 = 256;
/// Days that are caught up with after a standstill: any more, and no window of then reaches to now.
const DAYS_MISSED_MAX: i64 = 60;
const MICROS_PER_HOUR: i64 = 3_600_000_000;
const METRICS: [&str; 6] =
    ["latency_p50", "latency_p90", "latency_p99", "tokens_per_second", "success_rate", "error_rate"];

pub(crate) struct Publish {
    pub(crate) now: UnixNanos,
}

impl Work for Publish {
    type Done = Published;
    const TRUSTED: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Published, Fault> {
        if !tx.publisher().await? {
            return Ok(Published::default());
        }
        self.roll(tx).await?;
        let marks = tx.take_marks(MARKS).await?;
        let more = marks.len() >= MARKS as usize;
        let windows = self.windows(&marks);
        if windows.is_empty() {
            return Ok(Published { more, ..Published::default() });
        }
        let rollups = rollups(tx, &windows).await?;
        let mut metrics = Vec::new();
        let mut totals = Vec::with_capacity(windows.len());
        for (&prompt, windows) in &windows {
            for &(window, start, end) in windows {
                let rollup = rollups.over(prompt, window, start, end);
                measure(prompt, window, start, &rollup, &mut metrics);
            }
            totals.push(total(prompt, &rollups.over_all(prompt)));
        }
        tx.put_metrics(&metrics, self.now.into()).await?;
        tx.put_totals(&totals).await?;
        let windows = windows.values().map(|windows| windows.len() as u64).sum();
        Ok(Published { prompts: totals.len() as u64, windows, more })
    }
}

/// The windows to publish, by prompt: (window, first hour, hour after the last).
type Windows = BTreeMap<Uuid, BTreeSet<(Window, i64, i64)>>;

impl Publish {
    /// At a new UTC day, marks the prompts that lie in the windows which end with it; also for days missed while nothing ran.
    async fn roll<T: Tx>(&self, tx: &mut T) -> Result<(), Fault> {
        let today = Moment::from(self.now).micros().div_euclid(24 * MICROS_PER_HOUR);
        let published = tx.published_day().await?;
        if let Some(day) = published {
            for day in (day + 1).max(today - DAYS_MISSED_MAX)..=today {
                let end = (day + 1) * 24;
                tx.mark_active(end - Window::Month.hours(), day * 24, day * 24).await?;
            }
        }
        match published {
            Some(day) if day >= today => Ok(()),
            _ => tx.set_published_day(today).await,
        }
    }

    fn windows(&self, marks: &[(Uuid, i64)]) -> Windows {
        let mut windows = Windows::new();
        for &(prompt, hour) in marks.iter().collect::<BTreeSet<_>>() {
            windows.entry(prompt).or_default().extend(windows_over(hour, self.now));
        }
        windows
    }
}

/// Rollups by key, the writers' parts added up.
struct Rollups(BTreeMap<Key, Rollup>);

/// Loads all that the windows and the totals of their prompts are made of.
async fn rollups<T: Tx>(tx: &mut T, windows: &Windows) -> Result<Rollups, Fault> {
    let mut wanted = Vec::new();
    for (&prompt, windows) in windows {
        let hours = windows.iter().filter(|(window, ..)| *window == Window::Hour);
        wanted.extend(hours.map(|&(_, from, to)| Buckets { prompt, resolution: Resolution::Hour, from, to }));
        let days = windows.iter().filter(|(window, ..)| *window != Window::Hour);
        let span = days.fold(None, |span: Option<(i64, i64)>, &(_, from, to)| match span {
            Some((first, last)) => Some((first.min(from), last.max(to))),
            None => Some((from, to)),
        });
        wanted.extend(span.map(|(from, to)| Buckets { prompt, resolution: Resolution::Day, from, to }));
        wanted.push(Buckets { prompt, resolution: Resolution::All, from: 0, to: 1 });
    }
    let mut sums: BTreeMap<Key, Rollup> = BTreeMap::new();
    for (key, part) in tx.rollups_in(&wanted).await? {
        sums.entry(key).or_default().merge(&part);
    }
    Ok(Rollups(sums))
}

impl Rollups {
    fn over(&self, prompt: Uuid, window: Window, start: i64, end: i64) -> Rollup {
        let resolution = if window == Window::Hour { Resolution::Hour } else { Resolution::Day };
        let key = |bucket| Key { prompt, resolution, bucket };
        let mut sum = Rollup::default();
        self.0.range(key(start)..key(end)).for_each(|(_, part)| sum.merge(part));
        sum
    }

    fn over_all(&self, prompt: Uuid) -> Rollup {
        self.0.get(&Key { prompt, resolution: Resolution::All, bucket: 0 }).cloned().unwrap_or_default()
    }
}

/// All six metrics of a window, those without a value too: they may have had one before.
fn measure(prompt: Uuid, window: Window, start_hour: i64, rollup: &Rollup, into: &mut Vec<Measured>) {
    let start = Moment::from_micros(start_hour.saturating_mul(MICROS_PER_HOUR));
    let values = rollup.metrics();
    into.extend(METRICS.iter().map(|&metric| {
        let value = values.iter().find(|(name, _)| *name == metric).map(|(_, value)| *value);
        Measured { prompt, metric, window, start, value }
    }));
}

fn total(prompt: Uuid, rollup: &Rollup) -> Totals {
    let latency = |quantile| rollup.latency.quantile(quantile).map(|ms| ms as f64);
    Totals {
        prompt,
        traces: rollup.traces(),
        success: rollup.success,
        latency_sum_ms: rollup.latency_sum_ms,
        total_tokens: rollup.total_tokens,
        median_latency: latency(0.5),
        p95_latency: latency(0.95),
    }
}
