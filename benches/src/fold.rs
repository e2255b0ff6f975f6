//! The fold of spans into states and of states into rows, beside prost's decode of the same bytes.

use std::hint::black_box;

use emberd_model::cost::Prices;
use emberd_model::facts::Reading;
use emberd_model::row::row;
use emberd_model::trace::{TraceState, fold_and_count};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::{payload, table};

const PASSES: u32 = 30;

pub(crate) fn run() {
    measure("a prompt, a session and a user for each trace", payload::Naming::Whole);
    measure(
        "a prompt, a session, a user and metadata for each span, as the rig's load has them",
        payload::Naming::Each,
    );
}

fn measure(what: &str, naming: payload::Naming) {
    let batches = payload::batches_naming(50, 100, 500, naming);
    let spans = batches.len() * 100;
    let traces = spans / payload::SPANS_PER_TRACE as usize;
    let (reading, prices) = (Reading::default(), prices());
    let decode = table::best(PASSES, || {
        for batch in &batches {
            black_box(ExportTraceServiceRequest::decode(batch.body.clone()).ok());
        }
    });
    let folded = table::best(PASSES, || {
        black_box(fold_and_count(&batches, &reading));
    });
    let states = fold_and_count(&batches, &reading).states;
    assert_eq!(states.len(), traces);
    let encoded = table::best(PASSES, || {
        for state in states.values() {
            black_box(state.encode());
        }
    });
    let bytes: Vec<Vec<u8>> = states.values().map(TraceState::encode).collect();
    let decoded = table::best(PASSES, || {
        for state in &bytes {
            black_box(TraceState::decode(state).ok());
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
    let state = bytes.iter().map(Vec::len).sum::<usize>() / traces;
    let rows_of = states.iter().filter_map(|(trace, state)| row(*trace, state, &prices, false));
    let metadata = rows_of.map(|row| row.metadata.len()).sum::<usize>() / traces;
    table::print(
        &format!("Fold: {what}; {state} bytes of state and {metadata} of metadata a trace"),
        &["", "ns/span", "µs/trace", "x prost's decode"],
        &[
            line("prost decode", decode),
            line("fold to states", folded),
            line("encode states", encoded),
            line("decode states", decoded),
            line("rows from states, metadata as JSON", rows),
        ],
    );
}

/// The table that is shipped: looking models up is part of a row's cost.
pub(crate) fn prices() -> Prices {
    let table: toml::Table = include_str!("../../config/prices.toml").parse().unwrap_or_default();
    serde_json::to_value(table).ok().and_then(|table| Prices::from_json(&table).ok()).unwrap_or_default()
}
