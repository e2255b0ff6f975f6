//! The walk, beside what it replaces (prost's decode) and the least that can be done with bytes (a copy).

use std::hint::black_box;

use emberd_model::wire;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::{payload, table};

const PASSES: u32 = 15;

pub(crate) fn run() {
    let batches = payload::batches(16, 100, 500);
    let bytes: usize = batches.iter().map(|batch| batch.body.len()).sum();
    let spans = batches.len() * 100;
    let limits = wire::Limits::default();
    let mut target = vec![0; bytes];

    let decode = table::best(PASSES, || {
        for batch in &batches {
            black_box(ExportTraceServiceRequest::decode(batch.body.clone()).ok());
        }
    });
    let walk = table::best(PASSES, || {
        for batch in &batches {
            black_box(wire::check(&batch.body, &limits).ok());
        }
    });
    let copy = table::best(PASSES, || {
        let mut at = 0;
        for batch in &batches {
            target[at..at + batch.body.len()].copy_from_slice(&batch.body);
            at += batch.body.len();
        }
        black_box(&target);
    });
    let row = |name: &str, took: std::time::Duration| {
        let ratio = took.as_secs_f64() / decode.as_secs_f64();
        let rate = bytes as f64 / took.as_nanos() as f64;
        vec![name.into(), format!("{:.0}", table::nanos_each(took, spans)), format!("{rate:.1}"), format!("{ratio:.3}")]
    };
    let title = format!("Walk: {} bytes a span, 100 spans a request, {} kB in all", bytes / spans, bytes >> 10);
    table::print(
        &title,
        &["", "ns/span", "GB/s", "x prost's decode"],
        &[
            row("prost decode (the floor of a collector that builds the tree)", decode),
            row("walk", walk),
            row("copy", copy),
        ],
    );
}
