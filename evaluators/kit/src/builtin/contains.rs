//! The output contains any, or all, of some words; Phoenix's server-side `contains`.
//!
//! Words come from the configuration, or, when it has none, from the reference (a string, or a list of strings). Substrings count.
//! Cap: 10^7 hits, which only many words inside of each other reach.

use aho_corasick::{AhoCorasick, MatchKind};
use serde::Deserialize;

use super::{Entry, OUTPUT, PASS_FAIL, true_false, zero_one};
use crate::contract::{Direction, Failure, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::{ConfigError, read};

pub(super) const ENTRY: Entry = Entry {
    name: "contains",
    aliases: &[],
    version: "1",
    summary: "The output contains the words.",
    fields: &[OUTPUT, ("reference", false, "The words, when the configuration has none.", &["reference"])],
    output: PASS_FAIL,
    config: &[
        ("words", "null", "A list of words, or a string with commas; at most 1000. Null: the reference."),
        ("case_sensitive", "false", "Upper and lower case of ASCII letters differ."),
        ("require_all", "false", "All words must be there, not only one."),
    ],
    build: |config, _| Contains::built(read(config)?),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    words: Option<Words>,
    #[serde(default)]
    case_sensitive: bool,
    #[serde(default)]
    require_all: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    List(Vec<String>),
    Commas(String),
}

/// Words inside of words inside of words may hit as often as there are words, at each place of the text.
pub(super) const HITS_MAX: usize = 10_000_000;

struct Contains {
    words: Option<(AhoCorasick, usize)>,
    config: Config,
}

impl Contains {
    fn built(mut config: Config) -> Result<Box<dyn Code>, ConfigError> {
        let words = match config.words.take() {
            None => None,
            Some(Words::List(words)) => Some(words),
            Some(Words::Commas(text)) => Some(text.split(',').map(|word| word.trim().to_owned()).collect()),
        };
        if words
            .as_ref()
            .is_some_and(|words| words.is_empty() || words.len() > 1000 || words.iter().any(String::is_empty))
        {
            return Err(ConfigError::new("words: between 1 and 1000, none empty"));
        }
        let words = words.map(|words| Ok((searcher(&words, config.case_sensitive)?, words.len()))).transpose()?;
        Ok(Box::new(Self { words, config }))
    }
}

/// Overlapping words need the standard kind: each is looked for by itself.
fn searcher<T: AsRef<[u8]>>(words: &[T], case_sensitive: bool) -> Result<AhoCorasick, ConfigError> {
    AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        .ascii_case_insensitive(!case_sensitive)
        .build(words)
        .map_err(|error| ConfigError::new(format!("words: {error}")))
}

impl Code for Contains {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let output = fields.text("output")?;
        let (found, of) = match &self.words {
            Some((words, count)) => (self.count(words, *count, &output)?, *count),
            None => {
                let references = fields.texts("reference")?;
                if references.len() > 1000 || references.iter().any(|word| word.is_empty()) {
                    return Err(Failure::invalid("reference", "between 1 and 1000 words, none empty"));
                }
                let words: Vec<&str> = references.iter().map(|word| &**word).collect();
                let bytes: usize = words.iter().map(|word| word.len()).sum();
                // The automaton takes some hundred bytes of memory for each of its states.
                if bytes > 64 << 10 {
                    return Err(Failure::too_large("bytes of reference", bytes, 64 << 10));
                }
                let searcher = searcher(&words, self.config.case_sensitive)
                    .map_err(|error| Failure::invalid("reference", format!("a list of words: {error}")))?;
                (self.count(&searcher, words.len(), &output)?, words.len())
            }
        };
        let passed = if self.config.require_all { found == of } else { found > 0 };
        let because =
            if self.config.require_all || found == 0 { format!("{found} of {of} words found") } else { "found".into() };
        Ok(vec![
            Score::number(ENTRY.name, zero_one(passed), Direction::Maximize).label(true_false(passed)).because(because),
        ])
    }
}

impl Contains {
    /// How many of the words are there; stops early when that decides.
    fn count(&self, words: &AhoCorasick, count: usize, text: &str) -> Result<usize, Failure> {
        if !self.config.require_all || count == 1 {
            return Ok(usize::from(words.is_match(text)));
        }
        let mut seen = vec![false; count];
        let mut found = 0;
        for (hits, hit) in words.find_overlapping_iter(text).enumerate() {
            if hits == HITS_MAX {
                return Err(Failure::too_large("hits of the words", hits + 1, HITS_MAX));
            }
            if !std::mem::replace(&mut seen[hit.pattern().as_usize()], true) {
                found += 1;
                if found == count {
                    break;
                }
            }
        }
        Ok(found)
    }
}
