//! PostgreSQL's rows as our words.

use emberd_model::TraceId;
use emberd_model::rollup::{Contribution, Rollup};
use emberd_model::row::Tokens;
use emberd_model::sketch::Sketch;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::fault::fault;
use crate::Moment;
use crate::fault::Fault;
use crate::tx::{Counted, Found, Key, Orphan, Resolution, Stored, status};

pub(super) fn found(rows: Vec<(Uuid, Option<String>)>) -> Found {
    let mut found = Found::default();
    for (id, text) in rows {
        match text {
            Some(text) => {
                found.texts.insert(text, id);
            }
            None => found.ids.push(id),
        }
    }
    found
}

fn trace_id(bytes: &[u8]) -> Result<TraceId, Fault> {
    TraceId::from_wire(bytes).ok_or_else(|| Fault::damaged("the trace id", "a state"))
}

pub(super) fn stored(row: &PgRow) -> Result<Stored, Fault> {
    let at = |name| row.try_get::<OffsetDateTime, _>(name).map(Moment::from).map_err(fault);
    let trace = trace_id(row.try_get("trace_id").map_err(fault)?)?;
    let counted = match row.try_get::<Option<Uuid>, _>("prompt_id").map_err(fault)? {
        Some(prompt) => Some(Counted { prompt, contribution: contribution(row)? }),
        None => None,
    };
    Ok(Stored {
        trace,
        place: 0,
        version: row.try_get("version").map_err(fault)?,
        state: row.try_get("state").map_err(fault)?,
        first_seen: at("first_seen_at")?,
        touched: at("touched_at")?,
        waiting: row.try_get("waiting").map_err(fault)?,
        counted,
    })
}

fn contribution(row: &PgRow) -> Result<Contribution, Fault> {
    let number = |name| row.try_get::<i64, _>(name).map_err(fault);
    let text: &str = row.try_get("status").map_err(fault)?;
    Ok(Contribution {
        hour: number("hour")?,
        latency_ms: number("latency_ms")? as u64,
        status: status(text)?,
        tokens: Tokens {
            prompt: number("prompt_tokens")?,
            completion: number("completion_tokens")?,
            total: number("total_tokens")?,
        },
        llm_time_ms: number("llm_time_ms")? as u64,
    })
}

pub(super) fn rollup(row: &PgRow) -> Result<(Key, Rollup), Fault> {
    let number = |name| row.try_get::<i64, _>(name).map_err(fault);
    let prompt: Uuid = row.try_get("prompt_id").map_err(fault)?;
    let resolution: &str = row.try_get("resolution").map_err(fault)?;
    let resolution =
        Resolution::parse(resolution).ok_or_else(|| Fault::damaged("the resolution of a rollup", prompt))?;
    let latency = Sketch::decode(row.try_get("sketch").map_err(fault)?)
        .map_err(|source| Fault::Refused { source: source.into() })?;
    let rollup = Rollup {
        latency,
        success: number("success")?,
        error: number("error")?,
        timeout: number("timeout")?,
        latency_sum_ms: number("latency_sum_ms")?,
        prompt_tokens: number("prompt_tokens")?,
        completion_tokens: number("completion_tokens")?,
        total_tokens: number("total_tokens")?,
        llm_time_ms: number("llm_time_ms")?,
    };
    Ok((Key { prompt, resolution, bucket: number("bucket")? }, rollup))
}

pub(super) fn orphan(row: &PgRow) -> Result<Orphan, Fault> {
    let created: OffsetDateTime = row.try_get("created_at").map_err(fault)?;
    Orphan::read(
        row.try_get("phoenix_trace_id").map_err(fault)?,
        row.try_get("prompt_ref").map_err(fault)?,
        created.into(),
        row.try_get("execution_time_ms").map_err(fault)?,
        row.try_get("status").map_err(fault)?,
        row.try_get("tokens").map_err(fault)?,
        row.try_get("llm_time_ms").map_err(fault)?,
    )
}
