//! Writes a request as OTLP/JSON, in all the ways that the form leaves open.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, EntityRef, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};

use crate::choices::Choices;

pub(crate) struct Writer<'c, 'b> {
    choices: &'c mut Choices<'b>,
}

/// The members of one object, each written out.
struct Members(Vec<String>);

impl<'c, 'b> Writer<'c, 'b> {
    pub(crate) fn new(choices: &'c mut Choices<'b>) -> Self {
        Self { choices }
    }

    pub(crate) fn request(&mut self, request: &ExportTraceServiceRequest) -> String {
        let mut members = Members(Vec::new());
        self.list(&mut members, "resourceSpans", &request.resource_spans, Self::resource_spans);
        self.object(members)
    }

    fn resource_spans(&mut self, resource_spans: &ResourceSpans) -> String {
        let mut members = Members(Vec::new());
        if let Some(resource) = &resource_spans.resource {
            let resource = self.resource(resource);
            self.member(&mut members, "resource", resource);
        }
        self.list(&mut members, "scopeSpans", &resource_spans.scope_spans, Self::scope_spans);
        self.text(&mut members, "schemaUrl", &resource_spans.schema_url);
        self.object(members)
    }

    fn resource(&mut self, resource: &Resource) -> String {
        let mut members = Members(Vec::new());
        self.list(&mut members, "attributes", &resource.attributes, Self::pair);
        self.number(&mut members, "droppedAttributesCount", resource.dropped_attributes_count.into());
        self.list(&mut members, "entityRefs", &resource.entity_refs, Self::entity_ref);
        self.object(members)
    }

    fn entity_ref(&mut self, entity_ref: &EntityRef) -> String {
        let mut members = Members(Vec::new());
        self.text(&mut members, "schemaUrl", &entity_ref.schema_url);
        self.text(&mut members, "type", &entity_ref.r#type);
        self.list(&mut members, "idKeys", &entity_ref.id_keys, |writer, key| writer.string(key));
        self.list(&mut members, "descriptionKeys", &entity_ref.description_keys, |writer, key| writer.string(key));
        self.object(members)
    }

    fn scope_spans(&mut self, scope_spans: &ScopeSpans) -> String {
        let mut members = Members(Vec::new());
        if let Some(scope) = &scope_spans.scope {
            let scope = self.scope(scope);
            self.member(&mut members, "scope", scope);
        }
        self.list(&mut members, "spans", &scope_spans.spans, Self::span);
        self.text(&mut members, "schemaUrl", &scope_spans.schema_url);
        self.object(members)
    }

    fn scope(&mut self, scope: &InstrumentationScope) -> String {
        let mut members = Members(Vec::new());
        self.text(&mut members, "name", &scope.name);
        self.text(&mut members, "version", &scope.version);
        self.list(&mut members, "attributes", &scope.attributes, Self::pair);
        self.number(&mut members, "droppedAttributesCount", scope.dropped_attributes_count.into());
        self.object(members)
    }

    fn span(&mut self, span: &Span) -> String {
        let mut members = Members(Vec::new());
        self.id(&mut members, "traceId", &span.trace_id);
        self.id(&mut members, "spanId", &span.span_id);
        self.text(&mut members, "traceState", &span.trace_state);
        self.id(&mut members, "parentSpanId", &span.parent_span_id);
        self.number(&mut members, "flags", span.flags.into());
        self.text(&mut members, "name", &span.name);
        self.bare_number(&mut members, "kind", span.kind);
        self.number(&mut members, "startTimeUnixNano", span.start_time_unix_nano.into());
        self.number(&mut members, "endTimeUnixNano", span.end_time_unix_nano.into());
        self.list(&mut members, "attributes", &span.attributes, Self::pair);
        self.number(&mut members, "droppedAttributesCount", span.dropped_attributes_count.into());
        self.list(&mut members, "events", &span.events, Self::event);
        self.number(&mut members, "droppedEventsCount", span.dropped_events_count.into());
        self.list(&mut members, "links", &span.links, Self::link);
        self.number(&mut members, "droppedLinksCount", span.dropped_links_count.into());
        if let Some(status) = &span.status {
            let status = self.status(status);
            self.member(&mut members, "status", status);
        }
        self.object(members)
    }

    fn status(&mut self, status: &Status) -> String {
        let mut members = Members(Vec::new());
        self.text(&mut members, "message", &status.message);
        self.bare_number(&mut members, "code", status.code);
        self.object(members)
    }

    fn event(&mut self, event: &span::Event) -> String {
        let mut members = Members(Vec::new());
        self.number(&mut members, "timeUnixNano", event.time_unix_nano.into());
        self.text(&mut members, "name", &event.name);
        self.list(&mut members, "attributes", &event.attributes, Self::pair);
        self.number(&mut members, "droppedAttributesCount", event.dropped_attributes_count.into());
        self.object(members)
    }

    fn link(&mut self, link: &span::Link) -> String {
        let mut members = Members(Vec::new());
        self.id(&mut members, "traceId", &link.trace_id);
        self.id(&mut members, "spanId", &link.span_id);
        self.text(&mut members, "traceState", &link.trace_state);
        self.list(&mut members, "attributes", &link.attributes, Self::pair);
        self.number(&mut members, "droppedAttributesCount", link.dropped_attributes_count.into());
        self.number(&mut members, "flags", link.flags.into());
        self.object(members)
    }

    fn pair(&mut self, pair: &KeyValue) -> String {
        let mut members = Members(Vec::new());
        self.text(&mut members, "key", &pair.key);
        if let Some(value) = &pair.value {
            let value = self.value(value);
            self.member(&mut members, "value", value);
        }
        self.number(&mut members, "keyStrindex", pair.key_strindex.into());
        self.object(members)
    }

    fn value(&mut self, value: &AnyValue) -> String {
        use any_value::Value;
        let mut members = Members(Vec::new());
        let Some(value) = &value.value else { return self.object(members) };
        let (name, value) = match value {
            Value::StringValue(text) => ("stringValue", self.string(text)),
            Value::BoolValue(bool) => ("boolValue", bool.to_string()),
            Value::IntValue(int) => ("intValue", self.integer((*int).into())),
            Value::DoubleValue(double) => ("doubleValue", self.double(*double)),
            Value::BytesValue(bytes) => ("bytesValue", self.base64(bytes)),
            Value::StringValueStrindex(index) => ("stringValueStrindex", self.integer((*index).into())),
            Value::ArrayValue(array) => {
                let mut inner = Members(Vec::new());
                self.list(&mut inner, "values", &array.values, Self::value);
                ("arrayValue", self.object(inner))
            }
            Value::KvlistValue(list) => {
                let mut inner = Members(Vec::new());
                self.list(&mut inner, "values", &list.values, Self::pair);
                ("kvlistValue", self.object(inner))
            }
        };
        self.member(&mut members, name, value);
        self.object(members)
    }

    fn member(&mut self, members: &mut Members, name: &str, value: String) {
        let name = self.string(name);
        let (before, after) = (self.space(), self.space());
        members.0.push(format!("{name}{before}:{after}{value}"));
    }

    /// In any order, with things that nobody knows between them.
    fn object(&mut self, Members(mut members): Members) -> String {
        if members.len() > 1 && self.choices.once_in(4) {
            let by = self.choices.below(members.len());
            members.rotate_left(by);
        }
        if self.choices.once_in(6) {
            const UNKNOWN: [&str; 6] = [
                r#""start_time_unix_nano":"no number""#,
                r#""unknown":{"deep":[[{"name":[1e300,-0.5,"\ud83d\ude42\n",null,true,false,{}]}]]}"#,
                r#""Name":5"#,
                r#""name ":[]"#,
                r#""":{"":""}"#,
                r#""x":-0E-7"#,
            ];
            members
                .insert(self.choices.below(members.len() + 1), UNKNOWN[self.choices.below(UNKNOWN.len())].to_owned());
        }
        let (before, after) = (self.space(), self.space());
        format!("{{{before}{}{after}}}", members.join(&format!("{after},{before}")))
    }

    fn list<T>(&mut self, members: &mut Members, name: &str, elements: &[T], write: impl Fn(&mut Self, &T) -> String) {
        if elements.is_empty() && !self.choices.once_in(4) {
            return;
        }
        if elements.is_empty() && self.choices.once_in(2) {
            return self.member(members, name, "null".to_owned());
        }
        let elements: Vec<String> = elements.iter().map(|element| write(self, element)).collect();
        let space = self.space();
        self.member(members, name, format!("[{space}{}{space}]", elements.join(&format!("{space},"))));
    }

    fn text(&mut self, members: &mut Members, name: &str, text: &str) {
        if text.is_empty() && !self.choices.once_in(4) {
            return;
        }
        let text = if text.is_empty() && self.choices.once_in(2) { "null".to_owned() } else { self.string(text) };
        self.member(members, name, text);
    }

    fn id(&mut self, members: &mut Members, name: &str, id: &[u8]) {
        if id.is_empty() && !self.choices.once_in(4) {
            return;
        }
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let hex = if self.choices.once_in(4) { hex.to_uppercase() } else { hex };
        let hex = self.string(&hex);
        self.member(members, name, hex);
    }

    fn number(&mut self, members: &mut Members, name: &str, number: i128) {
        if number != 0 || self.choices.once_in(4) {
            let number = self.integer(number);
            self.member(members, name, number);
        }
    }

    fn bare_number(&mut self, members: &mut Members, name: &str, number: i32) {
        if number != 0 || self.choices.once_in(4) {
            let number = if self.choices.once_in(5) { format!("{number}.0") } else { number.to_string() };
            self.member(members, name, number);
        }
    }

    fn integer(&mut self, number: i128) -> String {
        let written = match self.choices.below(8) {
            5 => format!("{number}.000"),
            6 if number != 0 => format!("{number}0E-1"),
            7 if number % 100 == 0 => format!("{}e2", number / 100),
            _ => number.to_string(),
        };
        if self.choices.once_in(2) { self.string(&written) } else { written }
    }

    fn double(&mut self, double: f64) -> String {
        let written = match double {
            double if double.is_nan() => return r#""NaN""#.to_owned(),
            f64::INFINITY => return r#""Infinity""#.to_owned(),
            f64::NEG_INFINITY => return r#""-Infinity""#.to_owned(),
            double => format!("{double:e}"),
        };
        if self.choices.once_in(5) { self.string(&written) } else { written }
    }

    fn base64(&mut self, bytes: &[u8]) -> String {
        let text = match self.choices.below(4) {
            0 => STANDARD.encode(bytes),
            1 => STANDARD_NO_PAD.encode(bytes),
            2 => URL_SAFE.encode(bytes),
            _ => URL_SAFE_NO_PAD.encode(bytes),
        };
        self.string(&text)
    }

    fn string(&mut self, text: &str) -> String {
        let mut written = String::from('"');
        // Text is escaped where it must be, now and then everywhere.
        let all = self.choices.once_in(12);
        for character in text.chars() {
            match character {
                '"' => written.push_str("\\\""),
                '\\' => written.push_str("\\\\"),
                '/' if all => written.push_str("\\/"),
                '\n' if !all => written.push_str("\\n"),
                '\t' if !all => written.push_str("\\t"),
                '\r' if !all => written.push_str("\\r"),
                '\u{8}' if !all => written.push_str("\\b"),
                '\u{c}' if !all => written.push_str("\\f"),
                character if all || character < ' ' => {
                    let units = character
                        .encode_utf16(&mut [0; 2])
                        .iter()
                        .map(|unit| format!("\\u{unit:04x}"))
                        .collect::<String>();
                    written.push_str(&units);
                }
                character => written.push(character),
            }
        }
        written.push('"');
        written
    }

    fn space(&mut self) -> &'static str {
        ["", "", "", " ", "\n  ", "\t\r\n"][self.choices.below(6)]
    }
}
