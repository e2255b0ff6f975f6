//! What the API reads, from PostgreSQL.

use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::{Postgres as Pg, QueryBuilder, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Postgres;
use super::fault::fault;
use crate::Moment;
use crate::fault::Fault;
use crate::library::{
    Counts, METRICS_MAX, Metric, MetricFilter, Page, Place, Prompt, Summary, Trace, TraceFilter, UNASSIGNED,
};

/// Another's table of prompts has an id, a title and a time; the rest is taken as it comes.
const PROMPT: &str = "SELECT p.id, p.title::text AS title, to_jsonb(p) ->> 'content' AS content,
     to_jsonb(p) ->> 'created_by' AS created_by, p.created_at FROM public.prompts p";
const SUMMARY: &str = "SELECT s.prompt_id, s.prompt_title::text AS prompt_title, s.total_traces, s.total_evaluations, s.avg_latency,
     s.median_latency, s.p95_latency, s.success_rate, s.avg_tokens, s.last_used_at FROM public.prompt_performance_summary s";

impl Postgres {
    pub(crate) async fn prompts(&self, after: Option<Place>, limit: usize) -> Result<Page<Prompt>, Fault> {
        let mut query = QueryBuilder::<Pg>::new(PROMPT);
        if let Some(Place { at, id }) = after {
            query.push(" WHERE (p.created_at, p.id) < (").push_bind(at.datetime()).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY p.created_at DESC, p.id DESC LIMIT ").push_bind(limit as i64 + 1);
        let rows = query.build().fetch_all(self.reading().await?.connection()).await.map_err(fault)?;
        let prompts = rows.iter().map(prompt).collect::<Result<_, _>>()?;
        Ok(Page::cut(prompts, limit, |prompt: &Prompt| Place { at: prompt.created_at, id: prompt.id }))
    }

    pub(crate) async fn prompt(&self, id: Uuid) -> Result<Option<Prompt>, Fault> {
        let mut query = QueryBuilder::<Pg>::new(PROMPT);
        query.push(" WHERE p.id = ").push_bind(id);
        query
            .build()
            .fetch_optional(self.reading().await?.connection())
            .await
            .map_err(fault)?
            .as_ref()
            .map(prompt)
            .transpose()
    }

    pub(crate) async fn performance(&self, prompt: Uuid, filter: &MetricFilter) -> Result<Vec<Metric>, Fault> {
        let mut query = QueryBuilder::<Pg>::new(
            "SELECT id, prompt_id, metric_type, value::float8 AS value, \"timestamp\", aggregation_window, created_at
             FROM public.prompt_performance_metrics WHERE prompt_id = ",
        );
        query.push_bind(prompt);
        if let Some(window) = filter.window {
            query.push(" AND aggregation_window = ").push_bind(window.as_str());
        }
        if let Some(from) = filter.from {
            query.push(" AND \"timestamp\" >= ").push_bind(from.datetime());
        }
        if let Some(to) = filter.to {
            query.push(" AND \"timestamp\" < ").push_bind(to.datetime());
        }
        query.push(" ORDER BY \"timestamp\" DESC, aggregation_window, metric_type LIMIT ").push_bind(METRICS_MAX);
        query.build().fetch_all(self.reading().await?.connection()).await.map_err(fault)?.iter().map(metric).collect()
    }

    pub(crate) async fn traces(
        &self,
        filter: &TraceFilter,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Page<Trace>, Fault> {
        let mut query = QueryBuilder::<Pg>::new(
            "SELECT id, prompt_id, phoenix_trace_id, session_id, execution_time_ms, tokens_used::text AS tokens_used, model, status,
                 error, metadata::text AS metadata, created_at, user_id FROM public.prompt_traces WHERE true",
        );
        if let Some(prompt) = filter.prompt_id {
            query.push(" AND prompt_id = ").push_bind(prompt);
        }
        if let Some(trace) = filter.trace {
            query.push(" AND phoenix_trace_id = ").push_bind(trace.to_string());
        }
        if let Some(status) = filter.status {
            query.push(" AND status = ").push_bind(status.as_str());
        }
        if let Some(session) = filter.session_id {
            query.push(" AND session_id = ").push_bind(session);
        }
        if let Some(model) = &filter.model {
            query.push(" AND model = ").push_bind(model.as_str());
        }
        if let Some(from) = filter.from {
            query.push(" AND created_at >= ").push_bind(from.datetime());
        }
        if let Some(to) = filter.to {
            query.push(" AND created_at < ").push_bind(to.datetime());
        }
        if let Some(Place { at, id }) = after {
            query.push(" AND (created_at, id) < (").push_bind(at.datetime()).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(limit as i64 + 1);
        let rows = query.build().fetch_all(self.reading().await?.connection()).await.map_err(fault)?;
        let traces = rows.iter().map(trace).collect::<Result<_, _>>()?;
        Ok(Page::cut(traces, limit, |trace: &Trace| Place { at: trace.created_at, id: trace.id }))
    }

    pub(crate) async fn summary(&self, prompt: Uuid) -> Result<Option<Summary>, Fault> {
        let mut query = QueryBuilder::<Pg>::new(SUMMARY);
        query.push(" WHERE s.prompt_id = ").push_bind(prompt);
        query
            .build()
            .fetch_optional(self.reading().await?.connection())
            .await
            .map_err(fault)?
            .as_ref()
            .map(summary)
            .transpose()
    }

    pub(crate) async fn summaries(&self, limit: usize) -> Result<Vec<Summary>, Fault> {
        let mut query = QueryBuilder::<Pg>::new(SUMMARY);
        query.push(" ORDER BY s.last_used_at DESC NULLS LAST, s.prompt_id LIMIT ").push_bind(limit as i64);
        query.build().fetch_all(self.reading().await?.connection()).await.map_err(fault)?.iter().map(summary).collect()
    }

    pub(crate) async fn counts(&self) -> Result<Counts, Fault> {
        let (prompts, traces, unassigned, open_traces, rootless, unpublished) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM public.prompts WHERE id <> $1),
                 (SELECT coalesce(sum(traces), 0)::bigint FROM emberd.totals),
                 (SELECT coalesce(sum(traces), 0)::bigint FROM emberd.totals WHERE prompt_id = $1),
                 (SELECT count(*) FROM emberd.trace_state),
                 (SELECT count(*) FROM emberd.trace_state WHERE waiting),
                 (SELECT count(*) FROM emberd.dirty)",
        )
        .bind(UNASSIGNED)
        .fetch_one(&self.pool)
        .await
        .map_err(fault)?;
        Ok(Counts { prompts, traces, unassigned, open_traces, rootless, unpublished })
    }
}

fn prompt(row: &PgRow) -> Result<Prompt, Fault> {
    let created_by: Option<String> = row.try_get("created_by").map_err(fault)?;
    Ok(Prompt {
        id: row.try_get("id").map_err(fault)?,
        title: row.try_get("title").map_err(fault)?,
        content: row.try_get("content").map_err(fault)?,
        created_by: created_by.and_then(|id| Uuid::try_parse(&id).ok()),
        created_at: at(row, "created_at")?,
    })
}

fn metric(row: &PgRow) -> Result<Metric, Fault> {
    Ok(Metric {
        id: row.try_get("id").map_err(fault)?,
        prompt_id: row.try_get("prompt_id").map_err(fault)?,
        metric_type: row.try_get("metric_type").map_err(fault)?,
        value: row.try_get("value").map_err(fault)?,
        timestamp: at(row, "timestamp")?,
        aggregation_window: row.try_get("aggregation_window").map_err(fault)?,
        created_at: at(row, "created_at")?,
    })
}

fn trace(row: &PgRow) -> Result<Trace, Fault> {
    Ok(Trace {
        id: row.try_get("id").map_err(fault)?,
        prompt_id: row.try_get("prompt_id").map_err(fault)?,
        phoenix_trace_id: row.try_get("phoenix_trace_id").map_err(fault)?,
        session_id: row.try_get("session_id").map_err(fault)?,
        execution_time_ms: row.try_get("execution_time_ms").map_err(fault)?,
        tokens_used: json(row, "tokens_used")?,
        model: row.try_get("model").map_err(fault)?,
        status: row.try_get("status").map_err(fault)?,
        error: row.try_get("error").map_err(fault)?,
        metadata: json(row, "metadata")?,
        created_at: at(row, "created_at")?,
        user_id: row.try_get("user_id").map_err(fault)?,
    })
}

fn summary(row: &PgRow) -> Result<Summary, Fault> {
    let last_used_at: Option<OffsetDateTime> = row.try_get("last_used_at").map_err(fault)?;
    Ok(Summary {
        prompt_id: row.try_get("prompt_id").map_err(fault)?,
        prompt_title: row.try_get("prompt_title").map_err(fault)?,
        total_traces: row.try_get("total_traces").map_err(fault)?,
        total_evaluations: row.try_get("total_evaluations").map_err(fault)?,
        avg_latency: row.try_get("avg_latency").map_err(fault)?,
        median_latency: row.try_get("median_latency").map_err(fault)?,
        p95_latency: row.try_get("p95_latency").map_err(fault)?,
        success_rate: row.try_get("success_rate").map_err(fault)?,
        avg_tokens: row.try_get("avg_tokens").map_err(fault)?,
        last_used_at: last_used_at.map(Moment::from),
    })
}

fn at(row: &PgRow, column: &str) -> Result<Moment, Fault> {
    row.try_get::<OffsetDateTime, _>(column).map(Moment::from).map_err(fault)
}

fn json(row: &PgRow, column: &str) -> Result<Box<RawValue>, Fault> {
    let text: String = row.try_get(column).map_err(fault)?;
    RawValue::from_string(text).map_err(|source| Fault::Refused { source: source.into() })
}
