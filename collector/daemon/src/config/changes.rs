//! What a configuration was made of, key by key, so that a later one can be held against it: for a reload, and for the reference.
//!
//! Promise: a change is seen wherever it was written, also within a file that a key names; a secret is never kept here, only a print that
//! tells whether it is the same.
//! Not here: doing something about a change (`daemon/reload`).
//! Kept by: `tests::{changes_are_named, the_reference_is_the_documented_file}`.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::document::Value;
use super::reader::named;

/// The keys that take effect on SIGHUP. A section alone: all of its keys.
pub(super) const RELOADED: [(&str, &[&str]); 4] = [
    ("intake", &["cors_origins", "keys_file"]),
    ("api", &["cors", "trusted_proxies", "rate", "burst"]),
    ("identity", &[]),
    ("flags", &[]),
];

/// Whether a key takes effect without a restart.
pub(super) fn is_reloaded(section: &str, key: &str) -> bool {
    RELOADED.iter().any(|(of, keys)| *of == section && (keys.is_empty() || keys.contains(&key)))
}

/// Keys whose value may hold a password.
const HIDDEN: [(&str, &str); 3] = [("store", "url"), ("cache", "redis_url"), ("rollback", "webhook")];

/// What one key was.
#[derive(Clone, PartialEq, Eq)]
struct Setting {
    /// As it may be shown.
    shown: String,
    /// Of its value, and of what the file holds that it names.
    print: u64,
    is_reloaded: bool,
}

/// Everything that was said, by `[section] key`.
#[derive(Clone, Default)]
pub(crate) struct Settings(BTreeMap<String, Setting>);

/// Not shown: what it holds is shown by the configuration itself.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings(..)")
    }
}

/// A key that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Which, as `[log] budget`.
    pub(crate) key: String,
    /// What it was, secrets aside.
    pub(crate) from: String,
    /// What it is.
    pub(crate) to: String,
    /// Whether it takes effect without a restart.
    pub(crate) is_reloaded: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, from, to, .. } = self;
        match from == to {
            true => write!(f, "{key}: what it holds changed"),
            false => write!(f, "{key}: {from} -> {to}"),
        }
    }
}

const DEFAULT: &str = "(default)";

impl Settings {
    /// Notes what a key says. Several of one name, as of `[[forward]]`, are one.
    pub(super) fn note(&mut self, section: &str, key: &str, value: &Value) {
        let text = written(value);
        let is_hidden = key.is_empty() || HIDDEN.contains(&(section, key));
        let setting = self.0.entry(named(section, key)).or_insert_with(|| Setting {
            shown: if is_hidden { "(not shown)".to_owned() } else { text.chars().take(200).collect() },
            print: 0,
            is_reloaded: is_reloaded(section, key),
        });
        setting.print = print(&(setting.print, text));
    }

    /// Notes what the file holds that a key names, or a variable that is a secret itself.
    pub(super) fn holds(&mut self, section: &str, key: &str, content: &str) {
        let setting = self.0.entry(named(section, key)).or_insert_with(|| Setting {
            shown: "(not shown)".to_owned(),
            print: 0,
            is_reloaded: is_reloaded(section, key),
        });
        setting.print = print(&(setting.print, content));
    }

    /// This key is now as it is in `newer`.
    pub(crate) fn take_up(&mut self, key: &str, newer: &Self) {
        match newer.0.get(key) {
            Some(setting) => drop(self.0.insert(key.to_owned(), setting.clone())),
            None => drop(self.0.remove(key)),
        }
    }

    /// What is different in `newer`.
    pub(crate) fn changes(&self, newer: &Self) -> Vec<Change> {
        let keys: std::collections::BTreeSet<&String> = self.0.keys().chain(newer.0.keys()).collect();
        let differ = keys.into_iter().filter_map(|key| {
            let (old, new) = (self.0.get(key), newer.0.get(key));
            let any = old.or(new)?;
            if old == new {
                return None;
            }
            let shown = |setting: Option<&Setting>| setting.map_or(DEFAULT.to_owned(), |setting| setting.shown.clone());
            let (from, to, is_reloaded) = (shown(old), shown(new), any.is_reloaded);
            Some(Change { key: key.clone(), from, to, is_reloaded })
        });
        differ.collect()
    }
}

fn print(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A value as TOML would write it, more or less: the same text for the same value.
fn written(value: &Value) -> String {
    match value {
        Value::Text(text) | Value::Untyped(text) => format!("{text:?}"),
        Value::Whole(number) => number.map_or("?".to_owned(), |number| number.to_string()),
        Value::Truth(truth) => truth.to_string(),
        Value::Other(kind) => (*kind).to_owned(),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| written(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) => {
            let pairs: Vec<String> = table.iter().map(|(key, of)| format!("{key} = {}", written(&of.value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}
