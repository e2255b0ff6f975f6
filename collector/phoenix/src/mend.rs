//! Mends, in a copy, what Phoenix would drop, choke on or not understand in a request.
//!
//! Promise: a span that passed the walk is taken by Phoenix after this, on SQLite and on PostgreSQL, and says what was changed in
//! its attribute [`MENDED`]. Nothing that a span carries is overwritten without its original staying beside it (under
//! [`ORIGINAL`]), except NUL, which nothing can store, and bytes, which become base64. `mend(mend(x)) = mend(x)`.
//! What Phoenix does to a span that is not mended: docs/decisions/0006-forwarding.md has the table, measured.
//!
//! - `key`: what attributes may be called. `value`: what they may hold. `json_text`: JSON inside a string, which Phoenix parses.
//! - `derive`: OpenInference attributes for spans of other conventions, where Phoenix would not add them itself.
//!
//! Not here: which requests need it (the walk flags them, erring towards yes), sending, spans too large to send.
//! Kept by: `tests.rs`, rule by rule and as properties; `emberd-consumers/tests/phoenix.rs` against the real Phoenix.

mod derive;
mod json_text;
mod key;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use emberd_model::ledger::PROJECT;
use emberd_model::{SpanId, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// The attribute of a mended span that lists what was changed: texts like `"bytes: payload"`.
pub const MENDED: &str = "emberd.mended";

/// Before the key of an attribute that holds the original of a value that had to be cut down.
pub const ORIGINAL: &str = "emberd.original.";

/// Changes listed in [`MENDED`]; what is beyond is counted in a last entry.
const LISTED_MAX: usize = 32;

/// A project's name and a session's id are keys of an index, which PostgreSQL bounds at some 2,700 bytes.
const INDEXED_BYTES_MAX: usize = 1_000;

/// What was wrong with a span's attribute, name or event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Bytes, which Phoenix cannot write as JSON: now base64.
    Bytes,
    /// A NUL, which PostgreSQL cannot store: now U+FFFD.
    Nul,
    /// A token count that Phoenix's 32-bit columns or their sum cannot hold: now the nearest that they can.
    BigNumber,
    /// A key nested too deep: its further dots are now `_`.
    DeepKey,
    /// A key with a part of digits that Phoenix cannot read as a number: that part now begins with `_`.
    DigitKey,
    /// A span kind that is not text (which breaks the listing of its whole project), or a known one written differently.
    Kind,
    /// JSON text that Phoenix would parse and could not store: now under a key that it does not parse.
    JsonText,
    /// A session id or project name too long for an index: now cut, with a hash of the whole.
    TooLong,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Nul => "nul",
            Self::BigNumber => "big number",
            Self::DeepKey => "deep key",
            Self::DigitKey => "digits in key",
            Self::Kind => "span kind",
            Self::JsonText => "json text",
            Self::TooLong => "too long",
        })
    }
}

/// One change to one span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The span's trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// What was wrong.
    pub what: What,
    /// Where: the key after mending, cut to 100 bytes, or `name`, `status`, `event`.
    pub place: String,
}

/// A span that Phoenix cannot take, however mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unforwardable {
    /// Its trace id, as it came.
    pub trace: Vec<u8>,
    /// Its span id, as it came.
    pub span: Vec<u8>,
    /// Why.
    pub reason: &'static str,
}

/// A mended copy.
#[derive(Clone, Debug, Default)]
pub struct Mended {
    /// The request to send. The very bytes that came in, if there was nothing to do.
    pub body: Bytes,
    /// Whether `body` differs from what came in.
    pub changed: bool,
    /// What was cut down or replaced; additions are not listed.
    pub marks: Vec<Mark>,
    /// Spans that are not in `body`.
    pub unforwardable: Vec<Unforwardable>,
}

/// Mends a request. Fails only on bytes that are not an `ExportTraceServiceRequest`, which the walk does not let pass.
pub fn mend(request: &Bytes) -> Result<Mended, prost::DecodeError> {
    let mut tree = ExportTraceServiceRequest::decode(&request[..])?;
    let mut mended = Mended::default();
    for resource_spans in &mut tree.resource_spans {
        let of_resource = resource_spans.resource.as_mut().map(mend_project).unwrap_or_default();
        for scope_spans in &mut resource_spans.scope_spans {
            scope_spans.spans.retain_mut(|span| mended.take_in(span, &of_resource));
        }
    }
    mended.body = if mended.changed { tree.encode_to_vec().into() } else { request.clone() };
    Ok(mended)
}

impl Mended {
    /// Mends one span; false if it must be left out.
    fn take_in(&mut self, span: &mut Span, of_resource: &[What]) -> bool {
        let ids = (TraceId::from_wire(&span.trace_id), SpanId::from_wire(&span.span_id));
        let (Some(trace), Some(id)) = ids else {
            let reason = "its trace id or span id is missing or of the wrong length";
            self.unforwardable.push(Unforwardable { trace: span.trace_id.clone(), span: span.span_id.clone(), reason });
            self.changed = true;
            return false;
        };
        let mut changes = Changes::default();
        of_resource.iter().for_each(|&what| changes.note(what, PROJECT));
        mend_span(span, &mut changes);
        self.changed |= changes.added || !changes.marks.is_empty();
        self.marks.extend(changes.marks.into_iter().map(|(what, place)| Mark { trace, span: id, what, place }));
        true
    }
}

/// What was done to one span.
#[derive(Default)]
struct Changes {
    marks: Vec<(What, String)>,
    /// Attributes that keep what was cut down.
    originals: Vec<KeyValue>,
    /// Whether something was added that the span did not have.
    added: bool,
}

impl Changes {
    fn note(&mut self, what: What, place: &str) {
        let cut = place.floor_char_boundary(100);
        self.marks.push((what, place[..cut].to_owned()));
    }

    fn keep(&mut self, path: &str, mut original: String) {
        let key = key::mended(&format!("{ORIGINAL}{path}"), &mut |_| ()).unwrap_or_else(|| format!("{ORIGINAL}{path}"));
        // It stands beside what was mended, and must be taken like that.
        value::without_nul(&mut original, &key, self);
        self.originals.push(text_attribute(key, original));
    }
}

fn mend_span(span: &mut Span, changes: &mut Changes) {
    let derived = derive::missing(&span.attributes);
    changes.added = !derived.is_empty();
    span.attributes.extend(derived);
    value::without_nul(&mut span.name, "name", changes);
    if let Some(status) = &mut span.status {
        value::without_nul(&mut status.message, "status", changes);
    }
    for attribute in &mut span.attributes {
        mend_attribute(attribute, changes);
    }
    for event in &mut span.events {
        value::without_nul(&mut event.name, "event", changes);
        for attribute in &mut event.attributes {
            value::without_nul(&mut attribute.key, "event", changes);
            value::mend_plain(attribute.value.as_mut(), &attribute.key, changes);
        }
    }
    span.attributes.append(&mut changes.originals);
    if !changes.marks.is_empty() {
        list_changes(&mut span.attributes, &changes.marks);
    }
}

fn mend_attribute(attribute: &mut KeyValue, changes: &mut Changes) {
    let mut wrong = Vec::new();
    if let Some(key) = key::mended(&attribute.key, &mut |what| wrong.push(what)) {
        attribute.key = key;
        wrong.into_iter().for_each(|what| changes.note(what, &attribute.key));
    }
    value::mend_at(attribute.value.as_mut(), &attribute.key, changes);
    let text = attribute.value.as_ref().and_then(as_text);
    if text.is_some_and(|text| json_text::is_trap(&attribute.key, text)) {
        attribute.key.push_str("_text");
        changes.note(What::JsonText, &attribute.key);
    }
}

/// Appends to the span's list of changes, or begins one.
fn list_changes(attributes: &mut Vec<KeyValue>, marks: &[(What, String)]) {
    let text = |text: String| AnyValue { value: Some(Value::StringValue(text)) };
    let mut entries: Vec<_> =
        marks.iter().take(LISTED_MAX).map(|(what, place)| text(format!("{what}: {place}"))).collect();
    if marks.len() > LISTED_MAX {
        entries.push(text(format!("and {} more", marks.len() - LISTED_MAX)));
    }
    let listed = attributes.iter_mut().find(|attribute| attribute.key == MENDED);
    if let Some(Value::ArrayValue(list)) = listed.and_then(|list| list.value.as_mut()?.value.as_mut()) {
        list.values.extend(entries);
        return;
    }
    let value = Some(AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: entries })) });
    attributes.push(KeyValue { key: MENDED.to_owned(), value, ..KeyValue::default() });
}

/// Mends the project's name. Phoenix keeps nothing else of a resource.
fn mend_project(resource: &mut Resource) -> Vec<What> {
    let mut wrong = Vec::new();
    for attribute in resource.attributes.iter_mut().filter(|attribute| attribute.key == PROJECT) {
        let Some(Value::StringValue(name)) = attribute.value.as_mut().and_then(|value| value.value.as_mut()) else {
            continue;
        };
        if name.contains('\0') {
            *name = name.replace('\0', "\u{fffd}");
            wrong.push(What::Nul);
        }
        if let Some(short) = value::shortened(name) {
            *name = short;
            wrong.push(What::TooLong);
        }
    }
    wrong
}

fn as_text(value: &AnyValue) -> Option<&str> {
    match &value.value {
        Some(Value::StringValue(text)) => Some(text),
        _ => None,
    }
}

fn text_attribute(key: String, text: String) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(Value::StringValue(text)) }), ..KeyValue::default() }
}
