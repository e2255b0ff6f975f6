//! The real binary under an outside load, beside a bare server that discards: server on core 0, generator and sink on core 1.
//!
//! "cpu/span" counts the server from its start to an empty backlog over all spans acknowledged, so that work put off counts too.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::Value;

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

const SERVER: &str = "127.0.0.1:24317";
const API: &str = "127.0.0.1:28317";
const SINK: &str = "127.0.0.1:25317";

/// What stands behind the door.
#[derive(Clone, Copy)]
enum Case {
    Floor,
    Emberd { name: &'static str, durability: &'static str, record: bool, forward: bool },
}

const CASES: [Case; 5] = [
    Case::Floor,
    Case::Emberd { name: "intake, page cache only", durability: "os", record: false, forward: false },
    Case::Emberd { name: "intake, durable", durability: "sync", record: false, forward: false },
    Case::Emberd { name: "durable + forwarded", durability: "sync", record: false, forward: true },
    Case::Emberd { name: "durable + forwarded + recorded (SQLite)", durability: "sync", record: true, forward: true },
];

impl Case {
    fn name(&self) -> &'static str {
        match self {
            Self::Floor => "bare server (discards)",
            Self::Emberd { name, .. } => name,
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
    let rig = rig()?;
    let emberd = std::env::current_exe()?.with_file_name("emberd");
    ensure!(emberd.exists(), "no {}: build it with `cargo build --release -p emberd-daemon`", emberd.display());
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); CASES.len()];
    for repetition in 1..=options.repetitions {
        for (case, runs) in CASES.iter().zip(&mut runs) {
            if matches!(case, Case::Floor) || case.name().contains(&options.only) {
                eprintln!("run {repetition} of {}: {}", options.repetitions, case.name());
                runs.push(one(*case, &rig, &emberd, options.seconds).with_context(|| case.name().to_owned())?);
            }
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
    let rows: Vec<_> = CASES.iter().zip(&runs).filter(|(_, runs)| !runs.is_empty()).map(row).collect();
    let title = format!(
        "Intake: 1.7 kB LLM spans, 100 a request, 2 connections x 8 in flight; median of {}",
        options.repetitions
    );
    table::print(&title, &["", "spans/s", "x floor", "CPU µs/span", "x floor", "p50 / p99 ms", "peak RSS MiB"], &rows);
    Ok(())
}

fn median(runs: &[Run]) -> Run {
    let of = |pick: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Run {
        spans_per_s: of(|r| r.spans_per_s),
        cpu_us_per_span: of(|r| r.cpu_us_per_span),
        p50_ms: of(|r| r.p50_ms),
        p99_ms: of(|r| r.p99_ms),
        peak_rss_mib: of(|r| r.peak_rss_mib),
    }
}

fn rig() -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("EMBERD_RIG")
        .map(PathBuf::from)
        .context("set EMBERD_RIG to the folder with otlpload, otlpsink and floor")?;
    ensure!(folder.join("otlpload").exists(), "no otlpload in {}", folder.display());
    Ok(folder)
}

/// A process pinned to a core, ended by its handle.
struct Pinned(Child);

impl Pinned {
    fn start(core: u32, program: &Path, set: impl FnOnce(&mut Command) -> &mut Command) -> anyhow::Result<Self> {
        let mut command = Command::new("taskset");
        command
            .args(["-c", &core.to_string()])
            .arg(program)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self(set(&mut command).spawn().with_context(|| format!("cannot start {}", program.display()))?))
    }

    /// CPU seconds so far.
    fn cpu(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields: Vec<&str> = stat.rsplit_once(") ").context("odd /proc stat")?.1.split(' ').collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }

    fn peak_rss_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).map_or(f64::NAN, |kib| kib / 1024.0)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn one(case: Case, rig: &Path, emberd: &Path, seconds: f64) -> anyhow::Result<Run> {
    let dir = tempfile::Builder::new().prefix("emberd-bench-").tempdir_in(std::env::current_dir()?)?;
    let (server, _sink) = match case {
        Case::Floor => (Pinned::start(0, &rig.join("floor"), |c| c.args(["--listen", SERVER]))?, None),
        Case::Emberd { durability, record, forward, .. } => {
            let sink =
                forward.then(|| Pinned::start(1, &rig.join("otlpsink"), |c| c.args(["--listen", SINK]))).transpose()?;
            let server = Pinned::start(0, emberd, |c| {
                // What the bench is told is not emberd's to read.
                std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("EMBERD_")).for_each(
                    |(key, _)| {
                        c.env_remove(key);
                    },
                );
                let roles = if record || forward { "intake,consume,api" } else { "intake,api" };
                let forwarding = if forward { format!("http://{SINK}") } else { String::new() };
                c.args(["serve", "--role", roles, "--data-dir"])
                    .arg(dir.path())
                    .env("EMBERD_INTAKE_GRPC", SERVER)
                    .env("EMBERD_INTAKE_HTTP", "127.0.0.1:0")
                    .env("EMBERD_API_LISTEN", API)
                    .env("EMBERD_LOG_DURABILITY", durability)
                    .env("EMBERD_RECORDER_ENABLED", record.to_string())
                    .env("EMBERD_PHOENIX_VERIFY", "false")
                    .env("EMBERD_PHOENIX_OTLP", forwarding)
            })?;
            (server, sink)
        }
    };
    let load = Command::new("taskset")
        .args(["-c", "1"])
        .arg(rig.join("otlpload"))
        .args([
            "--target",
            &format!("http://{SERVER}"),
            "--seconds",
            &seconds.to_string(),
            "--pid",
            &server.0.id().to_string(),
        ])
        .output()?;
    ensure!(load.status.success(), "otlpload: {}", String::from_utf8_lossy(&load.stderr));
    let report: Value = serde_json::from_slice(&load.stdout)?;
    let failed = report["requests_failed"].as_object().is_some_and(|failed| !failed.is_empty());
    ensure!(!failed, "refused: {}", report["requests_failed"]);
    let acked = report["spans_acked_total"].as_f64().context("no spans_acked_total")?;
    if let Case::Emberd { record, forward, .. } = case {
        drained(acked as u64, record, forward)?;
    }
    Ok(Run {
        spans_per_s: report["spans_per_s"].as_f64().unwrap_or(f64::NAN),
        cpu_us_per_span: server.cpu()? * 1e6 / acked,
        p50_ms: report["latency_ms"]["p50"].as_f64().unwrap_or(f64::NAN),
        p99_ms: report["latency_ms"]["p99"].as_f64().unwrap_or(f64::NAN),
        peak_rss_mib: server.peak_rss_mib(),
    })
}

/// Waits until every consumer has passed all that was acknowledged; that nothing is missing is checked, not assumed.
fn drained(acked: u64, record: bool, forward: bool) -> anyhow::Result<()> {
    let http = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let since = Instant::now();
    loop {
        let status = http.block_on(get(&format!("http://{API}/api/status")))?;
        let ledger = &status["ledger"];
        let accepted = ledger["accepted_spans"].as_u64().unwrap_or(0);
        ensure!(accepted == acked, "{acked} spans acknowledged, {accepted} in the log");
        let spans = |consumer: &str, what: &str| ledger["consumers"][consumer][what].as_u64().unwrap_or(0);
        let recorded = spans("recorder", "done") + spans("recorder", "duplicate") == acked;
        if (!record || recorded) && (!forward || spans("phoenix", "sent") == acked) {
            return Ok(());
        }
        if since.elapsed() > Duration::from_secs(300) {
            bail!("not drained after five minutes: {ledger}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

async fn get(url: &str) -> anyhow::Result<Value> {
    Ok(reqwest::get(url).await?.json().await?)
}
