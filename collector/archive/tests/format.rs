//! A file of each version, kept for ever: it stays readable, and its rows stay what they were.
//!
//! On disk: `format/v1.parquet`, and `format/v1.json`: its rows as any reader of Parquet sees them, one JSON object a line.
//!
//! What is written now must be the kept file, byte for byte, or else this is another version. To take a step: raise
//! `emberd.archive.version`, keep reading the old one, leave its files here untouched, add files of the new one with
//! `EMBERD_RENEW_FORMAT=1 cargo test -p emberd-archive --test format`, and say in `docs/decisions/0015-archive-rows.md` what changed.
//! (A new release of zstd, or another level, may pack the same pages into other bytes: then only the bytes are renewed, and the test
//! that reads the kept file must have passed before.)

#![allow(clippy::unwrap_used, reason = "what cannot be read fails its test")]

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use emberd_archive::rows::{Error, How, Rows, open};
use emberd_model::cost::Prices;
use emberd_model::{Batch, Flags, Offset, UnixNanos};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use prost::Message;
use serde_json::json;

const START: u64 = 1_795_219_200_123_456_789;

fn kept(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/format").join(name)
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.into()))
}

/// A call as most are.
fn usual(n: u8) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: vec![n; 8],
        parent_span_id: vec![1; 8],
        name: "ChatCompletion".into(),
        kind: 1,
        start_time_unix_nano: START + u64::from(n),
        end_time_unix_nano: START + u64::from(n) + 1_234_567,
        attributes: vec![
            text("openinference.span.kind", "LLM"),
            text("llm.model_name", "gpt-4o-mini"),
            text("llm.provider", "openai"),
            pair("llm.token_count.prompt", Value::IntValue(1_000)),
            pair("llm.token_count.completion", Value::IntValue(1)),
            text("input.value", "what is \"it\"?"),
            text("output.value", "nothing\n"),
            text("session.id", "s-1"),
            text("user.id", "u-1"),
            text("metadata", r#"{"prompt_id": "p-1"}"#),
        ],
        events: vec![Event {
            time_unix_nano: START + 500_000,
            name: "First Token Stream Event".into(),
            attributes: vec![pair("n", Value::IntValue(-1))],
            dropped_attributes_count: 2,
        }],
        status: Some(Status { code: 1, message: String::new() }),
        ..Span::default()
    }
}

/// A span with all that is rare.
fn rare() -> Span {
    let list = |values| Value::ArrayValue(ArrayValue { values });
    let any = |value| AnyValue { value: Some(value) };
    Span {
        trace_id: vec![8; 16],
        span_id: vec![9; 8],
        trace_state: "a=b".into(),
        flags: 0x301,
        name: String::new(),
        kind: 77,
        start_time_unix_nano: START,
        end_time_unix_nano: START - 1,
        attributes: vec![
            pair("bytes", Value::BytesValue(vec![0, 255])),
            pair("double", Value::DoubleValue(1.0)),
            pair("nan", Value::DoubleValue(f64::NAN)),
            pair("bool", Value::BoolValue(true)),
            pair("list", list(vec![any(Value::IntValue(1)), any(list(vec![])), AnyValue { value: None }])),
            pair("pairs", Value::KvlistValue(KeyValueList { values: vec![text("$a", "x"), text("b", "é")] })),
            pair("twice", Value::KvlistValue(KeyValueList { values: vec![text("a", "x"), text("a", "y")] })),
            KeyValue { key: "empty".into(), value: Some(AnyValue { value: None }), ..KeyValue::default() },
        ],
        dropped_attributes_count: 1,
        dropped_events_count: 2,
        dropped_links_count: 3,
        links: vec![
            Link {
                trace_id: vec![1; 16],
                span_id: vec![2; 3],
                trace_state: "c=d".into(),
                attributes: vec![text("k", "v"), text("l", "w")],
                dropped_attributes_count: 4,
                flags: 1,
            },
            Link::default(),
        ],
        events: vec![Event::default()],
        status: Some(Status { code: 2, message: "it broke".into() }),
        ..Span::default()
    }
}

/// A span that only its own bytes can say, and one without anything around it.
fn odd() -> Span {
    let attributes = vec![text("again", "1"), text("again", "2")];
    Span { attributes, start_time_unix_nano: START, end_time_unix_nano: u64::MAX, status: None, ..usual(5) }
}

fn batches() -> Vec<Batch> {
    let resource = Resource {
        attributes: vec![text("service.name", "shop"), text("openinference.project.name", "demo")],
        ..Resource::default()
    };
    let scope = InstrumentationScope { name: "emberd.format".into(), version: "1.2".into(), ..Default::default() };
    let scoped = InstrumentationScope { attributes: vec![text("of", "scope")], ..scope.clone() };
    let under = |scope, spans| ScopeSpans { scope, spans, schema_url: "https://example.org/scope".into() };
    let usual_ones = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans: vec![usual(2), usual(3)], ..Default::default() }],
        ..Default::default()
    };
    let rare_ones = ResourceSpans {
        resource: Some(Resource { dropped_attributes_count: 9, ..resource }),
        scope_spans: vec![under(Some(scoped), vec![rare()]), under(None, vec![odd()])],
        schema_url: "https://example.org/resource".into(),
    };
    let bare = ResourceSpans {
        scope_spans: vec![ScopeSpans { spans: vec![odd()], ..Default::default() }],
        ..Default::default()
    };
    let batch = |offset, spans, key, resource_spans| Batch {
        offset: Offset(offset),
        spans,
        received_at: UnixNanos(START + 5),
        key,
        flags: Flags::default(),
        body: ExportTraceServiceRequest { resource_spans }.encode_to_vec().into(),
    };
    vec![batch(10, 2, 0, vec![usual_ones]), batch(12, 3, 4, vec![rare_ones, bare])]
}

fn how() -> How {
    let prices = json!({"model": [{"name": "gpt-4o-mini", "input": "0.15", "output": "0.6"}]});
    How { prices: Prices::from_json(&prices).unwrap(), ..How::default() }
}

fn written() -> Bytes {
    let how = how();
    let mut rows = Rows::new(&how).unwrap();
    batches().iter().for_each(|batch| rows.push(batch).unwrap());
    let mut parts = rows.finish().unwrap();
    assert_eq!(parts.len(), 1);
    parts.remove(0).file
}

/// A field as any reader of Parquet sees it.
fn shown(field: &Field) -> serde_json::Value {
    match field {
        Field::Null => json!(null),
        Field::Str(text) => json!(text),
        Field::Long(int) => json!(int),
        Field::Double(double) => json!(double),
        Field::Group(row) => row.get_column_iter().map(|(name, field)| (name.clone(), shown(field))).collect(),
        Field::ListInternal(list) => list.elements().iter().map(shown).collect(),
        Field::MapInternal(map) => {
            let name = |key: &Field| shown(key).as_str().unwrap_or_default().to_owned();
            map.entries().iter().map(|(key, value)| (name(key), shown(value))).collect()
        }
        other => json!(other.to_string()),
    }
}

fn rows(file: Bytes) -> String {
    let reader = SerializedFileReader::new(file).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| shown(&Field::Group(row.unwrap())).to_string() + "\n").collect()
}

fn spans(batches: impl IntoIterator<Item = Batch>) -> Vec<(UnixNanos, u16, Vec<u8>)> {
    let mut all = Vec::new();
    for batch in batches {
        let request = ExportTraceServiceRequest::decode(batch.body).unwrap();
        for resource in request.resource_spans {
            for scope in resource.scope_spans {
                for span in scope.spans {
                    let scope_spans = vec![ScopeSpans {
                        spans: vec![span],
                        scope: scope.scope.clone(),
                        schema_url: scope.schema_url.clone(),
                    }];
                    let alone =
                        ResourceSpans { scope_spans, ..resource_alone(&resource.resource, &resource.schema_url) };
                    all.push((batch.received_at, batch.key, alone.encode_to_vec()));
                }
            }
        }
    }
    all
}

fn resource_alone(resource: &Option<Resource>, schema_url: &str) -> ResourceSpans {
    ResourceSpans { resource: resource.clone(), scope_spans: Vec::new(), schema_url: schema_url.to_owned() }
}

#[test]
fn the_kept_file_is_read_as_it_was_written() {
    if std::env::var_os("EMBERD_RENEW_FORMAT").is_some() {
        fs::write(kept("v1.parquet"), written()).unwrap();
        fs::write(kept("v1.json"), rows(written())).unwrap();
    }
    let file = Bytes::from(fs::read(kept("v1.parquet")).unwrap());
    let chunks = open(file.clone()).unwrap().flat_map(|chunk| chunk.unwrap().batches().unwrap());
    assert_eq!(spans(chunks), spans(batches()));
    assert_eq!(rows(file), fs::read_to_string(kept("v1.json")).unwrap());
}

#[test]
fn what_is_written_is_the_kept_file() {
    assert_eq!(rows(written()), fs::read_to_string(kept("v1.json")).unwrap());
    assert!(written() == fs::read(kept("v1.parquet")).unwrap(), "other bytes: see the head of this file");
}

/// A reader refuses what a later emberd wrote, and says so.
#[test]
fn a_newer_version_is_refused() {
    let file = written();
    let key = b"emberd.archive.version";
    let at = file.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    let mut newer = file.to_vec();
    let digit = at + newer[at..].iter().position(|&byte| byte == b'1').unwrap();
    newer[digit] = b'2';
    // The seal stands over all bytes but its own, and is made anew by whoever writes.
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    digest.update(&newer[..12]);
    digest.update(&newer[20..]);
    newer[12..20].copy_from_slice(&digest.finalize().to_le_bytes());
    match open(newer.into()) {
        Err(error @ Error::Newer { found: 2, known: 1 }) => {
            assert_eq!(error.to_string(), "the archive's file has version 2, and this reads up to 1");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was read"),
    }
}
