//! The recorder's transaction on both databases, beside bare inserts of as many rows into SQLite.
//!
//! The floor is the least that any recorder does: one prepared INSERT a trace into a table of the same columns and the same
//! unique trace id, as many in a transaction. What the recorder does above it: load and merge states, fold them to rows, move rollups and the cursor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_model::row::row;
use emberd_model::trace::fold;
use emberd_model::{Offset, UnixNanos};
use emberd_store::{Config, Recording, Store, Writer};

use crate::{payload, table};

/// Traces in a transaction, and how many transactions are timed.
const TRACES: u64 = 1_000;
const ROUNDS: u64 = 20;
const SPANS: u64 = TRACES * payload::SPANS_PER_TRACE;

pub(crate) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let recordings = recordings();
    let floor = bare_inserts(&recordings)?;
    let sqlite = runtime.block_on(sqlite(&recordings))?;
    let mut rows =
        vec![line("bare inserts into SQLite (floor)", floor, floor), line("recorder on SQLite", sqlite, floor)];
    match std::env::var("EMBERD_TEST_POSTGRES") {
        Ok(server) => rows.push(line(
            "recorder on PostgreSQL (client and server)",
            runtime.block_on(postgres(&server, &recordings))?,
            floor,
        )),
        Err(_) => eprintln!("EMBERD_TEST_POSTGRES is not set: PostgreSQL is left out"),
    }
    let title = format!(
        "Recorder: {TRACES} traces of {} spans a transaction, {ROUNDS} transactions, from an empty database",
        payload::SPANS_PER_TRACE
    );
    table::print(&title, &["", "µs/trace", "traces/s", "x floor"], &rows);
    Ok(())
}

fn line(name: &str, took: Duration, floor: Duration) -> Vec<String> {
    let each = took.as_secs_f64() / (TRACES * ROUNDS) as f64;
    let ratio = took.as_secs_f64() / floor.as_secs_f64();
    vec![name.into(), format!("{:.1}", each * 1e6), format!("{:.0}", 1.0 / each), format!("{ratio:.2}")]
}

fn recordings() -> Vec<Recording> {
    let (prices, reading) = (Arc::new(Prices::default()), Reading::default());
    let recording = |round: u64| {
        let mut batches = payload::batches(SPANS / 100, 100, 500);
        for (n, batch) in batches.iter_mut().enumerate() {
            batch.body = payload::request(round * SPANS + n as u64 * 100, 100, 500);
        }
        Recording {
            consumer: "recorder".into(),
            writer: Writer::new("bench"),
            from: Offset(round * SPANS),
            to: Offset((round + 1) * SPANS),
            now: UnixNanos(1_795_219_200_000_000_000 + round * 1_000_000_000),
            states: fold(&batches, &reading),
            origins: Default::default(),
            booked: Default::default(),
            booking: Default::default(),
            prices: prices.clone(),
        }
    };
    (0..ROUNDS).map(recording).collect()
}

fn bare_inserts(recordings: &[Recording]) -> anyhow::Result<Duration> {
    let dir = tempfile::tempdir_in(std::env::current_dir()?)?;
    let mut db = rusqlite::Connection::open(dir.path().join("floor.db"))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.execute_batch(
        "CREATE TABLE t (id TEXT, prompt_id TEXT, trace TEXT UNIQUE, session TEXT, ms INTEGER, tokens TEXT, model TEXT, status TEXT, metadata TEXT, at INTEGER)",
    )?;
    let prices = Prices::default();
    let all: Vec<Vec<_>> = recordings
        .iter()
        .map(|recording| {
            recording.states.iter().filter_map(|(trace, state)| row(*trace, state, &prices, false)).collect()
        })
        .collect();
    let begun = Instant::now();
    for rows in &all {
        let transaction = db.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO t VALUES (?,?,?,?,?,?,?,?,?,?)")?;
            for row in rows {
                insert.execute(rusqlite::params![
                    row.id.to_string(),
                    row.prompt_ref,
                    row.trace_id.to_string(),
                    row.session_id.map(|id| id.to_string()),
                    row.execution_time_ms,
                    row.tokens.total.to_string(),
                    row.model,
                    row.status.as_str(),
                    &row.metadata,
                    row.created_at.micros(),
                ])?;
            }
        }
        transaction.commit()?;
    }
    Ok(begun.elapsed())
}

async fn timed(store: &Store, recordings: &[Recording]) -> anyhow::Result<Duration> {
    store.migrate_up().await?;
    let begun = Instant::now();
    for recording in recordings {
        let done = store.record(recording.clone()).await?;
        anyhow::ensure!(done.rows == TRACES, "{done:?}");
    }
    let took = begun.elapsed();
    store.close().await;
    Ok(took)
}

async fn sqlite(recordings: &[Recording]) -> anyhow::Result<Duration> {
    let dir = tempfile::tempdir_in(std::env::current_dir()?)?;
    let config = Config { url: "sqlite".into(), max_connections: 4, data_dir: dir.path().into() };
    timed(&Store::connect(config).await?, recordings).await
}

async fn postgres(server: &str, recordings: &[Recording]) -> anyhow::Result<Duration> {
    use sqlx::Connection;
    let name = format!("bench_{}", uuid::Uuid::new_v4().simple());
    let mut admin = sqlx::postgres::PgConnection::connect(server).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await?;
    let url = format!("{}/{name}", server.rsplit_once('/').map_or(server, |(head, _)| head));
    let config = Config { url, max_connections: 4, data_dir: std::env::temp_dir() };
    let took = timed(&Store::connect(config).await?, recordings).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).execute(&mut admin).await?;
    took
}
