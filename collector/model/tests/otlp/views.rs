//! What the views say and what prost says, in one form.

use emberd_model::wire::{self, Attributes, ValueView};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span};
use prost::Message;

/// A span and what it lies in, as prost's structs.
#[derive(Debug, Clone)]
pub(crate) struct Flat {
    resource: (String, Vec<KeyValue>),
    scope: (String, InstrumentationScope),
    pub(crate) span: Span,
}

impl PartialEq for Flat {
    /// By their bytes, so that NaN equals itself.
    fn eq(&self, other: &Self) -> bool {
        let bytes = |flat: &Self| {
            let resource = KeyValueList { values: flat.resource.1.clone() };
            (resource.encode_to_vec(), flat.scope.1.encode_to_vec(), flat.span.encode_to_vec())
        };
        (&self.resource.0, &self.scope.0) == (&other.resource.0, &other.scope.0) && bytes(self) == bytes(other)
    }
}

/// Every span as the views show it.
pub(crate) fn by_views(request: &[u8]) -> Vec<Flat> {
    wire::spans(request)
        .map(|found| Flat {
            resource: (found.resource.schema_url.to_owned(), pairs(found.resource.attributes())),
            scope: (
                found.scope.schema_url.to_owned(),
                InstrumentationScope {
                    name: found.scope.name.to_owned(),
                    version: found.scope.version.to_owned(),
                    attributes: pairs(found.scope.attributes()),
                    dropped_attributes_count: 0,
                },
            ),
            span: span(&found.span),
        })
        .collect()
}

fn span(view: &wire::SpanView<'_>) -> Span {
    let (code, message) = (view.status_code, view.status_message.to_owned());
    Span {
        trace_id: view.trace_id.0.to_vec(),
        span_id: view.span_id.0.to_vec(),
        trace_state: view.trace_state.to_owned(),
        parent_span_id: view.parent_span_id.map(|id| id.0.to_vec()).unwrap_or_default(),
        flags: view.flags,
        name: view.name.to_owned(),
        kind: view.kind,
        start_time_unix_nano: view.start.0,
        end_time_unix_nano: view.end.0,
        attributes: pairs(view.attributes()),
        dropped_attributes_count: view.dropped_attributes,
        events: view.events().map(|event| self::event(&event)).collect(),
        dropped_events_count: view.dropped_events,
        links: view.links().map(|link| self::link(&link)).collect(),
        dropped_links_count: view.dropped_links,
        status: Some(Status { message, code }),
    }
}

fn event(view: &wire::EventView<'_>) -> span::Event {
    span::Event {
        time_unix_nano: view.time.0,
        name: view.name.to_owned(),
        attributes: pairs(view.attributes()),
        dropped_attributes_count: view.dropped_attributes,
    }
}

fn link(view: &wire::LinkView<'_>) -> span::Link {
    span::Link {
        trace_id: view.trace_id.to_vec(),
        span_id: view.span_id.to_vec(),
        trace_state: view.trace_state.to_owned(),
        attributes: pairs(view.attributes()),
        dropped_attributes_count: view.dropped_attributes,
        flags: view.flags,
    }
}

fn pairs(attributes: Attributes<'_>) -> Vec<KeyValue> {
    attributes
        .map(|pair| KeyValue { key: pair.key.to_owned(), value: Some(value(pair.value())), key_strindex: 0 })
        .collect()
}

fn value(view: ValueView<'_>) -> AnyValue {
    let value = match view {
        ValueView::Empty => None,
        ValueView::Str(text) => Some(any_value::Value::StringValue(text.to_owned())),
        ValueView::Bool(bool) => Some(any_value::Value::BoolValue(bool)),
        ValueView::Int(int) => Some(any_value::Value::IntValue(int)),
        ValueView::Double(double) => Some(any_value::Value::DoubleValue(double)),
        ValueView::Bytes(bytes) => Some(any_value::Value::BytesValue(bytes.to_vec())),
        ValueView::Array(array) => {
            Some(any_value::Value::ArrayValue(ArrayValue { values: array.values().map(value).collect() }))
        }
        ValueView::KvList(list) => {
            Some(any_value::Value::KvlistValue(KeyValueList { values: pairs(list.attributes()) }))
        }
    };
    AnyValue { value }
}

/// Every span as prost decodes it, in the form that the views have: what they do not tell apart is made the same.
pub(crate) fn by_prost(request: ExportTraceServiceRequest) -> Vec<Flat> {
    let mut flat = Vec::new();
    for resource_spans in request.resource_spans {
        let attributes = plain(resource_spans.resource.unwrap_or_default().attributes);
        for scope_spans in resource_spans.scope_spans {
            let mut scope = scope_spans.scope.unwrap_or_default();
            scope.attributes = plain(scope.attributes);
            scope.dropped_attributes_count = 0;
            for span in scope_spans.spans {
                let resource = (resource_spans.schema_url.clone(), attributes.clone());
                let scope = (scope_spans.schema_url.clone(), scope.clone());
                flat.push(Flat { resource, scope, span: plain_span(span) });
            }
        }
    }
    flat
}

fn plain_span(mut span: Span) -> Span {
    span.attributes = plain(span.attributes);
    span.events.iter_mut().for_each(|event| event.attributes = plain(std::mem::take(&mut event.attributes)));
    span.links.iter_mut().for_each(|link| link.attributes = plain(std::mem::take(&mut link.attributes)));
    span.status.get_or_insert_default();
    if span.parent_span_id == [0; 8] {
        span.parent_span_id.clear();
    }
    span
}

fn plain(pairs: Vec<KeyValue>) -> Vec<KeyValue> {
    let plain = |pair: KeyValue| KeyValue {
        key: pair.key,
        value: Some(plain_value(pair.value.unwrap_or_default())),
        key_strindex: 0,
    };
    pairs.into_iter().map(plain).collect()
}

fn plain_value(value: AnyValue) -> AnyValue {
    use any_value::Value;
    let value = match value.value {
        Some(Value::StringValueStrindex(_)) => None,
        Some(Value::ArrayValue(array)) => {
            Some(Value::ArrayValue(ArrayValue { values: array.values.into_iter().map(plain_value).collect() }))
        }
        Some(Value::KvlistValue(list)) => Some(Value::KvlistValue(KeyValueList { values: plain(list.values) })),
        other => other,
    };
    AnyValue { value }
}

/// Whether the walk keeps a span that prost decoded.
pub(crate) fn is_kept(span: &Span) -> bool {
    let whole = |id: &[u8], length| id.len() == length && id.iter().any(|&byte| byte != 0);
    whole(&span.trace_id, 16) && whole(&span.span_id, 8) && matches!(span.parent_span_id.len(), 0 | 8)
}
