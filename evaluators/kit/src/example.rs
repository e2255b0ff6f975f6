//! What is judged: an example of a dataset, or of a trace that was recorded.
//!
//! Promise: a plain value; the same form from a dataset, from recorded traces and from live traffic.
//! Not here: where examples come from (jobs), how a field is found in one (`path`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One example. Texts are usually JSON strings; datasets may hold any JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Example {
    /// What was asked.
    pub input: Value,
    /// What was answered.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// What would have been right.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub reference: Value,
    /// What the answer should rest on: documents, a schema.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub context: Value,
    /// The conversation, as a list of {role, content}.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub messages: Value,
    /// Whatever else is known: latency_ms, cost_usd, tokens, finish_reason, tools.
    pub metadata: Map<String, Value>,
    /// The spans behind it, where it comes from a trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
}

/// A trace as evaluators see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trace {
    /// Its id, 32 hex digits.
    pub trace_id: String,
    /// Its spans, in any order.
    pub spans: Vec<Span>,
}

/// A span as evaluators see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Span {
    /// 16 hex digits.
    pub span_id: String,
    /// The parent's id; absent or empty for the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// Its name.
    pub name: String,
    /// OpenInference's word: LLM, TOOL, RETRIEVER, CHAIN, AGENT, ...
    pub kind: String,
    /// What went in.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub input: Value,
    /// What came out.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// ok, error or unset.
    pub status: String,
    /// The status's message, when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Begin, nanoseconds since 1970.
    pub started_unix_nano: u64,
    /// End, nanoseconds since 1970.
    pub ended_unix_nano: u64,
    /// Its attributes, by their flat names (`llm.model_name`).
    pub attributes: Map<String, Value>,
}

impl Trace {
    /// The span without a parent; of several, or when the parents are unknown, the one that began first.
    pub fn root(&self) -> Option<&Span> {
        self.first_where(|span| span.parent_id.as_deref().is_none_or(str::is_empty)).or_else(|| {
            self.first_where(|span| !self.spans.iter().any(|other| Some(&other.span_id) == span.parent_id.as_ref()))
        })
    }

    /// The spans of a kind (any case) in the order of their beginning; those that began together stay as they lie.
    pub fn of_kind(&self, kind: &str) -> Vec<&Span> {
        let mut spans: Vec<&Span> = self.spans.iter().filter(|span| span.kind.eq_ignore_ascii_case(kind)).collect();
        spans.sort_by_key(|span| span.started_unix_nano);
        spans
    }

    /// The first of a kind to begin.
    pub fn first(&self, kind: &str) -> Option<&Span> {
        self.first_where(|span| span.kind.eq_ignore_ascii_case(kind))
    }

    /// The last of a kind to begin.
    pub fn last(&self, kind: &str) -> Option<&Span> {
        let of_kind = self.spans.iter().filter(|span| span.kind.eq_ignore_ascii_case(kind));
        of_kind.max_by_key(|span| span.started_unix_nano)
    }

    fn first_where(&self, wanted: impl Fn(&Span) -> bool) -> Option<&Span> {
        self.spans.iter().filter(|span| wanted(span)).min_by_key(|span| span.started_unix_nano)
    }
}

impl Span {
    /// Milliseconds from begin to end; 0 when the clock ran backwards.
    pub fn duration_ms(&self) -> f64 {
        self.ended_unix_nano.saturating_sub(self.started_unix_nano) as f64 / 1e6
    }

    /// The first of these attributes that is there.
    pub(crate) fn attribute(&self, names: &[&str]) -> Option<&Value> {
        names.iter().find_map(|name| self.attributes.get(*name))
    }
}
