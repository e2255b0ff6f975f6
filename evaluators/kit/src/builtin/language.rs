//! The output is in one of the expected languages, by scripts and trigrams (crate `whatlang`: 70 languages), over its first 8 KiB.
//!
//! A text that does not tell (too short, numbers, below `min_confidence`) is the failure `undecided`, not a wrong language.

use serde::Deserialize;
use whatlang::Lang;

use super::{Entry, OUTPUT, true_false, zero_one};
use crate::contract::{Class, Direction, Failure, Range, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::{ConfigError, read};

pub(super) const ENTRY: Entry = Entry {
    name: "language",
    aliases: &[],
    version: "1",
    summary: "The output is in an expected language.",
    fields: &[OUTPUT],
    output: (Direction::Maximize, Range::UNIT, super::TRUE_FALSE),
    config: &[
        ("expected", "", "A language or a list: ISO 639-3 (deu) or 639-1 (de)."),
        ("min_confidence", "0.25", "Below it, 0 to 1, the text does not tell."),
    ],
    build: |config, _| Language::built(read(config)?),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    expected: OneOrMany,
    #[serde(default = "quarter")]
    min_confidence: f64,
}

/// Right sentences of ten words come to 0.4 and more, wrong guesses at three words stay below 0.1.
fn quarter() -> f64 {
    0.25
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

struct Language {
    expected: Vec<Lang>,
    min_confidence: f64,
}

const TEXT_BYTES_READ: usize = 8 << 10;

impl Language {
    fn built(config: Config) -> Result<Box<dyn Code>, ConfigError> {
        let names = match config.expected {
            OneOrMany::One(name) => vec![name],
            OneOrMany::Many(names) => names,
        };
        let known = |name: &String| {
            let name = name.to_ascii_lowercase();
            let three = TWO.iter().find(|(two, _)| *two == name).map_or(&*name, |(_, three)| three);
            Lang::from_code(three)
                .ok_or_else(|| ConfigError::new(format!("expected: {name:?} is not a language that is known here")))
        };
        let expected: Vec<Lang> = names.iter().map(known).collect::<Result<_, _>>()?;
        if expected.is_empty() {
            return Err(ConfigError::new("expected: at least one language"));
        }
        if !(0.0..=1.0).contains(&config.min_confidence) {
            return Err(ConfigError::new("min_confidence: between 0 and 1"));
        }
        Ok(Box::new(Self { expected, min_confidence: config.min_confidence }))
    }
}

impl Code for Language {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let output = fields.text("output")?;
        let text = &output[..output.floor_char_boundary(TEXT_BYTES_READ)];
        let unclear = || Failure::new(Class::Undecided, "the text does not tell its language");
        let found =
            whatlang::detect(text).filter(|found| found.confidence() >= self.min_confidence).ok_or_else(unclear)?;
        let passed = self.expected.contains(&found.lang());
        let score = Score::number(ENTRY.name, zero_one(passed), Direction::Maximize).label(true_false(passed));
        let score = score.because(format!("it is {}", found.lang().eng_name()));
        Ok(vec![score.with("language", found.lang().code()).with("confidence", found.confidence())])
    }
}

/// ISO 639-1 for the languages that have it.
const TWO: [(&str, &str); 68] = [
    ("af", "afr"),
    ("ak", "aka"),
    ("am", "amh"),
    ("ar", "ara"),
    ("az", "aze"),
    ("be", "bel"),
    ("bn", "ben"),
    ("bg", "bul"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("zh", "cmn"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("eo", "epo"),
    ("et", "est"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("gu", "guj"),
    ("he", "heb"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("hy", "hye"),
    ("id", "ind"),
    ("it", "ita"),
    ("jv", "jav"),
    ("ja", "jpn"),
    ("kn", "kan"),
    ("ka", "kat"),
    ("km", "khm"),
    ("ko", "kor"),
    ("la", "lat"),
    ("lv", "lav"),
    ("lt", "lit"),
    ("ml", "mal"),
    ("mr", "mar"),
    ("mk", "mkd"),
    ("my", "mya"),
    ("ne", "nep"),
    ("nl", "nld"),
    ("nb", "nob"),
    ("no", "nob"),
    ("or", "ori"),
    ("pa", "pan"),
    ("fa", "pes"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("si", "sin"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sn", "sna"),
    ("es", "spa"),
    ("sr", "srp"),
    ("sv", "swe"),
    ("ta", "tam"),
    ("te", "tel"),
    ("tl", "tgl"),
    ("th", "tha"),
    ("tk", "tuk"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("ur", "urd"),
    ("uz", "uzb"),
    ("vi", "vie"),
];
