//! The way into the database, whichever it is.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emberd_model::ledger::{Book, Hour, Tally};
use emberd_model::{Offset, UnixNanos};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::Moment;
use crate::apply::{Recordings, RootlessPass};
use crate::config::{Config, Target};
use crate::error::{ConnectError, CreatePromptError, Error, MigrateError, RecordError};
use crate::fault::Fault;
use crate::jobs::Viewer;
use crate::join::Join;
use crate::library::{
    Counts, Metric, MetricFilter, NewPrompt, Page, Ping, Place, Pool, Prompt, Summary, Trace, TraceFilter,
};
use crate::migrate::{self, Step};
use crate::once::{Done, Keyed, Once};
use crate::postgres::Postgres;
use crate::publish::Publish;
use crate::record::{Joined, Published, Recorded, Recording, Rootless, RootlessDone, Settled, Writer};
use crate::sql::{Bind, Line};
use crate::sqlite::Sqlite;
use crate::told::{Completed, Others, Teller};
use crate::tx::Work;
use crate::work::{Begin, FoldLedger, ForgetRelease, GetCursor, MakePrompt, NotMade, ReadBook, Settle, Skip};

/// Rows on a page at most.
const PAGE_MAX: u32 = 500;

enum Backend {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// The same call on whichever it is.
macro_rules! either {
    ($store:expr, $backend:ident => $call:expr) => {
        match &*$store.backend {
            Backend::Sqlite($backend) => $call,
            Backend::Postgres($backend) => $call,
        }
    };
}

/// A database; cheap to clone, all clones share its connections.
#[derive(Clone)]
pub struct Store {
    backend: Arc<Backend>,
    /// Where [`Store::join_prompts`] goes on. Two that do it at once may go over some names twice.
    joined_up_to: Arc<Mutex<String>>,
    teller: Teller,
    /// Another's table of profiles was found to have fewer columns than emberd's.
    pub(crate) lacks_columns: Arc<AtomicBool>,
}

impl Store {
    /// Opens the database. SQLite: makes the file if need be. PostgreSQL: connects when first asked, so that emberd
    /// starts while it is down.
    pub async fn connect(config: Config) -> Result<Self, ConnectError> {
        let backend = match config.target()? {
            Target::Sqlite(path) => Backend::Sqlite(Sqlite::open(&path, config.max_connections)?),
            Target::Postgres(url) => Backend::Postgres(Postgres::open(&url, config.max_connections)?),
        };
        let (joined_up_to, teller, lacks_columns) = Default::default();
        Ok(Self { backend: Arc::new(backend), joined_up_to, teller, lacks_columns })
    }

    /// The same database as this caller sees it: on PostgreSQL what is read from the library's tables goes through the policies, with
    /// the caller's claims. emberd's own tables are closed to users there: ask for those without.
    #[must_use]
    pub fn seen_by(&self, viewer: Viewer) -> Self {
        match &*self.backend {
            Backend::Sqlite(_) => self.clone(),
            Backend::Postgres(postgres) => {
                let backend = Arc::new(Backend::Postgres(postgres.seen_by(viewer.own())));
                Self { backend, ..self.clone() }
            }
        }
    }

    /// `sqlite` or `postgres`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &*self.backend {
            Backend::Sqlite(_) => "sqlite",
            Backend::Postgres(_) => "postgres",
        }
    }

    /// Closes all connections, after what is under way.
    pub async fn close(&self) {
        match &*self.backend {
            Backend::Sqlite(sqlite) => sqlite.close().await,
            Backend::Postgres(postgres) => postgres.pool.close().await,
        }
    }

    /// Applies the steps that are missing; gives those.
    pub async fn migrate_up(&self) -> Result<Vec<Step>, MigrateError> {
        let before = self.migrate_status().await?;
        either!(self, backend => backend.up().await)?;
        Ok(migrate::changed(&before, self.migrate_status().await?))
    }

    /// Takes back the steps above `to`, newest first; gives those. 0 takes back everything that emberd made, rows included.
    pub async fn migrate_down(&self, to: i64) -> Result<Vec<Step>, MigrateError> {
        let before = self.migrate_status().await?;
        either!(self, backend => backend.down(to).await)?;
        let mut changed = migrate::changed(&before, self.migrate_status().await?);
        changed.reverse();
        Ok(changed)
    }

    /// All steps, and which are applied.
    pub async fn migrate_status(&self) -> Result<Vec<Step>, MigrateError> {
        either!(self, backend => backend.steps().await)
    }

    /// Whether the schema is exactly the one that this binary writes: nothing may be written otherwise.
    pub async fn check_schema(&self) -> Result<(), MigrateError> {
        migrate::check(&self.migrate_status().await?)
    }

    /// Where a consumer of a writer's log stands; none if it never recorded anything.
    pub async fn cursor(&self, consumer: &str, writer: &Writer) -> Result<Option<Offset>, Error> {
        let work = GetCursor { consumer: consumer.to_owned(), writer: writer.clone() };
        Ok(self.run(work).await?)
    }

    /// Begins a consumer's cursor and book at `at`, where it has none yet, and gives the book. A missing cursor counts as 0 for
    /// [`Store::record`], so this is only needed where the log begins later.
    pub async fn begin_at(&self, consumer: &str, writer: &Writer, at: Offset) -> Result<Book, Error> {
        Ok(self.run(Begin { consumer: consumer.to_owned(), writer: writer.clone(), at }).await?)
    }

    /// What became of the spans that a consumer of a writer's log has passed; none if it never began.
    pub async fn book(&self, consumer: &str, writer: &Writer) -> Result<Option<Book>, Error> {
        Ok(self.run(ReadBook { consumer: consumer.to_owned(), writer: writer.clone() }).await?)
    }

    /// Moves a cursor over spans that the log does not have, and books them; or back to where the log ends, which takes nothing
    /// out of the book. Gives the book after it.
    pub async fn skip(&self, consumer: &str, writer: &Writer, to: Offset, booked: Tally) -> Result<Book, Error> {
        Ok(self.run(Skip { consumer: consumer.to_owned(), writer: writer.clone(), to, booked }).await?)
    }

    /// Books hours before `horizon` together.
    pub async fn fold_ledger(&self, consumer: &str, writer: &Writer, horizon: Hour) -> Result<(), Error> {
        Ok(self.run(FoldLedger { consumer: consumer.to_owned(), writer: writer.clone(), horizon }).await?)
    }

    /// Forgets that a quarantined item was released, once its files are gone.
    pub async fn forget_release(&self, consumer: &str, writer: &Writer, item: &str) -> Result<(), Error> {
        let (consumer, item) = (consumer.to_owned(), item.to_owned());
        Ok(self.run(ForgetRelease { consumer, writer: writer.clone(), item }).await?)
    }

    /// Applies a recording in one transaction: states, rows, rollups and cursor.
    pub async fn record(&self, recording: Recording) -> Result<Recorded, RecordError> {
        self.record_all(vec![recording]).await
    }

    /// Applies several recordings of one log, each from where the one before ends, in one transaction: many at once cost far less
    /// than one by one, for a page is written once for all of them.
    pub async fn record_all(&self, recordings: Vec<Recording>) -> Result<Recorded, RecordError> {
        let mut done = self.run(Recordings::new(recordings, self.teller.begin())).await?;
        self.teller.tell(std::mem::take(&mut done.told));
        Ok(done)
    }

    /// Writes rows for traces that deserve one and whose root did not come in time. A root that comes later corrects them.
    pub async fn rootless(&self, pass: Rootless) -> Result<RootlessDone, Error> {
        let mut done = self.run(RootlessPass { pass, told: self.teller.begin() }).await?;
        self.teller.tell(std::mem::take(&mut done.told));
        Ok(done)
    }

    /// Rows of traces that this emberd writes from now on.
    #[must_use]
    pub fn completed(&self) -> broadcast::Receiver<Arc<[Completed]>> {
        self.teller.listen()
    }

    /// The line to the other emberds on the same database.
    #[must_use]
    pub fn others(&self) -> Others {
        match &*self.backend {
            Backend::Sqlite(_) => Others::none(),
            Backend::Postgres(postgres) => Others::of(postgres.clone()),
        }
    }

    /// Brings `prompt_performance_metrics` and the summary up to the rollups, some hundred windows in a transaction. Any number of
    /// emberds may do it at once.
    pub async fn publish(&self, now: UnixNanos) -> Result<Published, Error> {
        Ok(self.run(Publish { now }).await?)
    }

    /// Drops the states of traces untouched for `quiet`, but not those whose root is still waited for. A span that comes after
    /// that is counted as late.
    pub async fn settle(&self, now: UnixNanos, quiet: Duration) -> Result<Settled, Error> {
        let quiet = i64::try_from(quiet.as_micros()).unwrap_or(i64::MAX);
        let since = Moment::from_micros(Moment::from(now).micros().saturating_sub(quiet));
        Ok(self.run(Settle { since }).await?)
    }

    /// Moves traces whose `metadata.prompt_ref` names a prompt by now from the reserved prompt to that one. Cheap to call each second:
    /// it costs a look into an index for each distinct name without a prompt, of which a call takes 500 in turn.
    pub async fn join_prompts(&self, writer: &Writer) -> Result<Joined, Error> {
        let after = self.joined_up_to.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (joined, next) = self.run(Join { writer: writer.clone(), after }).await?;
        *self.joined_up_to.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(joined)
    }

    /// Prompts, newest first, the reserved one included. `limit` is kept within 1 to 500.
    pub async fn prompts(&self, cursor: Option<&str>, limit: u32) -> Result<Page<Prompt>, Error> {
        let after = cursor.map(Place::parse).transpose()?;
        let limit = page(limit);
        Ok(either!(self, backend => backend.prompts(after, limit).await)?)
    }

    /// A prompt.
    pub async fn prompt(&self, id: Uuid) -> Result<Option<Prompt>, Error> {
        Ok(either!(self, backend => backend.prompt(id).await)?)
    }

    /// Makes a prompt, where the table is emberd's.
    pub async fn create_prompt(&self, new: NewPrompt, now: UnixNanos) -> Result<Prompt, CreatePromptError> {
        match self.create_prompt_once(new, None, now).await? {
            Done::Now(prompt) => Ok(prompt),
            Done::Before(_) | Done::OtherBody => Err(Error::from(Fault::contended()).into()),
        }
    }

    /// The same, once for each key; a prompt that was made before is told by its id.
    pub async fn create_prompt_once(
        &self,
        new: NewPrompt,
        once: Option<Once>,
        now: UnixNanos,
    ) -> Result<Done<Prompt>, CreatePromptError> {
        let (title, content) = (new.title, Some(new.content));
        let prompt = Prompt { id: Uuid::new_v4(), title, content, created_by: new.created_by, created_at: now.into() };
        let work = MakePrompt { prompt: prompt.clone() };
        let keyed = Keyed { once, id: prompt.id, at: now, work, is_done: Result::is_ok };
        match self.run(keyed).await.map_err(Error::from)? {
            Done::Now(Ok(())) => Ok(Done::Now(prompt)),
            Done::Now(Err(NotMade::NotOurs)) => Err(CreatePromptError::NotOurs),
            Done::Now(Err(NotMade::NoSuchProfile)) => Err(CreatePromptError::NoSuchProfile),
            Done::Before(id) => Ok(Done::Before(id)),
            Done::OtherBody => Ok(Done::OtherBody),
        }
    }

    /// A prompt's metrics, latest window first; at most 10 000.
    pub async fn performance(&self, prompt: Uuid, filter: &MetricFilter) -> Result<Vec<Metric>, Error> {
        Ok(either!(self, backend => backend.performance(prompt, filter).await)?)
    }

    /// Traces, newest first. `limit` is kept within 1 to 500.
    pub async fn traces(&self, filter: &TraceFilter, cursor: Option<&str>, limit: u32) -> Result<Page<Trace>, Error> {
        let after = cursor.map(Place::parse).transpose()?;
        let limit = page(limit);
        Ok(either!(self, backend => backend.traces(filter, after, limit).await)?)
    }

    /// A prompt's line of the summary.
    pub async fn summary(&self, prompt: Uuid) -> Result<Option<Summary>, Error> {
        Ok(either!(self, backend => backend.summary(prompt).await)?)
    }

    /// The summary of the prompts used last; `limit` is kept within 1 to 500.
    pub async fn summaries(&self, limit: u32) -> Result<Vec<Summary>, Error> {
        let limit = page(limit);
        Ok(either!(self, backend => backend.summaries(limit).await)?)
    }

    /// Asks the smallest question.
    pub async fn ping(&self) -> Result<Ping, Error> {
        Ok(either!(self, backend => backend.ping().await)?)
    }

    /// The pool, now.
    #[must_use]
    pub fn pool(&self) -> Pool {
        either!(self, backend => backend.pool())
    }

    /// How much there is.
    pub async fn counts(&self) -> Result<Counts, Error> {
        Ok(either!(self, backend => backend.counts().await)?)
    }

    /// Reads with a statement of both databases.
    pub(crate) async fn lines(&self, sql: &str, binds: &[Bind<'_>]) -> Result<Vec<Line>, Fault> {
        either!(self, backend => backend.lines(sql, binds).await)
    }

    /// Reads many rows with a statement of both databases.
    pub(crate) async fn bulk(&self, sql: &str, binds: Vec<Bind<'static>>) -> Result<Vec<Line>, Fault> {
        either!(self, backend => backend.bulk(sql, binds).await)
    }

    pub(crate) async fn run<W: Work>(&self, work: W) -> Result<W::Done, Fault> {
        match &*self.backend {
            Backend::Sqlite(sqlite) => sqlite.run(work).await,
            Backend::Postgres(postgres) => postgres.run(&work).await,
        }
    }
}

pub(crate) fn page(limit: u32) -> usize {
    limit.clamp(1, PAGE_MAX) as usize
}
