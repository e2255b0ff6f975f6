//! From the slots of a draft to facts: aliases are resolved, texts fitted, lists kept whole.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::Reading;
use super::draft::{Draft, Reader, ResourceFacts, is_clock_sane};
use super::failure::{message_says_timeout, type_says_timeout};
use super::keys::{Count, metadata_meaning};
use super::loose::{Flat, each_field, flat_fields, scalar};
use super::marks::Marks;
use super::messages::{self, ToolCall};
use super::stored::{Emitter, Facts, Flag, Text};
use super::values::{Later, fit, fit_cow};
use crate::SpanId;
use crate::cost::Usage;
use crate::trace::words::{By, Word, Words};
use crate::wire::SpanView;

/// The longest `metadata` that is searched for sessions and prompts.
const METADATA_READ_BYTES_MAX: usize = 256 * 1024;

/// The longest tag or property.
const PROPERTY_BYTES_MAX: usize = 200;

impl<'a> Draft<'a> {
    /// Offers what it names, and what its resource does. Says whether either names a prompt, if that is `asked`.
    pub(super) fn offer_names(
        &mut self,
        by: By,
        asked: bool,
        resource: &ResourceFacts<'a>,
        reader: &Reader<'_, '_>,
        words: &mut Words<'a>,
    ) -> bool {
        const REFS: [Text; 4] = [Text::PromptRef, Text::PromptVersion, Text::Session, Text::User];
        let asked = asked && resource.prompt.get().is_none();
        let wants_metadata = words.wants(Text::Metadata, by);
        let mut names_prompt = resource.prompt.get().is_some();
        let wants_refs = REFS.iter().any(|&text| words.wants(text, by));
        if asked || wants_refs || wants_metadata {
            self.read_metadata(asked || wants_refs, reader);
            let version = self.named(Text::PromptVersion);
            if let Some(prompt) = self.named(Text::PromptRef) {
                names_prompt = true;
                if words.wants(Text::PromptRef, by) {
                    words.offer(Text::PromptRef, with_version(prompt, version.as_ref(), by));
                }
            }
            let version = version.map(|version| Word { by, ..version });
            let others = [Text::Session, Text::User].map(|text| (text, self.named(text)));
            for (text, word) in [(Text::PromptVersion, version)].into_iter().chain(others) {
                if let Some(word) = word {
                    words.offer(text, Word { by, ..word });
                }
            }
        }
        if let Some(prompt) = resource.prompt.get() {
            offer(words, Text::ResourcePrompt, by, Some(cow_trimmed(prompt)));
        }
        if wants_metadata {
            let mut marks = Marks::default();
            let metadata = match self.metadata.take() {
                Some(metadata) => metadata.text(),
                None => self.properties_json(&mut marks).map(Cow::Owned),
            };
            offer_marked(words, Text::Metadata, by, metadata, marks);
        }
        if !self.tags.is_empty() && words.wants(Text::Tags, by) {
            let mut marks = Marks::default();
            let tags = self.tags_json(&mut marks);
            offer_marked(words, Text::Tags, by, Some(Cow::Owned(tags)), marks);
        }
        names_prompt
    }

    /// Offers where it ran.
    pub(super) fn offer_place(&self, by: By, resource: &ResourceFacts<'a>, words: &mut Words<'a>) {
        offer(words, Text::Service, by, resource.service.clone());
        offer(words, Text::Environment, by, resource.environment.get().cloned());
    }

    /// What stands in the slot of `text`, as it is stored.
    fn named(&self, text: Text) -> Option<Word<'a>> {
        let value = cow_trimmed(self.texts[text as usize].get()?);
        fitting(text, UNNAMED, value, Marks::default())
    }

    /// Sessions, users and prompts that only `metadata` names.
    pub(super) fn read_metadata(&mut self, for_refs: bool, reader: &Reader<'_, '_>) {
        let Some(metadata) = self.metadata.take() else { return };
        let Some(metadata) = metadata.text() else { return };
        // What is longer is cut where it is stored, and marked there.
        if for_refs && metadata.len() <= METADATA_READ_BYTES_MAX {
            let texts = &mut self.texts;
            let mut take = |field: &str, value: Cow<'_, str>| {
                let slot = match reader.lookup.rank_of_metadata(field, reader.reading) {
                    Some(rank) => Some((Text::PromptRef, rank)),
                    None => metadata_meaning(field),
                };
                if let Some((text, rank)) = slot.filter(|_| !value.is_empty()) {
                    texts[text as usize].offer(rank, Some(Cow::Owned(value.into_owned())));
                }
            };
            match flat_fields(&metadata) {
                Some((fields, _)) => fields.for_each(|(field, value)| match value {
                    Flat::Text(value) | Flat::Number(value) => take(field, Cow::Borrowed(value)),
                    Flat::Word(_) => {}
                }),
                None => each_field(&metadata, |field, value| {
                    if let Some(value) = scalar(value) {
                        take(field, value);
                    }
                }),
            }
        }
        self.metadata = Some(Later::Text(metadata));
    }

    fn properties_json(&self, marks: &mut Marks) -> Option<String> {
        let mut fields = Map::new();
        for (name, value) in &self.properties {
            let (name, long_name) = fit(name, PROPERTY_BYTES_MAX, marks);
            let (value, long_value) = fit(value, PROPERTY_BYTES_MAX, marks);
            marks.add_if(long_name || long_value, Marks::TRUNCATED);
            fields.insert(name.into_owned(), value.into_owned().into());
        }
        (!fields.is_empty()).then(|| Value::from(fields).to_string())
    }

    /// As many tags as fit, whole: the list must stay JSON.
    fn tags_json(&self, marks: &mut Marks) -> String {
        let mut left = Text::Tags.bytes_max() - 2;
        let mut tags = Vec::new();
        for tag in &self.tags {
            let (tag, was_cut) = fit(tag, PROPERTY_BYTES_MAX, marks);
            let json = Value::from(tag.into_owned());
            let len = json.to_string().len() + 1;
            marks.add_if(was_cut || len > left, Marks::TRUNCATED);
            if len <= left {
                left -= len;
                tags.push(json);
            }
        }
        Value::from(tags).to_string()
    }

    /// The facts of a root or call; what went in and came out is offered.
    #[allow(clippy::too_many_arguments, reason = "each is one thing that facts are made of")]
    pub(super) fn facts(
        &mut self,
        span: &SpanView<'a>,
        emitter: Emitter,
        is_root: bool,
        is_call: bool,
        reading: &Reading,
        words: &mut Words<'a>,
        marks: &mut Marks,
    ) -> Facts<'a> {
        let mut facts = Facts::at(span.start, span.end);
        marks.add_if(!is_clock_sane(span.start, span.end), Marks::CLOCK);
        self.put_failure(&mut facts, span, marks);
        let (input, output) = (std::mem::take(&mut self.input), std::mem::take(&mut self.output));
        let (said, mut calls, finish_reason) =
            if output.is_empty() { (None, Vec::new(), None) } else { output.output() };
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
            let asked = if input.is_empty() { None } else { input.input(is_call) };
            for (text, found, at) in [(Text::Input, asked, span.start.0), (Text::Output, said, u64::MAX - span.end.0)] {
                let Some(found) = found else { continue };
                let by = By::words(is_root, found.is_json, at, span.span_id);
                if words.wants(text, by) {
                    let mut marks = Marks::default();
                    // Cutting these is no mending: a row has only their beginning.
                    let (found, _) = fit_cow(found.text, text.bytes_max(), &mut marks);
                    words.offer(text, Word { by, text: found, marks });
                }
            }
        }
        facts
    }

    fn put_failure(&self, facts: &mut Facts<'a>, span: &SpanView<'a>, marks: &mut Marks) {
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
        let told = Some(Cow::Borrowed(span.status_message));
        let error =
            [told.as_ref(), self.exception_message.as_ref(), self.exception_type.as_ref(), self.error_type.as_ref()];
        put(facts, Text::Error, error.into_iter().flatten().find(|text| !text.is_empty()).cloned(), marks);
    }

    fn put_call(
        &mut self,
        facts: &mut Facts<'a>,
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
            put(facts, text, std::mem::take(&mut self.texts[text as usize]).take(), marks);
        }
        let provider = std::mem::take(&mut self.texts[Text::Provider as usize]).take();
        put(facts, Text::Provider, provider.map(provider_name), marks);
        put(facts, Text::ToolCalls, tool_calls_json(calls, reading.texts, marks).map(Cow::Owned), marks);
    }

    /// The model asked for, where only the request's parameters say it; and whether they ask for a stream.
    pub(super) fn read_parameters(&mut self) -> Option<bool> {
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

    pub(super) fn usage(&self) -> Usage {
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
pub(super) fn provider_name(provider: Cow<'_, str>) -> Cow<'_, str> {
    let is_plain = provider.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if is_plain {
        return provider;
    }
    let lower = provider.trim().to_ascii_lowercase();
    let endpoints = [".chat", ".responses", ".completion", ".completions", ".messages"];
    let bare = endpoints.iter().find_map(|endpoint| lower.strip_suffix(endpoint)).filter(|rest| !rest.is_empty());
    Cow::Owned(bare.map_or(lower.clone(), str::to_owned))
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

fn put<'a>(facts: &mut Facts<'a>, text: Text, value: Option<Cow<'a, str>>, marks: &mut Marks) {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return };
    let (fitting, was_cut) = fit_cow(value, text.bytes_max(), marks);
    marks.add_if(was_cut, Marks::TRUNCATED);
    facts.set_text(text, Some(fitting));
}

/// Of a word whose speaker is still to be put in.
const UNNAMED: By = By { class: 0, at: 0, span: SpanId([0; 8]) };

/// The word that is stored of a text; none if it is empty.
fn fitting<'a>(text: Text, by: By, value: Cow<'a, str>, mut marks: Marks) -> Option<Word<'a>> {
    if value.is_empty() {
        return None;
    }
    let (value, was_cut) = fit_cow(value, text.bytes_max(), &mut marks);
    marks.add_if(was_cut, Marks::TRUNCATED);
    Some(Word { by, text: value, marks })
}

/// A prompt with the version that is said beside it: there is no NUL in either.
fn with_version<'a>(prompt: Word<'a>, version: Option<&Word<'a>>, by: By) -> Word<'a> {
    match version {
        None => Word { by, ..prompt },
        Some(version) => {
            let marks = prompt.marks.and(version.marks);
            Word { by, text: Cow::Owned(format!("{}\0{}", prompt.text, version.text)), marks }
        }
    }
}

fn offer<'a>(words: &mut Words<'a>, text: Text, by: By, value: Option<Cow<'a, str>>) {
    if words.wants(text, by) {
        offer_marked(words, text, by, value, Marks::default());
    }
}

fn offer_marked<'a>(words: &mut Words<'a>, text: Text, by: By, value: Option<Cow<'a, str>>, marks: Marks) {
    if let Some(word) = value.and_then(|value| fitting(text, by, value, marks)) {
        words.offer(text, word);
    }
}

/// Without blanks at its ends.
fn cow_trimmed<'a>(text: &Cow<'a, str>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}
