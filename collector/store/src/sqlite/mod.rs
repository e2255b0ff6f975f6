//! SQLite: one file, one thread that writes, a pool of readers, and a thread that reads what is much.
//!
//! Promise: a committed transaction survives power loss (WAL, `synchronous = FULL`), and no writer ever finds the file busy because
//! of another of ours: all writes queue up at one thread, each begins with its lock in hand.
//! Not here: the statements (`tx.rs`), the reads (`read.rs`).

mod fault;
pub(crate) mod read;
mod rows;
mod sql;
mod traces;
mod tx;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Executor, SqlitePool};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::fault::{fault, read_fault};
use self::tx::SqliteTx;
use crate::error::ConnectError;
use crate::fault::Fault;
use crate::library::{Ping, Pool};
use crate::tx::Work;

/// Another process (a shell, a backup) may hold the lock for so long.
const BUSY: Duration = Duration::from_secs(10);
/// Each reader is a thread.
const READERS_MAX: u32 = 16;
/// Works that wait for the writer; more, and callers wait to hand theirs over.
const QUEUE: usize = 64;
/// Where a work finds what another left: a prompt deleted under it, or another process's write.
const ATTEMPTS: u32 = 5;

/// 64 MB of pages, checkpoints of as much: each is written once for many rows, and memory stays within its bound (docs/decisions/0004-store.md).
const WRITER: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
     PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 16384; PRAGMA temp_store = MEMORY; \
     PRAGMA journal_size_limit = 134217728";

const READER: &str = "PRAGMA query_only = ON; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY";

const CHECKED: &str = "PRAGMA foreign_keys = ON; PRAGMA ignore_check_constraints = OFF";
const UNCHECKED: &str = "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON";

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

pub(crate) struct Sqlite {
    pub(crate) readers: SqlitePool,
    path: PathBuf,
    writer: Thread,
    pub(super) reader: Thread,
}

/// A thread with a connection of its own; it ends when this is dropped, after the work in hand.
pub(crate) struct Thread {
    /// None only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Thread {
    fn begin(name: &str, connection: Connection) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(connection, queue))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Has it do something. Once handed over it is done, also if nobody waits for it any more.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let ended = || Fault::Unavailable { source: "the thread of the database has ended".into() };
        let (answer, done) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Whoever asked may be gone.
            let _ = answer.send(work(connection));
        });
        self.jobs.as_ref().ok_or_else(ended)?.send(job).await.map_err(|_| ended())?;
        done.await.map_err(|_| ended())
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Sqlite {
    /// Opens the file, and makes it if it is not there.
    pub(crate) fn open(path: &Path, max_connections: u32) -> Result<Self, ConnectError> {
        let open = |source: crate::error::Source| ConnectError::Open { source };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|source| open(source.into()))?;
        }
        let connection = writer(path).map_err(|source| open(source.into()))?;
        let writer = Thread::begin("sqlite-writer", connection).map_err(|source| open(source.into()))?;
        let connection = reader(path).map_err(|source| open(source.into()))?;
        let reader = Thread::begin("sqlite-reader", connection).map_err(|source| open(source.into()))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(max_connections.clamp(2, READERS_MAX))
            .acquire_timeout(BUSY)
            .connect_lazy_with(options(path).pragma("query_only", "on").pragma("cache_size", "-16384"));
        Ok(Self { readers, path: path.to_owned(), writer, reader })
    }

    /// Does the work in a transaction on the writer's thread.
    pub(crate) async fn run<W: Work>(&self, work: W) -> Result<W::Done, Fault> {
        self.writer.call(move |connection| transact(connection, &work)).await?
    }

    pub(crate) async fn ping(&self) -> Result<Ping, Fault> {
        let start = Instant::now();
        let mut connection = self.readers.acquire().await.map_err(read_fault)?;
        let acquire = start.elapsed();
        connection.execute("SELECT 1").await.map_err(read_fault)?;
        Ok(Ping { acquire, query: start.elapsed() - acquire })
    }

    pub(crate) fn pool(&self) -> Pool {
        let idle = self.readers.num_idle() as u32;
        let max = self.readers.options().get_max_connections();
        Pool { in_use: self.readers.size().saturating_sub(idle), idle, max }
    }

    /// For migrations: a connection of its own.
    pub(crate) fn options(&self) -> SqliteConnectOptions {
        options(&self.path)
    }

    /// Waits for the works handed over, and folds the write-ahead log into the file, so that it can be copied as it is.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        // A reader of another process in the way is no harm.
        let _ = self
            .writer
            .call(|connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).is_ok())
            .await;
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .foreign_keys(true)
        .busy_timeout(BUSY)
}

fn writer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(WRITER)?;
    connection.set_prepared_statement_cache_capacity(192);
    Ok(connection)
}

fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(READER)?;
    Ok(connection)
}

fn work(mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        job(&mut connection);
    }
}

fn transact<W: Work>(connection: &mut Connection, work: &W) -> Result<W::Done, Fault> {
    let mut attempt = 0;
    loop {
        match attempt_once(connection, work, attempt) {
            Err(Fault::Contended { .. }) if attempt + 1 < ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

/// Whether SQLite checks each row for what it refers to and for being JSON. Changing it makes it prepare all statements anew, so it is
/// only changed where it must be.
fn leave_checks_out(connection: &Connection, out: bool) -> rusqlite::Result<()> {
    if connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY)? == out {
        connection.execute_batch(if out { UNCHECKED } else { CHECKED })?;
    }
    Ok(())
}

fn attempt_once<W: Work>(connection: &mut Connection, work: &W, attempt: u32) -> Result<W::Done, Fault> {
    leave_checks_out(connection, W::TRUSTED).map_err(fault::fault)?;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(fault::fault)?;
    let done = work
        .run(&mut SqliteTx { connection }, attempt)
        .now_or_never()
        .expect("SQLite's statements answer at once: nothing in a work waits for anything else");
    let done = done.and_then(|done| connection.execute_batch("COMMIT").map_err(fault::fault).map(|()| done));
    if done.is_err() && !connection.is_autocommit() {
        // SQLite may have rolled back by itself; if not, and this fails too, the next BEGIN says so.
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}
