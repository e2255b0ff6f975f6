//! The environment: emberd's own names for every key, and the names that the app already uses.
//!
//! Every key `[section] key` is `EMBERD_SECTION_KEY`, or `EMBERD__SECTION__KEY`. The app's names stand below the former and
//! above the file; an empty one counts as absent, because compose files pass what is not set as empty.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use super::document::{Found, Value};
use super::faults::{Fault, Place, near};

/// The data directory, where `--data-dir` does not name it.
pub(super) const DATA_DIR: &str = "EMBERD_DATA_DIR";

/// Names that begin like emberd's keys and are none: what is logged, and what belongs to the build, the tests and the demo.
const OTHERS: [&str; 4] = ["EMBERD_LOG", "EMBERD_CACHE", "EMBERD_FIXTURES", "EMBERD_PHOENIX"];
/// The same, by how they begin.
const OTHERS_BEGIN: [&str; 3] = ["EMBERD_TEST_", "EMBERD_KILL_", "EMBERD_BENCH_"];

/// What the environment holds that may concern emberd.
#[derive(Default)]
pub(super) struct Environment {
    variables: BTreeMap<String, String>,
    /// The names of emberd's own that some key asked for, set or not.
    asked: BTreeSet<String>,
}

impl Environment {
    /// Takes in all variables; of those that are not UTF-8 only emberd's own are a fault.
    pub(super) fn of(variables: impl IntoIterator<Item = (OsString, OsString)>, faults: &mut Vec<Fault>) -> Self {
        let mut all = BTreeMap::new();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(all.insert(name, value)),
                Err(_) if name.starts_with("EMBERD_") => {
                    let place = Place::Variable(name.into());
                    faults.push(Fault { place, key: String::new(), message: "not UTF-8".into() });
                }
                Err(_) => (),
            }
        }
        Self { variables: all, asked: BTreeSet::new() }
    }

    /// What a key has under emberd's own names.
    pub(super) fn own(&mut self, section: &str, key: Option<&str>, faults: &mut Vec<Fault>) -> Option<Found> {
        let words = [Some("EMBERD"), Some(section), key];
        let name = |between: &str| words.iter().flatten().copied().collect::<Vec<_>>().join(between).to_uppercase();
        let names = [name("_"), name("__")].map(|name| name.replace('-', "_"));
        self.asked.extend(names.iter().cloned());
        let set: Vec<_> = names.iter().filter_map(|name| self.found(name)).collect();
        if let [_, second] = &set[..] {
            let message = format!("set twice: {} too", names[0]);
            faults.push(Fault { place: second.place.clone(), key: String::new(), message });
        }
        set.into_iter().next()
    }

    /// What the app's name holds; an empty one is as if it were not set.
    pub(super) fn app(&self, name: &str) -> Option<Found> {
        self.variables.get(name).filter(|text| !text.trim().is_empty()).and_then(|_| self.found(name))
    }

    /// The data directory's name.
    pub(super) fn data_dir(&mut self) -> Option<Found> {
        self.asked.insert(DATA_DIR.into());
        self.found(DATA_DIR)
    }

    fn found(&self, name: &str) -> Option<Found> {
        let text = self.variables.get(name)?;
        Some(Found { value: Value::Untyped(text.clone()), place: Place::Variable(name.into()) })
    }

    /// Names that begin with `EMBERD_` and mean nothing. Call when every key has asked.
    pub(super) fn finish(&self, faults: &mut Vec<Fault>) {
        let fault =
            |name: &str, message: String| Fault { place: Place::Variable(name.into()), key: String::new(), message };
        for name in self.variables.keys().filter(|name| name.starts_with("EMBERD_")) {
            let other = OTHERS.contains(&name.as_str()) || OTHERS_BEGIN.iter().any(|begin| name.starts_with(begin));
            if !other && !self.asked.contains(name) {
                let known = self.asked.iter().map(String::as_str);
                let hint = near(name, known).map_or(String::new(), |near| format!(", did you mean {near}?"));
                faults.push(fault(name, format!("unknown variable{hint}")));
            }
        }
    }
}
