//! A row of `prompt_traces`: what the spans of a trace mean together.
//!
//! Promise: [`row`] is a pure and total function of a trace's state, so equal states give equal rows, and no state makes it
//! panic. Every text in it can be stored by PostgreSQL; every number is bounded.
//! Not here: what a single span says ([`crate::facts`]), looking names up in the library's tables (`emberd-store`).
//! Kept by:  `tests/rows.rs` (the rows that real exports must give), `tests`.
//!
//! - `tree`: who called whom. `calls`: which spans tell of distinct LLM calls. `outcome`: how it went. `money`: what it cost.
//! - `metadata`: the rest, as JSON. `json`: JSON as text.

mod calls;
mod json;
mod metadata;
mod money;
mod outcome;
mod tree;

use uuid::Uuid;

use crate::cost::Prices;
use crate::facts::{Facts, Marks, Reading, Text};
use crate::trace::{TraceState, fold};
use crate::{Batch, SpanId, TraceId, UnixNanos};
use calls::Call;

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
    /// Primary key: the trace id as a UUID, so that every order of arrival gives the same.
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
    /// The text of a JSON object, keys as in spec/2 and sorted, plus `llm_time_ms` (sum of the LLM calls' durations), so that a rollup is
    /// a function of rows. There is no NUL in it, written or escaped.
    pub metadata: String,
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

/// The traces that name a prompt, in these batches, by a word for which `is_it` holds.
pub fn traces_that_name<'a>(
    batches: impl IntoIterator<Item = &'a Batch>,
    reading: &Reading,
    is_it: impl Fn(&str) -> bool,
) -> Vec<TraceId> {
    let named = |(trace, state): (TraceId, TraceState)| {
        let name = row(trace, &state, &Prices::default(), true)?.prompt_ref?;
        is_it(&name).then_some(trace)
    };
    fold(batches, reading).into_iter().filter_map(named).collect()
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
    let mut marks = state.marks();
    marks.add_if(tree.had_cycle, Marks::PARENT_CYCLE);

    let (status, error) = outcome::of(root.as_ref(), &calls);
    let (start, end) = root.as_ref().map_or(state.spread(), |root| (root.start.0, root.end.0));
    let llm_time = UnixNanos(calls.iter().fold(0, |sum, call| call.facts.nanos().saturating_add(sum)));
    let llm_time_ms = llm_time.millis_since(UnixNanos(0));
    let mut tokens = Tokens::default();
    calls.iter().for_each(|call| tokens.add(call.facts.usage.sums()));
    let metadata = metadata::text(state, root.is_some(), &calls, llm_time_ms, prices, marks);

    Some(Row {
        id: Uuid::from_bytes(trace.0),
        trace_id: trace,
        prompt_ref: prompt(state).map(str::to_owned),
        session_id: state.word(Text::Session).map(session_uuid),
        user_ref: state.word(Text::User).map(str::to_owned),
        execution_time_ms: i32::try_from(UnixNanos(end).millis_since(UnixNanos(start))).unwrap_or(i32::MAX),
        tokens,
        model: last_of(&calls, |call| call.model()).unwrap_or("unknown").to_owned(),
        status,
        error,
        metadata,
        created_at: UnixNanos(start),
        llm_time_ms,
    })
}

/// The earliest of the spans without a parent; of equally early ones, that with the least id.
fn the_root(state: &TraceState) -> Option<Facts<'_>> {
    let of = |(id, facts): (SpanId, _)| Some((Facts::times(facts)?.0, id, facts));
    let (_, _, facts) = state.roots().filter_map(of).min()?;
    Facts::decode(facts)
}

/// How the spans name the prompt: a span's word counts before that of any resource.
fn prompt(state: &TraceState) -> Option<&str> {
    state.word(Text::PromptRef).or_else(|| state.word(Text::ResourcePrompt))
}

/// What the last call says; if it says nothing, what the one before does.
fn last_of<'a>(calls: &'a [Call<'_>], what: impl Fn(&'a Call<'_>) -> Option<&'a str>) -> Option<&'a str> {
    calls.iter().rev().find_map(what)
}

/// A session's id as the column takes it: the UUID that it is, else its UUIDv5 in the URL namespace.
fn session_uuid(session: &str) -> Uuid {
    Uuid::parse_str(session).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_URL, session.as_bytes()))
}

#[cfg(test)]
mod tests;
