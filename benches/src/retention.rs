//! Retention over millions of rows on PostgreSQL while spans come in and are recorded: what the intake feels, and how long locks are held.
//!
//! A database is filled with old rows; then the same load runs twice against the real binary, first with everything kept, then while the
//! keeper deletes. Locks are looked at from outside: who waits, and for how long, asked again and again; how long a batch held its own is
//! the keeper's own figure, from its first statement to its commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use emberd_store::{Config, Store};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::load::Load;
use crate::server::{How, Programs, data, ready, status};
use crate::table;

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Rows of prompt_traces, nearly all of them too old
    #[arg(default_value_t = 1_000_000)]
    rows: u64,
    /// Seconds of load for each figure
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Requests a second, of ten spans
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
}

/// Rows made by one statement.
const STEP: u64 = 100_000;
/// Between two looks at who waits.
const LOOK: Duration = Duration::from_millis(4);

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let server = std::env::var("EMBERD_TEST_POSTGRES").context("set EMBERD_TEST_POSTGRES to a superuser's URL")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let name = format!("emberd_bench_{}", uuid::Uuid::new_v4().simple());
    let url = format!("{}/{name}", server.rsplit_once('/').context("a URL with a database")?.0);
    runtime.block_on(sql(&server, &format!("CREATE DATABASE {name}")))?;
    let done = measured(options, &runtime, &url);
    runtime.block_on(sql(&server, &format!("DROP DATABASE {name} WITH (FORCE)")))?;
    done
}

async fn sql(url: &str, sql: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(AssertSqlSafe(sql)).await?;
    Ok(connection.close().await?)
}

async fn count(url: &str) -> anyhow::Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    let row = connection
        .fetch_one("SELECT count(*) FROM public.prompt_traces WHERE created_at < now() - interval '30 days'")
        .await?;
    Ok(row.try_get(0)?)
}

/// Rows of settled traces over the last hundred days, as the recorder writes them.
async fn fill(url: &str, rows: u64) -> anyhow::Result<()> {
    let dir = data()?;
    let store = Store::connect(Config { url: url.to_owned(), max_connections: 4, data_dir: dir.path().into() }).await?;
    store.migrate_up().await?;
    store.close().await;
    let mut connection = PgConnection::connect(url).await?;
    for from in (0..rows).step_by(STEP as usize) {
        let to = (from + STEP).min(rows);
        let insert = format!(
            "INSERT INTO public.prompt_traces (prompt_id, phoenix_trace_id, session_id, execution_time_ms, model, status, metadata, created_at)
             SELECT '00000000-0000-0000-0000-000000000000', md5(n::text), gen_random_uuid(), n % 5000, 'gpt-4o', 'success',
                 jsonb_build_object('input', repeat(md5(n::text), 8), 'output', repeat(md5(n::text), 8)),
                 now() - interval '31 days' - (n % 6000000) * interval '1 second'
             FROM generate_series({from}, {to} - 1) n"
        );
        connection.execute(AssertSqlSafe(insert)).await?;
    }
    connection.execute("VACUUM ANALYZE public.prompt_traces").await?;
    Ok(connection.close().await?)
}

/// What a load came to, and what was seen of locks meanwhile.
struct Seen {
    p50_ms: f64,
    p99_ms: f64,
    wait_ms: f64,
    deleted: u64,
    held_ms: f64,
    batches: u64,
}

fn measured(options: &Options, runtime: &tokio::runtime::Runtime, url: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    runtime.block_on(fill(url, options.rows))?;
    eprintln!("retention: {} rows in {:.0} s", options.rows, began.elapsed().as_secs_f64());
    let kept = one(options, runtime, url, "forever")?;
    let old = runtime.block_on(count(url))?;
    let deleting = one(options, runtime, url, "30d")?;
    let left = runtime.block_on(count(url))?;
    let row = |name: &str, seen: &Seen| {
        vec![
            name.to_owned(),
            format!("{:.1} / {:.1}", seen.p50_ms, seen.p99_ms),
            format!("{}", seen.deleted),
            format!("{}", seen.batches),
            format!("{:.1}", seen.held_ms),
            format!("{:.1}", seen.wait_ms),
        ]
    };
    let title = format!(
        "Retention over {} rows on PostgreSQL ({} requests/s of 10 spans, {} s each; {old} too old before, {left} after)",
        options.rows, options.rate, options.seconds
    );
    let head = ["", "intake p50 / p99 ms", "deleted", "batches", "longest batch ms", "longest lock wait ms"];
    table::print(&title, &head, &[row("all kept", &kept), row("deleting", &deleting)]);
    ensure!(deleting.deleted > 0, "nothing was deleted while the load ran");
    Ok(())
}

fn one(options: &Options, runtime: &tokio::runtime::Runtime, url: &str, traces: &str) -> anyhow::Result<Seen> {
    let dir = data()?;
    let config = dir.path().join("bench.toml");
    std::fs::write(&config, format!("[store]\nurl = \"{url}\"\n[retention]\ntraces = \"{traces}\"\n"))?;
    let home = dir.path().join("data");
    let emberd = Programs::without_rig()?.configured(&config, &home)?;
    ready()?;
    if traces != "forever" {
        until_it_deletes()?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let looking = runtime.spawn(look(url.to_owned(), stop.clone()));
    let load =
        Load { connections: 2, in_flight: 4, spans: 10, rate: Some(options.rate), ..Load::usual(options.seconds) };
    let report = Programs::load(&load)?;
    let acked = report["spans_acked"].as_u64().context("no spans_acked")?;
    stop.store(true, Relaxed);
    let wait_ms = runtime.block_on(looking)??;
    let told = status()?["retention"].clone();
    How { forward: false, ..How::WHOLE }.drained(acked)?;
    emberd.stop()?;
    let number = |of: &Value, key: &str| of[key].as_f64().unwrap_or(0.0);
    Ok(Seen {
        p50_ms: number(&report, "p50_ms"),
        p99_ms: number(&report, "p99_ms"),
        wait_ms,
        deleted: told["deleted"]["traces"].as_u64().unwrap_or(0),
        held_ms: number(&told, "held_max_ms"),
        batches: told["batches"].as_u64().unwrap_or(0),
    })
}

fn until_it_deletes() -> anyhow::Result<()> {
    let since = Instant::now();
    while status()?["retention"]["deleted"]["traces"].as_u64().unwrap_or(0) == 0 {
        ensure!(since.elapsed() < Duration::from_secs(60), "nothing is deleted: {}", status()?["retention"]);
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The longest that anybody was seen to wait for a lock, in milliseconds.
async fn look(url: String, stop: Arc<AtomicBool>) -> anyhow::Result<f64> {
    let mut connection = PgConnection::connect(&url).await?;
    let mut longest = 0.0_f64;
    while !stop.load(Relaxed) {
        let sql = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float8 * 1000
             FROM pg_locks WHERE NOT granted AND waitstart IS NOT NULL";
        longest = longest.max(connection.fetch_one(sql).await?.try_get::<f64, _>(0)?);
        tokio::time::sleep(LOOK).await;
    }
    connection.close().await?;
    Ok(longest)
}
