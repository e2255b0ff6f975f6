//! Runs of words, as numbers: what BLEU and repetition count. Sorted, not hashed: quicker for a sentence, and no input makes it slow.

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

/// A run of up to four numbers, one behind the other.
pub(super) type Gram = u128;

/// All runs of `n` (1 to 4), sorted.
pub(super) fn grams(words: &[u32], n: usize) -> Vec<Gram> {
    let pack = |window: &[u32]| window.iter().fold(0, |gram, word| gram << 32 | Gram::from(*word));
    let mut grams: Vec<Gram> = words.windows(n).map(pack).collect();
    grams.sort_unstable();
    grams
}

/// Sorted runs, each with how often it occurs.
pub(super) fn counted(sorted: &[Gram]) -> impl Iterator<Item = (Gram, u32)> {
    sorted.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u32))
}
