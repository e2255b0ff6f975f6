//! The questions of docs/archive.md, asked by DuckDB of an archive of many spans.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use emberd_archive::rows::{How, Rows};
use emberd_model::Batch;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Status;
use prost::Message;

use crate::{fold, payload, table};

/// Spans of a request, and of a file.
const SPANS: u64 = 100;
const SPANS_A_FILE: u64 = 500_000;
const DAYS: u64 = 14;
const DAY_NANOS: u64 = 86_400_000_000_000;
const DOCUMENTED: &str = include_str!("../../docs/archive.md");
/// Asks three times, and prints the quickest and the rows.
const ASK: &str = "
import duckdb, sys, time
db = duckdb.connect()
best = 1e9
for _ in range(3):
    begun = time.monotonic()
    rows = len(db.sql(sys.argv[1]).fetchall())
    best = min(best, time.monotonic() - begun)
print(best, rows)
";

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Spans in the archive
    #[arg(long, default_value_t = 10_000_000)]
    spans: u64,
    /// Where it lies; made if it is not there, and left there
    #[arg(long)]
    dir: PathBuf,
    /// A Python that has duckdb
    #[arg(long)]
    python: PathBuf,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let (trace, bytes) = write(options)?;
    let mut rows = Vec::new();
    for part in DOCUMENTED.split("```sql\n").skip(1) {
        let (question, before) = (part.split("```").next().unwrap_or_default(), rows.len());
        let files = options.dir.join("**").display().to_string();
        let asked = question.replace("archive/**", &files).replace("4bf92f3577b34da6a3ce929d0e0e4736", &trace);
        let output = Command::new(&options.python).args(["-c", ASK, &asked]).output().context("cannot run Python")?;
        let told = String::from_utf8(output.stdout)?;
        let Some((seconds, answers)) = told.trim().split_once(' ') else {
            bail!("{question}{}", String::from_utf8_lossy(&output.stderr));
        };
        rows.push(vec![(before + 1).to_string(), format!("{:.2}", seconds.parse::<f64>()?), answers.to_owned()]);
    }
    let title = format!(
        "Archive: five questions over {} spans ({:.1} GB, {} bytes a span), DuckDB",
        options.spans,
        bytes as f64 / 1e9,
        bytes / options.spans
    );
    table::print(&title, &["question", "s", "rows"], &rows);
    Ok(())
}

/// Writes the archive, if it is not there; a trace in it, and its bytes.
fn write(options: &Options) -> anyhow::Result<(String, u64)> {
    let how = How { prices: fold::prices(), ..How::default() };
    let files = options.spans.div_ceil(SPANS_A_FILE);
    let (mut trace, mut bytes) = (String::new(), 0);
    let (mut spent, mut fresh) = (0.0, 0_u64);
    for file in 0..files {
        let first = file * SPANS_A_FILE;
        if trace.is_empty() {
            let batch = varied(first, file);
            let decoded = ExportTraceServiceRequest::decode(batch.body)?;
            trace =
                decoded.resource_spans[0].scope_spans[0].spans[0].trace_id.iter().map(|b| format!("{b:02x}")).collect();
        }
        let done = options.dir.join(format!("{file}.done"));
        if !done.exists() {
            let mut rows = Rows::new(&how)?;
            for batch in 0..SPANS_A_FILE.min(options.spans - first) / SPANS {
                let batch = varied(first + batch * SPANS, file);
                let begun = Instant::now();
                rows.push(&batch)?;
                spent += begun.elapsed().as_secs_f64();
                fresh += SPANS;
            }
            let begun = Instant::now();
            let parts = rows.finish()?;
            spent += begun.elapsed().as_secs_f64();
            for part in parts {
                let day = options.dir.join(format!("date=2026-11-{:02}", 21 + part.day.0 - 20_778));
                std::fs::create_dir_all(&day)?;
                std::fs::write(day.join(format!("{file:06}.parquet")), &part.file)?;
            }
            std::fs::write(&done, b"")?;
        }
    }
    if fresh > 0 {
        println!("wrote {fresh} spans, {:.2} µs each\n", spent * 1e6 / fresh as f64);
    }
    for day in std::fs::read_dir(&options.dir)? {
        bytes += size(&day?.path())?;
    }
    ensure!(bytes > 0, "nothing was written to {}", options.dir.display());
    Ok((trace, bytes))
}

fn size(day: &Path) -> anyhow::Result<u64> {
    if !day.is_dir() {
        return Ok(0);
    }
    let mut bytes = 0;
    for file in std::fs::read_dir(day)? {
        bytes += file?.metadata()?.len();
    }
    Ok(bytes)
}

/// A request of the rig's shape, of which every fiftieth span failed; each file's spans are of one day, as they would be.
fn varied(first: u64, file: u64) -> Batch {
    let batch = payload::batch_of(first, SPANS, 500);
    let mut request = ExportTraceServiceRequest::decode(batch.body.clone()).unwrap_or_default();
    for span in request.resource_spans.iter_mut().flat_map(|r| &mut r.scope_spans).flat_map(|s| &mut s.spans) {
        span.start_time_unix_nano += file % DAYS * DAY_NANOS;
        span.end_time_unix_nano += file % DAYS * DAY_NANOS;
        let number = u64::from_be_bytes(span.span_id.clone().try_into().unwrap_or_default());
        if number % 50 == 0 {
            let message = format!(
                "model said {}",
                ["429: slow down", "500: try again", "deadline exceeded"][(number / 50 % 3) as usize]
            );
            span.status = Some(Status { code: 2, message });
        }
    }
    Batch { body: request.encode_to_vec().into(), ..batch }
}
