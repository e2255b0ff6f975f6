//! A fresh database for each test, gone after it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use emberd_model::cost::Prices;
use emberd_model::ledger::Tally;
use emberd_model::trace::Folded;
use emberd_model::{Offset, UnixNanos};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::spans::{self, Span};
use crate::library::NewPrompt;
use crate::{Booking, Config, RecordError, Recorded, Recording, Store, Writer};

/// 2026-11-21T12:34:56Z.
pub(crate) const NOW: UnixNanos = UnixNanos(1_795_264_496_000_000_000);
pub(crate) const WRITER: &str = "log-1";

/// A database, and how to open it again.
pub(crate) struct Db {
    pub(crate) store: Store,
    config: Config,
    /// Where the cursor stands, by writer.
    cursors: std::collections::HashMap<String, Offset>,
    _dir: TempDir,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(Db) -> F) {
    runtime().block_on(async {
        let db = Db::open("sqlite".to_owned());
        db.store.migrate_up().await.unwrap();
        test(db).await;
    });
}

pub(crate) fn on_postgres<F: Future<Output = ()>>(test: impl FnOnce(Db) -> F) {
    on_empty_postgres(|url| async {
        let db = Db::open(url);
        db.store.migrate_up().await.unwrap();
        test(db).await;
    });
}

/// A PostgreSQL database without emberd's schema; the test gets its URL.
pub(crate) fn on_empty_postgres<F: Future<Output = ()>>(test: impl FnOnce(String) -> F) {
    let server = std::env::var("EMBERD_TEST_POSTGRES").expect("set EMBERD_TEST_POSTGRES, or run make test");
    let options: PgConnectOptions = server.parse().unwrap();
    let name = format!("emberd_store_{}", Uuid::new_v4().simple());
    let url = options.clone().database(&name);
    let runtime = runtime();
    let admin = async |sql: String| {
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
        connection.close().await.unwrap();
    };
    runtime.block_on(admin(format!("CREATE DATABASE {name}")));
    let text = {
        use sqlx::ConnectOptions;
        url.to_url_lossy().to_string()
    };
    let done = catch_unwind(AssertUnwindSafe(|| runtime.block_on(test(text))));
    runtime.block_on(admin(format!("DROP DATABASE {name} WITH (FORCE)")));
    if let Err(panic) = done {
        resume_unwind(panic);
    }
}

impl Db {
    pub(crate) fn open(url: String) -> Self {
        let dir = TempDir::new().unwrap();
        let config = Config { url, max_connections: 8, data_dir: PathBuf::from(dir.path()) };
        let store = {
            // The pool wants a runtime to be entered, which it is: tests run inside one.
            futures_util::FutureExt::now_or_never(Store::connect(config.clone())).unwrap().unwrap()
        };
        Self { store, config, cursors: Default::default(), _dir: dir }
    }

    /// Closes the store and opens it anew, as a restart would.
    pub(crate) async fn restart(&mut self) {
        self.store.close().await;
        self.store = Store::connect(self.config.clone()).await.unwrap();
    }

    /// Starts over at the beginning of every log.
    pub(crate) fn forget_cursors(&mut self) {
        self.cursors.clear();
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.store.kind() == "sqlite"
    }

    /// A recording of these spans, from where the writer's cursor stands.
    pub(crate) fn recording_of(&self, writer: &str, spans: &[Span]) -> Recording {
        let from = self.cursors.get(writer).copied().unwrap_or_default();
        recording(writer, from, spans)
    }

    pub(crate) async fn record(&mut self, spans: &[Span]) -> Recorded {
        self.record_as(WRITER, spans).await
    }

    pub(crate) async fn record_as(&mut self, writer: &str, spans: &[Span]) -> Recorded {
        self.record_at(writer, spans, NOW).await
    }

    pub(crate) async fn record_at(&mut self, writer: &str, spans: &[Span], now: UnixNanos) -> Recorded {
        let recording = Recording { now, ..self.recording_of(writer, spans) };
        let (from, to) = (recording.from, recording.to);
        let mut recorded = self.store.record(recording).await.unwrap();
        let tally = std::mem::take(&mut recorded.tally);
        assert_eq!(tally.spans() as u64, to.since(from), "{tally:?}");
        self.cursors.insert(writer.to_owned(), to);
        let book = self.store.book("recorder", &Writer::new(writer)).await.unwrap().expect("it has begun");
        assert!(book.is_balanced() && book.cursor() == to, "{book:?}");
        recorded
    }

    pub(crate) async fn prompt(&self, title: &str) -> Uuid {
        let new = NewPrompt { title: title.to_owned(), content: "Say hello.".to_owned(), created_by: None };
        self.store.create_prompt(new, NOW).await.unwrap().id
    }

    pub(crate) async fn publish(&self) {
        self.publish_at(NOW).await;
    }

    pub(crate) async fn publish_at(&self, now: UnixNanos) {
        while self.store.publish(now).await.unwrap().more {}
    }

    pub(crate) async fn join_prompts(&self) -> u64 {
        let mut traces = 0;
        loop {
            let joined = self.store.join_prompts(&Writer::new(WRITER)).await.unwrap();
            traces += joined.traces;
            if !joined.more {
                return traces;
            }
        }
    }

    /// Writes the rows of all traces that are still without a root.
    pub(crate) async fn rootless(&self) -> u64 {
        let mut written = 0;
        loop {
            let pass = crate::record::Rootless {
                writer: Writer::new(WRITER),
                now: NOW,
                wait: Duration::ZERO,
                limit: 3,
                prices: Arc::new(Prices::default()),
            };
            let done = self.store.rootless(pass).await.unwrap();
            written += done.written;
            if done.next.is_none() {
                return written;
            }
        }
    }

    /// Runs SQL that no part of the store offers.
    pub(crate) async fn sql(&self, sql: &str) -> Result<(), sqlx::Error> {
        match self.is_sqlite() {
            true => {
                let mut connection =
                    sqlx::SqliteConnection::connect(&format!("sqlite:{}", self.file().display())).await?;
                connection.execute(AssertSqlSafe(sql)).await?;
                connection.close().await
            }
            false => {
                let mut connection = PgConnection::connect(&self.config.url).await?;
                connection.execute(AssertSqlSafe(sql)).await?;
                connection.close().await
            }
        }
    }

    /// The last column of what SQL that no part of the store offers says.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        use sqlx::Row;
        let sql = AssertSqlSafe(sql.replace("public.", if self.is_sqlite() { "" } else { "public." }));
        match self.is_sqlite() {
            true => {
                let url = format!("sqlite:{}", self.file().display());
                let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
                let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
                rows.iter().map(|row| row.get(row.len() - 1)).collect()
            }
            false => {
                let mut connection = PgConnection::connect(&self.config.url).await.unwrap();
                let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
                rows.iter().map(|row| row.get(row.len() - 1)).collect()
            }
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.config.data_dir.join("emberd.db")
    }

    pub(crate) fn url(&self) -> &str {
        &self.config.url
    }
}

pub(crate) fn recording(writer: &str, from: Offset, spans: &[Span]) -> Recording {
    let Folded { states, origins } = spans::folded(spans);
    Recording {
        consumer: "recorder".to_owned(),
        writer: Writer::new(writer),
        from,
        to: from.plus(spans.len() as u64),
        now: NOW,
        states,
        origins,
        booked: Tally::default(),
        booking: Booking::Write,
        prices: Arc::new(Prices::default()),
    }
}

/// The code of a refused value.
pub(crate) fn refused(error: RecordError) -> String {
    match error {
        RecordError::Data { code, .. } => code,
        other => panic!("expected a refused value, found {other:?}"),
    }
}
