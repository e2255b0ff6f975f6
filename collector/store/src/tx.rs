//! A transaction, as the work sees it: the statements that emberd writes with, the same on both databases.
//!
//! Promise: what a [`Work`] does through a [`Tx`] happens whole or not at all. Work is written once, for both databases; a backend
//! is these statements, each doing just what its line here says.
//! Not here: reads for the API, which take no part in a transaction (`sqlite/read.rs`, `postgres/read.rs`).

use std::collections::HashMap;

use emberd_model::ledger::{Account, Fate, Hour, Tally};
use emberd_model::rollup::{Contribution, Rollup, Window};
use emberd_model::row::{Row, Status, Tokens};
use emberd_model::{Offset, TraceId};
use uuid::Uuid;

use crate::Moment;
use crate::fault::Fault;
use crate::record::Writer;

/// How much of a prompt's name is in the index of those that found none.
pub(crate) const NAME_CHARS: usize = 100;

/// How long a rollup's bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Resolution {
    Hour,
    Day,
    All,
}

impl Resolution {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "h",
            Self::Day => "d",
            Self::All => "a",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Hour, Self::Day, Self::All].into_iter().find(|resolution| resolution.as_str() == text)
    }

    /// The bucket that an hour falls in, by its first hour.
    pub(crate) fn bucket(self, hour: i64) -> i64 {
        match self {
            Self::Hour => hour,
            Self::Day => hour.div_euclid(24) * 24,
            Self::All => 0,
        }
    }
}

/// Which rollup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) prompt: Uuid,
    pub(crate) resolution: Resolution,
    pub(crate) bucket: i64,
}

/// Which rollups: the buckets from `from` up to, not with, `to`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buckets {
    pub(crate) prompt: Uuid,
    pub(crate) resolution: Resolution,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// Where a trace counts, and what it adds there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) prompt: Uuid,
    pub(crate) contribution: Contribution,
}

/// A row of trace_state. Version 0: not stored yet.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) trace: TraceId,
    /// Where the backend keeps it, if it finds it by more than the trace; 0 where not stored yet.
    pub(crate) place: i64,
    pub(crate) version: i64,
    pub(crate) state: Vec<u8>,
    pub(crate) first_seen: Moment,
    pub(crate) touched: Moment,
    /// It deserves a row and has none yet, for want of a root.
    pub(crate) waiting: bool,
    pub(crate) counted: Option<Counted>,
}

/// A row of prompt_traces to write, its names looked up and its texts fit for every database.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// Which of the states written with it is its own.
    pub(crate) at: usize,
    pub(crate) row: Row,
    pub(crate) prompt: Uuid,
    pub(crate) user: Option<Uuid>,
    pub(crate) metadata: String,
}

/// An unassigned row of prompt_traces that names a prompt, as far as moving it needs.
#[derive(Clone, Debug)]
pub(crate) struct Orphan {
    pub(crate) trace: TraceId,
    pub(crate) prompt_ref: String,
    pub(crate) contribution: Contribution,
}

/// What is stored of some traces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Their states, in any order.
    pub(crate) states: Vec<Stored>,
    /// Those that have a row and no state, and those that went.
    pub(crate) settled: Vec<TraceId>,
}

/// Rows that texts name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Of the ids asked for, those that exist.
    pub(crate) ids: Vec<Uuid>,
    /// Of the texts asked for, the row that each names.
    pub(crate) texts: HashMap<String, Uuid>,
}

/// A row of prompt_performance_metrics as it should be: absent where there is no value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) prompt: Uuid,
    pub(crate) metric: &'static str,
    pub(crate) window: Window,
    pub(crate) start: Moment,
    pub(crate) value: Option<f64>,
}

/// A prompt's totals as they should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Totals {
    pub(crate) prompt: Uuid,
    pub(crate) traces: i64,
    pub(crate) success: i64,
    pub(crate) latency_sum_ms: i64,
    pub(crate) total_tokens: i64,
    pub(crate) median_latency: Option<f64>,
    pub(crate) p95_latency: Option<f64>,
}

/// Something to do in one transaction. Run again from the start if the transaction was contended.
pub(crate) trait Work: Send + Sync + 'static {
    type Done: Send + 'static;

    /// Whether it writes only what emberd itself made, and only beside what it has just looked up: then a database that can leave
    /// the checks of single rows out does so.
    const TRUSTED: bool = false;

    /// `attempt` counts from 0.
    fn run<T: Tx>(&self, tx: &mut T, attempt: u32) -> impl Future<Output = Result<Self::Done, Fault>> + Send;
}

/// An answer of a statement, later.
pub(crate) trait Answer<T>: Future<Output = Result<T, Fault>> + Send {}
impl<T, F: Future<Output = Result<T, Fault>> + Send> Answer<T> for F {}

/// An open transaction. Ids in arguments are sorted and distinct, so that two writers take locks in one order.
pub(crate) trait Tx: crate::sql::Sql {
    /// Waits until no other transaction writes this writer's rollups.
    fn own(&mut self, writer: &Writer) -> impl Answer<()>;

    /// The cursor, none if there is none.
    fn cursor(&mut self, consumer: &str, writer: &Writer) -> impl Answer<Option<Offset>>;

    /// Moves the cursor if it stands at `from` (a missing one: 0), and says whether it did.
    fn move_cursor(&mut self, consumer: &str, writer: &Writer, from: Offset, to: Offset) -> impl Answer<bool>;

    /// Sets the cursor; where `only_new`, only if there is none.
    fn set_cursor(&mut self, consumer: &str, writer: &Writer, to: Offset, only_new: bool) -> impl Answer<()>;

    /// Where a consumer of this writer's log began; none if it never began.
    fn origin(&mut self, consumer: &str, writer: &Writer) -> impl Answer<Option<i64>>;

    /// Sets where it began; where `only_new`, only if that is not known.
    fn set_origin(&mut self, consumer: &str, writer: &Writer, origin: i64, only_new: bool) -> impl Answer<()>;

    /// The lines of its book.
    fn ledger(&mut self, consumer: &str, writer: &Writer) -> impl Answer<Vec<(Account, Fate, i64)>>;

    /// Adds a tally to its book.
    fn put_ledger(&mut self, consumer: &str, writer: &Writer, tally: &Tally) -> impl Answer<()>;

    /// Books hours before `horizon` together.
    fn fold_ledger(&mut self, consumer: &str, writer: &Writer, horizon: Hour) -> impl Answer<()>;

    /// Notes that a quarantined item is decided, and says whether that is new.
    fn release(&mut self, consumer: &str, writer: &Writer, item: &str) -> impl Answer<bool>;

    /// Forgets an item whose files are gone.
    fn forget_release(&mut self, consumer: &str, writer: &Writer, item: &str) -> impl Answer<()>;

    /// What is stored of these traces; where `lock`, the states are held against other writers until the end.
    fn known(&mut self, traces: &[TraceId], lock: bool) -> impl Answer<Known>;

    /// Up to `limit` states that wait for a root since before `since`, longest first.
    fn waiting(&mut self, since: Moment, limit: u32) -> impl Answer<Vec<Stored>>;

    /// Since when the state waits that waits longest.
    fn waiting_longest(&mut self) -> impl Answer<Option<Moment>>;

    /// Writes states, each one version on from what is stored, and inserts or replaces the rows of some of them, whose `id` stays
    /// what it was. Contended if another writer was there first, or whom a row names has gone.
    fn put(&mut self, states: &[Stored], rows: &[Resolved]) -> impl Answer<()>;

    /// Prompts by id, and by title (the oldest of that title), but never the reserved one.
    fn prompts_named(&mut self, ids: &[Uuid], titles: &[&str]) -> impl Answer<Found>;

    /// Profiles by id and by email.
    fn profiles_named(&mut self, ids: &[Uuid], emails: &[&str]) -> impl Answer<Found>;

    /// Makes the reserved prompt if someone deleted it.
    fn reserve_prompt(&mut self) -> impl Answer<()>;

    /// This writer's part of these rollups, as far as there is one.
    fn rollups_of(&mut self, writer: &Writer, keys: &[Key]) -> impl Answer<Vec<(Key, Rollup)>>;

    /// Replaces this writer's part of these rollups.
    fn put_rollups(&mut self, writer: &Writer, rollups: &[(Key, Rollup)]) -> impl Answer<()>;

    /// Marks hours of prompts as to be published.
    fn mark(&mut self, hours: &[(Uuid, i64)]) -> impl Answer<()>;

    /// Waits for nothing: whether this transaction may publish, which is one's at a time.
    fn publisher(&mut self) -> impl Answer<bool>;

    /// Up to which UTC day windows that end at now were published.
    fn published_day(&mut self) -> impl Answer<Option<i64>>;

    /// Sets it.
    fn set_published_day(&mut self, day: i64) -> impl Answer<()>;

    /// Marks `hour` for each prompt that has a day's rollup in the buckets from `from` up to, not with, `to`.
    fn mark_active(&mut self, from: i64, to: i64, hour: i64) -> impl Answer<()>;

    /// Takes away up to `limit` marks, oldest first.
    fn take_marks(&mut self, limit: u32) -> impl Answer<Vec<(Uuid, i64)>>;

    /// Every writer's part of these rollups.
    fn rollups_in(&mut self, buckets: &[Buckets]) -> impl Answer<Vec<(Key, Rollup)>>;

    /// Inserts, replaces or deletes metrics.
    fn put_metrics(&mut self, metrics: &[Measured], now: Moment) -> impl Answer<()>;

    /// Inserts or replaces totals, with the start of the prompt's latest trace; deletes those without traces.
    fn put_totals(&mut self, totals: &[Totals]) -> impl Answer<()>;

    /// Deletes up to `limit` states untouched since before `since` that do not wait for a root; says how many.
    fn settle(&mut self, since: Moment, limit: u32) -> impl Answer<u64>;

    /// Names of prompts (their first [`NAME_CHARS`]) on rows of the reserved prompt: up to `limit` of those that sort after `after`.
    fn unjoined(&mut self, after: &str, limit: u32) -> impl Answer<Vec<String>>;

    /// Titles that begin with one of these names of [`NAME_CHARS`] characters.
    fn titles_like(&mut self, names: &[&str]) -> impl Answer<Vec<String>>;

    /// Up to `limit` traces of the reserved prompt that name one of these.
    fn unjoined_of(&mut self, names: &[&str], limit: u32) -> impl Answer<Vec<TraceId>>;

    /// Of these traces, the rows that belong to the reserved prompt, held against other writers until the end.
    fn orphans(&mut self, traces: &[TraceId]) -> impl Answer<Vec<Orphan>>;

    /// Moves rows to prompts.
    fn move_rows(&mut self, moves: &[(TraceId, Uuid)]) -> impl Answer<()>;

    /// Whether the table of prompts was made by emberd.
    fn owns_prompts(&mut self) -> impl Answer<bool>;

    /// Inserts a prompt.
    fn put_prompt(&mut self, prompt: &crate::library::Prompt) -> impl Answer<()>;
}

/// A line of a book, as its columns hold it: `project`, `fate`, `reason` in `texts`.
pub(crate) fn line(hour: i64, texts: &[String; 3], spans: i64) -> Result<(Account, Fate, i64), Fault> {
    let [project, word, reason] = texts;
    let hour = u32::try_from(hour).map_err(|_| Fault::damaged("an hour of the ledger", hour))?;
    let fate = Fate::parse(word, reason).ok_or_else(|| Fault::damaged("a fate of the ledger", word))?;
    Ok((Account::new(Hour(hour), project), fate, spans))
}

/// The status of this name.
pub(crate) fn status(text: &str) -> Result<Status, Fault> {
    [Status::Success, Status::Error, Status::Timeout]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| Fault::damaged("the status", text))
}

impl Orphan {
    /// From the columns of a row: a rollup is a function of rows, so what this one adds can be told from it alone.
    pub(crate) fn read(
        trace: &str,
        prompt_ref: String,
        created: Moment,
        execution_time_ms: i32,
        status: &str,
        tokens: &str,
        llm_time_ms: Option<&str>,
    ) -> Result<Self, Fault> {
        let trace: TraceId = trace.parse().map_err(|_| Fault::damaged("the trace id", trace))?;
        let tokens: serde_json::Value =
            serde_json::from_str(tokens).map_err(|_| Fault::damaged("tokens_used", trace))?;
        let number = |key: &str| tokens.get(key).and_then(serde_json::Value::as_i64).unwrap_or(0);
        let row = Row {
            id: Uuid::nil(),
            trace_id: trace,
            prompt_ref: None,
            session_id: None,
            user_ref: None,
            execution_time_ms,
            tokens: Tokens { prompt: number("prompt"), completion: number("completion"), total: number("total") },
            model: String::new(),
            status: self::status(status)?,
            error: None,
            metadata: String::new(),
            created_at: created.nanos(),
            llm_time_ms: llm_time_ms.and_then(|ms| ms.parse().ok()).unwrap_or(0),
        };
        Ok(Self { trace, prompt_ref, contribution: Contribution::of(&row) })
    }
}
