//! The recorder's transaction on both databases, beside the plain way to do without it: an INSERT a trace.
//!
//! `plain` inserts the same rows, made beforehand, into a table of the same columns with nothing but a unique trace id: in transactions
//! of as many as the recorder's, and one by one. What the recorder does above it: load and merge states, make the rows, move rollups
//! and the cursor, and keep the indexes that readers want. `--rows` puts so many rows there beforehand.

pub(crate) mod bulk;
pub(crate) mod plain;

use std::sync::Arc;

use clap::Args;
use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_model::rollup::Contribution;
use emberd_model::row::{Row, row};
use emberd_model::trace::fold;
use emberd_model::{Offset, UnixNanos};
use emberd_store::{Config, Recording, Store, Writer};

use crate::meter::{Meter, Spent};
use crate::{payload, table};

/// What is measured.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Traces in a transaction
    #[arg(long, default_value_t = 1_000)]
    traces: u64,
    /// Transactions
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// Rows that are there beforehand, loaded in bulk
    #[arg(long, default_value_t = 0)]
    rows: u64,
    /// Only SQLite, without the plain way
    #[arg(long)]
    short: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { traces: 1_000, rounds: 20, rows: 0, short: false }
    }
}

impl Options {
    fn spans(&self) -> u64 {
        self.traces * payload::SPANS_PER_TRACE
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let recordings = recordings(options);
    let ours = ours(&recordings);
    let server = std::env::var("EMBERD_TEST_POSTGRES").ok();
    if server.is_none() {
        eprintln!("EMBERD_TEST_POSTGRES is not set: PostgreSQL is left out");
    }
    let mut lines = Vec::new();
    if !options.short {
        let rows = rows(&recordings);
        lines.push(("plain INSERTs into SQLite, one by one", plain::sqlite(&rows[..1], 1)?));
        lines.push(("plain INSERTs into SQLite, in transactions", plain::sqlite(&rows, options.traces as usize)?));
        if let Some(server) = &server {
            let one_by_one = runtime.block_on(plain::postgres(server, &rows[..1], 1))?;
            lines.push(("plain INSERTs into PostgreSQL, one by one", one_by_one));
            let together = runtime.block_on(plain::postgres(server, &rows, options.traces as usize))?;
            lines.push(("plain INSERTs into PostgreSQL, in transactions", together));
        }
    }
    lines.push(("recorder on SQLite", runtime.block_on(sqlite(options, &recordings))?));
    if let Some(server) = server.filter(|_| !options.short) {
        lines.push(("recorder on PostgreSQL", runtime.block_on(postgres(&server, options, &recordings))?));
    }
    let title = format!(
        "Recorder: {} traces of {} spans a transaction, {} transactions, {} rows there beforehand",
        options.traces,
        payload::SPANS_PER_TRACE,
        options.rounds,
        options.rows,
    );
    let head = ["", "traces/s", "spans/s", "wall µs", "CPU here µs", "CPU server µs", "kB written"];
    table::print(&title, &head, &lines.iter().map(|(name, spent)| line(name, spent)).collect::<Vec<_>>());
    let each = ours.cpu.as_secs_f64() * 1e6 / ours.items as f64;
    println!(
        "All but the first columns per trace. Of the recorder's CPU here, {each:.1} µs a trace are the rows and states themselves, measured alone; the rest is for the database.\n"
    );
    Ok(())
}

fn line(name: &str, spent: &Spent) -> Vec<String> {
    let traces = spent.items as f64;
    let rate = traces / spent.wall.as_secs_f64();
    let micros = |time: std::time::Duration| format!("{:.1}", time.as_secs_f64() * 1e6 / traces);
    vec![
        name.into(),
        format!("{rate:.0}"),
        format!("{:.0}", rate * payload::SPANS_PER_TRACE as f64),
        micros(spent.wall),
        micros(spent.cpu),
        spent.server.map_or("–".into(), micros),
        format!("{:.1}", spent.written as f64 / 1e3 / traces),
    ]
}

fn recordings(options: &Options) -> Vec<Recording> {
    let (prices, reading) = (Arc::new(Prices::default()), Reading::default());
    let spans = options.spans();
    let recording = |round: u64| {
        let mut batches = payload::batches(spans / 100, 100, 500);
        for (n, batch) in batches.iter_mut().enumerate() {
            batch.body = payload::request(round * spans + n as u64 * 100, 100, 500);
        }
        Recording {
            consumer: "recorder".into(),
            writer: Writer::new("bench"),
            from: Offset(round * spans),
            to: Offset((round + 1) * spans),
            now: UnixNanos(1_795_219_200_000_000_000 + round * 1_000_000_000),
            states: fold(&batches, &reading),
            origins: Default::default(),
            booked: Default::default(),
            booking: Default::default(),
            prices: prices.clone(),
        }
    };
    (0..options.rounds).map(recording).collect()
}

fn rows(recordings: &[Recording]) -> Vec<Vec<Row>> {
    let prices = Prices::default();
    let of = |recording: &Recording| {
        recording.states.iter().filter_map(|(trace, state)| row(*trace, state, &prices, false)).collect()
    };
    recordings.iter().map(of).collect()
}

/// What of a recording is no database's work: encoding each state, making its row and that row's JSON.
fn ours(recordings: &[Recording]) -> Spent {
    let prices = Prices::default();
    let meter = Meter::begin(None);
    let mut traces = 0;
    for recording in recordings {
        for (trace, state) in &recording.states {
            let row = row(*trace, state, &prices, false);
            let json = row.as_ref().map(|row| row.metadata.len());
            let adds = row.as_ref().map(Contribution::of);
            std::hint::black_box((state.encode(), json, adds));
            traces += 1;
        }
    }
    meter.end(traces)
}

async fn timed(store: &Store, server: Option<u32>, recordings: &[Recording]) -> anyhow::Result<Spent> {
    let mut done = 0;
    let prepared = recordings.to_vec();
    let meter = Meter::begin(server);
    for recording in prepared {
        done += store.record(recording).await?.rows;
    }
    let spent = meter.end(done);
    anyhow::ensure!(done == recordings.iter().map(|recording| recording.states.len() as u64).sum::<u64>());
    store.close().await;
    Ok(spent)
}

async fn sqlite(options: &Options, recordings: &[Recording]) -> anyhow::Result<Spent> {
    let dir = tempfile::tempdir_in(std::env::current_dir()?)?;
    let config = Config { url: "sqlite".into(), max_connections: 4, data_dir: dir.path().into() };
    let store = Store::connect(config.clone()).await?;
    store.migrate_up().await?;
    if options.rows > 0 {
        bulk::sqlite(&dir.path().join("emberd.db"), options.rows)?;
    }
    timed(&store, None, recordings).await
}

async fn postgres(server: &str, options: &Options, recordings: &[Recording]) -> anyhow::Result<Spent> {
    let database = plain::Database::create(server).await?;
    let config = Config { url: database.url.clone(), max_connections: 4, data_dir: std::env::temp_dir() };
    let store = Store::connect(config).await?;
    store.migrate_up().await?;
    if options.rows > 0 {
        bulk::postgres(&database.url, options.rows).await?;
    }
    let spent = timed(&store, Some(database.postmaster), recordings).await;
    database.drop().await?;
    spent
}
