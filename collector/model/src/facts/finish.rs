//! From the slots of a draft to facts: aliases are resolved, texts fitted, lists kept whole.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::Reading;
use super::draft::{Draft, ResourceFacts, is_clock_sane};
use super::failure::{message_says_timeout, type_says_timeout};
use super::keys::{Count, metadata_meaning};
use super::loose::{each_field, scalar};
use super::marks::Marks;
use super::messages::{self, ToolCall};
use super::stored::{Emitter, Facts, Flag, Text};
use super::values::fit;
use crate::cost::Usage;
use crate::wire::SpanView;

/// The longest `metadata` that is searched for sessions and prompts.
const METADATA_READ_BYTES_MAX: usize = 256 * 1024;

/// The longest tag or property.
const PROPERTY_BYTES_MAX: usize = 200;

impl Draft<'_> {
    /// Puts into `facts` what it names, and what its resource does.
    pub(super) fn put_names(
        &mut self,
        facts: &mut Facts,
        resource: &ResourceFacts<'_>,
        reading: &Reading,
        marks: &mut Marks,
    ) {
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
    pub(super) fn facts(
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

fn put(facts: &mut Facts, text: Text, value: Option<&str>, marks: &mut Marks) {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return };
    let (fitting, was_cut) = fit(value, text.bytes_max(), marks);
    marks.add_if(was_cut, Marks::TRUNCATED);
    facts.set_text(text, Some(fitting));
}
