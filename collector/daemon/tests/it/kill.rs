//! kill -9 under load: what was acknowledged is in the log and counted once, whatever the moment.
//!
//! The ledger is this test's: it lives outside the process that gets killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use emberd_log::{DiskLog, Log};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::client::Client;
use super::library::{Kind, Library};
use super::process::Emberd;

/// How many kills; `make kill CYCLES=200` asks for more.
fn cycles() -> u64 {
    std::env::var("EMBERD_KILL_CYCLES").map_or(20, |text| text.parse().unwrap())
}

/// What became of a request, as its sender knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Acked,
    /// The connection broke before an answer came: it may or may not have been kept.
    Unknown,
}

/// A trace made from its number alone, so that the ledger needs only numbers: a root that names a prompt and an LLM call.
pub struct Made {
    pub trace: [u8; 16],
    pub millis: u64,
    pub tokens: i64,
    /// Root and call in one request, or each in its own.
    pub requests: Vec<Bytes>,
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Any::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

fn int(key: &str, value: i64) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Any::IntValue(value)) }), ..Default::default() }
}

fn request(spans: Vec<Span>) -> Bytes {
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// Start of every made trace, so that all of them fall into one hour.
const START: u64 = 1_795_219_200_000_000_000;

impl Made {
    pub fn new(number: u64) -> Self {
        let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut trace = [7; 16];
        trace[..8].copy_from_slice(&mixed.to_be_bytes());
        let ids = [mixed.rotate_left(17) | 1, mixed.rotate_left(40) | 2].map(u64::to_be_bytes);
        let (millis, tokens) = (1 + mixed % 5_000, (mixed % 900) as i64);
        let span = |n: usize| Span {
            trace_id: trace.to_vec(),
            span_id: ids[n].to_vec(),
            parent_span_id: if n == 0 { Vec::new() } else { ids[0].to_vec() },
            name: ["run", "ChatCompletion"][n].into(),
            start_time_unix_nano: START + number % 1_000 * 1_000_000,
            end_time_unix_nano: START + number % 1_000 * 1_000_000 + millis * 1_000_000,
            attributes: if n == 0 {
                vec![text("openinference.span.kind", "CHAIN")]
            } else {
                vec![
                    text("openinference.span.kind", "LLM"),
                    text("llm.model_name", "gpt-4o"),
                    int("llm.token_count.prompt", tokens),
                    int("llm.token_count.completion", 1),
                ]
            },
            ..Default::default()
        };
        let requests = match number % 3 {
            0 => vec![request(vec![span(0), span(1)])],
            1 => vec![request(vec![span(1)]), request(vec![span(0)])],
            _ => vec![request(vec![span(1), span(0)]), request(vec![span(0)])],
        };
        Self { trace, millis, tokens, requests }
    }

    pub fn trace_hex(&self) -> String {
        emberd_model::TraceId(self.trace).to_string()
    }
}

/// Sends traces `from, from + step, ...` until the connection breaks; returns the fate of each request.
async fn load(mut client: Client, from: u64, step: u64) -> BTreeMap<(u64, usize), Fate> {
    let mut ledger = BTreeMap::new();
    for number in (from..).step_by(step as usize) {
        for (n, body) in Made::new(number).requests.into_iter().enumerate() {
            let answer = client.send_grpc(body).await;
            ledger.insert((number, n), if answer.is_ok() { Fate::Acked } else { Fate::Unknown });
            if answer.is_err() {
                return ledger;
            }
        }
    }
    ledger
}

/// Loads an emberd from several connections and kills it at a moment that depends on the cycle.
async fn cycle(emberd: Emberd, n: u64, ledger: &mut BTreeMap<(u64, usize), Fate>) {
    // What the last kill left in doubt is sent again, as an SDK's retry does: half of it, so that both ways are tried.
    let mut client = Client::connect(&emberd).await;
    let doubtful: Vec<_> = ledger.iter().filter(|(_, fate)| **fate == Fate::Unknown).map(|(key, _)| *key).collect();
    for (number, request) in doubtful.into_iter().step_by(2) {
        client.send_grpc(Made::new(number).requests[request].clone()).await.unwrap();
        ledger.insert((number, request), Fate::Acked);
    }
    const CONNECTIONS: u64 = 4;
    let mut loads = tokio::task::JoinSet::new();
    for connection in 0..CONNECTIONS {
        let client = Client::connect(&emberd).await;
        loads.spawn(load(client, n * 1_000_000 + connection, CONNECTIONS));
    }
    tokio::time::sleep(Duration::from_millis(5 + n * 7919 % 700)).await;
    emberd.kill();
    while let Some(fates) = loads.join_next().await {
        ledger.extend(fates.unwrap());
    }
}

/// Every span id in the log, read by the log's own reader.
async fn span_ids_in_log(dir: &std::path::Path) -> BTreeSet<Vec<u8>> {
    let disk = Arc::new(emberd_log::disk::RealDisk);
    let clock = Arc::new(emberd_model::clock::Still::default());
    let config = emberd_log::Config::in_dir(dir.join("log"));
    let (log, recovery) = DiskLog::open(config, disk, clock).unwrap();
    assert!(recovery.damaged.is_empty(), "kill -9 damages nothing: {recovery:?}");
    let mut reader = log.reader(log.tail());
    let mut ids = BTreeSet::new();
    while reader.position() < log.head() {
        for batch in reader.next(8 << 20).await.unwrap() {
            let request = ExportTraceServiceRequest::decode(batch.body).unwrap();
            let spans = request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
            ids.extend(spans.map(|span| span.span_id));
        }
    }
    ids
}

async fn story(kind: Kind) {
    let library = Library::new(kind).await;
    let mut ledger = BTreeMap::new();
    for n in 0..cycles() {
        cycle(library.home.start(), n, &mut ledger).await;
    }

    let last = library.home.start();
    last.recorded().await;
    let rows = library.traces().await;
    let metrics = library.metrics().await;
    assert!(last.terminate().success());

    let kept = span_ids_in_log(library.home.path()).await;
    let by_trace: BTreeMap<&str, &serde_json::Value> =
        rows.iter().map(|row| (row["phoenix_trace_id"].as_str().unwrap(), row)).collect();
    assert_eq!(by_trace.len(), rows.len(), "a trace has two rows");
    let (mut acked_requests, mut whole, mut latencies) = (0, 0, Vec::new());
    let numbers: BTreeSet<u64> = ledger.keys().map(|(number, _)| *number).collect();
    for number in numbers {
        let made = Made::new(number);
        let row = by_trace.get(made.trace_hex().as_str());
        for n in 0..made.requests.len() {
            if ledger.get(&(number, n)) != Some(&Fate::Acked) {
                continue;
            }
            acked_requests += 1;
            let request = ExportTraceServiceRequest::decode(made.requests[n].clone()).unwrap();
            for span in &request.resource_spans[0].scope_spans[0].spans {
                assert!(kept.contains(&span.span_id), "an acknowledged span of trace {number} is not in the log");
            }
        }
        if (0..made.requests.len()).all(|n| ledger.get(&(number, n)) == Some(&Fate::Acked)) {
            let row = row.unwrap_or_else(|| panic!("no row for trace {number}"));
            assert_eq!(row["execution_time_ms"], made.millis, "trace {number}");
            assert_eq!(row["tokens_used"]["prompt"], made.tokens, "trace {number}");
            assert_eq!(row["metadata"]["spans"], 2, "trace {number}");
            whole += 1;
        }
        // A request in doubt may have been kept: the row then says so, and the rollup must agree with the row.
        if let Some(row) = row {
            latencies.push(row["execution_time_ms"].as_u64().unwrap());
        }
    }
    assert_eq!(latencies.len(), rows.len(), "rows of traces that nobody sent");
    latencies.sort_unstable();
    let hour = |kind: &str| {
        let found = metrics.iter().find(|m| m["metric_type"] == kind && m["aggregation_window"] == "1h");
        found.unwrap_or_else(|| panic!("no {kind}"))["value"].as_f64().unwrap()
    };
    for (kind, quantile) in [("latency_p50", 0.5), ("latency_p90", 0.9), ("latency_p99", 0.99)] {
        let rank = ((quantile * latencies.len() as f64).ceil() as usize).clamp(1, latencies.len());
        let exact = latencies[rank - 1] as f64;
        assert!((hour(kind) - exact).abs() <= exact * 0.001 + 0.5, "{kind}: {} but exactly {exact}", hour(kind));
    }
    println!(
        "{kind:?}: {} kills, {acked_requests} requests acknowledged, {whole} whole traces, 0 lost, 0 doubled",
        cycles()
    );
}

/// After twenty kills under load every acknowledged span is in the log, each trace has one row with all of it, and the rollup
/// is that of the rows.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_and_doubles_nothing() {
    for kind in Kind::ALL {
        story(kind).await;
    }
}
