//! A span being read: attributes and events fall into slots, and what is in the slots at the end are its facts.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::Reading;
use super::failure::{message_says_timeout, type_says_timeout};
use super::keys::{Count, Key, Kind, Side, meaning, metadata_meaning, property_meaning};
use super::loose::{each_element, each_field, looks_structured, scalar};
use super::marks::Marks;
use super::messages::{self, ToolCall};
use super::stored::{Emitter, Facts, Flag, Text};
use super::values::{Best, bool_of, fit, nanos_of, text_of, tokens_of};
use super::words::Words;
use crate::UnixNanos;
use crate::cost::Usage;
use crate::wire::{EventView, Found, ResourceView, SpanView, ValueView};

/// The longest `metadata` that is searched for sessions and prompts.
const METADATA_READ_BYTES_MAX: usize = 256 * 1024;
/// The most properties, and tags, that are taken of one span.
const PROPERTIES_MAX: usize = 32;
/// The longest tag or property.
const PROPERTY_BYTES_MAX: usize = 200;

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
    service: Option<Cow<'a, str>>,
    environment: Best<Cow<'a, str>>,
    prompt: Best<Cow<'a, str>>,
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
struct Draft<'a> {
    texts: [Best<Cow<'a, str>>; Text::ALL.len()],
    counts: [Best<i64>; 8],
    marks: Marks,
    open_inference_kind: Option<&'a str>,
    operation: Option<&'a str>,
    request_type: Option<&'a str>,
    vercel_operation: Option<&'a str>,
    is_not_a_call: bool,
    parameters: Option<Cow<'a, str>>,
    streaming: Best<bool>,
    first_token_nanos: Best<u64>,
    error_type: Option<Cow<'a, str>>,
    exception_type: Option<Cow<'a, str>>,
    exception_message: Option<Cow<'a, str>>,
    http_status: Option<Cow<'a, str>>,
    metadata: Option<Cow<'a, str>>,
    properties: Vec<(&'a str, Cow<'a, str>)>,
    tags: Vec<Cow<'a, str>>,
    tool_calls: Option<Cow<'a, str>>,
    input: Words<'a>,
    output: Words<'a>,
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

    /// Puts into `facts` what it names, and what its resource does.
    fn put_names(&mut self, facts: &mut Facts, resource: &ResourceFacts<'_>, reading: &Reading, marks: &mut Marks) {
        self.read_metadata(reading, marks);
        for text in [Text::PromptRef, Text::PromptVersion, Text::Session, Text::User] {
            let value = self.texts[text as usize].get().map(|value| value.trim()).filter(|value| !value.is_empty());
            put(facts, text, value, marks);
        }
        put(facts, Text::ResourcePrompt, resource.prompt.get().map(|prompt| prompt.trim()), marks);
        put(facts, Text::Metadata, self.metadata.as_deref(), marks);
        if !self.tags.is_empty() {
            put(facts, Text::Tags, Some(&self.tags_json(marks)), marks);
        }
    }

    /// Sessions, users and prompts that only `metadata` names; and properties, where they stand in for it.
    fn read_metadata(&mut self, reading: &Reading, marks: &mut Marks) {
        let Some(metadata) = self.metadata.take() else {
            self.metadata = self.properties_json(marks).map(Cow::Owned);
            return;
        };
        if metadata.len() > METADATA_READ_BYTES_MAX {
            marks.add(Marks::TRUNCATED);
        } else {
            each_field(&metadata, |field, value| {
                let Some(value) = scalar(value).filter(|value| !value.is_empty()) else { return };
                let value = || Some(Cow::Owned(value.clone().into_owned()));
                if let Some(rank) = reading.rank_of_prompt_key(&format!("metadata.{field}")) {
                    self.texts[Text::PromptRef as usize].offer(rank, value());
                } else if let Some((text, rank)) = metadata_meaning(field) {
                    self.texts[text as usize].offer(rank, value());
                }
            });
        }
        self.metadata = Some(metadata);
    }

    fn properties_json(&self, marks: &mut Marks) -> Option<String> {
        let mut fields = Map::new();
        for (name, value) in &self.properties {
            let short = |text: &str, marks: &mut Marks| fit(text, PROPERTY_BYTES_MAX, marks);
            let ((name, long_name), (value, long_value)) = (short(name, marks), short(value, marks));
            marks.add_if(long_name || long_value, Marks::TRUNCATED);
            fields.insert(name.into(), value.into_string().into());
        }
        (!fields.is_empty()).then(|| Value::from(fields).to_string())
    }

    /// As many tags as fit, whole: the list must stay JSON.
    fn tags_json(&self, marks: &mut Marks) -> String {
        let mut left = Text::Tags.bytes_max() - 2;
        let mut tags = Vec::new();
        for tag in &self.tags {
            let (tag, was_cut) = fit(tag, PROPERTY_BYTES_MAX, marks);
            let json = Value::from(tag.into_string());
            let len = json.to_string().len() + 1;
            marks.add_if(was_cut || len > left, Marks::TRUNCATED);
            if len <= left {
                left -= len;
                tags.push(json);
            }
        }
        Value::from(tags).to_string()
    }

    /// The facts of a root or call.
    fn facts(
        mut self,
        span: &SpanView<'_>,
        emitter: Emitter,
        is_call: bool,
        resource: &ResourceFacts<'_>,
        reading: &Reading,
        marks: &mut Marks,
    ) -> Facts {
        let mut facts = Facts::at(span.start, span.end);
        marks.add_if(!is_clock_sane(span.start, span.end), Marks::CLOCK);
        self.put_names(&mut facts, resource, reading, marks);
        put(&mut facts, Text::Service, resource.service.as_deref(), marks);
        put(&mut facts, Text::Environment, resource.environment.get().map(AsRef::as_ref), marks);
        self.put_failure(&mut facts, span, marks);
        let (input, output) = (std::mem::take(&mut self.input), std::mem::take(&mut self.output));
        let (said, mut calls, finish_reason) = output.output();
        if is_call {
            if let Some(list) = &self.tool_calls
                && calls.is_empty()
            {
                messages::tool_calls(list, &mut calls);
            }
            // An instrumentation that says how a whole answer ended, or that there was none, and nothing of a stream, saw none.
            let is_told = self.texts[Text::FinishReason as usize].get().is_some() || facts.has(Flag::Failed);
            self.streaming.offer(5, is_told.then_some(false));
            self.texts[Text::FinishReason as usize].offer(7, finish_reason.map(Cow::Owned));
            self.put_call(&mut facts, emitter, &calls, reading, marks);
        }
        if reading.texts {
            for (text, found, flag) in
                [(Text::Input, input.input(is_call), Flag::InputIsJson), (Text::Output, said, Flag::OutputIsJson)]
            {
                if let Some(found) = found {
                    // Cutting these is no mending: a row has only their beginning.
                    facts.set_text(text, Some(fit(&found.text, text.bytes_max(), marks).0));
                    facts.set(flag, found.is_json);
                }
            }
        }
        facts
    }

    fn put_failure(&self, facts: &mut Facts, span: &SpanView<'_>, marks: &mut Marks) {
        if span.status_code != 2 {
            return;
        }
        facts.set(Flag::Failed, true);
        let types = [&self.error_type, &self.exception_type, &self.http_status];
        let messages = [Some(span.status_message), self.exception_message.as_deref()];
        facts.set(
            Flag::TimedOut,
            types.into_iter().flatten().any(|text| type_says_timeout(text))
                || messages.into_iter().flatten().any(message_says_timeout),
        );
        let error = [
            Some(span.status_message),
            self.exception_message.as_deref(),
            self.exception_type.as_deref(),
            self.error_type.as_deref(),
        ];
        put(facts, Text::Error, error.into_iter().flatten().find(|text| !text.is_empty()), marks);
    }

    fn put_call(
        &mut self,
        facts: &mut Facts,
        emitter: Emitter,
        calls: &[ToolCall],
        reading: &Reading,
        marks: &mut Marks,
    ) {
        facts.set(Flag::Call, true);
        facts.emitter = emitter;
        let streams = self.read_parameters();
        self.streaming.offer(4, streams);
        if let Some(&streaming) = self.streaming.get() {
            facts.set(Flag::StreamingKnown, true);
            facts.set(Flag::Streaming, streaming);
        }
        facts.first_token_nanos = self.first_token_nanos.get().copied();
        facts.usage = self.usage();
        marks.add(self.marks);
        for text in [Text::Model, Text::RequestModel, Text::ResponseId, Text::FinishReason] {
            put(facts, text, self.texts[text as usize].get().map(AsRef::as_ref), marks);
        }
        let provider = self.texts[Text::Provider as usize].get().map(|provider| provider_name(provider));
        put(facts, Text::Provider, provider.as_deref(), marks);
        put(facts, Text::ToolCalls, tool_calls_json(calls, reading.texts, marks).as_deref(), marks);
    }

    /// The model asked for, where only the request's parameters say it; and whether they ask for a stream.
    fn read_parameters(&mut self) -> Option<bool> {
        let parameters = self.parameters.take()?;
        let (mut streams, mut is_object) = (false, false);
        each_field(&parameters, |field, value| {
            is_object = true;
            match field {
                "model" | "model_name" | "model_id" => {
                    let model = scalar(value).map(|model| Cow::Owned(model.into_owned()));
                    self.texts[Text::RequestModel as usize].offer(1, model);
                }
                "stream" => streams = value == "true",
                _ => {}
            }
        });
        // OpenAI's default is not to stream, so parameters that do not ask for it say no.
        is_object.then_some(streams)
    }

    fn usage(&self) -> Usage {
        let count = |count: Count| self.counts[count as usize].get().copied();
        Usage {
            prompt: count(Count::Prompt),
            completion: count(Count::Completion),
            total: count(Count::Total),
            cache_read: count(Count::CacheRead),
            cache_write: count(Count::CacheWrite),
            audio_input: count(Count::AudioInput),
            reasoning: count(Count::Reasoning),
            audio_output: count(Count::AudioOutput),
        }
    }
}

/// The provider in one spelling: `OpenAI` and `openai.chat` are `openai`.
fn provider_name(provider: &str) -> String {
    let lower = provider.trim().to_ascii_lowercase();
    let endpoints = [".chat", ".responses", ".completion", ".completions", ".messages"];
    let bare = endpoints.iter().find_map(|endpoint| lower.strip_suffix(endpoint)).filter(|rest| !rest.is_empty());
    bare.map_or(lower.clone(), str::to_owned)
}

/// As many tool calls as fit, whole: the list must stay JSON.
fn tool_calls_json(calls: &[ToolCall], texts: bool, marks: &mut Marks) -> Option<String> {
    let mut left = Text::ToolCalls.bytes_max() - 2;
    let mut fitting = Vec::new();
    for call in calls {
        let json = call.to_json(texts);
        let len = json.to_string().len() + 1;
        marks.add_if(len > left, Marks::TRUNCATED);
        if len <= left {
            left -= len;
            fitting.push(json);
        }
    }
    (!fitting.is_empty()).then(|| Value::from(fitting).to_string())
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

fn put(facts: &mut Facts, text: Text, value: Option<&str>, marks: &mut Marks) {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return };
    let (fitting, was_cut) = fit(value, text.bytes_max(), marks);
    marks.add_if(was_cut, Marks::TRUNCATED);
    facts.set_text(text, Some(fitting));
}
