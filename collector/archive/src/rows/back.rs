//! Rows to spans: what was in the log, as far as protobuf's decoding tells.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use emberd_model::wire::{self, Limits};
use emberd_model::{Batch, Flags, Offset, UnixNanos};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::cells::{Cell, Columns, Held, utf8};
use super::schema::Column;
use super::{Error, json};

/// What `extra` says.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Extra {
    no_status: bool,
    no_scope: bool,
    no_resource: bool,
    dropped_attributes: u32,
    dropped_events: u32,
    dropped_links: u32,
    resource_schema_url: String,
    scope_schema_url: String,
    resource: Option<String>,
    scope: Option<String>,
    span: Option<String>,
}

/// Spans of a batch that is being put together.
struct Open {
    batch: Batch,
    request: ExportTraceServiceRequest,
}

impl Open {
    fn close(self) -> Batch {
        let body = self.request.encode_to_vec();
        let flags = match wire::check(&body, &Limits { spans_max: u32::MAX, ..Limits::default() }) {
            Ok(checked) if checked.rejected == 0 => checked.flags.and(Flags::COUNTED),
            _ => Flags::default(),
        };
        Batch { flags, body: body.into(), ..self.batch }
    }

    fn add(&mut self, resource: ResourceSpans, scope: ScopeSpans, span: Span) {
        self.batch.spans += 1;
        let known = self.request.resource_spans.last_mut();
        let last = match known {
            Some(last) if last.resource == resource.resource && last.schema_url == resource.schema_url => last,
            _ => {
                self.request.resource_spans.push(resource);
                let at = self.request.resource_spans.len() - 1;
                &mut self.request.resource_spans[at]
            }
        };
        match last.scope_spans.last_mut() {
            Some(last) if last.scope == scope.scope && last.schema_url == scope.schema_url => last.spans.push(span),
            _ => last.scope_spans.push(ScopeSpans { spans: vec![span], ..scope }),
        }
    }
}

/// The batches of some rows.
pub(super) fn batches(rows: &Columns) -> Result<Vec<Batch>, Error> {
    let mut done = Vec::new();
    let mut open: Option<Open> = None;
    for row in 0..rows.rows {
        let offset = Offset(rows.int(Column::LogOffset, row).map_or(0, |offset| offset as u64));
        let bad = |what: String| Error::Row { offset: offset.0, what };
        let received_at = UnixNanos(rows.int(Column::ReceivedAt, row).map_or(0, |at| at as u64));
        let key = rows.int(Column::IngestKey, row).and_then(|key| u16::try_from(key).ok()).unwrap_or(0);
        let fits =
            |open: &Open| open.batch.end() == offset && open.batch.received_at == received_at && open.batch.key == key;
        if !open.as_ref().is_some_and(fits) {
            done.extend(open.take().map(Open::close));
        }
        let extra: Extra = match rows.text(Column::Extra, row)? {
            Some(extra) => serde_json::from_str(extra).map_err(|error| bad(error.to_string()))?,
            None => Extra::default(),
        };
        let (resource, scope) = (resource(rows, row, &extra)?, scope(rows, row, &extra)?);
        let span = match &extra.span {
            Some(span) => message(span).map_err(bad)?,
            None => span(rows, row, &extra).map_err(|error| match error {
                Odd::Row(what) => bad(what),
                Odd::File(error) => error,
            })?,
        };
        let begun = || Open {
            batch: Batch { offset, spans: 0, received_at, key, flags: Flags::default(), body: Default::default() },
            request: ExportTraceServiceRequest::default(),
        };
        open.get_or_insert_with(begun).add(resource, scope, span);
    }
    done.extend(open.map(Open::close));
    Ok(done)
}

/// A message that `extra` has as a whole.
fn message<M: Message + Default>(base64: &str) -> Result<M, String> {
    let bytes = STANDARD.decode(base64).map_err(|error| error.to_string())?;
    M::decode(&bytes[..]).map_err(|error| error.to_string())
}

fn resource(rows: &Columns, row: usize, extra: &Extra) -> Result<ResourceSpans, Error> {
    let bad = |what| Error::Row { offset: rows.int(Column::LogOffset, row).map_or(0, |offset| offset as u64), what };
    let resource = match &extra.resource {
        Some(whole) => Some(message(whole).map_err(bad)?),
        None if extra.no_resource => None,
        None => {
            let keys = rows.list(Column::ResourceKey, row).zip(rows.list(Column::ResourceValue, row));
            let attributes = keys.filter_map(|(key, value)| attribute(key, value).transpose());
            let attributes = attributes.collect::<Result<_, _>>().map_err(|odd| match odd {
                Odd::Row(what) => bad(what),
                Odd::File(error) => error,
            })?;
            Some(Resource { attributes, ..Resource::default() })
        }
    };
    Ok(ResourceSpans { resource, schema_url: extra.resource_schema_url.clone(), ..ResourceSpans::default() })
}

fn scope(rows: &Columns, row: usize, extra: &Extra) -> Result<ScopeSpans, Error> {
    let bad = |what| Error::Row { offset: rows.int(Column::LogOffset, row).map_or(0, |offset| offset as u64), what };
    let scope = match &extra.scope {
        Some(whole) => Some(message(whole).map_err(bad)?),
        None if extra.no_scope => None,
        None => {
            let text = |column| rows.text(column, row).map(|text| text.unwrap_or_default().to_owned());
            let (name, version) = (text(Column::Scope)?, text(Column::ScopeVersion)?);
            Some(InstrumentationScope { name, version, ..InstrumentationScope::default() })
        }
    };
    Ok(ScopeSpans { scope, schema_url: extra.scope_schema_url.clone(), ..ScopeSpans::default() })
}

/// What is wrong, in a row or in the file.
enum Odd {
    Row(String),
    File(Error),
}

impl From<Error> for Odd {
    fn from(error: Error) -> Self {
        Self::File(error)
    }
}

fn span(rows: &Columns, row: usize, extra: &Extra) -> Result<Span, Odd> {
    let text = |column| rows.text(column, row).map(|text| text.unwrap_or_default().to_owned());
    let id = |column| rows.text(column, row).map_err(Odd::from).and_then(|text| hex(text.unwrap_or_default()));
    let time = |column| rows.int(column, row).map_or(0, |at| at as u64);
    let mut attributes = Vec::new();
    for (key, value) in rows.list(Column::AttributeKey, row).zip(rows.list(Column::AttributeValue, row)) {
        attributes.extend(attribute(key, value)?);
    }
    let status = Status { message: text(Column::StatusMessage)?, code: number(&text(Column::Status)?, &STATUSES)? };
    Ok(Span {
        trace_id: id(Column::TraceId)?,
        span_id: id(Column::SpanId)?,
        trace_state: text(Column::TraceState)?,
        parent_span_id: id(Column::ParentSpanId)?,
        flags: rows.int(Column::Flags, row).map_or(0, |flags| flags as u32),
        name: text(Column::Name)?,
        kind: number(&text(Column::Kind)?, &KINDS)?,
        start_time_unix_nano: time(Column::StartTime),
        end_time_unix_nano: time(Column::EndTime),
        attributes,
        dropped_attributes_count: extra.dropped_attributes,
        events: events(rows, row)?,
        dropped_events_count: extra.dropped_events,
        links: links(rows, row)?,
        dropped_links_count: extra.dropped_links,
        status: (!extra.no_status).then_some(status),
    })
}

/// The words of OTLP's span kinds, by their numbers.
pub(super) const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];
/// The words of its status codes.
pub(super) const STATUSES: [&str; 3] = ["unset", "ok", "error"];

fn number(word: &str, words: &[&str]) -> Result<i32, Odd> {
    match words.iter().position(|known| *known == word) {
        Some(at) => Ok(at as i32),
        None => word.parse().map_err(|_| Odd::Row(format!("{word:?} is no kind or status"))),
    }
}

fn hex(text: &str) -> Result<Vec<u8>, Odd> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8));
    let bytes = bytes.collect::<Option<Vec<u8>>>().filter(|_| rest.is_empty());
    bytes.ok_or_else(|| Odd::Row(format!("{text:?} is no id")))
}

/// A pair of a map; none where the map is empty.
fn attribute(key: Cell<'_>, value: Cell<'_>) -> Result<Option<KeyValue>, Odd> {
    let (Some(Held::Text(key)), Some(Held::Text(value))) = (key.value, value.value) else { return Ok(None) };
    let value = json::value_of(utf8(value)?).map_err(|error| Odd::Row(error.to_string()))?;
    Ok(Some(json::pair(utf8(key)?.to_owned(), value)))
}

fn events(rows: &Columns, row: usize) -> Result<Vec<Event>, Odd> {
    let mut events = Vec::new();
    let columns = [Column::EventTime, Column::EventName, Column::EventDropped];
    let [times, names, dropped] = columns.map(|column| rows.list(column, row));
    for ((time, name), dropped) in times.zip(names).zip(dropped) {
        let (Some(Held::Int(time)), Some(Held::Text(name)), Some(Held::Int(dropped))) =
            (time.value, name.value, dropped.value)
        else {
            continue;
        };
        events.push(Event {
            time_unix_nano: time as u64,
            name: utf8(name)?.to_owned(),
            attributes: Vec::new(),
            dropped_attributes_count: dropped as u32,
        });
    }
    let mut of_events = events.iter_mut().map(|event| &mut event.attributes);
    attributes(rows, row, [Column::EventKey, Column::EventValue], &mut of_events)?;
    Ok(events)
}

fn links(rows: &Columns, row: usize) -> Result<Vec<Link>, Odd> {
    let mut links = Vec::new();
    let texts = [Column::LinkTrace, Column::LinkSpan, Column::LinkState].map(|column| rows.list(column, row));
    let numbers = [Column::LinkFlags, Column::LinkDropped].map(|column| rows.list(column, row));
    let ([traces, spans, states], [flags, dropped]) = (texts, numbers);
    for ((((trace, span), state), flags), dropped) in traces.zip(spans).zip(states).zip(flags).zip(dropped) {
        let (Some(Held::Text(trace)), Some(Held::Text(span)), Some(Held::Text(state))) =
            (trace.value, span.value, state.value)
        else {
            continue;
        };
        let number = |cell: Cell<'_>| if let Some(Held::Int(int)) = cell.value { int as u32 } else { 0 };
        links.push(Link {
            trace_id: hex(utf8(trace)?)?,
            span_id: hex(utf8(span)?)?,
            trace_state: utf8(state)?.to_owned(),
            attributes: Vec::new(),
            dropped_attributes_count: number(dropped),
            flags: number(flags),
        });
    }
    let mut of_links = links.iter_mut().map(|link| &mut link.attributes);
    attributes(rows, row, [Column::LinkKey, Column::LinkValue], &mut of_links)?;
    Ok(links)
}

/// Gives the attributes in lists to their elements.
fn attributes(
    rows: &Columns,
    row: usize,
    [key, value]: [Column; 2],
    elements: &mut dyn Iterator<Item = &mut Vec<KeyValue>>,
) -> Result<(), Odd> {
    let mut element = None;
    for (key, value) in rows.list(key, row).zip(rows.list(value, row)) {
        if key.rep < 2 {
            element = elements.next();
        }
        if let (Some(element), Some(pair)) = (&mut element, attribute(key, value)?) {
            element.push(pair);
        }
    }
    Ok(())
}
