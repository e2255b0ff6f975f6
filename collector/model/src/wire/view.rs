//! Reading a request in place: views that borrow from its bytes.
//!
//! Promise: on a request that passed [`check`](super::check), what prost would decode. On any other bytes no panic and
//! an end: a view stops where the bytes stop making sense, and text that is not UTF-8 reads as empty.
//! Cost: [`spans`] passes over each span's fields once, without looking into attributes; an attribute's value is looked
//! at when [`AttributeView::value`] is called. Attributes of a resource or scope are read anew by each call, so read
//! them once for each [`ResourceView::index`] and not once for each span.

use std::ops::Range;

use super::Malformed;
use super::keys;
use super::pieces::{Elements, Fields, Pieces, Value, text};
use super::read::Reader;
use super::value::Attributes;
use super::write;
use crate::{SpanId, TraceId, UnixNanos};

/// All spans of a request, in order.
pub fn spans(request: &[u8]) -> Spans<'_> {
    Spans { request: Fields(Reader::new(request)), resource: None, scope: None, resources: 0, scopes: 0 }
}

/// What emitted the spans, in order, each with the spans that lie under it, uncounted. Steps over whole scopes.
pub fn resources(request: &[u8]) -> impl Iterator<Item = (ResourceView<'_>, Under<'_>)> {
    let mut fields = Fields(Reader::new(request));
    let mut index = 0;
    std::iter::from_fn(move || {
        let (_, resource_spans) = fields.next_message(1)?;
        index += 1;
        Some((ResourceView::new(resource_spans, index - 1), Under(Fields(resource_spans))))
    })
}

/// The spans under one resource.
#[derive(Clone, Copy, Debug)]
pub struct Under<'a>(Fields<'a>);

impl Under<'_> {
    /// How many there are. Steps over each of them without reading it, which takes as long as memory does.
    #[must_use]
    pub fn count(mut self) -> u64 {
        let mut spans = 0;
        while let Some((_, scope_spans)) = self.0.next_message(2) {
            let mut of_scope = Fields(scope_spans);
            while of_scope.next_message(2).is_some() {
                spans += 1;
            }
        }
        spans
    }
}

/// A span and what it lies in.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// What emitted it.
    pub resource: ResourceView<'a>,
    /// The instrumentation that made it.
    pub scope: ScopeView<'a>,
    /// The span itself.
    pub span: SpanView<'a>,
}

/// The iterator that [`spans`] gives.
#[derive(Clone, Debug)]
pub struct Spans<'a> {
    request: Fields<'a>,
    resource: Option<(Fields<'a>, ResourceView<'a>)>,
    scope: Option<(Fields<'a>, ScopeView<'a>)>,
    resources: u32,
    scopes: u32,
}

impl<'a> Iterator for Spans<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        loop {
            if let (Some((_, resource)), Some((fields, scope))) = (&self.resource, &mut self.scope)
                && let Some((from, span)) = fields.next_message(2)
            {
                return Some(Found { resource: *resource, scope: *scope, span: SpanView::new(span, from) });
            }
            if let Some((fields, _)) = &mut self.resource
                && let Some((_, scope_spans)) = fields.next_message(2)
            {
                self.scope = Some((Fields(scope_spans), ScopeView::new(scope_spans, self.scopes)));
                self.scopes += 1;
                continue;
            }
            let (_, resource_spans) = self.request.next_message(1)?;
            self.resource = Some((Fields(resource_spans), ResourceView::new(resource_spans, self.resources)));
            self.resources += 1;
        }
    }
}

/// What emitted the spans: a service, a host.
#[derive(Clone, Copy, Debug)]
pub struct ResourceView<'a> {
    /// The how-manieth `ResourceSpans` of the request this is, from 0.
    pub index: u32,
    /// Which version of the conventions its attributes follow; mostly empty.
    pub schema_url: &'a str,
    resource: Option<Pieces<'a>>,
}

impl<'a> ResourceView<'a> {
    fn new(resource_spans: Reader<'a>, index: u32) -> Self {
        let mut schema_url = "";
        for field in Fields(resource_spans) {
            if let (3, Value::Bytes(url)) = field {
                schema_url = text(url);
            }
        }
        Self { index, schema_url, resource: Pieces::of(resource_spans, 1) }
    }

    /// Its attributes, in order, repeated keys included.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.resource.unwrap_or_default().elements(1))
    }

    /// The encoded `Resource`, its pieces laid end to end; none if there is none.
    #[must_use]
    pub fn message(&self) -> Option<Vec<u8>> {
        self.resource.map(Pieces::joined)
    }
}

/// The instrumentation that made the spans.
#[derive(Clone, Copy, Debug)]
pub struct ScopeView<'a> {
    /// The how-manieth `ScopeSpans` of the request this is, from 0.
    pub index: u32,
    /// The library's name, as `openinference.instrumentation.openai`.
    pub name: &'a str,
    /// The library's version.
    pub version: &'a str,
    /// Which version of the conventions its spans follow; mostly empty.
    pub schema_url: &'a str,
    scope: Option<Pieces<'a>>,
}

impl<'a> ScopeView<'a> {
    fn new(scope_spans: Reader<'a>, index: u32) -> Self {
        let scope = Pieces::of(scope_spans, 1);
        let mut view = Self { index, name: "", version: "", schema_url: "", scope };
        for field in scope.unwrap_or_default().fields() {
            match field {
                (1, Value::Bytes(name)) => view.name = text(name),
                (2, Value::Bytes(version)) => view.version = text(version),
                _ => {}
            }
        }
        for field in Fields(scope_spans) {
            if let (3, Value::Bytes(url)) = field {
                view.schema_url = text(url);
            }
        }
        view
    }

    /// Its attributes, in order, repeated keys included.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.scope.unwrap_or_default().elements(3))
    }

    /// The encoded `InstrumentationScope`, its pieces laid end to end; none if there is none.
    #[must_use]
    pub fn message(&self) -> Option<Vec<u8>> {
        self.scope.map(Pieces::joined)
    }
}

/// One span.
#[derive(Clone, Copy, Debug)]
pub struct SpanView<'a> {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// The span that called it; none for a root.
    pub parent_span_id: Option<SpanId>,
    /// What stands where the parent's id does: empty or eight bytes, but for what no door lets in.
    pub parent_bytes: &'a [u8],
    /// W3C trace state, verbatim.
    pub trace_state: &'a str,
    /// What it did.
    pub name: &'a str,
    /// OTLP's `SpanKind`, unknown numbers included.
    pub kind: i32,
    /// When it began.
    pub start: UnixNanos,
    /// When it ended; may lie before `start`.
    pub end: UnixNanos,
    /// Whether a status is there at all.
    pub has_status: bool,
    /// OTLP's status code: 0 unset, 1 ok, 2 error, unknown numbers included.
    pub status_code: i32,
    /// The status' text; mostly empty.
    pub status_message: &'a str,
    /// W3C trace flags and OTLP's own above them.
    pub flags: u32,
    /// How many attributes the SDK left out.
    pub dropped_attributes: u32,
    /// How many events the SDK left out.
    pub dropped_events: u32,
    /// How many links the SDK left out.
    pub dropped_links: u32,
    /// Whether something happened in it: [`SpanView::events`] passes over the whole span.
    pub has_events: bool,
    /// Whether it names other spans: [`SpanView::links`] does so too.
    pub has_links: bool,
    /// The encoded `Span`.
    pub raw: &'a [u8],
    /// Where its field begins in the request: the key and the length before `raw`.
    from: usize,
    /// Where `raw` begins in the request.
    at: usize,
}

impl<'a> SpanView<'a> {
    fn new(span: Reader<'a>, from: usize) -> Self {
        let mut view = Self {
            trace_id: TraceId::default(),
            span_id: SpanId::default(),
            parent_span_id: None,
            parent_bytes: &[],
            trace_state: "",
            name: "",
            kind: 0,
            start: UnixNanos(0),
            end: UnixNanos(0),
            has_status: false,
            status_code: 0,
            status_message: "",
            flags: 0,
            dropped_attributes: 0,
            dropped_events: 0,
            dropped_links: 0,
            has_events: false,
            has_links: false,
            raw: &span.bytes[span.at..],
            from,
            at: span.at,
        };
        // What stands before malformed bytes is shown.
        let _ = view.read(span);
        view
    }

    fn read(&mut self, mut reader: Reader<'a>) -> Result<(), Malformed> {
        use keys::span as k;
        while !reader.is_done() {
            match reader.key()? {
                k::ATTRIBUTES => drop(reader.payload()?),
                k::EVENTS => {
                    self.has_events = true;
                    reader.payload()?;
                }
                k::LINKS => {
                    self.has_links = true;
                    reader.payload()?;
                }
                k::TRACE_ID => self.trace_id = TraceId::from_wire(reader.payload()?).unwrap_or_default(),
                k::SPAN_ID => self.span_id = SpanId::from_wire(reader.payload()?).unwrap_or_default(),
                k::TRACE_STATE => self.trace_state = text(reader.payload()?),
                k::PARENT_SPAN_ID => {
                    self.parent_bytes = reader.payload()?;
                    self.parent_span_id = SpanId::from_wire(self.parent_bytes);
                }
                k::NAME => self.name = text(reader.payload()?),
                k::KIND => self.kind = reader.varint()? as i32,
                k::START => self.start = UnixNanos(reader.fixed64()?),
                k::END => self.end = UnixNanos(reader.fixed64()?),
                k::DROPPED_ATTRIBUTES => self.dropped_attributes = reader.varint()? as u32,
                k::DROPPED_EVENTS => self.dropped_events = reader.varint()? as u32,
                k::DROPPED_LINKS => self.dropped_links = reader.varint()? as u32,
                k::STATUS => self.read_status(reader.payload()?),
                k::FLAGS => self.flags = reader.fixed32()?,
                key => reader.skip(key)?,
            }
        }
        Ok(())
    }

    fn read_status(&mut self, status: &'a [u8]) {
        self.has_status = true;
        for field in Fields(Reader::new(status)) {
            match field {
                (2, Value::Bytes(message)) => self.status_message = text(message),
                (3, Value::Varint(code)) => self.status_code = code as i32,
                _ => {}
            }
        }
    }

    /// Where it lies in the request, the key and the length before `raw` included: the place of a
    /// [`Change`](super::Change).
    #[must_use]
    pub fn place(&self) -> Range<usize> {
        self.from..self.at + self.raw.len()
    }

    /// Its attributes, in order, repeated keys included.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(Pieces::whole(self.raw).elements(9))
    }

    /// What happened in it, in order.
    pub fn events(&self) -> Events<'a> {
        Events(Pieces::whole(self.raw).elements(11))
    }

    /// The spans that it names besides its parent, in order.
    pub fn links(&self) -> Links<'a> {
        Links(Pieces::whole(self.raw).elements(13))
    }
}

/// The iterator that [`SpanView::events`] gives.
#[derive(Clone, Debug)]
pub struct Events<'a>(Elements<'a>);

impl<'a> Iterator for Events<'a> {
    type Item = EventView<'a>;

    fn next(&mut self) -> Option<EventView<'a>> {
        self.0.next().map(EventView::new)
    }
}

/// Something that happened in a span.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a> {
    /// When.
    pub time: UnixNanos,
    /// What.
    pub name: &'a str,
    /// How many attributes the SDK left out.
    pub dropped_attributes: u32,
    raw: &'a [u8],
}

impl<'a> EventView<'a> {
    fn new(raw: &'a [u8]) -> Self {
        let mut view = Self { time: UnixNanos(0), name: "", dropped_attributes: 0, raw };
        for field in Fields(Reader::new(raw)) {
            match field {
                (1, Value::Fixed64(time)) => view.time = UnixNanos(time),
                (2, Value::Bytes(name)) => view.name = text(name),
                (4, Value::Varint(count)) => view.dropped_attributes = count as u32,
                _ => {}
            }
        }
        view
    }

    /// Its attributes, in order, repeated keys included.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(Pieces::whole(self.raw).elements(3))
    }
}

/// The iterator that [`SpanView::links`] gives.
#[derive(Clone, Debug)]
pub struct Links<'a>(Elements<'a>);

impl<'a> Iterator for Links<'a> {
    type Item = LinkView<'a>;

    fn next(&mut self) -> Option<LinkView<'a>> {
        self.0.next().map(LinkView::new)
    }
}

/// Another span that a span names.
#[derive(Clone, Copy, Debug)]
pub struct LinkView<'a> {
    /// Its trace's id, of whatever length it came in: nobody checks a link's ids.
    pub trace_id: &'a [u8],
    /// Its id, likewise.
    pub span_id: &'a [u8],
    /// W3C trace state, verbatim.
    pub trace_state: &'a str,
    /// W3C trace flags and OTLP's own above them.
    pub flags: u32,
    /// How many attributes the SDK left out.
    pub dropped_attributes: u32,
    raw: &'a [u8],
}

impl<'a> LinkView<'a> {
    fn new(raw: &'a [u8]) -> Self {
        let mut view = Self { trace_id: &[], span_id: &[], trace_state: "", flags: 0, dropped_attributes: 0, raw };
        for field in Fields(Reader::new(raw)) {
            match field {
                (1, Value::Bytes(id)) => view.trace_id = id,
                (2, Value::Bytes(id)) => view.span_id = id,
                (3, Value::Bytes(state)) => view.trace_state = text(state),
                (5, Value::Varint(count)) => view.dropped_attributes = count as u32,
                (6, Value::Fixed32(flags)) => view.flags = flags,
                _ => {}
            }
        }
        view
    }

    /// Its attributes, in order, repeated keys included.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(Pieces::whole(self.raw).elements(4))
    }
}

/// A request with one span alone, and the resource and scope that it lies in.
#[must_use]
pub fn alone(found: &Found<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(found.span.raw.len() + 256);
    let resource_spans = write::open(&mut out, 1);
    if let Some(resource) = found.resource.message() {
        write::bytes(&mut out, 1, &resource);
    }
    let scope_spans = write::open(&mut out, 2);
    if let Some(scope) = found.scope.message() {
        write::bytes(&mut out, 1, &scope);
    }
    write::bytes(&mut out, 2, found.span.raw);
    if !found.scope.schema_url.is_empty() {
        write::bytes(&mut out, 3, found.scope.schema_url.as_bytes());
    }
    write::close(&mut out, scope_spans);
    if !found.resource.schema_url.is_empty() {
        write::bytes(&mut out, 3, found.resource.schema_url.as_bytes());
    }
    write::close(&mut out, resource_spans);
    out
}

/// Looks at a batch's bytes in their order, so that memory brings them all at once: a view steps over most of them, each time to a
/// place that the processor does not foresee.
pub fn fetch(body: &[u8]) {
    const LINE: usize = 64;
    /// What a processor's own cache holds; of a longer batch the beginning is looked at, and the rest as it comes.
    const BYTES_MAX: usize = 512 * 1024;
    let first = &body[..body.len().min(BYTES_MAX)];
    std::hint::black_box(first.iter().step_by(LINE).fold(0, |all, byte| all ^ byte));
}
