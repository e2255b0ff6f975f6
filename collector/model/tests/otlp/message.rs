//! Generated requests as prost's structs.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};

use crate::choices::Choices;

pub(crate) fn request(choices: &mut Choices<'_>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest { resource_spans: choices.some(3, resource_spans) }
}

fn resource_spans(choices: &mut Choices<'_>) -> ResourceSpans {
    ResourceSpans {
        resource: choices.some(1, resource).pop(),
        scope_spans: choices.some(3, scope_spans),
        schema_url: choices.text(),
    }
}

fn resource(choices: &mut Choices<'_>) -> Resource {
    Resource {
        attributes: choices.some(4, |choices| pair(choices, 0)),
        dropped_attributes_count: choices.number() as u32,
        entity_refs: choices.some(1, |choices| EntityRef {
            schema_url: choices.text(),
            r#type: choices.text(),
            id_keys: choices.some(2, Choices::text),
            description_keys: choices.some(2, Choices::text),
        }),
    }
}

fn scope_spans(choices: &mut Choices<'_>) -> ScopeSpans {
    ScopeSpans { scope: choices.some(1, scope).pop(), spans: choices.some(4, span), schema_url: choices.text() }
}

fn scope(choices: &mut Choices<'_>) -> InstrumentationScope {
    InstrumentationScope {
        name: choices.text(),
        version: choices.text(),
        attributes: choices.some(2, |choices| pair(choices, 0)),
        dropped_attributes_count: choices.number() as u32,
    }
}

fn span(choices: &mut Choices<'_>) -> Span {
    let parent_span_id = if choices.once_in(2) { choices.id(8) } else { Vec::new() };
    Span {
        trace_id: choices.id(16),
        span_id: choices.id(8),
        trace_state: choices.text(),
        parent_span_id,
        flags: choices.number() as u32,
        name: choices.text(),
        kind: choices.number() as i32,
        start_time_unix_nano: choices.number(),
        end_time_unix_nano: choices.number(),
        attributes: choices.some(6, |choices| pair(choices, 0)),
        dropped_attributes_count: choices.number() as u32,
        events: choices.some(2, |choices| span::Event {
            time_unix_nano: choices.number(),
            name: choices.text(),
            attributes: choices.some(3, |choices| pair(choices, 0)),
            dropped_attributes_count: choices.number() as u32,
        }),
        dropped_events_count: choices.number() as u32,
        links: choices.some(2, |choices| span::Link {
            trace_id: choices.id(16),
            span_id: choices.id(8),
            trace_state: choices.text(),
            attributes: choices.some(2, |choices| pair(choices, 0)),
            dropped_attributes_count: choices.number() as u32,
            flags: choices.number() as u32,
        }),
        dropped_links_count: choices.number() as u32,
        status: choices.some(1, |choices| Status { message: choices.text(), code: choices.number() as i32 }).pop(),
    }
}

/// How deep generated values go.
const DEPTH_MAX: u32 = 6;

fn pair(choices: &mut Choices<'_>, depth: u32) -> KeyValue {
    KeyValue {
        key: choices.text(),
        value: (!choices.once_in(8)).then(|| value(choices, depth)),
        key_strindex: if choices.once_in(9) { choices.number() as i32 } else { 0 },
    }
}

fn value(choices: &mut Choices<'_>, depth: u32) -> AnyValue {
    use any_value::Value::{
        ArrayValue as Array, BoolValue, BytesValue, DoubleValue, IntValue, KvlistValue, StringValue,
        StringValueStrindex,
    };
    let value = match choices.below(9) {
        0 => StringValue(choices.text()),
        1 => IntValue(choices.number() as i64),
        2 => DoubleValue(choices.double()),
        3 => BoolValue(choices.once_in(2)),
        4 => BytesValue(choices.text().into_bytes()),
        5 => StringValueStrindex(choices.number() as i32),
        6 if depth < DEPTH_MAX => Array(ArrayValue { values: choices.some(3, |choices| value(choices, depth + 1)) }),
        7 if depth < DEPTH_MAX => {
            KvlistValue(KeyValueList { values: choices.some(3, |choices| pair(choices, depth + 1)) })
        }
        _ => return AnyValue { value: None },
    };
    AnyValue { value: Some(value) }
}
