//! Batches to the archive's files and back, beside prost's decode of the same bytes, and gzip of the same bytes.

use std::hint::black_box;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context;
use emberd_archive::rows::{How, Rows, merge, open};
use emberd_model::Batch;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::{fold, payload, table};

const PASSES: u32 = 12;
/// Spans in a request, and requests: a file of 20,000 spans, which is what a minute of 333 spans a second makes.
const SPANS: u64 = 100;
const BATCHES: u64 = 200;

pub(crate) fn run() -> anyhow::Result<()> {
    measure("a prompt, a session and a user for each trace", payload::Naming::Whole)?;
    measure("a prompt, a session, a user and metadata for each span, as the rig's load has them", payload::Naming::Each)
}

fn measure(what: &str, naming: payload::Naming) -> anyhow::Result<()> {
    let batches = payload::batches_naming(BATCHES, SPANS, 500, naming);
    let spans = batches.len() * SPANS as usize;
    let bytes: usize = batches.iter().map(|batch| batch.body.len()).sum();
    let how = How { prices: fold::prices(), ..How::default() };
    let decode = table::best(PASSES, || {
        for batch in &batches {
            black_box(ExportTraceServiceRequest::decode(batch.body.clone()).ok());
        }
    });
    let mut rows = vec![line("prost decode", decode, decode, spans, None)];
    for level in [-1, how.level, 3] {
        let how = How { level, ..how.clone() };
        let size = written(&batches, &how)?.iter().map(|part| part.file.len()).sum::<usize>();
        let took = table::best(PASSES, || {
            black_box(written(&batches, &how).ok());
        });
        rows.push(line(&format!("push and finish, zstd {level}"), took, decode, spans, Some(size)));
    }
    let parts = written(&batches, &how)?;
    let files: Vec<_> = parts.iter().map(|part| part.file.clone()).collect();
    let back = table::best(PASSES / 3, || {
        for chunk in files.iter().flat_map(|file| open(file.clone()).ok()).flatten() {
            black_box(chunk.ok().and_then(|chunk| chunk.batches().ok()));
        }
    });
    rows.push(line("read back to requests", back, decode, spans, None));
    let merged = table::best(PASSES / 3, || {
        black_box(merge(files.clone()).ok());
    });
    rows.push(line("merge", merged, decode, spans, None));
    let size = gzip(&batches).context("gzip")?;
    let took = table::best(PASSES / 3, || {
        black_box(gzip(&batches).ok());
    });
    rows.push(line("gzip of the bodies (level 6)", took, decode, spans, Some(size)));
    let title = format!("Archive: {what}; {} bytes a span, {spans} spans", bytes / spans);
    table::print(&title, &["", "µs/span", "x prost's decode", "bytes/span"], &rows);
    Ok(())
}

fn written(batches: &[Batch], how: &How) -> anyhow::Result<Vec<emberd_archive::Part>> {
    let mut rows = Rows::new(how)?;
    batches.iter().try_for_each(|batch| rows.push(batch))?;
    Ok(rows.finish()?)
}

fn gzip(batches: &[Batch]) -> std::io::Result<usize> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    batches.iter().try_for_each(|batch| out.write_all(&batch.body))?;
    Ok(out.finish()?.len())
}

fn line(name: &str, took: Duration, decode: Duration, spans: usize, size: Option<usize>) -> Vec<String> {
    vec![
        name.into(),
        format!("{:.2}", table::nanos_each(took, spans) / 1e3),
        format!("{:.2}", took.as_secs_f64() / decode.as_secs_f64()),
        size.map_or(String::new(), |size| format!("{}", size / spans)),
    ]
}
