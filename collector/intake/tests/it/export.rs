//! Export requests to send.

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

pub(crate) fn span(number: u64) -> Span {
    let mut trace_id = vec![7; 16];
    trace_id[8..].copy_from_slice(&(number + 1).to_be_bytes());
    Span {
        trace_id,
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: format!("span {number}"),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_001_000_000_000,
        ..Span::default()
    }
}

pub(crate) fn text(value: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.into())) }
}

pub(crate) fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

pub(crate) fn request(spans: Vec<Span>) -> Vec<u8> {
    let resource = Resource { attributes: vec![attribute("service.name", text("shop"))], ..Resource::default() };
    let scope = InstrumentationScope { name: "by hand".into(), ..InstrumentationScope::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// A sound request of this many spans.
pub(crate) fn spans(count: u64) -> Vec<u8> {
    request((0..count).map(span).collect())
}

/// A request of one span and at least this many bytes.
pub(crate) fn heavy(bytes: usize) -> Vec<u8> {
    request(vec![Span { attributes: vec![attribute("input.value", text("x".repeat(bytes)))], ..span(0) }])
}

/// One sound span in OTLP/JSON.
pub(crate) const JSON: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5B8EFFF798038103D269B633813FC60C",
    "spanId":"eee19b7ec3c1b174","name":"by hand","kind":2,"startTimeUnixNano":"1544712660000000000",
    "endTimeUnixNano":"1544712661000000000"}]}]}]}"#;

/// The partial success in an answer: rejected spans and the message.
pub(crate) fn partial(message: &[u8]) -> Option<(i64, String)> {
    let response = ExportTraceServiceResponse::decode(message).expect("an ExportTraceServiceResponse");
    response.partial_success.map(|partial| (partial.rejected_spans, partial.error_message))
}

pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zlib(body: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(body, 3).unwrap()
}
