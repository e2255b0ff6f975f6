//! Precision, recall and F of a list of labels against the expected list, place by place; phoenix-evals' `PrecisionRecallFScore`.
//!
//! For each class: P = TP / (TP + FP), R = TP / (TP + FN), F = (1 + b²) P R / (b² P + R), 0 when both are 0. `macro`: the mean over the
//! classes; `weighted`: weighted by how often a class is expected; `micro`: of the summed counts. With `positive_label` (or labels that are
//! exactly 0 and 1, under `macro`): of that class alone. These are scikit-learn's `precision_recall_fscore_support` and its names for the
//! averages. `zero_division` stands for 0 / 0.
//!
//! Three scores: `precision`, `recall`, `f1` (or `f{beta}`, a dot as an underscore), with the average as suffix unless it is `macro`.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::json_valid::parsed;
use super::{Entry, FieldOf, REFERENCE, UNIT_UP, output};
use crate::contract::{Direction, Failure, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::{ConfigError, read};

const LABELS: FieldOf = ("output", true, "The labels that were given: a list of texts or whole numbers.", &["output"]);

pub(super) const ENTRY: Entry = Entry {
    name: "precision_recall_f",
    aliases: &["precision_recall_fscore", "f_score"],
    version: "1",
    summary: "Precision, recall and F of a list of labels.",
    fields: &[LABELS, REFERENCE],
    output: UNIT_UP,
    config: &[
        ("beta", "1.0", "Weight of recall, over 0."),
        ("average", "\"macro\"", "macro, micro or weighted."),
        ("positive_label", "null", "The class that counts; a text or a whole number."),
        ("zero_division", "0.0", "What 0 / 0 is, between 0 and 1."),
    ],
    build: |config, description| {
        let scores = FScore::new(read(config)?)?;
        description.outputs = scores.names.iter().map(|name| output(name.clone(), UNIT_UP)).collect();
        Ok(Box::new(scores))
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    beta: f64,
    average: Average,
    positive_label: Option<Label>,
    zero_division: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { beta: 1.0, average: Average::Macro, positive_label: None, zero_division: 0.0 }
    }
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Average {
    Macro,
    Micro,
    Weighted,
}

/// True and false are 1 and 0, as in Python.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(untagged)]
enum Label {
    Number(i64),
    Text(String),
}

struct FScore {
    config: Config,
    names: [Cow<'static, str>; 3],
}

const LABELS_MAX: usize = 1_000_000;

impl FScore {
    fn new(config: Config) -> Result<Self, ConfigError> {
        if !config.beta.is_finite() || config.beta <= 0.0 || config.beta > 1e6 {
            return Err(ConfigError::new("beta: over 0, at most 1000000"));
        }
        if !(0.0..=1.0).contains(&config.zero_division) {
            return Err(ConfigError::new("zero_division: between 0 and 1"));
        }
        let suffix = match config.average {
            // One class is counted by itself, whatever the average is.
            _ if config.positive_label.is_some() => "",
            Average::Macro => "",
            Average::Micro => "_micro",
            Average::Weighted => "_weighted",
        };
        let f = format!("f{}", config.beta).replace('.', "_");
        let names = [format!("precision{suffix}"), format!("recall{suffix}"), format!("{f}{suffix}")].map(Cow::Owned);
        Ok(Self { config, names })
    }
}

#[derive(Clone, Copy, Default)]
struct Counts {
    right: u64,
    given: u64,
    expected: u64,
}

#[derive(Clone, Copy)]
struct Triple([f64; 3]);

impl Code for FScore {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let (expected, given) = (labels(fields, "reference")?, labels(fields, "output")?);
        if expected.len() != given.len() {
            return Err(Failure::invalid(
                "output",
                format!("as long as the reference: {} and {}", given.len(), expected.len()),
            ));
        }
        if expected.is_empty() {
            return Err(Failure::invalid("reference", "a list with at least one label"));
        }
        let classes = count(&expected, &given);
        let Triple(values) = match self.positive(&classes) {
            Some(label) => {
                let class = classes.iter().find(|(class, _)| *class == label);
                let (_, counts) =
                    class.ok_or_else(|| Failure::invalid("reference", "a list with the positive label"))?;
                self.of(*counts)
            }
            None => self.averaged(&classes),
        };
        let score = |(name, value): (&Cow<'static, str>, f64)| {
            // Rounding may carry a mean of ones a hair over one.
            Score::number(name.clone(), value.clamp(0.0, 1.0), Direction::Maximize)
        };
        Ok(self.names.iter().zip(values).map(score).collect())
    }
}

impl FScore {
    /// The class that counts alone.
    fn positive<'a>(&'a self, classes: &[(&'a Label, Counts)]) -> Option<&'a Label> {
        static ONE: Label = Label::Number(1);
        if let Some(label) = &self.config.positive_label {
            return Some(label);
        }
        let is_binary = classes.len() == 2 && classes.iter().all(|(label, _)| matches!(label, Label::Number(0 | 1)));
        (self.config.average == Average::Macro && is_binary).then_some(&ONE)
    }

    fn averaged(&self, classes: &[(&Label, Counts)]) -> Triple {
        let mean = |weight: fn(&Counts) -> f64| {
            let total: f64 = classes.iter().map(|(_, counts)| weight(counts)).sum();
            let mut sums = [0.0; 3];
            for (_, counts) in classes {
                for (sum, value) in sums.iter_mut().zip(self.of(*counts).0) {
                    *sum += value * weight(counts);
                }
            }
            Triple(sums.map(|sum| sum / total))
        };
        match self.config.average {
            Average::Macro => mean(|_| 1.0),
            // The lists are not empty, so some class is expected.
            Average::Weighted => mean(|counts| counts.expected as f64),
            Average::Micro => {
                let all = classes.iter().fold(Counts::default(), |sum, (_, counts)| Counts {
                    right: sum.right + counts.right,
                    given: sum.given + counts.given,
                    expected: sum.expected + counts.expected,
                });
                self.of(all)
            }
        }
    }

    fn of(&self, counts: Counts) -> Triple {
        let share = |of: u64| if of == 0 { self.config.zero_division } else { counts.right as f64 / of as f64 };
        let (precision, recall) = (share(counts.given), share(counts.expected));
        let beta = self.config.beta * self.config.beta;
        let f = if precision == 0.0 && recall == 0.0 {
            0.0
        } else {
            (1.0 + beta) * precision * recall / (beta * precision + recall)
        };
        Triple([precision, recall, f])
    }
}

/// Counts by class, in the order in which classes are first seen: expected, then given.
fn count<'a>(expected: &'a [Label], given: &'a [Label]) -> Vec<(&'a Label, Counts)> {
    let mut places: HashMap<&Label, usize> = HashMap::new();
    let mut classes: Vec<(&Label, Counts)> = Vec::new();
    let mut place = |label: &'a Label, classes: &mut Vec<(&'a Label, Counts)>| {
        *places.entry(label).or_insert_with(|| {
            classes.push((label, Counts::default()));
            classes.len() - 1
        })
    };
    for label in expected {
        let at = place(label, &mut classes);
        classes[at].1.expected += 1;
    }
    for (label, wanted) in given.iter().zip(expected) {
        let at = place(label, &mut classes);
        classes[at].1.given += 1;
        classes[at].1.right += u64::from(label == wanted);
    }
    classes
}

fn labels(fields: Fields<'_>, name: &str) -> Result<Vec<Label>, Failure> {
    let wanted = "a list of texts or whole numbers";
    let value = parsed(fields, name)?.map_err(|_| Failure::invalid(name, wanted))?;
    let Value::Array(items) = &*value else { return Err(Failure::invalid(name, wanted)) };
    if items.len() > LABELS_MAX {
        return Err(Failure::too_large(&format!("labels in {name}"), items.len(), LABELS_MAX));
    }
    let label = |item: &Value| match item {
        Value::String(text) => Some(Label::Text(text.clone())),
        Value::Bool(yes) => Some(Label::Number(i64::from(*yes))),
        other => other.as_i64().map(Label::Number),
    };
    items.iter().map(|item| label(item).ok_or_else(|| Failure::invalid(name, wanted))).collect()
}
