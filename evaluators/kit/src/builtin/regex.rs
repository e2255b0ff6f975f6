//! The output matches a regular expression; phoenix-evals' `MatchesRegex`, Phoenix's server-side `regex`.
//!
//! The dialect is that of Rust's `regex`: linear in the text, so without look-around and back-references (a pattern with them is refused
//! when the job is made). The compiled pattern is at most 1 MiB.

use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use super::{Entry, OUTPUT, PASS_FAIL, true_false, zero_one};
use crate::contract::{Direction, Failure, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::{ConfigError, read};

pub(super) const ENTRY: Entry = Entry {
    name: "regex",
    aliases: &["matches_regex"],
    version: "1",
    summary: "The output matches the pattern.",
    fields: &[OUTPUT],
    output: PASS_FAIL,
    config: &[
        ("pattern", "", "The regular expression, of at most 4096 bytes."),
        ("full_match", "false", "The whole output must match, not a part of it."),
        ("case_sensitive", "true", "Upper and lower case differ."),
        ("must_match", "true", "False: it is right when nothing matches."),
    ],
    build: |config, _| Matches::built(read(config)?),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    pattern: String,
    #[serde(default)]
    full_match: bool,
    #[serde(default = "yes")]
    case_sensitive: bool,
    #[serde(default = "yes")]
    must_match: bool,
}

fn yes() -> bool {
    true
}

struct Matches {
    pattern: Regex,
    must_match: bool,
}

const PATTERN_BYTES_MAX: usize = 4096;
/// Counting all matches may take quadratic time, so it is done in short texts only.
const COUNTED_BYTES_MAX: usize = 4096;

impl Matches {
    fn built(config: Config) -> Result<Box<dyn Code>, ConfigError> {
        if config.pattern.len() > PATTERN_BYTES_MAX {
            return Err(ConfigError::new(format!("pattern: longer than {PATTERN_BYTES_MAX} bytes")));
        }
        // By itself first: `a)|(b` must not become a pattern by what is put around it.
        compile(&config.pattern, config.case_sensitive)?;
        let text = if config.full_match { format!(r"\A(?:{})\z", config.pattern) } else { config.pattern };
        Ok(Box::new(Self { pattern: compile(&text, config.case_sensitive)?, must_match: config.must_match }))
    }
}

fn compile(pattern: &str, case_sensitive: bool) -> Result<Regex, ConfigError> {
    RegexBuilder::new(pattern)
        .case_insensitive(!case_sensitive)
        .size_limit(1 << 20)
        .dfa_size_limit(4 << 20)
        .build()
        .map_err(|error| ConfigError::new(format!("pattern: {error}")))
}

impl Code for Matches {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let output = fields.text("output")?;
        let because = if output.len() > COUNTED_BYTES_MAX {
            if self.pattern.is_match(&output) { "the pattern matches".to_owned() } else { String::new() }
        } else {
            match self.pattern.find_iter(&output).count() {
                0 => String::new(),
                count => format!("matches: {count}"),
            }
        };
        let passed = because.is_empty() != self.must_match;
        let because = if because.is_empty() { "nothing matches".to_owned() } else { because };
        Ok(vec![
            Score::number(ENTRY.name, zero_one(passed), Direction::Maximize).label(true_false(passed)).because(because),
        ])
    }
}
