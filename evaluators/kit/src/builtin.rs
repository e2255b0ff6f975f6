//! The evaluators that come with emberd: functions of an example.
//!
//! Promise: pure, without network, clock or randomness; every configuration is typed and validated when it is built; every input is
//! bounded in bytes, and what would take more than linear time has a documented cap in work, whose excess is the failure `too_large`.
//! Each module's head names its formula and where it comes from.
//! Kept by: `tests/it/builtins.rs`, `tests/it/properties.rs`, `tests/it/references.rs` (agreement with the Python packages).
//!
//! - Texts against a reference: [`exact_match`], [`contains`], [`levenshtein`], [`rouge`], [`bleu`].
//! - Texts alone: [`regex`], [`length`], [`repetition`], [`refusal`], [`pii`], [`toxicity`], [`language`].
//! - JSON: [`json_valid`], [`json_schema`], [`json_distance`]. Lists of labels: [`f_score`].
//! - What a run did: [`tools`], [`tool_args`], [`budget`], [`finish`].

use std::borrow::Cow;

use serde_json::Value;

use crate::contract::{Description, Direction, Field, Key, Kind, Limits, Output, Range};
use crate::evaluator::Code;
use crate::spec::ConfigError;

mod bleu;
mod budget;
mod contains;
mod exact_match;
mod f_score;
mod finish;
mod json_distance;
mod json_schema;
mod json_valid;
mod language;
mod length;
mod levenshtein;
mod ngrams;
mod pii;
mod refusal;
mod regex;
mod repetition;
mod rouge;
mod tool_args;
mod tools;
mod toxicity;

/// All built-ins, in the order of the documentation.
pub(crate) static ENTRIES: [Entry; 23] = [
    exact_match::ENTRY,
    contains::ENTRY,
    regex::ENTRY,
    levenshtein::ENTRY,
    rouge::ENTRY,
    bleu::ENTRY,
    json_valid::ENTRY,
    json_schema::ENTRY,
    json_distance::ENTRY,
    length::ENTRY,
    repetition::ENTRY,
    refusal::ENTRY,
    pii::ENTRY,
    toxicity::ENTRY,
    language::ENTRY,
    finish::ENTRY,
    tools::SEQUENCE,
    tools::CALLS,
    tool_args::ENTRY,
    budget::LATENCY,
    budget::COST,
    budget::TOKENS,
    f_score::ENTRY,
];

/// What builds a built-in out of its configuration; it may change the description (names of scores).
type Build = fn(Value, &mut Description) -> Result<Box<dyn Code>, ConfigError>;

/// A built-in, as it is declared.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// Other names that a job may use.
    pub(crate) aliases: &'static [&'static str],
    /// Changes whenever the same example may get another score.
    pub(crate) version: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) fields: &'static [FieldOf],
    pub(crate) output: OutputOf,
    pub(crate) config: &'static [KeyOf],
    pub(crate) build: Build,
}

/// (name, required, summary, paths)
pub(crate) type FieldOf = (&'static str, bool, &'static str, &'static [&'static str]);
/// (direction, range, labels)
pub(crate) type OutputOf = (Direction, Range, &'static [&'static str]);
/// (name, default as JSON or "" when it must be given, summary)
pub(crate) type KeyOf = (&'static str, &'static str, &'static str);

pub(crate) const OUTPUT: FieldOf = ("output", true, "What was answered.", &["output", "root.output"]);
pub(crate) const REFERENCE: FieldOf = ("reference", true, "What would have been right.", &["reference"]);
/// The labels of a check that passes or does not, as Phoenix's server names them.
pub(crate) const TRUE_FALSE: &[&str] = &["true", "false"];
pub(crate) const PASS_FAIL: OutputOf = (Direction::Maximize, Range::UNIT, TRUE_FALSE);
pub(crate) const UNIT_UP: OutputOf = (Direction::Maximize, Range::UNIT, &[]);

/// The label of a check.
pub(crate) fn true_false(passed: bool) -> &'static str {
    if passed { "true" } else { "false" }
}

/// 1 or 0.
pub(crate) fn zero_one(passed: bool) -> f64 {
    if passed { 1.0 } else { 0.0 }
}

impl Entry {
    pub(crate) fn describe(&self) -> Description {
        let field = |&(name, required, summary, paths): &FieldOf| Field {
            name: Cow::Borrowed(name),
            required,
            summary: Cow::Borrowed(summary),
            paths: paths.iter().copied().map(Cow::Borrowed).collect(),
        };
        let key = |&(name, default, summary): &KeyOf| Key {
            name: Cow::Borrowed(name),
            summary: Cow::Borrowed(summary),
            default: serde_json::from_str(default).ok(),
        };
        Description {
            name: self.name.to_owned(),
            version: self.version.to_owned(),
            kind: Kind::Code,
            summary: self.summary.to_owned(),
            fields: self.fields.iter().map(field).collect(),
            outputs: vec![output(self.name, self.output)],
            config: self.config.iter().map(key).collect(),
            limits: Limits::default(),
        }
    }
}

/// A score's declaration.
pub(crate) fn output(name: impl Into<Cow<'static, str>>, (direction, range, labels): OutputOf) -> Output {
    Output { name: name.into(), direction, range, labels: labels.iter().copied().map(Cow::Borrowed).collect() }
}

/// The built-in of that name or alias.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name || entry.aliases.contains(&name))
}
