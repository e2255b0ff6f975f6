//! Rollups held against the rows that they are sums of, and set right.
//!
//! Promise: what is told as different was different at one moment, for rows and rollups are read as they stood together; what is set right is
//! set right by the difference, under a writer of its own, so that whoever records meanwhile loses nothing. Where something moved while
//! it was read, it is read again.
//! Not here: how rows come to be (`apply.rs`); who asks (`emberd reconcile`).
//! Kept by: `tests::recount`.

use std::collections::{BTreeMap, BTreeSet};

use emberd_model::TraceId;
use emberd_model::rollup::Rollup;
use uuid::Uuid;

use crate::Moment;
use crate::error::Error;
use crate::fault::Fault;
use crate::record::Writer;
use crate::sql::{Line, binds};
use crate::store::Store;
use crate::tx::{Buckets, Counted, Key, Orphan, Resolution, Tx, Work};

/// As whom rollups are set right.
const WRITER: &str = "reconcile";
/// How often a day is read again because something moved; then it is left for the next time.
const TRIES: usize = 5;
/// Rows asked for in one statement.
const BRIEFS_AT_ONCE: usize = 1_000;
const HOURS_A_DAY: i64 = 24;
const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// A prompt's UTC day: where rollups are held against rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromptDay {
    /// The prompt.
    pub prompt: Uuid,
    /// Days since 1970.
    pub day: i64,
}

/// What a recount found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recount {
    /// Rows that were counted.
    pub rows: u64,
    /// Hours, and the day, whose rollup was not the sum of its rows.
    pub different: u64,
    /// By how many traces, added up.
    pub traces_off: u64,
    /// Whether they were set right.
    pub is_fixed: bool,
    /// It moved each time it was read: nothing is known.
    pub is_unknown: bool,
}

impl Store {
    /// The days that have rows or rollups, from `since` on.
    ///
    /// # Errors
    /// The database.
    pub async fn prompt_days(&self, since: Moment) -> Result<BTreeSet<PromptDay>, Error> {
        let lite = self.kind() == "sqlite";
        let day = match lite {
            true => "CAST(julianday(substr(created_at, 1, 10)) - 2440587.5 AS INTEGER)",
            false => "floor(extract(epoch FROM created_at) / 86400)::bigint",
        };
        let rows = format!("SELECT DISTINCT prompt_id, {day} FROM public.prompt_traces WHERE created_at >= $1");
        let rollups =
            "SELECT DISTINCT prompt_id, bucket / 24 FROM emberd.rollups WHERE resolution = 'd' AND bucket >= $1";
        let first = since.micros().div_euclid(HOURS_A_DAY * MICROS_PER_HOUR) * HOURS_A_DAY;
        let mut days = BTreeSet::new();
        let read =
            |line: &Line| -> Result<PromptDay, Fault> { Ok(PromptDay { prompt: line.id(0)?, day: line.int(1)? }) };
        for line in self.bulk(&rows, binds![since].into()).await? {
            days.insert(read(&line)?);
        }
        for line in self.bulk(rollups, binds![first].into()).await? {
            days.insert(read(&line)?);
        }
        Ok(days)
    }

    /// Holds a day's rollups, and those of its hours, against the day's rows; where `fix`, sets them right.
    ///
    /// # Errors
    /// The database.
    pub async fn recount(&self, of: PromptDay, fix: bool) -> Result<Recount, Error> {
        for _ in 0..TRIES {
            if let Some(recount) = self.run(RecountDay { of, fix }).await? {
                return Ok(recount);
            }
        }
        Ok(Recount { is_unknown: true, ..Recount::default() })
    }

    /// Holds a prompt's rollup for ever against the sum of its days'; where `fix`, sets it right.
    ///
    /// # Errors
    /// The database.
    pub async fn recount_all(&self, prompt: Uuid, fix: bool) -> Result<Recount, Error> {
        for _ in 0..TRIES {
            if let Some(recount) = self.run(RecountAll { prompt, fix }).await? {
                return Ok(recount);
            }
        }
        Ok(Recount { is_unknown: true, ..Recount::default() })
    }
}

struct RecountDay {
    of: PromptDay,
    fix: bool,
}

impl Work for RecountDay {
    /// None: something moved.
    type Done = Option<Recount>;
    const TRUSTED: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Option<Recount>, Fault> {
        let first = self.of.day * HOURS_A_DAY;
        let wanted = [Resolution::Hour, Resolution::Day].map(|resolution| Buckets {
            prompt: self.of.prompt,
            resolution,
            from: first,
            to: first + HOURS_A_DAY,
        });
        let before = sums(tx, &wanted).await?;
        let (rows, counted) = self.rows(tx, first).await?;
        // Whoever records moves a rollup with each row: the same sums, the same rows.
        if sums(tx, &wanted).await? != before {
            return Ok(None);
        }
        settle(tx, self.of.prompt, rows, &before, counted, self.fix).await.map(Some)
    }
}

impl RecountDay {
    /// The day's rows, added up.
    async fn rows<T: Tx>(&self, tx: &mut T, first: i64) -> Result<(u64, BTreeMap<Key, Rollup>), Fault> {
        let sql = "SELECT phoenix_trace_id, created_at, execution_time_ms, status, CAST(tokens_used AS TEXT),
                 CAST(metadata ->> 'llm_time_ms' AS TEXT) FROM public.prompt_traces
             WHERE prompt_id = $1 AND created_at >= $2 AND created_at < $3";
        let at = |hour: i64| Moment::from_micros(hour * MICROS_PER_HOUR);
        let mut counted: BTreeMap<Key, Rollup> = BTreeMap::new();
        let lines = tx.query(sql, &binds![self.of.prompt, at(first), at(first + HOURS_A_DAY)]).await?;
        for line in &lines {
            let (trace, created, ms) = (line.text(0)?, line.moment(1)?, line.int(2)?);
            let (status, tokens, llm_time_ms) = (line.text(3)?, line.text(4)?, line.maybe_text(5)?);
            let ms = i32::try_from(ms).map_err(|_| Fault::damaged("execution_time_ms", ms))?;
            let row = Orphan::read(&trace, String::new(), created, ms, &status, &tokens, llm_time_ms.as_deref())?;
            let Counted { prompt, contribution } = Counted { prompt: self.of.prompt, contribution: row.contribution };
            for resolution in [Resolution::Hour, Resolution::Day] {
                let key = Key { prompt, resolution, bucket: resolution.bucket(contribution.hour) };
                counted.entry(key).or_default().add(&contribution, 1);
            }
        }
        Ok((lines.len() as u64, counted))
    }
}

struct RecountAll {
    prompt: Uuid,
    fix: bool,
}

impl Work for RecountAll {
    /// None: something moved.
    type Done = Option<Recount>;
    const TRUSTED: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Option<Recount>, Fault> {
        let prompt = self.prompt;
        let ever = [Buckets { prompt, resolution: Resolution::All, from: 0, to: 1 }];
        let days = [Buckets { prompt, resolution: Resolution::Day, from: i64::MIN / 2, to: i64::MAX / 2 }];
        let before = sums(tx, &ever).await?;
        let of_days = sums(tx, &days).await?;
        if sums(tx, &ever).await? != before {
            return Ok(None);
        }
        let key = Key { prompt, resolution: Resolution::All, bucket: 0 };
        let mut counted = BTreeMap::new();
        let mut sum = Rollup::default();
        of_days.values().for_each(|day| sum.merge(day));
        counted.insert(key, sum);
        settle(tx, prompt, 0, &before, counted, self.fix).await.map(Some)
    }
}

/// Rollups over all their writers, without those that are nothing.
async fn sums<T: Tx>(tx: &mut T, wanted: &[Buckets]) -> Result<BTreeMap<Key, Rollup>, Fault> {
    let mut sums: BTreeMap<Key, Rollup> = BTreeMap::new();
    for (key, part) in tx.rollups_in(wanted).await? {
        sums.entry(key).or_default().merge(&part);
    }
    sums.retain(|_, rollup| !rollup.is_empty());
    Ok(sums)
}

/// Tells where `stored` is not what was `counted`, and adds the difference.
async fn settle<T: Tx>(
    tx: &mut T,
    prompt: Uuid,
    rows: u64,
    stored: &BTreeMap<Key, Rollup>,
    counted: BTreeMap<Key, Rollup>,
    fix: bool,
) -> Result<Recount, Fault> {
    let keys: BTreeSet<Key> = stored.keys().chain(counted.keys()).copied().collect();
    let mut deltas: BTreeMap<Key, Rollup> = BTreeMap::new();
    let mut recount = Recount { rows, ..Recount::default() };
    for key in keys {
        let mut delta = counted.get(&key).cloned().unwrap_or_default();
        if let Some(stored) = stored.get(&key) {
            delta.take_away(stored);
        }
        if !delta.is_empty() {
            recount.different += 1;
            recount.traces_off +=
                [delta.success, delta.error, delta.timeout].map(i64::unsigned_abs).iter().sum::<u64>();
            deltas.insert(key, delta);
        }
    }
    if deltas.is_empty() || !fix {
        return Ok(recount);
    }
    let writer = Writer::new(WRITER);
    tx.own(&writer).await?;
    let keys: Vec<Key> = deltas.keys().copied().collect();
    let mut hours: Vec<(Uuid, i64)> = Vec::new();
    for key in &keys {
        // What is for ever is published with any hour of the prompt's.
        let hour = if key.resolution == Resolution::All { stored_hour(stored).unwrap_or(0) } else { key.bucket };
        hours.push((prompt, hour));
    }
    hours.dedup();
    for (key, rollup) in tx.rollups_of(&writer, &keys).await? {
        deltas.entry(key).or_default().merge(&rollup);
    }
    let rollups: Vec<(Key, Rollup)> = deltas.into_iter().collect();
    tx.put_rollups(&writer, &rollups).await?;
    tx.mark(&hours).await?;
    Ok(Recount { is_fixed: true, ..recount })
}

fn stored_hour(stored: &BTreeMap<Key, Rollup>) -> Option<i64> {
    stored.keys().find(|key| key.resolution != Resolution::All).map(|key| key.bucket)
}

/// What of a row of `prompt_traces` follows from its spans alone, whatever prompts and profiles there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brief {
    /// The trace.
    pub trace: TraceId,
    /// Its latency.
    pub execution_time_ms: i64,
    /// success, error or timeout.
    pub status: String,
    /// Of the last LLM call.
    pub model: String,
    /// Prompt, completion, total.
    pub tokens: [i64; 3],
    /// Spans that it was made of.
    pub spans: i64,
}

impl Store {
    /// The rows of these traces, as far as they have one, in any order.
    ///
    /// # Errors
    /// The database.
    pub async fn briefs(&self, traces: &[TraceId]) -> Result<Vec<Brief>, Error> {
        let sql = "SELECT phoenix_trace_id, execution_time_ms, status, model, CAST(tokens_used AS TEXT),
                 CAST(metadata ->> 'spans' AS TEXT) FROM public.prompt_traces WHERE phoenix_trace_id = ANY($1)";
        let read = |line: &Line| -> Result<Brief, Fault> {
            let trace = line.text(0)?;
            let tokens: serde_json::Value = serde_json::from_str(&line.text(4)?).unwrap_or_default();
            let spans = line.maybe_text(5)?.and_then(|spans| spans.parse().ok());
            Ok(Brief {
                trace: trace.parse().map_err(|_| Fault::damaged("the trace id", &trace))?,
                execution_time_ms: line.int(1)?,
                status: line.text(2)?,
                model: line.text(3)?,
                tokens: ["prompt", "completion", "total"].map(|key| tokens[key].as_i64().unwrap_or(0)),
                spans: spans.unwrap_or(0),
            })
        };
        let mut briefs = Vec::with_capacity(traces.len());
        for traces in traces.chunks(BRIEFS_AT_ONCE) {
            let names: Vec<String> = traces.iter().map(TraceId::to_string).collect();
            for line in self.bulk(sql, binds![names].into()).await? {
                briefs.push(read(&line)?);
            }
        }
        Ok(briefs)
    }
}

impl Store {
    /// Those of these traces that were let go of, by retention or because somebody asked: they have no row, and shall have none.
    ///
    /// # Errors
    /// The database.
    pub async fn gone(&self, traces: &[TraceId]) -> Result<Vec<TraceId>, Error> {
        let mut gone = Vec::new();
        for trace in traces {
            let found = self.lines("SELECT 1 FROM emberd.forgotten WHERE trace_id = $1", &binds![&trace.0[..]]).await?;
            if !found.is_empty() {
                gone.push(*trace);
            }
        }
        Ok(gone)
    }

    /// Takes the rows and states of these traces away, as if nothing had ever been recorded of them, so that recording their spans again makes
    /// both anew. Rollups are left as they are: count them again afterwards.
    ///
    /// # Errors
    /// The database.
    pub async fn unrecord(&self, traces: &[TraceId]) -> Result<(), Error> {
        for traces in traces.chunks(BRIEFS_AT_ONCE) {
            self.run(Unrecord(traces.to_vec())).await?;
        }
        Ok(())
    }
}

struct Unrecord(Vec<TraceId>);

impl Work for Unrecord {
    type Done = ();
    const TRUSTED: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
        // Rows first: on SQLite a state whose row goes is found by its trace from then on.
        let names: Vec<String> = self.0.iter().map(TraceId::to_string).collect();
        tx.execute("DELETE FROM public.prompt_traces WHERE phoenix_trace_id = ANY($1)", &binds![names]).await?;
        for trace in &self.0 {
            tx.execute("DELETE FROM emberd.trace_state WHERE trace_id = $1", &binds![&trace.0[..]]).await?;
        }
        Ok(())
    }
}
