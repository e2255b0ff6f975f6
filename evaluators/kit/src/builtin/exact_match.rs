//! Output equals reference, character by character; phoenix-evals' `exact_match`. No normalisation unless configured.
//!
//! A list of references: any will do. Values that are not strings are compared as JSON, so the order of keys does not matter.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Entry, OUTPUT, PASS_FAIL, REFERENCE, true_false, zero_one};
use crate::contract::{Direction, Failure, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::read;

pub(super) const ENTRY: Entry = Entry {
    name: "exact_match",
    aliases: &[],
    version: "1",
    summary: "The output equals the reference.",
    fields: &[OUTPUT, REFERENCE],
    output: PASS_FAIL,
    config: &[
        ("case_sensitive", "true", "Upper and lower case differ."),
        ("trim", "false", "White space at both ends does not count."),
    ],
    build: |config, _| Ok(Box::new(read::<ExactMatch>(config)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExactMatch {
    case_sensitive: bool,
    trim: bool,
}

impl Default for ExactMatch {
    fn default() -> Self {
        Self { case_sensitive: true, trim: false }
    }
}

impl Code for ExactMatch {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let output = fields.text("output")?;
        let references = fields.texts("reference")?;
        let output_as = self.normal(&output);
        let same = references.iter().any(|reference| self.normal(reference) == output_as)
            // A list as output and the same list as reference.
            || (references.len() > 1 && fields.value("output")? == fields.value("reference")?);
        Ok(vec![Score::number(ENTRY.name, zero_one(same), Direction::Maximize).label(true_false(same))])
    }
}

impl ExactMatch {
    fn normal<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text = if self.trim { text.trim() } else { text };
        if self.case_sensitive { Cow::Borrowed(text) } else { Cow::Owned(text.to_lowercase()) }
    }
}
