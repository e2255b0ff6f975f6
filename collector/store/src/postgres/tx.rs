//! The statements of a transaction, for PostgreSQL: one a table, its rows as arrays.
//!
//! Every array is sorted by key, so that two writers take locks in one order. Every name is qualified: a role called `emberd`
//! has the schema `emberd` first on its search path.
//!
//! Plans are kept, also one that was made while a table was empty, and then all plans look alike. So statements leave no choice:
//! `LATERAL` with `LIMIT`, `OFFSET` or `FOR UPDATE` goes from key to row and cannot be turned around, and `(x = y) IS TRUE` fits only
//! the partial index that says the same. Kept by `tests::faults::a_plan_made_for_empty_tables_does_not_scan_full_ones`.

use std::collections::{BTreeMap, HashSet};

use emberd_model::ledger::{Account, Fate, Hour, Tally};
use emberd_model::rollup::{Contribution, Rollup};
use emberd_model::row::Tokens;
use emberd_model::{Offset, TraceId};
use sqlx::{Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::fault::fault;
use super::rows::{found, orphan, rollup, stored};
use crate::Moment;
use crate::fault::Fault;
use crate::library::{Prompt, UNASSIGNED};
use crate::record::Writer;
use crate::text::without_nul;
use crate::tx::{Buckets, Counted, Found, Key, Known, Measured, Orphan, Resolved, Stored, Totals, Tx, line};

/// One for all emberds on a database: who publishes.
const PUBLISHER_LOCK: i64 = 0x656d_6265_7264_0001;

pub(crate) struct PgTx<'a> {
    pub(super) tx: Transaction<'a, Postgres>,
}

/// The parts of a statement of the trait that are statements of their own here.
impl PgTx<'_> {
    async fn states(&mut self, traces: &[TraceId], lock: bool) -> Result<Vec<Stored>, Fault> {
        let ids: Vec<&[u8]> = traces.iter().map(|trace| &trace.0[..]).collect();
        let rows = match lock {
            true => sqlx::query(
                "SELECT s.* FROM unnest($1::bytea[]) AS k (id)
                 CROSS JOIN LATERAL (SELECT * FROM emberd.trace_state WHERE trace_id = k.id FOR UPDATE) s",
            ),
            false => sqlx::query(
                "SELECT s.* FROM unnest($1::bytea[]) AS k (id)
                 CROSS JOIN LATERAL (SELECT * FROM emberd.trace_state WHERE trace_id = k.id LIMIT 1) s",
            ),
        }
        .bind(ids)
        .fetch_all(&mut *self.tx)
        .await
        .map_err(fault)?;
        rows.iter().map(stored).collect()
    }

    async fn with_row(&mut self, traces: &[TraceId]) -> Result<Vec<TraceId>, Fault> {
        if traces.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = traces.iter().map(TraceId::to_string).collect();
        let rows: Vec<String> = sqlx::query_scalar(
            "SELECT k.id FROM unnest($1::text[], $2::bytea[]) AS k (id, bytes)
             CROSS JOIN LATERAL (
                 (SELECT 1 FROM public.prompt_traces WHERE phoenix_trace_id = k.id LIMIT 1)
                 UNION ALL (SELECT 1 FROM emberd.forgotten WHERE trace_id = k.bytes LIMIT 1) LIMIT 1
             ) t",
        )
        .bind(ids)
        .bind(traces.iter().map(|trace| &trace.0[..]).collect::<Vec<_>>())
        .fetch_all(&mut *self.tx)
        .await
        .map_err(fault)?;
        rows.iter().map(|id| id.parse().map_err(|_| Fault::damaged("the trace id", id))).collect()
    }

    async fn put_states(&mut self, states: &[Stored]) -> Result<(), Fault> {
        if states.is_empty() {
            return Ok(());
        }
        let counted: Vec<Option<&Counted>> = states.iter().map(|state| state.counted.as_ref()).collect();
        let of = |number: fn(&Contribution) -> i64| -> Vec<Option<i64>> {
            counted.iter().map(|counted| counted.map(|counted| number(&counted.contribution))).collect()
        };
        let written = sqlx::query(
            "INSERT INTO emberd.trace_state AS s
                 (trace_id, version, state, first_seen_at, touched_at, waiting, prompt_id, hour, latency_ms, status,
                  prompt_tokens, completion_tokens, total_tokens, llm_time_ms)
             SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::timestamptz[], $5::timestamptz[], $6::boolean[],
                 $7::uuid[], $8::bigint[], $9::bigint[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[])
             ON CONFLICT (trace_id) DO UPDATE SET version = EXCLUDED.version, state = EXCLUDED.state,
                 touched_at = EXCLUDED.touched_at, waiting = EXCLUDED.waiting, prompt_id = EXCLUDED.prompt_id,
                 hour = EXCLUDED.hour, latency_ms = EXCLUDED.latency_ms, status = EXCLUDED.status,
                 prompt_tokens = EXCLUDED.prompt_tokens, completion_tokens = EXCLUDED.completion_tokens,
                 total_tokens = EXCLUDED.total_tokens, llm_time_ms = EXCLUDED.llm_time_ms
             WHERE s.version = EXCLUDED.version - 1",
        )
        .bind(states.iter().map(|state| &state.trace.0[..]).collect::<Vec<_>>())
        .bind(states.iter().map(|state| state.version).collect::<Vec<_>>())
        .bind(states.iter().map(|state| &state.state[..]).collect::<Vec<_>>())
        .bind(states.iter().map(|state| state.first_seen.datetime()).collect::<Vec<_>>())
        .bind(states.iter().map(|state| state.touched.datetime()).collect::<Vec<_>>())
        .bind(states.iter().map(|state| state.waiting).collect::<Vec<_>>())
        .bind(counted.iter().map(|counted| counted.map(|counted| counted.prompt)).collect::<Vec<_>>())
        .bind(of(|adds| adds.hour))
        .bind(of(|adds| adds.latency_ms as i64))
        .bind(counted.iter().map(|counted| counted.map(|counted| counted.contribution.status.as_str())).collect::<Vec<_>>())
        .bind(of(|adds| adds.tokens.prompt))
        .bind(of(|adds| adds.tokens.completion))
        .bind(of(|adds| adds.tokens.total))
        .bind(of(|adds| adds.llm_time_ms as i64))
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        if written.rows_affected() == states.len() as u64 { Ok(()) } else { Err(Fault::contended()) }
    }

    async fn put_rows(&mut self, rows: &[Resolved]) -> Result<(), Fault> {
        if rows.is_empty() {
            return Ok(());
        }
        let tokens = |Tokens { prompt, completion, total }| {
            format!(r#"{{"prompt":{prompt},"completion":{completion},"total":{total}}}"#)
        };
        sqlx::query(
            "INSERT INTO public.prompt_traces
                 (id, prompt_id, phoenix_trace_id, session_id, execution_time_ms, tokens_used, model, status, error, metadata,
                  created_at, user_id)
             SELECT id, prompt, trace, session, ms, tokens::jsonb, model, status, error, metadata::jsonb, created, usr
             FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::int[], $6::text[], $7::text[], $8::text[],
                 $9::text[], $10::text[], $11::timestamptz[], $12::uuid[])
                 AS r (id, prompt, trace, session, ms, tokens, model, status, error, metadata, created, usr)
             ON CONFLICT (phoenix_trace_id) DO UPDATE SET prompt_id = EXCLUDED.prompt_id, session_id = EXCLUDED.session_id,
                 execution_time_ms = EXCLUDED.execution_time_ms, tokens_used = EXCLUDED.tokens_used, model = EXCLUDED.model,
                 status = EXCLUDED.status, error = EXCLUDED.error, metadata = EXCLUDED.metadata,
                 created_at = EXCLUDED.created_at, user_id = EXCLUDED.user_id",
        )
        .bind(rows.iter().map(|resolved| resolved.row.id).collect::<Vec<_>>())
        .bind(rows.iter().map(|resolved| resolved.prompt).collect::<Vec<_>>())
        .bind(rows.iter().map(|resolved| resolved.row.trace_id.to_string()).collect::<Vec<_>>())
        .bind(rows.iter().map(|resolved| resolved.row.session_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|resolved| resolved.row.execution_time_ms).collect::<Vec<_>>())
        .bind(rows.iter().map(|resolved| tokens(resolved.row.tokens)).collect::<Vec<_>>())
        .bind(rows.iter().map(|resolved| without_nul(&resolved.row.model)).collect::<Vec<_>>())
        .bind(rows.iter().map(|resolved| resolved.row.status.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|resolved| resolved.row.error.as_deref().map(without_nul)).collect::<Vec<_>>())
        .bind(rows.iter().map(|resolved| resolved.metadata.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|resolved| Moment::from(resolved.row.created_at).datetime()).collect::<Vec<_>>())
        .bind(rows.iter().map(|resolved| resolved.user).collect::<Vec<_>>())
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(())
    }
}

impl Tx for PgTx<'_> {
    async fn own(&mut self, writer: &Writer) -> Result<(), Fault> {
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(writer.as_str())
            .execute(&mut *self.tx)
            .await
            .map_err(fault)?;
        Ok(())
    }

    async fn cursor(&mut self, consumer: &str, writer: &Writer) -> Result<Option<Offset>, Fault> {
        let pos: Option<i64> = sqlx::query_scalar("SELECT pos FROM emberd.cursors WHERE consumer = $1 AND writer = $2")
            .bind(consumer)
            .bind(writer.as_str())
            .fetch_optional(&mut *self.tx)
            .await
            .map_err(fault)?;
        Ok(pos.map(|pos| Offset(pos as u64)))
    }

    async fn move_cursor(&mut self, consumer: &str, writer: &Writer, from: Offset, to: Offset) -> Result<bool, Fault> {
        let moved = sqlx::query(
            "UPDATE emberd.cursors SET pos = $4, updated_at = now() WHERE consumer = $1 AND writer = $2 AND pos = $3",
        )
        .bind(consumer)
        .bind(writer.as_str())
        .bind(from.0 as i64)
        .bind(to.0 as i64)
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        if moved.rows_affected() == 1 || from != Offset(0) {
            return Ok(moved.rows_affected() == 1);
        }
        let made = sqlx::query(
            "INSERT INTO emberd.cursors (consumer, writer, pos) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(consumer)
        .bind(writer.as_str())
        .bind(to.0 as i64)
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(made.rows_affected() == 1)
    }

    async fn set_cursor(&mut self, consumer: &str, writer: &Writer, to: Offset, only_new: bool) -> Result<(), Fault> {
        sqlx::query(
            "INSERT INTO emberd.cursors AS c (consumer, writer, pos) VALUES ($1, $2, $3)
             ON CONFLICT (consumer, writer) DO UPDATE SET pos = EXCLUDED.pos, updated_at = now() WHERE NOT $4",
        )
        .bind(consumer)
        .bind(writer.as_str())
        .bind(to.0 as i64)
        .bind(only_new)
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(())
    }

    async fn origin(&mut self, consumer: &str, writer: &Writer) -> Result<Option<i64>, Fault> {
        sqlx::query_scalar("SELECT origin FROM emberd.origins WHERE consumer = $1 AND writer = $2")
            .bind(consumer)
            .bind(writer.as_str())
            .fetch_optional(&mut *self.tx)
            .await
            .map_err(fault)
    }

    async fn set_origin(&mut self, consumer: &str, writer: &Writer, origin: i64, only_new: bool) -> Result<(), Fault> {
        sqlx::query(
            "INSERT INTO emberd.origins (consumer, writer, origin) VALUES ($1, $2, $3)
             ON CONFLICT (consumer, writer) DO UPDATE SET origin = EXCLUDED.origin WHERE NOT $4",
        )
        .bind(consumer)
        .bind(writer.as_str())
        .bind(origin)
        .bind(only_new)
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(())
    }

    async fn ledger(&mut self, consumer: &str, writer: &Writer) -> Result<Vec<(Account, Fate, i64)>, Fault> {
        let rows: Vec<(i64, String, String, String, i64)> = sqlx::query_as(
            "SELECT hour, project, fate, reason, spans FROM emberd.ledger WHERE consumer = $1 AND writer = $2",
        )
        .bind(consumer)
        .bind(writer.as_str())
        .fetch_all(&mut *self.tx)
        .await
        .map_err(fault)?;
        rows.into_iter()
            .map(|(hour, project, fate, reason, spans)| line(hour, &[project, fate, reason], spans))
            .collect()
    }

    async fn put_ledger(&mut self, consumer: &str, writer: &Writer, tally: &Tally) -> Result<(), Fault> {
        if tally.is_empty() {
            return Ok(());
        }
        let lines: Vec<_> = tally.lines().collect();
        sqlx::query(
            "INSERT INTO emberd.ledger AS l (consumer, writer, hour, project, fate, reason, spans)
             SELECT $1, $2, hour, project, fate, reason, spans
             FROM unnest($3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[])
                 AS t (hour, project, fate, reason, spans)
             ON CONFLICT (consumer, writer, hour, project, fate, reason) DO UPDATE SET spans = l.spans + EXCLUDED.spans",
        )
        .bind(consumer)
        .bind(writer.as_str())
        .bind(lines.iter().map(|(account, ..)| i64::from(account.hour.0)).collect::<Vec<_>>())
        .bind(lines.iter().map(|(account, ..)| &*account.project).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, fate, _)| fate.words().0).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, fate, _)| fate.words().1).collect::<Vec<_>>())
        .bind(lines.iter().map(|(.., spans)| *spans).collect::<Vec<_>>())
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(())
    }

    async fn fold_ledger(&mut self, consumer: &str, writer: &Writer, horizon: Hour) -> Result<(), Fault> {
        sqlx::query(
            "WITH old AS (
                 DELETE FROM emberd.ledger WHERE consumer = $1 AND writer = $2 AND hour > 0 AND hour < $3 RETURNING *
             )
             INSERT INTO emberd.ledger AS l (consumer, writer, hour, project, fate, reason, spans)
             SELECT $1, $2, 0, project, fate, reason, sum(spans) FROM old GROUP BY project, fate, reason
             ON CONFLICT (consumer, writer, hour, project, fate, reason) DO UPDATE SET spans = l.spans + EXCLUDED.spans",
        )
        .bind(consumer)
        .bind(writer.as_str())
        .bind(i64::from(horizon.0))
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(())
    }

    async fn release(&mut self, consumer: &str, writer: &Writer, item: &str) -> Result<bool, Fault> {
        let done = sqlx::query(
            "INSERT INTO emberd.released (consumer, writer, item) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(consumer)
        .bind(writer.as_str())
        .bind(item)
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(done.rows_affected() == 1)
    }

    async fn forget_release(&mut self, consumer: &str, writer: &Writer, item: &str) -> Result<(), Fault> {
        sqlx::query("DELETE FROM emberd.released WHERE consumer = $1 AND writer = $2 AND item = $3")
            .bind(consumer)
            .bind(writer.as_str())
            .bind(item)
            .execute(&mut *self.tx)
            .await
            .map_err(fault)?;
        Ok(())
    }

    async fn known(&mut self, traces: &[TraceId], lock: bool) -> Result<Known, Fault> {
        let states = self.states(traces, lock).await?;
        let found: HashSet<TraceId> = states.iter().map(|stored| stored.trace).collect();
        let unknown: Vec<TraceId> = traces.iter().copied().filter(|trace| !found.contains(trace)).collect();
        Ok(Known { states, settled: self.with_row(&unknown).await? })
    }

    async fn waiting(&mut self, since: Moment, limit: u32) -> Result<Vec<Stored>, Fault> {
        let rows = sqlx::query(
            "SELECT * FROM emberd.trace_state WHERE waiting AND first_seen_at <= $1 ORDER BY first_seen_at LIMIT $2",
        )
        .bind(since.datetime())
        .bind(i64::from(limit))
        .fetch_all(&mut *self.tx)
        .await
        .map_err(fault)?;
        rows.iter().map(stored).collect()
    }

    async fn waiting_longest(&mut self) -> Result<Option<Moment>, Fault> {
        let since: Option<OffsetDateTime> = sqlx::query_scalar(
            "SELECT first_seen_at FROM emberd.trace_state WHERE waiting ORDER BY first_seen_at LIMIT 1",
        )
        .fetch_optional(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(since.map(Moment::from))
    }

    async fn put(&mut self, states: &[Stored], rows: &[Resolved]) -> Result<(), Fault> {
        self.put_states(states).await?;
        self.put_rows(rows).await
    }

    async fn prompts_named(&mut self, ids: &[Uuid], titles: &[&str]) -> Result<Found, Fault> {
        let rows: Vec<(Uuid, Option<String>)> = sqlx::query_as(
            "SELECT id, NULL AS title FROM public.prompts WHERE id = ANY($1::uuid[]) AND id <> $3
             UNION ALL
             (SELECT DISTINCT ON (title) id, title::text FROM public.prompts
              WHERE title = ANY($2::text[]) AND id <> $3 ORDER BY title, created_at, id)",
        )
        .bind(ids)
        .bind(titles)
        .bind(UNASSIGNED)
        .fetch_all(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(found(rows))
    }

    async fn profiles_named(&mut self, ids: &[Uuid], emails: &[&str]) -> Result<Found, Fault> {
        let rows: Vec<(Uuid, Option<String>)> = sqlx::query_as(
            "SELECT id, NULL AS email FROM public.profiles WHERE id = ANY($1::uuid[])
             UNION ALL
             (SELECT DISTINCT ON (email) id, email::text FROM public.profiles
              WHERE email = ANY($2::text[]) ORDER BY email, id)",
        )
        .bind(ids)
        .bind(emails)
        .fetch_all(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(found(rows))
    }

    async fn reserve_prompt(&mut self) -> Result<(), Fault> {
        sqlx::query("SELECT emberd.reserve_prompt()").execute(&mut *self.tx).await.map_err(fault)?;
        Ok(())
    }

    async fn rollups_of(&mut self, writer: &Writer, keys: &[Key]) -> Result<Vec<(Key, Rollup)>, Fault> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(
            "SELECT r.* FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS k (prompt_id, resolution, bucket)
             CROSS JOIN LATERAL (
                 SELECT * FROM emberd.rollups
                 WHERE prompt_id = k.prompt_id AND resolution = k.resolution AND bucket = k.bucket AND writer = $4 LIMIT 1) r",
        )
        .bind(keys.iter().map(|key| key.prompt).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.resolution.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.bucket).collect::<Vec<_>>())
        .bind(writer.as_str())
        .fetch_all(&mut *self.tx)
        .await
        .map_err(fault)?;
        rows.iter().map(rollup).collect()
    }

    async fn put_rollups(&mut self, writer: &Writer, rollups: &[(Key, Rollup)]) -> Result<(), Fault> {
        if rollups.is_empty() {
            return Ok(());
        }
        let of = |sum: fn(&Rollup) -> i64| -> Vec<i64> { rollups.iter().map(|(_, rollup)| sum(rollup)).collect() };
        sqlx::query(
            "INSERT INTO emberd.rollups
                 (prompt_id, resolution, bucket, writer, success, error, timeout, latency_sum_ms, prompt_tokens,
                  completion_tokens, total_tokens, llm_time_ms, sketch)
             SELECT prompt_id, resolution, bucket, $4, a, b, c, d, e, f, g, h, sketch
             FROM unnest($1::uuid[], $2::text[], $3::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
                 $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bytea[])
                 AS r (prompt_id, resolution, bucket, a, b, c, d, e, f, g, h, sketch)
             ON CONFLICT (prompt_id, resolution, bucket, writer) DO UPDATE SET success = EXCLUDED.success,
                 error = EXCLUDED.error, timeout = EXCLUDED.timeout, latency_sum_ms = EXCLUDED.latency_sum_ms,
                 prompt_tokens = EXCLUDED.prompt_tokens, completion_tokens = EXCLUDED.completion_tokens,
                 total_tokens = EXCLUDED.total_tokens, llm_time_ms = EXCLUDED.llm_time_ms, sketch = EXCLUDED.sketch",
        )
        .bind(rollups.iter().map(|(key, _)| key.prompt).collect::<Vec<_>>())
        .bind(rollups.iter().map(|(key, _)| key.resolution.as_str()).collect::<Vec<_>>())
        .bind(rollups.iter().map(|(key, _)| key.bucket).collect::<Vec<_>>())
        .bind(writer.as_str())
        .bind(of(|rollup| rollup.success))
        .bind(of(|rollup| rollup.error))
        .bind(of(|rollup| rollup.timeout))
        .bind(of(|rollup| rollup.latency_sum_ms))
        .bind(of(|rollup| rollup.prompt_tokens))
        .bind(of(|rollup| rollup.completion_tokens))
        .bind(of(|rollup| rollup.total_tokens))
        .bind(of(|rollup| rollup.llm_time_ms))
        .bind(rollups.iter().map(|(_, rollup)| rollup.latency.encode()).collect::<Vec<_>>())
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(())
    }

    async fn mark(&mut self, hours: &[(Uuid, i64)]) -> Result<(), Fault> {
        if hours.is_empty() {
            return Ok(());
        }
        sqlx::query("INSERT INTO emberd.dirty (prompt_id, hour) SELECT * FROM unnest($1::uuid[], $2::bigint[])")
            .bind(hours.iter().map(|(prompt, _)| *prompt).collect::<Vec<_>>())
            .bind(hours.iter().map(|(_, hour)| *hour).collect::<Vec<_>>())
            .execute(&mut *self.tx)
            .await
            .map_err(fault)?;
        Ok(())
    }

    async fn publisher(&mut self) -> Result<bool, Fault> {
        sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
            .bind(PUBLISHER_LOCK)
            .fetch_one(&mut *self.tx)
            .await
            .map_err(fault)
    }

    async fn published_day(&mut self) -> Result<Option<i64>, Fault> {
        sqlx::query_scalar("SELECT day FROM emberd.published").fetch_optional(&mut *self.tx).await.map_err(fault)
    }

    async fn set_published_day(&mut self, day: i64) -> Result<(), Fault> {
        sqlx::query(
            "INSERT INTO emberd.published (day) VALUES ($1) ON CONFLICT (single) DO UPDATE SET day = EXCLUDED.day",
        )
        .bind(day)
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(())
    }

    async fn mark_active(&mut self, from: i64, to: i64, hour: i64) -> Result<(), Fault> {
        sqlx::query(
            "INSERT INTO emberd.dirty (prompt_id, hour) SELECT DISTINCT prompt_id, $3::bigint FROM emberd.rollups
             WHERE resolution = 'd' AND bucket >= $1 AND bucket < $2",
        )
        .bind(from)
        .bind(to)
        .bind(hour)
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(())
    }

    async fn take_marks(&mut self, limit: u32) -> Result<Vec<(Uuid, i64)>, Fault> {
        sqlx::query_as(
            "DELETE FROM emberd.dirty WHERE id = ANY(ARRAY(SELECT id FROM emberd.dirty ORDER BY id LIMIT $1))
             RETURNING prompt_id, hour",
        )
        .bind(i64::from(limit))
        .fetch_all(&mut *self.tx)
        .await
        .map_err(fault)
    }

    async fn rollups_in(&mut self, buckets: &[Buckets]) -> Result<Vec<(Key, Rollup)>, Fault> {
        let rows = sqlx::query(
            "SELECT r.* FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[]) AS k (prompt_id, resolution, lo, hi)
             CROSS JOIN LATERAL (
                 SELECT * FROM emberd.rollups
                 WHERE prompt_id = k.prompt_id AND resolution = k.resolution AND bucket >= k.lo AND bucket < k.hi OFFSET 0) r",
        )
        .bind(buckets.iter().map(|wanted| wanted.prompt).collect::<Vec<_>>())
        .bind(buckets.iter().map(|wanted| wanted.resolution.as_str()).collect::<Vec<_>>())
        .bind(buckets.iter().map(|wanted| wanted.from).collect::<Vec<_>>())
        .bind(buckets.iter().map(|wanted| wanted.to).collect::<Vec<_>>())
        .fetch_all(&mut *self.tx)
        .await
        .map_err(fault)?;
        rows.iter().map(rollup).collect()
    }

    async fn put_metrics(&mut self, metrics: &[Measured], now: Moment) -> Result<(), Fault> {
        let (there, gone): (Vec<&Measured>, Vec<&Measured>) = metrics.iter().partition(|metric| metric.value.is_some());
        if !gone.is_empty() {
            sqlx::query(
                "DELETE FROM public.prompt_performance_metrics WHERE id = ANY(ARRAY(
                     SELECT m.id
                     FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[]) AS k (prompt_id, metric, win, start)
                     CROSS JOIN LATERAL (
                         SELECT id FROM public.prompt_performance_metrics
                         WHERE prompt_id = k.prompt_id AND metric_type = k.metric AND aggregation_window = k.win
                             AND \"timestamp\" = k.start LIMIT 1) m))",
            )
            .bind(gone.iter().map(|metric| metric.prompt).collect::<Vec<_>>())
            .bind(gone.iter().map(|metric| metric.metric).collect::<Vec<_>>())
            .bind(gone.iter().map(|metric| metric.window.as_str()).collect::<Vec<_>>())
            .bind(gone.iter().map(|metric| metric.start.datetime()).collect::<Vec<_>>())
            .execute(&mut *self.tx)
            .await
            .map_err(fault)?;
        }
        sqlx::query(
            "INSERT INTO public.prompt_performance_metrics AS m
                 (prompt_id, metric_type, aggregation_window, \"timestamp\", value, created_at)
             SELECT prompt_id, metric, win, start, value::numeric, $6
             FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::float8[])
                 AS k (prompt_id, metric, win, start, value)
             ON CONFLICT (prompt_id, metric_type, aggregation_window, \"timestamp\") DO UPDATE SET value = EXCLUDED.value
             WHERE m.value <> EXCLUDED.value",
        )
        .bind(there.iter().map(|metric| metric.prompt).collect::<Vec<_>>())
        .bind(there.iter().map(|metric| metric.metric).collect::<Vec<_>>())
        .bind(there.iter().map(|metric| metric.window.as_str()).collect::<Vec<_>>())
        .bind(there.iter().map(|metric| metric.start.datetime()).collect::<Vec<_>>())
        .bind(there.iter().map(|metric| metric.value).collect::<Vec<_>>())
        .bind(now.datetime())
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(())
    }

    async fn put_totals(&mut self, totals: &[Totals]) -> Result<(), Fault> {
        let of = |sum: fn(&Totals) -> i64| -> Vec<i64> { totals.iter().map(sum).collect() };
        sqlx::query(
            "INSERT INTO emberd.totals AS s
                 (prompt_id, traces, success, latency_sum_ms, total_tokens, median_latency, p95_latency, last_used_at)
             SELECT k.*, (SELECT t.created_at FROM public.prompt_traces t WHERE t.prompt_id = k.prompt_id
                          ORDER BY t.created_at DESC LIMIT 1)
             FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::float8[], $7::float8[])
                 AS k (prompt_id, traces, success, latency, tokens, median, p95)
             WHERE k.traces > 0
             ON CONFLICT (prompt_id) DO UPDATE SET traces = EXCLUDED.traces, success = EXCLUDED.success,
                 latency_sum_ms = EXCLUDED.latency_sum_ms, total_tokens = EXCLUDED.total_tokens,
                 median_latency = EXCLUDED.median_latency, p95_latency = EXCLUDED.p95_latency,
                 last_used_at = coalesce(EXCLUDED.last_used_at, s.last_used_at)",
        )
        .bind(totals.iter().map(|total| total.prompt).collect::<Vec<_>>())
        .bind(of(|total| total.traces))
        .bind(of(|total| total.success))
        .bind(of(|total| total.latency_sum_ms))
        .bind(of(|total| total.total_tokens))
        .bind(totals.iter().map(|total| total.median_latency).collect::<Vec<_>>())
        .bind(totals.iter().map(|total| total.p95_latency).collect::<Vec<_>>())
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        let empty: Vec<Uuid> = totals.iter().filter(|total| total.traces <= 0).map(|total| total.prompt).collect();
        if !empty.is_empty() {
            sqlx::query("DELETE FROM emberd.totals WHERE prompt_id = ANY($1::uuid[])")
                .bind(empty)
                .execute(&mut *self.tx)
                .await
                .map_err(fault)?;
        }
        Ok(())
    }

    async fn settle(&mut self, since: Moment, limit: u32) -> Result<u64, Fault> {
        let gone = sqlx::query(
            "DELETE FROM emberd.trace_state WHERE trace_id = ANY(ARRAY(
                 SELECT trace_id FROM emberd.trace_state WHERE touched_at < $1 AND NOT waiting
                 ORDER BY touched_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
        )
        .bind(since.datetime())
        .bind(i64::from(limit))
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(gone.rows_affected())
    }

    async fn unjoined(&mut self, after: &str, limit: u32) -> Result<Vec<String>, Fault> {
        // From name to name, a look into the index each, however many rows have it.
        sqlx::query_scalar(
            "WITH RECURSIVE names (name) AS (
                 SELECT $1 COLLATE \"C\"
                 UNION ALL
                 SELECT (SELECT \"left\"(metadata ->> 'prompt_ref', 100) COLLATE \"C\" FROM public.prompt_traces
                         WHERE (prompt_id = '00000000-0000-0000-0000-000000000000') IS TRUE
                             AND (metadata ->> 'prompt_ref') IS NOT NULL
                             AND \"left\"(metadata ->> 'prompt_ref', 100) COLLATE \"C\" > n.name
                         ORDER BY \"left\"(metadata ->> 'prompt_ref', 100) COLLATE \"C\" LIMIT 1)
                 FROM names n WHERE n.name IS NOT NULL)
             SELECT name FROM names WHERE name IS NOT NULL OFFSET 1 LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.tx)
        .await
        .map_err(fault)
    }

    async fn titles_like(&mut self, names: &[&str]) -> Result<Vec<String>, Fault> {
        sqlx::query_scalar("SELECT title::text FROM public.prompts WHERE \"left\"(title, 100) = ANY($1::text[])")
            .bind(names)
            .fetch_all(&mut *self.tx)
            .await
            .map_err(fault)
    }

    async fn unjoined_of(&mut self, names: &[&str], limit: u32) -> Result<Vec<TraceId>, Fault> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT t.phoenix_trace_id FROM unnest($1::text[]) AS k (name)
             CROSS JOIN LATERAL (
                 SELECT phoenix_trace_id FROM public.prompt_traces
                 WHERE (prompt_id = '00000000-0000-0000-0000-000000000000') IS TRUE
                     AND (metadata ->> 'prompt_ref') IS NOT NULL
                     AND \"left\"(metadata ->> 'prompt_ref', 100) COLLATE \"C\" = \"left\"(k.name, 100)
                     AND metadata ->> 'prompt_ref' = k.name
                 LIMIT $2) t
             LIMIT $2",
        )
        .bind(names)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.tx)
        .await
        .map_err(fault)?;
        // A row that someone else wrote may have any text for a trace id: it is not emberd's to move.
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    async fn orphans(&mut self, traces: &[TraceId]) -> Result<Vec<Orphan>, Fault> {
        let rows = sqlx::query(
            "SELECT t.phoenix_trace_id, t.metadata ->> 'prompt_ref' AS prompt_ref, t.created_at, t.execution_time_ms, t.status,
                 t.tokens_used::text AS tokens, t.metadata ->> 'llm_time_ms' AS llm_time_ms
             FROM unnest($1::text[]) AS k (id)
             CROSS JOIN LATERAL (
                 SELECT * FROM public.prompt_traces
                 WHERE phoenix_trace_id = k.id AND (prompt_id = '00000000-0000-0000-0000-000000000000') IS TRUE
                     AND (metadata ->> 'prompt_ref') IS NOT NULL FOR UPDATE) t",
        )
        .bind(traces.iter().map(TraceId::to_string).collect::<Vec<_>>())
        .fetch_all(&mut *self.tx)
        .await
        .map_err(fault)?;
        rows.iter().map(orphan).collect()
    }

    async fn move_rows(&mut self, moves: &[(TraceId, Uuid)]) -> Result<(), Fault> {
        let mut by_prompt: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
        for (trace, prompt) in moves {
            by_prompt.entry(*prompt).or_default().push(trace.to_string());
        }
        for (prompt, traces) in by_prompt {
            sqlx::query("UPDATE public.prompt_traces SET prompt_id = $2 WHERE phoenix_trace_id = ANY($1::text[])")
                .bind(traces)
                .bind(prompt)
                .execute(&mut *self.tx)
                .await
                .map_err(fault)?;
        }
        Ok(())
    }

    async fn owns_prompts(&mut self) -> Result<bool, Fault> {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM emberd.made WHERE name = 'table prompts')")
            .fetch_one(&mut *self.tx)
            .await
            .map_err(fault)
    }

    async fn put_prompt(&mut self, prompt: &Prompt) -> Result<(), Fault> {
        sqlx::query(
            "INSERT INTO public.prompts (id, title, content, created_by, created_at)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(prompt.id)
        .bind(&prompt.title)
        .bind(prompt.content.as_deref().unwrap_or_default())
        .bind(prompt.created_by)
        .bind(prompt.created_at.datetime())
        .execute(&mut *self.tx)
        .await
        .map_err(fault)?;
        Ok(())
    }
}
