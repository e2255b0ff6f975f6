//! Traces as an SDK would send them, in OTLP's JSON form, through the real fold.

use bytes::Bytes;
use emberd_model::facts::Reading;
use emberd_model::trace::{Folded, fold_and_count};
use emberd_model::{Batch, Flags, Offset, TraceId, json};
use serde_json::{Value, json};

use super::harness::NOW;

/// A span.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) trace: u64,
    /// From 1 on; 1 is the root.
    pub(crate) id: u64,
    pub(crate) start_ms: u64,
    pub(crate) duration_ms: u64,
    pub(crate) failed: bool,
    pub(crate) attributes: Vec<(&'static str, Value)>,
}

/// Milliseconds of [`NOW`].
pub(crate) const NOW_MS: u64 = NOW.0 / 1_000_000;

/// The root of a trace that began so long before now.
pub(crate) fn root(trace: u64, ago_ms: u64, duration_ms: u64) -> Span {
    Span { trace, id: 1, start_ms: NOW_MS - ago_ms, duration_ms, failed: false, attributes: Vec::new() }
}

/// An LLM call below the root.
pub(crate) fn call(root: &Span, id: u64, tokens: (i64, i64)) -> Span {
    let attributes = vec![
        ("openinference.span.kind", json!("LLM")),
        ("llm.model_name", json!("gpt-4o")),
        ("llm.token_count.prompt", json!(tokens.0)),
        ("llm.token_count.completion", json!(tokens.1)),
        ("llm.token_count.total", json!(tokens.0 + tokens.1)),
    ];
    Span { id, attributes, failed: false, ..root.clone() }
}

/// A trace of one call, as most are: the root and the call.
pub(crate) fn trace(trace: u64, ago_ms: u64, duration_ms: u64) -> [Span; 2] {
    let root = root(trace, ago_ms, duration_ms);
    let call = call(&root, 2, (10, 5));
    [root, call]
}

impl Span {
    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((key, value.into()));
        self
    }

    pub(crate) fn of_prompt(self, name: &str) -> Self {
        self.with("prompt.id", name)
    }

    pub(crate) fn failed(self) -> Self {
        Self { failed: true, ..self }
    }

    fn otlp(&self) -> Value {
        let attributes: Vec<Value> =
            self.attributes.iter().map(|(key, value)| json!({"key": key, "value": any(value)})).collect();
        let nanos = |ms: u64| (ms * 1_000_000).to_string();
        json!({
            "traceId": trace_id(self.trace).to_string(),
            "spanId": format!("{:016x}", self.id),
            "parentSpanId": if self.id == 1 { String::new() } else { format!("{:016x}", 1) },
            "name": format!("span {}", self.id),
            "startTimeUnixNano": nanos(self.start_ms),
            "endTimeUnixNano": nanos(self.start_ms + self.duration_ms),
            "status": if self.failed { json!({"code": 2, "message": "it broke"}) } else { json!({}) },
            "attributes": attributes,
        })
    }
}

fn any(value: &Value) -> Value {
    match value {
        Value::String(text) => json!({"stringValue": text}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        other => panic!("no span of ours has {other}"),
    }
}

/// Scattered over the key space, as real ids are.
pub(crate) fn trace_id(trace: u64) -> TraceId {
    let scattered = u128::from(trace + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    TraceId(scattered.to_be_bytes())
}

/// What a request with these spans says, by trace, and where they are booked.
pub(crate) fn folded(spans: &[Span]) -> Folded {
    if spans.is_empty() {
        return Folded::default();
    }
    let otlp: Vec<Value> = spans.iter().map(Span::otlp).collect();
    let request =
        json!({"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": "tests"}, "spans": otlp}]}]});
    let body = json::to_protobuf(request.to_string().as_bytes()).expect("this is OTLP");
    let batch = Batch {
        offset: Offset(0),
        spans: spans.len() as u32,
        received_at: super::harness::NOW,
        key: 0,
        flags: Flags::default(),
        body: Bytes::from(body),
    };
    fold_and_count([&batch], &Reading::default())
}
