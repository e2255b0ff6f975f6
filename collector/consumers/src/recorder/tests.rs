//! The recorder over a real log and real databases: what it promises when all goes well, and when it is killed, raced, refused,
//! left alone by the database, or missing a part of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use bytes::Bytes;
use emberd_log::{Config as LogConfig, DiskLog, Durability, Entry, Log, RealDisk};
use emberd_model::clock::Still;
use emberd_model::row::row;
use emberd_model::trace::fold;
use emberd_model::{Flags, TraceId, UnixNanos, wire};
use emberd_store::library::{MetricFilter, NewPrompt, TraceFilter};
use emberd_store::{Config as StoreConfig, Store};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::*;

/// 2026-11-21T12:34:56Z.
const NOW: u64 = 1_795_264_496_000_000_000;
const MS: u64 = 1_000_000;
/// Far more than anything here takes; what is waited for is a condition, never this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A log, a database and a quarantine of one test.
struct Room {
    log: Arc<DiskLog>,
    store: Store,
    quarantine: Quarantine,
    clock: Arc<Still>,
    url: String,
    dir: TempDir,
}

/// A recorder at work.
struct Running {
    task: JoinHandle<Result<(), Error>>,
    stop: CancellationToken,
    progress: Arc<Progress>,
}

impl Running {
    async fn stopped(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Ends it wherever it happens to be, as a crash does.
    async fn killed(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Room {
    async fn sqlite() -> Self {
        Self::with("sqlite".into(), 64 << 20).await
    }

    /// `segment_bytes` and the memory for followers bound what the log still knows of what was passed.
    async fn with(url: String, segment_bytes: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let clock = Arc::new(Still::at(UnixNanos(NOW)));
        let config = LogConfig {
            durability: Durability::Os,
            segment_bytes,
            tail_bytes: segment_bytes as usize,
            keep: Duration::ZERO,
            ..LogConfig::in_dir(dir.path().join("log"))
        };
        let (log, _) = DiskLog::open(config, Arc::new(RealDisk), clock.clone()).unwrap();
        log.register(NAME, Offset(0));
        let store = connect(&url, dir.path().into()).await;
        store.migrate_up().await.unwrap();
        let quarantine = Quarantine::open(&dir.path().join("quarantine")).unwrap();
        Self { log, store, quarantine, clock, url, dir }
    }

    fn config() -> Config {
        Config {
            writer: Writer::new("log-1"),
            reading: Reading::default(),
            prices: Arc::new(Prices::default()),
            root_wait: Duration::from_secs(30),
            quiet: Duration::from_secs(3_600),
        }
    }

    fn start(&self) -> Running {
        self.start_with(self.store.clone())
    }

    fn start_with(&self, store: Store) -> Running {
        let (stop, progress) = (CancellationToken::new(), Arc::new(Progress::new(NAME)));
        let (log, reader) = (self.log.clone(), self.log.reader(Offset(0)));
        let passed = move |cursor| log.passed(NAME, cursor);
        let clock = self.clock.clone();
        let recorder =
            Recorder::new(Self::config(), reader, store, self.quarantine.clone(), clock, progress.clone(), passed);
        #[allow(clippy::disallowed_methods, reason = "the test owns the task: it stops or kills it")]
        let task = tokio::spawn(recorder.run(stop.clone()));
        Running { task, stop, progress }
    }

    async fn append(&self, spans: &[Span]) {
        let entry = Entry {
            spans: NonZeroU32::new(spans.len() as u32).unwrap(),
            received_at: UnixNanos(NOW),
            key: 0,
            flags: Flags::default(),
            body: request(spans),
        };
        emberd_log::Appender::append(&*self.log, entry).await.unwrap();
    }

    /// Waits until the recorder has recorded and published all that the log has.
    async fn all_seen(&self, running: &Running) {
        let head = self.log.head();
        until("all is recorded and published", async || {
            let ledger = running.progress.ledger(head);
            ledger["pending"] == 0 && ledger.get("unpublished").is_none() && !running.task.is_finished()
        })
        .await;
    }

    /// The rows of the table, by trace: status, duration, model.
    async fn table(&self) -> BTreeMap<String, (String, i32, String)> {
        let page = self.store.traces(&TraceFilter::default(), None, 500).await.unwrap();
        assert_eq!(page.next_cursor, None, "the test makes fewer");
        let rows = page.data.into_iter();
        rows.map(|row| (row.phoenix_trace_id, (row.status, row.execution_time_ms, row.model))).collect()
    }

    /// The traces that the rollups hold, all prompts together.
    async fn counted(&self) -> i64 {
        self.store.summaries(500).await.unwrap().iter().map(|summary| summary.total_traces).sum()
    }

    /// Runs a statement beside the recorder.
    async fn sql(&self, sqlite: &str, postgres: &str) {
        if self.store.kind() == "sqlite" {
            let path = self.dir.path().join("emberd.db");
            let options = SqliteConnectOptions::new().filename(path);
            let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
            connection.execute(AssertSqlSafe(sqlite.to_owned())).await.unwrap();
        } else {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            connection.execute(AssertSqlSafe(postgres.to_owned())).await.unwrap();
        }
    }
}

async fn connect(url: &str, data_dir: PathBuf) -> Store {
    Store::connect(StoreConfig { url: url.into(), max_connections: 4, data_dir }).await.unwrap()
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// Runs a test on SQLite, and on a PostgreSQL database made for it.
fn on_both<F: Future<Output = ()>>(test: impl Fn(Room) -> F) {
    let runtime = runtime();
    runtime.block_on(async { test(Room::sqlite().await).await });
    on_postgres(&runtime, async |url| test(Room::with(url, 64 << 20).await).await);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn on_postgres(runtime: &tokio::runtime::Runtime, test: impl AsyncFnOnce(String)) {
    let server = std::env::var("EMBERD_TEST_POSTGRES").expect("set EMBERD_TEST_POSTGRES, or run make test");
    let options = PgConnectOptions::from_str(&server).unwrap();
    let name = format!("emberd_recorder_{:032x}", rand::random::<u128>());
    let admin = async |sql: String| {
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
    };
    runtime.block_on(admin(format!("CREATE DATABASE {name}")));
    let url = sqlx::ConnectOptions::to_url_lossy(&options.clone().database(&name)).to_string();
    let test = std::panic::AssertUnwindSafe(|| runtime.block_on(test(url)));
    let done = std::panic::catch_unwind(test);
    runtime.block_on(admin(format!("DROP DATABASE {name} WITH (FORCE)")));
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.into())) };
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}

fn trace_id(trace: u64) -> TraceId {
    let mut id = [1; 16];
    id[8..].copy_from_slice(&trace.to_be_bytes());
    TraceId(id)
}

/// The spans of a trace: a root of `trace` + 10 ms, and a call of a model under it.
fn trace(trace: u64) -> Vec<Span> {
    let span = |id: u64, parent: &[u8], end_ms: u64, attributes| Span {
        trace_id: trace_id(trace).0.to_vec(),
        span_id: (trace * 10 + id).to_be_bytes().to_vec(),
        parent_span_id: parent.to_vec(),
        name: "span".into(),
        start_time_unix_nano: NOW,
        end_time_unix_nano: NOW + end_ms * MS,
        attributes,
        ..Span::default()
    };
    let root = span(1, &[], trace % 50 + 10, vec![text("prompt.id", "greeting")]);
    let call = vec![text("openinference.span.kind", "LLM"), text("llm.model_name", "gpt-4o")];
    let call = span(2, &root.span_id, 5, call);
    vec![call, root]
}

fn request(spans: &[Span]) -> Bytes {
    let scope = ScopeSpans { spans: spans.to_vec(), ..ScopeSpans::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    Bytes::from(ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec())
}

/// What the table must hold after these traces.
fn expected(traces: impl IntoIterator<Item = u64>) -> BTreeMap<String, (String, i32, String)> {
    let rows = traces.into_iter().map(|n| {
        let batch = Batch {
            offset: Offset(0),
            spans: 2,
            received_at: UnixNanos(NOW),
            key: 0,
            flags: Flags::default(),
            body: request(&trace(n)),
        };
        let state = fold([&batch], &Reading::default()).remove(&trace_id(n)).unwrap();
        row(trace_id(n), &state, &Prices::default(), false).unwrap()
    });
    rows.map(|row| (row.trace_id.to_string(), (row.status.as_str().into(), row.execution_time_ms, row.model))).collect()
}

/// A trace that is in the log shows in the table, its prompt's metrics and the summary, without anyone asking for it.
#[test]
fn what_is_in_the_log_shows_in_the_tables() {
    on_both(async |room| {
        let running = room.start();
        let greeting = NewPrompt { title: "greeting".into(), content: "Hello".into(), created_by: None };
        let greeting = room.store.create_prompt(greeting, UnixNanos(NOW)).await.unwrap();
        for n in 0..20 {
            room.append(&trace(n)).await;
        }
        room.all_seen(&running).await;
        assert_eq!(room.table().await, expected(0..20));
        let summary = room.store.summary(greeting.id).await.unwrap().unwrap();
        assert_eq!((summary.total_traces, summary.success_rate), (20, Some(1.0)));
        assert!(!room.store.performance(greeting.id, &MetricFilter::default()).await.unwrap().is_empty());
        let ledger = running.progress.ledger(room.log.head());
        assert_eq!((&ledger["done"], &ledger["quarantined"]), (&40.into(), &0.into()));
        running.stopped().await;
    });
}

/// Killed at whatever point, and started again, while spans come in pieces, late and twice: every trace counts once.
#[test]
fn killed_anywhere_nothing_counts_twice_and_nothing_is_lost() {
    on_both(async |room| {
        for turn in 0..12u64 {
            let running = room.start();
            for n in turn * 5..turn * 5 + 5 {
                let [call, root] = trace(n).try_into().unwrap();
                room.append(std::slice::from_ref(&call)).await;
                room.append(&[root, call]).await;
            }
            // From before its first look at the database to after its last batch.
            tokio::time::sleep(Duration::from_millis(turn * 13)).await;
            running.killed().await;
        }
        for n in 0..60 {
            room.append(&trace(n)).await;
        }
        let running = room.start();
        room.all_seen(&running).await;
        assert_eq!(room.table().await, expected(0..60));
        assert_eq!(room.counted().await, 60);
        running.stopped().await;
    });
}

/// Two recorders of one log, as when an old process has not died yet: each trace is recorded by one of them, none twice.
#[test]
fn two_recorders_of_one_log_do_not_double() {
    on_both(async |room| {
        let (one, other) = (room.start(), room.start());
        for n in 0..100 {
            room.append(&trace(n)).await;
        }
        room.all_seen(&one).await;
        room.all_seen(&other).await;
        assert_eq!(room.table().await, expected(0..100));
        // What one has recorded the other may be publishing.
        until("all are counted", async || room.counted().await == 100).await;
        one.stopped().await;
        other.stopped().await;
        assert_eq!(room.counted().await, 100);
    });
}

/// Asked to stop, it finishes what it has in hand and publishes it: the tables agree with the cursor.
#[test]
fn stopping_finishes_what_is_in_hand() {
    on_both(async |room| {
        for n in 0..50 {
            room.append(&trace(n)).await;
        }
        let running = room.start();
        let progress = running.progress.clone();
        until("it has begun", async || progress.cursor() > Offset(0)).await;
        for n in 50..80 {
            room.append(&trace(n)).await;
        }
        running.stopped().await;
        let done = progress.cursor().0 / 2;
        assert_eq!(room.table().await, expected(0..done));
        assert_eq!(room.counted().await, done as i64);
        let running = room.start();
        room.all_seen(&running).await;
        assert_eq!(room.table().await, expected(0..80));
        // A sealed log that was read to its end ends the recorder.
        room.log.seal().await;
        running.task.await.unwrap().unwrap();
    });
}

/// A trace that the database refuses is found among many and put aside alone, with the reason; the others are recorded.
#[test]
fn a_refused_trace_goes_aside_alone() {
    on_both(async |room| {
        let (bad, worse) = (trace_id(13), trace_id(77));
        room.sql(
            &format!(
                "CREATE TRIGGER poison BEFORE INSERT ON prompt_traces \
                 WHEN NEW.phoenix_trace_id IN ('{bad}', '{worse}') BEGIN SELECT RAISE(ABORT, 'poison'); END"
            ),
            &format!(
                "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 IF NEW.phoenix_trace_id IN ('{bad}', '{worse}') THEN RAISE data_exception USING MESSAGE = 'poison'; END IF; \
                 RETURN NEW; END $$; \
                 CREATE TRIGGER poison BEFORE INSERT ON prompt_traces FOR EACH ROW EXECUTE FUNCTION poison()"
            ),
        )
        .await;
        for n in 0..100 {
            room.append(&[trace(n), trace((n + 1) % 100)].concat()).await;
        }
        let running = room.start();
        room.all_seen(&running).await;
        assert_eq!(room.table().await, expected((0..100).filter(|n| ![13, 77].contains(n))));

        let items = room.quarantine.list(Some(NAME)).unwrap();
        let traces: BTreeSet<_> = items.iter().flat_map(|item| item.traces.clone()).collect();
        assert_eq!(traces, BTreeSet::from([bad.to_string(), worse.to_string()]));
        assert!(items.iter().all(|item| item.reason == "unrecordable" && item.answer.contains("poison")), "{items:?}");
        // As they came, and nothing beside them: two spans in each of two batches, of each trace.
        assert_eq!(items.iter().map(|item| item.spans).sum::<u64>(), 8);
        for item in &items {
            let body = room.quarantine.body(item).unwrap();
            let ids: Vec<_> = wire::spans(&body).map(|found| found.span.trace_id.to_string()).collect();
            assert_eq!(ids, vec![item.traces[0].clone(); 2]);
        }
        let ledger = running.progress.ledger(room.log.head());
        let parts = ["done", "duplicate", "quarantined", "pending"].map(|part| ledger[part].as_u64().unwrap());
        assert_eq!(parts, [196, 196, 8, 0], "each span came twice: {ledger}");
        let book = running.progress.book();
        assert_eq!(room.store.book(NAME, &Room::config().writer).await.unwrap(), Some(book.clone()));
        assert!(book.is_balanced(), "{book:?}");
        running.stopped().await;
    });
}

/// Under load many stretches go in one transaction. A trace that the database refuses among them still goes aside alone, and what was
/// taken together is in the book as if it had been taken one by one.
#[test]
fn a_backlog_is_taken_together_and_a_refused_trace_in_it_goes_aside_alone() {
    on_both(async |room| {
        let bad = trace_id(200);
        room.sql(
            &format!(
                "CREATE TRIGGER poison BEFORE INSERT ON prompt_traces \
                 WHEN NEW.phoenix_trace_id = '{bad}' BEGIN SELECT RAISE(ABORT, 'poison'); END"
            ),
            &format!(
                "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 IF NEW.phoenix_trace_id = '{bad}' THEN RAISE data_exception USING MESSAGE = 'poison'; END IF; \
                 RETURN NEW; END $$; \
                 CREATE TRIGGER poison BEFORE INSERT ON prompt_traces FOR EACH ROW EXECUTE FUNCTION poison()"
            ),
        )
        .await;
        // Three stretches and a part of one. Of every trace one span is in the first half, which alone makes no row, and one in the
        // second, which does: so one is refused.
        let long = "x".repeat(BATCH_BYTES_MAX * 7 / 2 / 400);
        for part in 0..2 {
            for n in 0..200 {
                let mut span = trace(n + 50)[part].clone();
                span.attributes.push(text("note", &long));
                room.append(&[span]).await;
            }
        }
        let running = room.start();
        room.all_seen(&running).await;
        assert_eq!(room.table().await, expected((50..250).filter(|n| *n != 200)));
        let items = room.quarantine.list(Some(NAME)).unwrap();
        assert_eq!(items.iter().map(|item| item.spans).sum::<u64>(), 1, "{items:?}");
        let book = running.progress.book();
        assert_eq!(["done", "quarantined"].map(|word| book.total(word)), [399, 1], "{book:?}");
        assert!(book.is_balanced(), "{book:?}");

        // Without it in the way, a backlog goes through at the first try.
        running.stopped().await;
        for n in 300..500 {
            let mut spans = trace(n);
            spans[0].attributes.push(text("note", &"y".repeat(BATCH_BYTES_MAX * 5 / 2 / 200)));
            room.append(&spans).await;
        }
        let running = room.start();
        room.all_seen(&running).await;
        assert_eq!(running.progress.failing(), None);
        assert_eq!(room.table().await, expected((50..250).filter(|n| *n != 200).chain(300..500)));
        let book = running.progress.book();
        assert_eq!(room.store.book(NAME, &Room::config().writer).await.unwrap(), Some(book));
        running.stopped().await;
    });
}

/// A quarantined trace that the database takes by now is recorded when someone says so, and booked once; one that it still refuses stays,
/// and one that is given up is counted as shed.
#[test]
fn quarantined_traces_are_tried_again_or_given_up() {
    use crate::quarantine::Decision;
    on_both(async |room| {
        let bad = [trace_id(1), trace_id(2), trace_id(3)].map(|trace| trace.to_string());
        let poison = async |traces: &[String]| {
            let list = traces.iter().map(|trace| format!("'{trace}'")).collect::<Vec<_>>().join(",");
            room.sql(
                &format!(
                    "DROP TRIGGER IF EXISTS poison; CREATE TRIGGER poison BEFORE INSERT ON prompt_traces \
                     WHEN NEW.phoenix_trace_id IN ({list}) BEGIN SELECT RAISE(ABORT, 'poison'); END"
                ),
                &format!(
                    "CREATE OR REPLACE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                     IF NEW.phoenix_trace_id IN ({list}) THEN RAISE data_exception USING MESSAGE = 'poison'; END IF; \
                     RETURN NEW; END $$; \
                     CREATE OR REPLACE TRIGGER poison BEFORE INSERT ON prompt_traces FOR EACH ROW EXECUTE FUNCTION poison()"
                ),
            )
            .await;
        };
        poison(&bad).await;
        for n in 0..5 {
            room.append(&trace(n)).await;
        }
        let running = room.start();
        room.all_seen(&running).await;
        let items = room.quarantine.list(Some(NAME)).unwrap();
        assert_eq!(items.len(), 3);
        poison(&bad[2..]).await;
        for (item, decision) in items.iter().zip([Decision::Retry, Decision::Drop, Decision::Retry]) {
            room.quarantine.decide(item, decision).unwrap();
        }
        until("decisions are done", async || room.quarantine.decided(NAME).unwrap().is_empty()).await;
        let [left] = &room.quarantine.list(Some(NAME)).unwrap()[..] else { panic!() };
        assert_eq!((&left.traces[0], left.retries), (&bad[2], 1));
        room.all_seen(&running).await;
        assert_eq!(room.table().await, expected([0, 1, 4].into_iter()));
        let book = running.progress.book();
        assert_eq!(["done", "quarantined", "shed"].map(|word| book.total(word)), [6, 2, 2], "{book:?}");
        assert!(book.is_balanced());
        running.stopped().await;
        assert_eq!(room.store.book(NAME, &Room::config().writer).await.unwrap(), Some(book));
    });
}

/// While the database is away nothing is lost and nothing skipped; when it is back, the recorder goes on by itself.
#[test]
fn the_database_goes_and_comes_back() {
    let runtime = runtime();
    on_postgres(&runtime, async |url| {
        let room = Room::with(url.clone(), 64 << 20).await;
        let mut way = Way::to(&url).await;
        let running = room.start_with(connect(&way.url, room.dir.path().into()).await);
        room.append(&trace(0)).await;
        room.all_seen(&running).await;

        way.close().await;
        room.append(&trace(1)).await;
        until("it notices", async || running.progress.failing().is_some()).await;
        assert_eq!(running.progress.cursor(), Offset(2));
        way.open().await;
        room.all_seen(&running).await;
        assert_eq!(running.progress.failing(), None);
        assert_eq!(room.table().await, expected(0..2));

        // A stop does not wait for a database that is away.
        way.close().await;
        room.append(&trace(2)).await;
        running.stopped().await;
        assert_eq!(room.table().await, expected(0..2));
    });
}

/// The way to a database, which can be cut.
struct Way {
    url: String,
    here: std::net::SocketAddr,
    server: String,
    traffic: JoinSet<()>,
}

impl Way {
    async fn to(url: &str) -> Self {
        let options = PgConnectOptions::from_str(url).unwrap();
        let server = format!("{}:{}", options.get_host(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let url = sqlx::ConnectOptions::to_url_lossy(&options.host("127.0.0.1").port(here.port())).to_string();
        let mut way = Self { url, here, server, traffic: JoinSet::new() };
        way.carry(listener);
        way
    }

    async fn open(&mut self) {
        let listener = TcpListener::bind(self.here).await.unwrap();
        self.carry(listener);
    }

    fn carry(&mut self, listener: TcpListener) {
        let server = self.server.clone();
        self.traffic.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let server = server.clone();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
    }

    /// Breaks what is connected and refuses who comes.
    async fn close(&mut self) {
        self.traffic.shutdown().await;
    }
}

/// What the log no longer has is counted as skipped, and the recorder goes on behind it.
#[test]
fn what_the_log_no_longer_has_is_skipped_and_counted() {
    runtime().block_on(async {
        let room = Room::with("sqlite".into(), 64 << 10).await;
        let running = room.start();
        let long = "x".repeat(20_000);
        for n in 0..60 {
            let mut spans = trace(n);
            spans[0].attributes.push(text("note", &long));
            room.append(&spans).await;
        }
        room.all_seen(&running).await;
        until("segments are gone", async || room.log.tail() > Offset(0)).await;
        running.stopped().await;
        let tail = room.log.tail();

        // The database is taken back to its beginning: what can still be read is recorded again, and changes nothing.
        room.store.skip(NAME, &Room::config().writer, Offset(0), emberd_model::ledger::Tally::default()).await.unwrap();
        let running = room.start();
        room.all_seen(&running).await;
        let ledger = running.progress.ledger(room.log.head());
        let skipped = ledger["lost"].as_u64().unwrap();
        assert!((tail.0..=room.log.tail().0).contains(&skipped), "{skipped} skipped, the log began at {tail}");
        assert_eq!((&ledger["done"], &ledger["duplicate"]), (&120.into(), &(120 - skipped).into()));
        assert!(running.progress.book().is_balanced());
        assert_eq!(room.table().await, expected(0..60));
        assert_eq!(room.counted().await, 60);
        running.stopped().await;
    });
}

/// A trace whose root never comes gets its row after the wait; a root that comes later still corrects it.
#[test]
fn a_root_that_never_comes_is_waited_for_only_so_long() {
    on_both(async |room| {
        let running = room.start();
        let [call, root] = trace(3).try_into().unwrap();
        room.append(&[call]).await;
        room.all_seen(&running).await;
        assert_eq!(room.table().await, BTreeMap::new());
        room.clock.set(UnixNanos(NOW + 31_000 * MS));
        until("it has a row", async || !room.table().await.is_empty()).await;
        assert_eq!(room.table().await.into_values().next().unwrap().1, 5);
        room.append(&[root]).await;
        room.all_seen(&running).await;
        assert_eq!(room.table().await, expected([3]));
        assert_eq!(room.counted().await, 1);
        running.stopped().await;
    });
}
