//! Requests shaped like an LLM application's: OpenInference attributes, about 1.7 kB a span, ten spans a trace.

use bytes::Bytes;
use emberd_model::{Batch, Flags, Offset, UnixNanos};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

/// Spans of a trace: a CHAIN root and LLM calls below it.
pub(crate) const SPANS_PER_TRACE: u64 = 10;
/// 2026-11-21T00:00:00Z.
const EPOCH: u64 = 1_795_219_200_000_000_000;

/// A bijection on `u64` (the finalizer of splitmix64): numbers in, ids out, no two alike.
pub(crate) fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    pair(key, Value::StringValue(value.into()))
}

fn words(n: u64, bytes: usize) -> String {
    const WORDS: [&str; 16] = [
        "cite", "every", "claim", "with", "its", "source", "and", "say", "plainly", "when", "nothing", "was", "found",
        "about", "that", "topic",
    ];
    let mut text = String::with_capacity(bytes + 8);
    for step in 0.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(WORDS[(mix(n ^ step) % 16) as usize]);
        text.push(' ');
    }
    text
}

/// Who names what in a trace.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Naming {
    /// The root names the prompt; all spans name one session and one user.
    Whole,
    /// As the load generator of the rig has it: all spans are calls, of a session, a user and a `metadata` of their own.
    Each,
}

fn span(number: u64, prompts: u64, naming: Naming) -> Span {
    let trace = number / SPANS_PER_TRACE;
    let place = number % SPANS_PER_TRACE;
    let id = |n: u64| mix(n + 1).to_be_bytes().to_vec();
    let mut trace_id = id(trace + (1 << 60));
    trace_id.extend(id(trace + (1 << 61)));
    let start = EPOCH + trace % 3_000_000 * 1_000_000;
    let took = 20_000_000 + mix(trace) % 4_000_000_000;
    let mut attributes =
        vec![text("openinference.span.kind", if place == 0 && naming == Naming::Whole { "CHAIN" } else { "LLM" })];
    let question = words(number, 300);
    attributes.push(text("input.value", question.clone()));
    attributes.push(text("output.value", words(!number, 600)));
    if place == 0 && naming == Naming::Whole {
        attributes.push(text("prompt.id", format!("prompt-{}", mix(trace) % prompts)));
    } else {
        let (prompt, completion) = ((mix(number) % 400) as i64, (mix(!number) % 600) as i64);
        attributes.push(text(
            "llm.model_name",
            ["gpt-4o-2024-11-20", "gpt-4o-mini", "claude-sonnet-4-5"][(number % 3) as usize],
        ));
        attributes.push(pair("llm.token_count.prompt", Value::IntValue(prompt)));
        attributes.push(pair("llm.token_count.completion", Value::IntValue(completion)));
        attributes.push(pair("llm.token_count.total", Value::IntValue(prompt + completion)));
        attributes.push(text("llm.input_messages.0.message.role", "user"));
        attributes.push(text("llm.input_messages.0.message.content", question));
    }
    let whose = if naming == Naming::Whole { trace } else { number };
    attributes.push(text("session.id", format!("session-{:06}", mix(whose) % 100_000)));
    attributes.push(text("user.id", format!("user-{:05}", mix(whose) % 10_000)));
    if naming == Naming::Each {
        let (prompt, version) = (mix(number) % prompts, mix(!number) % 20);
        let metadata = format!(r#"{{"prompt_id": "prompt-{prompt:04}", "prompt_version": {version}, "env": "prod"}}"#);
        attributes.push(text("metadata", metadata));
    }
    Span {
        trace_id,
        span_id: id(number + (1 << 62)),
        parent_span_id: if place == 0 { Vec::new() } else { id(trace * SPANS_PER_TRACE + (1 << 62)) },
        name: if place == 0 { "answer" } else { "ChatCompletion" }.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start + if place == 0 { took } else { took * place / (SPANS_PER_TRACE + 1) },
        attributes,
        status: Some(Status { code: 1, ..Default::default() }),
        ..Default::default()
    }
}

/// The request that holds spans `first .. first + spans`, their traces spread over `prompts` prompts.
pub(crate) fn request(first: u64, spans: u64, prompts: u64) -> Bytes {
    request_naming(first, spans, prompts, Naming::Whole)
}

fn request_naming(first: u64, spans: u64, prompts: u64, naming: Naming) -> Bytes {
    let resource = Resource { attributes: vec![text("service.name", "bench")], ..Default::default() };
    let spans = (first..first + spans).map(|number| span(number, prompts, naming)).collect();
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// A batch of the spans from `first` on, as the log would hold it.
pub(crate) fn batch_of(first: u64, spans: u64, prompts: u64) -> Batch {
    Batch {
        offset: Offset(first),
        spans: spans as u32,
        received_at: UnixNanos(EPOCH),
        key: 0,
        flags: Flags::default(),
        body: request(first, spans, prompts),
    }
}

/// `count` batches of `spans` spans each, as the log would hold them.
pub(crate) fn batches(count: u64, spans: u64, prompts: u64) -> Vec<Batch> {
    batches_naming(count, spans, prompts, Naming::Whole)
}

/// The same, naming as told.
pub(crate) fn batches_naming(count: u64, spans: u64, prompts: u64, naming: Naming) -> Vec<Batch> {
    let batch = |n: u64| Batch {
        offset: Offset(n * spans),
        spans: spans as u32,
        received_at: UnixNanos(EPOCH),
        key: 0,
        flags: Flags::default(),
        body: request_naming(n * spans, spans, prompts, naming),
    };
    (0..count).map(batch).collect()
}

/// What precedes the six digits of a prompt's number in [`sized`].
pub(crate) const PROMPT: &str = "prompt-";

/// The ids of a span of [`sized`].
pub(crate) struct Ids {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
    pub(crate) parent: Option<[u8; 8]>,
}

/// Those of span `number`: a trace is [`SPANS_PER_TRACE`] of them, the first its root.
pub(crate) fn ids(number: u64) -> Ids {
    let root = number - number % SPANS_PER_TRACE;
    let id = |n: u64| mix(n + (1 << 62)).to_be_bytes();
    let mut trace = [0; 16];
    trace[..8].copy_from_slice(&mix(root + (1 << 60)).to_be_bytes());
    trace[8..].copy_from_slice(&mix(root + (1 << 61)).to_be_bytes());
    Ids { trace, span: id(number), parent: (number != root).then(|| id(root)) }
}

/// Nanoseconds since 1970, of this machine.
#[expect(clippy::disallowed_methods, reason = "a load generator is no room of emberd's: its time is the machine's")]
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// A request of `spans` LLM calls with `text` bytes of text in each, whose ids are those of [`ids`]; roots name a prompt.
pub(crate) fn sized(spans: u64, text: usize) -> Vec<u8> {
    let now = now();
    let one = |number: u64| {
        let (ids, latency) = (ids(number), 20_000_000 + mix(number) % 4_000_000_000);
        let attributes = [
            self::text("openinference.span.kind", "LLM"),
            self::text("llm.model_name", "gpt-4o-mini"),
            pair("llm.token_count.prompt", Value::IntValue((mix(number) % 400) as i64)),
            pair("llm.token_count.completion", Value::IntValue((mix(!number) % 600) as i64)),
            self::text("input.value", words(number, text / 3)),
            self::text("output.value", words(!number, text - text / 3)),
        ];
        let prompt = ids.parent.is_none().then(|| self::text("prompt.id", format!("{PROMPT}{:06}", 0)));
        Span {
            trace_id: ids.trace.to_vec(),
            span_id: ids.span.to_vec(),
            parent_span_id: ids.parent.map_or(Vec::new(), |parent| parent.to_vec()),
            name: "ChatCompletion".into(),
            start_time_unix_nano: now - latency,
            end_time_unix_nano: now,
            attributes: prompt.into_iter().chain(attributes).collect(),
            status: Some(Status { code: 1, ..Default::default() }),
            ..Default::default()
        }
    };
    let resource = Resource { attributes: vec![self::text("service.name", "bench")], ..Default::default() };
    let scope_spans = vec![ScopeSpans { spans: (0..spans).map(one).collect(), ..Default::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}
