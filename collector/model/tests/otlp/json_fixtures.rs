//! Every real export says the same in JSON and in protobuf.

use emberd_model::json::to_protobuf;
use emberd_model::wire::{Limits, check};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::fixtures;

fn says_the_same(json: &str, protobuf: &str) {
    let converted = to_protobuf(&fixtures::read(json)).unwrap_or_else(|error| panic!("{json}: {error}"));
    let from_json = ExportTraceServiceRequest::decode(&converted[..]).unwrap();
    let from_protobuf = ExportTraceServiceRequest::decode(&fixtures::read(protobuf)[..]).unwrap();
    assert_eq!(from_json, from_protobuf, "{json}");
    assert_eq!(check(&converted, &Limits::default()).unwrap().rejected, 0, "{json}");
}

#[test]
fn every_fixture_says_the_same_in_both_forms() {
    for name in fixtures::names(".otlp.pb") {
        says_the_same(&format!("{name}.json"), &format!("{name}.otlp.pb"));
    }
}

/// What JavaScript's exporter really sent, with bare numbers and no line breaks.
#[test]
fn every_body_that_came_as_json_is_taken() {
    for name in fixtures::names(".received.json") {
        says_the_same(&format!("{name}.received.json"), &format!("{name}.otlp.pb"));
    }
}
