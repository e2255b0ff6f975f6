//! Spans that Phoenix drops, chokes on or stumbles over when they are sent to it as they are: each of them was seen to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use emberd_model::{Flags, wire};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

/// 2026-11-21.
const START: u64 = 1_795_219_200_000_000_000;

/// The ids of one trace, that no other has.
pub(crate) struct Ids(u64);

impl Ids {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Relaxed))
    }

    fn span_id(&self, index: u64) -> Vec<u8> {
        (0x00e0_0000_0000_0000 + self.0 * 1_000 + index).to_be_bytes().to_vec()
    }

    fn with_id(&self, index: u64, name: &str, attributes: Vec<KeyValue>) -> Span {
        Span {
            trace_id: (u128::from(self.0) + (0xe << 80)).to_be_bytes().to_vec(),
            span_id: self.span_id(index),
            name: name.to_owned(),
            start_time_unix_nano: START,
            end_time_unix_nano: START + 1_000_000_000,
            attributes,
            ..Span::default()
        }
    }

    /// The trace's span with these attributes.
    pub(crate) fn span(&self, name: &str, attributes: Vec<KeyValue>) -> Span {
        self.with_id(999, name, attributes)
    }
}

pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn pairs(key: &str, values: Vec<KeyValue>) -> KeyValue {
    attribute(key, Value::KvlistValue(KeyValueList { values }))
}

fn bytes(key: &str) -> KeyValue {
    attribute(key, Value::BytesValue(vec![0xff, 0, 1]))
}

/// An LLM call of some 3 kB, as they come.
pub(crate) fn llm_span(ids: &Ids, index: u64) -> Span {
    let attributes = vec![
        text("openinference.span.kind", "LLM"),
        text("llm.model_name", "gpt-4o"),
        int("llm.token_count.prompt", 100),
        int("llm.token_count.completion", 50),
        text("input.value", &"what is the weather like in Paris? ".repeat(40)),
        text("output.value", &"sunny, with a few clouds. ".repeat(40)),
    ];
    ids.with_id(index, "call", attributes)
}

pub(crate) fn request(resource: Vec<KeyValue>, spans: Vec<Span>) -> Bytes {
    let resource = Some(Resource { attributes: resource, ..Resource::default() });
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// What the walk says about a request.
pub(crate) fn flags(body: &[u8]) -> Flags {
    let checked = wire::check(body, &wire::Limits::default()).expect("the walk lets it pass");
    assert_eq!(checked.rejected, 0, "{:?}", checked.reasons);
    checked.flags
}

/// Requests of three spans, the bad one in the middle, with what is bad about it.
pub(crate) fn cases() -> Vec<(String, Bytes)> {
    let mut cases: Vec<_> =
        attributes().into_iter().map(|(name, bad)| (name.to_owned(), around(bad, |_| ()))).collect();
    let event =
        |name: &str, attribute| Event { name: name.to_owned(), attributes: vec![attribute], ..Event::default() };
    type Change<'a> = &'a dyn Fn(&mut Span);
    let spans: [(&str, Change<'_>); 8] = [
        ("nul in a name", &|span| span.name = "na\0me".to_owned()),
        ("nul in a status", &|span| span.status = Some(Status { message: "\0".to_owned(), code: 2 })),
        ("nul in an event", &|span| span.events = vec![event("e\0", text("k\0", "v\0"))]),
        ("bytes in an event", &|span| span.events = vec![event("e", bytes("raw"))]),
        ("times at their end", &|span| span.start_time_unix_nano = u64::MAX),
        ("times at zero", &|span| (span.start_time_unix_nano, span.end_time_unix_nano) = (0, 0)),
        ("a status and a kind that are none", &|span| {
            (span.kind, span.status) = (77, Some(Status { message: String::new(), code: 77 }));
        }),
        ("a name of 10 kB", &|span| span.name = "name ".repeat(2_000)),
    ];
    cases.extend(spans.into_iter().map(|(name, change)| (name.to_owned(), around(vec![], change))));
    for (name, project) in [("nul in the project", "a\0b".to_owned()), ("a long project", "é".repeat(3_000))] {
        let ids = Ids::new();
        let spans = (0..3).map(|index| llm_span(&ids, index)).collect();
        cases.push((name.to_owned(), request(vec![text("openinference.project.name", &project)], spans)));
    }
    cases
}

fn around(bad: Vec<KeyValue>, change: impl Fn(&mut Span)) -> Bytes {
    let ids = Ids::new();
    let mut span = llm_span(&ids, 1);
    // What is bad takes the place of what is good.
    span.attributes.retain(|good| bad.iter().all(|bad| bad.key != good.key));
    span.attributes.extend(bad);
    change(&mut span);
    request(vec![], vec![llm_span(&ids, 0), span, llm_span(&ids, 2)])
}

fn attributes() -> Vec<(&'static str, Vec<KeyValue>)> {
    let deep = |parts: usize| vec!["a"; parts].join(".");
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let list = |values| attribute("list", Value::ArrayValue(ArrayValue { values }));
    vec![
        ("nul in a value", vec![text("k", "a\0b")]),
        ("nul in a key", vec![text("k\0", "v")]),
        ("nul in a span kind", vec![text("openinference.span.kind", "LLM\0")]),
        ("bytes", vec![bytes("payload")]),
        ("bytes in a list", vec![list(vec![AnyValue { value: Some(Value::BytesValue(vec![1])) }])]),
        ("bytes in pairs", vec![pairs("deep", vec![pairs("er", vec![bytes("est")])])]),
        ("bytes as input", vec![bytes("input.value")]),
        ("bytes as a tool's result", vec![bytes("gen_ai.tool.call.result")]),
        ("bytes as metadata", vec![bytes("metadata")]),
        ("tokens beyond 32 bits", vec![int("llm.token_count.prompt", 1 << 62)]),
        ("tokens beyond all bits", vec![text("llm.token_count.prompt", &"9".repeat(50))]),
        ("tokens as a huge double", vec![attribute("llm.token_count.completion", Value::DoubleValue(1e300))]),
        ("tokens that are infinite", vec![attribute("llm.token_count.prompt", Value::DoubleValue(f64::INFINITY))]),
        ("tokens under their other name", vec![int("gen_ai.usage.input_tokens", 1 << 62)]),
        ("tokens in pairs", vec![pairs("llm", vec![pairs("token_count", vec![int("prompt", 1 << 62)])])]),
        ("a key of 300 parts", vec![int(&deep(300), 1)]),
        ("a key of 3,000 parts", vec![int(&deep(3_000), 1)]),
        ("a key with a raised two", vec![int("a.².b", 1)]),
        ("a key with a number of 5,000 digits", vec![int(&format!("a.{}.b", "9".repeat(5_000)), 1)]),
        ("a span kind that is a number", vec![int("openinference.span.kind", 5)]),
        ("a span kind in pairs", vec![pairs("openinference", vec![pairs("span", vec![int("kind", 7)])])]),
        ("a span kind without a letter", vec![text("openinference.span.kind", "5")]),
        ("a span kind in lower case", vec![text("openinference.span.kind", "llm")]),
        ("a span kind that is none", vec![text("openinference.span.kind", "BANANA")]),
        ("metadata nested too deep", vec![text("metadata", &nested(300))]),
        ("a document's metadata nested too deep", vec![text("retrieval.documents.0.document.metadata", &nested(900))]),
        ("metadata with a long number", vec![text("metadata", &format!("{{\"a\":{}}}", "9".repeat(100)))]),
        ("metadata with a NUL in it", vec![text("metadata", r#"{"a":"\u0000"}"#)]),
        ("metadata with half a character", vec![text("metadata", r#"{"a":"\ud800"}"#)]),
        (
            "tool arguments with half a character",
            vec![
                text("gen_ai.operation.name", "execute_tool"),
                text("gen_ai.tool.call.arguments", r#"{"a":"\ud800"}"#),
            ],
        ),
        ("a session id of 6 kB", vec![text("session.id", &"é".repeat(3_000))]),
        ("a session id that is a number", vec![int("session.id", 1_234)]),
        ("not a number", vec![attribute("k", Value::DoubleValue(f64::NAN))]),
        ("a value that is none", vec![KeyValue { key: "k".to_owned(), ..KeyValue::default() }]),
        ("a key that is none", vec![int("", 1)]),
        ("a key beside its own part", vec![text("a", "x"), text("a.b", "y"), text("a.b.c", "z")]),
        ("characters that are none", vec![text("k", "\u{ffff}\u{fdd0}\u{10ffff}")]),
        ("input that is a number", vec![int("input.value", 5)]),
    ]
}
