//! OTLP/JSON, against the protobuf form and against serde_json.

use emberd_model::json::{DEPTH_MAX, to_protobuf};
use emberd_model::wire::{Limits, check};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::choices::Choices;
use crate::json_writer::Writer;
use crate::{memory, message};

/// Text becomes a request that decodes and that the walk reads, and is no longer than it; or an error that has its place.
pub(super) fn json(text: &[u8]) {
    // Twice over, for a buffer that grows.
    let converted = memory::within(4 * text.len() + 4096, || to_protobuf(text));
    match converted {
        Ok(converted) => {
            assert!(converted.len() <= text.len(), "{} bytes became {}", text.len(), converted.len());
            let theirs = serde_json::from_slice::<serde_json::Value>(text);
            assert!(theirs.as_ref().map_or_else(is_serdes_own, |_| true), "serde_json refuses it: {theirs:?}");
            ExportTraceServiceRequest::decode(&converted[..]).expect("what was converted decodes");
            if let Err(malformed) = check(&converted, &Limits::default()) {
                assert!(malformed.what.contains("beside no span"), "{malformed}");
            }
        }
        Err(error) => {
            let lines = 1 + text.iter().filter(|&&byte| byte == b'\n').count();
            assert!((1..=lines).contains(&error.line), "{error}, of {lines} lines");
            assert!((1..=text.len() + 1).contains(&error.column), "{error}, of {} bytes", text.len());
            assert!(!error.what.is_empty());
        }
    }
}

/// Where any value may stand, what serde_json takes for JSON is taken, and nothing else.
pub(super) fn json_syntax(text: &[u8]) {
    let brackets = text.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if brackets + 2 > DEPTH_MAX as usize {
        return;
    }
    let theirs = serde_json::from_slice::<serde_json::Value>(text);
    if theirs.as_ref().is_err_and(is_serdes_own) {
        return;
    }
    let whole = [b"{\"unknown\":", text, b"}"].concat();
    if theirs.is_err() && serde_json::from_slice::<serde_json::Value>(&whole).is_ok() {
        // It is no value, but the end of one and another member.
        return;
    }
    let ours = to_protobuf(&whole);
    assert_eq!(ours.is_ok(), theirs.is_ok(), "{ours:?}, serde_json says {theirs:?}");
}

/// A number that fits no double is JSON all the same, but serde_json gives up there.
fn is_serdes_own(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("number out of range")
}

/// A request written as OTLP/JSON, in any of the ways that the form leaves open, comes back as the same request.
pub(super) fn json_forms(input: &[u8]) {
    let mut choices = Choices::new(input);
    let request = message::request(&mut choices);
    let text = Writer::new(&mut choices).request(&request);
    let converted = to_protobuf(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(converted.len() <= text.len(), "{} bytes became {}: {text}", text.len(), converted.len());
    let decoded = ExportTraceServiceRequest::decode(&converted[..]).expect("what was converted decodes");
    // As text, a NaN equals another.
    assert!(decoded == request || format!("{decoded:?}") == format!("{request:?}"), "{text}");
}
