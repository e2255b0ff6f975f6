//! How fast the walk and the views are on requests that look like an LLM application's, on one thread.
//!
//! `cargo run --release -p emberd-model --example walk_speed`

use std::hint::black_box;
use std::time::Instant;

use emberd_model::wire::{self, Limits};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

fn main() {
    println!("{:28} {:>9} {:>9}", "", "GB/s", "ns/span");
    for (payload, request) in [
        ("llm", llm(100, "what did the customer ask about pricing tiers ")),
        ("llm, some beyond ASCII", llm(100, "was hat die Kundin über Preisstufen gefragt ")),
        ("small", small(100)),
    ] {
        // Several copies, so that the working set is a few megabytes, as it is under load.
        let requests: Vec<Vec<u8>> = (0..16).map(|_| request.clone()).collect();
        measure(&format!("{payload}: check"), &requests, |request| {
            black_box(wire::check(request, &Limits::default()).is_ok());
        });
        measure(&format!("{payload}: views, ids only"), &requests, |request| {
            wire::spans(request).for_each(|found| {
                black_box(found.span.span_id);
            });
        });
        measure(&format!("{payload}: views, every key"), &requests, |request| {
            wire::spans(request).flat_map(|found| found.span.attributes()).for_each(|pair| {
                black_box(pair.key);
            });
        });
        measure(&format!("{payload}: views, every value"), &requests, |request| {
            wire::spans(request).flat_map(|found| found.span.attributes()).for_each(|pair| {
                black_box(pair.value());
            });
        });
        measure(&format!("{payload}: prost decode"), &requests, |request| {
            black_box(ExportTraceServiceRequest::decode(request).is_ok());
        });
    }
}

/// Prints the best of many passes.
fn measure(what: &str, requests: &[Vec<u8>], work: impl Fn(&[u8])) {
    let bytes: usize = requests.iter().map(Vec::len).sum();
    let spans: usize = requests.iter().map(|request| wire::spans(request).count()).sum();
    let mut best = f64::INFINITY;
    for _ in 0..150 {
        let start = Instant::now();
        requests.iter().for_each(|request| work(request));
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{what:28} {:9.2} {:9.0}", bytes as f64 / best / 1e9, best * 1e9 / spans as f64);
}

fn llm(spans: usize, words: &str) -> Vec<u8> {
    let text = |length: usize| words.repeat(length / words.len() + 1);
    request(spans, |index| {
        vec![
            string("openinference.span.kind", "LLM"),
            string("llm.model_name", "gpt-4o-2024-11-20"),
            int("llm.token_count.prompt", 40 + index as i64),
            int("llm.token_count.completion", 200 + index as i64),
            int("llm.token_count.total", 240 + 2 * index as i64),
            string("input.value", &text(280)),
            string("output.value", &text(580)),
            string("llm.input_messages.0.message.role", "user"),
            string("llm.input_messages.0.message.content", &text(280)),
            string("session.id", "session-004711"),
            string("user.id", "user-00815"),
            string("metadata", r#"{"prompt_id": "prompt-0042", "prompt_version": 7, "env": "prod"}"#),
        ]
    })
}

fn small(spans: usize) -> Vec<u8> {
    request(spans, |_| vec![string("network.peer.address", "1.2.3.4"), string("peer.service", "telemetrygen-server")])
}

fn request(spans: usize, attributes: impl Fn(usize) -> Vec<KeyValue>) -> Vec<u8> {
    let span = |index: usize| Span {
        trace_id: [&[9; 8][..], &(index as u64 / 10).to_be_bytes()].concat(),
        span_id: (index as u64 + 1).to_be_bytes().to_vec(),
        parent_span_id: if index.is_multiple_of(10) { Vec::new() } else { vec![3; 8] },
        name: "ChatCompletion".to_owned(),
        kind: 1,
        start_time_unix_nano: 1_795_220_047_128_928_232,
        end_time_unix_nano: 1_795_220_048_129_204_829,
        attributes: attributes(index),
        status: Some(Status { code: 1, message: String::new() }),
        ..Span::default()
    };
    let scope = InstrumentationScope { name: "openinference.instrumentation.openai".to_owned(), ..Default::default() };
    let scope_spans = ScopeSpans { scope: Some(scope), spans: (0..spans).map(span).collect(), ..Default::default() };
    let attributes = vec![string("service.name", "walk-speed"), string("openinference.project.name", "bench")];
    let resource = Resource { attributes, ..Default::default() };
    let resource_spans =
        ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans], ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

fn string(key: &str, value: &str) -> KeyValue {
    pair(key, any_value::Value::StringValue(value.to_owned()))
}

fn int(key: &str, value: i64) -> KeyValue {
    pair(key, any_value::Value::IntValue(value))
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}
