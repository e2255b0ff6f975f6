//! The ledger outside: what was sent, what was acknowledged, and what emberd's log, rows and rollups must therefore say.
//!
//! It lives in the test's process, which nobody kills, and works everything out from the numbers of traces (`made.rs`), with none
//! of emberd's own arithmetic. Of a request in doubt (the connection broke before its answer) the log says whether it was kept; rows
//! and rollups must then agree with the log.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use emberd_log::{DiskLog, Log};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::client::Client;
use super::library::Library;
use super::made::{Expected, Made, PROMPTS};
use super::process::{Emberd, PATIENCE};

/// The prompt of traces that name none that exists.
const UNASSIGNED: &str = "00000000-0000-0000-0000-000000000000";

/// What became of a request, as its sender knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Acked,
    /// The connection broke before an answer came, or the answer was no: it may or may not have been kept.
    Unknown,
}

/// What became of every request, by the trace's number and the request's place in it.
#[derive(Default)]
pub struct Books {
    pub fates: BTreeMap<(u64, usize), Fate>,
    /// The prompts that were made: title and id.
    prompts: BTreeMap<&'static str, String>,
    /// How often an answer did not come; most of these requests are sent again later.
    pub in_doubt: u64,
    /// The longest that a sender waited for a yes.
    pub slowest: Duration,
}

/// What a story came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub acked_requests: u64,
    pub acked_spans: u64,
    /// Requests whose answer did not come, at first; half of them were sent again.
    pub in_doubt: u64,
    /// Those of which it is not known to the end.
    pub unknown_requests: u64,
    pub traces: u64,
    /// Acknowledged spans that are not in the log, and traces without their row.
    pub lost: u64,
    /// Rows that say more than was sent, or of which nothing was sent.
    pub doubled: u64,
}

/// Sends traces `from, from + step, ...` until an answer is not yes or `stop` says so.
pub async fn load(
    mut client: Client,
    numbers: impl Iterator<Item = u64> + Send,
    pace: Duration,
    stop: tokio::sync::watch::Receiver<bool>,
) -> Books {
    let mut books = Books::default();
    for number in numbers {
        for (n, body) in Made::new(number).requests.into_iter().enumerate() {
            let sent = Instant::now();
            if client.send_grpc(body).await.is_err() {
                books.fates.insert((number, n), Fate::Unknown);
                books.in_doubt += 1;
                return books;
            }
            books.fates.insert((number, n), Fate::Acked);
            books.slowest = books.slowest.max(sent.elapsed());
            if !pace.is_zero() {
                tokio::time::sleep(pace).await;
            }
        }
        if *stop.borrow() {
            break;
        }
    }
    books
}

impl Books {
    /// Adds what another sender knows.
    pub fn take(&mut self, other: Books) {
        self.fates.extend(other.fates);
        self.in_doubt += other.in_doubt;
        self.slowest = self.slowest.max(other.slowest);
    }

    /// Makes one of the prompts that traces name.
    pub async fn make_prompt(&mut self, emberd: &Emberd, title: &'static str) {
        assert!(PROMPTS.contains(&title));
        let body = serde_json::json!({"title": title, "content": "say {what}"});
        let url = format!("{}/api/prompts", emberd.api());
        let since = Instant::now();
        let answer = loop {
            let answer = reqwest::Client::new().post(&url).json(&body).send().await.unwrap();
            if answer.status() == 201 {
                break answer.json::<Value>().await.unwrap();
            }
            assert!(since.elapsed() < PATIENCE, "the prompt {title} cannot be made: {:?}", answer.text().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        self.prompts.insert(title, answer["id"].as_str().unwrap().to_owned());
    }

    /// What a kill left in doubt is sent again, as an SDK's retry does: half of it, so that both ways are tried.
    pub async fn send_doubtful(&mut self, emberd: &Emberd) {
        let mut client = Client::connect(emberd).await;
        let doubtful = self.fates.iter().filter(|(_, fate)| **fate == Fate::Unknown).map(|(key, _)| *key);
        for (number, n) in doubtful.step_by(2).collect::<Vec<_>>() {
            client.send_grpc(Made::new(number).requests[n].clone()).await.unwrap();
            self.fates.insert((number, n), Fate::Acked);
        }
    }

    /// Compares log, rows, metrics and summaries with what was sent; `emberd` has recorded everything and is stopped here.
    pub async fn check(&self, library: &Library, emberd: Emberd) -> Tally {
        emberd.recorded().await;
        let expected_rows = |kept: &HashSet<[u8; 8]>| self.rows(kept);
        self.joined(library).await;
        emberd.recorded().await;
        emberd.sums_are_right(&library.home).await;
        let (rows, metrics, summaries) = (library.rows().await, library.metrics().await, library.summaries().await);
        let ended = tokio::task::spawn_blocking(|| emberd.terminate()).await.unwrap();
        assert!(ended.success(), "{ended}");

        let kept = span_ids_in_log(library.home.path()).await;
        let mut tally = self.in_log(&kept);
        let expected = expected_rows(&kept);
        compare_rows(&expected, &rows, &self.prompts, &mut tally);
        tally.traces = expected.len() as u64;
        let hours = self.hours(&expected);
        compare_metrics(&hours, &metrics);
        compare_summaries(&hours, &summaries);
        tally
    }

    /// Waits until traces that named a prompt before it was made have moved there.
    async fn joined(&self, library: &Library) {
        let since = Instant::now();
        while library.waiting_for(self.prompts.keys().copied()).await > 0 {
            assert!(since.elapsed() < PATIENCE, "traces do not move to the prompt that they name");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Every span that was acknowledged is in the log, and nothing is there that nobody sent.
    fn in_log(&self, kept: &HashSet<[u8; 8]>) -> Tally {
        let mut tally = Tally { in_doubt: self.in_doubt, ..Tally::default() };
        let mut sent = HashSet::new();
        for (&(number, n), &fate) in &self.fates {
            let made = Made::new(number);
            let ids = || made.carried[n].iter().map(|&span| made.spans[span].id);
            sent.extend(ids());
            match fate {
                Fate::Unknown => tally.unknown_requests += 1,
                Fate::Acked => {
                    tally.acked_requests += 1;
                    tally.acked_spans += ids().count() as u64;
                    tally.lost += ids().filter(|id| !kept.contains(id)).count() as u64;
                }
            }
        }
        let invented = kept.iter().filter(|id| !sent.contains(*id)).count();
        assert_eq!(invented, 0, "the log holds spans that nobody sent");
        tally
    }

    /// The rows that the spans in the log must give, by trace.
    fn rows(&self, kept: &HashSet<[u8; 8]>) -> BTreeMap<String, Expected> {
        let numbers: BTreeSet<u64> = self.fates.keys().map(|(number, _)| *number).collect();
        let rows = numbers.into_iter().filter_map(|number| {
            let made = Made::new(number);
            let spans: Vec<_> = (0..made.spans.len()).filter(|&span| kept.contains(&made.spans[span].id)).collect();
            Some((made.trace_hex(), made.expected(&spans)?))
        });
        rows.collect()
    }

    /// The rows' prompts and hours since 1970.
    fn hours<'a>(&self, rows: &'a BTreeMap<String, Expected>) -> Hours<'a> {
        let mut hours = Hours::new();
        for row in rows.values() {
            let prompt = prompt_id(row, &self.prompts).to_owned();
            let hour = (row.created_at / 3_600_000_000_000) as i64;
            hours.entry((prompt, hour)).or_default().push(row);
        }
        hours
    }
}

/// Rows by prompt and hour.
type Hours<'a> = BTreeMap<(String, i64), Vec<&'a Expected>>;

fn prompt_id<'a>(row: &Expected, prompts: &'a BTreeMap<&'static str, String>) -> &'a str {
    row.prompt.and_then(|title| prompts.get(title)).map_or(UNASSIGNED, String::as_str)
}

/// Every span id in the log, read by the log's own reader.
pub async fn span_ids_in_log(dir: &std::path::Path) -> HashSet<[u8; 8]> {
    let disk = Arc::new(emberd_log::disk::RealDisk);
    let clock = Arc::new(emberd_model::clock::Still::default());
    let config = emberd_log::Config::in_dir(dir.join("log"));
    let (log, recovery) = DiskLog::open(config, disk, clock).unwrap();
    assert!(recovery.damaged.is_empty(), "kill -9 damages nothing: {recovery:?}");
    let mut reader = log.reader(log.tail());
    let mut ids = HashSet::new();
    while reader.position() < log.head() {
        for batch in reader.next(8 << 20).await.unwrap() {
            let request = ExportTraceServiceRequest::decode(batch.body).unwrap();
            let spans = request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
            ids.extend(spans.map(|span| <[u8; 8]>::try_from(span.span_id).unwrap()));
        }
    }
    ids
}

fn compare_rows(
    expected: &BTreeMap<String, Expected>,
    rows: &[Value],
    prompts: &BTreeMap<&'static str, String>,
    tally: &mut Tally,
) {
    let mut seen = BTreeSet::new();
    for row in rows {
        let trace = row["trace"].as_str().unwrap();
        let number = |column: &str| number(&row[column]) as i64;
        let Some(expected) = expected.get(trace).filter(|_| seen.insert(trace)) else {
            tally.doubled += 1;
            continue;
        };
        if number("spans") > expected.spans as i64 || number("llm_calls") > expected.llm_calls as i64 {
            tally.doubled += 1;
            continue;
        }
        let is = |what: &str, got: &dyn Debug, want: &dyn Debug| {
            assert_eq!(format!("{got:?}"), format!("{want:?}"), "{what} of trace {trace}, {row}");
        };
        is("execution_time_ms", &number("ms"), &expected.millis);
        is("prompt tokens", &number("prompt_tokens"), &expected.prompt_tokens);
        is("completion tokens", &number("completion_tokens"), &expected.completion_tokens);
        is("total tokens", &number("total_tokens"), &(expected.prompt_tokens + expected.completion_tokens));
        is("status", &row["status"].as_str().unwrap(), &expected.status);
        is("prompt", &row["prompt_id"].as_str().unwrap(), &prompt_id(expected, prompts));
        is("spans", &number("spans"), &expected.spans);
        is("llm_calls", &number("llm_calls"), &expected.llm_calls);
        is("llm_time_ms", &number("llm_time_ms"), &expected.llm_millis);
        is("created_at", &(moment(&row["created_at"]).unix_timestamp_nanos()), &expected.created_at);
    }
    let missing: Vec<_> = expected.keys().filter(|trace| !seen.contains(trace.as_str())).take(3).collect();
    if !missing.is_empty() {
        println!("no rows for {missing:?} and {} others", expected.len() - seen.len() - missing.len());
    }
    tally.lost += (expected.len() - seen.len()) as u64;
}

/// Numbers come as numbers or as their text, as the database likes.
fn number(value: &Value) -> f64 {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{value} is no number"))
}

fn moment(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap_or_else(|e| panic!("{value}: {e}"))
}

/// What traces of a prompt add up to.
#[derive(Default)]
struct Sum {
    latencies: Vec<u64>,
    success: u64,
    failed: u64,
    completion_tokens: i64,
    total_tokens: i64,
    llm_millis: u64,
    last: u64,
}

impl Sum {
    fn of<'a>(rows: impl Iterator<Item = &'a &'a Expected>) -> Self {
        let mut sum = Self::default();
        for row in rows {
            sum.latencies.push(row.millis);
            *if row.status == "success" { &mut sum.success } else { &mut sum.failed } += 1;
            sum.completion_tokens += row.completion_tokens;
            sum.total_tokens += row.prompt_tokens + row.completion_tokens;
            sum.llm_millis += row.llm_millis;
            sum.last = sum.last.max(row.created_at);
        }
        sum.latencies.sort_unstable();
        sum
    }

    fn traces(&self) -> f64 {
        self.latencies.len() as f64
    }

    fn quantile(&self, quantile: f64) -> f64 {
        let rank = ((quantile * self.traces()).ceil() as usize).clamp(1, self.latencies.len());
        self.latencies[rank - 1] as f64
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        let mut metrics = vec![
            ("latency_p50", self.quantile(0.5)),
            ("latency_p90", self.quantile(0.9)),
            ("latency_p99", self.quantile(0.99)),
            ("success_rate", self.success as f64 / self.traces()),
            ("error_rate", self.failed as f64 / self.traces()),
        ];
        if self.llm_millis > 0 {
            metrics.push(("tokens_per_second", self.completion_tokens as f64 * 1_000.0 / self.llm_millis as f64));
        }
        metrics
    }
}

/// Percentiles are within a thousandth, as the sketch promises; everything else is exact.
fn agrees(name: &str, got: f64, want: f64) -> bool {
    let tolerance = if name.contains("latency_p") || name == "median_latency" || name == "p95_latency" {
        want * 0.001 + 0.5
    } else {
        want.abs() * 1e-9
    };
    (got - want).abs() <= tolerance
}

/// Each window over the traces has its metrics, and no other window has any.
fn compare_metrics(hours: &Hours<'_>, metrics: &[Value]) {
    let mut expected = BTreeMap::new();
    for (prompt, hour) in hours.keys() {
        let day = hour.div_euclid(24);
        let mut windows = vec![("1h", *hour, hour + 1), ("1d", day * 24, (day + 1) * 24)];
        for (name, days) in [("7d", 7), ("30d", 30)] {
            windows.extend((day..day + days).map(|last| (name, (last + 1 - days) * 24, (last + 1) * 24)));
        }
        for (window, from, to) in windows {
            expected.entry((prompt.clone(), window, from)).or_insert_with(|| {
                let within = hours.range((prompt.clone(), from)..(prompt.clone(), to));
                Sum::of(within.flat_map(|(_, rows)| rows)).metrics()
            });
        }
    }
    let mut seen = 0;
    for metric in metrics {
        let (prompt, name) = (metric["prompt_id"].as_str().unwrap(), metric["metric_type"].as_str().unwrap());
        let hour = moment(&metric["timestamp"]).unix_timestamp() / 3_600;
        let window = metric["aggregation_window"].as_str().unwrap();
        let known = expected.get(&(prompt.to_owned(), window, hour));
        let want = known.and_then(|metrics| metrics.iter().find(|(known, _)| *known == name));
        let (_, want) = want.unwrap_or_else(|| panic!("nobody ran what {metric} tells of"));
        let got = number(&metric["value"]);
        assert!(agrees(name, got, *want), "{metric}, but it is {want}");
        seen += 1;
    }
    assert_eq!(seen, expected.values().map(Vec::len).sum::<usize>(), "metrics are missing");
}

/// The summary of each prompt is that of all its traces.
fn compare_summaries(hours: &Hours<'_>, summaries: &[Value]) {
    let prompts: BTreeSet<&String> = hours.keys().map(|(prompt, _)| prompt).collect();
    let mut seen = 0;
    for summary in summaries {
        let prompt = summary["prompt_id"].as_str().unwrap().to_owned();
        let sum =
            Sum::of(hours.range((prompt.clone(), i64::MIN)..=(prompt.clone(), i64::MAX)).flat_map(|(_, rows)| rows));
        assert_eq!(number(&summary["total_traces"]), sum.traces(), "{summary}");
        if sum.latencies.is_empty() {
            continue;
        }
        for (name, want) in [
            ("avg_latency", sum.latencies.iter().sum::<u64>() as f64 / sum.traces()),
            ("success_rate", sum.success as f64 / sum.traces()),
            ("avg_tokens", sum.total_tokens as f64 / sum.traces()),
            ("median_latency", sum.quantile(0.5)),
            ("p95_latency", sum.quantile(0.95)),
        ] {
            assert!(agrees(name, number(&summary[name]), want), "{name} is {want}: {summary}");
        }
        assert_eq!(moment(&summary["last_used_at"]).unix_timestamp_nanos(), i128::from(sum.last), "{summary}");
        seen += 1;
    }
    assert_eq!(seen, prompts.len(), "prompts have no summary");
}
