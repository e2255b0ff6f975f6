//! `[[redact]]`: what is taken out of spans before they are kept.

use std::path::PathBuf;

use emberd_intake::redact::{Action, HashKey, Rule, Says};

use super::document::{Found, Value};
use super::reader::{Reader, Section};
use super::secret;
use super::units::{FromValue, one_of};

/// More rules than this are a mistake.
const RULES_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq)]
enum What {
    Drop,
    Mask,
    Hash,
}

impl FromValue for What {
    fn from_value(found: &Found) -> Result<Self, String> {
        one_of(found, &[("drop", Self::Drop), ("mask", Self::Mask), ("hash", Self::Hash)])
    }
}

/// The rules, in the order in which they count.
pub(super) fn redact(reader: &mut Reader) -> Vec<Rule> {
    let mut all: Vec<Rule> = Vec::new();
    let Some(found) = reader.repeated("redact") else { return all };
    let items = match found.value {
        Value::List(items) => items,
        other => {
            let message = format!("expected [[redact]], found {}", other.kind());
            reader.fault(found.place, "redact", "", message);
            return all;
        }
    };
    let place = found.place;
    if items.len() > RULES_MAX {
        reader.fault(place, "redact", "", format!("more than {RULES_MAX} rules"));
        return all;
    }
    for item in items {
        let mut section = reader.one("[redact]".into(), item);
        let Some(rule) = one(&mut section) else {
            section.finish();
            continue;
        };
        if all.iter().any(|other| other.name() == rule.name()) {
            section.fault("name", format!("{:?} is the name of two", rule.name()));
        }
        section.finish();
        all.push(rule);
    }
    all
}

fn one(section: &mut Section<'_>) -> Option<Rule> {
    let name: Option<String> = section.value("name", None);
    let attributes = section.value("attributes", Vec::new());
    let find = section.value("find", Vec::new());
    let patterns = section.value("patterns", Vec::new());
    let what = section.value("action", What::Mask);
    let key = section.path("key_file");
    section.check("name", name.is_some() || section.has_fault("name"), "is missing");
    let action = match (what, key) {
        (What::Drop, _) => Action::Drop,
        (What::Mask, _) => Action::Mask,
        (What::Hash, Some(path)) => match hash_key(path) {
            Ok(key) => Action::Hash(key),
            Err(message) => {
                section.fault("key_file", message);
                Action::Mask
            }
        },
        (What::Hash, None) => {
            section.check("key_file", section.has_fault("key_file"), "is missing: a hash is made with a key");
            Action::Mask
        }
    };
    let says = Says { name: name?, attributes, find, patterns, action };
    // A key that cannot be read is told already, and what stands in for it is not a second fault.
    let faulty = ["name", "attributes", "find", "patterns"].iter().any(|key| section.has_fault(key));
    match Rule::new(says) {
        Ok(rule) => Some(rule),
        Err(bad) => {
            for bad in bad.into_iter().filter(|bad| !faulty || !bad.key.is_empty()) {
                section.fault(bad.key, bad.message);
            }
            None
        }
    }
}

fn hash_key(path: PathBuf) -> Result<HashKey, String> {
    let secret = secret::SecretFile::at(path)?.secret()?;
    HashKey::new(secret.reveal().as_bytes()).ok_or_else(|| "the key is shorter than 16 bytes".to_owned())
}
