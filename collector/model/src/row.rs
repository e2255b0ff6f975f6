//! A row of `prompt_traces`: what the spans of a trace mean together.
//!
//! Promise: [`row`] is a pure and total function of a trace's state, so equal states give equal rows, and no state makes it
//! panic. Every text in it can be stored by PostgreSQL; every number is bounded.
//! Not here: what a single span says ([`crate::facts`]), looking names up in the library's tables (`emberd-store`).
//! Kept by:  `tests/rows.rs` (the rows that real exports must give), `tests`.
//!
//! - `tree`: who called whom. `calls`: which spans tell of distinct LLM calls. `outcome`: how it went. `names`: whose it is.

mod calls;
mod metadata;
mod names;
mod outcome;
mod tree;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::cost::{Cost, Prices};
use crate::facts::{Facts, Flag, Marks, Text};
use crate::trace::TraceState;
use crate::{SpanId, TraceId, UnixNanos};
use calls::Call;
use metadata::{cost_json, json_or_text, millis, put};
use names::Names;

/// How a trace went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It did what it was for.
    Success,
    /// It failed.
    Error,
    /// It failed for want of time.
    Timeout,
}

impl Status {
    /// The word in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Timeout => "timeout",
        }
    }
}

/// A row of `prompt_traces`, before names are looked up in the library's tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Primary key, derived from the trace id (UUIDv5), so that every order of arrival gives the same.
    pub id: Uuid,
    /// Its text is `phoenix_trace_id`.
    pub trace_id: TraceId,
    /// How the spans name the prompt: a UUID or a title. Kept in metadata.prompt_ref.
    pub prompt_ref: Option<String>,
    /// The session as a UUID; its text is in metadata.session_id.
    pub session_id: Option<Uuid>,
    /// How the spans name the user: a profile's id or email. Kept in metadata.user_id.
    pub user_ref: Option<String>,
    /// Root's duration, or the spread of the spans where the root is missing. Never negative.
    pub execution_time_ms: i32,
    /// Summed over the distinct LLM calls. 0 where nothing was reported.
    pub tokens: Tokens,
    /// Response model of the last call, `unknown` if none says.
    pub model: String,
    /// How it went.
    pub status: Status,
    /// Root's status message, else the exception's.
    pub error: Option<String>,
    /// JSON object, keys as in spec/2, plus `llm_time_ms` (sum of the LLM calls' durations), so that a rollup is a function of rows.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Root's start.
    pub created_at: UnixNanos,
    /// Sum of the distinct LLM calls' durations.
    pub llm_time_ms: u64,
}

/// Token sums of a trace; saturating, never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tokens {
    /// In.
    pub prompt: i64,
    /// Out.
    pub completion: i64,
    /// As reported, else the sum of both.
    pub total: i64,
}

impl Tokens {
    fn add(&mut self, (prompt, completion, total): (i64, i64, i64)) {
        self.prompt = self.prompt.saturating_add(prompt);
        self.completion = self.completion.saturating_add(completion);
        self.total = self.total.saturating_add(total);
    }
}

/// The row of a trace: a pure function. None if it deserves none, or if it has no root yet and `rootless` is false.
#[must_use]
pub fn row(trace: TraceId, state: &TraceState, prices: &Prices, rootless: bool) -> Option<Row> {
    let root = the_root(state);
    if !state.deserves_row() || (root.is_none() && !rootless) {
        return None;
    }
    let tree = tree::Tree::of(state);
    let calls = calls::distinct(state, &tree);
    let names = Names::of(state, root.as_ref());
    let root = root.map(|(_, facts)| facts);
    let mut marks = state.marks();
    marks.add_if(tree.had_cycle, Marks::PARENT_CYCLE);

    let (status, error) = outcome::of(root.as_ref(), &calls);
    let (start, end) = root.as_ref().map_or(state.spread(), |root| (root.start.0, root.end.0));
    let llm_time = UnixNanos(calls.iter().fold(0, |sum, call| call.facts.nanos().saturating_add(sum)));
    let llm_time_ms = llm_time.millis_since(UnixNanos(0));
    let mut tokens = Tokens::default();
    calls.iter().for_each(|call| tokens.add(call.facts.usage.sums()));

    let mut metadata = Map::new();
    names.put(&mut metadata, &mut marks);
    put_calls(&mut metadata, &calls, prices, &mut marks);
    put(&mut metadata, "llm_time_ms", Some(llm_time_ms));
    put(&mut metadata, "spans", Some(state.spans()));
    put_texts(&mut metadata, root.as_ref(), state);
    put(&mut metadata, "root", root.is_none().then_some("missing"));
    let words: Vec<Value> = marks.words().map(Value::from).collect();
    put(&mut metadata, "marks", (!words.is_empty()).then_some(words));

    Some(Row {
        id: Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("urn:emberd:trace:{trace}").as_bytes()),
        trace_id: trace,
        prompt_ref: names.prompt().map(str::to_owned),
        session_id: names.session().map(session_uuid),
        user_ref: names.user().map(str::to_owned),
        execution_time_ms: i32::try_from(UnixNanos(end).millis_since(UnixNanos(start))).unwrap_or(i32::MAX),
        tokens,
        model: last_of(&calls, Call::model).unwrap_or("unknown").to_owned(),
        status,
        error,
        metadata,
        created_at: UnixNanos(start),
        llm_time_ms,
    })
}

/// The earliest of the spans without a parent; of equally early ones, that with the least id.
fn the_root(state: &TraceState) -> Option<(SpanId, Facts)> {
    state.roots().min_by_key(|(id, facts)| (facts.start, *id))
}

/// What the last call says; if it says nothing, what the one before does.
fn last_of<'a>(calls: &'a [Call], what: impl Fn(&'a Call) -> Option<&'a str>) -> Option<&'a str> {
    calls.iter().rev().find_map(what)
}

/// A session's id as the column takes it: the UUID that it is, else its UUIDv5 in the URL namespace.
fn session_uuid(session: &str) -> Uuid {
    Uuid::parse_str(session).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_URL, session.as_bytes()))
}

fn put_calls(metadata: &mut Map<String, Value>, calls: &[Call], prices: &Prices, marks: &mut Marks) {
    put(metadata, "llm_calls", Some(calls.len()));
    put(metadata, "failed_llm_calls", Some(calls.iter().filter(|call| call.failed()).count()));
    let silent = calls.iter().any(|call| !call.failed() && !call.facts.usage.is_known());
    marks.add_if(silent, Marks::TOKENS_MISSING);
    marks.add_if(calls.iter().any(|call| call.facts.usage.cache_is_beside_prompt()), Marks::CACHE_ADDED);
    put(metadata, "provider", last_of(calls, |call| call.facts.text(Text::Provider)));
    put(metadata, "request_model", last_of(calls, Call::request_model));
    put(metadata, "models", models_json(calls));
    put(metadata, "cost", cost(calls, prices, marks).and_then(|cost| cost_json(&cost, prices)));
    let last_token = calls.iter().rev().find_map(|call| call.facts.first_token_nanos);
    put(metadata, "ttft_ms", last_token.map(millis));
    let streaming = calls.iter().filter(|call| call.facts.has(Flag::StreamingKnown));
    put(metadata, "streaming", streaming.map(|call| call.facts.has(Flag::Streaming)).reduce(|any, one| any || one));
    put(metadata, "finish_reason", calls.last().and_then(|call| call.facts.text(Text::FinishReason)));
    let mut tools = Vec::new();
    for list in calls.iter().filter_map(|call| call.facts.text(Text::ToolCalls)) {
        match json_or_text(list, marks) {
            Value::Array(calls) => tools.extend(calls),
            _ => marks.add(Marks::TRUNCATED),
        }
    }
    put(metadata, "tool_calls", (!tools.is_empty()).then_some(tools));
}

/// `[{model, calls, tokens}]`, in order of each model's first call.
fn models_json(calls: &[Call]) -> Option<Value> {
    let mut models: Vec<(&str, u64, i64)> = Vec::new();
    for call in calls {
        let (model, tokens) = (call.model().unwrap_or("unknown"), call.facts.usage.sums().2);
        match models.iter_mut().find(|known| known.0 == model) {
            Some(known) => *known = (model, known.1 + 1, known.2.saturating_add(tokens)),
            None => models.push((model, 1, tokens)),
        }
    }
    let list: Value = models
        .into_iter()
        .map(|(model, calls, tokens)| serde_json::json!({ "model": model, "calls": calls, "tokens": tokens }))
        .collect();
    (!calls.is_empty()).then_some(list)
}

/// What the calls cost together. None if none can be priced; marked if some that took tokens cannot.
fn cost(calls: &[Call], prices: &Prices, marks: &mut Marks) -> Option<Cost> {
    let mut sum: Option<Cost> = None;
    let mut unpriced = false;
    for call in calls.iter().filter(|call| call.facts.usage.is_known()) {
        match call.model().and_then(|model| prices.cost(model, &call.facts.usage)) {
            Some(cost) => sum = Some(sum.unwrap_or_default().plus(&cost)?),
            None => unpriced |= call.facts.usage.sums().2 > 0,
        }
    }
    marks.add_if(sum.is_some() && unpriced, Marks::COST_PARTIAL);
    sum
}

/// What a person put in and got out: the root's own words, else those of the calls, else the root's JSON.
fn put_texts(metadata: &mut Map<String, Value>, root: Option<&Facts>, state: &TraceState) {
    for (key, text, flag, of_calls) in [
        ("input", Text::Input, Flag::InputIsJson, state.input()),
        ("output", Text::Output, Flag::OutputIsJson, state.output()),
    ] {
        let plain = root.filter(|root| !root.has(flag)).and_then(|root| root.text(text));
        let found = plain.or(of_calls).or_else(|| root.and_then(|root| root.text(text)));
        put(metadata, key, found);
    }
}

#[cfg(test)]
mod tests;
