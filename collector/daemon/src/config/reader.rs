//! Asks for keys one by one, in the order file, app's names, `EMBERD_` names, and remembers what was asked: what is left over in
//! the end is unknown.
//!
//! Promise: a key exists because some code here asks for it, so no list of keys can fall behind the code; a bad value is noted
//! with its place and the default stands in, so that reading goes on to the next fault.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::changes::Settings;
use super::document::{Found, Table, Value};
use super::environment::Environment;
use super::faults::{Fault, Place, near};
use super::secret::{Secret, SecretFile};
use super::units::{self, FromValue};

/// How a path begins that is the name of a credential (systemd.exec(5), `LoadCredential=`).
const CREDENTIAL: &str = "credential:";
/// Where they are.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// A file as it was found; without one, all of it empty.
#[derive(Default)]
pub(super) struct File {
    pub(super) table: Table,
    /// The directory it lies in: relative paths in it begin there.
    pub(super) base: PathBuf,
    /// Whether others than its owner and group can read it.
    pub(super) shown: bool,
}

/// A file and an environment that are being read.
pub(super) struct Reader {
    top: Table,
    base: PathBuf,
    environment: Environment,
    shown: bool,
    /// Every `[section] key` that was asked for, and where its value stood.
    places: BTreeMap<(String, &'static str), Place>,
    /// What every key was told, for the next configuration to be held against.
    pub(super) settings: Settings,
    /// The app's name of a key, for the reference.
    #[cfg(test)]
    pub(super) apps: BTreeMap<(String, &'static str), String>,
    /// What is wrong so far.
    pub(super) faults: Vec<Fault>,
    /// What deserves a word, and yet works.
    pub(super) warnings: Vec<Fault>,
}

/// How a key is named in messages.
pub(super) fn named(section: &str, key: &str) -> String {
    if key.is_empty() { format!("[{section}]") } else { format!("[{section}] {key}") }
}

impl Reader {
    pub(super) fn new(file: File, environment: Environment, faults: Vec<Fault>) -> Self {
        let File { table: top, base, shown } = file;
        Self {
            top,
            base,
            environment,
            shown,
            places: BTreeMap::new(),
            settings: Settings::default(),
            #[cfg(test)]
            apps: BTreeMap::new(),
            faults,
            warnings: Vec::new(),
        }
    }

    /// The section of this name; an absent one has no keys, and all its defaults.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'_> {
        let found = self.top.remove(name);
        let header = found.as_ref().map_or(Place::Default, |found| found.place.clone());
        let table = match found.map(|found| found.value) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.fault(header.clone(), name, "", format!("expected a table, found {}", other.kind()));
                Table::new()
            }
        };
        Section {
            reader: self,
            label: name.to_owned(),
            env: Some(name),
            table,
            header,
            asked: Vec::new(),
            faulty: Vec::new(),
        }
    }

    /// A section that is there any number of times: the value under its name, from the file or the environment.
    pub(super) fn repeated(&mut self, name: &'static str) -> Option<Found> {
        let own = self.environment.own(name, None, &mut self.faults);
        self.places.insert((name.to_owned(), ""), Place::Default);
        let file = self.top.remove(name);
        let found = own.or(file)?;
        match units::untyped(&found) {
            Ok(value) => Some(Found { value, place: found.place }),
            Err(message) => {
                self.fault(found.place, name, "", message);
                None
            }
        }
    }

    /// One of them. Its keys cannot be set one by one in the environment.
    pub(super) fn one(&mut self, label: String, found: Found) -> Section<'_> {
        let Found { value, place: header } = found;
        self.settings.note(&label, "", &value);
        let table = match value {
            Value::Table(table) => table,
            other => {
                self.fault(header.clone(), &label, "", format!("expected a table, found {}", other.kind()));
                Table::new()
            }
        };
        Section { reader: self, label, env: None, table, header, asked: Vec::new(), faulty: Vec::new() }
    }

    /// The data directory's value in the environment.
    pub(super) fn data_dir(&mut self) -> Option<PathBuf> {
        let found = self.environment.data_dir()?;
        PathBuf::from_value(&found)
            .map_err(|message| self.faults.push(Fault { place: found.place, key: String::new(), message }))
            .ok()
    }

    /// The file of a credential that the service was started with.
    fn credential(&self, name: &str) -> Result<PathBuf, String> {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(format!("{name:?} is no credential's name"));
        }
        match self.environment.app(CREDENTIALS_DIRECTORY) {
            Some(Found { value: Value::Untyped(directory), .. }) => Ok(PathBuf::from(directory).join(name)),
            _ => Err(format!("no credentials were handed over ({CREDENTIALS_DIRECTORY} is not set)")),
        }
    }

    /// Notes that a key is wrong.
    pub(super) fn fault(&mut self, place: Place, section: &str, key: &str, message: impl Into<String>) {
        self.faults.push(Fault { place, key: named(section, key), message: message.into() });
    }

    /// Whether something is wrong with a key, so that what follows from that is not worth a second fault.
    pub(super) fn has_fault(&self, section: &str, key: &str) -> bool {
        let key = named(section, key);
        self.faults.iter().any(|fault| fault.key == key)
    }

    /// Where a key that was read got its value.
    pub(super) fn place(&self, section: &str, key: &'static str) -> Place {
        self.places.get(&(section.to_owned(), key)).cloned().unwrap_or(Place::Default)
    }

    #[cfg(test)]
    fn note_app(&mut self, section: &str, key: &'static str, app: &str) {
        if !app.is_empty() {
            self.apps.insert((section.to_owned(), key), app.to_owned());
        }
    }

    /// Every key that was asked for.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &(String, &'static str)> {
        self.places.keys()
    }

    /// Notes what nobody asked for. Call when every section has been read.
    pub(super) fn finish(&mut self) {
        let sections: Vec<&str> = self.places.keys().map(|(section, _)| section.as_str()).collect();
        for (name, found) in std::mem::take(&mut self.top) {
            let elsewhere = self.places.keys().find(|(_, key)| *key == name);
            let hint = match (near(&name, sections.iter().copied()), elsewhere) {
                (_, Some((section, _))) => format!(", did you mean the one of [{section}]?"),
                (Some(near), None) => format!(", did you mean [{near}]?"),
                (None, None) => String::new(),
            };
            let what = if matches!(found.value, Value::Table(_)) { "section" } else { "key" };
            let message = format!("unknown {what} `{name}`{hint}");
            self.faults.push(Fault { place: found.place, key: String::new(), message });
        }
        self.environment.finish(&mut self.faults);
    }
}

/// Paths by name, as `{ NAME = "FILE" }`.
#[derive(Default, PartialEq, Eq)]
struct Paths(Vec<(String, PathBuf)>);

impl FromValue for Paths {
    fn from_value(found: &Found) -> Result<Self, String> {
        let Value::Table(table) = units::untyped(found)? else {
            return Err(format!("expected a table such as {{ NAME = \"FILE\" }}, found {}", found.value.kind()));
        };
        let one = |(name, found): (String, Found)| match PathBuf::from_value(&found) {
            Ok(path) => Ok((name, path)),
            Err(message) => Err(format!("{name}: {message}")),
        };
        table.into_iter().map(one).collect::<Result<_, _>>().map(Self)
    }
}

impl Reader {
    /// Where a path that was written there leads.
    fn located(&self, path: PathBuf, place: &Place) -> Result<PathBuf, String> {
        if let Some(name) = path.to_str().and_then(|path| path.strip_prefix(CREDENTIAL)) {
            return self.credential(name);
        }
        Ok(match place {
            Place::File(..) => self.base.join(path),
            _ => path,
        })
    }
}

/// A section that is being read.
pub(super) struct Section<'r> {
    reader: &'r mut Reader,
    label: String,
    /// Its name in the environment, if its keys have one.
    env: Option<&'static str>,
    table: Table,
    header: Place,
    asked: Vec<&'static str>,
    /// The keys that are there and cannot be read.
    faulty: Vec<&'static str>,
}

impl Section<'_> {
    /// The value of a key, or `default`.
    pub(super) fn value<T: FromValue>(&mut self, key: &'static str, default: T) -> T {
        self.value_or(key, "", default)
    }

    /// The same for a key that the app has a name for.
    pub(super) fn value_or<T: FromValue>(&mut self, key: &'static str, app: &str, default: T) -> T {
        let mut value = default;
        // A bad value is a fault even where another one stands above it: it would be found at the worst time.
        for found in self.find(key, app) {
            match T::from_value(&found) {
                Ok(good) => value = good,
                Err(message) => {
                    self.faulty.push(key);
                    self.reader.fault(found.place, &self.label, key, message);
                }
            }
        }
        value
    }

    /// What a key has, from the least to the most that counts.
    fn find(&mut self, key: &'static str, app: &str) -> Vec<Found> {
        self.asked.push(key);
        let file = self.table.remove(key);
        #[cfg(test)]
        self.reader.note_app(&self.label, key, app);
        let app = self.reader.environment.app(app);
        let own = self.env.and_then(|env| self.reader.environment.own(env, Some(key), &mut self.reader.faults));
        let found: Vec<_> = [file, app, own].into_iter().flatten().collect();
        let place = found.last().map_or(Place::Default, |found| found.place.clone());
        // What stands in a section of many is noted with the section.
        if let (Some(found), Some(_)) = (found.last(), self.env) {
            self.reader.settings.note(&self.label, key, &found.value);
        }
        self.reader.places.insert((self.label.clone(), key), place);
        found
    }

    /// A path; a relative one in the file is relative to the file's directory, one that begins with `credential:` to where systemd put
    /// the unit's credentials.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let path: PathBuf = self.value(key, None)?;
        let place = self.place(key);
        self.reader.located(path, &place).map_err(|message| self.fault(key, message)).ok()
    }

    /// Texts by name, each in the file that stands there: `{ NAME = "FILE" }`.
    pub(super) fn secret_files(&mut self, key: &'static str) -> Vec<(String, Secret)> {
        let files = self.value(key, Paths::default());
        let place = self.place(key);
        let mut all = Vec::new();
        for (name, path) in files.0 {
            let read = self.reader.located(path, &place).and_then(SecretFile::at).and_then(|file| file.secret());
            match read {
                Ok(secret) => {
                    self.holds(key, secret.reveal());
                    all.push((name, secret));
                }
                Err(message) => self.fault(key, format!("{name}: {message}")),
            }
        }
        all
    }

    /// Notes what the file of a key holds, so that a change of it is seen.
    pub(super) fn holds(&mut self, key: &'static str, content: &str) {
        let key = if self.env.is_some() { key } else { "" };
        self.reader.settings.holds(&self.label, key, content);
    }

    /// The file with a secret that the key names.
    pub(super) fn secret_file(&mut self, key: &'static str) -> Option<SecretFile> {
        let path = self.path(key)?;
        let file = SecretFile::at(path).map_err(|message| self.fault(key, message)).ok()?;
        if let Ok(secret) = file.secret() {
            self.holds(key, secret.reveal());
        }
        Some(file)
    }

    /// The secret in such a file, or in the app's variable.
    pub(super) fn secret(&mut self, key: &'static str, app: &str) -> Option<Secret> {
        let path = self.path(key);
        #[cfg(test)]
        self.reader.note_app(&self.label, key, app);
        let own = matches!(self.place(key), Place::Variable(_));
        let secret = match self.reader.environment.app(app) {
            Some(Found { value: Value::Untyped(text), place }) if !own => {
                self.reader.places.insert((self.label.clone(), key), place);
                Secret::new(&text).map_err(|message| self.fault(key, message)).ok()
            }
            _ => SecretFile::at(path?).and_then(|file| file.secret()).map_err(|message| self.fault(key, message)).ok(),
        }?;
        self.holds(key, secret.reveal());
        Some(secret)
    }

    /// Where a key of this section got its value; for one that is absent, where the section begins.
    pub(super) fn place(&self, key: &'static str) -> Place {
        match self.reader.place(&self.label, key) {
            Place::Default => self.header.clone(),
            place => place,
        }
    }

    /// The same; for one that is absent, nowhere.
    pub(super) fn place_of(&self, key: &'static str) -> Place {
        self.reader.place(&self.label, key)
    }

    /// Notes that a key is wrong.
    pub(super) fn fault(&mut self, key: &'static str, message: impl Into<String>) {
        self.reader.fault(self.place(key), &self.label, key, message);
    }

    /// Notes that a key works, and yet deserves a word.
    pub(super) fn warn(&mut self, key: &'static str, message: impl Into<String>) {
        let fault = Fault { place: self.place(key), key: named(&self.label, key), message: message.into() };
        self.reader.warnings.push(fault);
    }

    /// A value outside its bounds is a fault.
    pub(super) fn check(&mut self, key: &'static str, good: bool, message: impl Into<String>) {
        if !good {
            self.fault(key, message);
        }
    }

    /// Whether a key is there and cannot be read, so that its absence is not worth a second fault.
    pub(super) fn has_fault(&self, key: &str) -> bool {
        self.faulty.contains(&key)
    }

    /// Whether a key's value stands in a file that others can read.
    pub(super) fn is_shown(&self, key: &'static str) -> bool {
        self.reader.shown && matches!(self.reader.place(&self.label, key), Place::File(..))
    }

    /// Whether the section has no key at all.
    pub(super) fn is_bare(&self) -> bool {
        self.table.is_empty()
    }

    /// The keys that nobody asked for yet, for a section in which they are names.
    pub(super) fn rest(&mut self) -> Table {
        std::mem::take(&mut self.table)
    }

    /// Notes the keys that nobody asked for.
    pub(super) fn finish(mut self) {
        for (name, found) in self.rest() {
            let hint = near(&name, self.asked.iter().copied())
                .map_or(String::new(), |near| format!(", did you mean `{near}`?"));
            self.reader.fault(found.place, &self.label, "", format!("unknown key `{name}`{hint}"));
        }
    }
}
