//! The rows that exports of real SDKs must give, in whatever order, pieces and repetition they come.
//!
//! Guarantees: the fold of a fixture's requests gives the rows of its `expect.json`, field by field; any permutation of its
//! spans, cut into any requests and sent any number of times, gives the same states and rows; known models cost what Phoenix
//! shows for the same bytes.
//!
//! How an expectation is compared: token counts that were not reported (null) are 0 in a row; `is_streaming` false may be
//! absent in a row, as the conventions have no word for "did not stream"; `accept` lists values that a fair reading also allows.

#![allow(clippy::unwrap_used, reason = "a fixture that cannot be read fails its test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_model::row::{Row, row};
use emberd_model::trace::{TraceState, fold};
use emberd_model::{Batch, Flags, Offset, TraceId, UnixNanos};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;
use serde_json::Value;

fn fixtures() -> PathBuf {
    let repo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("EMBERD_FIXTURES").map_or(repo.join("../shared/fixtures/dev"), PathBuf::from)
}

fn prices() -> Prices {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/prices.toml");
    let table: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    Prices::from_json(&serde_json::to_value(table).unwrap()).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

/// Names of all fixtures in the folder.
fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(fixtures())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".expect.json").map(str::to_owned))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no fixtures in {}", fixtures().display());
    names
}

struct Fixture {
    expect: Value,
    bodies: Vec<Vec<u8>>,
}

impl Fixture {
    fn read(name: &str) -> Self {
        let expect = json(&fixtures().join(format!("{name}.expect.json")));
        let files = expect["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap());
        let bodies = files.map(|file| std::fs::read(fixtures().join(file)).unwrap()).collect();
        Self { expect, bodies }
    }

    /// Each span in a request of its own.
    fn spans(&self) -> Vec<Vec<u8>> {
        let mut requests = Vec::new();
        for body in &self.bodies {
            let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
            for resource in request.resource_spans {
                for scope in resource.scope_spans {
                    for span in scope.spans {
                        let scope =
                            ScopeSpans { scope: scope.scope.clone(), spans: vec![span], ..ScopeSpans::default() };
                        let resource = ResourceSpans {
                            resource: resource.resource.clone(),
                            scope_spans: vec![scope],
                            ..ResourceSpans::default()
                        };
                        requests.push(ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec());
                    }
                }
            }
        }
        requests
    }
}

fn states(bodies: &[Vec<u8>]) -> BTreeMap<TraceId, TraceState> {
    let batches: Vec<Batch> = bodies
        .iter()
        .map(|body| Batch {
            offset: Offset(0),
            spans: 1,
            received_at: UnixNanos(0),
            key: 0,
            flags: Flags::default(),
            body: Bytes::copy_from_slice(body),
        })
        .collect();
    fold(&batches, &Reading::default())
}

fn rows(states: &BTreeMap<TraceId, TraceState>) -> Vec<Row> {
    let prices = prices();
    states.iter().filter_map(|(&trace, state)| row(trace, state, &prices, false)).collect()
}

fn metadata(row: &Row) -> Value {
    serde_json::from_str(&row.metadata).unwrap()
}

/// A row in the words of `expect.json`.
fn told(row: &Row) -> BTreeMap<&'static str, Value> {
    let read = metadata(row);
    let metadata = |key: &str| read.get(key).cloned().unwrap_or(Value::Null);
    BTreeMap::from([
        ("trace_id", row.trace_id.to_string().into()),
        ("span_count", metadata("spans")),
        ("llm_calls", metadata("llm_calls")),
        ("failed_llm_calls", metadata("failed_llm_calls")),
        ("model", row.model.clone().into()),
        ("request_model", metadata("request_model")),
        ("provider", metadata("provider")),
        ("prompt_tokens", row.tokens.prompt.into()),
        ("completion_tokens", row.tokens.completion.into()),
        ("total_tokens", row.tokens.total.into()),
        ("status", row.status.as_str().into()),
        ("error", row.error.clone().into()),
        ("started_at_unix_nano", row.created_at.0.to_string().into()),
        ("latency_ms", row.execution_time_ms.into()),
        ("llm_latency_ms", row.llm_time_ms.into()),
        ("ttft_ms", metadata("ttft_ms")),
        ("is_streaming", metadata("streaming")),
        ("session_id", metadata("session_id")),
        ("user_id", metadata("user_id")),
        ("prompt_id", row.prompt_ref.clone().into()),
        ("prompt_version", metadata("prompt_version")),
        ("metadata", metadata("user")),
        ("tags", metadata("tags")),
        ("input_text", metadata("input")),
        ("output_text", metadata("output")),
        ("finish_reason", metadata("finish_reason")),
        ("tool_calls", metadata("tool_calls")),
    ])
}

/// Whether a row's value is the one expected.
fn agrees(field: &str, told: &Value, expected: &Value) -> bool {
    match field {
        "prompt_tokens" | "completion_tokens" | "total_tokens" => *told == expected.as_i64().unwrap_or(0),
        "is_streaming" => told == expected || (*expected == false && told.is_null()),
        // The expectation has microseconds; half a millisecond up is one more.
        "latency_ms" => told.as_f64() == expected.as_f64().map(|ms| (ms + 0.5).floor()),
        "llm_latency_ms" => {
            let sum: f64 = expected.as_array().unwrap().iter().map(|ms| ms.as_f64().unwrap()).sum();
            told.as_f64() == Some((sum + 0.5).floor())
        }
        "ttft_ms" => match (told.as_f64(), expected.as_f64()) {
            (Some(told), Some(expected)) => (told - expected).abs() < 0.0011,
            (told, expected) => told == expected,
        },
        _ => told == expected,
    }
}

fn check(name: &str) {
    let fixture = Fixture::read(name);
    let expected = fixture.expect["rows"].as_array().unwrap();
    let found = rows(&states(&fixture.bodies));
    let mut faults = Vec::new();
    for row in &found {
        let told = told(row);
        let Some(expected) = expected.iter().find(|expected| expected["trace_id"] == told["trace_id"]) else {
            faults.push(format!("{}: a row too many", row.trace_id));
            continue;
        };
        for (field, told) in told {
            let allowed = expected["accept"].get(field).and_then(Value::as_array);
            // A prompt may also be named in `metadata`, which the expectation shows there.
            let wanted = match (field, &expected[field]) {
                ("prompt_id", Value::Null) => expected["metadata"].get("prompt_id").unwrap_or(&Value::Null),
                (_, wanted) => wanted,
            };
            let is_allowed = allowed.is_some_and(|allowed| allowed.iter().any(|other| agrees(field, &told, other)));
            if !agrees(field, &told, wanted) && !is_allowed {
                faults.push(format!("{}: {field} is {told}, expected {wanted}", row.trace_id));
            }
        }
        let marks = metadata(row).get("marks").cloned();
        assert_eq!(marks.is_some(), is_marked(expected), "{name}: {marks:?}");
    }
    assert_eq!(found.len(), expected.len(), "{name}: rows");
    assert!(faults.is_empty(), "{name}:\n{}", faults.join("\n"));
}

/// Of the fixtures, only calls that succeeded without reporting tokens leave a mark.
fn is_marked(expected: &Value) -> bool {
    expected["total_tokens"].is_null() && expected["status"] == "success"
}

#[test]
fn fixtures_give_their_rows() {
    names().iter().for_each(|name| check(name));
}

/// Permuted, cut into single spans, sent three times, merged in halves: always the state of the plain fold.
#[test]
fn order_pieces_and_repetition_do_not_matter() {
    for name in names() {
        let fixture = Fixture::read(&name);
        let whole = states(&fixture.bodies);
        let mut spans = fixture.spans();
        assert_eq!(spans.len() as u64, fixture.expect["span_count"].as_u64().unwrap(), "{name}");
        for turn in 0..7 {
            // Seven different orders of at most a few spans each, the first two being forward and backward.
            if turn == 1 {
                spans.reverse();
            } else if turn > 1 {
                let len = spans.len();
                spans.rotate_left(turn % len);
                spans.swap(0, len / 2);
            }
            let mut merged: BTreeMap<TraceId, TraceState> = BTreeMap::new();
            for span in spans.iter().chain(&spans).chain(spans.iter().rev()) {
                for (trace, state) in states(std::slice::from_ref(span)) {
                    merged.entry(trace).or_default().merge(&state);
                }
            }
            assert_eq!(merged, whole, "{name}, turn {turn}");
            assert_eq!(rows(&merged), rows(&whole), "{name}, turn {turn}");
            let stored: BTreeMap<_, _> =
                merged.iter().map(|(&trace, state)| (trace, TraceState::decode(&state.encode()).unwrap())).collect();
            assert_eq!(stored, whole, "{name}, turn {turn}");
        }
    }
}

/// Phoenix shows a cost for what it could price: there the rows' costs sum up to the same.
#[test]
fn costs_are_those_that_phoenix_shows() {
    let dev = fixtures();
    let set = dev.file_name().unwrap().to_str().unwrap();
    let view = json(&dev.parent().unwrap().join(format!("phoenix-view-{set}.json")));
    let mut compared = 0;
    for name in names() {
        let fixture = Fixture::read(&name);
        let found = rows(&states(&fixture.bodies));
        let costs = found.iter().filter_map(|row| metadata(row).get("cost").cloned());
        let sum: f64 = costs.clone().map(|cost| cost["total"].as_f64().unwrap()).sum();
        for cost in costs {
            let parts = cost["input"].as_f64().unwrap() + cost["output"].as_f64().unwrap();
            assert!((parts - cost["total"].as_f64().unwrap()).abs() < 1e-12, "{name}: {cost}");
        }
        let doubled = fixture.expect["rows"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["duplicate_llm_span_ids"] != serde_json::json!([]));
        if let (Some(shown), false) = (view[&name]["cost_usd"].as_f64(), doubled) {
            compared += 1;
            assert!((sum - shown).abs() < 1e-12, "{name}: {sum}, Phoenix shows {shown}");
        }
    }
    assert!(compared > 10, "only {compared} fixtures have a cost in Phoenix's view");
}
