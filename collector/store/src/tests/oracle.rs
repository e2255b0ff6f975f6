//! What must hold, worked out from the rows of prompt_traces as a reader sees them: rollups, metrics and summaries are functions of
//! the rows, so each is computed here once more, the slow and obvious way.

use std::collections::{BTreeMap, BTreeSet};

use emberd_model::UnixNanos;
use emberd_model::rollup::{Contribution, Rollup, windows_over};
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{Db, NOW};
use crate::fault::Fault;
use crate::library::{MetricFilter, Trace, TraceFilter, UNASSIGNED};
use crate::tx::{Buckets, Key, Orphan, Resolution, Tx, Work};

/// All that readers can see, in a form that two databases can be compared by.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) traces: Vec<Value>,
    pub(crate) rollups: BTreeMap<Key, Rollup>,
    pub(crate) metrics: BTreeMap<(Uuid, String, i64, String), f64>,
    pub(crate) summaries: Vec<Value>,
}

/// Looks at everything, and checks that it agrees with the rows.
pub(crate) async fn check(db: &Db) -> Seen {
    check_at(db, NOW).await
}

pub(crate) async fn check_at(db: &Db, now: UnixNanos) -> Seen {
    let traces = all_traces(db).await;
    let prompts = all_prompts(db).await;
    let contributions: Vec<(Uuid, Contribution)> =
        traces.iter().map(|trace| (trace.prompt_id, contribution(trace))).collect();

    let rollups = all_rollups(db, &prompts).await;
    assert_eq!(rollups, rollups_of(&contributions), "the rollups are not the fold over the rows");

    let metrics = all_metrics(db, &prompts).await;
    assert_eq!(metrics, metrics_of(&contributions, now), "the metrics are not those of the rows");

    let summaries = summaries(db, &traces, &rollups).await;
    let traces =
        traces.iter().map(|trace| serde_json::from_str(&serde_json::to_string(trace).unwrap()).unwrap()).collect();
    Seen { traces, rollups, metrics, summaries }
}

pub(crate) async fn all_traces(db: &Db) -> Vec<Trace> {
    let mut traces = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = db.store.traces(&TraceFilter::default(), cursor.as_deref(), 7).await.unwrap();
        traces.extend(page.data);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return traces;
        }
    }
}

async fn all_prompts(db: &Db) -> Vec<Uuid> {
    let page = db.store.prompts(None, 500).await.unwrap();
    assert_eq!(page.next_cursor, None);
    page.data.into_iter().map(|prompt| prompt.id).collect()
}

fn contribution(trace: &Trace) -> Contribution {
    let metadata: Value = serde_json::from_str(trace.metadata.get()).unwrap();
    let llm_time_ms = metadata["llm_time_ms"].to_string();
    let orphan = Orphan::read(
        &trace.phoenix_trace_id,
        String::new(),
        trace.created_at,
        trace.execution_time_ms,
        &trace.status,
        trace.tokens_used.get(),
        Some(&llm_time_ms),
    );
    orphan.unwrap().contribution
}

fn rollups_of(contributions: &[(Uuid, Contribution)]) -> BTreeMap<Key, Rollup> {
    let mut rollups: BTreeMap<Key, Rollup> = BTreeMap::new();
    for (prompt, adds) in contributions {
        for resolution in [Resolution::Hour, Resolution::Day, Resolution::All] {
            let key = Key { prompt: *prompt, resolution, bucket: resolution.bucket(adds.hour) };
            rollups.entry(key).or_default().add(adds, 1);
        }
    }
    rollups
}

/// The stored rollups of all writers together, without those that hold nothing.
async fn all_rollups(db: &Db, prompts: &[Uuid]) -> BTreeMap<Key, Rollup> {
    let resolutions = [Resolution::Hour, Resolution::Day, Resolution::All];
    let buckets = prompts
        .iter()
        .flat_map(|&prompt| resolutions.map(|resolution| Buckets { prompt, resolution, from: i64::MIN, to: i64::MAX }));
    let mut sums: BTreeMap<Key, Rollup> = BTreeMap::new();
    for (key, part) in db.store.run(AllRollups(buckets.collect())).await.unwrap() {
        sums.entry(key).or_default().merge(&part);
    }
    sums.retain(|_, rollup| !rollup.is_empty());
    sums
}

struct AllRollups(Vec<Buckets>);

impl Work for AllRollups {
    type Done = Vec<(Key, Rollup)>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Self::Done, Fault> {
        tx.rollups_in(&self.0).await
    }
}

/// Every window over every trace, straight from the traces that lie in it.
fn metrics_of(contributions: &[(Uuid, Contribution)], now: UnixNanos) -> BTreeMap<(Uuid, String, i64, String), f64> {
    let prompts: BTreeSet<Uuid> = contributions.iter().map(|(prompt, _)| *prompt).collect();
    let mut metrics = BTreeMap::new();
    for prompt in prompts {
        let own: Vec<&Contribution> =
            contributions.iter().filter(|(of, _)| *of == prompt).map(|(_, adds)| adds).collect();
        let windows: BTreeSet<_> = own.iter().flat_map(|adds| windows_over(adds.hour, now)).collect();
        for (window, start, end) in windows {
            let mut rollup = Rollup::default();
            own.iter().filter(|adds| (start..end).contains(&adds.hour)).for_each(|adds| rollup.add(adds, 1));
            for (name, value) in rollup.metrics() {
                metrics.insert(
                    (prompt, window.as_str().to_owned(), start * 3_600_000_000, name.to_owned()),
                    rounded(value),
                );
            }
        }
    }
    metrics
}

async fn all_metrics(db: &Db, prompts: &[Uuid]) -> BTreeMap<(Uuid, String, i64, String), f64> {
    let mut metrics = BTreeMap::new();
    for prompt in prompts {
        for metric in db.store.performance(*prompt, &MetricFilter::default()).await.unwrap() {
            let key = (metric.prompt_id, metric.aggregation_window, metric.timestamp.micros(), metric.metric_type);
            assert_eq!(metrics.insert(key, rounded(metric.value)), None, "a metric stands twice");
        }
    }
    metrics
}

/// To the twelve digits that numeric and float agree on.
fn rounded(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap()
}

/// The summary of each prompt, checked against the rows.
async fn summaries(db: &Db, traces: &[Trace], rollups: &BTreeMap<Key, Rollup>) -> Vec<Value> {
    let summaries = db.store.summaries(500).await.unwrap();
    for summary in &summaries {
        let own: Vec<&Trace> = traces.iter().filter(|trace| trace.prompt_id == summary.prompt_id).collect();
        let key = Key { prompt: summary.prompt_id, resolution: Resolution::All, bucket: 0 };
        let rollup = rollups.get(&key).cloned().unwrap_or_default();
        let part = |sum: i64| (!own.is_empty()).then(|| sum as f64 / own.len() as f64);
        assert_eq!(summary.total_traces, own.len() as i64);
        assert_eq!(summary.avg_latency, part(own.iter().map(|trace| i64::from(trace.execution_time_ms)).sum()));
        assert_eq!(summary.success_rate, part(own.iter().filter(|trace| trace.status == "success").count() as i64));
        assert_eq!(summary.avg_tokens, part(rollup.total_tokens));
        assert_eq!(summary.median_latency, rollup.latency.quantile(0.5).map(|ms| ms as f64));
        assert_eq!(summary.p95_latency, rollup.latency.quantile(0.95).map(|ms| ms as f64));
        assert_eq!(summary.last_used_at, own.iter().map(|trace| trace.created_at).max());
        assert_eq!(&db.store.summary(summary.prompt_id).await.unwrap().unwrap(), summary);
    }
    summaries.iter().map(|summary| json!(summary)).filter(|summary| summary["prompt_id"] != json!(UNASSIGNED)).collect()
}
