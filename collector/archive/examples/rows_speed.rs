//! Writes the same batches again and again: what a profiler is pointed at.
//!
//!     cargo build --release -p emberd-archive --example rows_speed
//!     perf stat -e instructions:u,task-clock target/release/examples/rows_speed 20 each [LEVEL [decode]]
//!     target/release/examples/rows_speed save FILE
//!
//! The figures are made by `emberd-benches archive`; this program has nothing else in it.

#![allow(clippy::unwrap_used, reason = "a tool for whoever tunes")]

#[allow(dead_code, reason = "of the payloads, this wants some")]
#[path = "../../../benches/src/payload.rs"]
mod payload;

// The daemon's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use emberd_archive::rows::{How, LEVEL, Rows};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |at: usize| arguments.get(at).map_or("", String::as_str);
    let naming = if argument(1) == "whole" { payload::Naming::Whole } else { payload::Naming::Each };
    let level = argument(2).parse().unwrap_or(LEVEL);
    let how = How { level, ..How::default() };
    let batches = payload::batches_naming(200, 100, 500, naming);
    let write = || {
        let mut rows = Rows::new(&how).unwrap();
        batches.iter().for_each(|batch| rows.push(batch).unwrap());
        (rows.bytes(), rows.finish().unwrap())
    };
    if argument(0) == "save" {
        return std::fs::write(argument(1), &write().1[0].file).unwrap();
    }
    let passes: u32 = argument(0).parse().unwrap_or(1);
    if argument(3) == "decode" {
        // The floor: what a collector does that builds the tree.
        use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
        use prost::Message as _;
        for batch in (0..passes).flat_map(|_| &batches) {
            std::hint::black_box(ExportTraceServiceRequest::decode(batch.body.clone()).ok());
        }
        return;
    }
    let begun = std::time::Instant::now();
    let (mut size, mut held) = (0, 0);
    for _ in 0..passes {
        let (bytes, parts) = write();
        held = bytes;
        size = parts.iter().map(|part| part.file.len()).sum();
    }
    let nanos = begun.elapsed().as_nanos() / u128::from(passes) / 20_000;
    println!("{nanos} ns a span by the wall, {} bytes a span, {held} bytes held at the end", size / 20_000);
}
