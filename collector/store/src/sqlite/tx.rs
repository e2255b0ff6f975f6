//! The statements of a transaction, for SQLite: prepared once, run per row. No network lies between, so that is the cheapest form.

use std::sync::LazyLock;

use emberd_model::ledger::{Account, Fate, Hour, Tally};
use emberd_model::rollup::Rollup;
use emberd_model::{Offset, TraceId};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row, params};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::fault::fault;
use super::rows::{ROLLUP, STORED, orphan, rollup, stored, uuid};
use super::traces::MICROS_PER_MINUTE;
use crate::Moment;
use crate::fault::Fault;
use crate::library::{Prompt, UNASSIGNED};
use crate::record::Writer;
use crate::tx::{Buckets, Found, Key, Known, Measured, Orphan, Resolved, Stored, Totals, Tx, line};

pub(super) struct SqliteTx<'a> {
    pub(super) connection: &'a mut Connection,
}

static WAITING: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT 0, {STORED} FROM emberd_trace_state s WHERE s.waiting AND s.first_seen_micros <= ?1
         ORDER BY s.first_seen_micros LIMIT ?2"
    )
});
static ROLLUP_OF: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {ROLLUP} FROM emberd_rollups r
         WHERE r.prompt_id = ?1 AND r.resolution = ?2 AND r.bucket = ?3 AND r.writer = ?4"
    )
});
static ROLLUPS_IN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {ROLLUP} FROM emberd_rollups r
         WHERE r.prompt_id = ?1 AND r.resolution = ?2 AND r.bucket >= ?3 AND r.bucket < ?4"
    )
});

impl SqliteTx<'_> {
    pub(super) fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, Fault> {
        self.connection.prepare_cached(sql).map_err(fault)
    }

    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Result<usize, Fault> {
        self.prepare(sql)?.execute(params).map_err(fault)
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(params).map_err(fault)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next().map_err(fault)? {
            all.push(read(row)?);
        }
        Ok(all)
    }
}

/// A UUID's text, without an allocation.
pub(super) struct Id([u8; Hyphenated::LENGTH]);

impl Id {
    pub(super) fn of(id: Uuid) -> Self {
        let mut text = [0; Hyphenated::LENGTH];
        id.hyphenated().encode_lower(&mut text);
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a UUID's text is ASCII")
    }
}

impl Tx for SqliteTx<'_> {
    async fn own(&mut self, _writer: &Writer) -> Result<(), Fault> {
        // BEGIN IMMEDIATE holds off every other writer.
        Ok(())
    }

    async fn cursor(&mut self, consumer: &str, writer: &Writer) -> Result<Option<Offset>, Fault> {
        self.prepare("SELECT pos FROM emberd_cursors WHERE consumer = ?1 AND writer = ?2")?
            .query_row(params![consumer, writer.as_str()], |row| row.get::<_, i64>(0))
            .optional()
            .map_err(fault)
            .map(|pos| pos.map(|pos| Offset(pos as u64)))
    }

    async fn move_cursor(&mut self, consumer: &str, writer: &Writer, from: Offset, to: Offset) -> Result<bool, Fault> {
        let moved = self.execute(
            "UPDATE emberd_cursors SET pos = ?4, updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
             WHERE consumer = ?1 AND writer = ?2 AND pos = ?3",
            params![consumer, writer.as_str(), from.0 as i64, to.0 as i64],
        )?;
        if moved == 1 || from != Offset(0) {
            return Ok(moved == 1);
        }
        let made = self.execute(
            "INSERT INTO emberd_cursors (consumer, writer, pos) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![consumer, writer.as_str(), to.0 as i64],
        )?;
        Ok(made == 1)
    }

    async fn set_cursor(&mut self, consumer: &str, writer: &Writer, to: Offset, only_new: bool) -> Result<(), Fault> {
        self.execute(
            "INSERT INTO emberd_cursors (consumer, writer, pos) VALUES (?1, ?2, ?3)
             ON CONFLICT (consumer, writer) DO UPDATE SET pos = excluded.pos,
                 updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE NOT ?4",
            params![consumer, writer.as_str(), to.0 as i64, only_new],
        )?;
        Ok(())
    }

    async fn origin(&mut self, consumer: &str, writer: &Writer) -> Result<Option<i64>, Fault> {
        self.prepare("SELECT origin FROM emberd_origins WHERE consumer = ?1 AND writer = ?2")?
            .query_row(params![consumer, writer.as_str()], |row| row.get(0))
            .optional()
            .map_err(fault)
    }

    async fn set_origin(&mut self, consumer: &str, writer: &Writer, origin: i64, only_new: bool) -> Result<(), Fault> {
        self.execute(
            "INSERT INTO emberd_origins (consumer, writer, origin) VALUES (?1, ?2, ?3)
             ON CONFLICT (consumer, writer) DO UPDATE SET origin = excluded.origin WHERE NOT ?4",
            params![consumer, writer.as_str(), origin, only_new],
        )?;
        Ok(())
    }

    async fn ledger(&mut self, consumer: &str, writer: &Writer) -> Result<Vec<(Account, Fate, i64)>, Fault> {
        self.all(
            "SELECT hour, project, fate, reason, spans FROM emberd_ledger WHERE consumer = ?1 AND writer = ?2",
            params![consumer, writer.as_str()],
            |row| {
                let texts: [String; 3] =
                    [row.get(1).map_err(fault)?, row.get(2).map_err(fault)?, row.get(3).map_err(fault)?];
                line(row.get(0).map_err(fault)?, &texts, row.get(4).map_err(fault)?)
            },
        )
    }

    async fn put_ledger(&mut self, consumer: &str, writer: &Writer, tally: &Tally) -> Result<(), Fault> {
        let mut statement = self.prepare(
            "INSERT INTO emberd_ledger (consumer, writer, hour, project, fate, reason, spans)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (consumer, writer, hour, project, fate, reason) DO UPDATE SET spans = spans + excluded.spans",
        )?;
        for (account, fate, spans) in tally.lines() {
            let (word, reason) = fate.words();
            let hour = i64::from(account.hour.0);
            statement
                .execute(params![consumer, writer.as_str(), hour, &*account.project, word, reason, spans])
                .map_err(fault)?;
        }
        Ok(())
    }

    async fn fold_ledger(&mut self, consumer: &str, writer: &Writer, horizon: Hour) -> Result<(), Fault> {
        let params = params![consumer, writer.as_str(), i64::from(horizon.0)];
        self.execute(
            "INSERT INTO emberd_ledger (consumer, writer, hour, project, fate, reason, spans)
             SELECT consumer, writer, 0, project, fate, reason, sum(spans) FROM emberd_ledger
             WHERE consumer = ?1 AND writer = ?2 AND hour > 0 AND hour < ?3 GROUP BY project, fate, reason
             ON CONFLICT (consumer, writer, hour, project, fate, reason) DO UPDATE SET spans = spans + excluded.spans",
            params,
        )?;
        self.execute(
            "DELETE FROM emberd_ledger WHERE consumer = ?1 AND writer = ?2 AND hour > 0 AND hour < ?3",
            params,
        )?;
        Ok(())
    }

    async fn release(&mut self, consumer: &str, writer: &Writer, item: &str) -> Result<bool, Fault> {
        let sql = "INSERT INTO emberd_released (consumer, writer, item) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        Ok(self.execute(sql, params![consumer, writer.as_str(), item])? == 1)
    }

    async fn forget_release(&mut self, consumer: &str, writer: &Writer, item: &str) -> Result<(), Fault> {
        let sql = "DELETE FROM emberd_released WHERE consumer = ?1 AND writer = ?2 AND item = ?3";
        self.execute(sql, params![consumer, writer.as_str(), item])?;
        Ok(())
    }

    async fn known(&mut self, traces: &[TraceId], _lock: bool) -> Result<Known, Fault> {
        self.known_of(traces)
    }

    async fn waiting(&mut self, since: Moment, limit: u32) -> Result<Vec<Stored>, Fault> {
        self.all(&WAITING, params![since.micros(), limit], stored)
    }

    async fn waiting_longest(&mut self) -> Result<Option<Moment>, Fault> {
        let sql = "SELECT first_seen_micros FROM emberd_trace_state WHERE waiting ORDER BY first_seen_micros LIMIT 1";
        Ok(self.all(sql, [], |row| row.get(0).map(Moment::from_micros).map_err(fault))?.pop())
    }

    async fn put(&mut self, states: &[Stored], rows: &[Resolved]) -> Result<(), Fault> {
        self.put_all(states, rows)
    }

    async fn prompts_named(&mut self, ids: &[Uuid], titles: &[&str]) -> Result<Found, Fault> {
        let mut found = Found::default();
        let mut by_id = self.prepare("SELECT 1 FROM prompts WHERE id = ?1")?;
        for id in ids.iter().filter(|id| **id != UNASSIGNED) {
            if by_id.exists([Id::of(*id).as_str()]).map_err(fault)? {
                found.ids.push(*id);
            }
        }
        drop(by_id);
        let reserved = Id::of(UNASSIGNED);
        let mut by_title =
            self.prepare("SELECT id FROM prompts WHERE title = ?1 AND id <> ?2 ORDER BY created_at, id LIMIT 1")?;
        for title in titles {
            let mut rows = by_title.query(params![title, reserved.as_str()]).map_err(fault)?;
            if let Some(row) = rows.next().map_err(fault)? {
                found.texts.insert((*title).to_owned(), uuid(row, 0)?);
            }
        }
        Ok(found)
    }

    async fn profiles_named(&mut self, ids: &[Uuid], emails: &[&str]) -> Result<Found, Fault> {
        let mut found = Found::default();
        let mut by_id = self.prepare("SELECT 1 FROM profiles WHERE id = ?1")?;
        for id in ids {
            if by_id.exists([Id::of(*id).as_str()]).map_err(fault)? {
                found.ids.push(*id);
            }
        }
        drop(by_id);
        let mut by_email = self.prepare("SELECT id FROM profiles WHERE email = ?1 ORDER BY id LIMIT 1")?;
        for email in emails {
            let mut rows = by_email.query([email]).map_err(fault)?;
            if let Some(row) = rows.next().map_err(fault)? {
                found.texts.insert((*email).to_owned(), uuid(row, 0)?);
            }
        }
        Ok(found)
    }

    async fn reserve_prompt(&mut self) -> Result<(), Fault> {
        self.execute(
            "INSERT INTO prompts (id, title) VALUES (?1, 'unassigned') ON CONFLICT DO NOTHING",
            [Id::of(UNASSIGNED).as_str()],
        )?;
        Ok(())
    }

    async fn rollups_of(&mut self, writer: &Writer, keys: &[Key]) -> Result<Vec<(Key, Rollup)>, Fault> {
        let mut there = Vec::with_capacity(keys.len());
        for key in keys {
            let prompt = Id::of(key.prompt);
            let params = params![prompt.as_str(), key.resolution.as_str(), key.bucket, writer.as_str()];
            there.extend(self.all(&ROLLUP_OF, params, rollup)?);
        }
        Ok(there)
    }

    async fn put_rollups(&mut self, writer: &Writer, rollups: &[(Key, Rollup)]) -> Result<(), Fault> {
        let mut statement = self.prepare(
            "INSERT INTO emberd_rollups
                 (prompt_id, resolution, bucket, writer, success, error, timeout, latency_sum_ms, prompt_tokens,
                  completion_tokens, total_tokens, llm_time_ms, sketch)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (prompt_id, resolution, bucket, writer) DO UPDATE SET success = excluded.success,
                 error = excluded.error, timeout = excluded.timeout, latency_sum_ms = excluded.latency_sum_ms,
                 prompt_tokens = excluded.prompt_tokens, completion_tokens = excluded.completion_tokens,
                 total_tokens = excluded.total_tokens, llm_time_ms = excluded.llm_time_ms, sketch = excluded.sketch",
        )?;
        for (key, rollup) in rollups {
            statement
                .execute(params![
                    Id::of(key.prompt).as_str(),
                    key.resolution.as_str(),
                    key.bucket,
                    writer.as_str(),
                    rollup.success,
                    rollup.error,
                    rollup.timeout,
                    rollup.latency_sum_ms,
                    rollup.prompt_tokens,
                    rollup.completion_tokens,
                    rollup.total_tokens,
                    rollup.llm_time_ms,
                    rollup.latency.encode(),
                ])
                .map_err(fault)?;
        }
        Ok(())
    }

    async fn mark(&mut self, hours: &[(Uuid, i64)]) -> Result<(), Fault> {
        let mut statement = self.prepare("INSERT INTO emberd_dirty (prompt_id, hour) VALUES (?1, ?2)")?;
        for (prompt, hour) in hours {
            statement.execute(params![Id::of(*prompt).as_str(), hour]).map_err(fault)?;
        }
        Ok(())
    }

    async fn publisher(&mut self) -> Result<bool, Fault> {
        Ok(true)
    }

    async fn published_day(&mut self) -> Result<Option<i64>, Fault> {
        Ok(self.all("SELECT day FROM emberd_published", [], |row| row.get(0).map_err(fault))?.pop())
    }

    async fn set_published_day(&mut self, day: i64) -> Result<(), Fault> {
        self.execute(
            "INSERT INTO emberd_published (single, day) VALUES (1, ?1) ON CONFLICT (single) DO UPDATE SET day = excluded.day",
            [day],
        )?;
        Ok(())
    }

    async fn mark_active(&mut self, from: i64, to: i64, hour: i64) -> Result<(), Fault> {
        self.execute(
            "INSERT INTO emberd_dirty (prompt_id, hour) SELECT DISTINCT prompt_id, ?3 FROM emberd_rollups
             WHERE resolution = 'd' AND bucket >= ?1 AND bucket < ?2",
            params![from, to, hour],
        )?;
        Ok(())
    }

    async fn take_marks(&mut self, limit: u32) -> Result<Vec<(Uuid, i64)>, Fault> {
        self.all(
            "DELETE FROM emberd_dirty WHERE id IN (SELECT id FROM emberd_dirty ORDER BY id LIMIT ?1)
             RETURNING prompt_id, hour",
            [limit],
            |row| Ok((uuid(row, 0)?, row.get(1).map_err(fault)?)),
        )
    }

    async fn rollups_in(&mut self, buckets: &[Buckets]) -> Result<Vec<(Key, Rollup)>, Fault> {
        let mut there = Vec::new();
        for wanted in buckets {
            let prompt = Id::of(wanted.prompt);
            let params = params![prompt.as_str(), wanted.resolution.as_str(), wanted.from, wanted.to];
            there.extend(self.all(&ROLLUPS_IN, params, rollup)?);
        }
        Ok(there)
    }

    async fn put_metrics(&mut self, metrics: &[Measured], now: Moment) -> Result<(), Fault> {
        let mut put = self.prepare(
            "INSERT INTO prompt_performance_metrics AS m
                 (id, prompt_id, metric_type, aggregation_window, \"timestamp\", value, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (prompt_id, metric_type, aggregation_window, \"timestamp\") DO UPDATE SET value = excluded.value
             WHERE m.value <> excluded.value",
        )?;
        let mut delete = self.prepare(
            "DELETE FROM prompt_performance_metrics
             WHERE prompt_id = ?1 AND metric_type = ?2 AND aggregation_window = ?3 AND \"timestamp\" = ?4",
        )?;
        let now = now.to_string();
        for metric in metrics {
            let prompt = Id::of(metric.prompt);
            let (window, start) = (metric.window.as_str(), metric.start.to_string());
            match metric.value {
                Some(value) => {
                    let id = Id::of(Uuid::new_v4());
                    put.execute(params![id.as_str(), prompt.as_str(), metric.metric, window, start, value, now])
                }
                None => delete.execute(params![prompt.as_str(), metric.metric, window, start]),
            }
            .map_err(fault)?;
        }
        Ok(())
    }

    async fn put_totals(&mut self, totals: &[Totals]) -> Result<(), Fault> {
        let mut put = self.prepare(
            "INSERT INTO emberd_totals
                 (prompt_id, traces, success, latency_sum_ms, total_tokens, median_latency, p95_latency, last_used_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, (SELECT created_at FROM prompt_traces WHERE prompt_id = ?1
                 ORDER BY created_at DESC LIMIT 1))
             ON CONFLICT (prompt_id) DO UPDATE SET traces = excluded.traces, success = excluded.success,
                 latency_sum_ms = excluded.latency_sum_ms, total_tokens = excluded.total_tokens,
                 median_latency = excluded.median_latency, p95_latency = excluded.p95_latency,
                 last_used_at = coalesce(excluded.last_used_at, emberd_totals.last_used_at)",
        )?;
        let mut delete = self.prepare("DELETE FROM emberd_totals WHERE prompt_id = ?1")?;
        for total in totals {
            let prompt = Id::of(total.prompt);
            match total.traces > 0 {
                true => put.execute(params![
                    prompt.as_str(),
                    total.traces,
                    total.success,
                    total.latency_sum_ms,
                    total.total_tokens,
                    total.median_latency,
                    total.p95_latency,
                ]),
                false => delete.execute([prompt.as_str()]),
            }
            .map_err(fault)?;
        }
        Ok(())
    }

    async fn settle(&mut self, since: Moment, limit: u32) -> Result<u64, Fault> {
        // Of a minute that is not over, no state is old enough: a minute counts as touched at its start.
        let minute = (since.micros().saturating_add(MICROS_PER_MINUTE - 1)).div_euclid(MICROS_PER_MINUTE);
        let gone = self.execute(
            "DELETE FROM emberd_trace_state WHERE no IN (
                 SELECT no FROM emberd_trace_state WHERE touched_minute < ?1 AND NOT waiting ORDER BY touched_minute LIMIT ?2)",
            params![minute, limit],
        )?;
        Ok(gone as u64)
    }

    async fn unjoined(&mut self, after: &str, limit: u32) -> Result<Vec<String>, Fault> {
        self.unjoined_names(after, limit)
    }

    async fn titles_like(&mut self, names: &[&str]) -> Result<Vec<String>, Fault> {
        let mut titles = Vec::new();
        for name in names {
            let sql = "SELECT title FROM prompts WHERE substr(title, 1, 100) = ?1";
            titles.extend(self.all(sql, [name], |row| row.get::<_, String>(0).map_err(fault))?);
        }
        Ok(titles)
    }

    async fn unjoined_of(&mut self, names: &[&str], limit: u32) -> Result<Vec<TraceId>, Fault> {
        let mut traces = Vec::new();
        for name in names {
            traces.extend(self.unjoined_by(name, (limit as usize).saturating_sub(traces.len()))?);
        }
        Ok(traces)
    }

    async fn orphans(&mut self, traces: &[TraceId]) -> Result<Vec<Orphan>, Fault> {
        let mut orphans = Vec::with_capacity(traces.len());
        for trace in traces {
            orphans.extend(self.all(
                "SELECT phoenix_trace_id, metadata ->> '$.prompt_ref', created_at, execution_time_ms, status, tokens_used,
                     CAST(metadata ->> '$.llm_time_ms' AS TEXT)
                 FROM prompt_traces
                 WHERE phoenix_trace_id = ?1 AND prompt_id = '00000000-0000-0000-0000-000000000000'
                     AND (metadata ->> '$.prompt_ref') IS NOT NULL",
                [trace.to_string()],
                orphan,
            )?);
        }
        Ok(orphans)
    }

    async fn move_rows(&mut self, moves: &[(TraceId, Uuid)]) -> Result<(), Fault> {
        self.move_all(moves)
    }

    async fn owns_prompts(&mut self) -> Result<bool, Fault> {
        Ok(true)
    }

    async fn put_prompt(&mut self, prompt: &Prompt) -> Result<(), Fault> {
        let created_by = prompt.created_by.map(Id::of);
        self.execute(
            "INSERT INTO prompts (id, title, content, created_by, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                Id::of(prompt.id).as_str(),
                prompt.title,
                prompt.content.as_deref().unwrap_or_default(),
                created_by.as_ref().map(Id::as_str),
                prompt.created_at.to_string(),
            ],
        )?;
        Ok(())
    }
}
