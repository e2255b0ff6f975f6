//! What must not be kept is taken out of spans before anything keeps them.
//!
//! Promise: a rule reaches every text of a request (`model::wire::reword` says which), also inside lists, inside JSON, and inside JSON
//! in JSON, however names are split between dots and nesting. What comes out is well-formed, has the same spans and ids, and comes out
//! the same if it goes in again, but for attributes that are hashed whole. What cannot be looked into is masked.
//! On the way: between the walk and the append (`export`): log, Phoenix, rows, archive and judges see what comes out, and nothing else.
//! Without rules nothing is done, and nothing is looked at.
//! Not here: the walk over OTLP (`model::wire`), the configuration's form (`daemon::config`).
//! Kept by: `tests`, `daemon`'s `tests/it/canary.rs`, `fuzz`'s target `redact`.
//!
//! - `rule`, `presets`: what is looked for. `words`: one text. `json`: a text that is JSON. `path`: where a text stands.

mod json;
mod path;
mod presets;
mod rule;
mod words;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use emberd_model::Flags;
use emberd_model::wire::{self, Limits, Malformed};
use regex::{Regex, RegexSet};

pub use rule::{Action, BadRule, HashKey, Rule, Says};
use words::Pass;

/// The rules, and how often each was needed.
#[derive(Debug)]
pub struct Redact {
    rules: Vec<Rule>,
    /// All patterns at once, to pass by texts that hold nothing: the one scan that most texts get.
    set: RegexSet,
    /// Whose pattern each of the set is: rule, and number in it.
    owners: Vec<(usize, usize)>,
    /// What earlier replacements look like: they are left alone.
    marks: Regex,
    /// The same, at the beginning of a text.
    mark: Regex,
    /// Whether some rule takes attributes by their name alone.
    by_name: bool,
    counts: Vec<AtomicU64>,
}

/// What came of a request.
#[derive(Debug)]
pub struct Redacted {
    /// The request without what the rules find; none: it held nothing, and stays as it came.
    pub body: Option<Vec<u8>>,
    /// What consumers are to know of it now.
    pub flags: Flags,
    /// How often each rule was needed, in their order.
    pub counts: Vec<u64>,
}

impl Redact {
    /// These rules, in the order in which they count; none if there are none.
    pub fn new(rules: Vec<Rule>) -> Result<Option<Self>, BadRule> {
        if rules.is_empty() {
            return Ok(None);
        }
        let bad = |error: regex::Error| BadRule { key: "patterns", message: format!("all together: {error}") };
        let mut owners = Vec::new();
        for (nr, rule) in rules.iter().enumerate() {
            owners.extend((0..rule.patterns.len()).map(|pattern| (nr, pattern)));
        }
        let all = rules.iter().flat_map(|rule| &rule.patterns).map(|pattern| pattern.regex.as_str());
        let set =
            regex::RegexSetBuilder::new(all).size_limit(64 << 20).dfa_size_limit(16 << 20).build().map_err(bad)?;
        let names: Vec<String> = rules.iter().map(|rule| regex::escape(&rule.name)).collect();
        let names = names.join("|");
        let mark = format!(r"\[(?:redacted:(?:{names}|{TOO_DEEP})|(?:{names}):[0-9a-f]{{64}})\]");
        let (marks, mark) = (Regex::new(&mark).map_err(bad)?, Regex::new(&format!("^{mark}")).map_err(bad)?);
        let by_name = rules.iter().any(|rule| rule.patterns.is_empty());
        let counts = rules.iter().map(|_| AtomicU64::new(0)).collect();
        Ok(Some(Self { rules, set, owners, marks, mark, by_name, counts }))
    }

    /// A request that the walk took whole, without what the rules find. An error: it must not be kept.
    pub fn request(&self, request: &[u8], limits: &Limits) -> Result<Redacted, Malformed> {
        let mut pass = Pass::over(self);
        let body = wire::reworded(request, &mut pass)?;
        let counts = pass.counts;
        for (total, count) in self.counts.iter().zip(&counts) {
            total.fetch_add(*count, Relaxed);
        }
        // A second look at what nobody has looked at yet: how it came says nothing of how it is.
        let checked = wire::check(body.as_deref().unwrap_or(request), limits)?;
        if checked.rejected > 0 || wire::spans(request).count() != checked.spans as usize {
            return Err(Malformed { what: "spans that cannot be redacted", at: 0 });
        }
        Ok(Redacted { body, flags: checked.flags, counts })
    }

    /// The rules' names with how often each was needed since the start.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.rules.iter().map(Rule::name).zip(self.counts.iter().map(|count| count.load(Relaxed)))
    }

    /// Appends the counts to a page in Prometheus' text form.
    pub fn write_prometheus(&self, page: &mut String) {
        page.push_str(
            "# HELP emberd_redacted_total What rules took out of spans.\n# TYPE emberd_redacted_total counter\n",
        );
        for (rule, count) in self.counts() {
            let _ = writeln!(page, "emberd_redacted_total{{rule=\"{rule}\"}} {count}");
        }
    }
}

/// The name that stands in place of what is nested too deep to be looked into.
const TOO_DEEP: &str = "too_deep";
