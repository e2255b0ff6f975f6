//! Judging models: the prompt out of a template and an example, the verdict out of the model's answer.
//!
//! Promise: what is judged is data. It stands inside a fence that does not occur in it, is never read as a template, and the verdict comes
//! out of the structured answer's own field or not at all. The same example, template and configuration give the same prompt, so that
//! answers can be cached and a job can be taken up again without paying twice.
//! Not here: asking the model ([`Model`] is handed in), retries, rates, budgets, prices.
//! Kept by: `tests/it/judge.rs`, `tests/it/properties.rs`.
//!
//! - [`template`]: what a template says. [`shipped`]: those that come with emberd. [`fence`]: what keeps data data.
//! - [`answer`]: from a chat completion to a score, or a failure by class.

pub mod answer;
pub mod fence;
pub mod shipped;
pub mod template;

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

pub use shipped::{names as shipped_names, shipped};
pub use template::Template;

use crate::contract::{Description, Failure, Outcome, Score};
use crate::evaluator::Evaluator;
use crate::example::Example;
use crate::fields::{Mapping, MappingError, Place, text_of};
use crate::identity::{Identity, hex};
use crate::spec::{BuildError, ConfigError, Spec};
use template::{Choices, Piece, Verdicts};

/// Bytes of one field in a prompt. What is longer is `too_large`, not cut: a judge that saw half of a text judged another text.
pub const FIELD_BYTES_MAX: usize = 256 << 10;

/// A template with its configuration and mapping: makes prompts and reads answers.
#[derive(Clone, Debug)]
pub struct Judge {
    template: Template,
    settings: Settings,
    description: Description,
    identity: Identity,
    mapping: Mapping,
}

/// What a job configures.
#[derive(Clone, Debug)]
struct Settings {
    model: Option<String>,
    temperature: f64,
    max_tokens: u32,
    params: Map<String, Value>,
}

/// What is sent to a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prompt {
    /// The model, where template or configuration name one; otherwise the job does.
    pub model: Option<String>,
    /// The conversation.
    pub messages: Vec<Message>,
    /// The template's name: the schema's name.
    pub name: String,
    /// The JSON schema that the answer must fit.
    pub schema: Value,
    /// 0 to 2.
    pub temperature: f64,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// The first 128 bits of the SHA-256 over messages and schema, as hex.
    pub hash: String,
}

/// A message of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// system, user or assistant.
    pub role: Cow<'static, str>,
    /// Its text.
    pub content: String,
}

impl Prompt {
    /// The body of a request for a chat completion with structured output, as OpenAI-compatible endpoints take it. No tools.
    pub fn body(&self, model: &str) -> Value {
        json!({
            "model": self.model.as_deref().unwrap_or(model),
            "messages": self.messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": self.name, "strict": true, "schema": self.schema},
            },
        })
    }
}

impl Judge {
    /// A shipped template, configured as a job says.
    ///
    /// # Errors
    /// An unknown template, an invalid configuration or mapping.
    pub fn shipped(spec: &Spec) -> Result<Self, BuildError> {
        let template = shipped(&spec.name).ok_or_else(|| BuildError::Unknown {
            name: crate::contract::cut(spec.name.clone(), 256),
            known: shipped_names().collect::<Vec<_>>().join(", "),
        })?;
        Self::new(template.clone(), &spec.config, &spec.mapping)
    }

    /// A template of one's own, configured as a job says.
    ///
    /// # Errors
    /// An invalid configuration or mapping.
    pub fn new(
        mut template: Template,
        config: &Map<String, Value>,
        places: &std::collections::BTreeMap<String, Place>,
    ) -> Result<Self, BuildError> {
        let name = template.name.clone();
        let settings =
            configure(&mut template, config).map_err(|source| BuildError::Config { name: name.clone(), source })?;
        let description = template.describe();
        let mapping = Mapping::new(&description.fields, places, FIELD_BYTES_MAX)
            .map_err(|source: MappingError| BuildError::Mapping { name, source })?;
        let config = Value::Object(config.clone());
        let identity =
            Identity::new(&template.name, &template.version, &[&config, &json!(places), &json!(template.digest)]);
        Ok(Self { template, settings, description, identity, mapping })
    }

    /// What it is called, needs and gives.
    pub fn describe(&self) -> &Description {
        &self.description
    }

    /// The labels that may be answered, with what each is worth; none where a number is.
    pub fn choices(&self) -> Option<&[template::Choice]> {
        match &self.template.verdicts {
            Verdicts::Choices(choices) => Some(choices),
            Verdicts::Scale(_) => None,
        }
    }

    /// Name, version, template and configuration.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The prompt for an example.
    ///
    /// # Errors
    /// [`MissingField`](crate::Class::MissingField), [`TooLarge`](crate::Class::TooLarge).
    pub fn prompt(&self, example: &Example) -> Result<Prompt, Failure> {
        let fields = self.mapping.of(example);
        let mut data: Vec<(&str, Cow<'_, str>)> = Vec::new();
        for field in &self.description.fields {
            let text =
                if field.required { Some(fields.text(&field.name)?) } else { fields.optional_text(&field.name)? };
            data.push((&field.name, text.unwrap_or(Cow::Borrowed("(not given)"))));
        }
        let fence = fence::for_data(self.template.digest.as_bytes(), data.iter().map(|(_, text)| &**text));
        let mut messages: Vec<Message> =
            self.template.messages.iter().map(|message| self.fill(message, &data, &fence)).collect();
        guard(&mut messages, &fence);
        let schema = self.template.verdicts.schema();
        let hash = hash(&messages, &schema);
        Ok(Prompt {
            model: self.settings.model.clone(),
            messages,
            name: self.template.name.clone(),
            schema,
            temperature: self.settings.temperature,
            max_tokens: self.settings.max_tokens,
            hash,
        })
    }

    /// One pass: what is put in is not looked at again.
    fn fill(&self, message: &template::Message, data: &[(&str, Cow<'_, str>)], fence: &fence::Fence) -> Message {
        let mut content = String::new();
        for piece in &message.pieces {
            match piece {
                Piece::Text(text) => content.push_str(text),
                Piece::Choices => content.push_str(&self.template.verdicts.in_words()),
                Piece::Param(name) => {
                    if let Some(value) = self.settings.params.get(name) {
                        content.push_str(&text_of(Cow::Borrowed(value)));
                    }
                }
                Piece::Data(name) => {
                    if let Some((name, text)) = data.iter().find(|(field, _)| field == name) {
                        fence.wrap(name, text, &mut content);
                    }
                }
            }
        }
        Message { role: message.role.clone(), content }
    }

    /// The verdict in a chat completion: the body of the endpoint's answer with status 200, as it came.
    pub fn verdict(&self, body: &[u8]) -> Outcome {
        let answer = answer::read(body, &self.template.verdicts);
        let result = answer.verdict.map(|verdict| {
            let mut score = Score {
                name: Cow::Owned(self.template.name.clone()),
                value: verdict.value,
                label: verdict.label.map(Cow::Owned),
                explanation: None,
                direction: self.template.direction,
                metadata: Map::new(),
            };
            if !verdict.explanation.is_empty() {
                score = score.because(verdict.explanation);
            }
            if !answer.cost.model.is_empty() {
                score = score.with("model", answer.cost.model.clone());
            }
            vec![score]
        });
        Outcome { result, cost: Some(answer.cost) }
    }
}

/// Says in the first system message what the fence means; makes one if there is none.
fn guard(messages: &mut Vec<Message>, fence: &fence::Fence) {
    match messages.first_mut().filter(|message| message.role == "system") {
        Some(system) => {
            system.content.push_str("\n\n");
            system.content.push_str(&fence.guard());
        }
        None => messages.insert(0, Message { role: Cow::Borrowed("system"), content: fence.guard() }),
    }
}

fn hash(messages: &[Message], schema: &Value) -> String {
    let mut hash = Sha256::new();
    for message in messages {
        for part in [message.role.as_bytes(), message.content.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hash.update(schema.to_string().as_bytes());
    hex(&hash.finalize()[..16])
}

/// Reads a job's configuration of a judge; choices and direction change the template.
fn configure(template: &mut Template, config: &Map<String, Value>) -> Result<Settings, ConfigError> {
    let mut settings = Settings {
        model: template.model.clone(),
        temperature: template.temperature,
        max_tokens: template.max_tokens,
        params: Map::new(),
    };
    let wrong = |key: &str, what: &str| ConfigError::new(format!("{key}: {what}"));
    for (key, value) in config {
        match key.as_str() {
            "model" => settings.model = Some(value.as_str().ok_or_else(|| wrong(key, "a name"))?.to_owned()),
            "temperature" => {
                let temperature = value.as_f64().filter(|value| (0.0..=2.0).contains(value));
                settings.temperature = temperature.ok_or_else(|| wrong(key, "between 0 and 2"))?;
            }
            "max_tokens" => {
                let tokens = value.as_u64().and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0);
                settings.max_tokens = tokens.ok_or_else(|| wrong(key, "a whole number over 0"))?;
            }
            "choices" | "scale" | "direction" if template.is_open() => open(template, key, value)?,
            _ if template.params.contains_key(key) => {
                let text =
                    value.as_str().filter(|text| !text.trim().is_empty() && text.len() <= template::PARAM_BYTES_MAX);
                let what = format!("a text of at most {} bytes", template::PARAM_BYTES_MAX);
                settings.params.insert(key.clone(), json!(text.ok_or_else(|| wrong(key, &what))?));
            }
            _ => {
                let known = template.describe().config.into_iter().map(|key| key.name.into_owned()).collect::<Vec<_>>();
                return Err(ConfigError::new(format!("unknown key {key:?}, expected one of {}", known.join(", "))));
            }
        }
    }
    for (name, param) in &template.params {
        match &param.default {
            _ if settings.params.contains_key(name) => {}
            Some(default) => {
                settings.params.insert(name.clone(), json!(default));
            }
            None => return Err(wrong(name, "must be given")),
        }
    }
    Ok(settings)
}

/// `choices`, `scale` and `direction` of a template that leaves them open.
fn open(template: &mut Template, key: &str, value: &Value) -> Result<(), ConfigError> {
    let wrong = |error: serde_json::Error| ConfigError::new(format!("{key}: {error}"));
    match key {
        "choices" => {
            let choices: Choices = serde_json::from_value(value.clone()).map_err(wrong)?;
            template.verdicts = Verdicts::choices(choices).map_err(ConfigError::new)?;
        }
        "scale" => {
            let scale: template::Scale = serde_json::from_value(value.clone()).map_err(wrong)?;
            template.verdicts = Verdicts::scale(scale).map_err(ConfigError::new)?;
        }
        _ => template.direction = serde_json::from_value(value.clone()).map_err(wrong)?,
    }
    Ok(())
}

/// Whoever asks a model: with rates, retries and a budget. It answers with the body of a chat completion, as it came with status 200.
pub trait Model: Send + Sync {
    /// Asks once; failures have a provider's class, [`Timeout`](crate::Class::Timeout) or [`Budget`](crate::Class::Budget).
    fn ask(&self, prompt: Prompt) -> BoxFuture<'_, Result<Vec<u8>, Failure>>;
}

/// A judge with the model that it asks: an [`Evaluator`].
pub struct Asking {
    judge: Judge,
    model: Arc<dyn Model>,
    /// Examples asked about at the same time.
    concurrent: usize,
}

impl Asking {
    /// Joins them.
    pub fn new(judge: Judge, model: Arc<dyn Model>, concurrent: usize) -> Self {
        Self { judge, model, concurrent: concurrent.max(1) }
    }

    async fn one(&self, example: &Example) -> Outcome {
        let prompt = match self.judge.prompt(example) {
            Ok(prompt) => prompt,
            Err(failure) => return failure.into(),
        };
        let hash = prompt.hash.clone();
        let mut outcome = match self.model.ask(prompt).await {
            Ok(body) => self.judge.verdict(&body),
            Err(failure) => return failure.into(),
        };
        if let Ok(scores) = &mut outcome.result {
            for score in scores {
                score.metadata.insert("prompt_hash".to_owned(), Value::String(hash.clone()));
            }
        }
        outcome
    }
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Asking").field("identity", &self.judge.identity).finish_non_exhaustive()
    }
}

impl Evaluator for Asking {
    fn describe(&self) -> &Description {
        self.judge.describe()
    }

    fn identity(&self) -> &Identity {
        self.judge.identity()
    }

    fn evaluate<'a>(&'a self, batch: &'a [Example]) -> BoxStream<'a, (usize, Outcome)> {
        let asked = batch.iter().enumerate().map(move |(at, example)| async move { (at, self.one(example).await) });
        stream::iter(asked).buffer_unordered(self.concurrent).boxed()
    }
}
