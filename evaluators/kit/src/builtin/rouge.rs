//! ROUGE-L: the longest common subsequence of words, as precision, recall and their harmonic mean.
//!
//! With L = LCS(output, reference) in words: precision = L / words of the output, recall = L / words of the reference, F = 2PR / (P + R)
//! (Lin 2004; F with beta 1 as in Google's `rouge-score`, whose tokens are the default here: lower case, runs of a-z and 0-9, no stemmer).
//! `tokens = "unicode"` takes runs of letters and digits of any script instead. Several references: the best F.
//! Cap: words of output x words of reference of at most 10^10 pairs.

use std::borrow::Cow;

use serde::Deserialize;

use super::levenshtein::{PAIRS_MAX, spend};
use super::ngrams::Words;
use super::{Entry, OUTPUT, REFERENCE, UNIT_UP};
use crate::contract::{Direction, Failure, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::read;

pub(super) const ENTRY: Entry = Entry {
    name: "rouge_l",
    aliases: &["rougeL", "rouge"],
    version: "1",
    summary: "Words in common with the reference, in their order (ROUGE-L).",
    fields: &[OUTPUT, REFERENCE],
    output: UNIT_UP,
    config: &[
        ("measure", "\"f\"", "f, precision or recall."),
        ("tokens", "\"rouge_score\"", "rouge_score (a-z and 0-9) or unicode (letters and digits of any script)."),
    ],
    build: |config, _| Ok(Box::new(read::<Rouge>(config)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rouge {
    measure: Measure,
    tokens: Tokens,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Measure {
    F,
    Precision,
    Recall,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tokens {
    RougeScore,
    Unicode,
}

impl Default for Rouge {
    fn default() -> Self {
        Self { measure: Measure::F, tokens: Tokens::RougeScore }
    }
}

#[derive(Clone, Copy, Default)]
struct Found {
    precision: f64,
    recall: f64,
    f: f64,
}

impl Code for Rouge {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let output = fields.text("output")?;
        let references = fields.texts("reference")?;
        let output_lower = lower(&output);
        let references_lower: Vec<_> = references.iter().map(|reference| lower(reference)).collect();
        let mut words = Words::default();
        let output = words.number(self.split(&output_lower));
        let mut best: Option<Found> = None;
        let mut pairs_left = PAIRS_MAX;
        for reference in &references_lower {
            let reference = words.number(self.split(reference));
            spend(&mut pairs_left, output.len(), reference.len())?;
            let found = compare(&output, &reference);
            if best.is_none_or(|best| found.f > best.f) {
                best = Some(found);
            }
        }
        let Found { precision, recall, f } = best.unwrap_or_default();
        let value = match self.measure {
            Measure::F => f,
            Measure::Precision => precision,
            Measure::Recall => recall,
        };
        let score = Score::number(ENTRY.name, value, Direction::Maximize);
        Ok(vec![score.with("precision", precision).with("recall", recall).with("f", f)])
    }
}

impl Rouge {
    fn split<'a>(&self, text: &'a str) -> impl Iterator<Item = &'a str> {
        let tokens = self.tokens;
        text.split(move |letter: char| match tokens {
            Tokens::RougeScore => !letter.is_ascii_alphanumeric(),
            Tokens::Unicode => !letter.is_alphanumeric(),
        })
        .filter(|word| !word.is_empty())
    }
}

/// Python's `lower` on the whole text, as rouge-score does before it looks for a-z: the Kelvin sign becomes k.
fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        Cow::Owned(text.to_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

fn compare(output: &[u32], reference: &[u32]) -> Found {
    if output.is_empty() || reference.is_empty() {
        return Found::default();
    }
    let common = rapidfuzz::distance::lcs_seq::similarity(output.iter().copied(), reference.iter().copied()) as f64;
    let (precision, recall) = (common / output.len() as f64, common / reference.len() as f64);
    let f = if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 };
    Found { precision, recall, f }
}
