//! Which evaluator gave a score: name, version and a digest of how it was configured.
//!
//! Promise: equal identities give equal scores to equal examples (a judge's model may still change its mind); the digest does not
//! depend on the order of keys. It is part of the key under which results are cached and work is claimed.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Name, version and configuration of an evaluator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Identity {
    /// The evaluator's own name, also where a job calls it otherwise.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The first 128 bits of the SHA-256 over configuration and mapping (and template), as hex.
    pub digest: String,
}

impl Identity {
    /// The identity of an evaluator whose results depend on `parts`.
    pub fn new(name: &str, version: &str, parts: &[&Value]) -> Self {
        let mut text = String::new();
        for part in parts {
            canonical(part, &mut text);
            text.push('\n');
        }
        Self { name: name.to_owned(), version: version.to_owned(), digest: hex(&Sha256::digest(text.as_bytes())[..16]) }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}+{}", self.name, self.version, self.digest)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

/// JSON with sorted keys, so that a digest does not depend on how a map keeps its order.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (key, value) in keys {
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}
