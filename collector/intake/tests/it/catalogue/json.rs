//! Requests in OTLP/JSON, written from the specification and not with what is tested.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

pub(super) fn written(request: &ExportTraceServiceRequest) -> String {
    let resource_spans: Vec<Value> = request
        .resource_spans
        .iter()
        .map(|resource_spans| {
            let scope_spans: Vec<Value> = resource_spans
                .scope_spans
                .iter()
                .map(|scope_spans| {
                    let mut value = json!({"spans": scope_spans.spans.iter().map(span).collect::<Vec<_>>()});
                    if let Some(scope) = &scope_spans.scope {
                        value["scope"] = json!({"name": scope.name});
                    }
                    value
                })
                .collect();
            let mut value = json!({"scopeSpans": scope_spans});
            if let Some(resource) = &resource_spans.resource {
                value["resource"] = json!({"attributes": attributes(&resource.attributes)});
            }
            value
        })
        .collect();
    json!({"resourceSpans": resource_spans}).to_string()
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn span(span: &Span) -> Value {
    let mut value = json!({
        "traceId": hex(&span.trace_id),
        "spanId": hex(&span.span_id),
        "parentSpanId": hex(&span.parent_span_id),
        "name": span.name,
        "traceState": span.trace_state,
        "kind": span.kind,
        "flags": span.flags,
        "startTimeUnixNano": span.start_time_unix_nano.to_string(),
        "endTimeUnixNano": span.end_time_unix_nano.to_string(),
        "attributes": attributes(&span.attributes),
    });
    if let Some(status) = &span.status {
        value["status"] = json!({"code": status.code});
    }
    value
}

fn attributes(attributes: &[KeyValue]) -> Vec<Value> {
    let one = |attribute: &KeyValue| json!({"key": attribute.key, "value": any(attribute.value.as_ref())});
    attributes.iter().map(one).collect()
}

fn any(value: Option<&AnyValue>) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        None => json!({}),
        Some(Any::StringValue(text)) => json!({"stringValue": text}),
        Some(Any::BoolValue(value)) => json!({"boolValue": value}),
        Some(Any::IntValue(int)) => json!({"intValue": int.to_string()}),
        Some(Any::DoubleValue(double)) if double.is_nan() => json!({"doubleValue": "NaN"}),
        Some(Any::DoubleValue(double)) if double.is_infinite() => {
            json!({"doubleValue": if *double > 0.0 { "Infinity" } else { "-Infinity" }})
        }
        Some(Any::DoubleValue(double)) => json!({"doubleValue": double}),
        Some(Any::BytesValue(bytes)) => json!({"bytesValue": BASE64_STANDARD.encode(bytes)}),
        Some(Any::ArrayValue(array)) => {
            json!({"arrayValue": {"values": array.values.iter().map(|value| any(Some(value))).collect::<Vec<_>>()}})
        }
        Some(Any::KvlistValue(list)) => json!({"kvlistValue": {"values": attributes(&list.values)}}),
        Some(other) => panic!("{other:?} is not written here"),
    }
}
