//! The real binary under an outside load, beside a bare server that discards and whatever peers are installed: server on core 0,
//! generator and sink on core 1.
//!
//! "cpu/span" counts the server from its start to an empty backlog over all spans acknowledged, so that work put off counts too.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use clap::Args;
use emberd_store::{Config, Store};
use serde_json::Value;

use crate::peers::Peer;
use crate::server::{How, Programs, SERVER, data};
use crate::table;

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Seconds of load in each run
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Runs of each case, in turns
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: 6.0, repetitions: 3, only: String::new() }
    }
}

/// What stands behind the door.
enum Case {
    Floor,
    Emberd(&'static str, How),
    /// The whole way, into a database that has so many traces already.
    Onto(&'static str, u64),
    Peer(Peer),
}

impl Case {
    fn all() -> Vec<Self> {
        let how = |durability, record, forward| How { durability, record, forward, ..How::DURABLE };
        let mut all = vec![
            Self::Floor,
            Self::Emberd("intake, page cache only", how("os", false, false)),
            Self::Emberd("intake, durable", How::DURABLE),
            Self::Emberd("durable + archived", How { archive: true, ..How::DURABLE }),
            Self::Emberd("durable + forwarded", how("sync", false, true)),
            Self::Emberd("durable + forwarded + recorded (SQLite)", How::WHOLE),
            Self::Onto("durable + forwarded + recorded onto 2,000,000 traces", 2_000_000),
        ];
        all.extend(Peer::installed().into_iter().map(Self::Peer));
        all
    }

    fn name(&self) -> &str {
        match self {
            Self::Floor => "bare server (discards)",
            Self::Emberd(name, _) | Self::Onto(name, _) => name,
            Self::Peer(peer) => peer.name,
        }
    }
}

/// One measured run.
#[derive(Clone, Copy)]
struct Run {
    spans_per_s: f64,
    cpu_us_per_span: f64,
    p50_ms: f64,
    p99_ms: f64,
    peak_rss_mib: f64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let programs = Programs::find()?;
    let cases: Vec<Case> = Case::all()
        .into_iter()
        .filter(|case| matches!(case, Case::Floor) || case.name().contains(&options.only))
        .collect();
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); cases.len()];
    for repetition in 1..=options.repetitions {
        for (case, runs) in cases.iter().zip(&mut runs) {
            eprintln!("run {repetition} of {}: {}", options.repetitions, case.name());
            runs.push(one(case, &programs, options.seconds).with_context(|| case.name().to_owned())?);
        }
    }
    let floor = median(&runs[0]);
    let row = |(case, runs): (&Case, &Vec<Run>)| {
        let run = median(runs);
        vec![
            case.name().into(),
            format!("{:.0}", run.spans_per_s),
            format!("{:.2}", run.spans_per_s / floor.spans_per_s),
            format!("{:.2}", run.cpu_us_per_span),
            format!("{:.2}", run.cpu_us_per_span / floor.cpu_us_per_span),
            format!("{:.1} / {:.1}", run.p50_ms, run.p99_ms),
            format!("{:.0}", run.peak_rss_mib),
        ]
    };
    let rows: Vec<_> = cases.iter().zip(&runs).map(row).collect();
    let title = format!(
        "Intake: 1.7 kB LLM spans, 100 a request, 2 connections x 8 in flight; median of {}",
        options.repetitions
    );
    table::print(&title, &["", "spans/s", "x floor", "CPU µs/span", "x floor", "p50 / p99 ms", "peak RSS MiB"], &rows);
    Ok(())
}

fn median(runs: &[Run]) -> Run {
    let of = |pick: fn(&Run) -> f64| table::median(runs.iter().map(pick));
    Run {
        spans_per_s: of(|r| r.spans_per_s),
        cpu_us_per_span: of(|r| r.cpu_us_per_span),
        p50_ms: of(|r| r.p50_ms),
        p99_ms: of(|r| r.p99_ms),
        peak_rss_mib: of(|r| r.peak_rss_mib),
    }
}

fn one(case: &Case, programs: &Programs, seconds: f64) -> anyhow::Result<Run> {
    let dir = data()?;
    let (server, _sink) = match case {
        Case::Floor => (programs.floor()?, None),
        Case::Emberd(_, how) => {
            let sink = how.forward.then(|| programs.sink()).transpose()?;
            (programs.emberd(*how, dir.path())?, sink)
        }
        Case::Onto(_, rows) => {
            filled(&dir.path().join("emberd.db"), *rows)?;
            (programs.emberd(How::WHOLE, dir.path())?, Some(programs.sink()?))
        }
        Case::Peer(peer) => {
            let sink = peer.forwards.then(|| programs.sink()).transpose()?;
            (peer.start(dir.path())?, sink)
        }
    };
    let load = Command::new("taskset")
        .args(["-c", "1"])
        .arg(programs.rig.join("otlpload"))
        .args(["--target", &format!("http://{SERVER}"), "--seconds", &seconds.to_string()])
        .args(["--pid", &server.id().to_string()])
        .output()?;
    ensure!(load.status.success(), "otlpload: {}", String::from_utf8_lossy(&load.stderr));
    let report: Value = serde_json::from_slice(&load.stdout)?;
    let failed = report["requests_failed"].as_object().is_some_and(|failed| !failed.is_empty());
    ensure!(!failed, "refused: {}", report["requests_failed"]);
    let acked = report["spans_acked_total"].as_f64().context("no spans_acked_total")?;
    match case {
        Case::Emberd(_, how) => how.drained(acked as u64)?,
        Case::Onto(..) => How::WHOLE.drained(acked as u64)?,
        Case::Peer(peer) => peer.drained(&server)?,
        Case::Floor => {}
    }
    Ok(Run {
        spans_per_s: report["spans_per_s"].as_f64().unwrap_or(f64::NAN),
        cpu_us_per_span: server.cpu()? * 1e6 / acked,
        p50_ms: report["latency_ms"]["p50"].as_f64().unwrap_or(f64::NAN),
        p99_ms: report["latency_ms"]["p99"].as_f64().unwrap_or(f64::NAN),
        peak_rss_mib: server.peak_rss_mib(),
    })
}

/// A database with emberd's tables and so many traces. They are made once; each run gets a copy.
fn filled(file: &Path, rows: u64) -> anyhow::Result<()> {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    if MADE.get().is_none() {
        eprintln!("making {rows} traces");
        let dir = data()?;
        let config = Config { url: "sqlite".into(), max_connections: 2, data_dir: dir.path().into() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let store = Store::connect(config).await?;
            store.migrate_up().await?;
            store.close().await;
            anyhow::Ok(())
        })?;
        crate::recorder::bulk::sqlite(&dir.path().join("emberd.db"), rows)?;
        let _ = MADE.set(dir);
    }
    let made = MADE.get().context("the database was not made")?;
    std::fs::copy(made.path().join("emberd.db"), file)?;
    Ok(())
}
