//! Endpoints that fail on purpose, and what the forwarder makes of them.

mod faults;
mod reading;
mod sink;
mod source;
mod time;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::load::Part;

/// The exports of real SDKs, with their names.
pub(super) fn library() -> Vec<(String, Bytes)> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures/dev");
    let dir = std::env::var("EMBERD_FIXTURES").unwrap_or_else(|_| beside.into());
    let files = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("EMBERD_FIXTURES {dir}: {error}"));
    let mut exports: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(".otlp.pb"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap().into()))
        .collect();
    exports.sort();
    assert!(!exports.is_empty(), "no exports in {dir}");
    exports
}

pub(super) fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// A span whose ids are made of its number.
pub(super) fn span(number: u64) -> Span {
    Span {
        trace_id: (u128::from(number / 5) + 1).to_be_bytes().to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: format!("span {number}"),
        attributes: vec![attribute("input.value", "what is the weather like?")],
        ..Span::default()
    }
}

pub(super) fn request(spans: Vec<Span>) -> Bytes {
    let scope = Some(InstrumentationScope { name: "test".to_owned(), ..InstrumentationScope::default() });
    let scope_spans = vec![ScopeSpans { scope, spans, ..ScopeSpans::default() }];
    let resource = Some(Resource { attributes: vec![attribute("service.name", "shop")], ..Resource::default() });
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// A request of so many spans, numbered from 0.
pub(super) fn many_spans(count: u64) -> Bytes {
    request((0..count).map(span).collect())
}

/// A part of so many spans, numbered as their offsets.
pub(super) fn part(first: u64, spans: u64) -> Part {
    Part::of(&source::batch(first, spans as u32))
}
