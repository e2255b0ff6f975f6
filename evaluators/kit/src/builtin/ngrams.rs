//! Runs of words, as numbers: what BLEU and repetition count.

use std::collections::HashMap;

/// Words to numbers, the same word to the same number.
#[derive(Default)]
pub(super) struct Words<'a> {
    numbers: HashMap<&'a str, u32>,
}

impl<'a> Words<'a> {
    pub(super) fn number(&mut self, words: impl Iterator<Item = &'a str>) -> Vec<u32> {
        words
            .map(|word| {
                let next = self.numbers.len() as u32;
                *self.numbers.entry(word).or_insert(next)
            })
            .collect()
    }
}

/// A run of up to four numbers; the rest is filled up with a number that no word has.
pub(super) type Gram = [u32; 4];

/// All runs of `n` (1 to 4).
pub(super) fn grams(words: &[u32], n: usize) -> impl Iterator<Item = Gram> {
    words.windows(n).map(|window| {
        let mut gram = [u32::MAX; 4];
        for (place, word) in gram.iter_mut().zip(window) {
            *place = *word;
        }
        gram
    })
}

/// How often each run occurs.
pub(super) fn counts(words: &[u32], n: usize) -> HashMap<Gram, u32> {
    let mut counts = HashMap::with_capacity(words.len().saturating_sub(n - 1));
    for gram in grams(words, n) {
        *counts.entry(gram).or_insert(0) += 1;
    }
    counts
}
