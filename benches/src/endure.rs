//! Latency at half of the peak, memory at full rate for a minute and with a large backlog, and the restart with it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;

use crate::load::Load;
use crate::server::{How, Programs, data, log_bytes, ready};
use crate::table;

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Seconds at half of the peak rate
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds at full rate for the memory it takes
    #[arg(long, default_value_t = 60.0)]
    minute: f64,
    /// The backlog, in GiB
    #[arg(long, default_value_t = 10)]
    backlog_gib: u64,
    /// Only tables whose name contains this: half, full, backlog
    #[arg(long, default_value = "")]
    only: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: 10.0, minute: 60.0, backlog_gib: 10, only: String::new() }
    }
}

type Table = fn(&Programs, &Options) -> anyhow::Result<()>;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let programs = Programs::find()?;
    let tables: [(&str, Table); 3] = [("half", half), ("full", full), ("backlog", backlog)];
    for (_, table) in tables.into_iter().filter(|(name, _)| name.contains(&options.only)) {
        table(&programs, options)?;
    }
    Ok(())
}

/// The answer's latency at half the rate that it reached just before.
fn half(programs: &Programs, options: &Options) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (name, how) in [("intake, durable", How::DURABLE), ("the whole way", How::WHOLE)] {
        eprintln!("half of the peak: {name}");
        let dir = data()?;
        let _sink = how.forward.then(|| programs.sink()).transpose()?;
        let _server = programs.emberd(how, dir.path())?;
        ready()?;
        let peak = Programs::load(&Load::usual(4.0))?;
        let acked = peak["spans_acked"].as_u64().context("no spans_acked")?;
        how.drained(acked)?;
        let rate = peak["spans_per_s"].as_f64().context("no spans_per_s")? / 2.0;
        let report = Programs::load(&Load { rate: Some(rate / 100.0), ..Load::usual(options.seconds) })?;
        let number = |key: &str| report[key].as_f64().unwrap_or(f64::NAN);
        rows.push(vec![
            name.to_owned(),
            format!("{:.0}", rate * 2.0),
            format!("{:.0}", number("spans_per_s")),
            format!("{:.2}", number("p50_ms")),
            format!("{:.2}", number("p99_ms")),
        ]);
    }
    table::print("The answer at half of the peak rate", &["", "peak spans/s", "spans/s", "p50 ms", "p99 ms"], &rows);
    Ok(())
}

fn full(programs: &Programs, options: &Options) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    // Without a consumer nothing is passed and nothing goes, and a minute's spans are more than the log may hold.
    let forwarded = How { record: false, ..How::WHOLE };
    for (name, how) in [("durable + forwarded", forwarded), ("the whole way", How::WHOLE)] {
        eprintln!("{} s at full rate: {name}", options.minute);
        let how = How { keep: "0s", ..how };
        let dir = data()?;
        let _sink = how.forward.then(|| programs.sink()).transpose()?;
        let server = programs.emberd(how, dir.path())?;
        ready()?;
        let report = Programs::load(&Load::usual(options.minute))?;
        rows.push(vec![
            name.to_owned(),
            format!("{:.0}", report["spans_per_s"].as_f64().unwrap_or(f64::NAN)),
            format!("{:.0}", server.peak_rss_mib()),
        ]);
    }
    let title = format!("Memory at full rate for {} s", options.minute);
    table::print(&title, &["", "spans/s", "peak RSS MiB"], &rows);
    Ok(())
}

/// A backend that is away while the log grows; then a restart with all of it.
fn backlog(programs: &Programs, options: &Options) -> anyhow::Result<()> {
    eprintln!("a backlog of {} GiB", options.backlog_gib);
    let how = How { record: false, ..How::WHOLE };
    let dir = data()?;
    let server = programs.emberd(how, dir.path())?;
    ready()?;
    let total = (options.backlog_gib << 30) / 1_750;
    let report = Programs::load(&Load { total: Some(total), ..Load::usual(600.0) })?;
    let acked = report["spans_acked"].as_u64().context("no spans_acked")?;
    let grown = server.peak_rss_mib();
    let bytes = log_bytes(dir.path())?;
    server.stop()?;

    let begun = Instant::now();
    let server = programs.emberd(how, dir.path())?;
    Programs::load(&Load { total: Some(1), connections: 1, in_flight: 1, spans: 1, ..Load::usual(60.0) })?;
    let first_ack = begun.elapsed();
    ensure!(first_ack < Duration::from_secs(60), "no answer after the restart");
    let sink = programs.sink()?;
    how.drained(acked + 1)?;
    let rows = [
        ("log", format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))),
        ("peak RSS while it grew", format!("{grown:.0} MiB")),
        ("from start to first acknowledged span", format!("{:.2} s", first_ack.as_secs_f64())),
        ("peak RSS while it drained", format!("{:.0} MiB", server.peak_rss_mib())),
        ("from start to all of it delivered", format!("{:.0} s", begun.elapsed().as_secs_f64())),
    ];
    drop(sink);
    let rows = rows.map(|(what, figure)| vec![what.to_owned(), figure]);
    table::print("A backend that was away: backlog and restart", &["", ""], &rows);
    Ok(())
}
