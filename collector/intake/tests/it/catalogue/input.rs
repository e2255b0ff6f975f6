//! A row's body: bytes, text, or spans that are written in the form of the transport.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use serde::Deserialize;

use super::row::Form;
use crate::export::{self, attribute, heavy, span, text};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    /// These bytes, or this text, as they are.
    hex: Option<String>,
    text: Option<String>,
    /// In `text`, "@" stands for so many digits, or for so many ones and the commas between them.
    digits: Option<usize>,
    ones: Option<usize>,
    /// The fields of one span in JSON.
    json_span: Option<String>,
    /// So many sound spans.
    spans: Option<u64>,
    /// A sound span, and this one.
    span: Option<Changed>,
    /// This span alone.
    alone: Option<Changed>,
    /// A sound span under a resource with these attributes; none: without a resource.
    resource: Option<Vec<Attribute>>,
    no_resource: Option<bool>,
    /// Each followed by as many as this: resources, or scopes, without spans.
    empty_resources: Option<usize>,
    empty_scopes: Option<usize>,
    /// One span, and a request of so many bytes at least, or exactly.
    heavy: Option<usize>,
    exactly: Option<usize>,
    zeros: Option<usize>,
    /// A span with so many of something, or so many spans.
    many: Option<Many>,
    /// A sound span, and one with a value so many arrays deep.
    deep: Option<usize>,
    /// JSON brackets so deep.
    brackets: Option<usize>,
    /// Put before, and behind.
    #[serde(default)]
    before: String,
    #[serde(default)]
    behind: String,
    /// So many bytes less at the end.
    #[serde(default)]
    cut: usize,
    /// The whole, so often.
    times: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    what: Repeated,
    count: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Repeated {
    Spans,
    Attributes,
    Events,
    Links,
    /// The span's one status, over and over.
    Statuses,
}

/// How a span differs from a sound one.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Changed {
    trace_id: Option<String>,
    span_id: Option<String>,
    parent_span_id: Option<String>,
    name: Option<String>,
    name_bytes: Option<usize>,
    trace_state: Option<String>,
    /// Numbers that TOML does not have are written as text.
    start: Option<String>,
    end: Option<String>,
    kind: Option<i32>,
    status: Option<i32>,
    flags: Option<u32>,
    attributes: Vec<Attribute>,
    /// The same once more.
    twice: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attribute {
    #[serde(default)]
    key: String,
    key_bytes: Option<usize>,
    text: Option<String>,
    text_bytes: Option<usize>,
    int: Option<String>,
    double: Option<String>,
    bytes: Option<String>,
    empty: Option<Empty>,
    nested: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Empty {
    Unset,
    Array,
    Kvlist,
}

pub(super) fn from_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

impl Input {
    pub(super) fn is_spans(&self) -> bool {
        self.spans.is_some()
            || self.span.is_some()
            || self.alone.is_some()
            || self.resource.is_some()
            || self.no_resource.is_some()
            || self.empty_resources.is_some()
            || self.empty_scopes.is_some()
    }

    pub(super) fn is_text(&self) -> bool {
        self.text.is_some() || self.json_span.is_some() || self.brackets.is_some()
    }

    /// The request as a message, if that is what it is.
    pub(super) fn message(&self) -> Option<ExportTraceServiceRequest> {
        let spans = if let Some(count) = self.spans {
            (0..count).map(span).collect()
        } else if let Some(changed) = &self.span {
            [vec![span(0)], changed.spans()].concat()
        } else if let Some(changed) = &self.alone {
            changed.spans()
        } else if self.resource.is_some() || self.no_resource.is_some() {
            vec![span(0)]
        } else if self.empty_resources.is_some() || self.empty_scopes.is_some() {
            Vec::new()
        } else {
            return None;
        };
        let mut message = ExportTraceServiceRequest::decode(&*export::request(spans)).unwrap();
        let resource = &mut message.resource_spans[0];
        if let Some(attributes) = &self.resource {
            let attributes = attributes.iter().map(Attribute::made).collect();
            resource.resource = Some(Resource { attributes, ..Resource::default() });
        }
        if self.no_resource.is_some() {
            resource.resource = None;
        }
        resource.scope_spans.extend(vec![ScopeSpans::default(); self.empty_scopes.unwrap_or_default()]);
        message.resource_spans.extend(vec![ResourceSpans::default(); self.empty_resources.unwrap_or_default()]);
        Some(message)
    }

    /// The body, before it is compressed.
    pub(super) fn body(&self, form: Form) -> Vec<u8> {
        let mut body = match self.message() {
            Some(message) if form == Form::Json => super::json::written(&message).into_bytes(),
            Some(message) => message.encode_to_vec(),
            None => self.bytes(),
        };
        body.truncate(body.len() - self.cut);
        let body = [from_hex(&self.before), body, from_hex(&self.behind)].concat();
        body.repeat(self.times.unwrap_or(1))
    }

    fn bytes(&self) -> Vec<u8> {
        if let Some(hex) = &self.hex {
            from_hex(hex)
        } else if let Some(text) = &self.text {
            let digits = self.digits.map(|count| "7".repeat(count));
            let ones = self.ones.map(|count| vec!["1"; count].join(","));
            match digits.or(ones) {
                Some(numbers) => text.replace('@', &numbers).into_bytes(),
                None => text.clone().into_bytes(),
            }
        } else if let Some(fields) = &self.json_span {
            format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#).into_bytes()
        } else if let Some(bytes) = self.heavy {
            heavy(bytes)
        } else if let Some(bytes) = self.exactly {
            // The lengths in front of the text are as long as those of a text that is a little shorter.
            let around = heavy(bytes - 100).len() - (bytes - 100);
            let body = heavy(bytes - around);
            assert_eq!(body.len(), bytes);
            body
        } else if let Some(zeros) = self.zeros {
            vec![0; zeros]
        } else if let Some(many) = &self.many {
            many.made()
        } else if let Some(depth) = self.deep {
            deep(depth)
        } else if let Some(depth) = self.brackets {
            format!(r#"{{"x":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth)).into_bytes()
        } else {
            Vec::new()
        }
    }
}

/// A field of wire type 2.
fn field(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(payload.len() as u64, &mut bytes);
    [&bytes, payload].concat()
}

fn envelope(spans: &[u8]) -> Vec<u8> {
    field(1, &field(2, spans))
}

/// By hand, for a message of that depth could not be built, let alone dropped, on a thread's stack.
fn deep(depth: usize) -> Vec<u8> {
    let value = (0..depth).fold(text("deep").encode_to_vec(), |inner, _| field(5, &field(1, &inner)));
    let attribute = field(9, &[field(1, b"k"), field(2, &value)].concat());
    let deep = [span(1).encode_to_vec(), attribute].concat();
    envelope(&[field(2, &span(0).encode_to_vec()), field(2, &deep)].concat())
}

impl Many {
    fn made(&self) -> Vec<u8> {
        let bare = Span { name: String::new(), start_time_unix_nano: 0, end_time_unix_nano: 0, ..span(0) };
        let one = match self.what {
            Repeated::Spans => return envelope(&field(2, &bare.encode_to_vec()).repeat(self.count)),
            Repeated::Attributes => field(9, &attribute("k", text("v")).encode_to_vec()),
            Repeated::Events => field(11, &[]),
            Repeated::Links => field(13, &[field(1, &[7; 16]), field(2, &[7; 8])].concat()),
            Repeated::Statuses => field(15, &Status { code: 1, ..Status::default() }.encode_to_vec()),
        };
        envelope(&field(2, &[bare.encode_to_vec(), one.repeat(self.count)].concat()))
    }
}

impl Changed {
    fn spans(&self) -> Vec<Span> {
        let mut span = span(1);
        let id = |id: &Option<String>, sound: &mut Vec<u8>| {
            if let Some(hex) = id {
                *sound = from_hex(hex);
            }
        };
        id(&self.trace_id, &mut span.trace_id);
        id(&self.span_id, &mut span.span_id);
        id(&self.parent_span_id, &mut span.parent_span_id);
        span.name = match (&self.name, self.name_bytes) {
            (Some(name), _) => name.clone(),
            (None, Some(bytes)) => "n".repeat(bytes),
            (None, None) => span.name,
        };
        span.trace_state = self.trace_state.clone().unwrap_or_default();
        let time = |text: &Option<String>, sound| text.as_ref().map_or(sound, |text| text.parse().unwrap());
        span.start_time_unix_nano = time(&self.start, span.start_time_unix_nano);
        span.end_time_unix_nano = time(&self.end, span.end_time_unix_nano);
        span.kind = self.kind.unwrap_or_default();
        span.status = self.status.map(|code| Status { code, ..Status::default() });
        span.flags = self.flags.unwrap_or_default();
        span.attributes = self.attributes.iter().map(Attribute::made).collect();
        vec![span; if self.twice { 2 } else { 1 }]
    }
}

impl Attribute {
    fn made(&self) -> KeyValue {
        let value = if let Some(text) = &self.text {
            Some(Value::StringValue(text.clone()))
        } else if let Some(bytes) = self.text_bytes {
            Some(Value::StringValue("v".repeat(bytes)))
        } else if let Some(int) = &self.int {
            Some(Value::IntValue(int.parse().unwrap()))
        } else if let Some(double) = &self.double {
            Some(Value::DoubleValue(double.parse().unwrap()))
        } else if let Some(bytes) = &self.bytes {
            Some(Value::BytesValue(from_hex(bytes)))
        } else if let Some(depth) = self.nested {
            (0..depth)
                .fold(text("deep"), |inner, _| AnyValue {
                    value: Some(Value::ArrayValue(ArrayValue { values: vec![inner] })),
                })
                .value
        } else {
            match self.empty.as_ref().expect("an attribute has a value") {
                Empty::Unset => None,
                Empty::Array => Some(Value::ArrayValue(ArrayValue::default())),
                Empty::Kvlist => Some(Value::KvlistValue(KeyValueList::default())),
            }
        };
        let key = self.key_bytes.map_or_else(|| self.key.clone(), |bytes| "k".repeat(bytes));
        attribute(&key, AnyValue { value })
    }
}
