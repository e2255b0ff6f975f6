//! Exports of real SDKs, sent over every transport, give the rows that their conventions say, on both databases, in any order,
//! cut and repeated.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::{Value, json};

use super::client::{Client, Export, Transport};
use super::library::{Kind, Library};

/// One captured client: its requests in order of arrival and what they mean.
pub struct Fixture {
    pub name: String,
    pub requests: Vec<Export>,
    pub expect: Value,
}

/// Where the fixtures are.
pub fn folder() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/dev");
    std::env::var_os("EMBERD_FIXTURES").map_or(beside, PathBuf::from)
}

/// All of them, by name.
pub fn all() -> Vec<Fixture> {
    let folder = folder();
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("no fixtures in {}: {e}", folder.display()));
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".expect.json")?.to_owned()))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no fixtures in {}", folder.display());
    names.into_iter().map(|name| read(&folder, name)).collect()
}

fn read(folder: &Path, name: String) -> Fixture {
    let expect: Value =
        serde_json::from_slice(&std::fs::read(folder.join(format!("{name}.expect.json"))).unwrap()).unwrap();
    let files = expect["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap());
    let requests = files.map(|file| {
        let json = file.replace(".otlp.pb", ".json");
        Export {
            protobuf: std::fs::read(folder.join(file)).unwrap().into(),
            json: std::fs::read(folder.join(json)).unwrap().into(),
        }
    });
    Fixture { requests: requests.collect(), name, expect }
}

/// Each request as two: its spans dealt out in turn. In JSON likewise.
fn cut(export: &Export) -> [Export; 2] {
    [0, 1].map(|side| {
        let mut request = ExportTraceServiceRequest::decode(export.protobuf.clone()).unwrap();
        let scopes = request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
        let mut n = 0;
        for scope in scopes {
            scope.spans.retain(|_| deal(&mut n, side));
        }
        let mut json: Value = serde_json::from_slice(&export.json).unwrap();
        let mut n = 0;
        for resource in json["resourceSpans"].as_array_mut().unwrap() {
            for scope in resource["scopeSpans"].as_array_mut().unwrap() {
                scope["spans"].as_array_mut().unwrap().retain(|_| deal(&mut n, side));
            }
        }
        Export { protobuf: request.encode_to_vec().into(), json: Bytes::from(json.to_string()) }
    })
}

fn deal(n: &mut usize, side: usize) -> bool {
    *n += 1;
    *n % 2 == side
}

/// All requests of all fixtures mixed, each cut in two and sent three times, in an order that only the seed knows.
fn shuffled(fixtures: &[Fixture], seed: u64) -> Vec<Export> {
    let mut sends: Vec<Export> = fixtures
        .iter()
        .flat_map(|f| &f.requests)
        .flat_map(cut)
        .flat_map(|half| [half.clone(), half.clone(), half])
        .collect();
    let mut state = seed;
    for last in (1..sends.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sends.swap(last, (state >> 33) as usize % (last + 1));
    }
    sends
}

/// The rows' `[..]` alternatives that a fair reading also allows, or the value itself.
fn allowed(row: &Value, field: &str) -> Vec<Value> {
    let mut values = vec![row[field].clone()];
    values.extend(row["accept"][field].as_array().cloned().unwrap_or_default());
    values
}

fn hold(at: &str, row: &Value, field: &str, got: &Value) {
    let allowed = allowed(row, field);
    assert!(allowed.contains(got), "{at}: {field} is {got}, expected {allowed:?}");
}

/// Compares a row of prompt_traces with what the fixture says of its trace.
fn check_row(fixture: &str, expect: &Value, got: &Value) {
    let at = format!("{fixture} {}", expect["trace_id"]);
    let metadata = &got["metadata"];
    let millis = expect["latency_ms"].as_f64().unwrap().round();
    assert_eq!(got["execution_time_ms"].as_f64(), Some(millis), "{at}: execution_time_ms");
    for (column, field) in [("prompt", "prompt_tokens"), ("completion", "completion_tokens"), ("total", "total_tokens")]
    {
        let expected = expect[field].as_i64().unwrap_or(0);
        assert_eq!(got["tokens_used"][column].as_i64(), Some(expected), "{at}: tokens_used.{column}");
    }
    for field in ["model", "status", "error"] {
        hold(&at, expect, field, &got[field]);
    }
    for (key, field) in [
        ("request_model", "request_model"),
        ("provider", "provider"),
        ("session_id", "session_id"),
        ("user_id", "user_id"),
        ("prompt_version", "prompt_version"),
        ("finish_reason", "finish_reason"),
        ("llm_calls", "llm_calls"),
        ("failed_llm_calls", "failed_llm_calls"),
        ("spans", "span_count"),
        ("tags", "tags"),
        ("user", "metadata"),
    ] {
        if field == "user_id" && expect[field].is_null() {
            continue; // found in the application's metadata too, which the expectation does not count
        }
        hold(&at, expect, field, metadata.get(key).unwrap_or(&Value::Null));
    }
    hold(&at, expect, "is_streaming", metadata.get("streaming").unwrap_or(&Value::Null));
    match (expect["ttft_ms"].as_f64(), metadata["ttft_ms"].as_f64()) {
        (Some(expected), Some(got)) => {
            assert!((expected - got).abs() < 1.0, "{at}: ttft_ms {got}, expected {expected}")
        }
        (expected, got) => assert_eq!(expected, got, "{at}: ttft_ms"),
    }
    for (key, field) in [("input", "input_text"), ("output", "output_text")] {
        hold(&at, expect, field, metadata.get(key).unwrap_or(&Value::Null));
    }
    assert_eq!(got["prompt_id"], json!("00000000-0000-0000-0000-000000000000"), "{at}: no such prompt in this library");
}

/// The library holds exactly the rows of the fixtures.
async fn check(library: &Library, fixtures: &[Fixture]) {
    let rows = library.traces().await;
    let mut by_trace: BTreeMap<&str, &Value> =
        rows.iter().map(|row| (row["phoenix_trace_id"].as_str().unwrap(), row)).collect();
    assert_eq!(by_trace.len(), rows.len(), "a trace has two rows");
    for fixture in fixtures {
        for expect in fixture.expect["rows"].as_array().unwrap() {
            let trace = expect["trace_id"].as_str().unwrap();
            let got = by_trace.remove(trace).unwrap_or_else(|| panic!("{}: no row for {trace}", fixture.name));
            check_row(&fixture.name, expect, got);
        }
    }
    assert!(by_trace.is_empty(), "rows that nobody expected: {by_trace:#?}");
}

async fn story(kind: Kind, transport: Transport) {
    let fixtures = all();

    let plain = Library::new(kind).await;
    let emberd = plain.home.start();
    let mut client = Client::connect(&emberd).await;
    for export in fixtures.iter().flat_map(|fixture| &fixture.requests) {
        client.send(transport, export).await.unwrap();
    }
    emberd.recorded().await;
    check(&plain, &fixtures).await;

    let mixed = Library::new(kind).await;
    let other = mixed.home.start();
    let mut client = Client::connect(&other).await;
    for export in shuffled(&fixtures, 20 + transport as u64) {
        client.send(transport, &export).await.unwrap();
    }
    other.recorded().await;
    check(&mixed, &fixtures).await;

    assert_eq!(plain.traces().await, mixed.traces().await, "order, cuts and repetitions show in the rows");
    assert_eq!(plain.metrics().await, mixed.metrics().await, "order, cuts and repetitions show in the rollups");
    assert!(!plain.metrics().await.is_empty());
}

/// Every fixture gives its rows over every transport, on both databases; permuted, cut in two and sent three times it gives
/// the same rows and rollups.
#[tokio::test(flavor = "multi_thread")]
async fn fixtures_give_their_rows_over_every_transport_on_both_databases() {
    for kind in Kind::ALL {
        for transport in Transport::ALL {
            println!("{kind:?} {transport:?}");
            story(kind, transport).await;
        }
    }
}
