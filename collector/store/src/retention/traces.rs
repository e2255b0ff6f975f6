//! Rows of `prompt_traces` that go, and what is remembered of them.

use emberd_model::TraceId;

use super::{Batch, Mark, Old};
use crate::fault::Fault;
use crate::sql::{Bind, binds};
use crate::tx::Tx;

/// Old rows in the order of their time, each with whether its state still takes in spans. Rows that stay are passed by, so that each
/// batch looks at so many rows, whatever they are.
fn pick(is_sqlite: bool) -> String {
    let state = match is_sqlite {
        true => "SELECT 1 FROM emberd_trace_state s WHERE s.no = t.emberd_no AND lower(hex(s.trace_id)) = t.phoenix_trace_id",
        false => {
            "SELECT 1 FROM emberd.trace_state s
             WHERE s.trace_id = CASE WHEN t.phoenix_trace_id ~ '^[0-9a-f]{32}$' THEN decode(t.phoenix_trace_id, 'hex') END"
        }
    };
    format!(
        "SELECT t.id, t.created_at, t.phoenix_trace_id, EXISTS ({state}) FROM public.prompt_traces t
         WHERE t.created_at < $1 AND (t.created_at, t.id) > ($2, $3) ORDER BY t.created_at, t.id LIMIT $4"
    )
}

pub(super) async fn delete<T: Tx>(tx: &mut T, old: &Old) -> Result<Batch, Fault> {
    let from = old.from.clone().unwrap_or_else(Mark::first);
    let sql = pick(tx.is_sqlite());
    let rows = tx.query(&sql, &binds![old.before, from.at, from.id, i64::from(old.rows)]).await?;
    let next = match rows.last() {
        Some(last) if rows.len() >= old.rows as usize => Some(Mark { at: last.moment(1)?, id: last.id(0)? }),
        _ => None,
    };
    let mut gone = Vec::new();
    for row in &rows {
        if !row.bool(3)? {
            gone.push(row.text(2)?);
        }
    }
    old.locks.begin();
    let deleted = forget(tx, gone, old.now.micros()).await?;
    Ok(Batch { deleted, next, ..Batch::default() })
}

/// Deletes the rows of these traces, and remembers the traces.
pub(crate) async fn forget<T: Tx>(tx: &mut T, traces: Vec<String>, now: i64) -> Result<u64, Fault> {
    if traces.is_empty() {
        return Ok(0);
    }
    remember(tx, traces.iter().filter_map(|trace| trace.parse().ok()), now).await?;
    let sql = "DELETE FROM public.prompt_traces WHERE phoenix_trace_id = ANY($1)";
    tx.execute(sql, &[Bind::Texts(traces)]).await
}

/// Remembers traces: what comes for them from now on is late.
pub(crate) async fn remember<T: Tx>(
    tx: &mut T,
    traces: impl Iterator<Item = TraceId> + Send,
    now: i64,
) -> Result<(), Fault> {
    let mut ids: Vec<TraceId> = traces.collect();
    // One order for all, so that no two wait for each other.
    ids.sort_unstable();
    let rows: Vec<Vec<Bind<'_>>> = ids.iter().map(|id| binds![&id.0[..], now].into()).collect();
    if !rows.is_empty() {
        tx.insert("emberd.forgotten (trace_id, at)", "$1, $2", "ON CONFLICT DO NOTHING", &rows).await?;
    }
    Ok(())
}
