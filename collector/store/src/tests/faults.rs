//! Databases that refuse, vanish or are held: each error says what to do about it, and nothing is lost or done twice.

use std::time::Duration;

use emberd_model::Offset;
use sqlx::{Connection, Executor, PgConnection};

use super::harness::{Db, NOW, WRITER, on_postgres, on_sqlite, recording, refused};
use super::on_both;
use super::oracle::check;
use super::spans::{call, root, trace, trace_id};
use crate::apply::Recordings;
use crate::fault::Fault;
use crate::told::Told;
use crate::tx::{Tx, Work};
use crate::{Config, Error, RecordError, Recorded, Recording, Store, Writer};

on_both!(one_refused_trace_does_not_take_the_others_along, a_stale_version_writes_nothing);

/// A value that the database refuses is reported as such; the same stretch goes through without it.
async fn one_refused_trace_does_not_take_the_others_along(mut db: Db) {
    // A rule of the site's own, unknown to emberd.
    match db.is_sqlite() {
        true => {
            let rule = "CREATE TRIGGER rule BEFORE INSERT ON prompt_traces WHEN NEW.model = 'forbidden'
                 BEGIN SELECT RAISE(ABORT, 'no'); END";
            db.sql(rule).await.unwrap();
        }
        false => db.sql("ALTER TABLE prompt_traces ADD CHECK (model <> 'forbidden')").await.unwrap(),
    }
    let [root, call] = trace(1, 5_000, 10);
    let poison = [root, call.with("llm.model_name", "forbidden")];
    let all = [&poison[..], &trace(2, 5_000, 10)].concat();
    let code = refused(db.store.record(db.recording_of(WRITER, &all)).await.unwrap_err());
    assert_eq!(code, if db.is_sqlite() { "1811" } else { "23514" });
    assert_eq!(db.store.cursor("recorder", &Writer::new(WRITER)).await.unwrap(), None);
    db.record(&trace(2, 5_000, 10)).await;
    db.publish().await;
    assert_eq!(check(&db).await.traces.len(), 1);
}

/// A state is written one version on from what is stored, or not at all.
async fn a_stale_version_writes_nothing(mut db: Db) {
    struct Stale;
    impl Work for Stale {
        type Done = ();
        async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<(), Fault> {
            let mut states = tx.known(&[trace_id(1)], false).await?.states;
            states[0].state.clear();
            for version in [0, 1, 3] {
                states[0].version = version;
                assert!(matches!(tx.put(&states, &[]).await, Err(Fault::Contended { .. })), "version {version}");
            }
            Ok(())
        }
    }
    db.record(&trace(1, 5_000, 10)).await;
    db.store.run(Stale).await.unwrap();
    assert_eq!(db.record(&trace(1, 5_000, 10)).await.unchanged, 1);
}

/// What another writer did to a trace between our load and our write is seen, and the work done again on top of it.
#[test]
fn a_writer_that_was_overtaken_does_its_work_again() {
    /// Records, as one whose load is just before another's commit.
    struct Overtaken {
        store: Store,
        ours: Recording,
        theirs: Recording,
    }
    impl Work for Overtaken {
        type Done = Recorded;
        async fn run<T: Tx>(&self, tx: &mut T, attempt: u32) -> Result<Recorded, Fault> {
            if attempt > 0 {
                return Recordings::new(vec![self.ours.clone()], Told::default()).run(tx, attempt).await;
            }
            let mut states = tx.known(&[trace_id(1)], false).await?.states;
            self.store.record(self.theirs.clone()).await.unwrap();
            states[0].version += 1;
            tx.put(&states, &[]).await?;
            Ok(Recorded::default())
        }
    }
    on_postgres(|mut db| async move {
        db.record(&trace(1, 5_000, 10)).await;
        let root = root(1, 5_000, 10);
        let theirs = recording("log-2", Offset(0), &[call(&root, 4, (2, 2))]);
        let ours = db.recording_of(WRITER, &[call(&root, 3, (1, 1))]);
        let done = db.store.run(Overtaken { store: db.store.clone(), ours, theirs }).await.unwrap();
        assert_eq!((done.merged, done.retries), (1, 1));
        db.publish().await;
        assert_eq!(check(&db).await.traces[0]["metadata"]["spans"], 4);
    });
}

#[test]
fn a_server_that_is_not_there_is_unavailable_and_does_not_stop_the_start() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Nobody listens on port 1 of the loopback.
        let url = "postgres://emberd:secret@127.0.0.1:1/none".to_owned();
        let store = Store::connect(Config { url, max_connections: 4, data_dir: ".".into() }).await.unwrap();
        let error = store.record(recording(WRITER, Offset(0), &trace(1, 5_000, 10))).await.unwrap_err();
        assert!(matches!(error, RecordError::Unavailable { .. }), "{error:?}");
        assert!(matches!(store.ping().await, Err(Error::Unavailable { .. })));
        assert!(!format!("{error:?}").contains("secret"));
    });
}

/// Connections that are cut, wherever the transaction stood, leave it whole or undone; the cursor tells which.
#[test]
fn cut_connections_lose_nothing() {
    on_postgres(|mut db| async move {
        let url = db.url().to_owned();
        let cut_often = async {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            for _ in 0..40 {
                let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'emberd'";
                connection.execute(cut).await.unwrap();
                // So that a few transactions get through between two cuts.
                connection.execute("SELECT pg_sleep(0.007)").await.unwrap();
            }
        };
        let spans: Vec<_> = (0..300).flat_map(|number| trace(number, 5_000 + number * 50_000, number)).collect();
        let writer = Writer::new(WRITER);
        let record = async {
            let mut from = Offset(0);
            while (from.0 as usize) < spans.len() {
                let to = (from.0 as usize + 6).min(spans.len());
                match db.store.record(recording(WRITER, from, &spans[from.0 as usize..to])).await {
                    Ok(_) => from = Offset(to as u64),
                    Err(RecordError::CursorConflict { found, .. }) => from = found.unwrap_or_default(),
                    Err(RecordError::Unavailable { .. }) => {
                        // Whether it was committed is not known: ask.
                        if let Ok(found) = db.store.cursor("recorder", &writer).await {
                            from = found.unwrap_or_default();
                        }
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
        };
        tokio::join!(cut_often, record);
        while db.store.publish(NOW).await.is_err() {}
        db.restart().await;
        db.publish().await;
        assert_eq!(check(&db).await.traces.len(), 300);
    });
}

/// Plans are kept. One that was made for an empty table, when any way looks as good as any other, still finds rows by key once the table
/// is full.
#[test]
fn a_plan_made_for_empty_tables_does_not_scan_full_ones() {
    on_postgres(|mut db| async move {
        let traces = |from: u64, count: u64| {
            let named = |number| {
                let [root, call] = trace(number, number * 1_000, 10);
                [root.of_prompt(&format!("name {}", number % 7)), call]
            };
            (from..from + count).flat_map(named).collect::<Vec<_>>()
        };
        // Often enough for the server to settle on a plan; then nothing is left, and it makes the plan anew.
        for number in 0..24 {
            db.record(&traces(number * 50, 50)).await;
            db.store.publish(NOW).await.unwrap();
            db.prompt(&format!("name {number}")).await;
            db.join_prompts().await;
            db.store.settle(NOW, Duration::ZERO).await.unwrap();
        }
        let emptied = "DELETE FROM prompts WHERE title LIKE 'name%'; DELETE FROM prompt_traces; DELETE FROM emberd.trace_state;
             DELETE FROM emberd.rollups; DELETE FROM prompt_performance_metrics; DELETE FROM emberd.totals; DELETE FROM emberd.dirty";
        db.sql(emptied).await.unwrap();
        // The reserved prompt stays.
        db.sql("VACUUM ANALYZE prompts").await.unwrap();
        for table in
            ["prompt_traces", "prompt_performance_metrics", "emberd.trace_state", "emberd.rollups", "emberd.dirty"]
        {
            empty(&db, table).await;
        }
        let before = rows_read(&db).await;
        for batch in 0..20 {
            db.record(&traces(10_000 + batch * 200, 200)).await;
            db.store.publish(NOW).await.unwrap();
            if batch % 5 == 4 {
                db.prompt(&format!("name {}", batch % 7)).await;
                db.join_prompts().await;
            }
        }
        // A backend that ends hands in its statistics.
        db.restart().await;
        let after = rows_read(&db).await;
        for ((table, before), (_, after)) in before.iter().zip(&after) {
            // Four thousand traces, two or three looks at each; one statement that scans in each batch makes it fifty thousand.
            assert!(after - before < 20_000, "{table}: {} rows read", after - before);
        }
    });
}

/// Leaves a table without pages: dead rows that some other look at the database still holds are waited for.
async fn empty(db: &Db, table: &str) {
    let mut connection = PgConnection::connect(db.url()).await.unwrap();
    for _ in 0..200 {
        db.sql(&format!("VACUUM ANALYZE {table}")).await.unwrap();
        let size = sqlx::AssertSqlSafe(format!("SELECT pg_relation_size('{table}')"));
        if sqlx::query_scalar::<_, i64>(size).fetch_one(&mut connection).await.unwrap() == 0 {
            return;
        }
        connection.execute("SELECT pg_sleep(0.05)").await.unwrap();
    }
    panic!("{table} keeps its pages");
}

/// Rows that scans have read, by table; in full scans of an index or of the table, many.
async fn rows_read(db: &Db) -> Vec<(String, i64)> {
    let mut connection = PgConnection::connect(db.url()).await.unwrap();
    let ended =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'emberd'";
    for _ in 0..500 {
        if sqlx::query_scalar::<_, i64>(ended).fetch_one(&mut connection).await.unwrap() == 0 {
            break;
        }
        connection.execute("SELECT pg_sleep(0.01)").await.unwrap();
    }
    let read = "SELECT t.relname::text, (t.seq_tup_read + coalesce(sum(i.idx_tup_read), 0))::bigint
         FROM pg_stat_user_tables t LEFT JOIN pg_stat_user_indexes i USING (relid)
         WHERE t.relname IN ('prompt_traces', 'trace_state', 'rollups', 'prompt_performance_metrics', 'dirty')
         GROUP BY t.relname, t.seq_tup_read ORDER BY t.relname";
    sqlx::query_as(read).fetch_all(&mut connection).await.unwrap()
}

/// Another process holds SQLite's lock for a while: the writer waits for it.
#[test]
fn a_locked_file_is_waited_for() {
    on_sqlite(|mut db| async move {
        let other = rusqlite::Connection::open(db.file()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let release = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            other.execute_batch("COMMIT").unwrap();
        });
        assert_eq!(db.record(&trace(1, 5_000, 10)).await.new, 1);
        release.join().unwrap();
    });
}

/// A file that is no database is said to be none, and left as it is.
#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("emberd.db");
    std::fs::write(&path, "Dear diary, ".repeat(400)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { url: "sqlite".into(), max_connections: 2, data_dir: dir.path().into() };
    let opened = runtime.block_on(Store::connect(config));
    assert!(matches!(opened, Err(crate::error::ConnectError::Open { .. })));
    assert!(std::fs::read_to_string(path).unwrap().starts_with("Dear diary"));
}
