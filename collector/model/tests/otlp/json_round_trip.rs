//! Whatever is written as OTLP/JSON comes back as the same message; whatever is no JSON is an error, and nothing
//! panics.

use emberd_model::json::to_protobuf;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;

use crate::choices::Choices;
use crate::damage::{damage, suffer};
use crate::json_writer::Writer;
use crate::message;

fn bytes(length: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..length)
}

fn written(choices: &[u8]) -> (ExportTraceServiceRequest, String) {
    let mut choices = Choices::new(choices);
    let request = message::request(&mut choices);
    let json = Writer::new(&mut choices).request(&request);
    (request, json)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_comes_back(choices in bytes(2_500)) {
        let (request, json) = written(&choices);
        let converted = to_protobuf(json.as_bytes()).unwrap();
        let decoded = ExportTraceServiceRequest::decode(&converted[..]).unwrap();
        // By their bytes, so that NaN equals itself (and the sign of a NaN, which JSON does not have, is no
        // difference).
        prop_assert_eq!(plain_nans(decoded).encode_to_vec(), plain_nans(request).encode_to_vec());
        prop_assert!(converted.len() <= json.len(), "{} bytes became {}", json.len(), converted.len());
    }

    #[test]
    fn damaged_text_is_an_error_or_a_request(choices in bytes(800), damages in prop::collection::vec(damage(), 1..4)) {
        let mut json = written(&choices).1.into_bytes();
        damages.iter().for_each(|damage| suffer(&mut json, damage));
        match to_protobuf(&json) {
            Ok(converted) => {
                let theirs = serde_json::from_slice::<serde_json::Value>(&json);
                prop_assert!(theirs.as_ref().map_or_else(is_out_of_range, |_| true), "{}", String::from_utf8_lossy(&json));
                prop_assert!(ExportTraceServiceRequest::decode(&converted[..]).is_ok());
            }
            Err(error) => {
                let lines = json.split(|&byte| byte == b'\n').count();
                prop_assert!((1..=lines).contains(&error.line), "{error}");
                prop_assert!((1..=json.len() + 1).contains(&error.column), "{error}");
            }
        }
    }

    /// In a place where any value may stand, what serde_json calls JSON is taken and what it does not is not.
    #[test]
    fn json_is_what_serde_json_takes_for_it(choices in bytes(300), damages in prop::collection::vec(damage(), 1..4)) {
        let mut json = written(&choices).1.into_bytes();
        damages.iter().for_each(|damage| suffer(&mut json, damage));
        let whole = [b"{\"unknown\":", &json[..], b"}"].concat();
        let theirs = serde_json::from_slice::<serde_json::Value>(&json);
        if !theirs.as_ref().is_err_and(is_out_of_range) {
            prop_assert_eq!(to_protobuf(&whole).is_ok(), theirs.is_ok(), "{}", String::from_utf8_lossy(&json));
        }
    }
}

/// A number that fits no double is JSON all the same, but serde_json gives up there.
fn is_out_of_range(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("number out of range")
}

fn plain_nans(mut request: ExportTraceServiceRequest) -> ExportTraceServiceRequest {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
    fn value(any: &mut AnyValue) {
        match &mut any.value {
            Some(Value::DoubleValue(double)) if double.is_nan() => *double = f64::NAN,
            Some(Value::ArrayValue(array)) => array.values.iter_mut().for_each(value),
            Some(Value::KvlistValue(list)) => pairs(&mut list.values),
            _ => {}
        }
    }
    fn pairs(pairs: &mut [KeyValue]) {
        pairs.iter_mut().filter_map(|pair| pair.value.as_mut()).for_each(value);
    }
    for resource_spans in &mut request.resource_spans {
        resource_spans.resource.iter_mut().for_each(|resource| pairs(&mut resource.attributes));
        for scope_spans in &mut resource_spans.scope_spans {
            scope_spans.scope.iter_mut().for_each(|scope| pairs(&mut scope.attributes));
            for span in &mut scope_spans.spans {
                pairs(&mut span.attributes);
                span.events.iter_mut().for_each(|event| pairs(&mut event.attributes));
                span.links.iter_mut().for_each(|link| pairs(&mut link.attributes));
            }
        }
    }
    request
}
