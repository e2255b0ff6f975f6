//! Traces made from a number alone, and what each means: the ledger outside needs only numbers.
//!
//! Nothing here knows how emberd reads a span. Every trace has a root; most of them name a prompt; some fail, some for want of
//! time; some call a model twice. A trace's spans come in one request or in several, in either order, some of them twice.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, status::StatusCode};
use prost::Message;

/// 2024-03-10 22:00 UTC: all windows over it are closed, and the hours of made traces lie on both sides of a midnight.
const START: u64 = 1_710_108_000;
/// How many hours the traces are spread over.
const HOURS: u64 = 4;
const SECOND: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;

/// The prompts that made traces name. Who tells a story decides which of them exist.
pub const PROMPTS: [&str; 4] = ["made-first", "made-second", "made-later", "made-never"];

/// How a made trace goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Error,
    Timeout,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Timeout => "timeout",
        }
    }
}

/// A trace, and how it travels.
pub struct Made {
    pub trace: [u8; 16],
    /// How long the root took.
    pub millis: u64,
    pub outcome: Outcome,
    /// The prompt that its root names.
    pub prompt: Option<&'static str>,
    /// Its spans: the root, then its calls.
    pub spans: Vec<MadeSpan>,
    /// What is sent, in this order.
    pub requests: Vec<Bytes>,
    /// Which spans each request carries.
    pub carried: Vec<Vec<usize>>,
}

/// A span of a made trace.
#[derive(Clone, Copy, Debug)]
pub struct MadeSpan {
    pub id: [u8; 8],
    pub start: u64,
    pub millis: u64,
    /// Prompt and completion tokens; none for a root.
    pub tokens: Option<(i64, i64)>,
}

/// What a row of prompt_traces must say, if these spans of a trace were kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub millis: u64,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub status: &'static str,
    pub prompt: Option<&'static str>,
    pub llm_calls: u64,
    pub llm_millis: u64,
    pub spans: u64,
    /// Nanoseconds since 1970.
    pub created_at: u64,
}

impl Made {
    pub fn new(number: u64) -> Self {
        let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut trace = [7; 16];
        trace[..8].copy_from_slice(&mixed.to_be_bytes());
        let (millis, tokens) = (1 + mixed % 5_000, (mixed % 900) as i64);
        let start = (START + number % (HOURS * 3_600)) * SECOND + mixed % 1_000 * MILLI;
        let two_calls = mixed.is_multiple_of(7) && number % 3 == 1;
        let root = MadeSpan { id: (mixed.rotate_left(17) | 1).to_be_bytes(), start, millis, tokens: None };
        let call = MadeSpan { id: (mixed.rotate_left(40) | 2).to_be_bytes(), tokens: Some((tokens, 1)), ..root };
        let second = MadeSpan {
            id: (mixed.rotate_left(29) ^ 0x5555).to_be_bytes(),
            start: start + millis / 2 * MILLI,
            millis: millis / 3,
            tokens: Some((7, 11)),
        };
        let mut spans = vec![root, call];
        spans.extend(two_calls.then_some(second));
        let outcome = match mixed % 11 {
            0 => Outcome::Error,
            1 => Outcome::Timeout,
            _ => Outcome::Success,
        };
        let prompt = PROMPTS.get((mixed >> 32) as usize % 5).copied();
        let carried = match number % 3 {
            0 => vec![vec![0, 1]],
            1 if two_calls => vec![vec![1], vec![0], vec![2, 1]],
            1 => vec![vec![1], vec![0]],
            _ => vec![vec![1, 0], vec![0]],
        };
        let mut made = Self { trace, millis, outcome, prompt, spans, requests: Vec::new(), carried };
        made.requests = made.carried.iter().map(|spans| made.request(spans)).collect();
        made
    }

    pub fn trace_hex(&self) -> String {
        emberd_model::TraceId(self.trace).to_string()
    }

    /// The row that these of its spans give. None of them: no row.
    pub fn expected(&self, kept: &[usize]) -> Option<Expected> {
        let has_root = kept.contains(&0);
        let kept = || kept.iter().map(|&span| self.spans[span]);
        let calls = || kept().filter_map(|span| Some((span, span.tokens?)));
        if calls().count() == 0 && (!has_root || self.prompt.is_none()) {
            return None;
        }
        let start = kept().map(|span| span.start).min()?;
        let end = kept().map(|span| span.start + span.millis * MILLI).max()?;
        Some(Expected {
            millis: if has_root { self.millis } else { (end - start) / MILLI },
            prompt_tokens: calls().map(|(_, tokens)| tokens.0).sum(),
            completion_tokens: calls().map(|(_, tokens)| tokens.1).sum(),
            status: if has_root { self.outcome.as_str() } else { "success" },
            prompt: self.prompt.filter(|_| has_root),
            llm_calls: calls().count() as u64,
            llm_millis: calls().map(|(span, _)| span.millis).sum(),
            spans: kept().count() as u64,
            created_at: if has_root { self.spans[0].start } else { start },
        })
    }

    fn request(&self, spans: &[usize]) -> Bytes {
        let spans = spans.iter().map(|&span| self.span(span)).collect();
        let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }

    fn span(&self, n: usize) -> Span {
        let MadeSpan { id, start, millis, tokens } = self.spans[n];
        let is_root = n == 0;
        let mut attributes = vec![text("openinference.span.kind", if is_root { "CHAIN" } else { "LLM" })];
        if let Some((prompt, completion)) = tokens {
            attributes.push(text("llm.model_name", "gpt-4o"));
            attributes.push(int("llm.token_count.prompt", prompt));
            attributes.push(int("llm.token_count.completion", completion));
        } else if let Some(prompt) = self.prompt {
            attributes.push(text("prompt.id", prompt));
        }
        let failed = |message: &str| Status { code: StatusCode::Error.into(), message: message.into() };
        let status = match self.outcome {
            Outcome::Error if is_root => Some(failed("the answer was no JSON")),
            Outcome::Timeout if is_root => Some(failed("request timed out")),
            _ => None,
        };
        Span {
            trace_id: self.trace.to_vec(),
            span_id: id.to_vec(),
            parent_span_id: if is_root { Vec::new() } else { self.spans[0].id.to_vec() },
            name: if is_root { "run" } else { "ChatCompletion" }.into(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + millis * MILLI,
            attributes,
            status,
            ..Default::default()
        }
    }
}

pub fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Any::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

fn int(key: &str, value: i64) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Any::IntValue(value)) }), ..Default::default() }
}
