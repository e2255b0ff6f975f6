//! What a single span says for itself: the typed columns of the archive.
//!
//! Promise: a row's rules (`crate::row`) applied to one span: what is a call, which alias wins, which model counts, how tokens add up,
//! where texts are cut. A function of the span, its scope and its resource.
//! Cost:    one pass over the span's attributes, which the caller shares.
//! Not here: the words of a trace, its distinct calls (both need the whole trace).
//! Kept by:  `a_span_alone_says_what_its_trace_says` of the archive's tests (every span of real exports, alone).

use std::borrow::Cow;

use super::Reading;
use super::draft::{Draft, Reader, ResourceFacts};
use super::marks::Marks;
use super::stored::Text;
use super::values::fit_cow;
use crate::cost::Usage;
use crate::wire::{Pair, ResourceView, SpanView};

/// What a resource says of all its spans.
#[derive(Debug, Default)]
pub struct OfResource<'a>(ResourceFacts<'a>);

impl<'a> OfResource<'a> {
    /// Reads it.
    #[must_use]
    pub fn of(resource: &ResourceView<'a>, reading: &Reading) -> Self {
        Self(ResourceFacts::of(resource, reading))
    }

    /// `service.name`.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.0.service.as_deref()
    }
}

/// What one span says. Of what only calls are asked for (model, provider, tokens, time to the first token) other spans have none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Single<'a> {
    /// It is an LLM call.
    pub is_call: bool,
    /// Its kind as OpenInference names kinds, in capitals: its own word, else what its other attributes come to.
    pub kind: Option<Cow<'a, str>>,
    /// The model that answered; of a failed call, the one that was asked.
    pub model: Option<Cow<'a, str>>,
    /// Who runs the model, in one spelling.
    pub provider: Option<Cow<'a, str>>,
    /// As it was reported.
    pub usage: Usage,
    /// Nanoseconds from its start to the first token.
    pub first_token_nanos: Option<u64>,
    /// The prompt that it names, else the one that its resource does.
    pub prompt: Option<Cow<'a, str>>,
    /// Its session.
    pub session: Option<Cow<'a, str>>,
    /// Its user.
    pub user: Option<Cow<'a, str>>,
    /// What went in; its first 4 KiB.
    pub input: Option<Cow<'a, str>>,
    /// What came out; its first 4 KiB.
    pub output: Option<Cow<'a, str>>,
}

/// Reads spans one by one; what it remembers of keys is used again from one to the next.
#[derive(Debug)]
pub struct Singles<'a, 'r>(Reader<'a, 'r>);

impl<'a, 'r> Singles<'a, 'r> {
    /// A reader of spans.
    #[must_use]
    pub fn new(reading: &'r Reading) -> Self {
        Self(Reader::new(reading))
    }

    /// Reads a span; `each` is shown its attributes in their order, on the same pass.
    pub fn read(
        &mut self,
        span: &SpanView<'a>,
        resource: &OfResource<'a>,
        mut each: impl FnMut(&Pair<'a>),
    ) -> Single<'a> {
        let mut draft = Draft::reading_all();
        for pair in span.attributes().pairs() {
            if let Some(what) = self.0.lookup.what(pair.key(), self.0.reading) {
                draft.take(what, pair.raw());
            }
            each(&pair);
        }
        if span.has_events {
            span.events().for_each(|event| draft.take_event(&event, span.start));
        }
        draft.single(span, &resource.0, &self.0)
    }
}

impl<'a> Draft<'a> {
    fn single(mut self, span: &SpanView<'a>, resource: &ResourceFacts<'a>, reader: &Reader<'a, '_>) -> Single<'a> {
        let is_call = self.is_call();
        let mut single = Single { is_call, kind: self.kind(is_call), ..Single::default() };
        self.read_metadata(true, reader);
        single.prompt = self.name(Text::PromptRef);
        if single.prompt.is_none() {
            let of_resource = resource.prompt.get().cloned();
            single.prompt = of_resource.and_then(|prompt| fitted(Text::PromptRef, trimmed(prompt)));
        }
        single.session = self.name(Text::Session);
        single.user = self.name(Text::User);
        if reader.reading.texts {
            let (input, output) = (std::mem::take(&mut self.input), std::mem::take(&mut self.output));
            if !input.is_empty() {
                single.input = input.input(is_call).and_then(|found| fitted(Text::Input, found.text));
            }
            if !output.is_empty() {
                single.output = output.output().0.and_then(|found| fitted(Text::Output, found.text));
            }
        }
        if is_call {
            self.read_parameters();
            let (answered, asked) = (self.text(Text::Model), self.text(Text::RequestModel));
            single.model = if span.status_code == 2 { asked.or(answered) } else { answered.or(asked) };
            single.provider = self.text(Text::Provider).map(super::finish::provider_name);
            single.usage = self.usage();
            single.first_token_nanos = self.first_token_nanos.get().copied();
        }
        single
    }

    /// What stands in a slot, as a name is kept.
    fn name(&mut self, text: Text) -> Option<Cow<'a, str>> {
        let value = std::mem::take(&mut self.texts[text as usize]).take()?;
        fitted(text, trimmed(value))
    }

    /// What stands in a slot, as a fact is kept.
    fn text(&mut self, text: Text) -> Option<Cow<'a, str>> {
        fitted(text, std::mem::take(&mut self.texts[text as usize]).take()?)
    }

    fn kind(&self, is_call: bool) -> Option<Cow<'a, str>> {
        if let Some(kind) = self.open_inference_kind {
            let is_plain = !kind.bytes().any(|byte| byte.is_ascii_lowercase());
            let kind = if is_plain { Cow::Borrowed(kind) } else { Cow::Owned(kind.to_ascii_uppercase()) };
            return fitted(Text::Model, kind);
        }
        let kind = match self.operation.unwrap_or_default() {
            _ if is_call => "LLM",
            "embeddings" => "EMBEDDING",
            "execute_tool" => "TOOL",
            "retrieval" => "RETRIEVER",
            "rerank" => "RERANKER",
            "invoke_agent" | "create_agent" => "AGENT",
            "invoke_workflow" => "CHAIN",
            _ => match (self.request_type.unwrap_or_default(), self.traceloop_kind.unwrap_or_default()) {
                ("embedding", _) => "EMBEDDING",
                ("rerank", _) => "RERANKER",
                (_, "tool") => "TOOL",
                (_, "agent") => "AGENT",
                (_, "workflow" | "task") => "CHAIN",
                _ => match self.vercel_operation.unwrap_or_default() {
                    operation if operation.starts_with("ai.toolCall") => "TOOL",
                    operation if operation.starts_with("ai.embed") => "EMBEDDING",
                    _ => return None,
                },
            },
        };
        Some(Cow::Borrowed(kind))
    }
}

fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) if text.trim().len() == text.len() => Cow::Owned(text),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

fn fitted(text: Text, value: Cow<'_, str>) -> Option<Cow<'_, str>> {
    if value.is_empty() {
        return None;
    }
    Some(fit_cow(value, text.bytes_max(), &mut Marks::default()).0)
}
