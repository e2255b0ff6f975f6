//! The fold of spans into states and of states into rows, beside prost's decode of the same bytes.

use std::hint::black_box;

use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_model::row::row;
use emberd_model::trace::fold;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::{payload, table};

const PASSES: u32 = 10;

pub(crate) fn run() {
    let batches = payload::batches(50, 100, 500);
    let spans = batches.len() * 100;
    let traces = spans / payload::SPANS_PER_TRACE as usize;
    let (reading, prices) = (Reading::default(), Prices::default());
    let decode = table::best(PASSES, || {
        for batch in &batches {
            black_box(ExportTraceServiceRequest::decode(batch.body.clone()).ok());
        }
    });
    let folded = table::best(PASSES, || {
        black_box(fold(&batches, &reading));
    });
    let states = fold(&batches, &reading);
    assert_eq!(states.len(), traces);
    let encoded = table::best(PASSES, || {
        for state in states.values() {
            black_box(state.encode());
        }
    });
    let rows = table::best(PASSES, || {
        for (trace, state) in &states {
            black_box(row(*trace, state, &prices, false));
        }
    });
    let line = |name: &str, took: std::time::Duration| {
        let ratio = took.as_secs_f64() / decode.as_secs_f64();
        vec![
            name.into(),
            format!("{:.0}", table::nanos_each(took, spans)),
            format!("{:.2}", table::nanos_each(took, traces) / 1e3),
            format!("{ratio:.2}"),
        ]
    };
    table::print(
        "Fold: ten spans a trace, 100 spans a request",
        &["", "ns/span", "µs/trace", "x prost's decode"],
        &[
            line("prost decode", decode),
            line("fold to states", folded),
            line("encode states", encoded),
            line("rows from states", rows),
        ],
    );
}
