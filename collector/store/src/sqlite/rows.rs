//! SQLite's rows as our words.

use emberd_model::TraceId;
use emberd_model::rollup::{Contribution, Rollup};
use emberd_model::row::Tokens;
use emberd_model::sketch::Sketch;
use rusqlite::Row;
use rusqlite::types::FromSql;
use uuid::Uuid;

use super::fault::fault;
use super::traces::MICROS_PER_MINUTE;
use crate::Moment;
use crate::fault::Fault;
use crate::tx::{Counted, Key, Orphan, Resolution, Stored, status};

/// The columns of [`stored`], in its order, behind one of the statement's own.
pub(super) const STORED: &str = "s.trace_id, s.version, s.no, s.first_seen_micros, s.touched_minute, s.waiting, s.prompt_id, s.hour, \
     s.latency_ms, s.status, s.prompt_tokens, s.completion_tokens, s.total_tokens, s.llm_time_ms, s.state";
/// The columns of [`rollup`], in its order.
pub(super) const ROLLUP: &str = "r.prompt_id, r.resolution, r.bucket, r.success, r.error, r.timeout, r.latency_sum_ms, \
     r.prompt_tokens, r.completion_tokens, r.total_tokens, r.llm_time_ms, r.sketch";

pub(super) fn column<T: FromSql>(row: &Row<'_>, at: usize) -> Result<T, Fault> {
    row.get(at).map_err(fault)
}

fn text<'a>(row: &'a Row<'_>, at: usize) -> Result<&'a str, Fault> {
    row.get_ref(at).map_err(fault)?.as_str().map_err(|source| Fault::Refused { source: source.into() })
}

fn blob<'a>(row: &'a Row<'_>, at: usize) -> Result<&'a [u8], Fault> {
    row.get_ref(at).map_err(fault)?.as_blob().map_err(|source| Fault::Refused { source: source.into() })
}

pub(super) fn uuid(row: &Row<'_>, at: usize) -> Result<Uuid, Fault> {
    let text = text(row, at)?;
    Uuid::try_parse(text).map_err(|_| Fault::damaged("the id", text))
}

pub(super) fn moment(row: &Row<'_>, at: usize) -> Result<Moment, Fault> {
    let text = text(row, at)?;
    text.parse().map_err(|_| Fault::damaged("the time", text))
}

pub(super) fn stored(row: &Row<'_>) -> Result<Stored, Fault> {
    let trace = TraceId::from_wire(blob(row, 1)?).ok_or_else(|| Fault::damaged("the trace id", "a state"))?;
    let counted = match row.get_ref(7).map_err(fault)? {
        rusqlite::types::ValueRef::Null => None,
        _ => Some(Counted { prompt: uuid(row, 7)?, contribution: contribution(row)? }),
    };
    Ok(Stored {
        trace,
        place: column(row, 3)?,
        version: column(row, 2)?,
        state: column(row, 15)?,
        first_seen: Moment::from_micros(column(row, 4)?),
        touched: Moment::from_micros(column::<i64>(row, 5)?.saturating_mul(MICROS_PER_MINUTE)),
        waiting: column(row, 6)?,
        counted,
    })
}

fn contribution(row: &Row<'_>) -> Result<Contribution, Fault> {
    Ok(Contribution {
        hour: column(row, 8)?,
        latency_ms: column::<i64>(row, 9)? as u64,
        status: status(text(row, 10)?)?,
        tokens: Tokens { prompt: column(row, 11)?, completion: column(row, 12)?, total: column(row, 13)? },
        llm_time_ms: column::<i64>(row, 14)? as u64,
    })
}

pub(super) fn rollup(row: &Row<'_>) -> Result<(Key, Rollup), Fault> {
    let prompt = uuid(row, 0)?;
    let resolution =
        Resolution::parse(text(row, 1)?).ok_or_else(|| Fault::damaged("the resolution of a rollup", prompt))?;
    let rollup = Rollup {
        latency: Sketch::decode(blob(row, 11)?).map_err(|source| Fault::Refused { source: source.into() })?,
        success: column(row, 3)?,
        error: column(row, 4)?,
        timeout: column(row, 5)?,
        latency_sum_ms: column(row, 6)?,
        prompt_tokens: column(row, 7)?,
        completion_tokens: column(row, 8)?,
        total_tokens: column(row, 9)?,
        llm_time_ms: column(row, 10)?,
    };
    Ok((Key { prompt, resolution, bucket: column(row, 2)? }, rollup))
}

pub(super) fn orphan(row: &Row<'_>) -> Result<Orphan, Fault> {
    let llm_time_ms: Option<String> = column(row, 6)?;
    Orphan::read(
        text(row, 0)?,
        column(row, 1)?,
        moment(row, 2)?,
        column(row, 3)?,
        text(row, 4)?,
        text(row, 5)?,
        llm_time_ms.as_deref(),
    )
}
