//! What an evaluator gives: scores, or a failure; and what it says of itself.
//!
//! Promise: an [`Outcome`] has scores or a failure, never both, never neither (`Result` keeps it); a [`Score`] that left
//! [`Score::checked`] is finite, inside its declared range, and has a number or a label.
//! Not here: how a score is found (`builtin`, `judge`), how scores of many examples are summed up (`stats`).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Who judges: a function, or a model. Phoenix's `annotator_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    /// A function of the example.
    Code,
    /// A model's judgement.
    Llm,
}

/// Which way is better. It stands beside every score: 1.0 of `hallucination` is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// More is better.
    Maximize,
    /// Less is better.
    Minimize,
    /// Neither; a refusal may be right.
    Neutral,
}

/// One judgement, with the fields that Phoenix's annotations have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// What was judged; an evaluator with several scores names each.
    pub name: Cow<'static, str>,
    /// The number, finite and in the declared range.
    #[serde(rename = "score")]
    pub value: Option<f64>,
    /// The verdict in a word.
    pub label: Option<Cow<'static, str>>,
    /// Why, for a person. Never a secret that the evaluator found.
    pub explanation: Option<String>,
    /// Which way is better.
    pub direction: Direction,
    /// Whatever else the evaluator tells.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// Explanations are cut here, at a character's border.
pub const EXPLANATION_BYTES_MAX: usize = 16 << 10;

impl Score {
    /// A bare number.
    pub fn number(name: impl Into<Cow<'static, str>>, value: f64, direction: Direction) -> Self {
        let name = name.into();
        Self { name, value: Some(value), label: None, explanation: None, direction, metadata: Map::new() }
    }

    /// The same with a label.
    #[must_use]
    pub fn label(mut self, label: impl Into<Cow<'static, str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same with its reason, cut to [`EXPLANATION_BYTES_MAX`].
    #[must_use]
    pub fn because(mut self, explanation: impl Into<String>) -> Self {
        self.explanation = Some(cut(explanation.into(), EXPLANATION_BYTES_MAX));
        self
    }

    /// The same with a further fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Holds a score against what its evaluator declared.
    ///
    /// # Errors
    /// [`Class::PluginFault`]: no number and no label, a number that is not finite or out of range, an undeclared label.
    pub fn checked(self, output: Option<&Output>) -> Result<Self, Failure> {
        let fault = |what: String| Err(Failure::new(Class::PluginFault, what));
        if self.value.is_none() && self.label.is_none() {
            return fault(format!("score {:?} has neither a number nor a label", self.name));
        }
        if self.value.is_some_and(|value| !value.is_finite()) {
            return fault(format!("score {:?} is not a finite number", self.name));
        }
        let Some(output) = output else { return Ok(self) };
        if let Some(value) = self.value
            && !output.range.holds(value)
        {
            return fault(format!("score {:?} is {value}, outside of {}", self.name, output.range));
        }
        if let Some(label) = &self.label
            && !output.labels.is_empty()
            && !output.labels.iter().any(|known| known == label)
        {
            return fault(format!("score {:?} has a label that was not declared", self.name));
        }
        Ok(self)
    }
}

/// `text`, no longer than `bytes_max`, cut at a character's border.
pub(crate) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
    text
}

/// Why there is no score. The names are those of the decision record (`Class::name`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The example has not what the evaluator needs.
    MissingField,
    /// It has it, in a form that the evaluator cannot read.
    InvalidField,
    /// The example is larger than the evaluator's documented cap.
    TooLarge,
    /// The evaluator cannot tell, by its own rules.
    Undecided,
    /// The evaluator's configuration does not fit what the example shows.
    ConfigError,
    /// A model's answer is not the asked structure: not JSON, a wrong label, other keys.
    Parse,
    /// The judging model refused.
    Refusal,
    /// The judging model's answer was cut off at its token limit.
    Truncated,
    /// The provider's filter withheld the answer.
    ContentFilter,
    /// The provider does not accept the key.
    ProviderAuth,
    /// The provider's quota is used up.
    ProviderQuota,
    /// The provider asks to slow down.
    ProviderRate,
    /// The provider is out of order.
    #[serde(rename = "provider_5xx")]
    Provider5xx,
    /// No answer in time.
    Timeout,
    /// The money that was set aside is spent.
    Budget,
    /// Somebody stopped the job.
    Cancelled,
    /// A plugin crashed, answered rubbish, or did not answer.
    PluginFault,
}

/// How often a failure is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same example fails again.
    Never,
    /// Another try may succeed; a second will not.
    Once,
    /// It will succeed some time.
    Later,
}

impl Class {
    /// All classes, for metrics and documentation.
    pub const ALL: [Self; 17] = [
        Self::MissingField,
        Self::InvalidField,
        Self::TooLarge,
        Self::Undecided,
        Self::ConfigError,
        Self::Parse,
        Self::Refusal,
        Self::Truncated,
        Self::ContentFilter,
        Self::ProviderAuth,
        Self::ProviderQuota,
        Self::ProviderRate,
        Self::Provider5xx,
        Self::Timeout,
        Self::Budget,
        Self::Cancelled,
        Self::PluginFault,
    ];

    /// The class in the words of results, metrics and the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingField => "missing_field",
            Self::InvalidField => "invalid_field",
            Self::TooLarge => "too_large",
            Self::Undecided => "undecided",
            Self::ConfigError => "config_error",
            Self::Parse => "parse",
            Self::Refusal => "refusal",
            Self::Truncated => "truncated",
            Self::ContentFilter => "content_filter",
            Self::ProviderAuth => "provider_auth",
            Self::ProviderQuota => "provider_quota",
            Self::ProviderRate => "provider_rate",
            Self::Provider5xx => "provider_5xx",
            Self::Timeout => "timeout",
            Self::Budget => "budget",
            Self::Cancelled => "cancelled",
            Self::PluginFault => "plugin_fault",
        }
    }

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// Whether another try makes sense.
    pub fn retry(self) -> Retry {
        match self {
            Self::ProviderQuota | Self::ProviderRate | Self::Provider5xx | Self::Timeout => Retry::Later,
            Self::Parse | Self::Truncated | Self::PluginFault => Retry::Once,
            Self::MissingField
            | Self::InvalidField
            | Self::TooLarge
            | Self::Undecided
            | Self::ConfigError
            | Self::Refusal
            | Self::ContentFilter
            | Self::ProviderAuth
            | Self::Budget
            | Self::Cancelled => Retry::Never,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// An evaluation that gave no score.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
#[error("{class}: {message}")]
pub struct Failure {
    /// What kind of failure.
    pub class: Class,
    /// What happened, for a person; bounded, and never the judged text.
    pub message: String,
    /// When asking again may help, if somebody said so.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// Messages are cut here, at a character's border.
const MESSAGE_BYTES_MAX: usize = 1 << 10;

impl Failure {
    /// A failure of this class.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: cut(message.into(), MESSAGE_BYTES_MAX), retry_after: None }
    }

    /// The example lacks `field`, looked for at `paths`.
    pub(crate) fn missing(field: &str, paths: &impl fmt::Display) -> Self {
        Self::new(Class::MissingField, format!("{field} is missing: nothing at {paths}"))
    }

    /// `field` is there, and is not `wanted`.
    pub(crate) fn invalid(field: &str, wanted: impl fmt::Display) -> Self {
        Self::new(Class::InvalidField, format!("{field} is not {wanted}"))
    }

    /// `field` measures more than the evaluator bears.
    pub(crate) fn too_large(what: &str, is: usize, max: usize) -> Self {
        Self::new(Class::TooLarge, format!("{what}: {is}, at most {max}"))
    }
}

/// What one evaluation has used up, failed or not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Tokens that the judging model read.
    pub prompt_tokens: u64,
    /// Tokens that it wrote.
    pub completion_tokens: u64,
    /// US dollars, where known.
    pub usd: Option<f64>,
    /// The model that was asked; empty when none was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
}

/// What became of one example.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// At least one score, or why there is none.
    pub result: Result<Vec<Score>, Failure>,
    /// What finding out has cost.
    pub cost: Option<Cost>,
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self { result: Err(failure), cost: None }
    }
}

impl From<Result<Vec<Score>, Failure>> for Outcome {
    fn from(result: Result<Vec<Score>, Failure>) -> Self {
        Self { result, cost: None }
    }
}

impl Outcome {
    /// Holds what a foreign evaluator answered against what it declared: every score checked, at least one, names that differ.
    #[must_use]
    pub fn checked(mut self, description: &Description) -> Self {
        self.result = self.result.and_then(|scores| {
            if scores.is_empty() {
                return Err(Failure::new(Class::PluginFault, "neither a score nor an error"));
            }
            let mut checked: Vec<Score> = Vec::with_capacity(scores.len());
            for score in scores {
                if checked.iter().any(|other| other.name == score.name) {
                    return Err(Failure::new(Class::PluginFault, format!("two scores named {:?}", score.name)));
                }
                let output = description.outputs.iter().find(|output| output.name == score.name);
                checked.push(score.checked(output)?);
            }
            Ok(checked)
        });
        self
    }
}

/// What an evaluator is called, what it needs and what it gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Description {
    /// The name that a job uses.
    pub name: String,
    /// Changes whenever the same example may get another score.
    pub version: String,
    /// A function, or a model's judgement.
    pub kind: Kind,
    /// One sentence.
    pub summary: String,
    /// What it takes out of an example.
    pub fields: Vec<Field>,
    /// What it gives.
    pub outputs: Vec<Output>,
    /// What can be configured.
    pub config: Vec<Key>,
    /// What it can bear.
    pub limits: Limits,
}

/// A value that an evaluator takes out of an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// The evaluator's word for it.
    pub name: Cow<'static, str>,
    /// Without it there is no score.
    pub required: bool,
    /// One sentence.
    pub summary: Cow<'static, str>,
    /// Where it is looked for unless a job's mapping says otherwise; the first that is there counts.
    pub paths: Vec<Cow<'static, str>>,
}

/// A score that an evaluator gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Output {
    /// The score's name.
    pub name: Cow<'static, str>,
    /// Which way is better.
    pub direction: Direction,
    /// Where its numbers lie.
    pub range: Range,
    /// The labels that it may give; empty when it gives none, or free ones.
    pub labels: Vec<Cow<'static, str>>,
}

/// Where numbers lie, both ends inclusive; `None` is open.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    /// The least.
    pub min: Option<f64>,
    /// The greatest.
    pub max: Option<f64>,
}

impl Range {
    /// From 0 to 1.
    pub const UNIT: Self = Self { min: Some(0.0), max: Some(1.0) };
    /// 0 and more.
    pub const COUNT: Self = Self { min: Some(0.0), max: None };

    /// Whether `value` lies in it. NaN lies in none.
    pub fn holds(&self, value: f64) -> bool {
        value.is_finite() && self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |end: Option<f64>| end.map_or_else(|| "..".to_owned(), |end| end.to_string());
        write!(out, "[{}, {}]", end(self.min), end(self.max))
    }
}

/// A key of an evaluator's configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Key {
    /// The key.
    pub name: Cow<'static, str>,
    /// What it does, its unit and bounds.
    pub summary: Cow<'static, str>,
    /// What holds without it; `None` when it must be given.
    pub default: Option<Value>,
}

/// What an evaluator can bear in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Examples in a batch.
    pub batch_examples_max: u32,
    /// Bytes of one field's text.
    pub field_bytes_max: u64,
    /// Batches on their way at the same time.
    pub concurrent_batches_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { batch_examples_max: 1_000, field_bytes_max: 16 << 20, concurrent_batches_max: 16 }
    }
}
