//! The way into the database, whichever it is.

use std::time::Duration;

use emberd_model::{Offset, UnixNanos};
use uuid::Uuid;

use crate::config::Config;
use crate::error::{ConnectError, CreatePromptError, Error, MigrateError, RecordError};
use crate::library::{Counts, Metric, MetricFilter, NewPrompt, Page, Ping, Pool, Prompt, Summary, Trace, TraceFilter};
use crate::migrate::Step;
use crate::record::{Joined, Published, Recorded, Recording, Rootless, RootlessDone, Settled, Writer};

/// A database; cheap to clone, all clones share its connections.
#[derive(Clone)]
pub struct Store {}

#[expect(unused_variables, reason = "the border first")]
impl Store {
    /// Opens the database. SQLite: makes the file if need be. PostgreSQL: connects when first asked, so that emberd
    /// starts while it is down.
    pub async fn connect(config: Config) -> Result<Self, ConnectError> {
        todo!()
    }

    /// `sqlite` or `postgres`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        todo!()
    }

    /// Closes all connections, after what is under way.
    pub async fn close(&self) {
        todo!()
    }

    /// Applies the steps that are missing; gives those.
    pub async fn migrate_up(&self) -> Result<Vec<Step>, MigrateError> {
        todo!()
    }

    /// Takes back the steps above `to`, newest first; gives those. 0 takes back everything that emberd made, rows included.
    pub async fn migrate_down(&self, to: i64) -> Result<Vec<Step>, MigrateError> {
        todo!()
    }

    /// All steps, and which are applied.
    pub async fn migrate_status(&self) -> Result<Vec<Step>, MigrateError> {
        todo!()
    }

    /// Whether the schema is exactly the one that this binary writes: nothing may be written otherwise.
    pub async fn check_schema(&self) -> Result<(), MigrateError> {
        todo!()
    }

    /// Where a consumer of a writer's log stands; none if it never recorded anything.
    pub async fn cursor(&self, consumer: &str, writer: &Writer) -> Result<Option<Offset>, Error> {
        todo!()
    }

    /// Sets a cursor that does not exist yet, and gives where it stands: `at`, or where it stood already. A missing cursor
    /// counts as 0, so this is only needed where the log begins later.
    pub async fn begin_at(&self, consumer: &str, writer: &Writer, at: Offset) -> Result<Offset, Error> {
        todo!()
    }

    /// Moves a cursor, whatever it was: for a replay. Recording what was recorded before changes nothing.
    pub async fn rewind(&self, consumer: &str, writer: &Writer, to: Offset) -> Result<(), Error> {
        todo!()
    }

    /// Applies a recording in one transaction: states, rows, rollups and cursor.
    pub async fn record(&self, recording: Recording) -> Result<Recorded, RecordError> {
        todo!()
    }

    /// Writes rows for traces that deserve one and whose root did not come in time. A root that comes later corrects them.
    pub async fn rootless(&self, pass: Rootless) -> Result<RootlessDone, Error> {
        todo!()
    }

    /// Brings `prompt_performance_metrics` and the summary up to the rollups, some hundred windows in a transaction. Any number of
    /// emberds may do it at once.
    pub async fn publish(&self, now: UnixNanos) -> Result<Published, Error> {
        todo!()
    }

    /// Drops the states of traces untouched for `quiet`, but not those whose root is still waited for. A span that comes after
    /// that is counted as late.
    pub async fn settle(&self, now: UnixNanos, quiet: Duration) -> Result<Settled, Error> {
        todo!()
    }

    /// Moves traces whose `metadata.prompt_ref` names a prompt by now from the reserved prompt to that one.
    pub async fn join_prompts(&self, writer: &Writer) -> Result<Joined, Error> {
        todo!()
    }

    /// Prompts, newest first, the reserved one included. `limit` is kept within 1 to 500.
    pub async fn prompts(&self, cursor: Option<&str>, limit: u32) -> Result<Page<Prompt>, Error> {
        todo!()
    }

    /// A prompt.
    pub async fn prompt(&self, id: Uuid) -> Result<Option<Prompt>, Error> {
        todo!()
    }

    /// Makes a prompt, where the table is emberd's.
    pub async fn create_prompt(&self, new: NewPrompt, now: UnixNanos) -> Result<Prompt, CreatePromptError> {
        todo!()
    }

    /// A prompt's metrics, latest window first; at most 10 000.
    pub async fn performance(&self, prompt: Uuid, filter: &MetricFilter) -> Result<Vec<Metric>, Error> {
        todo!()
    }

    /// Traces, newest first. `limit` is kept within 1 to 500.
    pub async fn traces(&self, filter: &TraceFilter, cursor: Option<&str>, limit: u32) -> Result<Page<Trace>, Error> {
        todo!()
    }

    /// A prompt's line of the summary.
    pub async fn summary(&self, prompt: Uuid) -> Result<Option<Summary>, Error> {
        todo!()
    }

    /// The summary of the prompts used last; `limit` is kept within 1 to 500.
    pub async fn summaries(&self, limit: u32) -> Result<Vec<Summary>, Error> {
        todo!()
    }

    /// Asks the smallest question.
    pub async fn ping(&self) -> Result<Ping, Error> {
        todo!()
    }

    /// The pool, now.
    #[must_use]
    pub fn pool(&self) -> Pool {
        todo!()
    }

    /// How much there is.
    pub async fn counts(&self) -> Result<Counts, Error> {
        todo!()
    }
}
