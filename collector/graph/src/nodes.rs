//! The types that a client sees: the tables' columns in camelCase.

use std::sync::Arc;

use async_graphql::dataloader::DataLoader;
use async_graphql::{ComplexObject, Context, Enum, ID, Json, Object, Result, SimpleObject};
use emberd_identity::Permission;
use emberd_model::rollup::Window;
use emberd_model::row::Status;
use emberd_store::jobs::{self, EvaluationFilter};
use emberd_store::library::{self, MetricFilter, TraceFilter};
use emberd_store::{Error, Moment};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::Asker;
use crate::together::{EvaluationsOf, Newest, TracesOf};

const FIRST: u32 = 20;
const FIRST_MAX: u32 = 200;

/// The entry points.
pub(crate) struct Query;

#[Object]
impl Query {
    /// Evaluations, newest first.
    #[graphql(complexity = "cost(first, child_complexity)")]
    async fn evaluations(
        &self,
        ctx: &Context<'_>,
        prompt_id: Option<ID>,
        status: Option<EvaluationStatus>,
        first: Option<u32>,
        after: Option<String>,
    ) -> Result<Vec<Evaluation>> {
        let asker = asker(ctx, Permission::ReadEvaluations)?;
        let filter = EvaluationFilter {
            prompt: prompt_id.map(|id| uuid(&id)).transpose()?,
            status: status.map(|status| status.word().to_owned()),
            creator: None,
        };
        let page = asker.store.evaluations(&filter, after.as_deref(), bounded(first)).await.map_err(told)?;
        Ok(page.data.into_iter().map(|row| Evaluation::from(Arc::new(row))).collect())
    }

    /// Traces, newest first.
    #[graphql(complexity = "cost(first, child_complexity)")]
    async fn traces(
        &self,
        ctx: &Context<'_>,
        prompt_id: Option<ID>,
        session_id: Option<ID>,
        status: Option<TraceStatus>,
        first: Option<u32>,
        after: Option<String>,
    ) -> Result<Vec<Trace>> {
        let asker = asker(ctx, Permission::ReadTraces)?;
        let filter = TraceFilter {
            prompt_id: prompt_id.map(|id| uuid(&id)).transpose()?,
            session_id: session_id.as_ref().map(session),
            status: status.map(TraceStatus::status),
            ..TraceFilter::default()
        };
        let page = asker.store.traces(&filter, after.as_deref(), bounded(first)).await.map_err(told)?;
        Ok(page.data.into_iter().map(|row| Trace::from(Arc::new(row))).collect())
    }

    /// A prompt by its key, for a gateway.
    #[graphql(entity)]
    async fn find_prompt_by_id(&self, id: ID) -> Result<Prompt> {
        Ok(Prompt { key: uuid(&id)?, id })
    }

    /// An evaluation by its key, for a gateway.
    #[graphql(entity)]
    async fn find_evaluation_by_id(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Evaluation>> {
        let asker = asker(ctx, Permission::ReadEvaluations)?;
        let row = asker.store.evaluation(uuid(&id)?).await.map_err(told)?;
        Ok(row.map(|row| Evaluation::from(Arc::new(row))))
    }
}

/// A prompt, completed with what emberd knows of it.
#[derive(SimpleObject)]
#[graphql(complex)]
pub(crate) struct Prompt {
    /// The row of `prompts`.
    id: ID,
    #[graphql(skip)]
    key: Uuid,
}

#[ComplexObject]
impl Prompt {
    /// Its evaluations, newest first.
    #[graphql(complexity = "cost(first, child_complexity)")]
    async fn evaluations(
        &self,
        ctx: &Context<'_>,
        status: Option<EvaluationStatus>,
        first: Option<u32>,
    ) -> Result<Vec<Evaluation>> {
        asker(ctx, Permission::ReadEvaluations)?;
        let status = status.map(|status| status.word().to_owned());
        let asked = Newest { prompt: self.key, status, session: None, first: bounded(first) };
        let rows =
            ctx.data::<DataLoader<EvaluationsOf>>()?.load_one(asked).await.map_err(|error| told_shared(&error))?;
        Ok(rows.unwrap_or_default().into_iter().map(Evaluation::from).collect())
    }

    /// Its traces, newest first.
    #[graphql(complexity = "cost(first, child_complexity)")]
    async fn traces(
        &self,
        ctx: &Context<'_>,
        session_id: Option<ID>,
        status: Option<TraceStatus>,
        first: Option<u32>,
    ) -> Result<Vec<Trace>> {
        asker(ctx, Permission::ReadTraces)?;
        let status = status.map(|status| status.status().as_str().to_owned());
        let session = session_id.as_ref().map(session);
        let asked = Newest { prompt: self.key, status, session, first: bounded(first) };
        let rows = ctx.data::<DataLoader<TracesOf>>()?.load_one(asked).await.map_err(|error| told_shared(&error))?;
        Ok(rows.unwrap_or_default().into_iter().map(Trace::from).collect())
    }

    /// Its numbers: percentiles and rates of a window, latest first.
    #[graphql(complexity = "100 + child_complexity")]
    async fn performance(&self, ctx: &Context<'_>, window: Option<PerformanceWindow>) -> Result<Vec<Metric>> {
        let asker = asker(ctx, Permission::ReadTraces)?;
        let filter = MetricFilter { window: window.map(PerformanceWindow::window), from: None, to: None };
        let found = asker.store.performance(self.key, &filter).await.map_err(told)?;
        Ok(found.into_iter().take(FIRST_MAX as usize).map(Metric::from).collect())
    }
}

/// A row of `prompt_evaluations`.
#[derive(SimpleObject)]
#[graphql(complex)]
pub(crate) struct Evaluation {
    id: ID,
    prompt_id: ID,
    phoenix_eval_id: String,
    name: String,
    description: Option<String>,
    status: String,
    config: Json<Value>,
    results: Option<Json<Value>>,
    metrics: Option<Json<Value>>,
    error: Option<String>,
    started_at: Option<String>,
    completed_at: Option<String>,
    created_at: String,
    created_by: ID,
    updated_at: String,
    /// What `after` takes to go on behind it.
    cursor: String,
    #[graphql(skip)]
    key: Uuid,
}

#[ComplexObject]
impl Evaluation {
    /// Whose it is.
    async fn prompt(&self) -> Prompt {
        Prompt { id: id(self.key), key: self.key }
    }
}

impl From<Arc<jobs::Evaluation>> for Evaluation {
    fn from(row: Arc<jobs::Evaluation>) -> Self {
        Self {
            id: id(row.id),
            prompt_id: id(row.prompt_id),
            phoenix_eval_id: row.phoenix_eval_id.clone(),
            name: row.name.clone(),
            description: row.description.clone(),
            status: row.status.clone(),
            config: Json(row.config.clone()),
            results: row.results.clone().map(Json),
            metrics: row.metrics.clone().map(Json),
            error: row.error.clone(),
            started_at: row.started_at.map(|at| at.to_string()),
            completed_at: row.completed_at.map(|at| at.to_string()),
            created_at: row.created_at.to_string(),
            created_by: id(row.created_by),
            updated_at: row.updated_at.to_string(),
            cursor: cursor(row.created_at, row.id),
            key: row.prompt_id,
        }
    }
}

/// A row of `prompt_traces`.
#[derive(SimpleObject)]
#[graphql(complex)]
pub(crate) struct Trace {
    id: ID,
    prompt_id: ID,
    phoenix_trace_id: String,
    session_id: Option<ID>,
    execution_time_ms: i32,
    tokens_used: Json<Value>,
    model: String,
    status: String,
    error: Option<String>,
    metadata: Json<Value>,
    created_at: String,
    user_id: Option<ID>,
    /// What `after` takes to go on behind it.
    cursor: String,
    #[graphql(skip)]
    key: Uuid,
}

#[ComplexObject]
impl Trace {
    /// Whose it is.
    async fn prompt(&self) -> Prompt {
        Prompt { id: id(self.key), key: self.key }
    }
}

impl From<Arc<library::Trace>> for Trace {
    fn from(row: Arc<library::Trace>) -> Self {
        let json = |text: &RawValue| Json(serde_json::from_str(text.get()).unwrap_or(Value::Null));
        Self {
            id: id(row.id),
            prompt_id: id(row.prompt_id),
            phoenix_trace_id: row.phoenix_trace_id.clone(),
            session_id: row.session_id.map(id),
            execution_time_ms: row.execution_time_ms,
            tokens_used: json(&row.tokens_used),
            model: row.model.clone(),
            status: row.status.clone(),
            error: row.error.clone(),
            metadata: json(&row.metadata),
            created_at: row.created_at.to_string(),
            user_id: row.user_id.map(id),
            cursor: cursor(row.created_at, row.id),
            key: row.prompt_id,
        }
    }
}

/// A row of `prompt_performance_metrics`.
#[derive(SimpleObject)]
pub(crate) struct Metric {
    metric_type: String,
    value: f64,
    timestamp: String,
    aggregation_window: String,
}

impl From<library::Metric> for Metric {
    fn from(row: library::Metric) -> Self {
        let (metric_type, aggregation_window) = (row.metric_type, row.aggregation_window);
        Self { metric_type, value: row.value, timestamp: row.timestamp.to_string(), aggregation_window }
    }
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(rename_items = "lowercase")]
pub enum EvaluationStatus {
    /// Not begun.
    Pending,
    /// Begun.
    Running,
    /// Over, with results.
    Completed,
    /// Over, without.
    Failed,
    /// Given up.
    Cancelled,
}

impl EvaluationStatus {
    fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How a trace went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(rename_items = "lowercase")]
pub enum TraceStatus {
    /// Well.
    Success,
    /// Not well.
    Error,
    /// Not in time.
    Timeout,
}

impl TraceStatus {
    fn status(self) -> Status {
        match self {
            Self::Success => Status::Success,
            Self::Error => Status::Error,
            Self::Timeout => Status::Timeout,
        }
    }
}

/// Over how much time numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum PerformanceWindow {
    /// 1h.
    Hour,
    /// 1d.
    Day,
    /// 7d.
    SevenDays,
    /// 30d.
    ThirtyDays,
}

impl PerformanceWindow {
    fn window(self) -> Window {
        let [hour, day, seven, thirty] = Window::ALL;
        match self {
            Self::Hour => hour,
            Self::Day => day,
            Self::SevenDays => seven,
            Self::ThirtyDays => thirty,
        }
    }
}

/// What a list costs: each entry what it is asked for.
fn cost(first: Option<u32>, each: usize) -> usize {
    1 + first.unwrap_or(FIRST).clamp(1, FIRST_MAX) as usize * (1 + each)
}

fn bounded(first: Option<u32>) -> u32 {
    first.unwrap_or(FIRST).clamp(1, FIRST_MAX)
}

fn asker<'c>(ctx: &Context<'c>, permission: Permission) -> Result<&'c Asker> {
    let asker = ctx.data::<Asker>()?;
    asker.may(permission)?;
    Ok(asker)
}

fn id(id: Uuid) -> ID {
    ID(id.to_string())
}

fn uuid(id: &ID) -> Result<Uuid> {
    Uuid::parse_str(id).map_err(|_| async_graphql::Error::new("an id is a UUID"))
}

/// A session by its id, or the text that the application calls it by (spec/2, session_id).
fn session(id: &ID) -> Uuid {
    Uuid::parse_str(id).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_URL, id.as_bytes()))
}

fn cursor(at: Moment, id: Uuid) -> String {
    library::cursor(at, id)
}

/// The database's trouble, without its details.
fn told(error: Error) -> async_graphql::Error {
    told_shared(&Arc::new(error))
}

fn told_shared(error: &Arc<Error>) -> async_graphql::Error {
    async_graphql::Error::new(match &**error {
        Error::BadCursor => "`after` is no cursor of this list",
        Error::Unavailable { .. } => "the database is unavailable",
        Error::Refused { .. } => "the database refuses",
    })
}
