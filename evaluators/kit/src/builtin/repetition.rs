//! How much of the output repeats itself: 1 - distinct n-grams / n-grams, over words (seq-rep-n of Welleck et al. 2020).
//!
//! A model that got stuck in a loop comes near 1. Fewer than n words: 0. n log n.

use serde::Deserialize;

use super::ngrams::{Words, counted, grams};
use super::{Entry, OUTPUT};
use crate::contract::{Direction, Failure, Range, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::{ConfigError, read};

pub(super) const ENTRY: Entry = Entry {
    name: "repetition",
    aliases: &[],
    version: "1",
    summary: "The share of runs of words that were there before.",
    fields: &[OUTPUT],
    output: (Direction::Minimize, Range::UNIT, &[]),
    config: &[("n", "3", "Words in a run, 1 to 4.")],
    build: |config, _| {
        let config: Repetition = read(config)?;
        if !(1..=4).contains(&config.n) {
            return Err(ConfigError::new("n: between 1 and 4"));
        }
        Ok(Box::new(config))
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Repetition {
    n: usize,
}

impl Default for Repetition {
    fn default() -> Self {
        Self { n: 3 }
    }
}

impl Code for Repetition {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let output = fields.text("output")?;
        let words = Words::default().number(output.split_whitespace());
        let grams = grams(&words, self.n);
        let distinct = counted(&grams).count();
        let repeated = if grams.is_empty() { 0.0 } else { (grams.len() - distinct) as f64 / grams.len() as f64 };
        Ok(vec![Score::number(ENTRY.name, repeated, Direction::Minimize).with("ngrams", grams.len())])
    }
}
