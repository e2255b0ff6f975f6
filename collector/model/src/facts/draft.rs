//! A span being read: attributes and events fall into slots, from which `finish` makes its facts.

use std::borrow::Cow;

use super::Reading;
use super::keys::{Key, Kind, Side, property_meaning};
use super::lookup::{Lookup, What};
use super::loose::{each_element, looks_structured, scalar};
use super::marks::Marks;
use super::print::Print;
use super::stored::{Emitter, Text};
use super::values::{Best, Later, bool_of, nanos_of, text_of, tokens_of};
use super::words::Words as Sides;
use crate::UnixNanos;
use crate::trace::words::{By, Words};
use crate::wire::{EventView, Found, RawAttribute, ResourceView, SpanView, ValueView};

/// The most properties, and tags, that are taken of one span.
const PROPERTIES_MAX: usize = 32;

/// The clock of no honest span shows less: the first nanosecond of 2000.
const EARLIEST: UnixNanos = UnixNanos(946_684_800 * 1_000_000_000);
/// Nor more: the first nanosecond of 2100.
const LATEST: UnixNanos = UnixNanos(4_102_444_800 * 1_000_000_000);

/// What a span says of its trace, besides words.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extract {
    /// What had to be mended in its facts.
    pub(crate) marks: Marks,
    /// It is a root or call: its facts' bytes are in [`Reader::facts`].
    pub(crate) has_facts: bool,
    pub(crate) is_call: bool,
    /// It, or its resource, names a prompt. Of a call this is not looked at: that it is one says more.
    pub(crate) names_prompt: bool,
}

/// Reads spans; what it holds is used again from one to the next.
#[derive(Debug)]
pub(crate) struct Reader<'a, 'r> {
    pub(super) reading: &'r Reading,
    pub(super) lookup: Lookup<'a>,
    facts: Vec<u8>,
    /// The names of the scope and of the span that were met last, and their emitter.
    emitter: (&'a str, &'a str, Emitter),
}

/// What a resource says of all its spans.
#[derive(Debug, Default)]
pub(crate) struct ResourceFacts<'a> {
    pub(super) service: Option<Cow<'a, str>>,
    pub(super) environment: Best<Cow<'a, str>>,
    pub(super) prompt: Best<Cow<'a, str>>,
}

impl<'a> ResourceFacts<'a> {
    pub(crate) fn of(resource: &ResourceView<'a>, reading: &Reading) -> Self {
        let mut facts = Self::default();
        for attribute in resource.attributes() {
            if let Some(rank) = reading.rank_of_prompt_key(attribute.key) {
                facts.prompt.offer(rank, text_of(attribute.value()));
            }
            match attribute.key {
                "service.name" => facts.service = text_of(attribute.value()),
                "deployment.environment.name" => facts.environment.offer(0, text_of(attribute.value())),
                "deployment.environment" => facts.environment.offer(1, text_of(attribute.value())),
                _ => {}
            }
        }
        facts
    }
}

/// Whether a span's times can be believed.
pub(crate) fn is_clock_sane(start: UnixNanos, end: UnixNanos) -> bool {
    (EARLIEST..LATEST).contains(&start) && start <= end && end < LATEST
}

impl<'a, 'r> Reader<'a, 'r> {
    pub(crate) fn new(reading: &'r Reading) -> Self {
        Self { reading, lookup: Lookup::new(reading), facts: Vec::new(), emitter: ("", "", Emitter::of("", "")) }
    }

    /// The facts' bytes of the span that was read last.
    pub(crate) fn facts(&self) -> &[u8] {
        &self.facts
    }

    /// Reads a span; what it says of its trace as a whole goes to `words`.
    pub(crate) fn extract(
        &mut self,
        found: &Found<'a>,
        is_root: bool,
        resource: &ResourceFacts<'a>,
        words: &mut Words<'a>,
    ) -> Extract {
        let span = &found.span;
        let mut tells = |attribute: RawAttribute<'a>| {
            self.lookup.what(attribute.key, self.reading).is_some_and(|what| what.tells())
        };
        // Most spans of most applications end here: no draft is made for them.
        if !is_root && resource.prompt.get().is_none() && !span.attributes().raw().any(&mut tells) {
            return Extract::default();
        }
        let by = By { class: u8::from(!is_root), at: span.start.0, span: span.span_id };
        let (of_input, of_output) = self.sides(span, is_root, words);
        let mut draft = Draft::default();
        (draft.reads_input, draft.reads_output) = (of_input, of_output);
        for attribute in span.attributes().raw() {
            if let Some(what) = self.lookup.what(attribute.key, self.reading) {
                draft.take(what, &attribute);
            }
        }
        let is_call = draft.is_call();
        let mut extract = Extract { is_call, has_facts: is_root || is_call, ..Extract::default() };
        if extract.has_facts {
            for event in span.events() {
                draft.take_event(&event, span.start);
            }
            let print = draft.print(resource, is_root);
            extract.names_prompt = draft.offer_names(by, !is_call, resource, self, words);
            draft.offer_place(by, resource, words);
            let emitter = self.emitter(found.scope.name, span.name);
            let mut facts = draft.facts(span, emitter, is_root, is_call, self.reading, words, &mut extract.marks);
            self.facts.clear();
            facts.print = print;
            facts.encode(&mut self.facts);
        } else if draft.names_something() || resource.prompt.get().is_some() {
            extract.names_prompt = draft.offer_names(by, true, resource, self, words);
        }
        extract
    }

    fn emitter(&mut self, scope: &'a str, name: &'a str) -> Emitter {
        if (self.emitter.0, self.emitter.1) != (scope, name) {
            self.emitter = (scope, name, Emitter::of(scope, name));
        }
        self.emitter.2
    }

    /// Whether what went into this span, and what came out of it, may be what went into or out of the trace. A root's is read in any
    /// case, for its print.
    fn sides(&self, span: &SpanView<'a>, is_root: bool, words: &Words<'a>) -> (bool, bool) {
        let best = |at| By::words(is_root, false, at, span.span_id);
        let wants = |text, at| is_root || words.wants(text, best(at));
        (wants(Text::Input, span.start.0), wants(Text::Output, u64::MAX - span.end.0))
    }
}

/// The slots.
#[derive(Default)]
pub(super) struct Draft<'a> {
    /// What went in, and what came out, is taken; else only tool calls and why an answer ended are.
    reads_input: bool,
    reads_output: bool,
    pub(super) texts: [Best<Cow<'a, str>>; Text::User as usize + 1],
    pub(super) counts: [Best<i64>; 8],
    pub(super) marks: Marks,
    pub(super) open_inference_kind: Option<&'a str>,
    pub(super) operation: Option<&'a str>,
    pub(super) request_type: Option<&'a str>,
    pub(super) vercel_operation: Option<&'a str>,
    pub(super) traceloop_kind: Option<&'a str>,
    pub(super) is_not_a_call: bool,
    pub(super) parameters: Option<Cow<'a, str>>,
    pub(super) streaming: Best<bool>,
    pub(super) first_token_nanos: Best<u64>,
    pub(super) error_type: Option<Cow<'a, str>>,
    pub(super) exception_type: Option<Cow<'a, str>>,
    pub(super) exception_message: Option<Cow<'a, str>>,
    pub(super) http_status: Option<Cow<'a, str>>,
    pub(super) metadata: Option<Later<'a>>,
    pub(super) properties: Vec<(&'a str, Cow<'a, str>)>,
    pub(super) tags: Vec<Cow<'a, str>>,
    pub(super) tool_calls: Option<Cow<'a, str>>,
    pub(super) input: Sides<'a>,
    pub(super) output: Sides<'a>,
}

impl<'a> Draft<'a> {
    /// Nothing yet, and wanting what went in and what came out.
    pub(super) fn reading_all() -> Self {
        Self { reads_input: true, reads_output: true, ..Self::default() }
    }

    pub(super) fn take(&mut self, what: What<'a>, attribute: &RawAttribute<'a>) {
        let meaning = match what {
            What::Prompt(rank) => {
                return self.texts[Text::PromptRef as usize].offer(rank, text_of(attribute.value()));
            }
            What::Key(meaning) => meaning,
        };
        match meaning {
            Key::Text(text, rank) => self.texts[text as usize].offer(rank, text_of(attribute.value())),
            Key::Tokens(count, rank) => {
                let tokens = tokens_of(attribute.value(), &mut self.marks);
                self.counts[count as usize].offer(rank, tokens);
            }
            Key::Kind(kind) => self.take_kind(kind, attribute.value()),
            Key::NotACall => self.is_not_a_call = true,
            Key::Parameters => self.parameters = text_of(attribute.value()),
            Key::Streaming(rank) => self.streaming.offer(rank, bool_of(attribute.value())),
            Key::FirstToken(unit_nanos) => {
                self.first_token_nanos.offer(1, nanos_of(attribute.value(), unit_nanos as f64));
            }
            Key::ErrorType => self.error_type = text_of(attribute.value()),
            Key::HttpStatus => self.http_status = text_of(attribute.value()),
            Key::FinishReasons(rank) => {
                self.texts[Text::FinishReason as usize].offer(rank, first_of(attribute.value()));
            }
            Key::Tags => self.take_tags(attribute.value()),
            Key::Metadata => self.metadata = Later::of(attribute),
            Key::Property(name) => self.take_property(name, attribute.value()),
            Key::ToolCalls => self.tool_calls = text_of(attribute.value()),
            _ => self.take_words(meaning, attribute),
        }
    }

    fn take_words(&mut self, meaning: Key<'a>, attribute: &RawAttribute<'a>) {
        match meaning {
            Key::Messages(Side::Output, rank) => self.output.messages.offer(rank, Later::of(attribute)),
            Key::Part(Side::Output, rest) if self.reads_output || !is_content(rest) => {
                if let Some(text) = Later::of(attribute) {
                    self.output.take_part(rest, text);
                }
            }
            // That there are messages at all is no matter where nothing is said.
            Key::Part(Side::Output, _) => {}
            Key::Messages(side, _) | Key::Part(side, _) | Key::Whole(side, _) | Key::Wrapped(side, _)
                if !self.reads(side) => {}
            Key::Messages(side, rank) => self.side(side).messages.offer(rank, Later::of(attribute)),
            Key::Part(side, rest) => {
                if let Some(text) = Later::of(attribute) {
                    self.side(side).take_part(rest, text);
                }
            }
            Key::Whole(side, rank) => self.side(side).whole.offer(rank, Later::of(attribute)),
            Key::Wrapped(side, rank) => self.side(side).json.offer(rank, Later::of(attribute)),
            Key::Mime(side) => {
                let mime = attribute.text_bytes().or_else(|| attribute.value().as_str().map(str::as_bytes));
                self.side(side).is_json = mime.is_some_and(|mime| mime.starts_with(b"application/json"));
            }
            _ => {}
        }
    }

    fn reads(&self, side: Side) -> bool {
        match side {
            Side::Input => self.reads_input,
            Side::Output => self.reads_output,
        }
    }

    fn side(&mut self, side: Side) -> &mut Sides<'a> {
        match side {
            Side::Input => &mut self.input,
            Side::Output => &mut self.output,
        }
    }

    fn take_kind(&mut self, kind: Kind, value: ValueView<'a>) {
        let word = value.as_str().filter(|word| !word.is_empty());
        match kind {
            Kind::OpenInference => self.open_inference_kind = word,
            Kind::Operation => self.operation = word,
            Kind::RequestType => self.request_type = word,
            // `operation.name` belongs to many; only Vercel's begin so.
            Kind::Vercel => {
                self.vercel_operation = word.filter(|word| word.starts_with("ai.")).or(self.vercel_operation)
            }
            Kind::Traceloop => {
                self.is_not_a_call |= word.is_some();
                self.traceloop_kind = word.or(self.traceloop_kind);
            }
        }
    }

    fn take_tags(&mut self, value: ValueView<'a>) {
        self.tags.clear();
        match value {
            ValueView::Array(array) => self.tags.extend(array.values().take(PROPERTIES_MAX).filter_map(text_of)),
            ValueView::Str(list) if looks_structured(list) => each_element(list, |tag| {
                if self.tags.len() < PROPERTIES_MAX {
                    self.tags.extend(scalar(tag));
                }
            }),
            other => self.tags.extend(text_of(other)),
        }
    }

    fn take_property(&mut self, name: &'a str, value: ValueView<'a>) {
        if name == "tags" {
            return self.take_tags(value);
        }
        let Some(value) = text_of(value) else { return };
        if let Some((text, rank)) = property_meaning(name) {
            self.texts[text as usize].offer(rank, Some(value));
        } else if self.properties.len() < PROPERTIES_MAX {
            self.properties.push((name, value));
        }
    }

    pub(super) fn take_event(&mut self, event: &EventView<'a>, start: UnixNanos) {
        let text = |wanted: &str| {
            event
                .attributes()
                .filter(|attribute| attribute.key == wanted)
                .last()
                .and_then(|found| text_of(found.value()))
        };
        match event.name {
            "exception" => {
                self.exception_type = text("exception.type").or(self.exception_type.take());
                self.exception_message = text("exception.message").or(self.exception_message.take());
            }
            "First Token Stream Event"
            | "gen_ai.content.completion.chunk"
            | "llm.content.completion.chunk"
            | "ai.stream.firstChunk" => {
                self.streaming.offer(3, Some(true));
                let since = event.time.0.checked_sub(start.0);
                let earliest = [since, self.first_token_nanos.get().copied()].into_iter().flatten().min();
                self.first_token_nanos.offer(0, earliest.filter(|_| since.is_some()));
            }
            "gen_ai.user.message" => self.input.event = text("content").or(self.input.event.take()),
            "gen_ai.content.prompt" => self.input.event = text("gen_ai.prompt").or(self.input.event.take()),
            "gen_ai.choice" => {
                self.output.event = text("message").or_else(|| text("content")).or(self.output.event.take());
                self.texts[Text::FinishReason as usize].offer(8, text("finish_reason"));
            }
            "gen_ai.content.completion" => self.output.event = text("gen_ai.completion").or(self.output.event.take()),
            _ => {}
        }
    }

    /// A print of what it names and, of a root, of what went in and came out: what its facts do not hold.
    fn print(&self, resource: &ResourceFacts<'_>, is_root: bool) -> u32 {
        let mut print = Print::default();
        for text in [Text::PromptRef, Text::PromptVersion, Text::Session, Text::User] {
            let value = self.texts[text as usize].get();
            print.add(text as usize, value.map_or(&[], |value| value.as_bytes()));
        }
        print.add(Text::Metadata as usize, self.metadata.as_ref().map_or(&[], Later::bytes));
        for (name, value) in &self.properties {
            print.add(Text::Metadata as usize, name.as_bytes());
            print.add(Text::Metadata as usize, value.as_bytes());
        }
        self.tags.iter().for_each(|tag| print.add(Text::Tags as usize, tag.as_bytes()));
        let of_resource = [resource.service.as_ref(), resource.environment.get(), resource.prompt.get()];
        of_resource.into_iter().flatten().for_each(|text| print.add(Text::Service as usize, text.as_bytes()));
        if is_root {
            self.input.print(Text::Input as usize, &mut print);
            self.output.print(Text::Output as usize, &mut print);
        }
        print.finish()
    }

    /// Whether the span is an LLM call. Its instrumentation's own word counts most, then what its attributes suggest.
    pub(super) fn is_call(&self) -> bool {
        if let Some(kind) = self.open_inference_kind.filter(|kind| !kind.eq_ignore_ascii_case("UNKNOWN")) {
            return kind.eq_ignore_ascii_case("LLM");
        }
        match self.operation.unwrap_or_default() {
            "chat" | "text_completion" | "generate_content" => return true,
            "embeddings" | "execute_tool" | "retrieval" | "invoke_agent" | "create_agent" | "invoke_workflow"
            | "rerank" => {
                return false;
            }
            _ => {}
        }
        match self.request_type.unwrap_or_default() {
            "chat" | "completion" => return true,
            "embedding" | "rerank" => return false,
            _ => {}
        }
        if let Some(operation) = self.vercel_operation {
            // The outer span too: it counts where the inner one did not come, and is a wrapper where it did.
            let outer = ["ai.generateText", "ai.streamText", "ai.generateObject", "ai.streamObject"];
            return outer.iter().any(|name| operation.starts_with(name));
        }
        !self.is_not_a_call && self.texts[Text::RequestModel as usize].get().is_some()
    }

    fn names_something(&self) -> bool {
        let names = [Text::PromptRef, Text::PromptVersion, Text::Session, Text::User];
        names.iter().any(|&text| self.texts[text as usize].get().is_some())
            || self.metadata.is_some()
            || !self.properties.is_empty()
            || !self.tags.is_empty()
    }
}

/// Whether a part of a message is what it says: neither its tool calls nor why it ended there.
fn is_content(rest: &str) -> bool {
    rest.ends_with("content") || rest.ends_with("role")
}

/// The first text of a list, or the text.
fn first_of(value: ValueView<'_>) -> Option<Cow<'_, str>> {
    match value {
        ValueView::Array(array) => array.values().find_map(text_of),
        ValueView::Str(list) if looks_structured(list) => {
            let mut first = None;
            each_element(list, |reason| first = first.take().or_else(|| scalar(reason)));
            first.or_else(|| text_of(value))
        }
        other => text_of(other),
    }
}
