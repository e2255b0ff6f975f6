//! A span being read: attributes and events fall into slots, from which `finish` makes its facts.

use std::borrow::Cow;

use super::Reading;
use super::keys::{Key, Kind, Side, meaning, property_meaning};
use super::loose::{each_element, looks_structured, scalar};
use super::marks::Marks;
use super::stored::{Emitter, Facts, Text};
use super::values::{Best, bool_of, nanos_of, text_of, tokens_of};
use super::words::Words;
use crate::UnixNanos;
use crate::wire::{EventView, Found, ResourceView, ValueView};

/// The most properties, and tags, that are taken of one span.
const PROPERTIES_MAX: usize = 32;

/// The clock of no honest span shows less: the first nanosecond of 2000.
const EARLIEST: UnixNanos = UnixNanos(946_684_800 * 1_000_000_000);
/// Nor more: the first nanosecond of 2100.
const LATEST: UnixNanos = UnixNanos(4_102_444_800 * 1_000_000_000);

/// What a span says of its trace.
#[derive(Debug)]
pub(crate) struct Extract {
    /// What had to be mended.
    pub(crate) marks: Marks,
    /// Facts of a root or call.
    pub(crate) facts: Option<Facts>,
    /// What any other span names: prompt, session, user, metadata, tags.
    pub(crate) names: Option<Box<[u8]>>,
    /// It, or its resource, names a prompt.
    pub(crate) names_prompt: bool,
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

/// Reads a span. `parent` is none for a root.
pub(crate) fn extract(found: &Found<'_>, is_root: bool, resource: &ResourceFacts<'_>, reading: &Reading) -> Extract {
    let span = &found.span;
    let nothing = Extract { marks: Marks::default(), facts: None, names: None, names_prompt: false };
    // Most spans of most applications end here: no draft is made for them.
    let tells = |key: &str| reading.rank_of_prompt_key(key).is_some() || meaning(key).is_some_and(|key| key.tells());
    if !is_root && resource.prompt.get().is_none() && !span.attributes().any(|attribute| tells(attribute.key)) {
        return nothing;
    }
    let mut draft = Draft::default();
    for attribute in span.attributes() {
        draft.take(attribute.key, || attribute.value(), reading);
    }
    let is_call = draft.is_call();
    let mut extract = Extract { names_prompt: resource.prompt.get().is_some(), ..nothing };
    if is_root || is_call {
        for event in span.events() {
            draft.take_event(&event, span.start);
        }
        let emitter = Emitter::of(found.scope.name, span.name);
        extract.facts = Some(draft.facts(span, emitter, is_call, resource, reading, &mut extract.marks));
        extract.names_prompt |= extract.facts.as_ref().is_some_and(|facts| facts.text(Text::PromptRef).is_some());
    } else if draft.names_something() || extract.names_prompt {
        let mut names = Facts::default();
        draft.put_names(&mut names, resource, reading, &mut extract.marks);
        extract.names_prompt |= names.text(Text::PromptRef).is_some();
        extract.names = Some(names.encode_names());
    }
    extract
}

/// The slots.
#[derive(Default)]
pub(super) struct Draft<'a> {
    pub(super) texts: [Best<Cow<'a, str>>; Text::ALL.len()],
    pub(super) counts: [Best<i64>; 8],
    pub(super) marks: Marks,
    pub(super) open_inference_kind: Option<&'a str>,
    pub(super) operation: Option<&'a str>,
    pub(super) request_type: Option<&'a str>,
    pub(super) vercel_operation: Option<&'a str>,
    pub(super) is_not_a_call: bool,
    pub(super) parameters: Option<Cow<'a, str>>,
    pub(super) streaming: Best<bool>,
    pub(super) first_token_nanos: Best<u64>,
    pub(super) error_type: Option<Cow<'a, str>>,
    pub(super) exception_type: Option<Cow<'a, str>>,
    pub(super) exception_message: Option<Cow<'a, str>>,
    pub(super) http_status: Option<Cow<'a, str>>,
    pub(super) metadata: Option<Cow<'a, str>>,
    pub(super) properties: Vec<(&'a str, Cow<'a, str>)>,
    pub(super) tags: Vec<Cow<'a, str>>,
    pub(super) tool_calls: Option<Cow<'a, str>>,
    pub(super) input: Words<'a>,
    pub(super) output: Words<'a>,
}

impl<'a> Draft<'a> {
    fn take(&mut self, key: &'a str, value: impl FnOnce() -> ValueView<'a>, reading: &Reading) {
        if let Some(rank) = reading.rank_of_prompt_key(key) {
            self.texts[Text::PromptRef as usize].offer(rank, text_of(value()));
            return;
        }
        let Some(meaning) = meaning(key) else { return };
        let value = value();
        match meaning {
            Key::Text(text, rank) => self.texts[text as usize].offer(rank, text_of(value)),
            Key::Tokens(count, rank) => {
                let tokens = tokens_of(value, &mut self.marks);
                self.counts[count as usize].offer(rank, tokens);
            }
            Key::Kind(kind) => self.take_kind(kind, value),
            Key::NotACall => self.is_not_a_call = true,
            Key::Parameters => self.parameters = text_of(value),
            Key::Streaming(rank) => self.streaming.offer(rank, bool_of(value)),
            Key::FirstToken(unit_nanos) => self.first_token_nanos.offer(1, nanos_of(value, unit_nanos as f64)),
            Key::ErrorType => self.error_type = text_of(value),
            Key::HttpStatus => self.http_status = text_of(value),
            Key::FinishReasons(rank) => self.texts[Text::FinishReason as usize].offer(rank, first_of(value)),
            Key::Tags => self.take_tags(value),
            Key::Metadata => self.metadata = text_of(value),
            Key::Property(name) => self.take_property(name, value),
            Key::Messages(side, rank) => self.side(side).messages.offer(rank, text_of(value)),
            Key::Part(side, rest) => {
                if let Some(text) = text_of(value) {
                    self.side(side).take_part(rest, text);
                }
            }
            Key::Whole(side, rank) => self.side(side).whole.offer(rank, text_of(value)),
            Key::Wrapped(side, rank) => self.side(side).json.offer(rank, text_of(value)),
            Key::Mime(side) => {
                self.side(side).is_json = value.as_str().is_some_and(|mime| mime.starts_with("application/json"));
            }
            Key::ToolCalls => self.tool_calls = text_of(value),
        }
    }

    fn side(&mut self, side: Side) -> &mut Words<'a> {
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
            Kind::Traceloop => self.is_not_a_call |= word.is_some(),
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

    fn take_event(&mut self, event: &EventView<'a>, start: UnixNanos) {
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

    /// Whether the span is an LLM call. Its instrumentation's own word counts most, then what its attributes suggest.
    fn is_call(&self) -> bool {
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
