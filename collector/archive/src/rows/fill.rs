//! A span to a row.
//!
//! Promise: the row says what the span says (`facts::single`), and all that is needed to write the span again: what has no column of its
//! own stands in `extra`, a JSON object that most rows do not have:
//!
//! - `no_status`, `no_scope`, `no_resource`: the message is not there (rather than there and empty).
//! - `dropped_attributes`, `dropped_events`, `dropped_links`: as the SDK counted them.
//! - `resource_schema_url`, `scope_schema_url`.
//! - `resource`, `scope`, `span`: the whole message as base64 of its protobuf, where columns cannot say all of it: repeated keys, attributes
//!   of a scope, times after 2262, values that only profiles have. What columns can say of it they say all the same.
//!
//! Cost: a span's attributes are passed over once; what is written as nearly all are goes from the request's bytes into the page.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use emberd_model::cost::{Price, Prices};
use emberd_model::facts::{OfResource, Reading, Single, Singles};
use emberd_model::ledger::project_of;
use emberd_model::wire::{EventView, Found, LinkView, Pair, PlainValue, ResourceView, ScopeView, SpanView};
use emberd_model::{Batch, UnixNanos};
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::back::{KINDS, STATUSES};
use super::json::{self, Odd};
use super::schema::Column;
use super::table::Table;

/// Models whose price is remembered.
const MODELS_MAX: usize = 32;

/// Prices by the names that spans gave, of those that came last.
#[derive(Default)]
pub(super) struct Known(Vec<(String, Option<Price>)>);

impl Known {
    fn price(&mut self, model: &str, prices: &Prices) -> Option<Price> {
        if let Some((_, price)) = self.0.iter().find(|(known, _)| known == model) {
            return *price;
        }
        let price = prices.of(model).copied();
        if self.0.len() == MODELS_MAX {
            self.0.remove(0);
        }
        self.0.push((model.to_owned(), price));
        price
    }
}

/// What all spans under one resource have in common.
pub(super) struct Above<'a> {
    index: u32,
    says: OfResource<'a>,
    project: &'a str,
    /// Keys, and values as JSON.
    pairs: Vec<(String, Vec<u8>)>,
    /// What stands in `extra` because of it.
    extra: Extra,
}

impl<'a> Above<'a> {
    pub(super) fn of(view: &ResourceView<'a>, reading: &Reading) -> Self {
        let mut above = Self {
            index: view.index,
            says: OfResource::of(view, reading),
            project: project_of(view),
            pairs: Vec::new(),
            extra: Extra::default(),
        };
        if !view.schema_url.is_empty() {
            above.extra.text("resource_schema_url", view.schema_url);
        }
        match view.message() {
            None => above.extra.word("no_resource"),
            Some(message) => {
                if above.take(&message).is_err() {
                    above.extra.bytes("resource", &message);
                }
            }
        }
        above
    }

    fn take(&mut self, message: &[u8]) -> Result<(), Odd> {
        let Resource { attributes, dropped_attributes_count, entity_refs } =
            Resource::decode(message).map_err(|_| Odd)?;
        let mut is_odd = dropped_attributes_count != 0 || !entity_refs.is_empty();
        let mut seen = HashSet::new();
        for attribute in attributes {
            let mut value = Vec::new();
            if attribute.key_strindex != 0 || !seen.insert(attribute.key.clone()) {
                is_odd = true;
                continue;
            }
            match attribute.value.as_ref().ok_or(Odd).and_then(|any| json::put_value(&mut value, any)) {
                Ok(()) => self.pairs.push((attribute.key, value)),
                Err(Odd) => is_odd = true,
            }
        }
        if is_odd { Err(Odd) } else { Ok(()) }
    }

    pub(super) fn is_of(&self, resource: &ResourceView<'_>) -> bool {
        self.index == resource.index
    }
}

/// What stands in `extra` because of a scope.
pub(super) fn of_scope(view: &ScopeView<'_>) -> Extra {
    let mut extra = Extra::default();
    if !view.schema_url.is_empty() {
        extra.text("scope_schema_url", view.schema_url);
    }
    match view.message() {
        None => extra.word("no_scope"),
        Some(message) => {
            let plain = InstrumentationScope::decode(&message[..])
                .is_ok_and(|scope| scope.attributes.is_empty() && scope.dropped_attributes_count == 0);
            if !plain {
                extra.bytes("scope", &message);
            }
        }
    }
    extra
}

/// The fields of an `extra`, without the braces around them.
#[derive(Clone, Default)]
pub(super) struct Extra(Vec<u8>);

impl Extra {
    fn key(&mut self, key: &str) {
        if !self.0.is_empty() {
            self.0.push(b',');
        }
        json::put_text(&mut self.0, key.as_bytes());
        self.0.push(b':');
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        json::put_text(&mut self.0, text.as_bytes());
    }

    fn word(&mut self, key: &str) {
        self.key(key);
        json::put_bool(&mut self.0, true);
    }

    fn number(&mut self, key: &str, number: u32) {
        if number != 0 {
            self.key(key);
            json::put_int(&mut self.0, i64::from(number));
        }
    }

    fn bytes(&mut self, key: &str, bytes: &[u8]) {
        self.key(key);
        json::put_text(&mut self.0, STANDARD.encode(bytes).as_bytes());
    }

    fn all(&mut self, other: &Self) {
        if !self.0.is_empty() && !other.0.is_empty() {
            self.0.push(b',');
        }
        self.0.extend_from_slice(&other.0);
    }
}

/// Where a row's span comes from.
pub(super) struct Source<'s, 'a> {
    pub(super) batch: &'s Batch,
    pub(super) offset: u64,
    pub(super) found: &'s Found<'a>,
    pub(super) above: &'s Above<'a>,
    pub(super) scope: &'s Extra,
}

/// Writes the columns of one row.
pub(super) fn row<'a>(
    table: &mut Table,
    source: &Source<'_, 'a>,
    singles: &mut Singles<'a, '_>,
    known: &mut Known,
    prices: &Prices,
) {
    let span = &source.found.span;
    let mut is_odd = ids(table, span);
    let mut keys = Keys::of(table.next_map());
    let single = singles.read(span, &source.above.says, |pair| {
        let rep = u8::from(!keys.is_empty());
        is_odd |= attribute(table, pair, &mut keys, [Column::AttributeKey, Column::AttributeValue], rep, 1).is_err();
    });
    if keys.is_empty() {
        none(table, &[Column::AttributeKey, Column::AttributeValue]);
    }
    is_odd |= times(table, span);
    said(table, &single, known, prices);
    around(table, source);
    is_odd |= events(table, span) | links(table, span);
    let mut extra = Extra::default();
    if !span.has_status {
        extra.word("no_status");
    }
    extra.number("dropped_attributes", span.dropped_attributes);
    extra.number("dropped_events", span.dropped_events);
    extra.number("dropped_links", span.dropped_links);
    extra.all(&source.above.extra);
    extra.all(source.scope);
    if is_odd {
        extra.bytes("span", span.raw);
    }
    let is_there = !extra.0.is_empty();
    if is_there {
        extra.0.insert(0, b'{');
        extra.0.push(b'}');
    }
    table.maybe(Column::Extra, is_there.then_some(&extra.0));
}

/// Ids, name, kind and status; whether columns cannot say all of it.
fn ids(table: &mut Table, span: &SpanView<'_>) -> bool {
    let mut hex = [0; 32];
    table.text(Column::TraceId, put_hex(&mut hex, &span.trace_id.0));
    table.text(Column::SpanId, put_hex(&mut hex, &span.span_id.0));
    let parent = span.parent_span_id.as_ref().map(|parent| put_hex(&mut hex, &parent.0));
    table.maybe(Column::ParentSpanId, parent);
    table.text(Column::Name, span.name.as_bytes());
    worded(table, Column::Kind, span.kind, &KINDS);
    worded(table, Column::Status, span.status_code, &STATUSES);
    table.maybe(Column::StatusMessage, some(span.status_message));
    table.maybe(Column::TraceState, some(span.trace_state));
    table.maybe_int(Column::Flags, (span.flags != 0).then_some(i64::from(span.flags)));
    span.trace_id == Default::default()
        || span.span_id == Default::default()
        || (!span.parent_bytes.is_empty() && span.parent_span_id.is_none())
}

/// A number's word; the number itself where it has none.
fn worded(table: &mut Table, column: Column, number: i32, words: &[&str]) {
    match usize::try_from(number).ok().and_then(|at| words.get(at)) {
        Some(word) => table.text(column, word.as_bytes()),
        None => table.text(column, number.to_string().as_bytes()),
    }
}

fn some(text: &str) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text.as_bytes())
}

/// Writes bytes as lower-case hex; at most 16 of them.
fn put_hex<'h>(hex: &'h mut [u8; 32], bytes: &[u8]) -> &'h [u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (pairs, _) = hex.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
    &hex[..2 * bytes.len().min(16)]
}

/// A time as the column has it, and whether it had to be cut.
fn nanos(at: UnixNanos) -> (i64, bool) {
    i64::try_from(at.0).map_or((i64::MAX, true), |nanos| (nanos, false))
}

fn times(table: &mut Table, span: &SpanView<'_>) -> bool {
    let ((start, start_is_odd), (end, end_is_odd)) = (nanos(span.start), nanos(span.end));
    table.at(Column::StartTime).int(start);
    table.at(Column::EndTime).int(end);
    table.at(Column::DurationMs).double(span.end.0.saturating_sub(span.start.0) as f64 / 1e6);
    start_is_odd | end_is_odd
}

/// What the span says for itself.
fn said(table: &mut Table, single: &Single<'_>, known: &mut Known, prices: &Prices) {
    table.maybe(Column::SpanKind, single.kind.as_deref().map(str::as_bytes));
    table.maybe(Column::Model, single.model.as_deref().map(str::as_bytes));
    table.maybe(Column::Provider, single.provider.as_deref().map(str::as_bytes));
    let sums = single.usage.is_known().then(|| single.usage.sums());
    table.maybe_int(Column::PromptTokens, sums.map(|sums| sums.0));
    table.maybe_int(Column::CompletionTokens, sums.map(|sums| sums.1));
    table.maybe_int(Column::TotalTokens, sums.map(|sums| sums.2));
    let price =
        if sums.is_some() { single.model.as_deref().and_then(|model| known.price(model, prices)) } else { None };
    let cost = price.and_then(|price| price.trillionths(&single.usage)).and_then(|parts| i64::try_from(parts).ok());
    // DECIMAL(18, 12) has room for less than a million.
    table.maybe_int(Column::Cost, cost.filter(|&parts| parts < 1_000_000_000_000_000_000));
    table.maybe(Column::PromptId, single.prompt.as_deref().map(str::as_bytes));
    table.maybe(Column::SessionId, single.session.as_deref().map(str::as_bytes));
    table.maybe(Column::UserId, single.user.as_deref().map(str::as_bytes));
    let leaf = table.at(Column::TtftMs);
    leaf.level(0, u8::from(single.first_token_nanos.is_some()));
    if let Some(nanos) = single.first_token_nanos {
        leaf.double(nanos as f64 / 1e6);
    }
    table.maybe(Column::Input, single.input.as_deref().map(str::as_bytes));
    table.maybe(Column::Output, single.output.as_deref().map(str::as_bytes));
}

/// Resource, scope, and how the span came.
fn around(table: &mut Table, source: &Source<'_, '_>) {
    let (above, scope, batch) = (source.above, &source.found.scope, source.batch);
    table.maybe(Column::Service, above.says.service().map(str::as_bytes));
    table.text(Column::Project, above.project.as_bytes());
    table.maybe(Column::Scope, some(scope.name));
    table.maybe(Column::ScopeVersion, some(scope.version));
    for (nth, (key, value)) in above.pairs.iter().enumerate() {
        for (column, text) in [(Column::ResourceKey, key.as_bytes()), (Column::ResourceValue, value)] {
            let leaf = table.at(column);
            leaf.level(u8::from(nth > 0), 1);
            leaf.text(text);
        }
    }
    if above.pairs.is_empty() {
        none(table, &[Column::ResourceKey, Column::ResourceValue]);
    }
    table.at(Column::ReceivedAt).int(nanos(batch.received_at).0);
    table.at(Column::LogOffset).int(source.offset as i64);
    table.maybe_int(Column::IngestKey, (batch.key != 0).then_some(i64::from(batch.key)));
}

/// Nothing, in columns of a list or map of the row.
fn none(table: &mut Table, columns: &[Column]) {
    for &column in columns {
        table.at(column).level(0, 0);
    }
}

/// The keys that a map has so far, by its number; the column's dictionary knows them while it is not full.
struct Keys<'a> {
    map: u32,
    /// How many there are.
    len: usize,
    /// The keys themselves, where the dictionary is full: it is so from one row to another, never within one.
    met: Option<HashSet<&'a [u8]>>,
}

impl<'a> Keys<'a> {
    fn of(map: u32) -> Self {
        Self { map, len: 0, met: None }
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a key is new.
    fn add(&mut self, key: &'a [u8]) -> bool {
        self.met.get_or_insert_default().insert(key)
    }
}

/// An attribute, if a map can have it: an error says that the span's bytes are needed.
fn attribute<'a>(
    table: &mut Table,
    pair: &Pair<'a>,
    keys: &mut Keys<'a>,
    [key, value]: [Column; 2],
    rep: u8,
    def: u8,
) -> Result<(), Odd> {
    let plain = pair.plain();
    let mut written = Vec::new();
    if plain.is_none() {
        let decoded = KeyValue::decode(pair.bytes()).map_err(|_| Odd)?;
        if decoded.key_strindex != 0 {
            return Err(Odd);
        }
        json::put_value(&mut written, decoded.value.as_ref().ok_or(Odd)?)?;
    }
    let leaf = table.at(key);
    let is_new = match leaf.key(rep, def, pair.key(), keys.map) {
        Some(is_new) => is_new,
        None => {
            let is_new = keys.add(pair.key());
            if is_new {
                leaf.level(rep, def);
                leaf.text(pair.key());
            }
            is_new
        }
    };
    if !is_new {
        return Err(Odd);
    }
    keys.len += 1;
    let (leaf, scratch) = table.with_scratch(value);
    leaf.level(rep, def);
    leaf.text_with(scratch, |out| match plain {
        Some(PlainValue::Str(text)) => json::put_text(out, text),
        Some(PlainValue::Bool(bool)) => json::put_bool(out, bool),
        Some(PlainValue::Int(int)) => json::put_int(out, int),
        Some(PlainValue::Double(double)) => json::put_double(out, double),
        None => out.extend_from_slice(&written),
    });
    Ok(())
}

fn events(table: &mut Table, span: &SpanView<'_>) -> bool {
    if !span.has_events {
        table.no_events();
        return false;
    }
    table.catch_up();
    let mut is_odd = false;
    let mut rep = 0;
    for event in span.events() {
        is_odd |= self::event(table, &event, rep);
        rep = 1;
    }
    if rep == 0 {
        table.no_events();
    }
    is_odd
}

fn event(table: &mut Table, event: &EventView<'_>, rep: u8) -> bool {
    let (time, mut is_odd) = nanos(event.time);
    let leaf = table.at(Column::EventTime);
    leaf.level(rep, 1);
    leaf.int(time);
    let leaf = table.at(Column::EventName);
    leaf.level(rep, 1);
    leaf.text(event.name.as_bytes());
    is_odd |= map(table, event.attributes().pairs(), [Column::EventKey, Column::EventValue], rep);
    let leaf = table.at(Column::EventDropped);
    leaf.level(rep, 1);
    leaf.int(i64::from(event.dropped_attributes));
    is_odd
}

fn links(table: &mut Table, span: &SpanView<'_>) -> bool {
    if !span.has_links {
        table.no_links();
        return false;
    }
    table.catch_up();
    let mut is_odd = false;
    let mut rep = 0;
    for link in span.links() {
        is_odd |= self::link(table, &link, rep);
        rep = 1;
    }
    if rep == 0 {
        table.no_links();
    }
    is_odd
}

fn link(table: &mut Table, link: &LinkView<'_>, rep: u8) -> bool {
    for (column, id) in [(Column::LinkTrace, link.trace_id), (Column::LinkSpan, link.span_id)] {
        let (leaf, scratch) = table.with_scratch(column);
        leaf.level(rep, 1);
        leaf.text_with(scratch, |out| {
            let mut hex = [0; 32];
            id.chunks(16).for_each(|bytes| out.extend_from_slice(put_hex(&mut hex, bytes)));
        });
    }
    let leaf = table.at(Column::LinkState);
    leaf.level(rep, 1);
    leaf.text(link.trace_state.as_bytes());
    let is_odd = map(table, link.attributes().pairs(), [Column::LinkKey, Column::LinkValue], rep);
    for (column, number) in [(Column::LinkFlags, link.flags), (Column::LinkDropped, link.dropped_attributes)] {
        let leaf = table.at(column);
        leaf.level(rep, 1);
        leaf.int(i64::from(number));
    }
    is_odd
}

/// The attributes of an element of a list, the first of which has repetition `rep`.
fn map<'a>(table: &mut Table, pairs: impl Iterator<Item = Pair<'a>>, columns: [Column; 2], rep: u8) -> bool {
    let mut keys = Keys::of(table.next_map());
    let mut is_odd = false;
    for pair in pairs {
        let rep = if keys.is_empty() { rep } else { 2 };
        is_odd |= attribute(table, &pair, &mut keys, columns, rep, 2).is_err();
    }
    if keys.is_empty() {
        columns.iter().for_each(|&column| table.at(column).level(rep, 1));
    }
    is_odd
}
