//! A judge's template: a TOML or JSON file, or a row of `evaluation_templates`.
//!
//! ```toml
//! name = "tone"                      # [a-z0-9_], also the score's name
//! version = "1"
//! summary = "Whether the answer is polite."
//! direction = "maximize"             # maximize, minimize or neutral
//! choices = { polite = 1.0, rude = 0.0 }    # or scale = { min = 0, max = 10 }
//!
//! [[messages]]
//! role = "system"
//! content = "You judge the tone of answers."
//! [[messages]]
//! role = "user"
//! content = "The answer:\n{{output}}\nIs it polite or rude?"
//!
//! [fields.output]                    # optional: where the variable is found
//! paths = ["output", "root.output"]
//! ```
//!
//! `{{name}}` is a field of the example, put in as fenced data; a name that `[params]` declares is a text of the job's configuration, put in
//! as it is; `{{choices}}` is the list of the choices. Nothing else is special, and what is put in is never read again.
//!
//! Promise: what `parse` accepts can be filled and asked; what is wrong is said with its key.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::contract::{Description, Direction, Field, Key, Kind, Limits, Output, Range};
use crate::identity::hex;

/// Bytes of a text that a job's configuration puts in.
pub const PARAM_BYTES_MAX: usize = 16 << 10;
const TEMPLATE_BYTES_MAX: usize = 128 << 10;
const NAME_BYTES_MAX: usize = 64;
const CHOICES_MAX: usize = 64;

/// A template that can be filled.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Its name, and its score's.
    pub name: String,
    /// Changes with its text.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// Which way is better.
    pub direction: Direction,
    /// The model to ask, unless a job says otherwise.
    pub model: Option<String>,
    /// 0 to 2.
    pub temperature: f64,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// A digest of the file.
    pub digest: String,
    pub(super) verdicts: Verdicts,
    pub(super) messages: Vec<Message>,
    pub(super) params: BTreeMap<String, Param>,
    fields: Vec<Field>,
}

/// A template that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template: {0}")]
pub struct TemplateError(pub String);

/// What may be answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdicts {
    /// One of these labels.
    Choices(Vec<Choice>),
    /// A number between these.
    Scale(Scale),
}

/// A label and what it is worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The label.
    pub label: String,
    /// Its score; a label without one is a category.
    pub score: Option<f64>,
}

/// Choices as a list in their order, or as {label: score}.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Choices {
    List(Vec<Choice>),
    Map(BTreeMap<String, Option<f64>>),
}

/// A number between two others, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    pub(super) role: Cow<'static, str>,
    pub(super) pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Data(String),
    Param(String),
    Choices,
}

/// A text that a job's configuration puts in.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Param {
    #[serde(default)]
    pub(super) summary: String,
    pub(super) default: Option<String>,
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    version: String,
    #[serde(default)]
    summary: String,
    direction: Direction,
    model: Option<String>,
    #[serde(default)]
    temperature: f64,
    #[serde(default = "some_tokens")]
    max_tokens: u32,
    choices: Option<Choices>,
    scale: Option<Scale>,
    messages: Vec<FileMessage>,
    #[serde(default)]
    params: BTreeMap<String, Param>,
    #[serde(default)]
    fields: BTreeMap<String, FileField>,
}

fn some_tokens() -> u32 {
    1024
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMessage {
    role: String,
    content: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileField {
    #[serde(default)]
    summary: String,
    paths: Option<Vec<String>>,
    #[serde(default = "yes")]
    required: bool,
}

fn yes() -> bool {
    true
}

impl Template {
    /// Reads a template from TOML.
    ///
    /// # Errors
    /// What is wrong, with its key.
    pub fn from_toml(text: &str) -> Result<Self, TemplateError> {
        fits(text)?;
        let file = toml::from_str(text).map_err(|error| TemplateError(error.to_string()))?;
        Self::from_file(file, text)
    }

    /// Reads a template from JSON.
    ///
    /// # Errors
    /// What is wrong, with its key.
    pub fn from_json(text: &str) -> Result<Self, TemplateError> {
        fits(text)?;
        let file = serde_json::from_str(text).map_err(|error| TemplateError(error.to_string()))?;
        Self::from_file(file, text)
    }

    /// Reads a row of `evaluation_templates`: `config` is the template; its name is made out of the row's where it has none.
    ///
    /// # Errors
    /// What is wrong, with its key.
    pub fn from_row(name: &str, config: &Map<String, Value>) -> Result<Self, TemplateError> {
        let mut config = config.clone();
        let letters =
            name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' });
        config.entry("name").or_insert_with(|| Value::String(letters.take(NAME_BYTES_MAX).collect()));
        config.entry("version").or_insert_with(|| json!("1"));
        Self::from_json(&Value::Object(config).to_string())
    }

    fn from_file(file: File, text: &str) -> Result<Self, TemplateError> {
        let wrong = |what: String| Err(TemplateError(what));
        if !is_name(&file.name) {
            return wrong(format!("name {:?}: of a-z, 0-9 and _, at most {NAME_BYTES_MAX}", file.name));
        }
        if file.version.is_empty() || file.version.len() > NAME_BYTES_MAX {
            return wrong(format!("version: between 1 and {NAME_BYTES_MAX} bytes"));
        }
        if !(0.0..=2.0).contains(&file.temperature) {
            return wrong("temperature: between 0 and 2".into());
        }
        if file.max_tokens == 0 {
            return wrong("max_tokens: over 0".into());
        }
        let verdicts = match (file.choices, file.scale) {
            (Some(choices), None) => Verdicts::choices(choices),
            (None, Some(scale)) => Verdicts::scale(scale),
            _ => Err("choices, scale: exactly one of them".into()),
        };
        let verdicts = verdicts.map_err(TemplateError)?;
        if let Some(name) = file.params.keys().find(|name| !is_name(name) || TAKEN.contains(&name.as_str())) {
            return wrong(format!("params: {name:?} is taken, or not of a-z, 0-9 and _"));
        }
        if file.messages.is_empty() || file.messages.len() > 32 {
            return wrong("messages: between 1 and 32".into());
        }
        let messages = file.messages.into_iter().map(|message| Message::new(message, &file.params));
        let messages = messages.collect::<Result<Vec<_>, _>>()?;
        let fields = fields(&messages, file.fields)?;
        if fields.is_empty() {
            return wrong("messages: no variable, so there is nothing to judge".into());
        }
        Ok(Self {
            name: file.name,
            version: file.version,
            summary: file.summary,
            direction: file.direction,
            model: file.model,
            temperature: file.temperature,
            max_tokens: file.max_tokens,
            digest: hex(&Sha256::digest(text.as_bytes())[..16]),
            verdicts,
            messages,
            params: file.params,
            fields,
        })
    }

    /// Whether a job may bring choices of its own: the messages list them by `{{choices}}`.
    pub(super) fn is_open(&self) -> bool {
        self.messages.iter().any(|message| message.pieces.contains(&Piece::Choices))
    }

    /// What it is called, needs and gives.
    pub fn describe(&self) -> Description {
        let key = |name: &str, summary: &str, default: Option<Value>| Key {
            name: name.to_owned().into(),
            summary: summary.to_owned().into(),
            default,
        };
        let mut config = vec![
            key("model", "The model to ask; null: the job's.", Some(json!(self.model))),
            key("temperature", "0 to 2.", Some(json!(self.temperature))),
            key("max_tokens", "The longest answer, in tokens.", Some(json!(self.max_tokens))),
        ];
        if self.is_open() {
            let choices = Some(self.verdicts.as_config("choices"));
            config.push(key("choices", "A list of {label, score?}, or {label: score}.", choices));
            config.push(key(
                "scale",
                "{min, max}: a number instead of choices.",
                Some(self.verdicts.as_config("scale")),
            ));
            config.push(key("direction", "maximize, minimize or neutral.", Some(json!(self.direction))));
        }
        for (name, param) in &self.params {
            config.push(key(name, &param.summary, param.default.as_ref().map(|default| json!(default))));
        }
        Description {
            name: self.name.clone(),
            version: self.version.clone(),
            kind: Kind::Llm,
            summary: self.summary.clone(),
            fields: self.fields.clone(),
            outputs: vec![Output {
                name: self.name.clone().into(),
                direction: self.direction,
                range: self.verdicts.range(),
                labels: self.verdicts.labels().map(|label| Cow::Owned(label.to_owned())).collect(),
            }],
            config,
            limits: Limits { field_bytes_max: super::FIELD_BYTES_MAX as u64, ..Limits::default() },
        }
    }
}

/// Names with a meaning of their own.
const TAKEN: [&str; 7] = ["choices", "scale", "direction", "model", "temperature", "max_tokens", "name"];

fn fits(text: &str) -> Result<(), TemplateError> {
    if text.len() > TEMPLATE_BYTES_MAX {
        return Err(TemplateError(format!("longer than {TEMPLATE_BYTES_MAX} bytes")));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let of = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(of)
}

impl Message {
    fn new(file: FileMessage, params: &BTreeMap<String, Param>) -> Result<Self, TemplateError> {
        let role = match file.role.as_str() {
            "system" => "system",
            "user" => "user",
            "assistant" => "assistant",
            other => return Err(TemplateError(format!("messages: role {other:?}, not system, user or assistant"))),
        };
        let mut pieces = Vec::new();
        let mut rest = file.content.as_str();
        while let Some((text, variable)) = rest.split_once("{{") {
            let (name, behind) =
                variable.split_once("}}").ok_or_else(|| TemplateError("messages: {{ without }}".into()))?;
            let name = name.trim();
            if !is_name(name) {
                return Err(TemplateError(format!("messages: {{{{{name}}}}} is not a variable's name")));
            }
            if !text.is_empty() {
                pieces.push(Piece::Text(text.to_owned()));
            }
            pieces.push(match name {
                "choices" => Piece::Choices,
                name if params.contains_key(name) => Piece::Param(name.to_owned()),
                name => Piece::Data(name.to_owned()),
            });
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { role: Cow::Borrowed(role), pieces })
    }
}

/// The variables of the messages, each where the file says, or where that word is usually found.
fn fields(messages: &[Message], mut files: BTreeMap<String, FileField>) -> Result<Vec<Field>, TemplateError> {
    let mut fields: Vec<Field> = Vec::new();
    let pieces = messages.iter().flat_map(|message| &message.pieces);
    for name in pieces.filter_map(|piece| if let Piece::Data(name) = piece { Some(name) } else { None }) {
        if fields.iter().any(|field| field.name == *name) {
            continue;
        }
        let file = files.remove(name);
        let (summary, paths, required) =
            file.map_or((String::new(), None, true), |file| (file.summary, file.paths, file.required));
        let paths = paths.unwrap_or_else(|| usual_paths(name));
        for path in &paths {
            crate::path::Path::parse(path).map_err(|error| TemplateError(format!("fields.{name}: {error}")))?;
        }
        if paths.is_empty() || paths.len() > 8 {
            return Err(TemplateError(format!("fields.{name}: between one and eight paths")));
        }
        let paths = paths.into_iter().map(Cow::Owned).collect();
        fields.push(Field { name: Cow::Owned(name.clone()), required, summary: Cow::Owned(summary), paths });
    }
    match files.keys().next() {
        Some(name) => Err(TemplateError(format!("fields.{name}: no message has {{{{{name}}}}}"))),
        None => Ok(fields),
    }
}

fn usual_paths(name: &str) -> Vec<String> {
    let usual: &[&str] = match name {
        "input" => &["input", "root.input"],
        "output" => &["output", "root.output"],
        "reference" => &["reference"],
        "context" => &["context", "all(RETRIEVER).output"],
        "conversation" | "messages" => &["messages", "/input/messages", "last(LLM).input"],
        "user_message" => &["/metadata/user_message", "input", "root.input"],
        "text" => &["output", "root.output"],
        "available_tools" => &["/metadata/tools", "/input/tools", "last(LLM).attributes/llm.tools"],
        "tool_selection" => &["/metadata/tool_calls", "/output/tool_calls", "all(TOOL).tool_call"],
        other => return vec![format!("/metadata/{other}")],
    };
    usual.iter().map(|path| (*path).to_owned()).collect()
}

impl Verdicts {
    pub(super) fn choices(choices: Choices) -> Result<Self, String> {
        let choices = match choices {
            Choices::List(choices) => choices,
            Choices::Map(map) => map.into_iter().map(|(label, score)| Choice { label, score }).collect(),
        };
        if choices.len() < 2 || choices.len() > CHOICES_MAX {
            return Err(format!("choices: between 2 and {CHOICES_MAX}"));
        }
        for (at, choice) in choices.iter().enumerate() {
            if choice.label.trim().is_empty() || choice.label.len() > 256 {
                return Err("choices: a label has between 1 and 256 bytes".into());
            }
            if choice.score.is_some_and(|score| !score.is_finite()) {
                return Err(format!("choices: the score of {:?} is not a finite number", choice.label));
            }
            if choices[..at].iter().any(|other| other.label == choice.label) {
                return Err(format!("choices: {:?} twice", choice.label));
            }
        }
        Ok(Self::Choices(choices))
    }

    pub(super) fn scale(scale: Scale) -> Result<Self, String> {
        if !scale.min.is_finite() || !scale.max.is_finite() || scale.min >= scale.max {
            return Err("scale: min is less than max".into());
        }
        Ok(Self::Scale(scale))
    }

    fn labels(&self) -> impl Iterator<Item = &str> {
        let choices = match self {
            Self::Choices(choices) => choices.as_slice(),
            Self::Scale(_) => &[],
        };
        choices.iter().map(|choice| choice.label.as_str())
    }

    fn range(&self) -> Range {
        match self {
            Self::Scale(scale) => Range { min: Some(scale.min), max: Some(scale.max) },
            Self::Choices(choices) => {
                let scores = || choices.iter().filter_map(|choice| choice.score);
                Range { min: scores().reduce(f64::min), max: scores().reduce(f64::max) }
            }
        }
    }

    /// The JSON schema of the answer, as strict structured output takes it: every key required, no others.
    pub(super) fn schema(&self) -> Value {
        let (key, of) = match self {
            Self::Choices(_) => ("label", json!({"type": "string", "enum": self.labels().collect::<Vec<_>>()})),
            Self::Scale(scale) => ("score", json!({"type": "number", "minimum": scale.min, "maximum": scale.max})),
        };
        json!({
            "type": "object",
            "properties": {"explanation": {"type": "string"}, key: of},
            "required": ["explanation", key],
            "additionalProperties": false,
        })
    }

    /// For the prompt.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Choices(_) => self.labels().map(|label| format!("- {label:?}")).collect::<Vec<_>>().join("\n"),
            Self::Scale(scale) => format!("- a number from {} to {}", scale.min, scale.max),
        }
    }

    fn as_config(&self, key: &str) -> Value {
        match (self, key) {
            (Self::Choices(choices), "choices") => json!(choices),
            (Self::Scale(scale), "scale") => json!(scale),
            _ => Value::Null,
        }
    }
}
