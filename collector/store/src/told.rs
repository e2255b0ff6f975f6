//! Who listens hears of it: rows of traces as they are written, and what emberds that share a database tell each other.
//!
//! Promise: a row is told after its transaction, never before; while nobody listens, nothing is gathered. Telling never waits: who lags
//! behind [`ROWS_MAX`] transactions misses the oldest, and is told so.
//! A message between emberds may be lost with a connection: [`Heard::Missed`] says that it may have been.
//! Not here: what is done with it (`emberd-api`).
//! Kept by: `tests::told`.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::Error;
use crate::postgres::{Postgres, fault};
use crate::tx::Resolved;

/// Transactions that a listener may lag behind.
const ROWS_MAX: usize = 256;
/// Rows told of one transaction.
const TRANSACTION_ROWS_MAX: usize = 2_000;
/// The channel of emberds that share a PostgreSQL.
const CHANNEL: &str = "emberd";
/// A message's bytes: PostgreSQL takes 7,999, with what stands around it.
pub const MESSAGE_BYTES_MAX: usize = 7_500;
/// How long after a lost connection it is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// A trace whose row was written: for the first time when its root has ended, and again whenever a later span changes the row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Completed {
    /// Lower-case hex.
    pub trace_id: String,
    /// [`crate::library::UNASSIGNED`] where no prompt is known.
    pub prompt_id: Uuid,
    /// The session.
    pub session_id: Option<Uuid>,
    /// success, error or timeout.
    pub status: &'static str,
    /// Latency.
    pub execution_time_ms: i32,
    /// Of the last LLM call.
    pub model: String,
    /// Summed over the calls.
    pub tokens: Tokens,
    /// In all, in the currency of the price table; none where no call has a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<serde_json::Number>,
}

/// Token sums of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// In.
    pub prompt: i64,
    /// Out.
    pub completion: i64,
    /// Both, or what was reported.
    pub total: i64,
}

impl Completed {
    pub(crate) fn of(resolved: &Resolved) -> Self {
        #[derive(serde::Deserialize)]
        struct Priced {
            cost: Option<Cost>,
        }
        #[derive(serde::Deserialize)]
        struct Cost {
            total: serde_json::Number,
        }
        let row = &resolved.row;
        Self {
            trace_id: row.trace_id.to_string(),
            prompt_id: resolved.prompt,
            session_id: row.session_id,
            status: row.status.as_str(),
            execution_time_ms: row.execution_time_ms,
            model: row.model.clone(),
            tokens: Tokens { prompt: row.tokens.prompt, completion: row.tokens.completion, total: row.tokens.total },
            cost: serde_json::from_str::<Priced>(&resolved.metadata).ok().and_then(|priced| Some(priced.cost?.total)),
        }
    }
}

/// Rows of a transaction, on their way to listeners; none: nobody listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told(Option<Vec<Completed>>);

impl Told {
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self(is_wanted.then(Vec::new))
    }

    pub(crate) fn add(&mut self, rows: &[Resolved]) {
        let Some(all) = &mut self.0 else { return };
        let room = TRANSACTION_ROWS_MAX.saturating_sub(all.len());
        all.extend(rows.iter().take(room).map(Completed::of));
    }
}

/// Where rows are told.
#[derive(Clone, Debug)]
pub(crate) struct Teller(broadcast::Sender<Arc<[Completed]>>);

impl Default for Teller {
    fn default() -> Self {
        Self(broadcast::Sender::new(ROWS_MAX))
    }
}

impl Teller {
    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<[Completed]>> {
        self.0.subscribe()
    }

    pub(crate) fn begin(&self) -> Told {
        Told::new(self.0.receiver_count() > 0)
    }

    pub(crate) fn tell(&self, told: Told) {
        if let Some(rows) = told.0.filter(|rows| !rows.is_empty()) {
            // Nobody listens any more.
            drop(self.0.send(rows.into()));
        }
    }
}

/// What was heard of another emberd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message, under its topic.
    Message {
        /// What it is about.
        topic: String,
        /// What it says.
        body: String,
    },
    /// The connection was lost and is there again: messages in between were not heard.
    Missed,
}

/// The line to the other emberds on the same database; on SQLite there are none.
pub struct Others(Option<Line>);

struct Line {
    postgres: Postgres,
    own: Uuid,
    /// With the pool of one connection that it lives on.
    listener: Option<(PgPool, PgListener)>,
    was_there: bool,
}

impl Others {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn of(postgres: Postgres) -> Self {
        Self(Some(Line { postgres, own: Uuid::new_v4(), listener: None, was_there: false }))
    }

    /// Whether there can be any.
    #[must_use]
    pub fn can_be(&self) -> bool {
        self.0.is_some()
    }

    /// A way to tell them something while this one listens. They hear it under the same topic; this one does not.
    #[must_use]
    pub fn voice(&self) -> Voice {
        Voice(self.0.as_ref().map(|line| (line.postgres.clone(), line.own)))
    }

    /// What the next one says; never, if there are none. Safe to drop and call again.
    pub async fn next(&mut self) -> Heard {
        let Some(line) = &mut self.0 else { return std::future::pending().await };
        loop {
            if let Some(heard) = line.next().await {
                return heard;
            }
        }
    }
}

impl Line {
    async fn next(&mut self) -> Option<Heard> {
        let Some((_, listener)) = &mut self.listener else {
            match listen(&self.postgres).await {
                Ok(listening) => {
                    self.listener = Some(listening);
                    return std::mem::replace(&mut self.was_there, true).then_some(Heard::Missed);
                }
                Err(error) => tracing::debug!(%error, "other emberds cannot be heard"),
            }
            tokio::time::sleep(AGAIN).await;
            return None;
        };
        match listener.try_recv().await {
            Ok(Some(notice)) => {
                let (from, rest) = notice.payload().split_once(' ')?;
                let (topic, body) = rest.split_once(' ')?;
                let is_own = Uuid::try_parse(from) == Ok(self.own);
                (!is_own).then(|| Heard::Message { topic: topic.to_owned(), body: body.to_owned() })
            }
            Ok(None) => {
                self.listener = None;
                None
            }
            Err(error) => {
                tracing::debug!(%error, "other emberds are not heard any more");
                self.listener = None;
                tokio::time::sleep(AGAIN).await;
                None
            }
        }
    }
}

/// A connection of its own: one of the pool would be missing there for ever.
async fn listen(postgres: &Postgres) -> Result<(PgPool, PgListener), sqlx::Error> {
    let options = (*postgres.pool.connect_options()).clone();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(options)
        .await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    Ok((pool, listener))
}

/// Tells the other emberds.
#[derive(Clone)]
pub struct Voice(Option<(Postgres, Uuid)>);

impl Voice {
    /// Tells them all of these, each of [`MESSAGE_BYTES_MAX`] at most, in one statement. A topic has no blank. Where there are none, nothing
    /// is done.
    pub async fn tell(&self, topic: &str, bodies: &[String]) -> Result<(), Error> {
        let Some((postgres, own)) = &self.0 else { return Ok(()) };
        let payloads: Vec<String> = bodies
            .iter()
            .filter(|body| body.len() <= MESSAGE_BYTES_MAX)
            .map(|body| format!("{} {topic} {body}", own.simple()))
            .collect();
        if payloads.is_empty() {
            return Ok(());
        }
        sqlx::query("SELECT pg_notify($1, payload) FROM unnest($2::text[]) payload")
            .bind(CHANNEL)
            .bind(payloads)
            .execute(&postgres.pool)
            .await
            .map_err(fault)?;
        Ok(())
    }
}
