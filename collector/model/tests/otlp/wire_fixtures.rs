//! Every real export is taken whole, and read as prost reads it.

use emberd_model::Flags;
use emberd_model::wire::{Limits, check, without_rejected};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::fixtures;
use crate::views::{by_prost, by_views};

#[test]
fn every_fixture_walks_clean_and_reads_as_prost_reads_it() {
    for name in fixtures::names(".otlp.pb") {
        let request = fixtures::read(&format!("{name}.otlp.pb"));
        let expected = by_prost(ExportTraceServiceRequest::decode(&request[..]).unwrap());
        let checked = check(&request, &Limits::default()).unwrap();
        assert_eq!((checked.spans as usize, checked.rejected), (expected.len(), 0), "{name}: {:?}", checked.reasons);
        assert_eq!(by_views(&request), expected, "{name}");
        assert_eq!(without_rejected(&request, &Limits::default()), request, "{name}");
    }
}

/// The counts that were taken down when the exports were captured.
#[test]
fn every_fixture_has_the_spans_that_were_captured() {
    for name in fixtures::names(".expect.json") {
        let expected: serde_json::Value =
            serde_json::from_slice(&fixtures::read(&format!("{name}.expect.json"))).unwrap();
        let spans: u32 = expected["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| check(&fixtures::read(file.as_str().unwrap()), &Limits::default()).unwrap().spans)
            .sum();
        assert_eq!(u64::from(spans), expected["span_count"].as_u64().unwrap(), "{name}");
    }
}

/// Phoenix takes OpenInference as it is; what it cannot derive from, or drops, is flagged.
#[test]
fn only_what_phoenix_cannot_take_as_it_is_needs_mending() {
    for (name, mend) in [
        ("oi-openai-chat", false),
        ("langchain-rag", false),
        ("plain-http", false),
        ("telemetrygen-traces", false),
        ("openllmetry-chat", true),
        ("otel-v2-chat", true),
        ("synthetic-legacy-genai-attrs", true),
    ] {
        let checked = check(&fixtures::read(&format!("{name}.otlp.pb")), &Limits::default()).unwrap();
        assert_eq!(checked.flags.has(Flags::MEND), mend, "{name}");
    }
}
