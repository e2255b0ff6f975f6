//! OpenInference attributes for spans that follow other conventions, where Phoenix would not add them itself.
//!
//! Phoenix reads the current `gen_ai.*` keys. It does not read their older names (`gen_ai.usage.prompt_tokens`,
//! `gen_ai.prompt.0.content`), `llm.usage.*`, `traceloop.*` or a response model without a request model: such a span would
//! show no tokens, no cost, no messages, no session. What is added is never laid over a key that is there, nor over one that
//! Phoenix derives.

use std::collections::{BTreeMap, HashMap};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

use super::value::{SPAN_KIND, TOKENS_MAX, count};
use super::{as_text, text_attribute};

const ASSOCIATION: &str = "traceloop.association.properties";

/// A message list longer than this has the rest left out.
const MESSAGES_MAX: usize = 10_000;

/// The attributes that a span lacks.
pub(super) fn missing(attributes: &[KeyValue]) -> Vec<KeyValue> {
    let foreign = ["gen_ai.", "traceloop.", "llm.usage.", "llm.request.type"];
    if !attributes.iter().any(|attribute| foreign.iter().any(|prefix| attribute.key.starts_with(prefix))) {
        return Vec::new();
    }
    let values = attributes.iter().filter_map(|attribute| Some((attribute.key.as_str(), attribute.value.as_ref()?)));
    let mut span = Deriving { has: values.collect(), added: Vec::new() };
    span.kind();
    span.model();
    span.tokens();
    span.who();
    span.messages("gen_ai.prompt.", "llm.input_messages", "gen_ai.input.messages");
    span.messages("gen_ai.completion.", "llm.output_messages", "gen_ai.output.messages");
    span.texts();
    span.added
}

struct Deriving<'a> {
    /// The last of a repeated key wins, as in Phoenix.
    has: HashMap<&'a str, &'a AnyValue>,
    added: Vec<KeyValue>,
}

impl<'a> Deriving<'a> {
    fn lacks(&self, key: &str) -> bool {
        !self.has.contains_key(key)
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.has.get(key).and_then(|value| as_text(value)).filter(|text| !text.is_empty())
    }

    fn first_text(&self, keys: &[&str]) -> Option<&'a str> {
        keys.iter().find_map(|key| self.text(key))
    }

    fn add(&mut self, key: &str, text: &str) {
        self.added.push(text_attribute(key.to_owned(), text.to_owned()));
    }

    fn add_value(&mut self, key: String, value: &AnyValue) {
        self.added.push(KeyValue { key, value: Some(value.clone()), ..KeyValue::default() });
    }

    fn add_count(&mut self, key: &str, count: i128) {
        let count = Value::IntValue(count.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64);
        self.add_value(key.to_owned(), &AnyValue { value: Some(count) });
    }

    /// The kind that the span will have in Phoenix as it stands; none if Phoenix would call it UNKNOWN.
    fn kind_in_phoenix(&self) -> Option<&'a str> {
        let given = |key| self.has.get(key).is_some_and(|value| as_text(value) != Some(""));
        match self.text("gen_ai.operation.name") {
            _ if !self.lacks(SPAN_KIND) => self.text(SPAN_KIND).or(Some("UNKNOWN")),
            Some("chat" | "text_completion" | "generate_content") => Some("LLM"),
            Some("embeddings") => Some("EMBEDDING"),
            Some("execute_tool") => Some("TOOL"),
            Some("retrieval") => Some("RETRIEVER"),
            Some("invoke_agent" | "create_agent") => Some("AGENT"),
            Some(_) => None,
            None if given("gen_ai.tool.call.id") || given("gen_ai.tool.name") => Some("TOOL"),
            None if given("gen_ai.retrieval.documents") || given("gen_ai.retrieval.query.text") => Some("RETRIEVER"),
            None if !self.lacks("gen_ai.embeddings.dimension.count") => Some("EMBEDDING"),
            None if given("gen_ai.input.messages") || given("gen_ai.output.messages") => Some("LLM"),
            None if given("gen_ai.request.model") => Some("LLM"),
            None => None,
        }
    }

    fn kind(&mut self) {
        if self.kind_in_phoenix().is_some() {
            return;
        }
        let legacy_call =
            self.has.keys().any(|key| key.starts_with("gen_ai.prompt.") || key.starts_with("gen_ai.completion."))
                || self.first_count(&["gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens"]).is_some();
        let kind = match (self.text("llm.request.type"), self.text("traceloop.span.kind")) {
            (Some("chat" | "completion"), _) => "LLM",
            (Some("embedding"), _) => "EMBEDDING",
            (Some("rerank"), _) => "RERANKER",
            (_, Some("workflow" | "task")) => "CHAIN",
            (_, Some("agent")) => "AGENT",
            (_, Some("tool")) => "TOOL",
            _ if legacy_call => "LLM",
            _ => return,
        };
        self.add(SPAN_KIND, kind);
    }

    fn is_embedding(&self) -> bool {
        let added = self.added.iter().find(|attribute| attribute.key == SPAN_KIND);
        let added = added.and_then(|kind| as_text(kind.value.as_ref()?));
        added.or(self.kind_in_phoenix()).is_some_and(|kind| kind.eq_ignore_ascii_case("EMBEDDING"))
    }

    fn model(&mut self) {
        let key = if self.is_embedding() { "embedding.model_name" } else { "llm.model_name" };
        if self.lacks(key)
            && self.lacks("gen_ai.request.model")
            && let Some(model) = self.text("gen_ai.response.model")
        {
            self.add(key, model);
        }
    }

    fn first_count(&self, keys: &[&str]) -> Option<i128> {
        keys.iter().find_map(|key| count(self.has.get(key)?.value.as_ref()?))
    }

    fn tokens(&mut self) {
        let input = self.side("prompt", "input");
        let output = self.side("completion", "output");
        let derived = |key| self.first_count(&[key]).filter(|count| *count <= i128::from(TOKENS_MAX));
        let phoenix_adds_up = derived("gen_ai.usage.input_tokens").and(derived("gen_ai.usage.output_tokens")).is_some();
        if self.lacks("llm.token_count.total") && !phoenix_adds_up {
            let said = self.first_count(&["gen_ai.usage.total_tokens", "llm.usage.total_tokens"]);
            if let Some(total) = said.or(input.zip(output).map(|(input, output)| input.saturating_add(output))) {
                self.add_count("llm.token_count.total", total);
            }
        }
        let classes: [(&str, &str, &[&str]); 3] = [
            (
                "llm.token_count.prompt_details.cache_read",
                "gen_ai.usage.cache_read.input_tokens",
                &["gen_ai.usage.cache_read_input_tokens", "llm.usage.cache_read_input_tokens"],
            ),
            (
                "llm.token_count.prompt_details.cache_write",
                "gen_ai.usage.cache_creation.input_tokens",
                &["gen_ai.usage.cache_creation_input_tokens", "llm.usage.cache_creation_input_tokens"],
            ),
            (
                "llm.token_count.completion_details.reasoning",
                "",
                &[
                    "gen_ai.usage.reasoning.output_tokens",
                    "gen_ai.usage.reasoning_tokens",
                    "llm.usage.reasoning_tokens",
                ],
            ),
        ];
        for (key, phoenix_reads, older) in classes {
            if self.lacks(key)
                && self.lacks(phoenix_reads)
                && let Some(count) = self.first_count(older)
            {
                self.add_count(key, count);
            }
        }
    }

    /// One of the two counts: added if Phoenix reads none, or would read one that it cannot store (it is clamped later).
    fn side(&mut self, name: &str, current: &str) -> Option<i128> {
        let key = format!("llm.token_count.{name}");
        if !self.lacks(&key) {
            return self.first_count(&[&key]);
        }
        let read = self.first_count(&[&format!("gen_ai.usage.{current}_tokens")]);
        let older = [format!("gen_ai.usage.{name}_tokens"), format!("llm.usage.{name}_tokens")];
        let count = read.or_else(|| self.first_count(&[&older[0], &older[1]]))?;
        if read.is_none() || count > i128::from(TOKENS_MAX) || count < -i128::from(TOKENS_MAX) {
            self.add_count(&key, count);
        }
        Some(count)
    }

    /// Session and user.
    fn who(&mut self) {
        let session = [format!("{ASSOCIATION}.session_id"), format!("{ASSOCIATION}.conversation_id")];
        if self.lacks("session.id")
            && self.lacks("gen_ai.conversation.id")
            && let Some(session) = self.first_text(&[&session[0], &session[1]])
        {
            self.add("session.id", session);
        }
        let user = format!("{ASSOCIATION}.user_id");
        if self.lacks("user.id")
            && let Some(user) = self.first_text(&[&user, "enduser.id", "gen_ai.user", "llm.user"])
        {
            self.add("user.id", user);
        }
    }

    /// The attributes `{from}{N}.{field}`, in the order of N.
    fn indexed(&self, from: &str) -> BTreeMap<usize, Vec<(&'a str, &'a AnyValue)>> {
        let mut messages: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        for (key, value) in &self.has {
            let Some((index, field)) = key.strip_prefix(from).and_then(|rest| rest.split_once('.')) else { continue };
            if let Some(index) = plain_number(index).filter(|index| *index < MESSAGES_MAX) {
                messages.entry(index).or_default().push((field, *value));
            }
        }
        messages.values_mut().for_each(|fields| fields.sort_unstable_by_key(|(field, _)| *field));
        messages
    }

    /// Messages in numbered attributes. Phoenix takes a span's own numbering or its derived one, so they are added whole or
    /// not at all.
    fn messages(&mut self, from: &str, to: &str, phoenix_reads: &str) {
        if !self.lacks(phoenix_reads) || self.has.keys().any(|key| key.starts_with(to)) {
            return;
        }
        for (index, fields) in self.indexed(from) {
            for (field, value) in fields {
                if let Some(field) = message_field(field) {
                    self.add_value(format!("{to}.{index}.message.{field}"), value);
                }
            }
        }
        if from == "gen_ai.completion."
            && self.lacks("llm.finish_reason")
            && self.lacks("gen_ai.response.finish_reasons")
            && let Some(reason) = self.text("gen_ai.completion.0.finish_reason")
        {
            self.add("llm.finish_reason", reason);
        }
    }

    /// Input and output as Phoenix's lists show them.
    fn texts(&mut self) {
        let content = |(_, fields): (usize, Vec<(&str, &'a AnyValue)>)| {
            let field = |name| fields.iter().find(|(field, _)| *field == name).and_then(|(_, value)| as_text(value));
            Some((field("role").unwrap_or_default(), field("content").filter(|text| !text.is_empty())?))
        };
        let prompts: Vec<_> = self.indexed("gen_ai.prompt.").into_iter().filter_map(content).collect();
        let asked = prompts.iter().rfind(|(role, _)| *role == "user").or(prompts.last()).map(|(_, text)| *text);
        let answered = self.indexed("gen_ai.completion.").into_iter().find_map(content).map(|(_, text)| text);
        self.text_of("input", self.text("traceloop.entity.input").or(asked));
        self.text_of("output", self.text("traceloop.entity.output").or(answered));
    }

    fn text_of(&mut self, side: &str, text: Option<&str>) {
        let (value, mime) = (format!("{side}.value"), format!("{side}.mime_type"));
        let Some(text) = text.filter(|_| self.lacks(&value)) else { return };
        self.add(&value, text);
        if self.lacks(&mime) {
            let json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
                && text.trim_start().starts_with(['{', '[']);
            self.add(&mime, if json { "application/json" } else { "text/plain" });
        }
    }
}

/// OpenInference's name for a field of a numbered message.
fn message_field(field: &str) -> Option<String> {
    match field {
        "role" | "content" | "tool_call_id" | "name" => Some(field.to_owned()),
        _ => {
            let (index, field) = field.strip_prefix("tool_calls.")?.split_once('.')?;
            let index = plain_number(index)?;
            let field = match field {
                "id" => "id",
                "name" => "function.name",
                "arguments" => "function.arguments",
                _ => return None,
            };
            Some(format!("tool_calls.{index}.tool_call.{field}"))
        }
    }
}

/// A number as people write it: `007` and `+7` are none.
fn plain_number(text: &str) -> Option<usize> {
    let plain =
        text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}
