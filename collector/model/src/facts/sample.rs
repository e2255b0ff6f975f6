//! Spans for tests: written in a line, sent as an export request.

use std::collections::BTreeMap;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use prost::Message;

use super::Reading;
use crate::cost::Prices;
use crate::row::{Row, row};
use crate::trace::{TraceState, fold};
use crate::{Batch, Flags, Offset, TraceId, UnixNanos};

/// Noon of some day in 2026.
pub(crate) const NOON: u64 = 1_780_000_000_000_000_000;
pub(crate) const MS: u64 = 1_000_000;
pub(crate) const TRACE: TraceId = TraceId([7; 16]);

/// A span of [`TRACE`], its scope and its resource.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) span: Span,
    pub(crate) scope: String,
    pub(crate) resource: Vec<KeyValue>,
}

pub(crate) fn text(text: &str) -> any_value::Value {
    any_value::Value::StringValue(text.into())
}

pub(crate) fn int(int: i64) -> any_value::Value {
    any_value::Value::IntValue(int)
}

pub(crate) fn texts(texts: &[&str]) -> any_value::Value {
    let values = texts.iter().map(|one| AnyValue { value: Some(text(one)) }).collect();
    any_value::Value::ArrayValue(ArrayValue { values })
}

fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A span from noon on, 100 ms long, without a parent.
pub(crate) fn span(id: u64) -> Sample {
    let span = Span {
        trace_id: TRACE.0.to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        name: format!("span {id}"),
        start_time_unix_nano: NOON,
        end_time_unix_nano: NOON + 100 * MS,
        ..Span::default()
    };
    Sample { span, scope: "scope".into(), resource: Vec::new() }
}

/// An LLM call of gpt-4o under `parent` (0: none), with ten tokens in and five out.
pub(crate) fn call(id: u64, parent: u64) -> Sample {
    span(id)
        .under(parent)
        .with("openinference.span.kind", text("LLM"))
        .with("llm.model_name", text("gpt-4o"))
        .tokens(10, 5)
}

impl Sample {
    pub(crate) fn under(mut self, parent: u64) -> Self {
        self.span.parent_span_id = if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() };
        self
    }

    pub(crate) fn with(mut self, key: &str, value: any_value::Value) -> Self {
        self.span.attributes.retain(|attribute| attribute.key != key);
        self.span.attributes.push(key_value(key, value));
        self
    }

    pub(crate) fn tokens(self, prompt: i64, completion: i64) -> Self {
        self.with("llm.token_count.prompt", int(prompt)).with("llm.token_count.completion", int(completion))
    }

    pub(crate) fn without(mut self, prefix: &str) -> Self {
        self.span.attributes.retain(|attribute| !attribute.key.starts_with(prefix));
        self
    }

    /// From `start` to `end`, in milliseconds after noon.
    pub(crate) fn between(mut self, start: u64, end: u64) -> Self {
        self.span.start_time_unix_nano = NOON + start * MS;
        self.span.end_time_unix_nano = NOON + end * MS;
        self
    }

    pub(crate) fn named(mut self, name: &str) -> Self {
        self.span.name = name.into();
        self
    }

    pub(crate) fn scope(mut self, scope: &str) -> Self {
        self.scope = scope.into();
        self
    }

    pub(crate) fn of(mut self, key: &str, value: any_value::Value) -> Self {
        self.resource.push(key_value(key, value));
        self
    }

    pub(crate) fn failed(mut self, message: &str) -> Self {
        self.span.status = Some(Status { code: 2, message: message.into() });
        self
    }

    pub(crate) fn event(mut self, name: &str, after_ms: u64, attributes: &[(&str, &str)]) -> Self {
        self.span.events.push(span::Event {
            name: name.into(),
            time_unix_nano: self.span.start_time_unix_nano + after_ms * MS,
            attributes: attributes.iter().map(|(key, value)| key_value(key, text(value))).collect(),
            ..span::Event::default()
        });
        self
    }

    pub(crate) fn exception(self, of_type: &str, message: &str) -> Self {
        self.event("exception", 1, &[("exception.type", of_type), ("exception.message", message)])
    }

    fn into_resource_spans(self) -> ResourceSpans {
        let scope = InstrumentationScope { name: self.scope, ..InstrumentationScope::default() };
        ResourceSpans {
            resource: Some(Resource { attributes: self.resource, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans: vec![self.span], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    }
}

/// One request of these spans.
pub(crate) fn batch(spans: &[Sample]) -> Batch {
    let resource_spans = spans.iter().cloned().map(Sample::into_resource_spans).collect();
    Batch {
        offset: Offset(0),
        spans: spans.len() as u32,
        received_at: UnixNanos(0),
        key: 0,
        flags: Flags::default(),
        body: Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec()),
    }
}

/// The state of [`TRACE`] after these spans, in one request.
pub(crate) fn state_read(spans: &[Sample], reading: &Reading) -> TraceState {
    let mut traces: BTreeMap<TraceId, TraceState> = fold([&batch(spans)], reading);
    traces.remove(&TRACE).unwrap_or_default()
}

pub(crate) fn state(spans: &[Sample]) -> TraceState {
    state_read(spans, &Reading::default())
}

pub(crate) fn prices() -> Prices {
    let model =
        |name: &str, input: &str, output: &str| serde_json::json!({ "name": name, "input": input, "output": output });
    Prices::from_json(
        &serde_json::json!({ "model": [model("gpt-4o", "2.5", "10"), model("gpt-4o-mini", "0.15", "0.6")] }),
    )
    .unwrap()
}

/// The row of [`TRACE`], its root there or not.
pub(crate) fn row_of(spans: &[Sample]) -> Row {
    row(TRACE, &state(spans), &prices(), true).expect("it deserves a row")
}

/// A row's metadata, which is written as `serde_json` would write it.
pub(crate) fn read(row: &Row) -> serde_json::Value {
    let value: serde_json::Value = serde_json::from_str(&row.metadata).expect("metadata is JSON");
    // But for doubles, which it reads a little too freely to write the same again.
    if !holds_double(&value) {
        assert_eq!(value.to_string(), row.metadata);
    }
    value
}

fn holds_double(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Array(elements) => elements.iter().any(holds_double),
        serde_json::Value::Object(fields) => fields.values().any(holds_double),
        other => other.is_f64(),
    }
}
