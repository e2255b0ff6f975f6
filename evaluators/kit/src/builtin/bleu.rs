//! BLEU of one sentence: the geometric mean of the n-gram precisions for n = 1..4, times the brevity penalty.
//!
//! As `sacrebleu.sentence_bleu` computes it (Papineni et al. 2002; Post 2018), divided by 100: tokens `13a`, exponential smoothing,
//! effective order, clipped counts over all references, the closest reference length (the shorter of two). n log n in the words.

use std::borrow::Cow;

use serde::Deserialize;

use super::ngrams::{Words, counted, grams};
use super::{Entry, OUTPUT, REFERENCE, UNIT_UP};
use crate::contract::{Direction, Failure, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::read;

pub(super) const ENTRY: Entry = Entry {
    name: "bleu",
    aliases: &[],
    version: "1",
    summary: "Runs of words in common with the reference (BLEU of one sentence).",
    fields: &[OUTPUT, REFERENCE],
    output: UNIT_UP,
    config: &[("lowercase", "false", "Upper and lower case do not differ.")],
    build: |config, _| Ok(Box::new(read::<Bleu>(config)?)),
};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Bleu {
    lowercase: bool,
}

const ORDER: usize = 4;

impl Code for Bleu {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let output = self.tokens(&fields.text("output")?);
        let references: Vec<String> = fields.texts("reference")?.iter().map(|text| self.tokens(text)).collect();
        let mut words = Words::default();
        let output = words.number(split(&output));
        let references: Vec<Vec<u32>> = references.iter().map(|text| words.number(split(text))).collect();
        Ok(vec![Score::number(ENTRY.name, bleu(&output, &references), Direction::Maximize)])
    }
}

impl Bleu {
    fn tokens(&self, text: &str) -> String {
        let text = text.trim_end_matches(is_space);
        if self.lowercase { tokens_13a(&text.to_lowercase()) } else { tokens_13a(text) }
    }
}

fn bleu(output: &[u32], references: &[Vec<u32>]) -> f64 {
    let mut log_sum = 0.0;
    let mut order = 0;
    let mut any = false;
    let mut smooth = 1.0;
    for n in 1..=ORDER {
        let total = (output.len() + 1).saturating_sub(n);
        if total == 0 {
            break;
        }
        order = n;
        let correct = clipped(output, references, n);
        any |= correct > 0;
        let precision = if correct > 0 {
            correct as f64 / total as f64
        } else {
            smooth *= 2.0;
            1.0 / (smooth * total as f64)
        };
        log_sum += precision.ln();
    }
    if !any {
        return 0.0;
    }
    let closest = references.iter().map(Vec::len).min_by_key(|len| (len.abs_diff(output.len()), *len)).unwrap_or(0);
    let brevity = if output.len() < closest { (1.0 - closest as f64 / output.len() as f64).exp() } else { 1.0 };
    // Rounding may carry the mean of ones a hair over one.
    (brevity * (log_sum / order as f64).exp()).clamp(0.0, 1.0)
}

/// n-grams of the output that a reference has, each at most as often as the reference that has it most.
fn clipped(output: &[u32], references: &[Vec<u32>], n: usize) -> u64 {
    let references: Vec<_> = references.iter().map(|reference| grams(reference, n)).collect();
    let mut references: Vec<_> = references.iter().map(|sorted| counted(sorted).peekable()).collect();
    let mut correct = 0;
    // All are sorted, so each is walked once.
    for (gram, count) in counted(&grams(output, n)) {
        let mut allowed = 0;
        for reference in &mut references {
            while reference.next_if(|(other, _)| *other < gram).is_some() {}
            if let Some((_, count)) = reference.next_if(|(other, _)| *other == gram) {
                allowed = count.max(allowed);
            }
        }
        correct += u64::from(count.min(allowed));
    }
    correct
}

/// The tokenizer of mteval-v13a, as sacrebleu has it: the result is separated by white space.
fn tokens_13a(text: &str) -> String {
    let mut text = Cow::Borrowed(text);
    for (from, to) in [("<skipped>", ""), ("-\n", ""), ("\n", " ")] {
        if text.contains(from) {
            text = Cow::Owned(text.replace(from, to));
        }
    }
    if text.contains('&') {
        for (from, to) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
            text = Cow::Owned(text.replace(from, to));
        }
    }
    let mut spaced = String::with_capacity(text.len() + text.len() / 4 + 2);
    spaced.push(' ');
    for letter in text.chars() {
        // [{-~[-` -&(-+:-@/]
        if matches!(letter, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/') {
            spaced.extend([' ', letter, ' ']);
        } else {
            spaced.push(letter);
        }
    }
    spaced.push(' ');
    let stop = |letter: char| letter == '.' || letter == ',';
    let digit = |letter: char| letter.is_ascii_digit();
    let spaced = pairs(&spaced, |a, b| !digit(a) && stop(b), |a, b, out| out.extend([a, ' ', b, ' ']));
    let spaced = pairs(&spaced, |a, b| stop(a) && !digit(b), |a, b, out| out.extend([' ', a, ' ', b]));
    pairs(&spaced, |a, b| digit(a) && b == '-', |a, b, out| out.extend([a, ' ', b, ' ']))
}

/// Rewrites pairs of neighbours from left to right, as a regular expression of two characters would: no overlaps.
fn pairs(text: &str, wanted: impl Fn(char, char) -> bool, write: impl Fn(char, char, &mut String)) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut letters = text.chars().peekable();
    while let Some(a) = letters.next() {
        match letters.peek() {
            Some(&b) if wanted(a, b) => {
                write(a, b, &mut out);
                letters.next();
            }
            _ => out.push(a),
        }
    }
    out
}

/// Where Python's `split()` splits: Unicode's white space, and the four separators of ASCII.
fn is_space(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{1c}'..='\u{1f}')
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}
