//! A rule: which attributes by name, which texts by what they hold, and what becomes of them.

use std::fmt;

use regex::{Regex, RegexBuilder};
use ring::hmac;

use super::presets::{Check, PRESETS};

/// A compiled expression may take this much; what needs more is refused with the configuration.
const REGEX_BYTES_MAX: usize = 4 << 20;
/// Names of attributes, and expressions, in one rule.
const EACH_MAX: usize = 256;
/// A key's least length: what is shorter can be guessed.
const KEY_BYTES_MIN: usize = 16;

/// What is done with what a rule finds.
#[derive(Clone)]
pub enum Action {
    /// The attribute goes; an element of a list becomes nothing, a name empty.
    Drop,
    /// `[redacted:RULE]` takes its place.
    Mask,
    /// HMAC-SHA-256 under a key takes its place, in hex: equal values stay equal.
    Hash(HashKey),
}

/// The key of a keyed hash; never shown.
#[derive(Clone)]
pub struct HashKey(hmac::Key);

impl HashKey {
    /// A key of these bytes; none if they are too few.
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Self> {
        (secret.len() >= KEY_BYTES_MIN).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    pub(super) fn hex(&self, value: &[u8]) -> String {
        let tag = hmac::sign(&self.0, value);
        tag.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
            use fmt::Write as _;
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "Drop",
            Self::Mask => "Mask",
            Self::Hash(_) => "Hash(..)",
        })
    }
}

/// What a rule says, as it is written.
#[derive(Clone, Debug)]
pub struct Says {
    /// What it is called in `[redacted:NAME]` and in metrics: 1 to 32 of a-z, 0-9, `_` and `-`.
    pub name: String,
    /// Attributes: `*` stands for a part between dots, `**` for any number of parts. Beside `find` or `patterns`: where these look;
    /// alone: the attributes themselves.
    pub attributes: Vec<String>,
    /// Ready-made patterns, by name.
    pub find: Vec<String>,
    /// Regular expressions over texts.
    pub patterns: Vec<String>,
    /// What is done.
    pub action: Action,
}

/// A rule that holds together.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) name: String,
    pub(super) action: Action,
    /// The names of attributes, one expression; none if there are none.
    pub(super) attributes: Option<Regex>,
    pub(super) patterns: Vec<Pattern>,
}

/// What texts are searched for.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) regex: Regex,
    pub(super) check: Option<Check>,
}

/// What is wrong with a rule: the key, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct BadRule {
    /// As the configuration calls it.
    pub key: &'static str,
    /// What is wrong there.
    pub message: String,
}

impl Rule {
    /// The rule, or all that is wrong with it.
    pub fn new(says: Says) -> Result<Self, Vec<BadRule>> {
        let mut bad = Vec::new();
        let mut fault = |key, message: String| bad.push(BadRule { key, message });
        if !is_name(&says.name) {
            fault("name", format!("{:?}: a rule's name has 1 to 32 of a-z, 0-9, - and _", says.name));
        }
        if says.attributes.is_empty() && says.find.is_empty() && says.patterns.is_empty() {
            fault("", "expected at least one of `attributes`, `find` and `patterns`".into());
        }
        let attributes = match attributes(&says.attributes) {
            Ok(attributes) => attributes,
            Err(message) => {
                fault("attributes", message);
                None
            }
        };
        let mut patterns = Vec::new();
        for name in &says.find {
            match PRESETS.iter().find(|preset| preset.name == name) {
                Some(preset) => match compiled(preset.pattern) {
                    Ok(regex) => patterns.push(Pattern { regex, check: preset.check }),
                    Err(message) => fault("find", message),
                },
                None => fault("find", format!("no pattern {name:?}: there are {}", names())),
            }
        }
        for pattern in says.patterns.iter().take(EACH_MAX) {
            match compiled(pattern) {
                Ok(regex) if regex.is_match("") => fault("patterns", format!("{pattern:?} finds the empty text")),
                Ok(regex) => patterns.push(Pattern { regex, check: None }),
                Err(message) => fault("patterns", format!("{pattern:?}: {message}")),
            }
        }
        if says.patterns.len() > EACH_MAX {
            fault("patterns", format!("more than {EACH_MAX}"));
        }
        match bad.is_empty() {
            true => Ok(Self { name: says.name, action: says.action, attributes, patterns }),
            false => Err(bad),
        }
    }

    /// What it makes of a value that it hashes whole; none if it does not hash.
    #[must_use]
    pub fn hashed(&self, value: &str) -> Option<String> {
        match &self.action {
            Action::Hash(key) if self.patterns.is_empty() => Some(key.hex(value.as_bytes())),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn names() -> String {
    PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")
}

fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=32).contains(&name.len()) && name.bytes().all(good)
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(bytes) => format!("takes more than {bytes} bytes"),
        // The last line says what is wrong; those before it draw where, for a terminal.
        other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    })
}

/// One expression for names of attributes. A name reaches what lies under it too, however that is written: as a list, as JSON, or flat
/// behind a dot.
fn attributes(names: &[String]) -> Result<Option<Regex>, String> {
    if names.is_empty() {
        return Ok(None);
    }
    if names.len() > EACH_MAX {
        return Err(format!("more than {EACH_MAX}"));
    }
    let mut all = Vec::new();
    for name in names {
        if !(1..=256).contains(&name.len()) {
            return Err(format!("{name:?}: a name has 1 to 256 bytes"));
        }
        let parts: Vec<String> =
            name.split("**").map(|part| part.split('*').map(regex::escape).collect::<Vec<_>>().join("[^.]*")).collect();
        all.push(parts.join(".*"));
    }
    compiled(&format!(r"(?is)^(?:{})(?:\.|\z)", all.join("|"))).map(Some)
}
