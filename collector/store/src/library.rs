//! What readers get: rows of the library's tables, under the tables' own names.

use std::time::Duration;

use emberd_model::TraceId;
use emberd_model::rollup::Window;
use emberd_model::row::Status;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::fault::Fault;
use crate::sql::{Ask, Line, binds};
use crate::store::{Store, page};
use crate::{Error, Moment};

/// The prompt of traces that name none, or one that does not exist (yet): `unassigned`.
pub const UNASSIGNED: Uuid = Uuid::nil();

/// Prompts in one statement of [`OfPrompts`]: SQLite takes 500 parts at most.
const OF_PROMPTS: usize = 100;

/// Metrics in one answer.
pub(crate) const METRICS_MAX: i64 = 10_000;

/// A page of a list, newest first.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    /// Its rows.
    pub data: Vec<T>,
    /// What to ask for next; none on the last page.
    pub next_cursor: Option<String>,
}

/// Where a page ends: lists are sorted by time, and by id where times are equal, so that no row is seen twice or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: Moment,
    pub(crate) id: Uuid,
}

impl Place {
    pub(crate) fn parse(cursor: &str) -> Result<Self, Error> {
        let (micros, id) = cursor.split_once('_').ok_or(Error::BadCursor)?;
        let micros = micros.parse().map_err(|_| Error::BadCursor)?;
        Ok(Self { at: Moment::from_micros(micros), id: Uuid::try_parse(id).map_err(|_| Error::BadCursor)? })
    }
}

/// What a list is asked for to go on behind a row made at this time.
#[must_use]
pub fn cursor(at: Moment, id: Uuid) -> String {
    format!("{}_{}", at.micros(), id.simple())
}

/// The newest rows of each of some prompts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfPrompts {
    /// Whose.
    pub prompts: Vec<Uuid>,
    /// Of this status.
    pub status: Option<String>,
    /// Of this session, where rows have one.
    pub session: Option<Uuid>,
    /// So many of each; kept within 1 to 500.
    pub first: u32,
}

impl<T> Page<T> {
    /// From one row more than the page holds, if there are so many.
    pub(crate) fn cut(mut data: Vec<T>, limit: usize, place: impl Fn(&T) -> Place) -> Self {
        let more = data.len() > limit;
        data.truncate(limit);
        let next_cursor = data.last().filter(|_| more).map(|last| {
            let Place { at, id } = place(last);
            cursor(at, id)
        });
        Self { data, next_cursor }
    }
}

/// A row of `prompts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prompt {
    /// Primary key.
    pub id: Uuid,
    /// What spans may call it.
    pub title: String,
    /// Its text, where the table has a column for it.
    pub content: Option<String>,
    /// A profile.
    pub created_by: Option<Uuid>,
    /// When.
    pub created_at: Moment,
}

/// A prompt to be made.
#[derive(Clone, Debug)]
pub struct NewPrompt {
    /// What spans may call it; 1 to 500 characters.
    pub title: String,
    /// Its text.
    pub content: String,
    /// A profile.
    pub created_by: Option<Uuid>,
}

/// A row of `prompt_traces`.
#[derive(Debug, Serialize)]
pub struct Trace {
    /// Primary key.
    pub id: Uuid,
    /// [`UNASSIGNED`] where no prompt is known.
    pub prompt_id: Uuid,
    /// The trace id, lower-case hex.
    pub phoenix_trace_id: String,
    /// The session.
    pub session_id: Option<Uuid>,
    /// Latency.
    pub execution_time_ms: i32,
    /// {prompt, completion, total}.
    pub tokens_used: Box<RawValue>,
    /// Of the last LLM call.
    pub model: String,
    /// success, error or timeout.
    pub status: String,
    /// What went wrong.
    pub error: Option<String>,
    /// An object.
    pub metadata: Box<RawValue>,
    /// The root's start.
    pub created_at: Moment,
    /// A profile.
    pub user_id: Option<Uuid>,
}

/// Which traces; all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct TraceFilter {
    /// Of this prompt.
    pub prompt_id: Option<Uuid>,
    /// That went so.
    pub status: Option<Status>,
    /// Of this session.
    pub session_id: Option<Uuid>,
    /// By this model.
    pub model: Option<String>,
    /// Begun at or after.
    pub from: Option<Moment>,
    /// Begun before.
    pub to: Option<Moment>,
    /// The row of this trace.
    pub trace: Option<TraceId>,
}

/// A row of `prompt_performance_metrics`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// Primary key.
    pub id: Uuid,
    /// Whose.
    pub prompt_id: Uuid,
    /// latency_p50, latency_p90, latency_p99, tokens_per_second, success_rate, error_rate.
    pub metric_type: String,
    /// Its value.
    pub value: f64,
    /// Start of the window.
    pub timestamp: Moment,
    /// 1h, 1d, 7d, 30d.
    pub aggregation_window: String,
    /// When the row was made.
    pub created_at: Moment,
}

/// Which metrics of a prompt; all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct MetricFilter {
    /// Of these windows.
    pub window: Option<Window>,
    /// Of windows that start at or after.
    pub from: Option<Moment>,
    /// Of windows that start before.
    pub to: Option<Moment>,
}

/// A row of `prompt_performance_summary`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Whose.
    pub prompt_id: Uuid,
    /// Its title.
    pub prompt_title: String,
    /// All there ever were.
    pub total_traces: i64,
    /// All there ever were.
    pub total_evaluations: i64,
    /// Milliseconds.
    pub avg_latency: Option<f64>,
    /// Milliseconds.
    pub median_latency: Option<f64>,
    /// Milliseconds.
    pub p95_latency: Option<f64>,
    /// 0 to 1.
    pub success_rate: Option<f64>,
    /// Tokens in all, per trace.
    pub avg_tokens: Option<f64>,
    /// Start of the latest trace.
    pub last_used_at: Option<Moment>,
}

/// How the database answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// How long a connection was waited for.
    pub acquire: Duration,
    /// How long the smallest query took.
    pub query: Duration,
}

/// The connections for reading (PostgreSQL: for everything).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// Held by someone.
    pub in_use: u32,
    /// Open and free.
    pub idle: u32,
    /// Open at most.
    pub max: u32,
}

/// How much there is, for the status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Rows of `prompts`, without the reserved one.
    pub prompts: i64,
    /// Rows of `prompt_traces`, as published.
    pub traces: i64,
    /// Of these, rows that belong to no prompt.
    pub unassigned: i64,
    /// Traces that still take in spans.
    pub open_traces: i64,
    /// Traces whose root is waited for.
    pub rootless: i64,
    /// Marks that wait for [`crate::Store::publish`].
    pub unpublished: i64,
}

const TRACE: &str = "SELECT id, prompt_id, phoenix_trace_id, session_id, execution_time_ms, tokens_used, model, status, error, metadata,
     created_at, user_id FROM public.prompt_traces WHERE true";

impl Store {
    /// The newest traces of each of some prompts, in a statement for a hundred prompts at a time.
    pub async fn traces_of(&self, asked: &OfPrompts) -> Result<Vec<Trace>, Error> {
        self.newest(TRACE, asked, trace).await
    }

    /// The newest rows that `select` finds, a statement that ends where conditions follow, of each of some prompts.
    pub(crate) async fn newest<T>(
        &self,
        select: &str,
        asked: &OfPrompts,
        read: fn(&Line) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        for prompts in asked.prompts.chunks(OF_PROMPTS) {
            let mut ask = Ask::default();
            for (n, prompt) in prompts.iter().enumerate() {
                ask.push(if n == 0 { "SELECT * FROM (" } else { " UNION ALL SELECT * FROM (" }, []);
                ask.push(select, []).push(" AND prompt_id = ?", binds![*prompt]);
                if let Some(status) = &asked.status {
                    ask.push(" AND status = ?", binds![status]);
                }
                if let Some(session) = asked.session {
                    ask.push(" AND session_id = ?", binds![session]);
                }
                let limit = page(asked.first) as i64;
                ask.push(" ORDER BY created_at DESC, id DESC LIMIT ?) AS newest", binds![limit]);
            }
            for line in self.lines(&ask.sql, &ask.binds).await? {
                found.push(read(&line)?);
            }
        }
        Ok(found)
    }
}

fn trace(line: &Line) -> Result<Trace, Fault> {
    let json =
        |at: usize| RawValue::from_string(line.text(at)?).map_err(|source| Fault::Refused { source: source.into() });
    Ok(Trace {
        id: line.id(0)?,
        prompt_id: line.id(1)?,
        phoenix_trace_id: line.text(2)?,
        session_id: line.maybe_id(3)?,
        execution_time_ms: i32::try_from(line.int(4)?).unwrap_or(i32::MAX),
        tokens_used: json(5)?,
        model: line.text(6)?,
        status: line.text(7)?,
        error: line.maybe_text(8)?,
        metadata: json(9)?,
        created_at: line.moment(10)?,
        user_id: line.maybe_id(11)?,
    })
}
