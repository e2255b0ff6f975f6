//! STUB of the border; its owner fills it in.
use uuid::Uuid;

use crate::cost::Prices;
use crate::trace::TraceState;
use crate::{TraceId, UnixNanos};

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

/// The row of a trace: a pure function. None if it deserves none, or if it has no root yet and `rootless` is false.
pub fn row(_trace: TraceId, _state: &TraceState, _prices: &Prices, _rootless: bool) -> Option<Row> {
    unimplemented!()
}
