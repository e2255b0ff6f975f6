//! Edit distance between output and reference, in Unicode characters.
//!
//! | measure | formula | the same in Python |
//! |---|---|---|
//! | `ratio` | 1 - indel(a, b) / (len a + len b); indel: insertions and deletions only | `Levenshtein.ratio`, `rapidfuzz.distance.Indel.normalized_similarity` |
//! | `similarity` | 1 - levenshtein(a, b) / max(len a, len b) | `rapidfuzz.distance.Levenshtein.normalized_similarity` |
//! | `distance` | levenshtein(a, b), less is better | `Levenshtein.distance`, Phoenix's `levenshtein_distance` |
//!
//! Levenshtein 1966; computed bit-parallel (Hyyrö 2003) by the crate `rapidfuzz`. Cap: len a x len b of at most 10^10 pairs (two texts of
//! 100 000 characters), beyond which it is `too_large`; equal texts have no cap. Several references: the best.

use serde::Deserialize;

use super::{Entry, OUTPUT, REFERENCE, UNIT_UP, output};
use crate::contract::{Direction, Failure, Range, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::read;

pub(super) const ENTRY: Entry = Entry {
    name: "levenshtein_ratio",
    aliases: &["levenshtein"],
    version: "1",
    summary: "How alike output and reference are, by edit distance.",
    fields: &[OUTPUT, REFERENCE],
    output: UNIT_UP,
    config: &[
        ("measure", "\"ratio\"", "ratio, similarity or distance: see the formulas."),
        ("case_sensitive", "true", "Upper and lower case differ."),
    ],
    build: |config, description| {
        let config: Levenshtein = read(config)?;
        if config.measure == Measure::Distance {
            description.outputs = vec![output(ENTRY.name, (Direction::Minimize, Range::COUNT, &[]))];
        }
        Ok(Box::new(config))
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Levenshtein {
    measure: Measure,
    case_sensitive: bool,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Measure {
    Ratio,
    Similarity,
    Distance,
}

impl Default for Levenshtein {
    fn default() -> Self {
        Self { measure: Measure::Ratio, case_sensitive: true }
    }
}

/// Pairs of characters; some 64 of them are one step.
pub(super) const PAIRS_MAX: u64 = 10_000_000_000;

impl Code for Levenshtein {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let output = fields.text("output")?;
        let mut best: Option<f64> = None;
        let references = fields.texts("reference")?;
        let mut pairs_left = PAIRS_MAX;
        for reference in &references {
            let value = if self.case_sensitive {
                self.measure(&output, reference, &mut pairs_left)?
            } else {
                self.measure(&output.to_lowercase(), &reference.to_lowercase(), &mut pairs_left)?
            };
            best = Some(match best {
                Some(best) if self.measure == Measure::Distance => best.min(value),
                Some(best) => best.max(value),
                None => value,
            });
        }
        let direction = if self.measure == Measure::Distance { Direction::Minimize } else { Direction::Maximize };
        let best = best.ok_or_else(|| Failure::invalid("reference", "a text"))?;
        Ok(vec![Score::number(ENTRY.name, best, direction)])
    }
}

impl Levenshtein {
    fn measure(&self, a: &str, b: &str, pairs_left: &mut u64) -> Result<f64, Failure> {
        if a == b {
            return Ok(if self.measure == Measure::Distance { 0.0 } else { 1.0 });
        }
        // One pass each: rapidfuzz walks its texts several times, and from both ends.
        let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
        spend(pairs_left, a.len(), b.len())?;
        let (a, b) = (a.iter().copied(), b.iter().copied());
        Ok(match self.measure {
            Measure::Ratio => rapidfuzz::distance::indel::normalized_similarity(a, b),
            Measure::Similarity => rapidfuzz::distance::levenshtein::normalized_similarity(a, b),
            Measure::Distance => rapidfuzz::distance::levenshtein::distance(a, b) as f64,
        })
    }
}

/// Takes a x b pairs off what is left.
pub(super) fn spend(pairs_left: &mut u64, a: usize, b: usize) -> Result<(), Failure> {
    let pairs = (a as u64).saturating_mul(b as u64);
    *pairs_left = pairs_left.checked_sub(pairs).ok_or_else(|| {
        Failure::too_large(
            "lengths of output and reference, multiplied",
            usize::try_from(pairs).unwrap_or(usize::MAX),
            PAIRS_MAX as usize,
        )
    })?;
    Ok(())
}
