//! What is too old goes: a bounded batch in each transaction, found by an index.
//!
//! Promise: no batch holds a lock for long: it takes as many rows as went quickly before (`Pace`), waits for nobody's row locks longer
//! than [`LOCK_WAIT_MS`], each of its statements is given up after [`STATEMENT_MS`], none begins when locks were held for as long, and no commit
//! waits for the disk: what a crash brings back goes again. A crash between two batches leaves nothing half done. Several emberds on
//! one database take turns. Rollups stay when rows go; a trace that went is remembered ([`Table::Forgotten`]), so that a late span counts as
//! late and brings nothing back; one whose state still takes in spans stays until it is settled.
//! Not here: when and how long what is kept (the daemon's configuration), files (`emberd-consumers`' quarantine), the log.
//! Kept by: `tests::retention`, `emberd-benches`' `retention`.

mod keeper;
mod traces;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use emberd_model::UnixNanos;
use uuid::Uuid;

use crate::Moment;
use crate::error::Error;
use crate::fault::Fault;
use crate::sql::{Bind, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

pub use keeper::{Counts, Keeper, Kept};
pub(crate) use traces::{forget, remember};

/// One for all emberds on a database: who deletes.
pub(crate) const RETENTION_LOCK: i64 = 0x656d_6265_7264_0002;
/// How long a batch waits for a lock that somebody else holds.
pub const LOCK_WAIT_MS: u64 = 40;
/// How long a batch's statement may take before it is given up, and a smaller one tried: two of them follow each other with locks.
pub const STATEMENT_MS: u64 = 45;

macro_rules! tables {
    ($($table:ident = $word:literal: $what:literal,)+) => {
        /// What is deleted when it is old.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Table { $(#[doc = $what] $table,)+ }

        impl Table {
            /// All of them, in the order in which they are looked through.
            pub const ALL: &[Self] = &[$(Self::$table,)+];

            /// The label in metrics, and the key in the configuration.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$table => $word,)+ }
            }
        }
    };
}

tables! {
    Traces = "traces": "Rows of `prompt_traces`, by the trace's start.",
    Scores = "scores": "What rules on live traffic scored, by when they did.",
    Evaluations = "evaluations": "Items, targets, results and calls of closed evaluations; their rows stay.",
    Metrics = "metrics": "Rows of `prompt_performance_metrics`, by their window's start.",
    Rollups = "rollups": "Rollups of hours and days; those of all time stay.",
    Days = "days": "Rows of `daily_metrics`.",
    Usage = "usage": "Rows of `api_usage_logs`.",
    Events = "events": "Rows of `analytics_events`.",
    Sessions = "sessions": "Rows of `user_sessions`, by their last activity.",
    Requests = "requests": "What was made under idempotency keys.",
    Outbox = "outbox": "What Phoenix refused for good.",
    Forgotten = "forgotten": "The names of traces that went.",
}

/// Where a table goes on after a batch that left rows behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    at: Moment,
    id: Uuid,
}

/// What a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Rows that went.
    pub deleted: u64,
    /// Where to go on; none: nothing that old is left.
    pub next: Option<Mark>,
    /// Another emberd was at it: nothing was done.
    pub busy: bool,
    /// From the first statement that takes locks of rows (SQLite: from the first of all) to the commit: the longest that one was held.
    pub held: Duration,
}

impl Store {
    /// Deletes up to `rows` rows of `table` that are older than `before`, from where the last batch ended.
    pub async fn retain(
        &self,
        table: Table,
        before: UnixNanos,
        now: UnixNanos,
        rows: u32,
        from: Option<Mark>,
    ) -> Result<Batch, Error> {
        let since = Since::default();
        let old = Old { table, before: before.into(), now: now.into(), rows: rows.max(1), from, locks: since.clone() };
        let mut batch = self.run(Delete(old)).await?;
        batch.held = since.held();
        Ok(batch)
    }
}

/// What is to go.
struct Old {
    table: Table,
    before: Moment,
    now: Moment,
    rows: u32,
    from: Option<Mark>,
    locks: Since,
}

/// Since when the last attempt may have held locks that others wait for.
#[derive(Clone, Default)]
struct Since(Arc<Mutex<Option<Instant>>>);

impl Since {
    /// A new attempt: SQLite's transaction has the whole file at once, PostgreSQL's holds nothing yet.
    fn attempt(&self, is_sqlite: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = is_sqlite.then(Instant::now);
    }

    /// From now on, if not already.
    fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
    }

    fn held(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map_or(Duration::ZERO, |since| since.elapsed())
    }
}

struct Delete(Old);

impl Work for Delete {
    type Done = Batch;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Batch, Fault> {
        let Self(old) = self;
        old.locks.attempt(tx.is_sqlite());
        if !bounded(tx).await? {
            return Ok(Batch { busy: true, next: old.from.clone(), ..Batch::default() });
        }
        match old.table {
            Table::Traces => traces::delete(tx, old).await,
            Table::Evaluations => items(tx, old).await,
            table => plain(tx, table, old).await,
        }
    }
}

/// Bounds what this transaction may wait and take; whether it is this emberd's turn.
async fn bounded<T: Tx>(tx: &mut T) -> Result<bool, Fault> {
    if tx.is_sqlite() {
        return Ok(true);
    }
    tx.execute("SET LOCAL synchronous_commit = off", &[]).await?;
    tx.execute(&format!("SET LOCAL lock_timeout = {LOCK_WAIT_MS}"), &[]).await?;
    tx.execute(&format!("SET LOCAL statement_timeout = {STATEMENT_MS}"), &[]).await?;
    let mine = tx.query("SELECT pg_try_advisory_xact_lock($1)", &binds![RETENTION_LOCK]).await?;
    mine.first().map_or(Ok(false), |line| line.bool(0))
}

/// A table whose rows hang on nothing.
struct Plain {
    name: &'static str,
    key: &'static str,
    /// When a row is old: `$1` is the bound.
    old: &'static str,
    order: &'static str,
}

impl Plain {
    fn of(table: Table) -> Option<Self> {
        let plain = |name, key, old, order| Some(Self { name, key, old, order });
        match table {
            Table::Traces | Table::Evaluations => None,
            Table::Scores => plain("emberd.trace_scores", "trace_id, rule, name", "at < $1", "at"),
            Table::Metrics => plain("public.prompt_performance_metrics", "id", "\"timestamp\" < $1", "\"timestamp\""),
            Table::Rollups => plain(
                "emberd.rollups",
                "prompt_id, resolution, bucket, writer",
                "resolution <> 'a' AND bucket < $1",
                "bucket",
            ),
            Table::Days => plain("public.daily_metrics", "day", "day < $1", "day"),
            Table::Usage => plain("public.api_usage_logs", "id", "created_at < $1", "created_at"),
            Table::Events => plain("public.analytics_events", "id", "created_at < $1", "created_at"),
            Table::Sessions => plain("public.user_sessions", "session_id", "last_activity_at < $1", "last_activity_at"),
            Table::Requests => plain("emberd.asked", "creator, operation, key", "at < $1", "at"),
            Table::Outbox => plain("emberd.outbox", "kind, key", "refused IS NOT NULL AND due_at < $1", "due_at"),
            Table::Forgotten => plain("emberd.forgotten", "trace_id", "at < $1", "at"),
        }
    }
}

/// The bound as the table writes its times.
fn bound(table: Table, before: Moment) -> Bind<'static> {
    const HOUR: i64 = 3_600_000_000;
    match table {
        Table::Scores | Table::Requests | Table::Outbox | Table::Forgotten | Table::Evaluations => {
            before.micros().into()
        }
        Table::Rollups => before.micros().div_euclid(HOUR).into(),
        Table::Days => before.to_string().chars().take(10).collect::<String>().into(),
        Table::Traces | Table::Metrics | Table::Usage | Table::Events | Table::Sessions => before.into(),
    }
}

async fn plain<T: Tx>(tx: &mut T, table: Table, old: &Old) -> Result<Batch, Fault> {
    let Some(Plain { name, key, old: is_old, order }) = Plain::of(table) else { return Ok(Batch::default()) };
    let sql = if tx.is_sqlite() {
        format!(
            "DELETE FROM {name} WHERE ({key}) IN (SELECT {key} FROM {name} WHERE {is_old} ORDER BY {order} LIMIT $2)"
        )
    } else {
        let is_old = if table == Table::Days { "day < $1::text::date" } else { is_old };
        let picked = format!("SELECT ctid FROM {name} WHERE {is_old} ORDER BY {order} LIMIT $2 FOR UPDATE SKIP LOCKED");
        format!("DELETE FROM {name} WHERE ctid = ANY(ARRAY({picked}))")
    };
    old.locks.begin();
    let deleted = tx.execute(&sql, &[bound(table, old.before), i64::from(old.rows).into()]).await?;
    Ok(Batch { deleted, next: (deleted >= u64::from(old.rows)).then(Mark::first), ..Batch::default() })
}

impl Mark {
    /// From the beginning: all before it is gone.
    fn first() -> Self {
        Self { at: Moment::from_micros(i64::MIN), id: Uuid::nil() }
    }
}

/// What closed jobs were made of, one job after the other. What came of them stands in their rows.
async fn items<T: Tx>(tx: &mut T, old: &Old) -> Result<Batch, Fault> {
    let from = old.from.clone().unwrap_or_else(Mark::first);
    let sql = "SELECT id, created_at FROM emberd.jobs WHERE phase = 'closed' AND created_at < $1
         AND (created_at, id) > ($2, $3) ORDER BY created_at, id LIMIT 1";
    let found = tx.query(sql, &binds![old.before.micros(), from.at.micros(), from.id]).await?;
    let Some(line) = found.first() else { return Ok(Batch::default()) };
    let (job, at) = (line.id(0)?, line.int(1)?);
    old.locks.begin();
    let (mut deleted, mut is_all) = (0, true);
    for (table, key) in [
        ("emberd.job_results", "job, nr, step, name"),
        ("emberd.job_calls", "job, nr, step, call"),
        ("emberd.job_items", "job, nr, step"),
        ("emberd.job_targets", "job, nr"),
    ] {
        let left = i64::from(old.rows) - deleted as i64;
        if left <= 0 || old.locks.held() >= Duration::from_millis(STATEMENT_MS) {
            is_all = false;
            break;
        }
        let sql = if tx.is_sqlite() {
            format!("DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE job = $1 LIMIT $2)")
        } else {
            let picked = format!("SELECT ctid FROM {table} WHERE job = $1 LIMIT $2 FOR UPDATE SKIP LOCKED");
            format!("DELETE FROM {table} WHERE ctid = ANY(ARRAY({picked}))")
        };
        deleted += tx.execute(&sql, &binds![job, left]).await?;
    }
    // A job of which something may be left is come back to.
    let next =
        if !is_all || deleted >= u64::from(old.rows) { from } else { Mark { at: Moment::from_micros(at), id: job } };
    Ok(Batch { deleted, next: Some(next), ..Batch::default() })
}
